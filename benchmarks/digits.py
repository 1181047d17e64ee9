"""Guided sampling on digits: SAG against FreeDoM and the rest, each at its best scale, by a judge they never saw.

    python benchmarks/digits.py [class|inpaint|all] [--window 0.2 0.7] [--quick] [--threads 2]

class: the unconditional model, steered to a target digit (0 ... 9 by the sample's index) by the scorer's cross-entropy.
inpaint: the unconditional model, steered to show the left half of a held-out digit; the right half is its own.

Guidance acts in the window of steps, 0.2 to 0.7 unless given (the papers guide 0.3 to 0.7). "FreeDoM, 78 steps" makes
as many calls as SAG n=4, forward and backward together; "4 repeats" as many of each.

A sweep of scales (256 samples, seed 100) gives FreeDoM's scale, the one with the lowest cross-entropy by the judge, and
every other method's: the one with the lowest cross-entropy by the judge among those whose Frechet distance is no worse
than FreeDoM's there (the lowest distance, if none is). Both are then measured on seeds 0, 1, 2 with 256 samples each.
Frechet distance: in the judge's features, to the held-out digits.

The front: some methods at all middling scales on the same three seeds, to compare at one Frechet distance.

Cells that are done are kept under out/benchmarks and not computed again; --fresh starts over.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import symguide as sg
from benchmarks.common import Cells, save, table
from benchmarks.world import over_seeds
from symguide.report.quality import frechet, judged
from symguide.worlds import digits

TASKS = ("class", "inpaint")
FOLDER = Path("out/benchmarks")
TUNE, SEEDS, NUM, STEPS = 100, (0, 1, 2), 256, 25
SCALES = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
RATES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0)  # of DSG
SHARES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.2)  # of the estimate's uncertainty, for MPGD

Make = Callable[..., Any]


def sag(n: int, **fixed: Any) -> Make:
    return lambda o, scale, **settings: sg.SAG(o, n=n, scale=scale, memory="fast", **fixed, **settings)


def dsg(n: int, **fixed: Any) -> Make:
    return lambda o, rate, **settings: sg.DSG(o, rate=rate, n=n, memory="fast", **fixed, **settings)


# name: (recipe, scales, sampling steps). "fast" makes n forward and n backward calls a guided step.
METHODS: dict[str, tuple[Make | None, tuple[float, ...], int]] = {
    "unguided": (None, (0.0,), STEPS),
    "FreeDoM": (sag(1), SCALES, STEPS),
    "SAG n=2": (sag(2), SCALES, STEPS),
    "SAG n=4": (sag(4), SCALES, STEPS),
    "SAG n=4, paper's DDIM": (sag(4, solver="paper"), SCALES, STEPS),
    "SAG n=4, first": (sag(4, jacobian="first"), SCALES, STEPS),
    "SAG n=2, first": (sag(2, jacobian="first"), SCALES, STEPS),
    "MPGD": (lambda o, scale, **settings: sg.MPGD(o, scale=scale, **settings), SHARES, STEPS),
    "DSG": (dsg(1), RATES, STEPS),
    "SAG n=4 + DSG": (dsg(4), RATES, STEPS),
    "FreeDoM, 4 repeats": (sag(1, repeats=4), SCALES, STEPS),
    "FreeDoM, 78 steps": (sag(1), SCALES, 78),
}
FRONT = ("FreeDoM", "SAG n=2", "SAG n=4", "SAG n=4, first", "SAG n=2, first")
FRONT_SCALES = (1.0, 1.5, 2.0, 3.0)
EQUAL_CALLS = ["FreeDoM, 4 repeats", "FreeDoM, 78 steps", "SAG n=4", "SAG n=4 + DSG"]
EQUAL_STEPS = [name for name in METHODS if name not in EQUAL_CALLS[:2]]


class World:
    """The models of a task, loaded once; `most` is the largest number of steps that is made."""

    def __init__(self, task: str, window: tuple[float, float], most: int) -> None:
        self.task, self.window, self.most, self.denoiser = task, window, most, sg.load("digits")
        self.scorer, self.judge = digits.scorer(), digits.judge()
        self.real = self.judge.features(digits.images("held_out"))  # type: ignore[operator]

    def goal(self, num: int) -> tuple[Any, torch.Tensor]:
        """The objective, and the labels that the samples should have."""
        if self.task == "class":
            labels = torch.arange(num) % 10
            return sg.objectives.Classifier(self.scorer, labels), labels
        left = torch.zeros(8)
        left[:4] = 1
        return sg.objectives.Region(digits.images("held_out")[:num], left), digits.labels("held_out")[:num]

    def cell(self, name: str, scale: float, seed: int, num: int) -> dict[str, Any]:
        """One method at one scale on one seed."""
        make, _, steps = METHODS[name]
        objective, labels = self.goal(num)
        loss = None if make is None else make(objective, scale, window=self.window)
        result = sg.sample(self.denoiser, batch=num, steps=min(steps, self.most), seed=seed, loss=loss)
        verdict = judged(self.judge, result.samples, labels)
        with torch.no_grad():
            mine = self.judge.features(result.samples)  # type: ignore[operator]
        return {
            "name": name,
            "scale": scale,
            "seed": seed,
            "num": num,
            "objective": objective(result.samples).mean().item(),
            "judge": verdict.loss.mean().item(),
            "accuracy": verdict.accuracy,
            "frechet": frechet(mine, self.real),
            "forward": result.cost.forward_calls,
            "backward": result.cost.backward_calls,
            "seconds": result.cost.seconds,
        }


def choose(sweep: list[dict[str, Any]]) -> dict[str, float]:
    """Scale of each method by the rule of the module's docstring."""

    def of(name: str) -> list[dict[str, Any]]:
        return [cell for cell in sweep if cell["name"] == name]

    free = min(of("FreeDoM"), key=lambda cell: cell["judge"])
    best = {"unguided": 0.0, "FreeDoM": free["scale"]}
    for name in METHODS:
        if name not in best:
            fair = [cell for cell in of(name) if cell["frechet"] <= free["frechet"]]
            best[name] = (min(fair, key=lambda c: c["judge"]) if fair else min(of(name), key=lambda c: c["frechet"]))[
                "scale"
            ]
    return best


FIGURES = {
    "objective": ("objective", 3),
    "judge": ("judge", 3),
    "judge's accuracy": ("accuracy", 3),
    "Frechet": ("frechet", 2),
}


def summary(name: str, scale: float, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """A row of the tables."""
    return {"method": name, "scale": scale} | over_seeds(cells, FIGURES)


def measure(task: str, window: tuple[float, float], quick: bool, fresh: bool) -> dict[str, Any]:
    """Sweep, choose, measure on all seeds; the tables."""
    num, seeds = (4, (0,)) if quick else (NUM, SEEDS)
    name = f"{task}-{window[0]:g}-{window[1]:g}{'-quick' if quick else ''}.jsonl"
    world = World(task, window, 4 if quick else 1000)
    cells = Cells(FOLDER / name, ("name", "scale", "seed", "num"), world.cell, fresh)
    plan = [(name, s) for name, (_, scales, _) in METHODS.items() for s in (scales[:1] if quick else scales)]
    sweep = [cells.get(*pair, TUNE, num) for pair in tqdm(plan, desc=f"{task}: sweep of scales")]
    best = choose(sweep)
    final = {
        name: [cells.get(name, scale, seed, num) for seed in seeds]
        for name, scale in tqdm(best.items(), desc=f"{task}: chosen scales, all seeds")
    }
    rows = {name: summary(name, best[name], final[name]) for name in best}
    tables = {"equal_steps": [rows[n] for n in EQUAL_STEPS], "equal_calls": [rows[n] for n in EQUAL_CALLS]}
    print(f"\n{task}: {num} samples, seeds {seeds}, {STEPS} steps, window {window}\n\n" + table(tables["equal_steps"]))
    print("\nequal network calls\n\n" + table(tables["equal_calls"]))
    if task == "class":
        front = [(name, scale) for name in FRONT for scale in FRONT_SCALES[: 1 if quick else None]]
        tables["front"] = [
            summary(name, scale, [cells.get(name, scale, seed, num) for seed in seeds])
            for name, scale in tqdm(front, desc="front")
        ]
        print("\nfront\n\n" + table(tables["front"]))
    return {"window": window, **tables, "sweep": sweep, "cells": [cell for cells_ in final.values() for cell in cells_]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", default="all", choices=[*TASKS, "all"])
    parser.add_argument("--window", nargs=2, type=float, default=(0.2, 0.7), metavar=("START", "STOP"))
    parser.add_argument("--quick", action="store_true", help="few samples and steps, one task, scale and seed")
    parser.add_argument("--fresh", action="store_true", help="forget the cells that are done")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, torch's choice where not given")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    tasks = [*TASKS][: 1 if arguments.quick else None]
    for task in tasks if arguments.task == "all" else (arguments.task,):
        window = (arguments.window[0], arguments.window[1])
        results = measure(task, window, arguments.quick, arguments.fresh)
        if not arguments.quick:
            suffix = "" if window == (0.2, 0.7) else f"-{window[0]:g}-{window[1]:g}"
            print("written:", save(f"digits-{task}{suffix}", results))


if __name__ == "__main__":
    main()
