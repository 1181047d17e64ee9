"""The heart of symguide alone: the exact gradient of a loss n network calls ahead, with the memory of one call.

The table checks it against central differences along one random direction, and shows what it costs: calls per sample,
and the most bytes that autograd held at one time. Keeping all graphs (memory="fast") saves calls and costs memory; the
gradient is the same.
"""

import torch

import symguide as sg
from symguide import report
from symguide.meter import SavedBytes, show_bytes
from symguide.worlds import digits

torch.set_default_dtype(torch.float64)  # so that central differences are accurate
denoiser = sg.load("digits")
objective = sg.objectives.Classifier(digits.scorer(), label=3)
generator = torch.Generator().manual_seed(0)
x, direction = torch.randn(2, 1, 1, 8, 8, generator=generator)
t, h = 0.6, 1e-5

rows = []
for n in (1, 2, 4, 8):
    ahead = [objective(sg.lookahead(denoiser, x + sign * h * direction, t, n=n).x0) for sign in (1, -1)]
    expected = ((ahead[0] - ahead[1]) / (2 * h)).item()
    for memory in ("minimal", "fast"):
        with SavedBytes() as saved:
            gradient = sg.lookahead_gradient(denoiser, x, t, objective, n=n, memory=memory)
        slope = (gradient.value * direction).sum().item()
        costs = {"forward": gradient.forward_calls, "backward": gradient.backward_calls, "peak": saved.peak}
        rows.append({"n": f"n = {n}, {memory}", "error": abs(slope / expected - 1), **costs})
columns = (
    report.Column("n", "look-ahead"),
    report.Column("error", "relative error", "{:.1e}"),
    report.Column("forward", "forward calls"),
    report.Column("backward", "backward calls"),
    report.Column("peak", "held at most", show_bytes),
)
table = str(report.Table(columns, rows))
print(table)
print("wrote", report.write("out/gradient.txt", table + "\n"))
