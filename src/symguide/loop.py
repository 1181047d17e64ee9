"""sample(): the one sampling loop of the package, with three hooks.

    for every step t -> s:
        prediction guidance   makes the prediction at (x_t, t) out of network calls
        loss guidance         changes x_0 or x_s along the gradient of an objective   (repeated with time travel)
        particle guidance     moves or selects among the particles of every sample
    (restarts lead back to earlier steps)

The loop knows the hooks' protocols (symguide.step) and none of the methods. A sample depends on (seed, index) and on
nothing else: not on its batch, its shard, or on how many numbers a method draws.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from symguide.beginning import kind, prepare
from symguide.denoiser import Denoiser
from symguide.errors import ConfigError, GuidanceError, SymguideError, is_number, whole
from symguide.meter import Peak
from symguide.per_sample import rows_of_samples
from symguide.restart import Restart
from symguide.solver import Grid, get_solver
from symguide.step import Guided, LossHook, Moved, ParticleHook, PredictionHook, Run, Step, noised


@dataclass(frozen=True)
class StepRecord:
    """One step of the trace. Loss and gradient norm are (B,), None where the step was not guided; calls per sample.

    With particle guidance of K particles for every sample they are (B, K).

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
    eta: float = 1.0,
    prediction: PredictionHook | None = None,
    loss: LossHook | None = None,
    particles: ParticleHook | None = None,
    restart: Restart | None = None,
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
        restart: Restart(low, high, times), to go back up and sample a stretch of the steps again.
        indices: the samples' indices, to draw part of a larger set: sample i is the same wherever it is drawn.
        start: starting noise (B, ...) at the grid's first time, in place of the seed's.
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
    _check_hooks(loss, particles, restart)
    count = None if particles is None else whole(particles.particles, "the number of particles", 1)
    if not is_number(eta) or not 0 <= eta <= 1:
        raise ConfigError(f"eta must be between 0 (deterministic) and 1 (ancestral), not {eta!r}")
    begin = prepare(
        denoiser,
        batch=batch,
        steps=steps,
        seed=seed,
        shape=shape,
        condition=condition,
        solver=solver,
        grid=grid,
        prediction=prediction,
        indices=indices,
        start=start,
        dtype=dtype,
        device=device,
        on_nan=on_nan,
        particles=count or 1,
        gradients=loss is not None,
    )
    predict, noise, times, x, device = begin.predict, begin.noise, begin.times, begin.x, begin.x.device
    denoiser, counter, samples_drawn = predict.denoiser, predict.denoiser.counter, len(noise.indices)
    plan = [(i, 0) for i in range(len(times) - 1)] if restart is None else restart.plan(denoiser.schedule, times)
    everything = Run(predict, noise, times, begin.solver, float(eta), on_nan)

    trace: list[StepRecord] = []
    trajectory = [x] if return_trajectory else []
    largest: list[Tensor] = []
    past: tuple[float, Tensor] | None = None
    reached = 0
    meter = Peak(device)
    predict.meter = meter.saved
    with denoiser.frozen(), rows_of_samples(count or 1), meter as peak:
        if loss is not None:
            loss.prepare(everything)
        begun = time.perf_counter()
        for index, visit in tqdm(plan, desc="sampling", disable=not progress, leave=False):
            before = (counter.forward, counter.backward, time.perf_counter())
            if index < reached:  # a restart; what a multistep solver remembers is of another path
                z = noise.draw("restart", index, visit)
                x, past = noised(denoiser.schedule, x, times[reached], times[index], z), None
            reached = index + 1
            try:
                step, moved, guided = _advance(everything, index, visit, x, past, loss, particles)
            except SymguideError as error:
                raise _at_step(error, index, times) from error
            x = moved.x_s
            if get_solver(everything.solver).multistep:
                past = (step.t, step.prediction.x0)
            if moved.parents is not None:
                past = None if past is None else (past[0], past[1][moved.parents])
                everything.memory.rows(moved.parents)
            largest.append(torch.linalg.vector_norm(x, math.inf))
            if device.type == "cpu" and not bool(torch.isfinite(largest[-1])):  # a GPU is asked after the last step
                _check_finite(largest, [times[i] for i, _ in plan])
            record = StepRecord(
                index,
                step.t,
                step.s,
                None if guided is None else _by_particle(guided.loss, count),
                None if guided is None else _by_particle(guided.gradient_norm, count),
                (counter.forward - before[0]) // samples_drawn,
                (counter.backward - before[1]) // samples_drawn,
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
    if unmet := everything.unmet():
        raise _at_step(unmet.error(), unmet.index, times)
    _check_finite(largest, [times[index] for index, _ in plan])
    with rows_of_samples(count or 1):
        samples = x if particles is None else x[particles.choose(x)]
    cost = Cost(counter.forward // samples_drawn, counter.backward // samples_drawn, seconds, peak())
    whole_path = torch.stack([_by_particle(x, count) for x in trajectory]) if return_trajectory else None
    return Result(samples, trace, cost, whole_path)


def _advance(
    run: Run,
    index: int,
    visit: int,
    x: Tensor,
    past: tuple[float, Tensor] | None,
    loss: LossHook | None,
    particles: ParticleHook | None,
) -> tuple[Step, Moved, Guided | None]:
    """One step with its repeats: (the last repeat's step, what comes of it, what loss guidance made of it)."""
    repeat = 0
    while True:
        step = Step(run, index, repeat, x, past, visit)
        guided = None if loss is None else loss.guide(step)
        x_s = step.x_s() if guided is None else guided.x_s
        repeat += 1
        if loss is None or repeat >= loss.repeats_at(step):
            break
        x = step.back_in_time(x_s)
    moved = x_s if particles is None else particles.move(step, x_s)
    moved = moved if isinstance(moved, Moved) else Moved(moved)
    if moved.parents is not None:
        _check_parents(step, moved.parents)
    return step, moved, guided


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


def _at_step(error: SymguideError, index: int, times: Sequence[float]) -> SymguideError:
    """The same error, with the step where it came up."""
    return type(error)(f"step {index} of {len(times) - 1} (t = {times[index]:.4f}): {error}")


def _check_hooks(loss: Any, particles: Any, restart: Any) -> None:
    if loss is not None and not hasattr(loss, "guide"):
        raise ConfigError("loss= takes a recipe, such as SAG(objective) or FreeDoM(objective), not a bare objective")
    if particles is not None and not hasattr(particles, "choose"):
        raise ConfigError("particles= takes a method such as BestOfN(objective, 4)")
    if restart is not None and not isinstance(restart, Restart):
        raise ConfigError(f"restart= takes Restart(low, high, times), not {restart!r}")


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
