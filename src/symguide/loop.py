"""sample(): the one sampling loop of the package, with its hooks.

    for every step t -> s:
        prediction guidance   makes the prediction at (x_t, t) out of network calls
        loss guidance         changes x_0 or x_s along the gradient of an objective   (repeated with time travel)
        particle guidance     moves, weighs and selects among the particles of every sample
        step hooks            change x before and after it
    (restarts lead back to earlier steps)

`steps_of` is the algorithm. It knows the hooks' protocols (symguide.step) and none of the methods. A sample depends on
(seed, index) and on nothing else: not on its batch, its shard, or on how many numbers a method draws.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from symguide.beginning import Start, kind, prepare
from symguide.denoiser import Denoiser
from symguide.errors import ConfigError, GuidanceError, SymguideError, number
from symguide.meter import Peak
from symguide.per_sample import effective_sample_size, rows_of_samples
from symguide.restart import Restart
from symguide.solver import Grid, get_solver
from symguide.step import (
    Guided,
    LossHook,
    Moved,
    ParticleHook,
    PredictionHook,
    Run,
    State,
    Step,
    StepHook,
    noised,
)


@dataclass(frozen=True)
class StepRecord:
    """One step of the trace. Loss and gradient norm are (B,), None where the step was not guided; calls per sample.

    With particle guidance of K particles for every sample they are (B, K), and there are `ess`, the effective sample
    sizes (B,) of weighed particles before a resampling, and `parents`, (B, K), who descends from whom after one.

    Seconds are the loop's: on a GPU, which works on while the loop goes ahead, those of a run are in its `Cost`.
    """

    index: int
    t: float
    s: float
    loss: Tensor | None
    gradient_norm: Tensor | None
    forward_calls: int
    backward_calls: int
    seconds: float
    ess: Tensor | None = None
    parents: Tensor | None = None


@dataclass(frozen=True)
class Cost:
    """Totals of a run. Calls are per sample that is returned: once through the network is one, whatever the batch.

    `peak_bytes` is the allocator's peak on a GPU; on a CPU the most bytes that autograd held for backward (a graph of
    the network is weighed once, and as many rows taken to weigh as much; so is the graph of an objective).
    """

    forward_calls: int
    backward_calls: int
    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Result:
    """samples (B, ...), the per-step trace, the cost, and the trajectory where asked for.

    The trajectory is the start and x_s after every step that was made, (1 + len(trace), B, ...); with K particles for
    every sample (1 + len(trace), B, K, ...), and at place k the k-th one of that time, whoever it came from.
    """

    samples: Tensor
    trace: list[StepRecord]
    cost: Cost
    trajectory: Tensor | None = field(default=None, repr=False)


@torch.inference_mode(mode=False)  # gradients are needed inside, whatever the caller's mode
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
    eta: float | None = None,
    prediction: PredictionHook | None = None,
    loss: LossHook | None = None,
    particles: ParticleHook | None = None,
    hooks: Sequence[StepHook] = (),
    restart: Restart | None = None,
    until: float = 0.0,
    indices: Iterable[int] | None = None,
    start: Start | None = None,
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
        grid: "uniform" (default), "arctan", "flow", "karras", `timesteps([...])`, or a callable (schedule, t, steps) ->
            times. Where each of these is a tuple, every frame (axis 1 of x) has its own: a frame is made when it
            arrives at 0, waits while its time stays, and is known where it is 0 at first (`start` has it).
        eta: 0 deterministic, 1 ancestral (DDPM with "ddim"); where not given, what the loss guidance asks for, as
            `SAG.paper` does, and else 1.
        prediction, loss, particles: the three kinds of guidance, e.g. CFG(3.0), SAG(objective, n=4), BestOfN(...).
        hooks: what changes x before and after every step, in this order, such as Keep(mask, values).
        restart: Restart(low, high, times), to go back up and sample a stretch of the steps again.
        until: the run ends at its first time at or below it, where the samples still have noise; 0 is clean.
        indices: the samples' indices, to draw part of a larger set: sample i is the same wherever it is drawn.
        start: x at the grid's first time, in place of the seed's noise: (B, ...), or a function (noise, t) that makes
            it of the run's `Noise`, with a row for each particle.
        dtype: precision of the run, torch's default where not given. A network of another one is copied into it if
            dtype is given, in every run (`denoiser.to(dtype)` does it once), and called in its own (inputs and outputs
            cast) if not.
        device: the network's own where not given.
        on_nan: "raise", or "skip" to leave samples with a non-finite loss or gradient unguided for that step. On a GPU
            "raise" looks after the last step: a look in every step would make the loop wait for it.
        callback: called with the step's record and x_s after every step, (B, ...), or (B K, ...) with K particles for
            every sample, those of a sample one after the other.
        return_trajectory: keep x at all times.
        progress: show a progress bar.

    Returns:
        Result.

    Raises:
        ConfigError: bad or unknown settings. GuidanceError: a loss, gradient or network that cannot be used.

    Cost: `steps` forward calls for one-stage solvers, times the calls of the prediction guidance; loss guidance and
    restarts add what their docstrings say.

    >>> from symguide import GaussianDenoiser
    >>> result = sample(GaussianDenoiser(torch.zeros(2), torch.eye(2)), batch=3, steps=5)
    >>> result.samples.shape, result.cost.forward_calls
    (torch.Size([3, 2]), 5)
    """
    if restart is not None and not isinstance(restart, Restart):
        raise ConfigError(f"restart= takes Restart(low, high, times), not {restart!r}")
    run, x = prepare(
        denoiser,
        batch=batch,
        steps=steps,
        seed=seed,
        shape=shape,
        condition=condition,
        solver=solver,
        grid=grid,
        eta=_eta(loss) if eta is None else eta,
        prediction=prediction,
        loss=loss,
        particles=particles,
        hooks=hooks,
        indices=indices,
        start=start,
        dtype=dtype,
        device=device,
        on_nan=on_nan,
        gradients=loss is not None,
    )
    if run.levels is not None and (restart or particles or hooks):
        raise ConfigError("frames with times of their own are sampled without restart=, particles= and hooks=")
    every = [(i, 0) for i in range(run.steps)] if restart is None else restart.plan(run.schedule, run.times)
    plan = [(i, visit) for i, visit in every if run.times[i] > number(until, "until", least=0)]
    if not plan:
        raise ConfigError(f"until is a time below the run's first one, {run.times[0]:.4g}, and is {until}")
    run = replace(run, plan=tuple(plan))
    denoiser, device, particles = run.predict.denoiser, x.device, run.particles
    counter, drawn = denoiser.counter, len(run.noise.indices)
    count = None if particles is None else run.noise.particles
    times = [run.times[index] for index, _ in plan]
    trace, largest = list[StepRecord](), list[Tensor]()
    trajectory = [x] if return_trajectory else []
    weights: Tensor | None = None
    meter = Peak(device)
    run.predict.meter = meter.saved
    with denoiser.frozen(), rows_of_samples(count or 1), meter as peak:
        if run.loss is not None:
            run.loss.prepare(run)
        begun = before = time.perf_counter()
        spent = 0, 0
        for taken in tqdm(steps_of(run, x, plan), "sampling", len(plan), disable=not progress, leave=False):
            step, guided, moved = taken
            x, weights = moved.x_s, moved.log_weights
            largest.append(torch.linalg.vector_norm(x, math.inf))
            if device.type == "cpu" and not bool(torch.isfinite(largest[-1])):  # a GPU is asked after the last step
                _check_finite(largest, times)
            now, calls = time.perf_counter(), (counter.forward, counter.backward)
            record = StepRecord(
                step.index,
                step.t,
                step.s,
                None if guided is None else _by_particle(guided.loss, count),
                None if guided is None else _by_particle(guided.gradient_norm, count),
                (calls[0] - spent[0]) // drawn,
                (calls[1] - spent[1]) // drawn,
                now - before,
                moved.ess,
                None if moved.parents is None else _by_particle(moved.parents % run.noise.particles, count),
            )
            trace.append(record)
            if return_trajectory:
                trajectory.append(x)
            if callback is not None:
                callback(record, x)
            before, spent = time.perf_counter(), calls
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - begun
        if unmet := run.unmet():
            raise _at_step(unmet.error(), unmet.index, run)
        _check_finite(largest, times)
        samples = x
        if particles is not None:
            samples = x[particles.choose(x, x.new_zeros(len(x)) if weights is None else weights)]
    cost = Cost(counter.forward // drawn, counter.backward // drawn, seconds, peak())
    whole_path = torch.stack([_by_particle(x, count) for x in trajectory]) if return_trajectory else None
    return Result(samples, trace, cost, whole_path)


def _eta(loss: LossHook | None) -> float:
    """The noise of steps where `sample` is not told."""
    asked: float | None = getattr(loss, "eta", None)
    return 1.0 if asked is None else asked


Taken = tuple[Step, Guided | None, Moved]
"""A step that was made, what loss guidance made of it, and where the run is after it."""


def steps_of(run: Run, x: Tensor, plan: Sequence[tuple[int, int]]) -> Iterator[Taken]:
    """The algorithm: from x through these steps of a run, (index, visit), one by one."""
    state, reached = State(x), 0
    for index, visit in plan:
        try:
            if index < reached:  # a restart; what a multistep solver remembers is of another path
                z = run.noise.draw("restart", index, visit)
                state = State(noised(run.schedule, state.x, run.times[reached], run.times[index], z))
            reached = index + 1

            def make(x: Tensor, repeat: int, state: State = state, index: int = index, visit: int = visit) -> Step:
                step = Step(run, index, state if repeat == 0 else replace(state, x=x, first=None), repeat, visit)
                for hook in run.hooks:
                    step = step.at(hook.before(step, step.x))
                return step

            step, guided = guided_step(make, state.x, run.loss)
            moved = _after(run, step, step.x_s() if guided is None else guided.x_s)
            state = _next(run, step, moved)
        except SymguideError as error:
            raise _at_step(error, index, run) from error
        yield step, guided, moved


AStep = TypeVar("AStep", bound=Step)


def guided_step(make: Callable[[Tensor, int], AStep], x: Tensor, loss: LossHook | None) -> tuple[AStep, Guided | None]:
    """A step from x with its repeats, between which time travel leads back: the last one, and what guidance made of it.

    Args:
        make: (x, repeat) -> step.
        x: where the step begins.
        loss: loss guidance, if there is any.
    """
    step, repeat = make(x, 0), 0
    while loss is not None:
        guided, repeat = loss.guide(step), repeat + 1
        if repeat >= loss.repeats_at(step):
            return step, guided
        step = make(step.back_in_time(step.x_s() if guided is None else guided.x_s), repeat)
    return step, None


def _after(run: Run, step: Step, x_s: Tensor) -> Moved:
    """Where the run is after a step that led to x_s: particle guidance, then the hooks."""
    made = x_s if run.particles is None else run.particles.move(step, x_s)
    moved = made if isinstance(made, Moved) else Moved(made)
    if moved.parents is not None:
        _check_parents(step, moved.parents)
    carried = step.state.log_weights
    if moved.log_weights is None and carried is not None:
        moved = replace(moved, log_weights=carried if moved.parents is None else carried[moved.parents])
    if moved.ess is None and moved.log_weights is not None:
        moved = replace(moved, ess=effective_sample_size(moved.log_weights, run.noise.particles))
    x_s = moved.x_s
    for hook in run.hooks:
        x_s = hook.after(step, x_s)
    return moved if x_s is moved.x_s else replace(moved, x_s=x_s, first=None)


def _next(run: Run, step: Step, moved: Moved) -> State:
    """Where the next step begins; what the run keeps by row is moved to the rows that descend from it."""
    past = (step.levels[0], step.prediction.x0) if get_solver(run.solver).multistep else None
    if moved.parents is not None:
        past = None if past is None else (past[0], past[1][moved.parents])
        run.memory.rows(moved.parents)
    return State(moved.x_s, past, moved.first, moved.log_weights)


def _check_parents(step: Step, parents: Tensor) -> None:
    """GuidanceError unless every row descends from a row of its own sample."""
    rows, particles = len(step.x), step.run.noise.particles
    if parents.shape != (rows,) or parents.is_floating_point():
        raise GuidanceError(f"parents of particles are row numbers ({rows},), not {kind(parents)}")
    own = torch.arange(rows, device=parents.device).div(particles, rounding_mode="floor")
    good = parents.div(particles, rounding_mode="floor") == own
    step.require(good, lambda: GuidanceError("parents must be rows of the same sample: particles of one sample only"))


def _by_particle(rows: Tensor, particles: int | None) -> Tensor:
    """(B K, ...) as (B, K, ...) in a run with particle guidance."""
    return rows if particles is None else rows.reshape(-1, particles, *rows.shape[1:])


def _at_step(error: SymguideError, index: int, run: Run) -> SymguideError:
    """The same error, with the step where it came up."""
    return type(error)(f"step {index} of {run.steps} (t = {run.times[index]:.4f}): {error}")


def _check_finite(largest: Sequence[Tensor], times: Sequence[float]) -> None:
    """GuidanceError naming the first step that left finite numbers; asked once, so the loop never waits for a GPU.

    `largest` is the largest absolute value after each step, which NaN passes through.
    """
    good = torch.isfinite(torch.stack(list(largest))).tolist()
    if not all(good):
        i = good.index(False)
        raise GuidanceError(
            f"step {i} of {len(times)} (t = {times[i]:.4f}) made samples that are not finite: "
            "check the network at this noise level, lower the scale of guidance, or use a wider dtype"
        )
