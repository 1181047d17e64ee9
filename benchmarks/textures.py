"""Where does a longer look-ahead pay, and along which noise? On textures whose denoiser is known in closed form.

    python benchmarks/textures.py [gram] [pixels] [--quick] [--fresh] [--threads 1]

The data: 200 textures of 16 numbers, a mixture of equal Gaussians. The first eight numbers are the cosine and sine of
four bands, with a random phase and a power of its own for each texture; the others tell eight classes apart. So one
call's estimate is exact, E[x_0 | x_t], and a blur: phases that are not decided yet cancel out in it.

gram: the powers of the four bands are to be those of a target, a loss of fourth order in x_0 like that of a Gram
matrix. pixels: two numbers of the texture are to have a value, a linear measurement.

SAG's normalised step, 25 DDIM steps, by eta, window, scale, n and path; all ways on the same noise. *typical* is the
median squared distance to the nearest texture, in units of what a sample of the data has (1).

Cells that are done are kept under out/benchmarks and not computed again; --fresh starts over.
"""

import math
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import symguide as sg
from benchmarks.common import Cells, arguments, save, table

FOLDER = Path("out/benchmarks")
D, COUNT, VARIANCE = 16, 200, 0.02
STEPS, SEEDS, NUM = 25, (0, 1, 2, 3, 4), 96
ETAS, WINDOWS, SCALES = (0.0, 1.0), ((0.0, 0.35), (0.35, 0.7), (0.0, 1.0)), (0.05, 0.15, 0.4)
WAYS: dict[str, dict[str, Any]] = {
    "one": {"n": 1},
    "ode 2": {"n": 2},
    "ode 4": {"n": 4},
    "own 2": {"n": 2, "path": "own"},
    "own 4": {"n": 4, "path": "own"},
    "own all": {"n": "all", "path": "own"},
    "fresh 4, K = 1": {"n": 4, "path": "fresh", "samples": 1},
    "fresh 4, K = 8": {"n": 4, "path": "fresh", "samples": 8},
}
"""Calls and path of each look-ahead: without noise, along the run's own, along noise that is not the run's."""


def textures(d: int = D, count: int = COUNT, schedule: sg.Schedule | None = None, seed: int = 3) -> sg.MixtureDenoiser:
    """Random textures of d numbers: d / 4 bands of a random power and phase, the rest by class."""
    g = torch.Generator().manual_seed(seed)

    def random(make: Callable[..., Tensor], *shape: int) -> Tensor:
        return make(*shape, generator=g, dtype=torch.float32).double()

    bands = d // 4
    amplitude, phase = 0.2 + 1.3 * random(torch.rand, count, bands), 2 * math.pi * random(torch.rand, count, bands)
    waves = torch.stack([amplitude * phase.cos(), amplitude * phase.sin()], dim=2).flatten(1)
    classes, centres = torch.randint(0, 8, (count,), generator=g), 0.9 * random(torch.randn, 8, d - 2 * bands)
    means = torch.cat([waves, centres[classes] + 0.3 * random(torch.randn, count, d - 2 * bands)], dim=1)
    return sg.MixtureDenoiser(means, VARIANCE * torch.eye(d), schedule=schedule or sg.VP.cosine())


def power(x0: Tensor) -> Tensor:
    """Of each band, (B, d / 4)."""
    bands = x0.shape[1] // 4
    return x0[:, : 2 * bands].unflatten(1, (bands, 2)).square().sum(dim=2)


def gram(x0: Tensor) -> Tensor:
    """Squared distance of the bands' powers to 1.6, 0.15, 1.0, 0.15, and so on."""
    target = x0.new_tensor([1.6, 0.15, 1.0, 0.15]).repeat(x0.shape[1] // 16)
    return (power(x0) - target).square().sum(dim=1)


def pixels(x0: Tensor) -> Tensor:
    """Squared distance of two numbers to 0.8 and -0.5."""
    return (x0[:, [0, 3]] - x0.new_tensor([0.8, -0.5])).square().sum(dim=1)


def typical(x0: Tensor, prior: sg.MixtureDenoiser) -> Tensor:
    """Squared distance to the nearest texture over what a sample of the data has, (B,)."""
    means = prior.centres @ prior.bases[0].T
    return torch.cdist(x0, means.to(x0)).min(dim=1).values.square() / (x0.shape[1] * VARIANCE)


LOSSES = {"gram": gram, "pixels": pixels}


def ways(loss: str, eta: float) -> list[str]:
    """The ways that are compared; many fresh look-aheads only where they might bring something."""
    return [way for way in WAYS if "K = 8" not in way or (loss == "gram" and eta > 0)]


class Guided:
    """Cells of the study."""

    def __init__(self) -> None:
        self.prior = textures()

    def cell(self, loss: str, eta: float, window: str, scale: float, way: str, seed: int, num: int) -> dict[str, Any]:
        """Mean of the loss at the end, and how typical the samples are. The way "none" is unguided."""
        objective = LOSSES[loss]
        begin, end = map(float, window.split(" to "))
        recipe = (
            None if way == "none" else sg.SAG(objective, scale=scale, window=(begin, end), memory="fast", **WAYS[way])
        )
        made = sg.sample(self.prior, batch=num, steps=STEPS, seed=seed, eta=eta, loss=recipe)
        cost = {"forward": made.cost.forward_calls, "backward": made.cost.backward_calls}
        near = typical(made.samples, self.prior).median().item()
        return {"loss at the end": objective(made.samples).mean().item(), "typical": near, **cost}


def study(loss: str, cells: Cells, quick: bool) -> dict[str, Any]:
    """All cells of one loss; a row for each setting, with each way's loss over one call's on the same seed."""
    etas, windows, scales, seeds, num = ETAS, WINDOWS, SCALES, SEEDS, NUM
    if quick:
        etas, windows, scales, seeds, num = etas[:1], windows[:1], scales[1:2], (0,), 16
    done, rows = [], []
    for eta in etas:
        for begin, end in tqdm(windows, desc=f"{loss}, eta {eta}"):
            window = f"{begin} to {end}"
            for scale in scales:
                setting = {"eta": eta, "window": window, "scale": scale}
                mine = {
                    way: [cells.get(loss, eta, window, scale, way, seed, num) for seed in seeds]
                    for way in ("none", *ways(loss, eta))
                }
                done += [cell for each in mine.values() for cell in each]
                rows.append(setting | summary(mine))
    print(f"\n{loss}: {num} samples, seeds {seeds}, {STEPS} steps\n\n{table(rows)}")
    return {"rows": rows, "cells": done}


def summary(mine: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """The loss without guidance and with one call, then ratios to one call, mean over seeds and standard deviation."""
    losses = {way: [cell["loss at the end"] for cell in each] for way, each in mine.items()}
    row = {"unguided": spread(losses["none"]), "one": spread(losses["one"])}
    ratios = {
        way: [a / b for a, b in zip(losses[way], losses["one"], strict=True)]
        for way in losses
        if way not in ("none", "one")
    }
    return row | {way: spread(values) for way, values in ratios.items()}


def spread(values: list[float]) -> str:
    return f"{fmean(values):.2f} ± {stdev(values) if len(values) > 1 else 0.0:.2f}"


def main() -> None:
    given = arguments(__doc__, list(LOSSES), "one setting, one seed", device=False)
    path = FOLDER / f"textures{'-quick' if given.quick else ''}.jsonl"
    cells = Cells(path, ("loss", "eta", "window", "scale", "way", "seed", "num"), Guided().cell, given.fresh)
    results = {loss: study(loss, cells, given.quick) for loss in given.words or LOSSES}
    if not given.quick:
        print("written:", save("textures", results))


if __name__ == "__main__":
    main()
