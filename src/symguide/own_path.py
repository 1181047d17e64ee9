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
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from symguide.errors import ConfigError, unknown, whole
from symguide.per_sample import Noise
from symguide.schedule import Schedule
from symguide.solver import (
    Builder,
    Grid,
    Past,
    Program,
    Solver,
    ancestral_std,
    for_values,
    get_solver,
    noising,
    noisy_step,
    transition,
)

Back = Literal["", "travel", "restart"]
PATHS = ("ode", "own", "fresh")
"""Ways that a look-ahead can go: without noise, where the run will go, or with noise of its own."""


def check_ahead(
    path: str,
    n: int | None,
    grid: str | Grid | None = None,
    samples: int = 1,
    paths: Sequence[str] = PATHS,
    of: str = "a look-ahead",
) -> None:
    """ConfigError unless a look-ahead of n calls, or all for None, can go along this path, which must be in `paths`."""
    if path in PATHS and path not in paths:
        raise ConfigError(
            f"{of} looks along {' or '.join(map(repr, paths))}; {path!r} is for SAG, DSG and step.lookahead_gradient"
        )
    if path not in paths:
        raise unknown(f"path of {of}", path, paths)
    if path != "ode" and grid is not None:
        raise ConfigError(f"path={path!r} goes along the run's own grid: leave grid= out")
    if n is None and path == "ode":
        raise ConfigError("n='all' (None for a step) is as many calls as the run makes: use path='own'")
    if n is not None:
        whole(n, "n", 1)
    if whole(samples, "samples", 1) > 1 and path != "fresh":
        raise ConfigError(f"samples={samples} are look-aheads with noise of their own: use path='fresh'")


@dataclass(frozen=True)
class Move:
    """One move of a run, down a step or back up: see the module.

    `noise` draws z. An `estimate` is not a step but the run's clean estimate where it ends with noise: one call.
    """

    t: float
    s: float
    kept: float
    std: float
    noise: Callable[[], Tensor]
    back: Back = ""
    estimate: bool = False


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
    def repeats(self, index: int, visit: int = 0) -> int: ...


class StepToCome:
    """A step that is not made yet, as windows and rules of time see it: where it is in the run, and no more."""

    def __init__(self, run: Course, index: int, visit: int) -> None:
        self.run, self.index, self.visit, self.schedule = run, index, visit, run.schedule
        self.t, self.s = run.times[index], run.times[index + 1]

    def __getattr__(self, name: str) -> Any:
        raise ConfigError(
            f"along the run's own path it must be known ahead which steps are repeated, and a window asks for "
            f"step.{name}: use a window of times, the number repeats=1, or path='ode'"
        )


def to_come(
    run: Course, index: int, visit: int, repeat: int, own: Callable[[], Tensor], after: bool = False
) -> Iterator[Move]:
    """All that a run will make from a step on, or `after` it, if nothing guides it: steps, time travel and restarts.

    `own` is the noise of that step. Where the run ends with noise, its clean estimate there is the last move.
    """
    schedule, times, steps = run.schedule, run.times, len(run.times) - 1
    plan = run.plan or tuple((i, 0) for i in range(steps))
    reached, place = index + after, plan.index((index, visit))
    for i, times_before in plan[place:]:
        t, s, key = times[i], times[i + 1], i + times_before * steps
        now = (i, times_before) == (index, visit)
        if i < reached and not now:
            kept, std = noising(schedule, times[reached], t)
            yield Move(times[reached], t, kept, std, partial(run.noise.draw, "restart", i, times_before), "restart")
        reached = i + 1
        std = transition(run.solver, schedule, t, s, run.eta, None).std
        begin = repeat if now else 0
        for k in range(begin + (now and after), max(run.repeats(i, times_before), begin + 1)):
            if k > begin:
                yield Move(s, t, *noising(schedule, s, t), partial(run.noise.draw, "travel", key, k - 1), "travel")
            yield _step(schedule, t, s, std, own if now and k == repeat else partial(run.noise.draw, "step", key, k))
    if times[reached] > 0:
        yield clean_estimate(times[reached])


def ancestral(run: Course, index: int) -> Iterator[Move]:
    """Ancestral steps on a run's grid, from a step on down to the clean sample, whatever eta the run has.

    Their noise is for those to draw who go there.
    """
    for t, s in pairwise([*run.times[index:], *([0.0] if run.times[-1] > 0 else [])]):
        yield _step(run.schedule, t, s, ancestral_std(run.schedule, t, s), _none)


def clean_estimate(t: float) -> Move:
    """The last move of a run that ends at t, with noise."""
    return Move(t, 0.0, 0.0, 0.0, _none, estimate=True)


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


def legs(solver: str, schedule: Schedule, moves: Sequence[Move], n: int | None) -> Legs:
    """The moves in legs of n calls in all; None, or as many as the run makes: every move is one, as the run makes them.

    Legs end where a lower time is reached for good, so that moves back are within them, and are as many steps of the
    run's grid as can be. Where such legs cannot have n calls, they end at any step, with moves back between them.
    """
    method, down = get_solver(solver), [place for place, move in enumerate(moves) if not move.back]
    most = sum(_calls(method, schedule, moves[place : place + 1]) for place in down)
    n = most if n is None else min(n, most)
    for ends, cut in ((_for_good(moves), _whole), (down, _back_apart)):
        for count in range(-(-n // method.stages), len(ends) + 1):
            last = [ends[(2 * len(ends) * j + count) // (2 * count) - 1] + 1 for j in range(1, count + 1)]
            parts = [part for a, b in zip([0, *last], last, strict=False) for part in cut(moves[a:b])]
            stages = [_calls(method, schedule, part) for part in parts]
            if sum(stages) >= n:
                return Legs(tuple(map(_together, parts)), _of_all(stages, n), tuple(map(tuple, parts)))
    raise AssertionError("a run's steps down have all of its calls")


def _for_good(moves: Sequence[Move]) -> list[int]:
    """The moves that reach a lower time than the first one's for good."""
    last: list[int] = []
    for place in reversed(range(len(moves))):
        if (not last or moves[place].s > moves[last[-1]].s) and moves[place].s < moves[0].t:
            last.append(place)
    return last[::-1]


def _whole(moves: Sequence[Move]) -> list[Sequence[Move]]:
    return [moves]


def _back_apart(moves: Sequence[Move]) -> list[Sequence[Move]]:
    return [moves[:1], moves[1:]] if moves[0].back else [moves]


def _calls(method: Solver, schedule: Schedule, moves: Sequence[Move]) -> int:
    """The most calls that moves in a row can have as one leg: none back, one for a clean estimate."""
    leg = _together(moves)
    if leg.back or moves[-1].estimate:
        return int(not leg.back)
    return method.most(_rest(schedule, leg) / schedule.sigma(leg.s) if leg.s > 0 else 0.0)


def _of_all(stages: Sequence[int], n: int) -> tuple[int, ...]:
    """n calls of these, without second stages of the last legs where they are more."""
    made = list(stages)
    for place in reversed(range(len(made))):
        made[place] -= min(max(made[place] - 1, 0), sum(made) - n)
    return tuple(made)


def _together(moves: Sequence[Move]) -> Leg:
    kept, variance = 1.0, 0.0
    for move in moves:
        kept, variance = move.kept * kept, move.kept**2 * variance + move.std**2
    return Leg(moves[0].t, moves[-1].s, kept, variance**0.5, moves[0].back if len(moves) == 1 else "")


def _rest(schedule: Schedule, leg: Leg) -> float:
    """What `noisy_step` is told; not by sigma_s² - std², of which rounding leaves nothing where little is kept."""
    return leg.kept * schedule.sigma(leg.t) if leg.std > 0 else schedule.sigma(leg.s)


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
    entering: Past = [] if before is None else [(before, 1)]
    past, x, unused = list(entering), 0, iter(range(known, made.inputs))
    for leg, calls in zip(legs, stages, strict=True):
        noise = next(unused) if leg.std > 0 else None
        if leg.back:
            x = made.linear((leg.kept, x), *([] if noise is None else [(1.0, noise)]))
            past = list(entering) if leg.back == "travel" else []  # a restart begins without history
            continue
        entering = [each for each in past if each[0] > leg.t]  # a leg over a restart has led to where it is noisier
        past = list(entering)
        x = noisy_step(made, solver, schedule, x, leg.t, leg.s, _rest(schedule, leg), past, calls, noise)
    return made.program()
