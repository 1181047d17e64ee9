"""Does a look-ahead pay where the model is poor? Its ratio to one call against the error of the one-call estimate.

    python training/scenes.py denoiser --keep 0.03 0.06 0.12 0.25 0.5
    python benchmarks/quality_of_model.py [--quick] [--fresh] [--report] [--threads 1]

One network at several moments of its training (the averages that training/scenes.py keeps beside its checkpoints), at
the end of it (`scenes`), and a smaller one that was trained for less (`scenes-weak`). For each the relative error of
one- and two-call estimates on its own noiseless way, as in benchmarks/nstudy.py; and one call against two, by scorer
and judge, at scale 0.3 in two cells: identity with ancestral steps, all guided, and style beside a caption (CFG 3) with
deterministic steps, guided from 0.3 to 0.7 of 25. Cells that are done are kept under out/benchmarks.
"""

import statistics
from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

from tqdm import tqdm

import symguide as sg
from benchmarks.common import Cells, arguments, save, table
from benchmarks.nstudy import estimates
from benchmarks.world import CHECKPOINTS, World

FOLDER = Path("out/benchmarks")
WHOLE = 26_000
"""Steps of the whole training."""
KEYS = ("model", "task", "n", "seed", "num")
SCALE, SEEDS, NUM = 0.3, (0, 1, 2), 32
TASKS: dict[str, dict[str, Any]] = {
    "identity": {"eta": 1.0, "window": (0.0, 1.0)},
    "style": {"eta": 0.0, "window": (0.3, 0.7)},
}
TIMES = (0.3, 0.7)
"""Between which times the error of a model is averaged: those of the middle window."""


def models() -> list[str]:
    """The kept ones in the order of their training, then those that ship."""
    return [*sorted(folder.name for folder in CHECKPOINTS.glob("scenes-denoiser-at-*")), "scenes", "scenes-weak"]


def title(model: str) -> str:
    """How much training a model has had, in words.

    >>> title("scenes-denoiser-at-06500")
    '25 % of the training'
    """
    step = model.rpartition("-at-")[2]
    return f"{int(step) / WHOLE:.0%}".replace("%", " % of the training") if step.isdigit() else f"`{model}`"


@lru_cache
def world(model: str) -> World:
    return World(model=model)


def cell(model: str, task: str, n: int, seed: int, num: int) -> dict[str, Any]:
    """One look-ahead on one seed; the error of estimates where the task is "estimate"."""
    key = dict(zip(KEYS, (model, task, n, seed, num), strict=True))
    if task == "estimate":
        rows = estimates(world(model), num, 10 if num < 10 else 50, (1, 2), (("dpmpp_2m", "flow"),))
        return key | {"rows": [{k: row[k] for k in ("t", "n=1", "n=2")} for row in rows]}
    given = TASKS[task]

    def make(objective: Any) -> sg.SAG:
        return sg.SAG(objective, n=n, scale=SCALE, window=given["window"], memory="fast")

    return key | world(model).measure(task, make if n else None, seed, num, eta=given["eta"])


def rows(cells: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each model that has both cells: errors, and ratios of two calls to one, seed by seed."""
    made = []
    for model in dict.fromkeys(c["model"] for c in cells):
        mine = [c for c in cells if c["model"] == model]
        looked = next((c["rows"] for c in mine if c["task"] == "estimate"), None)
        if looked is None:
            continue
        row: dict[str, Any] = {"model": title(model)}
        for n in (1, 2):
            row[f"error, n={n}"] = f"{error(looked, n):.3f}"
        for task, figure in product(TASKS, ("scorer", "judge")):
            row[f"{task}, {figure}"] = spread(ratios(mine, task, figure))
        made.append(row | {"seeds": len({c["seed"] for c in mine if c["n"] == 2})})
    return made


def error(looked: Sequence[dict[str, Any]], n: int) -> float:
    """Mean relative error over the times of the window."""
    return statistics.fmean(row[f"n={n}"] for row in looked if TIMES[0] <= row["t"] <= TIMES[1])


def ratios(cells: Sequence[dict[str, Any]], task: str, figure: str) -> list[float]:
    """Two calls to one, of each seed."""
    found = {(c["n"], c["seed"]): c[figure] for c in cells if c["task"] == task}
    return [value / found[1, seed] for (n, seed), value in found.items() if n == 2 and (1, seed) in found]


def spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{statistics.fmean(values):.2f} ± {statistics.stdev(values) if len(values) > 1 else 0.0:.2f}"


def main() -> None:
    about = "two samples of one task by one model"
    given = arguments(__doc__, [], about, device=False, report="measure nothing, write what is there")
    cells = Cells(FOLDER / f"quality_of_model{'-quick' if given.quick else ''}.jsonl", KEYS, cell, given.fresh)
    if given.quick:
        plan = [("scenes-weak", "estimate", 0, 0, 2), *(("scenes-weak", "identity", n, 0, 2) for n in (1, 2))]
    else:
        plan = [(model, "estimate", 0, 0, NUM) for model in models()]
        plan += [(model, task, n, seed, NUM) for seed, model, task, n in product(SEEDS, models(), TASKS, (1, 2))]
    for key in [] if given.report else tqdm(plan, desc="models"):
        cells.get(*key)
    done = [{**row["key"], **row["found"]} for row in cells.rows.rows]
    done.sort(key=lambda c: (not c["model"].rpartition("-at-")[1], c["model"]))
    print(f"\ntwo calls to one, scale {SCALE}\n\n{table(rows(done))}")
    if not given.quick:
        print("written:", save("quality_of_model", {"cells": done}))


if __name__ == "__main__":
    main()
