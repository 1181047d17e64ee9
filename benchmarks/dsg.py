"""What does DSG's sphere change? Five recipes with it and without it, on scenes, by judges never guided by.

    python benchmarks/dsg.py [strength] [steps] [norm] [overhead] [pictures] [--quick] [--fresh] [--device cuda]

strength: each recipe at four strengths with and without the sphere, on two tasks: which figures it reaches, and which
is the largest strength that still gives good samples: the judge reads the asked shape as often as at the recipe's best
strength of all, less a tenth. MPGD's scales are half the others', as no part of its moves is taken back.
steps: at the strength that the judge likes best, with 10, 25 and 50 sampling steps.
norm: how long x_t is on the way, to how long it should be, |x_t| / sqrt(alpha_t² |x_0|² + d sigma_t²), where x_0 is the
sample that it ends in.
overhead: the share of a run's seconds that the sphere takes.
pictures: FreeDoM's first samples at growing strength with and without the sphere, docs/images/spheres.png.

Without a word all is done. Cells that are done are kept under out/benchmarks and not computed again; --fresh starts
over.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

import symguide as sg
from benchmarks.common import RESULTS, Cells, arguments, save, table
from benchmarks.world import FIGURES, STEPS, World, over_seeds
from symguide.files import write
from symguide.per_sample import norm
from symguide.report import grid, png
from symguide.step import Step

FOLDER = Path("out/benchmarks")
IMAGE = RESULTS.parents[1] / "docs" / "images" / "spheres.png"
TASKS = ("text", "inpainting")
SEEDS, NUM = (0, 1, 2), 32
SCALES, RATES = (0.1, 0.4, 1.6, 6.4), (0.05, 0.2, 0.5, 1.0)
WEAKER = {"MPGD": 0.5}
"""What a recipe's scales are multiplied with."""
FAST: dict[str, Any] = {"memory": "fast"}
RECIPES: dict[str, Callable[..., Any]] = {
    "FreeDoM": lambda aim, **s: sg.FreeDoM(aim, **s, **FAST),
    "SAG n=2": lambda aim, **s: sg.SAG(aim, n=2, **s, **FAST),
    "LGD": lambda aim, **s: sg.LGD(aim, samples=4, **s, **FAST),
    "Universal Guidance": sg.UniversalGuidance,
    "MPGD": sg.MPGD,
}
NUMBERS = 10, STEPS, 50
"""Of sampling steps."""


def recipe(name: str, sphere: bool, strength: float) -> Callable[[Any], Any]:
    """A recipe at a strength: the sphere's rate, or its own scale."""
    settings = {"constraint": sg.Sphere(strength)} if sphere else {"scale": strength}
    return lambda aim: RECIPES[name](aim, **settings)


class Bench:
    """Cells: a recipe at one strength on one seed; strength 0 is unguided."""

    def __init__(self, world: World, seeds: tuple[int, ...], num: int, steps: int, path: Path, fresh: bool) -> None:
        self.world, self.seeds, self.num, self.steps = world, seeds, num, steps
        keys = ("task", "recipe", "sphere", "strength", "steps", "seed", "num")
        self.cells = Cells(path, keys, self.cell, fresh)

    def cell(
        self, task: str, name: str, sphere: bool, strength: float, steps: int, seed: int, num: int
    ) -> dict[str, Any]:
        key = {"task": task, "recipe": name, "sphere": sphere, "strength": strength, "steps": steps}
        made = recipe(name, sphere, strength) if strength else None
        return key | {"seed": seed, "num": num} | self.world.measure(task, made, seed, num, steps)

    def get(self, task: str, name: str, sphere: bool, strength: float, steps: int = 0) -> list[dict[str, Any]]:
        """The cells of all seeds; the usual number of steps where none is given."""
        steps = steps or self.steps
        return [self.cells.get(task, name, sphere, strength, steps, seed, self.num) for seed in self.seeds]


def mean(cells: list[dict[str, Any]], key: str) -> float:
    return statistics.fmean(cell[key] for cell in cells)


def row(about: dict[str, Any], cells: list[dict[str, Any]]) -> dict[str, Any]:
    return about | over_seeds(cells, FIGURES)


def strengths(task: str, bench: Bench, names: list[str], scales: tuple, rates: tuple) -> tuple[list, list, dict]:
    """A row for each recipe with and without the sphere; a row for each of their strengths; the best strengths."""
    rows, every, best = [row({"recipe": "unguided"}, bench.get(task, "", False, 0.0))], [], {}
    for name in tqdm(names, desc=task):
        own = [s * WEAKER.get(name, 1.0) for s in scales]
        swept = {(False, s): bench.get(task, name, False, s) for s in own}
        swept |= {(True, s): bench.get(task, name, True, s) for s in rates}
        good = max(mean(cells, "shape") for cells in swept.values()) - 0.1
        for sphere in (False, True):
            mine = {s: cells for (with_it, s), cells in swept.items() if with_it == sphere}
            about = {"recipe": name + " + DSG" * sphere}
            every += [row({**about, "strength": s}, cells) for s, cells in mine.items()]
            best[name, sphere] = min(mine, key=lambda s: mean(mine[s], "judge"))
            largest = max((s for s, cells in mine.items() if mean(cells, "shape") >= good), default="none")
            about |= {"best strength": best[name, sphere], "largest good one": largest}
            rows.append(row(about, mine[best[name, sphere]]))
    heads = list(rows[1])
    rows[0] = {head: rows[0].get(head, "") for head in heads}
    return rows, every, best


def by_steps(task: str, bench: Bench, names: list[str], best: dict, numbers: tuple[int, ...]) -> list[dict[str, Any]]:
    """The best strengths with other numbers of sampling steps."""
    plans = [(name, sphere, steps) for name in names[:2] for sphere in (False, True) for steps in numbers]
    return [
        row({"recipe": name + " + DSG" * sphere, "strength": best[name, sphere], "steps": steps}, cells)
        for name, sphere, steps in tqdm(plans, desc=f"{task}: steps")
        for cells in [bench.get(task, name, sphere, best[name, sphere], steps)]
    ]


def lengths(task: str, world: World, num: int, steps: int, plans: list[tuple[str, bool, float]]) -> list[dict]:
    """|x_t| to what it should be, mean over samples, a row for each run and a column for each time."""
    goal, rows = world.task(task, range(num)), []
    for name, sphere, strength in tqdm(plans, desc=f"{task}: norm"):
        loss = recipe(name, sphere, strength)(world.objective(goal)) if strength else None
        told = world.conditioning(goal) | {"batch": num, "steps": steps, "return_trajectory": True}
        run = sg.sample(world.denoiser, **told, loss=loss)
        assert run.trajectory is not None
        size, schedule = run.samples[0].numel(), world.denoiser.schedule
        line: dict[str, Any] = {"run": "unguided" if not strength else f"{name}{' + DSG' * sphere}, {strength}"}
        for record in run.trace[:: max(1, steps // 6)]:
            should = (schedule.alpha(record.t) * norm(run.samples)).square() + size * schedule.sigma(record.t) ** 2
            line[f"t={record.t:.2f}"] = f"{(norm(run.trajectory[record.index]) / should.sqrt()).mean().item():.3f}"
        rows.append(line)
    return rows


class Timed(sg.Sphere):
    """The sphere, with the seconds that it takes, on a CPU: a GPU is not waited for."""

    seconds = 0.0

    def __call__(self, step: Step, change: Tensor) -> Tensor:
        begun = time.perf_counter()
        x_s = super().__call__(step, change)
        self.seconds += time.perf_counter() - begun
        return x_s


def overhead(task: str, world: World, names: list[str], num: int, steps: int) -> list[dict[str, Any]]:
    """The sphere's share of a run's seconds, timed inside the run: two runs differ by more than that on any machine."""
    goal, rows = world.task(task, range(num)), []
    for name in names:
        sphere = Timed(0.2)
        loss = RECIPES[name](world.objective(goal), constraint=sphere)
        run = sg.sample(world.denoiser, batch=num, steps=steps, loss=loss, **world.conditioning(goal))
        share = f"{100 * sphere.seconds / run.cost.seconds:.2f} %"
        rows.append({"recipe": name, "calls": run.cost.forward_calls + run.cost.backward_calls, "share": share})
    return rows


def pictures(task: str, world: World, num: int, steps: int) -> bytes:
    """FreeDoM's samples at growing strength, without the sphere and with it; a PNG."""
    goal, rows = world.task(task, range(num)), {}
    for sphere, each in ((False, SCALES[1:]), (True, RATES[1:])):
        for strength in each:
            loss = recipe("FreeDoM", sphere, strength)(world.objective(goal))
            run = sg.sample(world.denoiser, batch=num, steps=steps, loss=loss, **world.conditioning(goal))
            rows[f"{'rate' if sphere else 'scale'} {strength}"] = world.denoiser.decode(run.samples)
    return png(grid(list(rows.values()), list(rows), list(goal.texts), cell=96, smooth=False))


def main() -> None:
    words = ("strength", "steps", "norm", "overhead", "pictures")
    given = arguments(__doc__, words, "two samples, one recipe, few steps")
    asked, quick, world = set(given.words or words), given.quick, World(given.device)
    seeds, num, steps = ((0,), 2, 6) if quick else (SEEDS, NUM, STEPS)
    bench = Bench(world, seeds, num, steps, FOLDER / f"dsg{'-quick' if quick else ''}.jsonl", given.fresh)
    names, scales, rates = (["FreeDoM"], (0.4,), (0.2,)) if quick else (list(RECIPES), SCALES, RATES)
    results: dict[str, Any] = {}
    for task in TASKS[:1] if quick else TASKS:
        if asked & {"strength", "steps"}:
            rows, every, best = strengths(task, bench, names, scales, rates)
            results[task] = {"recipes": rows, "strengths": every}
            print(f"\n{task}: {num} samples, seeds {seeds}, {steps} steps\n\n{table(rows)}\n")
            if "steps" in asked:
                results[task]["steps"] = by_steps(task, bench, names, best, (2,) if quick else NUMBERS)
                print(f"\n{table(results[task]['steps'])}\n")
    if "norm" in asked:
        plans = [("", False, 0.0), ("FreeDoM", False, 0.4), ("FreeDoM", False, 1.6), ("FreeDoM", True, 0.2)]
        plans += [("FreeDoM", True, 1.0), ("SAG n=2", False, 1.6), ("SAG n=2", True, 1.0)]
        results["norm"] = lengths(TASKS[0], world, num, steps, plans[: 4 if quick else None])
        print(f"\n{TASKS[0]}: |x_t| to what it should be\n\n{table(results['norm'])}\n")
    if "overhead" in asked:
        results["overhead"] = overhead(TASKS[0], world, names, num, steps)
        print(f"\n{table(results['overhead'])}\n")
    if "pictures" in asked and not quick:
        write(IMAGE, pictures(TASKS[0], world, 8, steps))
        print("written:", IMAGE)
    if not quick and (asked := asked - {"pictures"}):
        suffix = "" if asked == set(words[:-1]) else "-" + "-".join(w for w in words if w in asked)
        print("written:", save(f"dsg{suffix}", results))


if __name__ == "__main__":
    main()
