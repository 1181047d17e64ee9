"""The way that a run is going to go, and look-aheads along it.

A step that adds noise, with the clean estimate held, is linear:

    x_s = kept x_t + (alpha_s - kept alpha_t) x_0 + std z,    kept = sqrt(sigma_s² - std²) / sigma_t

so steps in a row, with the clean estimate held, are one such step, of

    kept = prod_j kept_j,    std² = sum_j c_j²,    std z = sum_j c_j z_j,    c_j = std_j prod_{l > j} kept_l

A look-ahead of n calls makes the steps that are left in n such legs, and where noise belongs to (seed, index, step) all
z_j are known: it goes where the run will go. With a leg for every step it is the rest of the run itself. Time travel
and restarts, x_t = kept x_s + std z, are moves like the others. Ours; no paper has it.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from symguide.per_sample import Noise
from symguide.schedule import Schedule
from symguide.solver import (
    Builder,
    Past,
    Program,
    ancestral_std,
    for_values,
    get_solver,
    noising,
    noisy_step,
    transition,
)

Back = Literal["", "travel", "restart"]


@dataclass(frozen=True)
class Move:
    """One move of a run, down a step or back up: see the module. `noise` draws z."""

    t: float
    s: float
    kept: float
    std: float
    noise: Callable[[], Tensor]
    back: Back = ""


class Course(Protocol):
    """What is known of a run ahead; `symguide.step.Run` is one."""

    @property
    def schedule(self) -> Schedule: ...
    @property
    def solver(self) -> str: ...
    @property
    def eta(self) -> float: ...
    @property
    def noise(self) -> Noise: ...
    @property
    def times(self) -> tuple[float, ...]: ...
    @property
    def plan(self) -> tuple[tuple[int, int], ...] | None: ...
    def repeats(self, index: int) -> int: ...


def to_come(
    run: Course, index: int, visit: int, repeat: int, own: Callable[[], Tensor], after: bool = False
) -> Iterator[Move]:
    """All that a run will make from a step on, or `after` it, if nothing guides it: steps, time travel and restarts.

    `own` is the noise of that step. Where the run ends with noise, its clean estimate there is the last move.
    """
    schedule, times, steps = run.schedule, run.times, len(run.times) - 1
    plan = run.plan or tuple((i, 0) for i in range(steps))
    reached, place = index + after, plan.index((index, visit))
    for i, times_before in plan[place + after :]:
        t, s, key = times[i], times[i + 1], i + times_before * steps
        if i < reached:
            kept, std = noising(schedule, times[reached], t)
            yield Move(times[reached], t, kept, std, partial(run.noise.draw, "restart", i, times_before), "restart")
        reached = i + 1
        begin = repeat if (i, times_before) == (index, visit) else 0
        for k in range(begin, max(run.repeats(i), begin + 1)):
            if k > begin:
                yield Move(s, t, *noising(schedule, s, t), partial(run.noise.draw, "travel", key, k - 1), "travel")
            here = (i, times_before, k) == (index, visit, repeat)
            std = transition(run.solver, schedule, t, s, run.eta, None).std
            yield _step(schedule, t, s, std, own if here else partial(run.noise.draw, "step", key, k))
    if times[reached] > 0:
        yield _step(schedule, times[reached], 0.0, 0.0, _none)


def ancestral(run: Course, index: int) -> Iterator[Move]:
    """Ancestral steps on a run's grid, from a step on down to the clean sample, whatever eta the run has.

    Their noise is for those to draw who go there.
    """
    for t, s in pairwise([*run.times[index:], *([0.0] if run.times[-1] > 0 else [])]):
        yield _step(run.schedule, t, s, ancestral_std(run.schedule, t, s), _none)


def _none() -> Tensor:
    raise AssertionError("this move has no noise of the run's")


def _step(schedule: Schedule, t: float, s: float, std: float, noise: Callable[[], Tensor]) -> Move:
    return Move(t, s, math.sqrt(max(schedule.sigma(s) ** 2 - std**2, 0.0)) / schedule.sigma(t), std, noise)


class Leg(NamedTuple):
    """Moves in a row as one step of a look-ahead, or one move back."""

    t: float
    s: float
    kept: float
    std: float
    back: Back = ""


class Legs(NamedTuple):
    """A look-ahead's legs, the calls of each, and the moves that each is made of."""

    legs: tuple[Leg, ...]
    stages: tuple[int, ...]
    moves: tuple[tuple[Move, ...], ...]

    def noise(self, like: Tensor) -> list[Tensor]:
        """std z of every leg that has noise: the noise of its moves, carried through their linear parts."""
        return [_carried(moves, like) for leg, moves in zip(self.legs, self.moves, strict=True) if leg.std > 0]


def legs(solver: str, moves: Sequence[Move], n: int | None) -> Legs:
    """The moves in legs of n calls in all; None: every move is one, as the run makes them.

    Moves back are within a leg, but where all moves are legs. Legs are as many steps of the run's grid as can be.
    """
    method, down = get_solver(solver), [move for move in moves if not move.back]
    every = method.of_steps(len(down))
    if n is None or n >= sum(every):
        calls = iter(every)
        own = tuple(Leg(move.t, move.s, move.kept, move.std, move.back) for move in moves)
        return Legs(own, tuple(0 if move.back else next(calls) for move in moves), tuple((move,) for move in moves))
    last: list[int] = []  # where each lower time is reached for good, from the end
    for place in reversed(range(len(moves))):
        if (not last or moves[place].s > moves[last[-1]].s) and moves[place].s < moves[0].t:
            last.append(place)
    last.reverse()
    stages = method.calls(n)
    stages = stages if len(stages) <= len(last) else method.of_steps(len(last))
    ends = [last[(2 * len(last) * j + len(stages)) // (2 * len(stages)) - 1] + 1 for j in range(1, len(stages) + 1)]
    parts = tuple(tuple(moves[a:b]) for a, b in zip([0, *ends], ends, strict=False))
    return Legs(tuple(map(_together, parts)), stages, parts)


def _together(moves: Sequence[Move]) -> Leg:
    kept, variance = 1.0, 0.0
    for move in moves:
        kept, variance = move.kept * kept, move.kept**2 * variance + move.std**2
    return Leg(moves[0].t, moves[-1].s, kept, variance**0.5)


def _carried(moves: Sequence[Move], like: Tensor) -> Tensor:
    """sum_j c_j z_j, without what a move that keeps nothing forgets."""
    begin = max((place for place, move in enumerate(moves) if move.kept == 0), default=0)
    total: Tensor | None = None
    for move in moves[begin:]:
        total = None if total is None else move.kept * total
        if move.std > 0:
            drawn = move.noise()
            total = move.std * drawn if total is None else torch.add(total, drawn, alpha=move.std)
    return torch.zeros_like(like) if total is None else total


def along(solver: str, schedule: Schedule, made: Legs, before: float | None) -> Program:
    """The program of a look-ahead along these legs.

    Its inputs are x, the last clean estimate where a multistep solver has a history (at the time `before`), and std z
    of each leg that has noise.
    """
    return _along(solver, schedule, made.legs, made.stages, before)


@for_values
def _along(
    solver: str, schedule: Schedule, legs: tuple[Leg, ...], stages: tuple[int, ...], before: float | None
) -> Program:
    known = 1 if before is None else 2
    made = Builder(inputs=known + sum(leg.std > 0 for leg in legs))
    entering: Past = [] if before in (None, legs[0].t) else [(before, 1)]
    past, x, unused = list(entering), 0, iter(range(known, made.inputs))
    for leg, calls in zip(legs, stages, strict=True):
        noise = next(unused) if leg.std > 0 else None
        if leg.back:
            x = made.linear((leg.kept, x), *([] if noise is None else [(1.0, noise)]))
            past = list(entering) if leg.back == "travel" else []  # a restart begins without history
            continue
        entering = list(past)
        x = noisy_step(made, solver, schedule, x, leg.t, leg.s, leg.std, past, calls, noise)
    return made.program()
