"""What does a look-ahead bring where the SAG paper measured it? Its ratios, its strength curve, and its other settings.

    python benchmarks/papercell.py [PART ...] [--quick] [--fresh] [--report] [--threads 1]

The paper's cell: beside a caption (CFG 3), 25 deterministic steps (eta = 0), guided in the middle, from 0.3 to 0.7 of
the steps, the same strength for every n, and judged by the loss that is followed. Around it one thing at a time is
another: eta = 1, where the look-ahead is one along the run's own noise, too; the strength; the window; the published
update rule and repeats (`SAG.paper`); the gradient through the first call alone. n = 1 is FreeDoM.

Runs are paired: n = 1, 2 and 4 start from the same noise and follow the same references. PART is one of PARTS, all in
this order where none is given. --report measures nothing and writes what is there. Cells that are done are kept under
out/benchmarks and not computed again; --fresh starts over.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from tqdm import tqdm

import symguide as sg
from benchmarks.common import Cells, arguments, save, table
from benchmarks.world import FIGURES, STEPS, WEIGHT, World, over_seeds

FOLDER = Path("out/benchmarks")
KEYS = ("task", "n", "path", "eta", "scale", "start", "end", "form", "steps", "weight", "model", "seed", "num")
MIDDLE = (0.3, 0.7)
CURVE = (0.15, 0.3, 0.6, 1.0)
FORMS: dict[str, Callable[..., sg.SAG]] = {
    "": sg.SAG,
    "first": lambda objective, **given: sg.SAG(objective, jacobian="first", **given),
    "two repeats": lambda objective, **given: sg.SAG(objective, repeats=2, **given),
    "published": lambda objective, scale, **given: sg.SAG.paper(objective, **given),
}
"""What is set beside n, window and scale; the published form has its own rule in the place of a scale."""

Cell = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """One way to guide; n = 0 is unguided."""

    task: str
    n: int
    path: str = "ode"
    eta: float = 0.0
    scale: float = 0.3
    window: tuple[float, float] = MIDDLE
    form: str = ""
    steps: int = STEPS
    weight: float = WEIGHT
    model: str = "scenes"

    @property
    def key(self) -> tuple[Any, ...]:
        """The first of KEYS."""
        return (
            self.task,
            self.n,
            self.path,
            self.eta,
            self.scale,
            *self.window,
            self.form,
            self.steps,
            self.weight,
            self.model,
        )


def plans(task: str, ns: Sequence[int], **given: Any) -> list[Plan]:
    return [Plan(task, n, **given) for n in ns]


def curve(task: str, eta: float, scales: Sequence[float], model: str = "scenes") -> list[Plan]:
    return [Plan(task, n, eta=eta, scale=scale, model=model) for scale in scales for n in (1, 2)]


FIVE, THREE = (0, 1, 2, 3, 4), (0, 1, 2)
CHOICES = ("identity", "personalisation")
MODELS = ("scenes-eps", "scenes-denoiser-at-06500")
"""The network of `scenes` as one that predicts the noise, on linear betas; and as it is, on the way of its training."""
PARTS: dict[str, tuple[list[Plan], tuple[int, ...], int]] = {
    "cell": (plans("style", (1, 2)), FIVE, 64),
    "choices": ([p for name in CHOICES for p in plans(name, (1, 2))], FIVE, 64),
    "noise": (plans("style", (1, 2), eta=1.0), FIVE, 64),
    "own": (plans("style", (2,), eta=1.0, path="own"), FIVE, 64),
    "aesthetics": (plans("aesthetics", (1, 2)) + plans("aesthetics", (1, 2), eta=1.0), FIVE, 64),
    "four": (plans("style", (4,)), FIVE, 64),
    "strength": (curve("style", 0.0, (0.6, 0.15, 0.3, 1.0)) + plans("style", (0,)), FIVE, 64),
    "strength-noise": (curve("style", 1.0, (0.6, 0.15, 0.3, 1.0)) + plans("style", (0,), eta=1.0), FIVE, 32),
    "strength-fifty": (
        [
            Plan("style", n, scale=scale, steps=50)
            for n, scale in ((1, 0.3), (2, 0.3), (1, 0.6), (2, 0.15), (1, 1.0), (2, 0.6))
        ],
        THREE,
        32,
    ),
    "strength-personalisation": (curve("personalisation", 0.0, (0.6, 1.0)), THREE, 32),
    "strength-aesthetics": (
        curve("aesthetics", 0.0, (0.6, 0.15, 1.0)) + plans("aesthetics", (0,)),
        THREE,
        32,
    ),
    "first": ([Plan("style", 2, form="first")], THREE, 64),
    "own-deterministic": (plans("style", (2, 4), path="own"), THREE, 64),
    "choices-noise": ([p for name in CHOICES for p in plans(name, (1, 2), eta=1.0)], FIVE, 64),
    "four-noise": (plans("style", (4,), eta=1.0) + plans("style", (4,), eta=1.0, path="own"), FIVE, 64),
    "sides": (
        [
            plan
            for given in (
                {"window": (0.0, 0.35)},
                {"window": (0.0, 1.0)},
                {"form": "published"},
                {"form": "two repeats"},
                {"steps": 50},
                {"weight": 7.0},
            )
            for plan in plans("style", (1, 2), **given)
        ],
        THREE,
        32,
    ),
    "eps": (
        [
            plan
            for model in MODELS
            for plan in [Plan("style", 0, model=model), *curve("style", 0.0, (0.3, 0.6, 0.15, 1.0), model)]
        ],
        THREE,
        32,
    ),
    "sides-noise": (
        [
            plan
            for given in ({"window": (0.0, 0.35)}, {"window": (0.0, 1.0)}, {"steps": 50}, {"weight": 7.0})
            for plan in plans("style", (1, 2), eta=1.0, **given)
        ],
        THREE,
        32,
    ),
}
"""Plans, seeds and samples on each, the most important first."""

QUICK = {"cell": (plans("style", (1, 2)), (0,), 2)}


class Guided:
    """Cells of the study.

    Args:
        device: where it is run.
        real: pictures of the data that the Frechet distance is taken to.
        world: makes the world of a model.
    """

    def __init__(self, device: str, real: int, world: type[World] = World) -> None:
        self.world = cache(lambda model: world(device, model, real=real))

    def cell(self, *values: Any) -> Cell:
        """One plan on one seed, by KEYS."""
        key = dict(zip(KEYS, values, strict=True))
        n, along = key["n"], {} if key["path"] == "ode" else {"path": key["path"]}

        def make(objective: Any) -> sg.SAG:
            window = key["start"], key["end"]
            return FORMS[key["form"]](objective, n=n, scale=key["scale"], window=window, memory="fast", **along)

        world = self.world(key["model"])
        world.weight = key["weight"]
        run = key["task"], make if n else None, key["seed"], key["num"], key["steps"]
        return key | world.measure(*run, eta=key["eta"])


def key_of(cell: Cell) -> tuple[Any, ...]:
    """The key of a cell's plan."""
    return tuple(cell[key] for key in KEYS[:-2])


def of(cells: Sequence[Cell], plan: Plan) -> list[Cell]:
    """Cells of a plan, by seed; of the most samples that there are."""
    mine = [cell for cell in cells if key_of(cell) == plan.key]
    most = max((cell["num"] for cell in mine), default=0)
    return sorted((cell for cell in mine if cell["num"] == most), key=lambda cell: cell["seed"])


def paired(cells: Sequence[Cell], plan: Plan, base: Plan) -> list[tuple[Cell, Cell]]:
    """Cells of both plans, where both have the seed and as many samples."""
    theirs = {(cell["seed"], cell["num"]): cell for cell in cells if key_of(cell) == base.key}
    return [(cell, theirs[at]) for cell in of(cells, plan) if (at := (cell["seed"], cell["num"])) in theirs]


def ratio(cells: Sequence[Cell], plan: Plan, base: Plan, key: str) -> str:
    """Mean of the seeds' own ratios ± their standard deviation."""
    each = [ours[key] / theirs[key] for ours, theirs in paired(cells, plan, base)]
    return f"{statistics.fmean(each):.3f} ± {statistics.stdev(each) if len(each) > 1 else 0.0:.3f}" if each else ""


def base_of(plan: Plan) -> Plan:
    """One call, and the rest alike."""
    return replace(plan, n=1, path="ode", form="" if plan.form == "first" else plan.form)


def rows(
    cells: Sequence[Cell], every: Sequence[Plan], titles: Mapping[str, tuple[str, int]] = FIGURES
) -> list[dict[str, Any]]:
    """A row for each plan that was measured: figures, and ratios to one call, seed by seed."""
    made = []
    for plan in every:
        if not (mine := of(cells, plan)):
            continue
        base = base_of(plan)
        ratios = {
            f"{key} : one call": ratio(cells, plan, base, key) if plan.n > 1 else "" for key in ("scorer", "judge")
        }
        figures = over_seeds(mine, titles)
        made.append(
            {
                "task": plan.task,
                "eta": f"{plan.eta:g}",
                "n": plan.n or "unguided",
                "path": "" if plan.n < 2 else plan.path,
                "scale": "" if not plan.n or plan.form == "published" else plan.scale,
                "window": "-".join(f"{part:g}" for part in plan.window) if plan.n else "",
                "form": plan.form,
                "steps": plan.steps,
                "CFG": f"{plan.weight:g}",
                "model": plan.model,
                **{key: figures[key] for key in titles},
                **ratios,
                "calls": f"{figures['forward']} + {figures['backward']}",
                "runs": f"{len(mine)} x {mine[0]['num']}",
            }
        )
    return made


def lowest(points: Sequence[tuple[float, float]], kept: float) -> float:
    """The lowest judge along straight lines from point (shape, judge) to point, where at least `kept` is read.

    >>> lowest([(0.9, 4.0), (0.7, 3.0), (0.5, 1.0)], 0.6)
    2.0
    """
    found = [judge for shape, judge in points if shape >= kept]
    for (a, low), (b, high) in pairwise(points):
        if min(a, b) < kept < max(a, b):
            found.append(low + (high - low) * (kept - a) / (b - a))
    return min(found, default=float("nan"))


def at_equal_shapes(
    cells: Sequence[Cell],
    task: str,
    eta: float,
    kept: float,
    model: str = "scenes",
    n: int = 2,
    what: str = "shape",
) -> tuple[float, tuple[float, float], int] | None:
    """Ratio of the judge's figure, n calls to one, at equal shapes: with its 95 % interval, and how many seeds.

    `what` is the figure that is kept, where it is not that of shapes.

    On the curve of each over the strengths, from unguided on, the lowest judge while `kept` of the shapes are read. The
    interval is that of all resamples of the seeds; None where a curve has gaps or does not get there.
    """
    curves = [[Plan(task, m if s else 0, eta=eta, scale=s or 0.3, model=model) for s in (0.0, *CURVE)] for m in (n, 1)]
    num = min(max((c["num"] for c in of(cells, plan)), default=0) for line in curves for plan in line)
    same = [cell for cell in cells if cell["num"] == num]
    by_seed = [[{c["seed"]: c for c in of(same, plan)} for plan in line] for line in curves]
    seeds = sorted(set.intersection(*(set(found) for line in by_seed for found in line)))

    def value(drawn: Sequence[int]) -> float:
        both = [
            lowest([tuple(statistics.fmean(p[s][key] for s in drawn) for key in (what, "judge")) for p in line], kept)  # type: ignore[misc]
            for line in by_seed
        ]
        return both[0] / both[1]

    if not seeds or (middle := value(seeds)) != middle:
        return None
    drawn = sorted(v for v in map(value, product(seeds, repeat=len(seeds))) if v == v)
    cut = int(0.025 * len(drawn))
    return middle, (drawn[cut], drawn[-1 - cut]), len(seeds)


def equal_shapes(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Rows of `at_equal_shapes`, with strengths that are equal beside them."""
    made = []
    for model, task, eta in product(("scenes", *MODELS), ("style", "aesthetics"), (0.0, 1.0)):
        row: dict[str, Any] = {"model": model, "task": task, "eta": f"{eta:g}"}
        for kept in (0.8, 0.7, 0.6, 0.5):
            found = at_equal_shapes(cells, task, eta, kept, model)
            row[f"{kept:.0%} kept"] = (
                "" if found is None else f"{found[0]:.2f} ({found[1][0]:.2f} to {found[1][1]:.2f})"
            )
        if any(row[f"{kept:.0%} kept"] for kept in (0.8, 0.7, 0.6, 0.5)):
            made.append(row)
    return made


Parts = Mapping[str, tuple[list[Plan], tuple[int, ...], int]]


def measured(parts: Parts, guided: Guided | None, file: Path, fresh: bool) -> list[Cell]:
    """All cells that are kept in a file, after those of these parts were measured; without Guided none is."""

    def measure(*key: Any) -> Cell:
        assert guided is not None
        return guided.cell(*key)

    cells = Cells(file, KEYS, measure, fresh)
    if guided is not None:
        for name, (every, seeds, num) in parts.items():
            for seed, plan in tqdm(list(product(seeds, every)), desc=name):
                cells.get(*plan.key, seed, num)
    return [{**row["key"], **row["found"]} for row in cells.rows.rows]


def main() -> None:
    given = arguments(__doc__, list(PARTS), "two samples, two runs", report="measure nothing, write what is there")
    parts = QUICK if given.quick else {name: PARTS[name] for name in given.words or PARTS}
    guided = None if given.report else Guided(given.device, 64 if given.quick else 2048)
    done = measured(parts, guided, FOLDER / f"papercell{'-quick' if given.quick else ''}.jsonl", given.fresh)
    every = list(dict.fromkeys(plan for part, _, _ in parts.values() for plan in part))
    print(f"\nmeans over seeds\n\n{table(rows(done, every))}")
    if shapes := equal_shapes(done):
        print(f"\njudge, two calls to one, at equal shapes\n\n{table(shapes)}")
    if not given.quick:
        print("written:", save("papercell", {"cells": done}))


if __name__ == "__main__":
    main()
