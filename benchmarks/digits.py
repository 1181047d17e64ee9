"""Guided sampling on digits: SAG against FreeDoM and the rest, each at its best scale, by a judge they never saw.

    python benchmarks/digits.py [--quick] [--threads 2]

Task: the unconditional model, steered to a target digit (0 ... 9 by the sample's index) by the scorer's cross-entropy.
The scale of each method is the one of a sweep (256 samples, seed 100) with the lowest cross-entropy by the judge; it is
then measured on seeds 0, 1, 2 with 256 samples each. Frechet distance: in the judge's features, to the held-out digits.
Cells that are done are kept under out/benchmarks and not computed again; --fresh starts over.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import save, table
from tqdm import tqdm

import symguide as sg
from symguide.report.quality import frechet, judged
from symguide.worlds import digits

CELLS = Path("out/benchmarks/digits.jsonl")
TUNE, SEEDS, NUM, STEPS = 100, (0, 1, 2), 256, 25
NORMALISED = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5)
RATES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)

Make = Callable[[Any, float], Any]


def sag(n: int, **settings: Any) -> Make:
    return lambda o, scale: sg.SAG(o, n=n, scale=scale, memory="fast", **settings)


def sphere(n: int, **settings: Any) -> Make:
    return lambda o, rate: sg.DSG(o, rate=rate, n=n, memory="fast", **settings)


# name: (recipe, scales, sampling steps). "fast" makes n forward and n backward calls a guided step.
METHODS: dict[str, tuple[Make | None, tuple[float, ...], int]] = {
    "unguided": (None, (0.0,), STEPS),
    "FreeDoM": (sag(1), NORMALISED, STEPS),
    "SAG n=2": (sag(2), NORMALISED, STEPS),
    "SAG n=4": (sag(4), NORMALISED, STEPS),
    "SAG n=4, paper's DDIM": (sag(4, solver="paper"), NORMALISED, STEPS),
    "SAG n=4, dpmpp_2m arctan": (sag(4, solver="dpmpp_2m", grid="arctan"), NORMALISED, STEPS),
    "SAG n=4, first": (sag(4, jacobian="first"), NORMALISED, STEPS),
    "SAG n=2, first": (sag(2, jacobian="first"), NORMALISED, STEPS),
    "MPGD": (lambda o, scale: sg.MPGD(o, scale=scale), NORMALISED, STEPS),
    "DSG": (sphere(1), RATES, STEPS),
    "SAG n=2 + DSG": (sphere(2), RATES, STEPS),
    "SAG n=4 + DSG": (sphere(4), RATES, STEPS),
    "SAG n=4, first + DSG": (sphere(4, jacobian="first"), RATES, STEPS),
    "FreeDoM, 4 repeats": (sag(1, repeats=4), NORMALISED, STEPS),
    "FreeDoM, 50 steps": (sag(1), NORMALISED, 2 * STEPS),
    "FreeDoM, 100 steps": (sag(1), NORMALISED, 4 * STEPS),
    "DSG, 100 steps": (sphere(1), RATES, 4 * STEPS),
}
EQUAL_STEPS = [name for name, (_, _, steps) in METHODS.items() if steps == STEPS and "repeats" not in name]
EQUAL_CALLS = ["FreeDoM, 4 repeats", "FreeDoM, 100 steps", "DSG, 100 steps", "SAG n=4", "SAG n=4 + DSG"]


class World:
    """The models of the task, loaded once."""

    def __init__(self) -> None:
        self.denoiser = sg.load("digits")
        self.scorer, self.judge = digits.scorer(), digits.judge()
        self.real = self.judge.features(digits.images("held_out"))  # type: ignore[operator]

    def cell(self, name: str, scale: float, seed: int, num: int) -> dict[str, Any]:
        """One method at one scale on one seed."""
        make, _, steps = METHODS[name]
        labels = torch.arange(num) % 10
        objective = sg.objectives.Classifier(self.scorer, labels)
        loss = None if make is None else make(objective, scale)
        result = sg.sample(self.denoiser, batch=num, steps=steps, seed=seed, loss=loss)
        verdict = judged(self.judge, result.samples, labels)
        with torch.no_grad():
            mine = self.judge.features(result.samples)  # type: ignore[operator]
        return {
            "name": name,
            "scale": scale,
            "seed": seed,
            "num": num,
            "scorer": objective(result.samples).mean().item(),
            "judge": verdict.loss.mean().item(),
            "accuracy": verdict.accuracy,
            "frechet": frechet(mine, self.real),
            "forward": result.cost.forward_calls,
            "backward": result.cost.backward_calls,
            "seconds": result.cost.seconds,
        }


class Cells:
    """Cells already measured, kept one a line."""

    def __init__(self, path: Path, fresh: bool) -> None:
        self.path, self.world = path, World()
        path.parent.mkdir(parents=True, exist_ok=True)
        if fresh:
            path.unlink(missing_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        self.known = {self._key(cell): cell for cell in map(json.loads, lines)}

    @staticmethod
    def _key(cell: dict[str, Any]) -> tuple:
        return cell["name"], cell["scale"], cell["seed"], cell["num"]

    def get(self, name: str, scale: float, seed: int, num: int) -> dict[str, Any]:
        key = (name, scale, seed, num)
        if key not in self.known:
            self.known[key] = self.world.cell(*key)
            with self.path.open("a") as file:
                file.write(json.dumps(self.known[key]) + "\n")
        return self.known[key]


def summary(name: str, scale: float, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean over seeds, with the spread of the judge's figures."""

    def show(key: str, digits: int) -> str:
        values = [cell[key] for cell in cells]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        return f"{statistics.mean(values):.{digits}f} ± {spread:.{digits}f}"

    return {
        "method": name,
        "scale": scale,
        "scorer": f"{statistics.mean(c['scorer'] for c in cells):.3f}",
        "judge": show("judge", 3),
        "judge's accuracy": show("accuracy", 3),
        "Frechet": show("frechet", 2),
        "forward": cells[0]["forward"],
        "backward": cells[0]["backward"],
        "seconds": f"{statistics.mean(c['seconds'] for c in cells):.0f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 samples, two scales, one seed; nothing written")
    parser.add_argument("--fresh", action="store_true", help="forget the cells that are done")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, torch's choice where not given")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    num, seeds = (20, (0,)) if arguments.quick else (NUM, SEEDS)
    cells = Cells(CELLS.with_name("quick.jsonl") if arguments.quick else CELLS, arguments.fresh)
    plan = [(name, s) for name, (_, scales, _) in METHODS.items() for s in (scales[2:4] if arguments.quick else scales)]
    sweep = [cells.get(name, scale, TUNE, num) for name, scale in tqdm(plan, desc="sweep of scales")]
    best: dict[str, float] = {"unguided": 0.0}
    for name in METHODS:
        mine = [cell for cell in sweep if cell["name"] == name]
        if mine:
            best[name] = min(mine, key=lambda cell: cell["judge"])["scale"]
    final = {
        name: [cells.get(name, scale, seed, num) for seed in seeds]
        for name, scale in tqdm(best.items(), desc="best scales, all seeds")
    }
    rows = {name: summary(name, best[name], final[name]) for name in best}
    print(f"\n{num} samples, seeds {seeds}, {STEPS} guided steps\n\n" + table([rows[n] for n in EQUAL_STEPS]))
    print("\nequal network calls (100 forward, 100 backward)\n\n" + table([rows[n] for n in EQUAL_CALLS]))
    keys = ("name", "scale", "scorer", "judge", "accuracy", "frechet")
    shown = [{k: c[k] if k in ("name", "scale") else f"{c[k]:.3f}" for k in keys} for c in sweep]
    print("\nsweep (seed 100)\n\n" + table(shown))
    if not arguments.quick:
        everything = {"equal_steps": [rows[n] for n in EQUAL_STEPS], "equal_calls": [rows[n] for n in EQUAL_CALLS]}
        print("written:", save("digits", {**everything, "sweep": sweep, "cells": [c for v in final.values() for c in v]}))


if __name__ == "__main__":
    main()
