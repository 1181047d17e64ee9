"""Inpainting: keep the left half of digits that the model has not seen, and let it draw the rest."""

import os

import torch

import symguide as sg
from symguide import report
from symguide.worlds import digits

STEPS = 5 if os.environ.get("SYMGUIDE_QUICK") else 30
denoiser = sg.load("digits")
reference = digits.images("held_out")[:10]
mask = torch.zeros(1, 8, 8)
mask[..., :4] = 1
objective = sg.objectives.Region(reference, mask)

rows = {"reference": reference, "what is kept": reference * mask}
for name, loss in {
    "unguided": None,
    "DPS": sg.DPS(objective, scale=0.7),
    "DSG": sg.DSG(objective, rate=0.5),
    "SAG (n=4)": sg.SAG(objective, n=4, scale=0.6),
}.items():
    result = sg.sample(denoiser, batch=len(reference), steps=STEPS, seed=0, loss=loss)
    rows[name] = result.samples
    print(f"{name:10} loss on the kept half {objective(result.samples).mean():7.3f}, {result.cost.seconds:.1f} s")
picture = report.grid(list(rows.values()), list(rows), ink=True)
print("wrote", report.write("out/inpaint.png", report.png(picture)))
