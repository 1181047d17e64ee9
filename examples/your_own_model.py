"""Guide a model of your own: wrap any callable as a Denoiser, and write the loss as a function.

Here the model is a mixture of eight Gaussians on a circle, whose perfect denoiser has a closed form. The loss pulls
points to the line y = x. Blue: where unguided points end; orange: guided ones, from the same noise. They gather where
the model has data *and* the loss is low: in the clusters near the line.
"""

import math
import os

import torch
from PIL import Image, ImageDraw
from torch import Tensor

import symguide as sg
from symguide import report

QUICK = bool(os.environ.get("SYMGUIDE_QUICK"))
schedule = sg.VP.linear()
angles = torch.arange(8) * math.tau / 8
centres = 2 * torch.stack([angles.cos(), angles.sin()], dim=1)
oracle = sg.MixtureDenoiser(centres, 0.01 * torch.eye(2), schedule=schedule)


def network(x: Tensor, timestep: Tensor) -> Tensor:
    """What you bring: a network that is called with x (B, ...) and a timestep (B,), and predicts eps, x0, v or flow."""
    return oracle(x, timestep / 1000).eps


def off_the_line(x0: Tensor) -> Tensor:
    """A loss is a function of clean samples that gives one number for each: here the squared distance to y = x."""
    return (x0[:, 0] - x0[:, 1]).square() / 2


denoiser = sg.Denoiser(network, schedule, predicts="eps", shape=(2,))
picture = Image.new("RGB", (400, 400), "white")
draw = ImageDraw.Draw(picture)
for name, loss, colour in (("unguided", None, "#0091d5"), ("guided", sg.SAG(off_the_line, n=4, scale=1.0), "#e08a00")):
    points = sg.sample(denoiser, batch=20 if QUICK else 300, steps=10 if QUICK else 50, seed=0, loss=loss).samples
    for x, y in (200 + 70 * points * torch.tensor([1, -1])).tolist():
        draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=colour)
    nearest = torch.cdist(points, centres).amin(dim=1).mean()
    print(f"{name:9} loss {off_the_line(points).mean():.3f}, distance to the nearest cluster {nearest:.3f}")
print("wrote", report.write("out/your_own_model.png", report.png(picture)))
