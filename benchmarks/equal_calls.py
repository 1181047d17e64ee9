"""Who is ahead at equal network calls? One call, repeated or in more steps, look-aheads, populations, TFG.

    python benchmarks/equal_calls.py [TASK ...] [--quick] [--fresh] [--report] [--threads 1]

Style beside a caption (CFG 3, deterministic steps, guided from 0.3 to 0.7 of the steps) and identity (ancestral steps,
all guided), at equal scales of the normalised step; nothing is chosen. *best of K*: the best of so many unguided
samples by the scorer. *proposals K*: in every step the best of K draws of x_s by the scorer at their clean estimates,
without a backward pass (ancestral steps alone have draws). Calls are forward and backward together, per sample.
Cells that are done are kept under out/benchmarks and not computed again; --fresh starts over.
"""

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import symguide as sg
from benchmarks.common import Cells, arguments, save, table
from benchmarks.world import FIGURES, STEPS, World, over_seeds

FOLDER = Path("out/benchmarks")
KEYS = ("task", "way", "scale", "seed", "num")
SEEDS, NUM, SCALE = (0, 1, 2), 32, 0.3
TASKS: dict[str, dict[str, Any]] = {
    "style": {"eta": 0.0, "window": (0.3, 0.7)},
    "identity": {"eta": 1.0, "window": (0.0, 1.0)},
}


class Proposals:
    """Of K draws of x_s for every sample the one with the lowest loss at its clean estimate, in every stochastic step.

        x_s = argmin_k objective(E[x_0 | x_s^k]),    x_s^k = mean + std z_k

    Cost: K forward calls a step, the next step's own one among them; no backward call.
    """

    particles = 1

    def __init__(self, objective: Any, k: int) -> None:
        self.objective, self.k = objective, k

    def move(self, step: Any, x_s: Tensor) -> Tensor | sg.Moved:
        if not step.std > 0:
            return x_s
        drawn = step.propose(self.k)
        predicted = step.predict_at(drawn, step.s)
        rows = torch.arange(len(x_s)) * self.k
        each = predicted.x0.unflatten(0, (-1, self.k)).unbind(1)  # the objective has a reference for each sample
        with torch.no_grad():
            rows = rows + torch.stack([self.objective(x0) for x0 in each]).argmin(0)
        return sg.Moved(drawn[rows], first=predicted.rows(rows))

    def choose(self, samples: Tensor, log_weights: Tensor) -> Tensor:
        return torch.arange(len(samples))


def best_of(world: World, task: str, k: int, seed: int, num: int, eta: float) -> dict[str, Any]:
    """The best of K runs on seeds of their own, by the scorer."""
    goal = world.task(task, range(num))
    told = world.conditioning(goal) | {"batch": num, "steps": STEPS, "eta": eta}
    runs = [sg.sample(world.denoiser, seed=seed + 1000 * i, **told) for i in range(k)]
    with torch.no_grad():
        scores = torch.stack([goal.scorer(world.denoiser.decode(run.samples)) for run in runs])
    best = torch.stack([run.samples for run in runs])[scores.argmin(0), torch.arange(num)]
    figures: dict[str, Any] = world.figures(goal, best, runs[0].cost)
    return figures | {key: figures[key] * k for key in ("forward", "backward", "seconds")}


SAG = {"memory": "fast"}
WAYS: dict[str, tuple[Callable[..., Any] | None, dict[str, Any]]] = {
    "one call": (sg.FreeDoM, SAG),
    "one call, 2 repeats": (sg.FreeDoM, SAG | {"repeats": 2}),
    "one call, 4 repeats": (sg.FreeDoM, SAG | {"repeats": 4}),
    "one call, 50 steps": (sg.FreeDoM, SAG),
    "SAG n=2": (sg.SAG, SAG | {"n": 2}),
    "SAG n=4": (sg.SAG, SAG | {"n": 4}),
    "SAG n=2, own": (sg.SAG, SAG | {"n": 2, "path": "own"}),
    "SAG n=4, own": (sg.SAG, SAG | {"n": 4, "path": "own"}),
    "SAG n=4, first": (sg.SAG, SAG | {"n": 4, "jacobian": "first"}),
    "TFG": (sg.TFG, SAG),
    "unguided": (None, {}),
    "best of 4": (None, {"k": 4}),
    "proposals 4": (None, {"k": 4}),
}
"""Recipe and what is set beside scale and window; the last three have no scale."""


class Ways:
    """Cells of the study."""

    def __init__(self, world: World) -> None:
        self.world = world

    def cell(self, task: str, way: str, scale: float, seed: int, num: int) -> dict[str, Any]:
        """One way at one scale on one seed."""
        (recipe, given), (eta, window) = WAYS[way], TASKS[task].values()
        key = dict(zip(KEYS, (task, way, scale, seed, num), strict=True))
        steps = 50 if way.endswith("50 steps") else STEPS
        if way.startswith("best"):
            return key | best_of(self.world, task, given["k"], seed, num, eta)
        if way.startswith("proposals"):
            particles = Proposals(self.world.objective(self.world.task(task, range(num))), given["k"])
            return key | self.world.measure(task, None, seed, num, steps, eta=eta, particles=particles)
        make = None if recipe is None else lambda aim: recipe(aim, scale=scale, window=window, **given)
        return key | self.world.measure(task, make, seed, num, steps, eta=eta)


def planned(task: str) -> list[tuple[str, float]]:
    """Ways with their scale, 0 for those that have none."""
    made = [(way, SCALE if recipe is not None else 0.0) for way, (recipe, _) in WAYS.items()]
    return [(way, s) for way, s in made if way != "proposals 4" or TASKS[task]["eta"] > 0]


def rows(cells: Sequence[dict[str, Any]], task: str) -> list[dict[str, Any]]:
    """A row for each way at each scale, by its calls, on the seeds that all have; whether it is on the fronts."""
    made = []
    groups: dict[tuple[str, float], dict[int, dict[str, Any]]] = {}
    for c in cells:
        if c["task"] == task:
            groups.setdefault((c["way"], c["scale"]), {})[c["seed"]] = c
    seeds = sorted(set.intersection(*map(set, groups.values())))
    for (way, scale), by_seed in groups.items():
        found = [by_seed[seed] for seed in seeds]
        figures = over_seeds(found, FIGURES)
        calls = figures["forward"] + figures["backward"]
        row = {"way": way, "scale": scale or "", "calls": calls} | {key: figures[key] for key in FIGURES}
        made.append(row | {"seeds": len(found)})
    made.sort(key=lambda row: row["calls"])
    for figure in ("scorer", "judge"):
        best = float("inf")
        for row in made:
            value = float(row[figure].split()[0])
            row[f"front, {figure}"] = "yes" if value < best else ""
            best = min(best, value)
    return made


def main() -> None:
    given = arguments(__doc__, list(TASKS), "two samples, two ways", report="measure nothing, write what is there")
    ways = None if given.report else Ways(World(given.device, real=64 if given.quick else 2048))

    def measure(*key: Any) -> dict[str, Any]:
        assert ways is not None
        return ways.cell(*key)

    cells = Cells(FOLDER / f"equal_calls{'-quick' if given.quick else ''}.jsonl", KEYS, measure, given.fresh)
    for name in given.words or list(TASKS)[-1 if given.quick else 0 :]:
        plans = [("one call", 0.3), ("proposals 4", 0.0)] if given.quick else planned(name)
        seeds, num = ((0,), 2) if given.quick else (SEEDS, NUM)
        for seed, plan in [] if ways is None else tqdm(list(product(seeds, plans)), desc=name):
            cells.get(name, *plan, seed, num)
        done = [{**row["key"], **row["found"]} for row in cells.rows.rows]
        print(f"\n{name}\n\n{table(rows(done, name))}")
    if not given.quick:
        print("written:", save("equal_calls", {"cells": done}))


if __name__ == "__main__":
    main()
