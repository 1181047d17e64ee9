"""One step of the loop as guidance sees it, and the protocols of the three hooks.

Nothing of a step is computed before it is asked for, and nothing twice: the sampler's own prediction is the first call
of every look-ahead from here.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from symguide.branch import Moment
from symguide.call import Call, GuidedPredictor
from symguide.denoiser import Denoiser, Prediction, times
from symguide.errors import ConfigError, GuidanceError, SymguideError, whole
from symguide.frames import FrameTransition, frame_transition
from symguide.jacobian import Jacobian
from symguide.lookahead import averaged_sweep, lookahead_program, run, sweep
from symguide.loss import Cotangent, GradientOf, Objective
from symguide.memory import Memory
from symguide.memory_plan import MemoryPlan
from symguide.own_path import Legs, Move, StepToCome, along, ancestral, check_ahead, legs, to_come
from symguide.per_sample import Noise
from symguide.schedule import Schedule, Time
from symguide.solver import Grid, Program, Transition, choose, get_solver, noising, transition


@dataclass(frozen=True)
class Guided:
    """What loss guidance makes of a step: the new x_s, and the loss and gradient norm for the trace, each (B,)."""

    x_s: Tensor
    loss: Tensor
    gradient_norm: Tensor


class LossHook(Protocol):
    """Loss guidance as the loop sees it; recipes are in symguide.loss_guidance."""

    def prepare(self, run: "Run") -> None:
        """Checks settings against the run before the first step."""

    def repeats_at(self, step: "Step") -> int:
        """How often the step is made, with time travel between; 1 where the step is not guided."""

    def guide(self, step: "Step") -> Guided | None:
        """The guided x_s, or None where the step is not guided."""


class PredictionHook(Protocol):
    """Prediction guidance as the loop sees it; rules are in symguide.prediction_guidance."""

    def __call__(self, denoiser: Denoiser, x: Tensor, t: float, condition: Mapping[str, Any]) -> Prediction: ...


@dataclass(frozen=True)
class Moved:
    """What particle guidance makes of a step: the particles, and what is known of them.

    Attributes:
        x_s: the particles after the step, (B K, ...).
        parents: (B K,), where the population was resampled: the rows, of the same sample, that the rows of x_s descend
            from; None where every particle is its own. What the run keeps by row (a multistep solver's history, what
            rules remember) is moved along; x_s, `first` and `log_weights` already are. Noise to come belongs to the
            row, so that particles of one parent part.
        first: the prediction at (x_s, s), where it has been made already: the next step does not make it again.
        log_weights: (B K,), of the particles of x_s, for `Step.log_weights` and `choose`; None keeps them as they are.
        ess: (B,), effective sample sizes before the resampling, for the trace; of `log_weights` where not given.
    """

    x_s: Tensor
    parents: Tensor | None = None
    first: Prediction | None = None
    log_weights: Tensor | None = None
    ess: Tensor | None = None


class ParticleHook(Protocol):
    """Particle guidance as the loop sees it; rules are in symguide.particle_guidance.

    The batch holds `particles` rows for every sample, sample after sample.
    """

    particles: int

    def move(self, step: "Step", x_s: Tensor) -> Tensor | Moved:
        """The particles after a step, of x_s, where it would lead with loss guidance; `Moved` where more is known."""

    def choose(self, samples: Tensor, log_weights: Tensor) -> Tensor:
        """Row of the chosen particle of every sample at the end, (B,), of samples (B K, ...) and weights (B K,)."""


class StepHook(Protocol):
    """What is done to x before and after every step: replacement conditioning, correctors."""

    def before(self, step: "Step", x: Tensor) -> Tensor:
        """x_t in the place of x, which is step.x; x itself where nothing changes."""

    def after(self, step: "Step", x_s: Tensor) -> Tensor:
        """x_s in the place of what the step and all guidance lead to; x_s itself where nothing changes."""


@dataclass(frozen=True)
class Run:
    """What is fixed for a whole run and shared by its steps, and what its hooks remember."""

    predict: GuidedPredictor
    noise: Noise
    times: tuple[float, ...]
    solver: str
    eta: float
    on_nan: str
    loss: LossHook | None = None
    particles: ParticleHook | None = None
    hooks: tuple[StepHook, ...] = ()
    requirements: list["Requirement"] = field(default_factory=list)
    memory: Memory = field(default_factory=Memory)
    levels: tuple[tuple[float, ...], ...] | None = None
    """Times of each frame, where frames have their own; `times` are those of the noisiest."""
    plan: tuple[tuple[int, int], ...] | None = None
    """(index, visit) of every step that the run makes, in order; each index once where not given."""

    @property
    def steps(self) -> int:
        return len(self.times) - 1

    @property
    def schedule(self) -> Schedule:
        return self.predict.denoiser.schedule

    def repeats(self, index: int, visit: int = 0) -> int:
        """How often a step to come is made, with time travel between."""
        if self.loss is None or getattr(self.loss, "repeats", None) == 1:
            return 1
        return self.loss.repeats_at(cast("Step", StepToCome(self, index, visit)))

    def unmet(self) -> "Requirement | None":
        """The first of the requirements so far that was not met. On a GPU this waits for all that was asked of it."""
        asked, self.requirements[:] = list(self.requirements), []
        met = torch.stack([requirement.met for requirement in asked]).tolist() if asked else []
        return asked[met.index(False)] if False in met else None


@dataclass(frozen=True)
class Requirement:
    """What a step needs: whether it was so, a tensor of one truth value, and the error to raise if it was not."""

    index: int
    met: Tensor
    error: Callable[[], SymguideError]


@dataclass(frozen=True)
class State:
    """Where a run stands between two steps.

    Attributes:
        x: (rows, ...).
        past: time (or times of frames) and clean estimate of the last prediction, for multistep solvers.
        first: the prediction at x, where it has been made already.
        log_weights: of the particles, (rows,); None where all weigh the same.
    """

    x: Tensor
    past: tuple[Any, Tensor] | None = None
    first: Prediction | None = None
    log_weights: Tensor | None = None


class Step:
    """One step from t to s, as the hooks see it. Nothing is computed before it is asked for, and nothing twice.

    `repeat` counts how often time travel has made it again, `visit` how often a restart has led back to it. Where
    frames have noise levels of their own, these are `levels`, and t and s those of the noisiest.
    """

    def __init__(self, run: Run, index: int, state: State, repeat: int = 0, visit: int = 0) -> None:
        self.run, self.index, self.repeat, self.visit, self.state = run, index, repeat, visit, state
        self.x = state.x
        self._key = index + visit * run.steps  # of its noise, so that no two visits share any
        self.t, self.s = run.times[index], run.times[index + 1]
        self.schedule = run.schedule
        before = None if state.past is None else state.past[0]
        self.levels: tuple[Time, Time] = self.t, self.s
        self.transition: Transition | FrameTransition
        if run.levels is None:
            self.transition = transition(run.solver, self.schedule, self.t, self.s, run.eta, before)
        else:
            self.levels = t, s = run.levels[index], run.levels[index + 1]
            self.transition = frame_transition(run.solver, self.schedule, t, s, run.eta, before)
        first = None if run.predict.by_step else state.first  # which the step before made, with what it remembered
        self._first = None if first is None else Call.of(run.predict, self.levels[0], first)
        self._noise: Tensor | None = None
        self._mean: Tensor | None = None
        run.memory.begin(self._key)
        run.predict.moment = Moment(run.noise, run.memory, self._key, self.levels[0])

    def at(self, x: Tensor) -> "Step":
        """This step from another x; itself where it is the same."""
        if x is self.x:
            return self
        return Step(self.run, self.index, replace(self.state, x=x, first=None), self.repeat, self.visit)

    @property
    def std(self) -> float:
        """Standard deviation of x_s given x_t; 0 in a deterministic step. ConfigError where frames have their own."""
        if isinstance(self.transition.std, tuple):
            raise ConfigError("this method needs a step with one noise level for all frames")
        return self.transition.std

    @property
    def radius(self) -> Time:
        """sqrt(d) * std of the ancestral step: how far noise alone carries a sample, whatever eta is.

        Where frames have their own levels it is one of each, as if all of the sample were that frame's.
        """
        return _each(lambda std: math.sqrt(self.x[0].numel()) * std, self.transition.radius_std)

    @property
    def prediction(self) -> Prediction:
        """The sampler's own prediction at (x_t, t), without graph."""
        if self._first is None:
            self._first = Call(self.run.predict, self.x, self.levels[0], keep=False)
        return self._first.prediction

    @property
    def noise(self) -> Tensor:
        """The step's own z ~ N(0, I)."""
        if self._noise is None:
            self._noise = self.run.noise.draw("step", self._key, self.repeat)
        return self._noise

    def draw(self, stream: str, times: int | None = None, shape: Sequence[int] | None = None) -> Tensor:
        """Further noise of this step, from a stream of its own: (B, ...) or (times, B, ...), in a sample's shape."""
        return self.run.noise.draw(stream, self._key, self.repeat, times, shape)

    def mean(self, x0: Tensor | None = None) -> Tensor:
        """Mean of x_s, with another clean estimate than the network's where one is given."""
        if x0 is None and self._mean is not None:
            return self._mean
        pending = [self.prediction.x0 if x0 is None else x0]

        def call(state: Tensor, t: Time) -> Tensor:
            return pending.pop() if pending else self.run.predict(state, t).x0

        past = [] if self.state.past is None else [self.state.past[1]]
        with torch.no_grad():
            mean = run(self.transition.program, [self.prediction.x, *past], call)
        if x0 is None:
            self._mean = mean
        return mean

    def x_s(self, x0: Tensor | None = None) -> Tensor:
        """mean + std * noise."""
        mean, std = self.mean(x0), self.transition.std
        moves = any(std) if isinstance(std, tuple) else std > 0
        return mean + times(std, self.noise) if moves else mean

    def fresh(self, x0: Tensor) -> Tensor:
        """x_s drawn from q(x_s | x_0), with the step's own z where it draws one, and with z of its own where not."""
        alpha, sigma = (_each(level, self.levels[1]) for level in (self.schedule.alpha, self.schedule.sigma))
        return times(alpha, x0) + times(sigma, self.draw("step"))

    @property
    def log_weights(self) -> Tensor:
        """Of the particles, (rows,), as the particle guidance last gave them; 0 before it did."""
        weights = self.state.log_weights
        return torch.zeros(len(self.x), dtype=self.x.dtype, device=self.x.device) if weights is None else weights

    def propose(self, k: int) -> Tensor:
        """k draws of x_s for every row by the step's own transition, (rows k, ...), those of a row together.

        x_s = mean + std * z, each z of the row's own. GuidanceError in a deterministic step, whose draws are all alike.
        """
        self._refuse_no_noise("propose")
        drawn = self.draw("propose", whole(k, "k", 1, of="proposals")).transpose(0, 1)
        return (self.mean()[:, None] + self.std * drawn).flatten(0, 1)

    def log_density(self, x_s: Tensor, mean: Tensor | None = None) -> Tensor:
        """log N(x_s; mean, std² I) of every row of x_s, (rows k,), the step's own mean where none is given.

            -|x_s - mean|² / (2 std²) - d log(std sqrt(2 pi))

        x_s has as many rows for every row of the mean, those of a row together, as `propose` gives them.
        """
        self._refuse_no_noise("log_density")
        mean = self.mean() if mean is None else mean
        mean = mean.repeat_interleave(len(x_s) // len(mean), dim=0)
        d = x_s[0].numel()
        square = (x_s - mean).to(torch.promote_types(x_s.dtype, torch.float32)).flatten(1).square().sum(dim=1)
        return -square / (2 * self.std**2) - d * math.log(self.std * math.sqrt(2 * math.pi))

    def predict_at(self, x: Tensor, t: float) -> Prediction:
        """The prediction at (x, t) without graph, of k rows for every row of the step, those of a row together.

        Every row is given the condition of the row that it belongs to. Where it is at s and the rows that go on are
        chosen from it, `Moved(first=prediction.rows(chosen))` saves the next step's own call. Cost: one call a row.
        """
        k, rest = divmod(len(x), len(self.x))
        if rest or not k:
            raise GuidanceError(f"predict_at takes a multiple of the step's {len(self.x)} rows, not {len(x)}")
        with torch.no_grad():
            return self.run.predict.repeated(k)(x, t)

    def uniform(self, stream: str, count: int = 1) -> Tensor:
        """(B, count) uniform numbers in (0, 1), of the sample and the step, whatever its particles."""
        drawn = self.draw(stream, shape=(count,))[:: self.run.noise.particles]
        tiny = torch.finfo(drawn.dtype).eps
        return torch.special.ndtr(drawn).clamp(tiny, 1 - tiny)

    def _refuse_no_noise(self, what: str) -> None:
        if not self.std > 0:
            raise GuidanceError(
                f"{what} needs a stochastic step, and this one has std = 0: use eta > 0, and leave the last step out"
            )

    def require(self, good: Tensor, error: Callable[[], SymguideError]) -> None:
        """Raises error() unless all of `good` is true: at once on a CPU; after the run where a look waits for a GPU."""
        if good.device.type != "cpu":
            self.run.requirements.append(Requirement(self.index, good.all(), error))
        elif not bool(good.all()):
            raise error()

    @property
    def x0_weight(self) -> float:
        """How much of a change of x_0 arrives in the mean of x_s (of a straight step)."""
        down = math.sqrt(max(self.schedule.sigma(self.s) ** 2 - self.std**2, 0.0))
        return self.schedule.alpha(self.s) - down * self.schedule.alpha(self.t) / self.schedule.sigma(self.t)

    def lookahead_gradient(
        self,
        objective: Objective,
        n: int | None,
        solver: str = "best",
        grid: str | Grid | None = None,
        memory: MemoryPlan = "minimal",
        jacobian: str = "exact",
        path: str = "ode",
        samples: int = 1,
    ) -> tuple[Tensor, Tensor]:
        """Gradient (B, ...) and loss (B,) of the objective n calls ahead; the sampler's own call is the first."""
        return self.carried_back(GradientOf(objective), n, solver, grid, memory, jacobian, path, samples)

    def carried_back(
        self,
        cotangent: Cotangent,
        n: int | None,
        solver: str = "best",
        grid: str | Grid | None = None,
        memory: MemoryPlan = "minimal",
        jacobian: str = "exact",
        path: str = "ode",
        samples: int = 1,
    ) -> tuple[Tensor, Tensor]:
        """Any cotangent of the clean estimate n calls ahead, carried back to x_t, (B, ...), and its loss (B,).

        cotangent(x_0) -> loss (B,), u (B, ...);    the result is (d x_0 / d x_t)^T u

        Args:
            n: network calls; with a path of the run's at most those that it has left, which None is.
            path: "ode", or along the run's own steps, see `own_path`, with the noise that it will draw ("own") or with
                that of `samples` look-aheads of their own ("fresh", see `averaged_sweep`).

        Raises:
            ConfigError: for a path, n, grid or number of samples that is none, or that do not go together.
        """
        check_ahead(path, n, grid, samples)
        self.run.predict.require = self.require
        settings: dict[str, Any] = {"memory": memory, "jacobian": jacobian, "first": self._first}
        if path == "fresh":
            program, draws = self.fresh_paths(n, solver, samples)
            gradient, loss, self._first = averaged_sweep(
                self.run.predict, self.x, program, cotangent, draws, **settings
            )
            return gradient, loss
        program, further = self._ahead(n, solver, grid, path)
        gradient, loss, _, self._first = sweep(
            self.run.predict, self.x, program, cotangent, further=further, **settings
        )
        return self._of_moving_frames(gradient), loss

    def _ahead(
        self, n: int | None, solver: str, grid: str | Grid | None, path: str, after: bool = False
    ) -> tuple[Program, list[Tensor]]:
        """The program of a look-ahead from this step, or `after` it, and its inputs beside x."""
        if path == "own":
            return self.own_path(n, solver, after)
        assert n is not None
        return lookahead_program(self.run.predict.denoiser, self.levels[int(after)], n, solver, grid), []

    def own_path(self, n: int | None, solver: str = "best", after: bool = False) -> tuple[Program, list[Tensor]]:
        """The way that the run will go if nothing guides it any more, in n calls, and its inputs beside x.

        It goes on the run's own grid, with the noise that the run will draw, through repeats and restarts: see
        `symguide.own_path`. With n = None it is the rest of the run itself.

        Args:
            n: network calls, as many as the run makes for None or for more.
            solver: the run's own for "best".
            after: from x_s on.
        """
        return self._along(list(self.moves(after)), n, solver, after)[:2]

    def moves(self, after: bool = False) -> Iterator[Move]:
        """What the run will make from here on, this step first but `after` it: steps, time travel and restarts."""
        return to_come(self.run, self.index, self.visit, self.repeat, lambda: self.noise, after)

    def fresh_paths(self, n: int | None, solver: str, samples: int) -> tuple[Program, Iterator[list[Tensor]]]:
        """The program of ancestral steps on the run's grid, in n calls, and the further inputs of each of its draws."""
        program, known, made = self._along(list(ancestral(self.run, self.index)), n, solver, noise=False)
        stds = [leg.std for leg in made.legs if leg.std > 0]

        def draw(k: int) -> list[Tensor]:
            repeat = self.repeat + (k << 16)  # no step is repeated so often
            drawn = self.run.noise.draw("ahead", self._key, repeat, len(stds))
            return [*known, *(std * z for std, z in zip(stds, drawn, strict=True))]

        return program, map(draw, range(samples)) if stds else iter([known])

    def _along(
        self, moves: Sequence[Move], n: int | None, solver: str, after: bool = False, noise: bool = True
    ) -> tuple[Program, list[Tensor], Legs]:
        if self.run.levels is not None:
            raise ConfigError("frames with noise levels of their own have no one way to go: use path='ode'")
        name = self.run.solver if solver == "best" else choose(solver, None)[0]
        made = legs(name, self.schedule, moves, n)
        again = bool(made.legs[0].back)  # time travel to this step's beginning, and to what was known there
        past = (self.t, self.prediction.x0) if after and not again else self.state.past
        past = past if get_solver(name).multistep else None
        program = along(name, self.schedule, made, None if past is None else past[0])
        return program, [*([] if past is None else [past[1]]), *(made.noise(self.x) if noise else [])], made

    def _of_moving_frames(self, gradient: Tensor) -> Tensor:
        """The gradient, 0 at frames that stay in this step."""
        if self.run.levels is None:
            return gradient
        moving = tuple(float(t > s) for t, s in zip(*self.run.levels[self.index : self.index + 2], strict=True))
        return times(moving, gradient)

    def linearised(self, n: int = 1, solver: str = "best", grid: str | Grid | None = None) -> Jacobian:
        """The look-ahead of n calls and its Jacobian, to be asked inside a `with` block.

            with step.linearised() as ahead:
                ahead.x0, ahead.vjp(v), ahead.jvp(v)

        Cost: see `Jacobian`; the sampler's own call is the first, and made once more where it is known already.
        """
        program = lookahead_program(self.run.predict.denoiser, self.levels[0], n, solver, grid)
        self.run.predict.require = self.require
        made = Jacobian(self.run.predict, self.x, program, self._first)
        self._first = made.first
        return made

    def gradient_after(
        self,
        x_s: Tensor,
        objective: Objective,
        n: int | None,
        solver: str = "best",
        grid: str | Grid | None = None,
        memory: MemoryPlan = "minimal",
        jacobian: str = "exact",
        path: str = "ode",
    ) -> tuple[Tensor, Tensor]:
        """Gradient with respect to x_s (B, ...) and loss (B,) of the objective n calls ahead of (x_s, s).

        Raises:
            ConfigError: as `carried_back`, and where the run is over at s.
        """
        check_ahead(path, n, grid, paths=("ode", "own"), of="gradient_after")
        if self.s == 0 and (path == "ode" or next(self.moves(after=True), None) is None):
            raise ConfigError("x_s is clean, and nothing is left to look ahead: ask the objective of x_s itself")
        program, further = self._ahead(n, solver, grid, path, after=True)
        self.run.predict.require = self.require
        aim = GradientOf(objective)
        return sweep(self.run.predict, x_s, program, aim, further=further, memory=memory, jacobian=jacobian)[:2]

    def back_in_time(self, x_s: Tensor) -> Tensor:
        """Time travel: x_t drawn anew from q(x_t | x_s), with its own noise."""
        return noised(self.schedule, x_s, self.levels[1], self.levels[0], self.draw("travel"))


def noised(schedule: Schedule, x_s: Tensor, s: Time, t: Time, noise: Tensor) -> Tensor:
    """x_t drawn from q(x_t | x_s), t noisier than s, with this noise ~ N(0, I); frames with their own t and s too."""
    if isinstance(t, tuple) and isinstance(s, tuple):
        ratios, stds = zip(*(noising(schedule, q, r) for q, r in zip(s, t, strict=True)), strict=True)
        return times(ratios, x_s) + times(stds, noise)
    ratio, std = noising(schedule, cast(float, s), cast(float, t))
    return ratio * x_s + std * noise


def _each(of: Callable[[float], float], t: Time) -> Time:
    return tuple(map(of, t)) if isinstance(t, tuple) else of(t)
