"""optimise(): samples whose whole trajectory is optimised for an objective, by the exact gradient of the sampler."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from symguide.beginning import Start, prepare
from symguide.denoiser import Denoiser
from symguide.errors import ConfigError, GuidanceError, SymguideError
from symguide.loop import Cost
from symguide.loss import Objective
from symguide.memory_plan import MemoryPlan, check_memory
from symguide.meter import Peak
from symguide.own_path import along, legs, to_come
from symguide.solver import Grid, Program, get_solver, through
from symguide.step import PredictionHook, Run
from symguide.trajectory.path import Method, Path


@dataclass(frozen=True)
class IterationRecord:
    """One iteration: loss and gradient norm (B,) at the point that it began with, and its calls per sample."""

    index: int
    loss: Tensor
    gradient_norm: Tensor | None
    forward_calls: int
    backward_calls: int
    seconds: float


@dataclass(frozen=True)
class Optimised:
    """samples (B, ...) with their loss (B,), the trace by iteration, the cost, and what led to the samples.

    `start` (B, ...) is x_T; `controls` (steps, B, ...) are the velocities added in the flow frame, where a method has
    them. The same steps from the same start make the same samples again: sample(..., start=result.start, eta=0), or
    with the same eta, seed and indices.
    """

    samples: Tensor
    loss: Tensor
    trace: list[IterationRecord]
    cost: Cost
    start: Tensor = field(repr=False)
    controls: Tensor | None = field(default=None, repr=False)


@torch.inference_mode(mode=False)  # gradients are needed inside, whatever the caller's mode
def optimise(
    denoiser: Denoiser,
    objective: Objective,
    method: Method,
    *,
    batch: int | None = None,
    steps: int = 20,
    seed: int = 0,
    shape: Sequence[int] | None = None,
    condition: Mapping[str, Any] | None = None,
    solver: str = "ddim",
    grid: str | Grid = "uniform",
    eta: float = 0.0,
    prediction: PredictionHook | None = None,
    indices: Iterable[int] | None = None,
    start: Start | None = None,
    memory: MemoryPlan = "minimal",
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    on_nan: str = "raise",
    callback: Callable[[IterationRecord, Tensor], None] | None = None,
    progress: bool = False,
) -> Optimised:
    """Draw samples along the probability-flow ODE, or with eta > 0 along fixed noise, and optimise their start or way.

    The gradient is that of the run itself, through all of its steps, at the memory of one network call (see
    `lookahead_gradient`). With 0 iterations the samples are those of `sample(..., eta=0)`, to the last bit. With
    eta > 0 the run has the noise of its seed in its steps, which stays what it is.

    Args:
        denoiser: the model.
        objective: clean samples (B, ...) -> loss (B,).
        method: `DOODL()` or `DFlow()`, which optimise the start, or `OCFlow()`, which optimises a control a step.
        memory: what is kept for the sweep, see `lookahead_gradient`; the samples are the same.
        eta: noise of the steps, see `sample`; 0 for methods that have a control at every step.
        on_nan: "raise", or "skip": a loss or gradient that is not finite counts as a gradient of 0 in that iteration.
        callback: called after every iteration with its record and the samples that it ended with.
        batch, steps, seed, shape, condition, solver, grid, prediction, indices, start, dtype, device, progress: as for
            `sample`.

    Returns:
        Optimised.

    Raises:
        ConfigError: bad or unknown settings. GuidanceError: a loss, gradient or network that cannot be used.

    Cost: `steps` forward calls (more with two-stage solvers), and the method's.

    >>> from symguide import DFlow, GaussianDenoiser
    >>> denoiser = GaussianDenoiser(torch.zeros(2), torch.eye(2))
    >>> result = optimise(denoiser, lambda x0: ((x0 - 1) ** 2).sum(dim=1), DFlow(iterations=5), batch=3)
    >>> bool((result.loss < 1e-6).all())
    True
    """
    if not hasattr(method, "visit") or isinstance(method, type):
        raise ConfigError(f"method takes DOODL(...), DFlow(...) or OCFlow(...), not {method!r}")
    if not callable(objective):
        raise ConfigError(f"an objective is a callable x0 -> loss (B,), not {type(objective).__name__}")
    memory = check_memory(memory)
    run, x = prepare(
        denoiser,
        batch=batch,
        steps=steps,
        seed=seed,
        shape=shape,
        condition=condition,
        solver=solver,
        grid=grid,
        eta=eta,
        prediction=prediction,
        indices=indices,
        start=start,
        dtype=dtype,
        device=device,
        on_nan=on_nan,
    )
    predict, times, device = run.predict, run.times, x.device
    denoiser, counter = predict.denoiser, predict.denoiser.counter
    program, noise = _program(run, x, method.controlled)
    unit = math.hypot(denoiser.schedule.alpha(times[0]), denoiser.schedule.sigma(times[0]))
    path = Path(predict, objective, program, x, unit, run.noise, times, memory, on_nan, noise)

    drawn, trace = len(run.noise.indices), list[IterationRecord]()
    meter = Peak(device)
    predict.meter = meter.saved
    with denoiser.frozen(), meter as peak:
        begun = before = time.perf_counter()
        spent = (0, 0)
        visits = method.visit(path)
        point = next(visits)
        for index in tqdm(range(method.iterations), desc="optimising", disable=not progress, leave=False):
            try:
                following = next(visits, None)
            except SymguideError as error:
                raise type(error)(f"iteration {index} of {method.iterations}: {error}") from error
            now = time.perf_counter()
            record = IterationRecord(
                index,
                point.loss,
                point.gradient_norm,
                (counter.forward - spent[0]) // drawn,
                (counter.backward - spent[1]) // drawn,
                now - before,
            )
            trace.append(record)
            spent, before = (counter.forward, counter.backward), now
            point = following or point
            if callback is not None:
                callback(record, point.x0)
            if following is None:
                break
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - begun
    _check_finite(point.x0)
    cost = Cost(counter.forward // drawn, counter.backward // drawn, seconds, peak())
    first, *controls = point.inputs
    return Optimised(point.x0, point.loss, trace, cost, first, torch.stack(controls) if controls else None)


def _program(run: Run, x: Tensor, controlled: bool) -> tuple[Program, list[Tensor]]:
    """The run as a program, and the noise that it has in its steps as further inputs."""
    if run.eta == 0:
        calls = get_solver(run.solver).of_steps(run.steps)
        return through(run.solver, run.schedule, run.times, calls, controlled), []
    if controlled:
        raise ConfigError(f"a control at every step is one of steps without noise: use eta=0, not {run.eta:g}")
    made = legs(run.solver, run.schedule, list(to_come(run, 0, 0, 0, lambda: run.noise.draw("step"))), None)
    return along(run.solver, run.schedule, made, None), made.noise(x)


def _check_finite(samples: Tensor) -> None:
    bad = (~torch.isfinite(samples).flatten(1).all(dim=1)).nonzero().flatten().tolist()
    if bad:
        raise GuidanceError(
            f"samples {bad[:8]} are not finite: check the network, use smaller steps of the method, or a wider dtype"
        )
