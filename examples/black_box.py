"""Steer with a rule that has no gradient: draw several candidates for each sample and keep the one the rule likes best.

The rule counts the blobs of ink in a picture and the holes they enclose, by flood fill: plain Python that no gradient
passes. It asks for one blob with two holes, which of all digits only an 8 has.
"""

import os

import torch
from torch import Tensor

import symguide as sg
from symguide import report

QUICK = bool(os.environ.get("SYMGUIDE_QUICK"))


def regions(inside: Tensor, corners: bool) -> int:
    """How many connected regions a mask (H, W) has; `corners`: pixels that touch at a corner belong together."""
    left, count = {tuple(p) for p in inside.nonzero().tolist()}, 0
    near = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if corners or a * b == 0]
    while left:
        count, queue = count + 1, [left.pop()]
        while queue:
            i, j = queue.pop()
            found = {(i + a, j + b) for a, b in near} & left
            left -= found
            queue += found
    return count


def two_holes(x0: Tensor) -> list[float]:
    """One loss a sample: how far blobs and holes are from 1 and 2."""
    losses = []
    for picture in x0[:, 0]:
        ink = torch.nn.functional.pad(picture > 0, (1, 1, 1, 1))
        holes = regions(~ink, corners=False) - 1  # what is left of the paper besides the margin
        losses.append(float(abs(regions(ink, corners=True) - 1) + abs(holes - 2)))
    return losses


denoiser = sg.load("digits")
rule = sg.objectives.BlackBox(two_holes)
rows = {}
for n in (1, 4) if QUICK else (1, 4, 16):
    result = sg.sample(denoiser, batch=10, steps=5 if QUICK else 30, seed=0, particles=sg.BestOfN(rule, n=n))
    rows[f"best of {n}"] = result.samples
    right = int((rule(result.samples) == 0).sum())
    print(f"best of {n:2}: {right} of 10 obey the rule, {result.cost.seconds:.1f} s")
picture = report.grid(list(rows.values()), list(rows), ink=True)
print("wrote", report.write("out/black_box.png", report.png(picture)))
