"""sample(): the one sampling loop of the package, with three hooks.

    for every step t -> s:
        prediction guidance   makes the prediction at (x_t, t) out of network calls
        loss guidance         changes x_0 or x_s along the gradient of an objective   (repeated with time travel)
        particle guidance     moves or selects among the particles of every sample

The loop knows the hooks' protocols and none of the methods. A sample depends on (seed, index) and on nothing else: not
on its batch, its shard, or on how many numbers a method draws.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from symguide.denoiser import Counter, Denoiser, Prediction, expand_condition
from symguide.errors import ConfigError, GuidanceError, SymguideError
from symguide.lookahead import Call, GuidedPredictor, Memory, Objective, lookahead_program, run, sweep
from symguide.meter import SavedBytes
from symguide.per_sample import Noise
from symguide.solver import Grid, choose, get_grid, get_solver, transition


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


class ParticleHook(Protocol):
    """Particle guidance as the loop sees it; rules are in symguide.particle_guidance.

    The batch holds `particles` rows for every sample, sample after sample.
    """

    particles: int

    def move(self, step: "Step", x_s: Tensor) -> Tensor:
        """The particles after a step."""

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

    @property
    def steps(self) -> int:
        return len(self.times) - 1


class Step:
    """One step from t to s, as the hooks see it. Nothing is computed before it is asked for, and nothing twice."""

    def __init__(self, run: Run, index: int, repeat: int, x: Tensor, past: tuple[float, Tensor] | None) -> None:
        self.run, self.index, self.repeat, self.x, self._past = run, index, repeat, x, past
        self.t, self.s = run.times[index], run.times[index + 1]
        self.schedule = run.predict.denoiser.schedule
        before = None if past is None else past[0]
        self.transition = transition(run.solver, self.schedule, self.t, self.s, run.eta, before)
        self._first: Call | None = None
        self._noise: Tensor | None = None

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
            self._noise = self.run.noise.draw("step", self.index, self.repeat)
        return self._noise

    def draw(self, stream: str, times: int | None = None) -> Tensor:
        """Further noise of this step, from a stream of its own."""
        return self.run.noise.draw(stream, self.index, self.repeat, times)

    def mean(self, x0: Tensor | None = None) -> Tensor:
        """Mean of x_s, with another clean estimate than the network's where one is given."""
        mine = self.prediction.x0 if x0 is None else x0
        pending = [mine]

        def call(state: Tensor, t: float) -> Tensor:
            return pending.pop() if pending else self.run.predict(state, t).x0

        with torch.no_grad():
            return run(self.transition.program, [self.x] + ([] if self._past is None else [self._past[1]]), call)

    def x_s(self, x0: Tensor | None = None) -> Tensor:
        """mean + std * noise."""
        mean = self.mean(x0)
        return mean + self.std * self.noise if self.std > 0 else mean

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
        memory: Memory = "minimal",
        jacobian: str = "exact",
        offload: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Gradient (B, ...) and loss (B,) of the objective n calls ahead; the sampler's own call is the first."""
        program = lookahead_program(self.run.predict.denoiser, self.t, n, solver, grid)
        gradient, loss, _, self._first = sweep(
            self.run.predict,
            self.x,
            self.t,
            objective,
            program,
            memory=memory,
            jacobian=jacobian,
            offload=offload,
            first=self._first,
        )
        return gradient, loss

    def back_in_time(self, x_s: Tensor) -> Tensor:
        """Time travel: x_t drawn anew from q(x_t | x_s), with its own noise."""
        alpha, sigma = self.schedule.alpha, self.schedule.sigma
        ratio = alpha(self.t) / alpha(self.s)
        std = math.sqrt(max(sigma(self.t) ** 2 - (ratio * sigma(self.s)) ** 2, 0.0))
        return ratio * x_s + std * self.draw("travel")


@dataclass(frozen=True)
class StepRecord:
    """One step of the trace. Loss and gradient norm are (B,), None where the step was not guided; calls per sample."""

    index: int
    t: float
    s: float
    loss: Tensor | None
    gradient_norm: Tensor | None
    forward_calls: int
    backward_calls: int
    seconds: float


@dataclass(frozen=True)
class Cost:
    """Totals of a run. Calls are per sample: one sample through the network once, whatever the batch.

    `peak_bytes` is the allocator's peak on a GPU; on a CPU the most bytes that autograd held for backward.
    """

    forward_calls: int
    backward_calls: int
    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Result:
    """samples (B, ...), the per-step trace, the cost, and the trajectory (steps + 1, B, ...) where asked for."""

    samples: Tensor
    trace: list[StepRecord]
    cost: Cost
    trajectory: Tensor | None = field(default=None, repr=False)


def sample(
    denoiser: Denoiser,
    *,
    batch: int | None = None,
    steps: int = 50,
    seed: int = 0,
    shape: Sequence[int] | None = None,
    condition: Mapping[str, Any] | None = None,
    solver: str = "ddim",
    grid: str | Grid = "uniform",
    eta: float = 1.0,
    prediction: PredictionHook | None = None,
    loss: LossHook | None = None,
    particles: ParticleHook | None = None,
    indices: Iterable[int] | None = None,
    start: Tensor | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    on_nan: str = "raise",
    callback: Callable[[StepRecord, Tensor], None] | None = None,
    return_trajectory: bool = False,
    progress: bool = False,
) -> Result:
    """Draw samples, guided or not.

        x_s = mean(x_t) + std * z,    std = eta * (sigma_s / sigma_t) sqrt(sigma_t² - (alpha_t / alpha_s)² sigma_s²)

    Args:
        denoiser: the model.
        batch: how many samples (1 where neither it, `indices` nor `start` says otherwise).
        steps: sampling steps.
        seed: with a sample's index it decides all of the sample's noise.
        shape: shape of one sample, where the model does not know its own.
        condition: the network's conditions by name: tensors with one row a sample, or one number for all.
        solver: "ddim", "midpoint", "heun" or "dpmpp_2m".
        grid: "uniform" (default), "arctan", "flow", "karras", `timesteps([...])`, or a callable.
        eta: 0 deterministic, 1 ancestral (DDPM with "ddim").
        prediction, loss, particles: the three kinds of guidance, e.g. CFG(3.0), SAG(objective, n=4), BestOfN(...).
        indices: the samples' indices, to draw part of a larger set: sample i is the same wherever it is drawn.
        start: starting noise (B, ...) at the grid's first time, in place of the seed's.
        dtype: precision of the run, torch's default where not given. A network of another one is copied into it if
            dtype is given, and called in its own (inputs and outputs cast) if not.
        device: the network's own where not given.
        on_nan: "raise", or "skip" to leave samples with a non-finite loss or gradient unguided for that step.
        callback: called with the step's record and x_s after every step.
        return_trajectory: keep x at all times.
        progress: show a progress bar.

    Returns:
        Result.

    Raises:
        ConfigError: bad or unknown settings. GuidanceError: a loss, gradient or network that cannot be used.

    Cost: `steps` forward calls for one-stage solvers, times the calls of the prediction guidance; loss guidance adds
    what its docstring says.

    >>> from symguide import GaussianDenoiser
    >>> result = sample(GaussianDenoiser(torch.zeros(2), torch.eye(2)), batch=3, steps=5)
    >>> result.samples.shape, result.cost.forward_calls
    (torch.Size([3, 2]), 5)
    """
    denoiser = denoiser.to(device, dtype)
    device = torch.device(device) if device is not None else denoiser.device or torch.device("cpu")
    dtype = dtype or torch.get_default_dtype()
    numbers = _indices(batch, indices, start)
    shape = _shape(shape, denoiser, start)
    count = 1 if particles is None else particles.particles
    condition = expand_condition(condition, len(numbers), device, count)
    times = _times(denoiser, solver, grid, steps)
    if on_nan not in ("raise", "skip"):
        raise ConfigError(f"on_nan is 'raise' or 'skip', not {on_nan!r}")
    if not 0 <= eta <= 1:
        raise ConfigError(f"eta must be between 0 (deterministic) and 1 (ancestral), not {eta}")

    counter = Counter()
    predict = GuidedPredictor(denoiser.counted(counter), condition, prediction)
    noise = Noise(seed, numbers, shape, dtype, device, count)
    x = _start(start, noise, denoiser, times[0], dtype, device, count)
    everything = Run(predict, noise, times, choose(solver, None)[0], eta, on_nan)
    if loss is not None:
        loss.prepare(everything)

    rows = len(x)
    trace: list[StepRecord] = []
    trajectory = [x] if return_trajectory else []
    finite: list[Tensor] = []
    past: tuple[float, Tensor] | None = None
    with denoiser.frozen(), _peak(device) as peak:
        begun = time.perf_counter()
        for index in tqdm(range(len(times) - 1), desc="sampling", disable=not progress, leave=False):
            before = (counter.forward, counter.backward, time.perf_counter())
            try:
                step, x, guided = _advance(everything, index, x, past, loss, particles)
            except SymguideError as error:
                raise type(error)(f"step {index} of {steps} (t = {times[index]:.4f}): {error}") from error
            if get_solver(everything.solver).multistep:
                past = (step.t, step.prediction.x0)
            finite.append(torch.isfinite(x).all())
            record = StepRecord(
                index,
                step.t,
                step.s,
                None if guided is None else guided.loss,
                None if guided is None else guided.gradient_norm,
                (counter.forward - before[0]) // rows,
                (counter.backward - before[1]) // rows,
                time.perf_counter() - before[2],
            )
            trace.append(record)
            if return_trajectory:
                trajectory.append(x)
            if callback is not None:
                callback(record, x)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - begun
    _check_finite(finite, times)
    samples = x if particles is None else x[particles.choose(x)]
    cost = Cost(counter.forward // rows, counter.backward // rows, seconds, peak())
    return Result(samples, trace, cost, torch.stack(trajectory) if return_trajectory else None)


def _advance(
    run: Run,
    index: int,
    x: Tensor,
    past: tuple[float, Tensor] | None,
    loss: LossHook | None,
    particles: ParticleHook | None,
) -> tuple[Step, Tensor, Guided | None]:
    """One step with its repeats: (the last repeat's step, x_s, what guidance made of it)."""
    repeat = 0
    while True:
        step = Step(run, index, repeat, x, past)
        guided = None if loss is None else loss.guide(step)
        x_s = step.x_s() if guided is None else guided.x_s
        repeat += 1
        if loss is None or repeat >= loss.repeats_at(step):
            break
        x = step.back_in_time(x_s)
    if particles is not None:
        x_s = particles.move(step, x_s)
    return step, x_s, guided


def _indices(batch: int | None, indices: Iterable[int] | None, start: Tensor | None) -> list[int]:
    numbers = None if indices is None else [int(i) for i in indices]
    size = (
        batch if batch is not None else len(numbers) if numbers is not None else len(start) if start is not None else 1
    )
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ConfigError(f"batch must be a whole number of samples, at least 1, not {size!r}")
    numbers = list(range(size)) if numbers is None else numbers
    if len(numbers) != size or (start is not None and len(start) != size):
        raise ConfigError(f"batch ({batch}), indices and start must speak of the same number of samples")
    if min(numbers) < 0:
        raise ConfigError("indices of samples must not be negative")
    return numbers


def _shape(shape: Sequence[int] | None, denoiser: Denoiser, start: Tensor | None) -> tuple[int, ...]:
    known = shape or denoiser.shape or (None if start is None else start.shape[1:])
    if not known:
        raise ConfigError("the model does not know the shape of its samples: pass shape=, e.g. shape=(3, 64, 64)")
    if start is not None and tuple(start.shape[1:]) != tuple(known):
        raise ConfigError(f"start has samples of shape {tuple(start.shape[1:])}, and the run {tuple(known)}")
    if any(isinstance(n, bool) or int(n) != n or n < 1 for n in known):
        raise ConfigError(f"shape must be positive whole numbers, not {tuple(known)}")
    return tuple(int(n) for n in known)


def _times(denoiser: Denoiser, solver: str, grid: str | Grid, steps: int) -> tuple[float, ...]:
    choose(solver, None)
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ConfigError(f"steps must be a whole number, at least 1, not {steps!r}")
    times = tuple(float(t) for t in get_grid(grid)(denoiser.schedule, denoiser.schedule.t_max, steps))
    if len(times) != steps + 1 or times[-1] != 0 or any(a <= b for a, b in pairwise(times)):
        raise ConfigError(f"the grid must give {steps + 1} times that fall to 0, and gave {len(times)}")
    return times


def _start(
    start: Tensor | None,
    noise: Noise,
    denoiser: Denoiser,
    t: float,
    dtype: torch.dtype,
    device: torch.device,
    particles: int,
) -> Tensor:
    """x at the first time: noise at the level that data of unit variance have there."""
    if start is not None:
        return start.detach().to(device=device, dtype=dtype).repeat_interleave(particles, dim=0)
    return math.hypot(denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)) * noise.draw("start")


def _check_finite(finite: Sequence[Tensor], times: Sequence[float]) -> None:
    """GuidanceError naming the first step that left finite numbers; asked once, so the loop never waits for a GPU."""
    good = torch.stack(list(finite)).tolist()
    if not all(good):
        i = good.index(False)
        raise GuidanceError(
            f"step {i} of {len(good)} (t = {times[i]:.4f}) made samples that are not finite: "
            "check the network at this noise level, lower the scale of guidance, or use a wider dtype"
        )


class _peak:
    """Context manager whose call gives the peak bytes of what ran inside."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.saved = SavedBytes() if device.type != "cuda" else None

    def __enter__(self) -> Callable[[], int]:
        if self.saved is not None:
            self.saved.__enter__()
        else:
            torch.cuda.reset_peak_memory_stats(self.device)
        return self._value

    def __exit__(self, *failure: Any) -> None:
        if self.saved is not None:
            self.saved.__exit__(*failure)

    def _value(self) -> int:
        return self.saved.peak if self.saved is not None else torch.cuda.max_memory_allocated(self.device)
