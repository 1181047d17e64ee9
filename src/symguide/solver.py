"""Solvers as programs, time grids, and the stochastic step.

An explicit solver over times t_0 > ... > t_n is a list of nodes: `Linear` (a sum of c_j * node_j) and `Predict` (the
clean estimate x_0 of the network at a node). Reading the list forwards samples; reading it backwards is the exact
gradient (lookahead.py). Every solver below is a table of coefficients and nothing else.

Two-stage solvers work in the flow frame: with u = sigma / (alpha + sigma) and y = x / (alpha + sigma),

    y = (1 - u) x_0 + u eps,    dy/du = eps - x_0

which every schedule can be brought to, is finite at both ends, and in which straight paths stay straight.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass
from functools import lru_cache, wraps
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar, cast

from symguide.errors import ConfigError, unknown
from symguide.registry import Registry, register, registry_of
from symguide.schedule import Schedule, Time

Make = TypeVar("Make", bound=Callable[..., Any])
Written = TypeVar("Written", bound=Callable[..., int])
Past = list[tuple[float, int]]  # earlier predictions of a multistep solver: (time, node)
NO_SHARE = 1e-4  # of x_t's own noise in x_s: what is less is left over by rounding, or is lost in it


class Linear(NamedTuple):
    """sum of c * node, c a number or one for each frame."""

    terms: tuple[tuple[Time, int], ...]


class Predict(NamedTuple):
    """The clean estimate at a node, at one time or at one for each frame."""

    node: int
    t: Time


@dataclass(frozen=True)
class Program:
    """A list of nodes; the first `inputs` values are given, node k is value inputs + k, the last one is the output."""

    inputs: int
    nodes: tuple[Linear | Predict, ...]

    @property
    def calls(self) -> int:
        """Network calls."""
        return sum(isinstance(node, Predict) for node in self.nodes)


class Builder:
    """A program that solvers write node by node."""

    def __init__(self, inputs: int) -> None:
        self.inputs, self.nodes = inputs, list[Linear | Predict]()

    def linear(self, *terms: tuple[float, int]) -> int:
        self.nodes.append(Linear(tuple((c, j) for c, j in terms if c != 0)))
        return self.inputs + len(self.nodes) - 1

    def predict(self, node: int, t: float) -> int:
        self.nodes.append(Predict(node, t))
        return self.inputs + len(self.nodes) - 1

    def program(self) -> Program:
        """What is written so far."""
        return Program(self.inputs, tuple(self.nodes))


@dataclass(frozen=True)
class Solver:
    """A solver's step, how many calls a step makes, and what it needs.

    `full_at_end`: its second stage exists in the step to sigma = 0. `multistep`: it uses the last step's prediction.
    """

    step: Callable[..., int]
    stages: int = 1
    full_at_end: bool = True
    multistep: bool = False

    def calls(self, n: int) -> tuple[int, ...]:
        """Calls of each step of a run of n calls: pairs for two-stage solvers, a one-stage step for an odd one."""
        last = () if self.full_at_end or n == 0 else (1,)
        rest = n - len(last)
        return (self.stages,) * (rest // self.stages) + (1,) * (rest % self.stages) + last

    def of_steps(self, steps: int) -> tuple[int, ...]:
        """Calls of each step of a run of so many steps down to sigma = 0, as `sample` makes them."""
        return (self.stages,) * (steps - 1) + (self.stages if self.full_at_end else 1,)

    def most(self, share: float) -> int:
        """Calls of a step in whose noise this share is x_t's own: Heun's second stage divides by it."""
        return self.stages if self.full_at_end or share > NO_SHARE else 1


SOLVERS: Registry[Solver] = registry_of("solver")


def solver(name: str, **traits: Any) -> Callable[[Written], Written]:
    """A decorator that registers a step, (program, schedule, x, t, s, past, stages) -> node of x_s, as a solver.

    Args:
        name: of the solver.
        traits: stages, full_at_end and multistep, see `Solver`.
    """

    def add(step: Written) -> Written:
        register("solver", name)(Solver(step, **traits))
        return step

    return add


@solver("ddim")
def ddim(program: Builder, schedule: Schedule, x: int, t: float, s: float, past: Past, stages: int = 1) -> int:
    """x_s = (sigma_s / sigma_t) x_t + (alpha_s - sigma_s alpha_t / sigma_t) x_0: Euler on the probability-flow ODE.

    First order, one call. Source: Song et al., "DDIM", 2010.02502, equation 12.
    """
    return _straight(program, schedule, x, program.predict(x, t), t, s)


@solver("midpoint", stages=2)
def midpoint(program: Builder, schedule: Schedule, x: int, t: float, s: float, past: Past, stages: int = 2) -> int:
    """y_s = y_t + (u_s - u_t) flow(y at the midpoint): second order, two calls (the last step to clean included).

    The explicit midpoint rule in the flow frame. A one-stage step is `ddim`.
    """
    x0 = program.predict(x, t)
    if stages == 1:
        return _straight(program, schedule, x, x0, t, s)
    u_t, u_s = _flow_time(schedule, t), _flow_time(schedule, s)
    m = _at_flow_time(schedule, 0.5 * (u_t + u_s))
    x_m = _straight(program, schedule, x, x0, t, m)
    x0_m = program.predict(x_m, m)
    return _along_flow(program, schedule, x, t, s, (u_s - u_t, x_m, x0_m, m))


@solver("heun", stages=2, full_at_end=False)
def heun(program: Builder, schedule: Schedule, x: int, t: float, s: float, past: Past, stages: int = 2) -> int:
    """y_s = y_t + (u_s - u_t) (flow_t + flow_s') / 2, flow_s' at the Euler step's end: second order, two calls.

    Heun's rule in the flow frame (EDM's Algorithm 1, 2206.00364, has it in the ratio's). A one-stage step is `ddim`;
    the step to sigma = 0 is one, as eps is undefined there.
    """
    x0 = program.predict(x, t)
    x_e = _straight(program, schedule, x, x0, t, s)
    if stages == 1:
        return x_e
    h = _flow_time(schedule, s) - _flow_time(schedule, t)
    x0_e = program.predict(x_e, s)
    return _along_flow(program, schedule, x, t, s, (0.5 * h, x, x0, t), (0.5 * h, x_e, x0_e, s))


@solver("dpmpp_2m", multistep=True)
def dpmpp_2m(program: Builder, schedule: Schedule, x: int, t: float, s: float, past: Past, stages: int = 1) -> int:
    """x_s = (sigma_s / sigma_t) x_t + (...) ((1 + h / (2 h')) x_0 - h / (2 h') x_0'), h = steps in log(alpha / sigma).

    DPM-Solver++(2M): second order, one call; first order where it has no history and in the step to sigma = 0.
    Source: Lu et al., "DPM-Solver++", 2211.01095, algorithm 2.
    """
    x0 = program.predict(x, t)
    r, c = straight_weights(schedule, t, s)
    if past and s > 0 and schedule.alpha(past[-1][0]) > 0:
        before, x0_before = past[-1]
        lam = [-math.log(schedule.ratio(time)) for time in (before, t, s)]
        k = (lam[2] - lam[1]) / (2 * (lam[1] - lam[0]))
        out = program.linear((r, x), (c * (1 + k), x0), (-c * k, x0_before))
    else:
        out = program.linear((r, x), (c, x0))
    past.append((t, x0))
    return out


def straight_weights(schedule: Schedule, t: float, s: float) -> tuple[float, float]:
    """Weights of x_t and of x_0 in the straight (DDIM) step from t to s."""
    ratio = schedule.sigma(s) / schedule.sigma(t)
    return ratio, schedule.alpha(s) - ratio * schedule.alpha(t)


def _straight(program: Builder, schedule: Schedule, x: int, x0: int, t: float, s: float) -> int:
    r, c = straight_weights(schedule, t, s)
    return program.linear((r, x), (c, x0))


def _along_flow(
    program: Builder, schedule: Schedule, x: int, t: float, s: float, *slopes: tuple[float, int, int, float]
) -> int:
    """x_s from y_s = y_t + sum h * (eps - x_0), with eps = (x - alpha x_0) / sigma at each slope's (x, x_0, time)."""
    scale_t, scale_s = (schedule.alpha(r) + schedule.sigma(r) for r in (t, s))
    terms = [(scale_s / scale_t, x)]
    for h, node, x0, r in slopes:
        alpha, sigma = schedule.alpha(r), schedule.sigma(r)
        terms += [(scale_s * h / sigma, node), (-scale_s * h * (alpha + sigma) / sigma, x0)]
    return program.linear(*terms)


def _flow_time(schedule: Schedule, t: float) -> float:
    return schedule.sigma(t) / (schedule.alpha(t) + schedule.sigma(t))


def _at_flow_time(schedule: Schedule, u: float) -> float:
    return schedule.time(u / (1 - u))


def get_solver(name: str) -> Solver:
    """The solver of that name; ConfigError with the nearest names for an unknown one."""
    return SOLVERS[name]


def for_values(make: Make) -> Make:
    """make(solver, schedule, ...), kept by its arguments where these are values: schedules that never change.

    A schedule that is no frozen dataclass may be changed and still be equal to itself: nothing is kept for it.
    """
    kept = lru_cache(maxsize=4096)(make)

    @wraps(make)
    def call(solver: str, schedule: Schedule, *rest: Any) -> Any:
        frozen = is_dataclass(schedule) and schedule.__dataclass_params__.frozen
        return (kept if frozen else make)(solver, schedule, *rest)

    return cast(Make, call)


# Time grids: (schedule, t, steps) -> steps + 1 times from t down to 0.

Grid = Callable[[Schedule, float, int], Sequence[float]]


def uniform(schedule: Schedule, t: float, steps: int) -> list[float]:
    """Uniform in t, as the paper of SAG and most pipelines have it."""
    return [t * (1 - i / steps) for i in range(steps)] + [0.0]


def arctan(schedule: Schedule, t: float, steps: int) -> list[float]:
    """Uniform in arctan(sigma / alpha), the angle of the VP circle."""
    angle = math.atan(schedule.ratio(t))
    return [t] + [schedule.time(math.tan(angle * (1 - i / steps))) for i in range(1, steps)] + [0.0]


def flow(schedule: Schedule, t: float, steps: int) -> list[float]:
    """Uniform in u = sigma / (alpha + sigma), the time of a rectified flow with the same noise-to-signal ratio."""
    u = _flow_time(schedule, t)
    return [t] + [_at_flow_time(schedule, u * (1 - i / steps)) for i in range(1, steps)] + [0.0]


def karras(schedule: Schedule, t: float, steps: int, rho: float = 7.0, ratio_min: float = 0.02) -> list[float]:
    """Uniform in (sigma / alpha)^(1 / rho) down to ratio_min, then 0. Source: Karras et al., 2206.00364, equation 5."""
    top = min(schedule.ratio(t), 1e4)  # a flow starts at infinity
    low = min(ratio_min, top / 2)
    ends = top ** (1 / rho), low ** (1 / rho)
    between = (ends[0] + i / max(steps - 1, 1) * (ends[1] - ends[0]) for i in range(1, steps))
    return [t] + [schedule.time(r**rho) for r in between] + [0.0]


def timesteps(own: Sequence[float]) -> Grid:
    """A model's own timesteps, as its network is given them, e.g. timesteps(range(980, -1, -20)) for a VP table.

    A run of fewer steps takes evenly spaced ones of those that are left (rounded down), as the published SAG does.
    Raises ConfigError where they do not fall, or a run asks for more steps than are left.
    """
    if len(own) < 1 or any(a <= b for a, b in pairwise(own)):
        raise ConfigError("timesteps must be given falling, as sampling goes from noise to clean")

    def grid(schedule: Schedule, t: float, steps: int) -> list[float]:
        times = [schedule.at_timestep(value) for value in own]
        left = [r for r in times if r < t * (1 - 1e-9)]
        start = [t] if t <= times[0] * (1 + 1e-9) else []
        points = start + left
        if steps > len(points):
            raise ConfigError(f"{steps} steps asked for, but only {len(points)} of the model's timesteps are left")
        chosen = [points[i * len(points) // steps] for i in range(steps)]
        return [*chosen, 0.0]

    return grid


def starting_at(t: float, grid: str | Grid = "uniform") -> Grid:
    """A grid that starts at t instead of the schedule's first time, for runs whose `start` is less than pure noise."""
    if not 0 < t <= 1:
        raise ConfigError(f"t must be in (0, 1], not {t}")
    made = get_grid(grid)
    return lambda schedule, _, steps: made(schedule, t, steps)


GRIDS: dict[str, Grid] = {"uniform": uniform, "arctan": arctan, "flow": flow, "karras": karras}
PRESETS: dict[str, tuple[str, str]] = {"best": ("dpmpp_2m", "flow"), "paper": ("ddim", "uniform")}


def get_grid(grid: str | Grid) -> Grid:
    """The grid of that name, or the callable itself."""
    if callable(grid):
        return grid
    if grid not in GRIDS:
        raise unknown("grid", grid, GRIDS)
    return GRIDS[grid]


def choose(solver: str, grid: str | Grid | None) -> tuple[str, str | Grid]:
    """Solver and grid from a preset's or a solver's name; a grid that is given wins."""
    if solver in PRESETS:
        preset = PRESETS[solver]
        return preset[0], grid or preset[1]
    get_solver(solver)
    return solver, grid or "flow"


def trajectory(solver: str, schedule: Schedule, grid: str | Grid, t: float, n: int) -> Program:
    """The program of n network calls that carries x from t to the clean sample."""
    stages = get_solver(solver).calls(n)
    times = tuple(get_grid(grid)(schedule, t, len(stages)))
    check_times(times, len(stages), t)
    return through(solver, schedule, times, stages)


def through(
    solver: str, schedule: Schedule, times: Sequence[float], stages: Sequence[int], controlled: bool = False
) -> Program:
    """The program that carries x through all times, with so many stages in each step.

    With `controlled` every step j has a further input c_j, a velocity that is added in the flow frame:
    y_s = step(y_t) + (u_t - u_s) c_j, that is x_s = step(x_t) + `control_weight` c_j.
    """
    return _through(solver, schedule, tuple(times), tuple(stages), controlled)


@for_values
def _through(
    solver: str, schedule: Schedule, times: tuple[float, ...], stages: tuple[int, ...], controlled: bool
) -> Program:
    made, past, x = Builder(inputs=1 + len(stages) if controlled else 1), Past(), 0
    for j, (t, s) in enumerate(pairwise(times)):
        x = get_solver(solver).step(made, schedule, x, t, s, past, stages[j])
        if controlled:
            x = made.linear((1.0, x), (control_weight(schedule, t, s), 1 + j))
    return made.program()


def control_weight(schedule: Schedule, t: float, s: float) -> float:
    """What a velocity of the flow frame moves x_s by in the step from t to s: (alpha_s + sigma_s) (u_t - u_s)."""
    return (schedule.alpha(s) + schedule.sigma(s)) * (_flow_time(schedule, t) - _flow_time(schedule, s))


def check_times(times: Sequence[float], steps: int, t: float | None = None) -> None:
    """ConfigError unless a grid gave steps + 1 times that fall to 0, and from t where it is given."""
    falling = all(a > b for a, b in pairwise(times))
    if len(times) != steps + 1 or not falling or times[-1] != 0 or (t is not None and abs(times[0] - t) > 1e-12):
        first = [round(r, 4) for r in times[:6]]
        start = "" if t is None else f" from {t:.4f}"
        raise ConfigError(
            f"the grid must give {steps + 1} times that fall{start} to 0, and gave {len(times)}: {first} ..."
        )


def _stretched(schedule: Schedule, before: float, t: float, s: float, down: float) -> float:
    """The time of a multistep solver's history in a noisy step.

    The step goes to `down`, further than s, and its noise brings it back; the change of x_0 since the last prediction
    is to be extrapolated to s only, as in SDE-DPM-Solver++(2M) (2211.01095, equation 18). So log(alpha / sigma) of the
    history is set back as much as the step is longer.
    """
    if down in (s, 0.0) or schedule.alpha(before) == 0:
        return before
    lam = [-math.log(schedule.ratio(time)) for time in (before, t, s, down)]
    return schedule.time(math.exp(-(lam[1] - (lam[1] - lam[0]) * (lam[3] - lam[1]) / (lam[2] - lam[1]))))


def ancestral_std(schedule: Schedule, t: float, s: float) -> float:
    """Standard deviation of DDPM's posterior step from t to s."""
    sigma_t, sigma_s = schedule.sigma(t), schedule.sigma(s)
    return sigma_s / sigma_t * math.sqrt(max(sigma_t**2 - (schedule.alpha(t) / schedule.alpha(s) * sigma_s) ** 2, 0.0))


def noising(schedule: Schedule, s: float, t: float) -> tuple[float, float]:
    """What is kept of x_s, and the standard deviation, in x_t ~ q(x_t | x_s), t noisier than s."""
    ratio = schedule.alpha(t) / schedule.alpha(s)
    return ratio, math.sqrt(max(schedule.sigma(t) ** 2 - (ratio * schedule.sigma(s)) ** 2, 0.0))


def noisy_step(
    program: Builder,
    solver: str,
    schedule: Schedule,
    x: int,
    t: float,
    s: float,
    rest: float,
    past: Past,
    stages: int | None = None,
    noise: int | None = None,
) -> int:
    """The node of x_s in a step that adds noise: the solver's step to the cleaner `down`, times a scale.

        sigma_down = rest   at alpha_s

    Args:
        program: what is written to.
        rest: standard deviation of the noise of x_t's own in x_s, sqrt(sigma_s² - std²); sigma_s where none is added.
        stages: of a two-stage solver; as many as the step can have where not given.
        noise: the node of std * z; without it the mean of x_s.
    """
    alpha_s, sigma_s = schedule.alpha(s), schedule.sigma(s)
    down = s if rest == sigma_s else schedule.time(rest / alpha_s)
    scale, share = alpha_s / schedule.alpha(down), rest / sigma_s if s > 0 else 0.0
    if past and share > NO_SHARE:
        past[-1] = _stretched(schedule, past[-1][0], t, s, down), past[-1][1]
    elif past:
        past.clear()
    method = get_solver(solver)
    x = method.step(program, schedule, x, t, down, past, method.most(share) if stages is None else stages)
    if noise is not None:
        return program.linear((scale, x), (1.0, noise))
    return program.linear((scale, x)) if scale != 1.0 else x


class Transition(NamedTuple):
    """The step from t to s: a deterministic program to the cleaner time `down`, times `scale`, plus std * noise."""

    program: Program
    std: float
    radius_std: float  # std of the ancestral step (eta = 1), the natural length of a step whatever eta is


@for_values
def transition(solver: str, schedule: Schedule, t: float, s: float, eta: float, before: float | None) -> Transition:
    """x_s = scale * (program carries x_t to `down`) + std * noise, for any solver.

        std = eta * (sigma_s / sigma_t) sqrt(sigma_t² - (alpha_t / alpha_s)² sigma_s²)
        sigma_down² = sigma_s² - std²   at alpha_s

    With `ddim`, eta in (0, 1] is DDIM's eta and eta = 1 is DDPM's posterior step; with the others it is the ancestral
    step. Source: Song et al., 2010.02502, equations 12 and 16; k-diffusion's ancestral samplers have the same split.
    `before` is the time of the last step's prediction (input node 1) for multistep solvers; where that is t, it waited,
    and begins anew.
    """
    ancestral = ancestral_std(schedule, t, s)
    std = eta * ancestral
    if std > schedule.sigma(s):
        raise ConfigError(f"eta = {eta} puts more noise into the step from t = {t:.4f} than x_s has: use eta <= 1")
    made = Builder(inputs=1 if before is None else 2)
    past: Past = [] if before in (None, t) else [(before, 1)]
    noisy_step(made, solver, schedule, 0, t, s, math.sqrt(max(schedule.sigma(s) ** 2 - std**2, 0.0)), past)
    return Transition(made.program(), std, ancestral)
