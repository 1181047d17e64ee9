"""Does the rule of docs/which-method.md name the right look-ahead? On cells that it was made from, and on others.

    python benchmarks/rule.py [seen] [held-out] [--quick] [--fresh] [--threads 1]

A cell is a model, a loss, eta, a window, steps and a strength. In each SAG looks one call ahead, four without noise,
and four along the run's own noise, all with one strength, on the same noise. What counts is the loss at the end that
is followed; for a digit's class the judge's cross-entropy. The rule is right where the look-ahead that it names ends
within 5 % of the best of the three, in the mean over seeds.

*error* is one call's, at the middle of the window: |E[x_0 | x_t] - x_0| over that of the data's mean, root mean square.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import symguide as sg
from benchmarks import textures, theory
from benchmarks.common import arguments, save, table
from symguide.report.quality import judged
from symguide.rows import Rows
from symguide.solver import get_grid
from symguide.worlds import digits

FOLDER = Path("out/benchmarks")
SEEDS, ENOUGH = (0, 1), 1.05
WAYS: dict[str, dict[str, Any]] = {
    "one": {"n": 1},
    "ode 4": {"n": 4},
    "own 4": {"n": 4, "path": "own"},
}


@dataclass(frozen=True)
class Cell:
    """What is guided, how strongly, when, and by steps of what eta."""

    world: str
    loss: str
    eta: float
    window: tuple[float, float] = (0.0, 0.35)
    steps: int = 25
    scale: float = 0.15


def rule(order: int, eta: float, error: float) -> str:
    """The look-ahead of docs/which-method.md.

    Args:
        order: 1 for what a blur can be told of (a measurement, a mean, a choice), 2 for powers, contrasts, shapes.
        eta: of the steps.
        error: of one call, at the middle of the window.
    """
    if order == 1 or error < 0.3:
        return "one"
    return "ode 4" if eta == 0 else "own 4"


# Models: (denoiser, clean samples of the data, samples in a run)


def mixture(prior: sg.MixtureDenoiser) -> tuple[sg.Denoiser, Tensor, int]:
    g = torch.Generator().manual_seed(7)
    means = (prior.centres @ prior.bases[0].T).float()
    x0 = means[torch.randint(len(means), (512,), generator=g)]
    return prior, x0 + prior.variances[0].sqrt().float() * torch.randn(x0.shape, generator=g), 96


WORLDS: dict[str, Callable[[], tuple[sg.Denoiser, Tensor, int]]] = {
    "textures": lambda: mixture(textures.textures()),
    "textures, flow": lambda: mixture(textures.textures(schedule=sg.RectifiedFlow())),
    "textures, linear betas": lambda: mixture(textures.textures(schedule=sg.VP.linear())),
    "textures of 32": lambda: mixture(textures.textures(d=32, seed=5)),
    "rings": lambda: mixture(theory.rings()),
    "broad": lambda: mixture(theory.broad()),
    "digits": lambda: (sg.load("digits"), digits.images("train")[:512], 32),
}


# Losses: clean samples (B, ...) -> (B,), with their order


def contrast(x0: Tensor) -> Tensor:
    """Variance of a sample's numbers to 1.3 times what the data have."""
    target = 0.74 if x0.ndim == 4 else 0.9
    return (x0.flatten(1).var(dim=1) - target).square()


def mean(x0: Tensor) -> Tensor:
    """Mean of a sample's numbers to a value."""
    return (x0.flatten(1).mean(dim=1) - (-0.25 if x0.ndim == 4 else 0.3)).square()


def quiet(x0: Tensor) -> Tensor:
    """Powers of all bands to 0.2, which is another target than `gram`'s."""
    return (textures.power(x0) - 0.2).square().sum(dim=1)


def ratio(x0: Tensor) -> Tensor:
    """Power of the first band to twice that of the second."""
    p = textures.power(x0)
    return (p[:, 0] - 2 * p[:, 1]).square()


def ring(x0: Tensor) -> Tensor:
    return theory.radius(x0, x0)


def corner(x0: Tensor) -> Tensor:
    return theory.mode(x0, x0)


def spectrum(x0: Tensor) -> Tensor:
    """Power of a digit's second vertical and horizontal waves to 100, in units of 100."""
    p = torch.fft.rfft2(x0[:, 0]).abs().square() / 100
    return (p[:, 0, 2] - 1).square() + (p[:, 2, 0] - 1).square()


def elongation(x0: Tensor) -> Tensor:
    """Of a digit's ink to 0.1, whatever the direction: ((Qxx - Qyy)² + 4 Qxy²)^(1/2) / (Qxx + Qyy)."""
    ink = (x0[:, 0] + 1).clamp_min(0) / 2 + 1e-3
    place = torch.arange(8, dtype=x0.dtype)
    total = ink.sum(dim=(1, 2))
    y, x = (torch.einsum(f"bij,{i}->b", ink, place) / total for i in "ij")
    dy, dx = place[None, :, None] - y[:, None, None], place[None, None, :] - x[:, None, None]
    yy, xx, xy = ((ink * a * b).sum(dim=(1, 2)) for a, b in ((dy, dy), (dx, dx), (dx, dy)))
    return (((xx - yy).square() + 4 * xy.square() + 1e-6).sqrt() / (xx + yy) - 0.1).square()


def left(x0: Tensor) -> Tensor:
    """Left half of a held-out digit."""
    known = digits.images("held_out")[: len(x0)].to(x0)
    return (x0 - known)[..., :4].square().mean(dim=(1, 2, 3))


def label(x0: Tensor) -> Tensor:
    """The digit 0 ... 9 by the sample's index, by the scorer."""
    return sg.objectives.Classifier(scorer(), torch.arange(len(x0)) % 10)(x0)


scorer, judge = cache(digits.scorer), cache(digits.judge)


LOSSES: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "gram": (textures.gram, 2),
    "pixels": (textures.pixels, 1),
    "contrast": (contrast, 2),
    "mean": (mean, 1),
    "quiet": (quiet, 2),
    "ratio": (ratio, 2),
    "radius": (ring, 2),
    "mode": (corner, 1),
    "spectrum": (spectrum, 2),
    "elongation": (elongation, 2),
    "left half": (left, 1),
    "class": (label, 1),
}


SEEN = (
    Cell("digits", "contrast", 0.0),
    Cell("digits", "contrast", 0.0, (0.7, 1.0)),
    Cell("digits", "contrast", 1.0),
    Cell("digits", "class", 0.0, scale=0.3),
    Cell("digits", "class", 1.0, (0.0, 1.0), scale=0.3),
    Cell("digits", "left half", 1.0, (0.0, 1.0), scale=0.3),
)
"""What the rule was made from, beside the textures of docs/results/10-own-noise.md."""

HELD_OUT: tuple[Cell, ...] = ()
"""What it was not made from."""


class Guided:
    """Cells of all worlds, each loaded once."""

    def __init__(self) -> None:
        self.world = cache(lambda name: WORLDS[name]())

    def error(self, cell: Cell) -> float:
        """Of one call, at the middle of the window."""
        denoiser, x0, _ = self.world(cell.world)
        times = get_grid("uniform")(denoiser.schedule, denoiser.schedule.t_max, cell.steps)
        t = times[int(sum(cell.window) / 2 * cell.steps)]
        z = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            made = denoiser(denoiser.schedule.alpha(t) * x0 + denoiser.schedule.sigma(t) * z, t).x0
        return ((made - x0).norm() / (x0 - x0.mean(dim=0)).norm()).item()

    def end(self, way: str, seed: int, num: int | None, **settings: Any) -> dict[str, Any]:
        """The loss at the end of a run."""
        cell = Cell(**settings | {"window": tuple(settings["window"])})
        denoiser, _, usual = self.world(cell.world)
        objective, _ = LOSSES[cell.loss]
        recipe = sg.SAG(objective, scale=cell.scale, window=cell.window, memory="fast", **WAYS[way])
        num = num or usual
        made = sg.sample(denoiser, batch=num, steps=cell.steps, seed=seed, eta=cell.eta, loss=recipe).samples
        with torch.no_grad():
            if cell.loss == "class":
                return {"end": judged(judge(), made, torch.arange(num) % 10).loss.mean().item()}
            return {"end": objective(made).mean().item()}


def check(cells: tuple[Cell, ...], kept: Rows, quick: bool) -> list[dict[str, Any]]:
    """A row for each cell: what the rule names, what came of the three, and whether it was right."""
    guided, rows = Guided(), []
    for cell in tqdm(cells):
        error, order = guided.error(cell), LOSSES[cell.loss][1]
        named = rule(order, cell.eta, error)
        ends = {}
        for way in WAYS:
            made = []
            for seed in SEEDS[: 1 if quick else None]:
                settings = {"way": way, "seed": seed, "num": 4 if quick else None, **asdict(cell)}
                made.append(kept.get(settings, lambda settings=settings: guided.end(**settings))["end"])
            ends[way] = fmean(made)
        best = min(ends.values())
        row = asdict(cell) | {"window": "{:g} to {:g}".format(*cell.window), "order": order, "error": f"{error:.2f}"}
        row |= {way: f"{end:.3g}" for way, end in ends.items()}
        rows.append(row | {"rule": named, "right": "yes" if ends[named] <= ENOUGH * best else "no"})
    right = sum(row["right"] == "yes" for row in rows)
    print(f"\n{table(rows)}\n\nright in {right} of {len(rows)}")
    return rows


def main() -> None:
    given = arguments(__doc__, ["seen", "held-out"], "one cell, one seed", device=False)
    path = FOLDER / f"rule{'-quick' if given.quick else ''}.jsonl"
    if given.fresh:
        path.unlink(missing_ok=True)
    kept = Rows(path, {"rule": 1})
    for word in given.words or ("seen", "held-out"):
        cells = SEEN if word == "seen" else HELD_OUT
        rows = check(cells[:1] if given.quick else cells, kept, given.quick)
        if not given.quick:
            print("written:", save(f"rule-{word}", rows))


if __name__ == "__main__":
    main()
