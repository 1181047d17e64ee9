"""One step of the loop as guidance sees it, and the protocols of the three hooks.

Nothing of a step is computed before it is asked for, and nothing twice: the sampler's own prediction is the first call
of every look-ahead from here.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from symguide.call import Call, GuidedPredictor
from symguide.denoiser import Denoiser, Prediction
from symguide.errors import SymguideError
from symguide.jacobian import Jacobian
from symguide.lookahead import lookahead_program, run, sweep
from symguide.loss import Cotangent, GradientOf, Objective
from symguide.memory import Memory
from symguide.memory_plan import MemoryPlan
from symguide.per_sample import Noise
from symguide.schedule import Schedule
from symguide.solver import Grid, transition


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
    """What particle guidance makes of a step: x_s, and where it was resampled the rows that its rows descend from.

    Attributes:
        x_s: the particles after the step, (B K, ...).
        parents: (B K,), rows of the same sample; None where every particle is its own. What the run keeps by row (the
            history of a multistep solver, what rules remember) is moved along; x_s already is. Noise to come belongs to
            the row, so that particles of one parent part.
    """

    x_s: Tensor
    parents: Tensor | None = None


class ParticleHook(Protocol):
    """Particle guidance as the loop sees it; rules are in symguide.particle_guidance.

    The batch holds `particles` rows for every sample, sample after sample.
    """

    particles: int

    def move(self, step: "Step", x_s: Tensor) -> Tensor | Moved:
        """The particles after a step; `Moved` where they were resampled."""

    def choose(self, samples: Tensor) -> Tensor:
        """Row of the chosen particle of every sample at the end, (B,)."""


@dataclass(frozen=True)
class Run:
    """What is fixed for a whole run and shared by its steps."""

    predict: GuidedPredictor
    noise: Noise
    times: tuple[float, ...]
    solver: str
    eta: float
    on_nan: str
    requirements: list["Requirement"] = field(default_factory=list)
    memory: Memory = field(default_factory=Memory)

    @property
    def steps(self) -> int:
        return len(self.times) - 1

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


class Step:
    """One step from t to s, as the hooks see it. Nothing is computed before it is asked for, and nothing twice.

    `repeat` counts how often time travel has made it again, `visit` how often a restart has led back to it.
    """

    def __init__(
        self, run: Run, index: int, repeat: int, x: Tensor, past: tuple[float, Tensor] | None, visit: int = 0
    ) -> None:
        self.run, self.index, self.repeat, self.x, self._past = run, index, repeat, x, past
        self._key = index + visit * run.steps  # of its noise, so that no two visits share any
        self.t, self.s = run.times[index], run.times[index + 1]
        self.schedule = run.predict.denoiser.schedule
        before = None if past is None else past[0]
        self.transition = transition(run.solver, self.schedule, self.t, self.s, run.eta, before)
        self._first: Call | None = None
        self._noise: Tensor | None = None
        self._mean: Tensor | None = None

    @property
    def std(self) -> float:
        """Standard deviation of x_s given x_t; 0 in a deterministic step."""
        return self.transition.std

    @property
    def radius(self) -> float:
        """sqrt(d) * std of the ancestral step: how far noise alone carries a sample, whatever eta is."""
        return math.sqrt(self.x[0].numel()) * self.transition.radius_std

    @property
    def prediction(self) -> Prediction:
        """The sampler's own prediction at (x_t, t), without graph."""
        if self._first is None:
            self._first = Call(self.run.predict, self.x, self.t, keep=False)
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

        def call(state: Tensor, t: float) -> Tensor:
            return pending.pop() if pending else self.run.predict(state, t).x0

        with torch.no_grad():
            mean = run(
                self.transition.program, [self.prediction.x] + ([] if self._past is None else [self._past[1]]), call
            )
        if x0 is None:
            self._mean = mean
        return mean

    def x_s(self, x0: Tensor | None = None) -> Tensor:
        """mean + std * noise."""
        mean = self.mean(x0)
        return mean + self.std * self.noise if self.std > 0 else mean

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
        n: int,
        solver: str = "best",
        grid: str | Grid | None = None,
        memory: MemoryPlan = "minimal",
        jacobian: str = "exact",
    ) -> tuple[Tensor, Tensor]:
        """Gradient (B, ...) and loss (B,) of the objective n calls ahead; the sampler's own call is the first."""
        return self.carried_back(GradientOf(objective), n, solver, grid, memory, jacobian)

    def carried_back(
        self,
        cotangent: Cotangent,
        n: int,
        solver: str = "best",
        grid: str | Grid | None = None,
        memory: MemoryPlan = "minimal",
        jacobian: str = "exact",
    ) -> tuple[Tensor, Tensor]:
        """Any cotangent of the clean estimate n calls ahead, carried back to x_t, (B, ...), and its loss (B,).

        cotangent(x_0) -> loss (B,), u (B, ...);    the result is (d x_0 / d x_t)^T u
        """
        program = lookahead_program(self.run.predict.denoiser, self.t, n, solver, grid)
        self.run.predict.require = self.require
        gradient, loss, _, self._first = sweep(
            self.run.predict, self.x, program, cotangent, memory=memory, jacobian=jacobian, first=self._first
        )
        return gradient, loss

    def linearised(self, n: int = 1, solver: str = "best", grid: str | Grid | None = None) -> Jacobian:
        """The look-ahead of n calls and its Jacobian, to be asked inside a `with` block.

            with step.linearised() as ahead:
                ahead.x0, ahead.vjp(v), ahead.jvp(v)

        Cost: see `Jacobian`; the sampler's own call is the first, and made once more where it is known already.
        """
        program = lookahead_program(self.run.predict.denoiser, self.t, n, solver, grid)
        self.run.predict.require = self.require
        made = Jacobian(self.run.predict, self.x, program, self._first)
        self._first = made.first
        return made

    def gradient_after(
        self,
        x_s: Tensor,
        objective: Objective,
        n: int,
        solver: str = "best",
        grid: str | Grid | None = None,
        memory: MemoryPlan = "minimal",
        jacobian: str = "exact",
    ) -> tuple[Tensor, Tensor]:
        """Gradient with respect to x_s (B, ...) and loss (B,) of the objective n calls ahead of (x_s, s)."""
        program = lookahead_program(self.run.predict.denoiser, self.s, n, solver, grid)
        self.run.predict.require = self.require
        return sweep(self.run.predict, x_s, program, GradientOf(objective), memory=memory, jacobian=jacobian)[:2]

    def back_in_time(self, x_s: Tensor) -> Tensor:
        """Time travel: x_t drawn anew from q(x_t | x_s), with its own noise."""
        return noised(self.schedule, x_s, self.s, self.t, self.draw("travel"))


def noised(schedule: Schedule, x_s: Tensor, s: float, t: float, noise: Tensor) -> Tensor:
    """x_t drawn from q(x_t | x_s), t noisier than s, with this noise ~ N(0, I)."""
    ratio = schedule.alpha(t) / schedule.alpha(s)
    std = math.sqrt(max(schedule.sigma(t) ** 2 - (ratio * schedule.sigma(s)) ** 2, 0.0))
    return ratio * x_s + std * noise
