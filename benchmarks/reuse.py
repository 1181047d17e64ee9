"""Can the look-ahead reuse what earlier steps computed, or leave out a part? Tricks beside SAG, on tasks of scenes.

    python benchmarks/reuse.py [estimate] [gradient] [guided] [TASK ...] [--quick] [--fresh] [--threads 2]

estimate: on the way of unguided samples, without noise and with it, the relative error of the n-call clean estimate to
a fine one (32 calls), without history and with the last step's prediction as history of the first step.

gradient: on the way of SAG n=2 the cosine of every trick's gradient with the exact one.

guided: samples by judge and Frechet distance with the ways of GUIDED, at strengths that are the same for all: nothing
is chosen.

Without a word all three are done, on identity. Cells that are done are kept under out/benchmarks and not computed
again; --fresh starts over.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import symguide as sg
from benchmarks.common import Cells, arguments, save, table
from benchmarks.peers.quality import cosine
from benchmarks.world import FIGURES, STEPS, World, over_seeds
from symguide.call import GuidedPredictor
from symguide.kept_graphs import KeptGraphs
from symguide.lookahead import lookahead_program, read_backwards, record, run
from symguide.loss import value_and_gradient
from symguide.loss_guidance.recipe import Push
from symguide.per_sample import norm
from symguide.solver import Builder, Program, dpmpp_2m, flow
from symguide.step import Run, Step

FOLDER = Path("out/benchmarks")
SEEDS, NUM, SCALES, TASKS = (0, 1, 2), 16, (0.3, 0.9), ("identity", "text")
Pair = tuple[Tensor, Tensor]
Past = tuple[float, Tensor] | None


def with_history(schedule: sg.Schedule, t: float, n: int, before: float | None) -> Program:
    """The default look-ahead of n calls; input 1 is the prediction at `before`, history of the first step."""
    made = Builder(inputs=1 if before is None else 2)
    past, x = [] if before is None else [(before, 1)], 0
    for r, s in pairwise(flow(schedule, t, n)):
        x = dpmpp_2m(made, schedule, x, r, s, past)
    return made.program()


def everything(step: Step, program: Program) -> KeptGraphs:
    """The plan that keeps every graph."""
    return KeptGraphs("fast", step.run.predict, program, step.x)


class Trick(sg.SAG):
    """SAG whose gradient is `gradient`'s; every run begins with nothing remembered."""

    def __init__(self, objective: Any, n: int, scale: float) -> None:
        super().__init__(objective, n=n, scale=scale, memory="fast")

    def prepare(self, run: Run) -> None:
        super().prepare(run)
        self.past: Past = None
        self.last: Any = None
        self.pairs: list[Pair] = []

    def recorded(self, step: Step, program: Program, *inputs: Tensor) -> tuple[list, Tensor, Tensor]:
        """(calls, loss, cotangent at the clean estimate) of a look-ahead; the sampler's own call is its first."""
        x0, calls = record(everything(step, program), [step.x, *inputs], program, step._first)
        step._first = calls[0]
        return calls, *value_and_gradient(self.objective_at(step), x0)

    def program(self, step: Step, n: int) -> Program:
        return lookahead_program(step.run.predict.denoiser, step.t, n, self.solver, self.grid)


class History(Trick):
    """The last step's prediction is history of the look-ahead's first step, which is of second order then."""

    def gradient(self, step: Step) -> Pair:
        before, *x0 = self.past or (None,)
        program = with_history(step.schedule, step.t, self.n, before)
        calls, loss, cotangent = self.recorded(step, program, *x0)
        self.past = step.t, step.prediction.x0
        return read_backwards(program, calls, cotangent)[0], loss


class Head(Trick):
    """The sweep through the first half of the calls alone: the cotangent at the end is taken for theirs."""

    def gradient(self, step: Step) -> Pair:
        program, kept = self.program(step, self.n), self.n // 2
        calls, loss, cotangent = self.recorded(step, program)
        end = [k for k, node in enumerate(program.nodes) if isinstance(node, sg.solver.Predict)][kept - 1]
        head = Program(1, program.nodes[: end + 1])
        return read_backwards(head, calls[:kept], cotangent)[0], loss


class EverySecond(Trick):
    """An exact gradient in every second step, and `between` in the others."""

    def gradient(self, step: Step) -> Pair:
        if self.last is None or step.index % 2 == 0:
            program = self.program(step, self.n)
            calls, loss, cotangent = self.recorded(step, program)
            value = read_backwards(program, calls, cotangent)[0]
            self.pairs = [*self.pairs, (cotangent, value)][-4:]
            self.last = value, loss, cotangent
        else:
            self.last = *self.between(step), self.last[2]
        return self.last[:2]

    def between(self, step: Step) -> Pair:
        raise NotImplementedError


class OldGradient(EverySecond):
    """The last gradient once more: no call beyond the sampler's own."""

    def between(self, step: Step) -> Pair:
        return self.last[:2]


class OldCotangent(EverySecond):
    """The last gradient at the clean estimate, through this step's own call: 1 call each way, no objective."""

    def between(self, step: Step) -> Pair:
        program = self.program(step, 1)
        _, calls = record(everything(step, program), [step.x], program, step._first)
        step._first = calls[0]
        return read_backwards(program, calls, self.last[2])[0], self.last[1]


class QuasiNewton(EverySecond):
    """This step's gradient at the estimate through Broyden's matrix of the last four pairs: no backward call."""

    def between(self, step: Step) -> Pair:
        _, loss, cotangent = self.recorded(step, self.program(step, self.n))
        return broyden(self.pairs, cotangent), loss


def broyden(pairs: list[Pair], v: Tensor) -> Tensor:
    """B v of every sample, with B c = g for the last of the pairs (c, g = J^T c).

    B = beta I, then B <- B + (g - B c) c^T / |c|² for one pair after the other; beta = c . g / |c|² of the last pair.
    """
    c, g = pairs[-1]
    beta, updates = dot(c, g) / norm(c).square(), []

    def times(v: Tensor) -> Tensor:
        return beta * v + sum(dot(c, v) * u for c, u in updates)

    for c, g in pairs:
        updates.append((c, (g - times(c)) / norm(c).square()))
    return times(v)


def dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(dim=1).reshape(norm(a).shape)


def second(step: Step) -> bool:
    return step.index % 2 == 0


WAYS: dict[str, Callable[[Any, float], sg.SAG]] = {
    "identity, n = 1": lambda o, s: sg.SAG(o, n=1, scale=s, jacobian="identity"),
    "SAG n = 1": lambda o, s: sg.SAG(o, n=1, scale=s, memory="fast"),
    "n = 1, every second step": lambda o, s: sg.SAG(o, n=1, scale=s, memory="fast", window=second),
    "the same, twice the strength": lambda o, s: sg.SAG(o, n=1, scale=2 * s, memory="fast", window=second),
    "n = 1, old gradient between": lambda o, s: OldGradient(o, 1, s),
    "n = 1, quasi-Newton between": lambda o, s: QuasiNewton(o, 1, s),
    "SAG n = 2": lambda o, s: sg.SAG(o, n=2, scale=s, memory="fast"),
    "SAG n = 2, first": lambda o, s: sg.SAG(o, n=2, scale=s, memory="fast", jacobian="first"),
    "n = 2, history": lambda o, s: History(o, 2, s),
    "n = 2, every second step": lambda o, s: sg.SAG(o, n=2, scale=s, memory="fast", window=second),
    "n = 2, old gradient between": lambda o, s: OldGradient(o, 2, s),
    "n = 2, old cotangent between": lambda o, s: OldCotangent(o, 2, s),
    "n = 2, quasi-Newton between": lambda o, s: QuasiNewton(o, 2, s),
    "SAG n = 4": lambda o, s: sg.SAG(o, n=4, scale=s, memory="fast"),
    "n = 4, through the first two": lambda o, s: Head(o, 4, s),
}


GUIDED = (
    "identity, n = 1",
    "SAG n = 1",
    "n = 1, every second step",
    "the same, twice the strength",
    "n = 1, old gradient between",
    "n = 1, quasi-Newton between",
    "SAG n = 2",
    "n = 2, history",
    "n = 2, quasi-Newton between",
)


@torch.no_grad()
def estimates(world: World, num: int, steps: int, ns: tuple[int, ...], fine: int) -> list[dict[str, Any]]:
    """Relative errors |x_0' - x_0| / |x_0| of clean estimates, mean over samples, x_0 that of the fine look-ahead."""
    goal, rows = world.task("identity", range(num)), []
    told = world.conditioning(goal)
    predict = GuidedPredictor(world.denoiser, told["condition"])
    for eta in (0.0, 1.0):
        way = sg.sample(world.denoiser, batch=num, steps=steps, eta=eta, return_trajectory=True, **told)
        assert way.trajectory is not None
        for line in tqdm(way.trace[1 :: max(steps // 5, 1)], desc="estimates"):
            x, t, before = way.trajectory[line.index], line.t, way.trace[line.index - 1].t
            past = predict(way.trajectory[line.index - 1], before).x0
            truth = sg.lookahead(world.denoiser, x, t, fine, condition=told["condition"]).x0
            row: dict[str, Any] = {"eta": eta, "t": round(t, 2)}
            for n in ns:
                for title, history in (("", None), (", history", before)):
                    program = with_history(world.denoiser.schedule, t, n, history)
                    inputs = [x] if history is None else [x, past]
                    x0 = run(program, inputs, lambda state, r: predict(state, r).x0)
                    row[f"n={n}{title}"] = f"{(norm(x0 - truth) / norm(truth)).mean().item():.3f}"
            rows.append(row)
    return rows


class Beside(sg.SAG):
    """SAG n = 2, beside which tricks say what they would have done; `cosines` by name, a list over the steps."""

    def __init__(self, objective: Any, scale: float, names: Sequence[str]) -> None:
        super().__init__(objective, n=2, scale=scale, memory="fast")
        names = [name for name in names if "every second" not in name and "twice" not in name]
        self.ways = {name: WAYS[name](objective, scale) for name in names}
        self.cosines: dict[str, list[float]] = {name: [] for name in names}

    def prepare(self, run: Run) -> None:
        super().prepare(run)
        for way in self.ways.values():
            way.prepare(run)

    def push(self, step: Step) -> Push:
        exact = {n: step.lookahead_gradient(self.objective_at(step), n, memory="fast")[0] for n in (1, 2, 4)}
        for name, way in self.ways.items():
            if not isinstance(way, EverySecond) or step.index % 2:
                self.cosines[name].append(cosine(way.push(step).gradient, exact[way.n]))
            else:
                way.push(step)
        return super().push(step)


def gradients(world: World, name: str, ways: Sequence[str], num: int, steps: int) -> list[dict[str, Any]]:
    """Mean cosine with the exact gradient at the same n, of early, middle and late steps; in reused steps alone."""
    made: list[Beside] = []

    def make(objective: Any) -> Beside:
        made.append(Beside(objective, 0.3, ways))
        return made[0]

    world.measure(name, make, 0, num, steps)
    rows = []
    for way, values in made[0].cosines.items():
        parts = [values[k * len(values) // 3 : (k + 1) * len(values) // 3] for k in range(3)]
        thirds = zip(("early", "middle", "late"), parts, strict=True)
        means = {third: f"{sum(part) / len(part):.2f}" if part else "" for third, part in thirds}
        rows.append({"way": way, **means})
    return rows


class Guided:
    """Cells of the guided study."""

    def __init__(self, world: World) -> None:
        self.world = world

    def cell(self, name: str, way: str, scale: float, seed: int, num: int, steps: int) -> dict[str, Any]:
        key = {"task": name, "way": way, "scale": scale, "seed": seed, "num": num, "steps": steps}
        return key | self.world.measure(name, lambda o: WAYS[way](o, scale), seed, num, steps)


def guided(name: str, ways: Sequence[str], cells: Cells, quick: bool) -> dict[str, Any]:
    """Measure all ways at all strengths on all seeds; the table of one task."""
    scales, seeds, num, steps = ((0.3,), (0,), 2, 3) if quick else (SCALES, SEEDS, NUM, STEPS)
    rows, done = [], []
    for way in tqdm(ways, desc=name):
        row: dict[str, Any] = {"way": way}
        for scale in scales:
            mine = [cells.get(name, way, scale, seed, num, steps) for seed in seeds]
            figures = over_seeds(mine, {f"{k}, {scale}": v for k, v in FIGURES.items() if k != "scorer"})
            row = {k: v for k, v in row.items() if k not in figures} | figures
            done += mine
        rows.append(row)
    print(f"\n{name}: {num} samples, seeds {seeds}, {steps} steps\n\n{table(rows)}")
    return {"rows": rows, "cells": done}


def main() -> None:
    given = arguments(__doc__, ["estimate", "gradient", "guided", *TASKS], "few samples, steps and ways", device=False)
    parts = [word for word in given.words if word not in TASKS] or ["estimate", "gradient", "guided"]
    tasks = [word for word in given.words if word in TASKS] or ["identity"]
    ways = ("SAG n = 2", "n = 2, history", "n = 2, quasi-Newton between") if given.quick else tuple(WAYS)
    world = World(real=64 if given.quick else 2048)
    results: dict[str, Any] = {}
    if "estimate" in parts:
        results["estimate"] = estimates(world, *((2, 3, (2,), 4) if given.quick else (8, 25, (2, 4), 32)))
        print(table(results["estimate"]))
    for name in tasks if "gradient" in parts else ():
        results[f"gradient, {name}"] = gradients(world, name, ways, *((2, 3) if given.quick else (4, STEPS)))
        print(f"\n{name}: cosine with the exact gradient\n\n{table(results[f'gradient, {name}'])}")
    path = FOLDER / f"reuse{'-quick' if given.quick else ''}.jsonl"
    cells = Cells(path, ("task", "way", "scale", "seed", "num", "steps"), Guided(world).cell, given.fresh)
    for name in tasks if "guided" in parts else ():
        results[f"guided, {name}"] = guided(name, ways if given.quick else GUIDED, cells, given.quick)
    if not given.quick:
        print("written:", save("reuse" + "".join(f"-{word}" for word in given.words), results))


if __name__ == "__main__":
    main()
