"""What guidance, and a longer look-ahead, are worth beyond diffusion: a flow, one-call models, decoders, generators.

    python benchmarks/beyond.py [flow] [consistency] [latent] [decoder] [generator] [gan] [TASK ...] [--quick] [--fresh]
                                [--pictures]

flow: SAG on the rectified flow by n.
consistency: SAG by n in four steps of the one-call model, and descent on the starting noise through its one call.
latent: SAG by n on the latent diffusion model, through the decoder.
decoder: descent on the latents of that decoder, without any model of them, from a sample's latents or random ones.
generator: descent on z, free or at the length that it was drawn with; the best of as many as that has calls; SAG by n
along the closed-form diffusion of z.
gan: the same on a generator that was trained against a critic alone.

For each way a sweep (seed 100, half the samples) gives the strength by the rule of `best`, and seeds 0, 1, 2 the
figures. Without a word all are done, on style and identity. Cells that are done are kept under out/benchmarks and not
computed again; --fresh starts over. --pictures draws the first samples of every way into docs/images/beyond.png.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

import symguide as sg
from benchmarks.common import Cells, arguments, save, table
from benchmarks.world import FIGURES, World, over_seeds
from symguide.evaluation.tasks import TASKS, Task
from symguide.files import write
from symguide.report import grid, png

FOLDER, IMAGE = Path("out/benchmarks"), Path(__file__).parents[1] / "docs" / "images" / "beyond.png"
TUNE, SEEDS = 100, (0, 1, 2)
NUM, STEPS, CALLS, UPDATES = 32, 15, 4, 12
"""Samples; steps of the diffusion models; of the one-call model; updates of a descent."""
SCALES, CLIPS = (0.2, 0.4, 0.8), (0.003, 0.01, 0.03)
"""Strengths: of SAG's normalised step, and the largest step of an element in a descent."""
NAMES, QUICK = ("style", "identity"), ["generator"]

Draw = Callable[[World, Task, float, int, int], Any]
Start = Callable[[Task, int, int], Tensor]


@dataclass(frozen=True)
class Way:
    """One way to get samples: (world, task, strength, seed, num) -> what has samples and cost; 0.0 for no strength."""

    draw: Draw
    strengths: tuple[float, ...] = (0.0,)


def best(sweep: list[dict[str, Any]], plain: dict[str, Any]) -> dict[str, Any]:
    """The cell of a sweep that the judge likes best among those whose pictures are still pictures.

    Those are cells where the judge reads the asked shape at least as often as in unguided samples, less a tenth; where
    there are none such, it is the one where it reads it most often.
    """
    whole = [cell for cell in sweep if cell["shape"] >= plain["shape"] - 0.1]
    return min(whole, key=lambda c: c["judge"]) if whole else max(sweep, key=lambda c: c["shape"])


def sampled(n: int = 0, steps: int = STEPS, solver: str = "dpmpp_2m") -> Way:
    """SAG by n with this solver's look-ahead on the flow grid; 0 is unguided."""

    def draw(world: World, goal: Task, strength: float, seed: int, num: int) -> Any:
        recipe = (
            sg.SAG(world.objective(goal), n=n, scale=strength, solver=solver, grid="flow", memory="fast") if n else None
        )
        return sg.sample(world.denoiser, batch=num, steps=steps, seed=seed, **world.conditioning(goal), loss=recipe)

    return Way(draw, SCALES if n else (0.0,))


def descended(sphere: bool, updates: int = UPDATES, start: Start | None = None, solver: str = "midpoint") -> Way:
    """Descent on what the one call starts from, by clipped gradients; on the sphere its length stays."""

    def draw(world: World, goal: Task, strength: float, seed: int, num: int) -> Any:
        clip = strength or None
        method = sg.DOODL(updates, scale=1e3, clip=clip, perturbation=0.0, renormalise=sphere)
        begin = None if start is None else start(goal, seed, num)
        settings = {"batch": num, "steps": 1, "seed": seed, "solver": solver, "start": begin, "memory": "fast"}
        return sg.optimise(world.denoiser, world.objective(goal), method, **world.conditioning(goal), **settings)

    return Way(draw, CLIPS if updates else (0.0,))


def best_of(count: int) -> Way:
    """The best of so many z, by the scorer."""

    def draw(world: World, goal: Task, strength: float, seed: int, num: int) -> Any:
        chosen = sg.BestOfN(world.objective(goal), count)
        settings = {"batch": num, "steps": 1, "seed": seed, "solver": "midpoint", "eta": 0.0}
        return sg.sample(world.denoiser, **world.conditioning(goal), **settings, particles=chosen)

    return Way(draw)


@lru_cache
def latent_model() -> World:
    return World(model="scenes-latent")


def diffused(goal: Task, seed: int, num: int) -> Tensor:
    """Latents of unguided samples of the latent diffusion model."""
    world = latent_model()
    return sg.sample(world.denoiser, batch=num, steps=STEPS, seed=seed, **world.conditioning(goal)).samples


class Counted(nn.Module):
    """A decoder that counts the rows it is called with, forward and backward."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder, self.forward_rows, self.backward_rows = decoder, 0, 0

    def forward(self, z: Tensor) -> Tensor:
        self.forward_rows += len(z)
        out: Tensor = self.decoder(z)
        if out.requires_grad:
            out.register_hook(self._count)
        return out

    def _count(self, gradient: Tensor) -> None:
        self.backward_rows += len(gradient)


@dataclass(frozen=True)
class Part:
    """A model and the ways on it.

    Attributes:
        world: makes the model with its judge.
        ways: by name; the first one is unguided, and strengths are chosen beside it.
        decoded: whether the model is its decoder, so that the decoder's calls are what counts.
    """

    world: Callable[[], World]
    ways: dict[str, Way]
    decoded: bool = False


def autoencoder() -> World:
    """The decoder of the scenes world's autoencoder with nothing that knows its latents."""
    decoder = sg.load("scenes-latent").decoder
    return World(model=sg.from_generator(decoder, (4, 16, 16)))


GUIDED = {f"SAG n={n}": sampled(n) for n in (1, 2, 4)}
ONE_CALL = {
    "random z": descended(sphere=False, updates=0),
    f"best of {1 + 2 * UPDATES}": best_of(1 + 2 * UPDATES),
    "descent": descended(sphere=False),
    "descent on the sphere": descended(sphere=True),
    **GUIDED,
}
PARTS = {
    "flow": Part(lambda: World(model="scenes-flow"), {"unguided": sampled()} | GUIDED),
    "consistency": Part(
        lambda: World(model="scenes-consistency", weight=1.0),
        {
            "unguided, 4 calls": sampled(steps=CALLS),
            "unguided, 1 call": sampled(steps=1),
            **{f"SAG n={n}, 4 steps": sampled(n, CALLS, "ddim") for n in (1, 2, 4)},
            "descent on the noise, 1 call": descended(sphere=True, solver="ddim"),
        },
    ),
    "latent": Part(latent_model, {"unguided": sampled()} | GUIDED),
    "decoder": Part(
        autoencoder,
        {
            "diffused latents": descended(sphere=False, updates=0, start=diffused),
            "descent from them": descended(sphere=False, start=diffused),
            "random latents": descended(sphere=False, updates=0),
            "descent from random ones": descended(sphere=False),
        },
        decoded=True,
    ),
    "generator": Part(lambda: World(model="scenes-generator"), ONE_CALL, decoded=True),
    "gan": Part(lambda: World(model="scenes-gan"), ONE_CALL, decoded=True),
}


class Measured:
    """Cells: one way at one strength on one seed. Models are loaded once."""

    def __init__(self) -> None:
        self.worlds: dict[str, World] = {}

    def draw(self, part: str, way: str, name: str, strength: float, seed: int, num: int) -> tuple[World, Task, Any]:
        """The world, the task and what the way gives for it."""
        if part not in self.worlds:
            self.worlds[part] = world = PARTS[part].world()
            if PARTS[part].decoded:
                world.denoiser.decoder = Counted(world.denoiser.decoder)
        world = self.worlds[part]
        goal = world.task(name, range(num))
        return world, goal, PARTS[part].ways[way].draw(world, goal, strength, seed, num)

    def cell(self, part: str, way: str, name: str, strength: float, seed: int, num: int) -> dict[str, Any]:
        key = {"part": part, "way": way, "task": name, "strength": strength, "seed": seed, "num": num}
        world, goal, drawn = self.draw(*key.values())
        counter = world.denoiser.decoder
        calls = {}
        if isinstance(counter, Counted):
            calls = {"forward": counter.forward_rows // num, "backward": counter.backward_rows // num}
        figures = world.figures(goal, drawn.samples, drawn.cost)
        if isinstance(counter, Counted):
            counter.forward_rows = counter.backward_rows = 0
        return key | figures | calls


def study(part: str, name: str, cells: Cells, quick: bool) -> dict[str, Any]:
    """Sweep, choose, measure on all seeds; the table of one part and task."""
    seeds, num = ((TUNE,), 2) if quick else (SEEDS, NUM)
    rows, done, sweeps, plain = [], [], [], None
    for way, how in tqdm(PARTS[part].ways.items(), desc=f"{part}, {name}"):
        strengths = how.strengths[:1] if quick else how.strengths
        sweep = [cells.get(part, way, name, strength, TUNE, num if quick else num // 2) for strength in strengths]
        plain = plain or sweep[0]
        strength = best(sweep, plain)["strength"]
        mine = [cells.get(part, way, name, strength, seed, num) for seed in seeds]
        rows.append({"way": way, "strength": strength or ""} | over_seeds(mine, FIGURES))
        done, sweeps = done + mine, sweeps + sweep
    print(f"\n{part}, {name}: {TASKS[name].goal}; {num} samples, seeds {seeds}\n\n{table(rows)}", flush=True)
    return {"rows": rows, "sweep": sweeps, "cells": done}


def pictures(measured: Measured, cells: Cells, name: str = "style", count: int = 12) -> bytes:
    """The first samples of every way at its strength, for one task, as PNG."""
    rows, labels = [], []
    for part, each in PARTS.items():
        plain = None
        for way, how in each.ways.items():
            sweep = [cells.get(part, way, name, strength, TUNE, NUM // 2) for strength in how.strengths]
            plain = plain or sweep[0]
            world, _, drawn = measured.draw(part, way, name, best(sweep, plain)["strength"], SEEDS[0], count)
            with torch.no_grad():
                shown = world.denoiser.decode(drawn.samples)
            rows.append(torch.nn.functional.avg_pool2d(shown, shown.shape[-1] // 32))
            labels.append(f"{part}: {way}")
    reference = TASKS[name].make(range(count), 32).reference
    assert reference is not None
    return png(grid([reference, *rows], ["reference", *labels], cell=48))


def main() -> None:
    flags = {"pictures": "draw pictures of the ways, once their cells are there"}
    given = arguments(__doc__, [*PARTS, *TASKS], "few samples of the generator alone", device=False, **flags)
    parts = [part for part in PARTS if part in given.words] or (QUICK if given.quick else list(PARTS))
    names = [name for name in TASKS if name in given.words] or list(NAMES)[-1 if given.quick else 0 :]
    path, measured = FOLDER / f"beyond{'-quick' if given.quick else ''}.jsonl", Measured()
    keys = ("part", "way", "task", "strength", "seed", "num")
    cells = Cells(path, keys, measured.cell, given.fresh)
    for part in parts:
        results = {name: study(part, name, cells, given.quick) for name in names}
        if not given.quick:
            print("written:", save(f"beyond-{part}", results))
    if given.pictures:
        write(IMAGE, pictures(measured, cells))
        print("written:", IMAGE)


if __name__ == "__main__":
    main()
