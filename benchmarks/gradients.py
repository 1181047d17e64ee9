"""The look-ahead's gradient on the digits model: exactness, bytes, calls and seconds, by solver, n and memory plan.

    python benchmarks/gradients.py [--quick]

Exactness is in float64: against autograd through the same program, and against central differences along a random
direction for every sample. Bytes are what autograd saves for backward (storages once, weights not). Seconds are the
median of some repetitions, as a ratio to one forward call, measured in turn so that a slow moment hits all alike.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from common import save, table
from torch import Tensor

import symguide as sg
from symguide.meter import SavedBytes, show_bytes
from symguide.solver import SOLVERS
from symguide.worlds import digits

PLANS = ("minimal", "fast", 2, "auto")


def exactness(ns: list[int]) -> list[dict]:
    denoiser = sg.load("digits", dtype=torch.float64)
    objective = sg.objectives.Classifier(digits.scorer(dtype=torch.float64), list(range(4)))
    x = 0.6 * torch.randn(4, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    along = torch.nn.functional.normalize(torch.randn_like(x).flatten(1)).reshape(x.shape)
    rows = []
    for solver in SOLVERS:
        for n in ns:
            leaf = x.clone().requires_grad_()
            reference = torch.autograd.grad(objective(sg.lookahead(denoiser, leaf, 0.6, n, solver).x0).sum(), leaf)[0]
            h = 1e-4
            f = [objective(sg.lookahead(denoiser, x + c * h * along, 0.6, n, solver).x0) for c in (-2, -1, 1, 2)]
            slope = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h)
            worst = {"autograd": 0.0, "differences": 0.0}
            for plan in PLANS:
                value = sg.lookahead_gradient(denoiser, x, 0.6, objective, n, solver, memory=plan).value
                mine = (value * along).flatten(1).sum(dim=1)
                worst["autograd"] = max(worst["autograd"], ((value - reference).norm() / reference.norm()).item())
                worst["differences"] = max(worst["differences"], ((mine - slope).norm() / slope.norm()).item())
            rows.append({"solver": solver, "n": n, **{k: f"{v:.1e}" for k, v in worst.items()}})
    return rows


def costs(ns: list[int], batch: int, repetitions: int) -> list[dict]:
    denoiser = sg.load("digits", dtype=torch.float32)
    objective = sg.objectives.Classifier(digits.scorer(dtype=torch.float32), 3)
    x = torch.randn(batch, 1, 8, 8)
    tasks: dict[tuple, Callable[[], object]] = {("forward",): lambda: _forward(denoiser, x)}
    rows, made = [], {}
    for n in ns:
        for settings in ({"memory": 0}, *({"memory": m} for m in PLANS), {"jacobian": "first"}):
            label = next(iter(settings.values()))

            def task(n: int = n, settings: dict = settings) -> sg.Gradient:
                return sg.lookahead_gradient(denoiser, x, 0.6, objective, n, **settings)

            with SavedBytes() as saved:
                gradient = task()
            tasks[n, label] = task
            made[n, label] = (gradient, saved.peak)
    seconds = _in_turn(tasks, repetitions)
    one = seconds[("forward",)]
    for (n, label), (gradient, peak) in made.items():
        rows.append(
            {
                "n": n,
                "memory": label if label != "first" else 'jacobian="first"',
                "forward": gradient.forward_calls,
                "backward": gradient.backward_calls,
                "bytes": peak,
                "saved for backward": show_bytes(peak),
                "time / forward call": f"{seconds[n, label] / one:.1f}",
            }
        )
    return rows


@torch.no_grad()
def _forward(denoiser: sg.Denoiser, x: Tensor) -> Tensor:
    return denoiser(x, 0.6).x0


def _in_turn(tasks: dict[tuple, Callable[[], object]], repetitions: int) -> dict[tuple, float]:
    seconds: dict[tuple, list[float]] = {name: [] for name in tasks}
    for _ in range(repetitions):
        for name, task in tasks.items():
            begun = time.perf_counter()
            task()
            seconds[name].append(time.perf_counter() - begun)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few n, one repetition, nothing written")
    quick = parser.parse_args().quick
    exact = exactness([2] if quick else [1, 2, 4, 7])
    print(table(exact), end="\n\n")
    cost = costs([1, 4] if quick else [1, 2, 4, 8, 16], batch=4 if quick else 16, repetitions=1 if quick else 7)
    print(table([{k: v for k, v in row.items() if k != "bytes"} for row in cost]))
    peaks = {row["n"]: row["bytes"] for row in cost if row["memory"] == "minimal"}
    print(f"\nminimal: n = {max(peaks)} holds {peaks[max(peaks)] / peaks[1]:.3f} times the bytes of n = 1")
    if not quick:
        print("written:", save("gradients", {"exactness": exact, "costs": cost}))


if __name__ == "__main__":
    main()
