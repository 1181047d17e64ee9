"""Does `sg.advise` name the right look-ahead? On cells that its rule was made from, and on cells drawn after it.

    python benchmarks/rule.py [seen] [held-out] [unseen] [--quick] [--fresh] [--threads 1]

A cell is a model, a loss, eta, a window, steps and a strength. In each SAG looks one call ahead, four without noise,
and four along the run's own noise (which with eta = 0 is another grid, and not compared), all with one strength, on the
same noise. What counts is the loss at the end that is followed; for a digit's class the judge's cross-entropy. The rule
is right where the look-ahead that it names ends within 5 % of the best, in the mean over seeds.

held-out: other cells of the same models and losses, drawn by chance. unseen: models and losses that the rule was not
made from. How often one look-ahead for all cells is right stands beside both.
"""

import random
from collections.abc import Callable, Iterable
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


def compared(eta: float) -> list[str]:
    """The ways that are others: without noise the run's own path is a look-ahead without noise on another grid."""
    return [way for way in WAYS if eta > 0 or way != "own 4"]


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
    "textures of 24": lambda: mixture(textures.textures(d=24, seed=9)),
    "rings": lambda: mixture(theory.rings()),
    "broad": lambda: mixture(theory.broad()),
    "digits": lambda: (sg.load("digits"), digits.images("train")[:512], 32),
}


# Losses: the squared distance of features of a sample to a target


@dataclass(frozen=True)
class Aim:
    """sum (feature(x_0) - target)², features (B, m)."""

    feature: Callable[[Tensor], Tensor]
    target: tuple[float, ...]
    kind: str = "statistic"

    def __call__(self, x0: Tensor) -> Tensor:
        return (self.feature(x0) - x0.new_tensor(self.target)).square().sum(dim=1)


def variance(x0: Tensor) -> Tensor:
    return x0.flatten(1).var(dim=1)[:, None]


def mean(x0: Tensor) -> Tensor:
    return x0.flatten(1).mean(dim=1)[:, None]


def ratio(x0: Tensor) -> Tensor:
    """How much the first band's power is above twice the second's."""
    return textures.power(x0) @ x0.new_tensor([1.0, -2.0] + [0.0] * (x0.shape[1] // 4 - 2))[:, None]


def edges(x0: Tensor) -> Tensor:
    """Mean squared difference of neighbours, along and across a picture."""
    axes = range(1, x0.ndim) if x0.ndim == 2 else (2, 3)
    return sum(x0.diff(dim=axis).square().flatten(1).mean(dim=1) for axis in axes)[:, None]  # type: ignore[index]


def waves(x0: Tensor) -> Tensor:
    """Power of a digit's second horizontal and vertical wave, over 100."""
    return torch.fft.rfft2(x0[:, 0]).abs().square()[:, [0, 2], [2, 0]] / 100


def elongation(x0: Tensor) -> Tensor:
    """Of a digit's ink, whatever the direction: ((Qxx - Qyy)² + 4 Qxy²)^(1/2) / (Qxx + Qyy)."""
    ink = (x0[:, 0] + 1).clamp_min(0) / 2 + 1e-3
    place = torch.arange(8, dtype=x0.dtype)
    total = ink.sum(dim=(1, 2))
    y, x = (torch.einsum(f"bij,{i}->b", ink, place) / total for i in "ij")
    dy, dx = place[None, :, None] - y[:, None, None], place[None, None, :] - x[:, None, None]
    yy, xx, xy = ((ink * a * b).sum(dim=(1, 2)) for a, b in ((dy, dy), (dx, dx), (dx, dy)))
    return (((xx - yy).square() + 4 * xy.square() + 1e-6).sqrt() / (xx + yy))[:, None]


class LeftHalf:
    """Left half of a held-out digit, another one for each sample."""

    kind = "place"

    def __call__(self, x0: Tensor) -> Tensor:
        known = digits.images("held_out")[: len(x0)].to(x0)
        return (x0 - known)[..., :4].square().mean(dim=(1, 2, 3))


class Class:
    """The digit 0 ... 9 by the sample's index, by the scorer."""

    kind = "choice"

    def __call__(self, x0: Tensor) -> Tensor:
        return sg.objectives.Classifier(scorer(), torch.arange(len(x0)) % 10)(x0)


scorer, judge = cache(digits.scorer), cache(digits.judge)


LOSSES: dict[str, Any] = {
    "gram": Aim(textures.power, (1.6, 0.15, 1.0, 0.15)),
    "gram of 32": Aim(textures.power, (1.6, 0.15, 1.0, 0.15) * 2),
    "quiet": Aim(textures.power, (0.2,) * 4),
    "ratio": Aim(ratio, (0.0,)),
    "contrast": Aim(variance, (0.9,)),
    "low contrast": Aim(variance, (0.45,)),
    "high contrast": Aim(variance, (1.4,)),
    "digit's contrast": Aim(variance, (0.74,)),
    "radius": Aim(lambda x0: x0[:, :2].square().sum(dim=1, keepdim=True), (4.0,)),
    "low radius": Aim(lambda x0: x0[:, :2].square().sum(dim=1, keepdim=True), (1.0,)),
    "waves": Aim(waves, (0.7, 0.3)),
    "elongation": Aim(elongation, (0.4,)),
    "pixels": Aim(lambda x0: x0[:, [0, 3]], (0.8, -0.5), "place"),
    "mean": Aim(mean, (0.2,)),
    "digit's mean": Aim(mean, (-0.3,)),
    "edges": Aim(edges, (1.7,)),
    "few edges": Aim(edges, (0.9,)),
    "digit's edges": Aim(edges, (1.2,)),
    "digit's few edges": Aim(edges, (0.9,)),
    "upper half's mean": Aim(lambda x0: x0[:, 0, :4].mean(dim=(1, 2))[:, None], (-0.25,)),
    "left half": LeftHalf(),
    "mode": Aim(lambda x0: x0[:, :2], (2.0, 0.0), "choice"),
    "class": Class(),
}
"""By name."""


BY_HAND = (
    *(Cell("textures", loss, eta) for loss in ("contrast", "high contrast") for eta in (0.0, 1.0)),
    Cell("textures of 32", "gram of 32", 0.0),
    Cell("textures of 32", "gram of 32", 1.0),
    Cell("textures, flow", "quiet", 0.0, (0.0, 1.0)),
    Cell("textures, linear betas", "quiet", 1.0, (0.35, 0.7), steps=50),
    Cell("textures", "ratio", 0.0, steps=15),
    Cell("textures", "mean", 0.0),
    Cell("rings", "radius", 0.0),
    Cell("rings", "mode", 1.0, (0.0, 1.0)),
    Cell("broad", "radius", 1.0, steps=50),
    Cell("digits", "waves", 0.0),
    Cell("digits", "elongation", 0.0),
    Cell("digits", "digit's mean", 1.0, (0.0, 1.0)),
    Cell("digits", "class", 1.0, (0.35, 0.7), steps=15, scale=0.3),
    Cell("textures, flow", "gram", 0.0, (0.7, 1.0)),
    Cell("textures of 32", "ratio", 1.0),
    Cell("textures, flow", "gram", 1.0, (0.0, 1.0), steps=50, scale=0.05),
    Cell("rings", "radius", 1.0),
    Cell("textures", "quiet", 1.0, (0.35, 0.7), scale=0.4),
    Cell("textures of 32", "contrast", 0.0, (0.0, 1.0), steps=15),
    Cell("textures, linear betas", "gram", 0.0, (0.0, 1.0), scale=0.05),
    Cell("broad", "mean", 1.0, (0.0, 1.0)),
    Cell("rings", "pixels", 1.0, steps=50),
    Cell("textures of 32", "low contrast", 1.0),
    Cell("digits", "waves", 1.0),
    Cell("digits", "left half", 0.0, (0.35, 0.7), scale=0.3),
    Cell("digits", "digit's contrast", 0.0),
    Cell("digits", "digit's contrast", 0.0, (0.7, 1.0)),
    Cell("digits", "digit's contrast", 1.0),
    Cell("digits", "class", 0.0, scale=0.3),
    Cell("digits", "class", 1.0, (0.0, 1.0), scale=0.3),
    Cell("digits", "left half", 1.0, (0.0, 1.0), scale=0.3),
    Cell("digits", "elongation", 1.0),
    Cell("textures of 32", "mean", 1.0, (0.35, 0.7)),
    Cell("broad", "mean", 0.0, (0.0, 1.0)),
    Cell("rings", "low radius", 1.0, (0.0, 1.0), scale=0.05),
    Cell("textures of 32", "pixels", 1.0, (0.35, 0.7)),
    Cell("textures, linear betas", "pixels", 0.0, steps=50),
    Cell("textures, flow", "contrast", 1.0, (0.0, 1.0), steps=15),
    Cell("textures, flow", "ratio", 0.0, (0.35, 0.7)),
    Cell("rings", "mode", 0.0),
    Cell("digits", "elongation", 1.0, (0.35, 0.7), steps=15),
    Cell("digits", "waves", 0.0, (0.35, 0.7)),
)
"""What three earlier forms were made from, or held against, where they were right in 9 of 14, 9 of 11 and 8 of 10."""

COMMON = ("gram", "quiet", "ratio", "contrast", "low contrast", "high contrast", "mean", "pixels")
LOSSES_OF = {
    "textures": COMMON,
    "textures, flow": COMMON,
    "textures, linear betas": COMMON,
    "textures of 32": ("gram of 32", *COMMON[2:]),
    "rings": ("radius", "low radius", "mode", "pixels"),
    "broad": ("radius", "low radius", "mean"),
    "digits": ("waves", "elongation", "digit's contrast", "digit's mean", "left half", "class"),
}
UNSEEN = {
    "textures of 24": ("edges", "few edges", "ratio", "low contrast", "mean", "pixels"),
    "digits": ("digit's edges", "digit's few edges", "upper half's mean"),
}
"""A model and losses that the rule was not made from."""


def drawn(count: int, seed: int, losses: dict[str, tuple[str, ...]], but: Iterable[Cell] = ()) -> tuple[Cell, ...]:
    """Cells by chance, none twice, and none of `but`."""
    chance, made, but = random.Random(seed), dict[Cell, None](), set(but)
    while len(made) < count:
        world = chance.choice(list(losses))
        cell = Cell(
            world,
            chance.choice(losses[world]),
            chance.choice((0.0, 1.0)),
            chance.choice(((0.0, 0.35), (0.35, 0.7), (0.7, 1.0), (0.0, 1.0))),
            chance.choice((15, 25, 50)),
            chance.choice((0.05, 0.15, 0.4)),
        )
        if cell not in but:
            made[cell] = None
    return tuple(made)


SEEN = (*drawn(210, 1, LOSSES_OF), *BY_HAND)
"""What the rule was made from."""

PARTS = {"seen": SEEN, "held-out": drawn(40, 2, LOSSES_OF, SEEN), "unseen": drawn(20, 3, UNSEEN)}


class Guided:
    """Cells of all worlds, each loaded once."""

    def __init__(self) -> None:
        self.world = cache(lambda name: WORLDS[name]())

    def advice(self, cell: Cell) -> sg.Advice | None:
        """None where the loss is not one of features that all samples share: a choice, or another place for each."""
        denoiser, x0, _ = self.world(cell.world)
        loss = LOSSES[cell.loss]
        if not isinstance(loss, Aim):
            return None
        given = {"eta": cell.eta, "window": cell.window, "steps": cell.steps, "kind": loss.kind}
        return sg.advise(denoiser, x0, loss.feature, x0.new_tensor(loss.target), **given)

    def end(self, way: str, seed: int, num: int | None, **settings: Any) -> dict[str, Any]:
        """The loss at the end of a run."""
        cell = Cell(**settings | {"window": tuple(settings["window"])})
        denoiser, _, usual = self.world(cell.world)
        objective = LOSSES[cell.loss]
        recipe = sg.SAG(objective, scale=cell.scale, window=cell.window, memory="fast", **WAYS[way])
        num = num or usual
        made = sg.sample(denoiser, batch=num, steps=cell.steps, seed=seed, eta=cell.eta, loss=recipe).samples
        with torch.no_grad():
            if cell.loss == "class":
                return {"end": judged(judge(), made, torch.arange(num) % 10).loss.mean().item()}
            return {"end": objective(made).mean().item()}


def way_of(advice: sg.Advice | None) -> str:
    """Its name among WAYS."""
    return "one" if advice is None or advice.n == 1 else f"{advice.path} {advice.n}"


def check(cells: tuple[Cell, ...], kept: Rows, quick: bool) -> list[dict[str, Any]]:
    """A row for each cell: what the rule names, what came of the three, and whether it was right."""
    guided, rows = Guided(), []
    for cell in tqdm(cells):
        advice = guided.advice(cell)
        named = way_of(advice)
        ends = {}
        for way in WAYS:
            made = []
            for seed in SEEDS[: 1 if quick else None]:
                settings = {"way": way, "seed": seed, "num": 4 if quick else None, **asdict(cell)}
                made.append(kept.get(settings, lambda settings=settings: guided.end(**settings))["end"])
            ends[way] = fmean(made)
        enough = ENOUGH * min(ends[way] for way in compared(cell.eta))
        row = asdict(cell) | {"window": "{:g} to {:g}".format(*cell.window), "kind": LOSSES[cell.loss].kind}
        for key in ("bias", "middle", "end"):
            row[key] = "" if advice is None else f"{getattr(advice, key):.2f}"
        row |= {way: f"{end:.3g}" for way, end in ends.items()}
        good = [way for way in compared(cell.eta) if ends[way] <= enough]
        rows.append(row | {"rule": named, "right": "yes" if named in good else "no", "good": good})
    return rows


def counts(rows: list[dict[str, Any]]) -> dict[str, str]:
    """In how many cells the rule is right, and one look-ahead for all of its kind of steps."""
    fixed = {
        "always one call": ("one", "one"),
        "always four": ("ode 4", "ode 4"),
        "always four, own noise where there is any": ("ode 4", "own 4"),
    }
    found = {"cells": str(len(rows)), "the rule": str(sum(row["right"] == "yes" for row in rows))}
    for name, (without, noisy) in fixed.items():
        found[name] = str(sum((noisy if row["eta"] else without) in row["good"] for row in rows))
    return found


def main() -> None:
    given = arguments(__doc__, list(PARTS), "one cell, one seed", device=False)
    path = FOLDER / f"rule{'-quick' if given.quick else ''}.jsonl"
    if given.fresh:
        path.unlink(missing_ok=True)
    kept = Rows(path, {"rule": 1})
    for word in given.words or PARTS:
        rows = check(PARTS[word][: 1 if given.quick else None], kept, given.quick)
        shown = [{key: value for key, value in row.items() if key != "good"} for row in rows]
        print(f"\n{table(shown)}\n\n{table([counts(rows)])}")
        if not given.quick:
            print("written:", save(f"rule-{word}", rows))


if __name__ == "__main__":
    main()
