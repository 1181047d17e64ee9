"""What a run of the whole time grid begins with: its settings checked, its predictor, its noise, and x at the start."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from symguide.call import GuidedPredictor
from symguide.condition import expand_condition
from symguide.denoiser import Counter, Denoiser
from symguide.errors import ConfigError, whole
from symguide.modules import refuse_training
from symguide.per_sample import Noise
from symguide.solver import Grid, check_times, choose, get_grid
from symguide.step import PredictionHook


@dataclass(frozen=True)
class Beginning:
    """What a run begins with: its predictor with a counter of its own, its noise, its times, and x at the first."""

    predict: GuidedPredictor
    noise: Noise
    times: tuple[float, ...]
    solver: str
    x: Tensor


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
    prediction: PredictionHook | None,
    indices: Iterable[int] | None,
    start: Tensor | None,
    dtype: torch.dtype | None,
    device: torch.device | str | None,
    on_nan: str,
    particles: int = 1,
    gradients: bool = True,
) -> Beginning:
    """The settings of `sample` that other runs of the whole grid share, checked and made ready; raises as it does."""
    if prediction is not None and not callable(prediction):
        raise ConfigError(f"prediction= takes a rule such as CFG(3.0), not {prediction!r}")
    if on_nan not in ("raise", "skip"):
        raise ConfigError(f"on_nan is 'raise' or 'skip', not {on_nan!r}")
    if start is not None and (not isinstance(start, Tensor) or start.ndim < 2 or not start.is_floating_point()):
        raise ConfigError(
            f"start must be a tensor of floats (B, ...), such as torch.as_tensor(start), not {kind(start)}"
        )
    refuse_training(denoiser.network)
    denoiser = denoiser.to(device, dtype)
    denoiser = denoiser.differentiable() if gradients else denoiser
    device = torch.device(device) if device is not None else denoiser.device or torch.device("cpu")
    dtype = dtype or torch.get_default_dtype()
    numbers = sample_indices(batch, indices, start)
    size = sample_shape(shape, denoiser, start)
    times = sample_times(denoiser, solver, grid, steps)
    told = expand_condition(condition, len(numbers), device, particles)
    predict = GuidedPredictor(denoiser.counted(Counter(), device), told, prediction)
    noise = Noise(whole(seed, "seed"), numbers, size, dtype, device, particles)
    x = starting_noise(start, noise, denoiser, times[0], dtype, device, particles)
    return Beginning(predict, noise, times, choose(solver, None)[0], x)


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


def sample_times(denoiser: Denoiser, solver: str, grid: str | Grid, steps: int) -> tuple[float, ...]:
    choose(solver, None)
    steps = whole(steps, "steps", 1)
    times = tuple(float(t) for t in get_grid(grid)(denoiser.schedule, denoiser.schedule.t_max, steps))
    check_times(times, steps)
    return times


def starting_noise(
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
        start = start.clone() if start.is_inference() else start.detach()
        return start.to(device=device, dtype=dtype).repeat_interleave(particles, dim=0)
    return math.hypot(denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)) * noise.draw("start")


def kind(value: Any) -> str:
    """What a value is, in an error's sentence."""
    return f"{tuple(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
