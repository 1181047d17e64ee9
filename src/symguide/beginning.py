"""What a run of the whole time grid begins with: its settings checked, all that is fixed for it, and x at the start."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor

from symguide.call import GuidedPredictor
from symguide.condition import expand_condition
from symguide.denoiser import Counter, Denoiser, times
from symguide.errors import ConfigError, is_number, whole
from symguide.modules import refuse_training
from symguide.per_sample import Noise
from symguide.schedule import Time
from symguide.solver import Grid, check_times, choose, get_grid
from symguide.step import LossHook, ParticleHook, PredictionHook, Run, StepHook

Start = Tensor | Callable[[Noise, Any], Tensor]
"""x at a run's first time, (B, ...), or what makes it of the run's noise and that time."""


def prepare(
    denoiser: Denoiser,
    *,
    batch: int | None,
    steps: int,
    seed: int,
    shape: Sequence[int] | None,
    condition: Mapping[str, Any] | None,
    solver: str,
    grid: str | Grid,
    eta: float = 0.0,
    prediction: PredictionHook | None,
    loss: LossHook | None = None,
    particles: ParticleHook | None = None,
    hooks: Sequence[StepHook] = (),
    indices: Iterable[int] | None,
    start: Start | None,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
    on_nan: str,
    gradients: bool = True,
    stage: int = 0,
) -> tuple[Run, Tensor]:
    """(run, x at its first time) of the settings of `sample`, checked and made ready; raises as it does.

    With `gradients` the network is one that gradients pass through.
    """
    _check_hooks(prediction, loss, particles, hooks)
    if on_nan not in ("raise", "skip"):
        raise ConfigError(f"on_nan is 'raise' or 'skip', not {on_nan!r}")
    if not is_number(eta) or not 0 <= eta <= 1:
        raise ConfigError(f"eta must be between 0 (deterministic) and 1 (ancestral), not {eta!r}")
    given = start if isinstance(start, Tensor) else None
    if start is not None and not callable(start) and (given is None or given.ndim < 2 or not given.is_floating_point()):
        raise ConfigError(
            f"start must be a tensor of floats (B, ...), such as torch.as_tensor(start), not {kind(start)}"
        )
    refuse_training(denoiser.network)
    denoiser = denoiser.to(device, dtype)
    denoiser = denoiser.differentiable() if gradients else denoiser
    device = torch.device(device) if device is not None else denoiser.device or torch.device("cpu")
    dtype = dtype or torch.get_default_dtype()
    count = 1 if particles is None else whole(particles.particles, "the number of particles", 1)
    numbers = sample_indices(batch, indices, given)
    size = sample_shape(shape, denoiser, given)
    steps_at, levels = sample_times(denoiser, solver, grid, steps, size[0])
    told = expand_condition(condition, len(numbers), device, count)
    predict = GuidedPredictor(denoiser.counted(Counter(), device), told, prediction)
    noise = Noise(whole(seed, "seed"), numbers, size, dtype, device, count, stage)
    x = starting_noise(start, noise, denoiser, steps_at[0] if levels is None else levels[0])
    name, hooks = choose(solver, None)[0], tuple(hooks)
    return Run(predict, noise, steps_at, name, float(eta), on_nan, loss, particles, hooks, levels=levels), x


def _check_hooks(prediction: Any, loss: Any, particles: Any, hooks: Any) -> None:
    if prediction is not None and not callable(prediction):
        raise ConfigError(f"prediction= takes a rule such as CFG(3.0), not {prediction!r}")
    if loss is not None and not hasattr(loss, "guide"):
        raise ConfigError("loss= takes a recipe, such as SAG(objective) or FreeDoM(objective), not a bare objective")
    if particles is not None and not hasattr(particles, "choose"):
        raise ConfigError("particles= takes a method such as BestOfN(objective, 4)")
    if not isinstance(hooks, Sequence) or not all(hasattr(hook, "before") and hasattr(hook, "after") for hook in hooks):
        raise ConfigError(f"hooks= takes a list of hooks with before(step, x) and after(step, x_s), not {hooks!r}")


def sample_indices(batch: int | None, indices: Iterable[int] | None, start: Tensor | None) -> list[int]:
    if indices is not None and not isinstance(indices, Iterable):
        raise ConfigError(f"indices must be whole numbers, one for each sample, not {indices!r}")
    numbers = None if indices is None else [whole(i, "an index of a sample") for i in indices]
    size = len(numbers) if numbers is not None else len(start) if start is not None else 1
    size = size if batch is None else whole(batch, "batch", 1, of="samples")
    numbers = list(range(size)) if numbers is None else numbers
    if not numbers:
        raise ConfigError("indices name no sample: draw at least one")
    if len(numbers) != size or (start is not None and len(start) != size):
        raise ConfigError(f"batch ({batch}), indices and start must speak of the same number of samples")
    if min(numbers) < 0:
        raise ConfigError("indices of samples must not be negative")
    return numbers


def sample_shape(shape: Sequence[int] | None, denoiser: Denoiser, start: Tensor | None) -> tuple[int, ...]:
    known = shape if shape is not None else denoiser.shape or (None if start is None else start.shape[1:])
    if known is not None and not isinstance(known, Iterable):
        raise ConfigError(f"shape is that of one sample, such as (3, 64, 64), and not {known!r}")
    if not known:
        raise ConfigError("the model does not know the shape of its samples: pass shape=, e.g. shape=(3, 64, 64)")
    size = tuple(whole(n, "every side of a shape", 1) for n in known)
    if start is not None and tuple(start.shape[1:]) != size:
        raise ConfigError(f"start has samples of shape {tuple(start.shape[1:])}, and the run {size}")
    return size


def sample_times(
    denoiser: Denoiser, solver: str, grid: str | Grid, steps: int, frames: int
) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...] | None]:
    """Times of the run, and where the grid gives them of every frame (then the others are those of the noisiest)."""
    choose(solver, None)
    steps = whole(steps, "steps", 1)
    made = tuple(get_grid(grid)(denoiser.schedule, denoiser.schedule.t_max, steps))
    if not any(isinstance(t, tuple) for t in made):
        falling = tuple(float(t) for t in made)
        check_times(falling, steps)
        return falling, None
    levels = cast(tuple[tuple[float, ...], ...], made)
    ways = list(zip(*levels, strict=False))
    fall = all(a >= b for way in ways for a, b in pairwise(way)) and all(a != b for a, b in pairwise(levels))
    if len(levels) != steps + 1 or {len(t) for t in levels} != {frames} or any(levels[-1]) or not fall:
        raise ConfigError(
            f"a grid of frames must give {steps + 1} tuples of {frames} times, which fall to 0, some in every step"
        )
    return tuple(max(t) for t in levels), levels


def starting_noise(start: Start | None, noise: Noise, denoiser: Denoiser, t: Time) -> Tensor:
    """x at the first time, with a row for each particle: noise at the level that data of unit variance have there."""
    if start is None:
        each = t if isinstance(t, tuple) else (t,)
        if min(each) == 0:
            raise ConfigError("frames at t = 0 are known: give start= with them, and noise in the others")
        size = tuple(math.hypot(denoiser.schedule.alpha(r), denoiser.schedule.sigma(r)) for r in each)
        return times(size if isinstance(t, tuple) else size[0], noise.draw("start"))
    if not isinstance(start, Tensor):
        made = start(noise, t)
        if not isinstance(made, Tensor) or made.shape != (rows := (len(noise.indices) * noise.particles, *noise.shape)):
            raise ConfigError(
                f"start(noise, t) must return x at t, a tensor of shape {rows}, and returned {kind(made)}"
            )
        return made.detach().to(device=noise.device, dtype=noise.dtype)
    start = start.clone() if start.is_inference() else start.detach()
    return start.to(device=noise.device, dtype=noise.dtype).repeat_interleave(noise.particles, dim=0)


def kind(value: Any) -> str:
    """What a value is, in an error's sentence."""
    return f"{tuple(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
