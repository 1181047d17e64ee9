"""Guided sampling on scenes: unguided, FreeDoM, SAG n=4 and SAG + DSG on five tasks, by judges they never saw.

    python benchmarks/scenes.py [TASK ...] [--quick] [--fresh] [--threads 2]

TASK: style, aesthetics, personalisation, identity, inpainting; all where none is given. They are those of
`symguide.worlds.scenes.tasks`, with classifier-free guidance of weight 3 where there is a caption.

A sweep of strengths (32 samples, seed 100) gives each method's: the one that the judge likes best, among those whose
Frechet distance is at most a quarter above the unguided samples' of the same sweep, or the one of lowest Frechet
distance if there is none such. With it each method is measured on seeds 0, 1, 2 with 64 samples each. Shape: the share
of samples in which the judge reads the shape that was asked for. Frechet distance: in the judge's features, to held-out
pictures.

Cells that are done are kept under out/benchmarks and not computed again; --fresh starts over.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import Cells, arguments, save, table
from tqdm import tqdm

import symguide as sg
from symguide.bench.world import FIGURES, STEPS, World, over_seeds
from symguide.worlds.scenes.tasks import TASKS

FOLDER = Path("out/benchmarks")
NAMES = ("style", "aesthetics", "personalisation", "identity", "inpainting")
TUNE, SEEDS, NUM, SWEEP = 100, (0, 1, 2), 64, 32
SCALES = (0.1, 0.2, 0.4, 0.8, 1.6)
RATES = (0.05, 0.1, 0.2, 0.4, 0.8)

METHODS: dict[str, tuple[Callable[[Any, float], Any] | None, tuple[float, ...]]] = {
    "unguided": (None, (0.0,)),
    "FreeDoM": (lambda o, scale: sg.FreeDoM(o, scale=scale), SCALES),
    "SAG n=4": (lambda o, scale: sg.SAG(o, n=4, scale=scale, memory="fast"), SCALES),
    "SAG n=4 + DSG": (lambda o, rate: sg.SAG(o, n=4, constraint=sg.Sphere(rate), memory="fast"), RATES),
}
"""The recipe and its strengths. "fast" makes n forward and n backward calls a guided step."""


class Bench:
    """One cell: a method at one strength on one seed."""

    def __init__(self, world: World) -> None:
        self.world = world

    def cell(self, name: str, method: str, strength: float, seed: int, num: int) -> dict[str, Any]:
        make = METHODS[method][0]
        key = {"task": name, "method": method, "strength": strength, "seed": seed, "num": num}
        return key | self.world.measure(name, None if make is None else lambda o: make(o, strength), seed, num)


def choose(sweep: list[dict[str, Any]]) -> dict[str, float]:
    """Strength of each method by the rule of the module's docstring."""
    bound = 1.25 * next(cell["frechet"] for cell in sweep if cell["method"] == "unguided")
    best = {}
    for method in METHODS:
        mine = [cell for cell in sweep if cell["method"] == method]
        near = [cell for cell in mine if cell["frechet"] <= bound]
        pick = min(near, key=lambda c: c["judge"]) if near else min(mine, key=lambda c: c["frechet"])
        best[method] = pick["strength"]
    return best


def measure(name: str, cells: Cells, quick: bool) -> dict[str, Any]:
    """Sweep, choose, measure on all seeds; the table of one task."""
    seeds, num, tries = ((0,), 4, 4) if quick else (SEEDS, NUM, SWEEP)
    plan = [(method, s) for method, (_, all_) in METHODS.items() for s in (all_[1:2] if quick and all_[1:] else all_)]
    sweep = [cells.get(name, *pair, TUNE, tries) for pair in tqdm(plan, desc=f"{name}: sweep")]
    strengths = choose(sweep)
    final = {
        method: [cells.get(name, method, strength, seed, num) for seed in seeds]
        for method, strength in tqdm(strengths.items(), desc=f"{name}: all seeds")
    }
    rows = [
        {"method": method, "strength": strengths[method]} | over_seeds(part, FIGURES) for method, part in final.items()
    ]
    print(f"\n{name}: {TASKS[name].goal}; {num} samples, seeds {seeds}, {STEPS} steps\n\n{table(rows)}")
    return {"rows": rows, "sweep": sweep, "cells": [cell for part in final.values() for cell in part]}


def main() -> None:
    given = arguments(__doc__, NAMES, "4 samples, one strength, one seed")
    path = FOLDER / f"scenes{'-quick' if given.quick else ''}.jsonl"
    bench = Bench(World(given.device))
    cells = Cells(path, ("task", "method", "strength", "seed", "num"), bench.cell, given.fresh)
    results = {name: measure(name, cells, given.quick) for name in given.words or NAMES}
    if not given.quick:
        suffix = "-" + "-".join(given.words) if given.words else ""
        print("written:", save(f"scenes{suffix}", results))


if __name__ == "__main__":
    main()
