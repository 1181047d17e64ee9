"""How does the length n of the look-ahead change quality and cost? On five tasks of scenes, by judges never guided by.

    python benchmarks/nstudy.py [estimate] [guided] [TASK ...] [--quick] [--fresh] [--device cuda] [--threads 2]

estimate: on the way of unguided samples (100 steps of dpmpp_2m, no noise) the relative error of the n-call clean
estimate to the final sample of that way, by time, solver and grid.

guided: SAG by n and solver at normalised strengths, the same for all: nothing is chosen. Beside the exact gradient the
cheaper one through the first call alone, n = 2 and 4. n = 1 is FreeDoM. Steps add noise (eta = 1); on the tasks of
NOISELESS steps that add none, too, where the way ahead is the one that will be gone.

Without a word both are done, on the five tasks of STUDIED. Cells that are done are kept under out/benchmarks and not
computed again; --fresh starts over.
"""

from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import symguide as sg
from benchmarks.common import Cells, arguments, save, table
from benchmarks.world import FIGURES, STEPS, WEIGHT, World, over_seeds
from symguide.evaluation.tasks import TASKS
from symguide.worlds import scenes

FOLDER = Path("out/benchmarks")
NS = (1, 2, 3, 4, 5, 8, 10)
LOOKS = (("ddim", "uniform"), ("ddim", "flow"), ("dpmpp_2m", "uniform"), ("dpmpp_2m", "flow"), ("midpoint", "flow"))
SEEDS, NUM = (0, 1, 2), 32
PLANS = (
    *((n, "dpmpp_2m", "exact") for n in (1, 2, 4, 8)),
    (4, "ddim", "exact"),
    *((n, "dpmpp_2m", "first") for n in (2, 4)),
    ("4, 2, 1", "dpmpp_2m", "exact"),
)
"""(n, solver, Jacobian) of the guided study; all on the flow grid. Below three calls dpmpp_2m is ddim."""
FEWER = (*((n, "dpmpp_2m", "exact") for n in (1, 2, 4)), (2, "dpmpp_2m", "first"))
STUDIED: dict[str, tuple[tuple, tuple[float, ...]]] = {
    "identity": (PLANS, (0.1, 0.3, 0.9)),
    "text": (PLANS, (0.1, 0.3, 0.9)),
    "inpainting": (FEWER, (0.1, 0.3, 0.9)),
    "style": (FEWER, (0.1, 0.3)),
    "aesthetics": (FEWER, (0.1, 0.3)),
}
"""Plans and strengths of each task: with captions a call takes twice the time."""
NOISELESS = ("identity",)


def falling(t: float) -> int:
    """n where the estimate needs it: 4 calls from t = 0.85 on, 2 from 0.5 on, 1 below."""
    return 4 if t >= 0.85 else 2 if t >= 0.5 else 1


@torch.no_grad()
def estimates(
    world: World, num: int, steps: int, ns: tuple[int, ...], looks: tuple[tuple[str, str], ...] = LOOKS
) -> list[dict[str, Any]]:
    """Relative error |x_0' - x_0| / |x_0|, mean over samples, of n-call estimates on the way to x_0.

    A row for every time that is looked from, ten of them, solver and grid; the way is one of `steps` without noise.
    """
    captions = scenes.captions(scenes.draw("held_out", range(num)))
    told: dict[str, Any] = {"condition": {"caption": scenes.tokens(captions)}, "prediction": sg.CFG(WEIGHT)}
    way = sg.sample(world.denoiser, batch=num, steps=steps, solver="dpmpp_2m", eta=0.0, return_trajectory=True, **told)
    assert way.trajectory is not None
    final, rows = way.samples.flatten(1), []
    for line in tqdm(way.trace[:: steps // 10], desc="estimates"):
        for solver, grid in looks:
            row: dict[str, Any] = {"t": round(line.t, 2), "solver": solver, "grid": grid}
            for n in ns:
                x0 = sg.lookahead(world.denoiser, way.trajectory[line.index], line.t, n, solver, grid, **told).x0
                error = (x0.flatten(1) - final).norm(dim=1) / final.norm(dim=1)
                row[f"n={n}"] = round(error.mean().item(), 3)
            rows.append(row)
    return rows


class Guided:
    """Cells of the guided study."""

    def __init__(self, world: World) -> None:
        self.world = world

    def cell(
        self, name: str, n: int | str, solver: str, jacobian: str, scale: float, eta: float, seed: int, num: int
    ) -> dict[str, Any]:
        """One n at one strength on one seed; n = 0 is unguided."""

        def make(objective: Any) -> sg.SAG:
            calls = falling if isinstance(n, str) else n
            return sg.SAG(objective, n=calls, scale=scale, solver=solver, grid="flow", memory="fast", jacobian=jacobian)

        key = {"task": name, "n": n, "solver": solver, "jacobian": jacobian, "scale": scale, "eta": eta}
        return key | {"seed": seed, "num": num} | self.world.measure(name, make if n else None, seed, num, eta=eta)


def guided(name: str, cells: Cells, quick: bool) -> dict[str, Any]:
    """Measure all plans at all strengths on all seeds; the table of one task."""
    (plans, scales), seeds, num = STUDIED[name], SEEDS, NUM
    if quick:
        plans, scales, seeds, num = plans[:1], scales[:1], (0,), 2
    plans = [(0, "unguided", "", 0.0, 1.0), *((*plan, scale, 1.0) for scale in scales for plan in plans)]
    if name in NOISELESS and not quick:
        plans += [(0, "unguided", "", 0.0, 0.0), *((*plan, scale, 0.0) for scale in scales for plan in FEWER)]
    rows, done = [], []
    for plan in tqdm(plans, desc=name):
        mine = [cells.get(name, *plan, seed, num) for seed in seeds]
        rows.append(
            dict(zip(("n", "solver", "gradient", "scale", "eta"), plan, strict=True)) | over_seeds(mine, FIGURES)
        )
        done += mine
    print(f"\n{name}: {TASKS[name].goal}; {num} samples, seeds {seeds}, {STEPS} steps\n\n{table(by_scale(rows))}")
    return {"rows": rows, "cells": done}


def by_scale(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each plan, in which judge and shape stand side by side for all strengths."""
    found: dict[tuple, dict[str, Any]] = {}
    scales = sorted({row["scale"] for row in rows} - {0.0})
    for key in ("judge", "shape"):
        for row in rows:
            plan = {k: row[k] for k in ("eta", "n", "solver", "gradient")}
            mine = found.setdefault(tuple(plan.values()), plan)
            mine |= {f"{key}, {scale}": row[key] for scale in ([row["scale"]] if row["scale"] else scales)}
            mine |= {k: mine.pop(k, row[k]) for k in ("forward", "backward")}  # at the end
    return list(found.values())


def main() -> None:
    given = arguments(__doc__, ["estimate", "guided", *STUDIED], "few samples, one plan, one seed")
    world = World(given.device)
    names = [name for name in given.words if name in STUDIED] or list(STUDIED)[: 1 if given.quick else None]
    if "guided" not in given.words or "estimate" in given.words:
        rows = estimates(world, 2, 10, (1,)) if given.quick else estimates(world, 64, 100, NS)
        print(table(rows))
        if not given.quick:
            print("written:", save("nstudy-estimate", rows))
    if "estimate" not in given.words or "guided" in given.words:
        path = FOLDER / f"nstudy{'-quick' if given.quick else ''}.jsonl"
        keys = ("task", "n", "solver", "jacobian", "scale", "eta", "seed", "num")
        cells = Cells(path, keys, Guided(world).cell, given.fresh)
        for name in names:
            result = guided(name, cells, given.quick)
            if not given.quick:
                print("written:", save(f"nstudy-{name}", result))


if __name__ == "__main__":
    main()
