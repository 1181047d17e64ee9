"""Noise schedules: x_t = alpha_t * x_0 + sigma_t * eps, with t in [0, 1] falling while sampling.

Every schedule gives alpha(t) and sigma(t), the `timestep` its network is told, and the inverse map from the
noise-to-signal ratio sigma/alpha back to t, on which time grids are built. At t = 0 all of them are exactly clean
(alpha = 1, sigma = 0). Floats in, floats (float64) out; tensors in, tensors out.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from symguide.errors import ConfigError, unknown

T = TypeVar("T", float, Tensor, "float | Tensor")
Time = float | tuple[float, ...]
"""One t for a whole sample, or one for each of its frames (axis 1 of x)."""


def _lib(t: Any) -> Any:
    """The module whose exp, sqrt, ... take t."""
    return torch if isinstance(t, Tensor) else math


class Schedule:
    """Base of all schedules; see the module's docstring.

    `t_max` is where sampling starts: 1, or less where alpha(1) = 0 makes a prediction singular.
    """

    t_max: float = 1.0

    def alpha(self, t: T) -> T:
        """Signal level alpha_t."""
        raise NotImplementedError

    def sigma(self, t: T) -> T:
        """Noise level sigma_t (a standard deviation)."""
        raise NotImplementedError

    def timestep(self, t: T) -> T:
        """What the network is given for t."""
        raise NotImplementedError

    def time(self, ratio: float) -> float:
        """The t at which sigma_t / alpha_t = ratio."""
        raise NotImplementedError

    def at_timestep(self, timestep: float) -> float:
        """The t whose network timestep is `timestep`."""
        return (timestep - self.timestep(0.0)) / (self.timestep(1.0) - self.timestep(0.0))

    def v_weights(self, t: T) -> tuple[T, T]:
        """(p, q) of this schedule's velocity v = p * x_0 + q * eps."""
        raise NotImplementedError

    def ratio(self, t: float) -> float:
        """Noise-to-signal ratio sigma_t / alpha_t (EDM's sigma); infinite where alpha_t = 0."""
        alpha = self.alpha(t)
        return self.sigma(t) / alpha if alpha > 0 else math.inf


class VP(Schedule):
    """Variance preserving: alpha² + sigma² = 1, v = alpha * eps - sigma * x_0.

    Make one with `VP.linear()`, `VP.cosine()` or `VP.discrete(...)`.
    """

    @staticmethod
    def linear(beta_min: float = 0.1, beta_max: float = 20.0, timesteps: float = 1000.0) -> "VP":
        """log alpha = -(beta_max - beta_min) t² / 4 - beta_min t / 2; the network is given timesteps * t.

        Source: Song et al., "Score-Based Generative Modeling through SDEs", 2011.13456, appendix C.

        >>> round(VP.linear().alpha(1.0), 6)
        0.006572
        """
        return _Linear(beta_min, beta_max, timesteps)

    @staticmethod
    def cosine(offset: float = 0.008, t_max: float = 0.995, timesteps: float = 1000.0) -> "VP":
        """alpha = cos(pi/2 (t + offset) / (1 + offset)) / cos(pi/2 offset / (1 + offset)).

        Sampling starts at t_max, as alpha(1) = 0. Source: Nichol & Dhariwal, "Improved DDPM", 2102.09672, equation 17.

        >>> VP.cosine().alpha(0.0), VP.cosine().sigma(0.0)
        (1.0, 0.0)
        """
        return _Cosine(offset, t_max, timesteps)

    @staticmethod
    def discrete(
        alphas_cumprod: Sequence[float] | np.ndarray | Tensor | None = None,
        *,
        betas: Sequence[float] | np.ndarray | Tensor | None = None,
    ) -> "VP":
        """A model's own table of N betas or alphas_cumprod: entry i stands at t = (i + 1) / N, timestep i.

        Between entries log alpha is linear in t. Raises ConfigError for a table that does not fall within (0, 1).

        >>> schedule = VP.discrete(betas=[0.1, 0.2])
        >>> round(schedule.alpha(1.0) ** 2, 6), schedule.timestep(1.0)
        (0.72, 1.0)
        """
        if (alphas_cumprod is None) == (betas is None):
            raise ConfigError("VP.discrete takes either alphas_cumprod or betas")
        given = torch.as_tensor(betas if alphas_cumprod is None else alphas_cumprod).double().cpu().numpy()
        table = np.cumprod(1.0 - given) if alphas_cumprod is None else given
        if (
            table.ndim != 1
            or len(table) < 2
            or not (np.all(table > 0) and np.all(table < 1) and np.all(np.diff(table) < 0))
        ):
            raise ConfigError("VP.discrete needs at least two alphas_cumprod that fall from below 1 to above 0")
        return _Discrete(tuple(float(v) for v in np.concatenate([[0.0], 0.5 * np.log(table)])))

    def _log_alpha(self, t: T) -> T:
        raise NotImplementedError

    def alpha(self, t: T) -> T:
        return _lib(t).exp(self._log_alpha(t))

    def sigma(self, t: T) -> T:
        lib = _lib(t)
        return lib.sqrt(-lib.expm1(2 * self._log_alpha(t)))

    def v_weights(self, t: T) -> tuple[T, T]:
        return -self.sigma(t), self.alpha(t)


@dataclass(frozen=True)
class _Linear(VP):
    beta_min: float
    beta_max: float
    timesteps: float

    def _log_alpha(self, t: T) -> T:
        return -0.25 * (self.beta_max - self.beta_min) * t * t - 0.5 * self.beta_min * t

    def timestep(self, t: T) -> T:
        return self.timesteps * t

    def time(self, ratio: float) -> float:
        # -log alpha = log(1 + ratio²) / 2 = a t² + b t; the stable root of the quadratic.
        c = 0.5 * math.log1p(ratio * ratio)
        a, b = 0.25 * (self.beta_max - self.beta_min), 0.5 * self.beta_min
        return 2 * c / (b + math.sqrt(b * b + 4 * a * c))


@dataclass(frozen=True)
class _Cosine(VP):
    offset: float = 0.008
    t_max: float = 0.995
    timesteps: float = 1000.0

    def _angle(self, t: T) -> T:
        return 0.5 * math.pi * (t + self.offset) / (1 + self.offset)

    def alpha(self, t: T) -> T:
        return _lib(t).cos(self._angle(t)) / math.cos(self._angle(0.0))

    def sigma(self, t: T) -> T:
        # 1 - alpha² = sin(angle - angle_0) sin(angle + angle_0) / cos²(angle_0), without cancellation near t = 0.
        lib, start = _lib(t), self._angle(0.0)
        return lib.sqrt(lib.sin(self._angle(t) - start) * lib.sin(self._angle(t) + start)) / math.cos(start)

    def timestep(self, t: T) -> T:
        return self.timesteps * t

    def time(self, ratio: float) -> float:
        start = self._angle(0.0)
        # sin²(angle) = sin²(start) + (1 - alpha²) cos²(start), with 1 - alpha² = ratio² / (1 + ratio²).
        noise = 1.0 if math.isinf(ratio) else ratio * ratio / (1 + ratio * ratio)
        # angle - start from the same identity, again without cancellation: sin² angle - sin² start = noise cos² start.
        high = math.asin(min(1.0, math.sqrt(math.sin(start) ** 2 + noise * math.cos(start) ** 2)))
        gap = math.asin(noise * math.cos(start) ** 2 / math.sin(high + start)) if noise < 0.5 else high - start
        return gap * 2 * (1 + self.offset) / math.pi


@dataclass(frozen=True)
class _Discrete(VP):
    log_alphas: tuple[float, ...]  # at t = 0, 1/N, ..., 1

    @cached_property
    def _hash(self) -> int:
        return hash(self.log_alphas)

    def __hash__(self) -> int:  # programs are kept by their schedule, and a thousand numbers take long to hash
        return self._hash

    def _log_alpha(self, t: T) -> T:
        if isinstance(t, Tensor):
            table = torch.tensor(self.log_alphas, dtype=t.dtype, device=t.device)
            places = t.clamp(0, 1) * (len(self.log_alphas) - 1)
            low = places.floor().long().clamp_max(len(self.log_alphas) - 2)
            return table[low] + (places - low) * (table[low + 1] - table[low])
        place = min(max(t, 0.0), 1.0) * (len(self.log_alphas) - 1)
        i = min(int(place), len(self.log_alphas) - 2)
        return self.log_alphas[i] + (place - i) * (self.log_alphas[i + 1] - self.log_alphas[i])

    def timestep(self, t: T) -> T:
        return t * (len(self.log_alphas) - 1) - 1

    def time(self, ratio: float) -> float:
        log_alpha = -0.5 * math.log1p(ratio * ratio)
        i = min(bisect_right(self.log_alphas, -log_alpha, key=lambda v: -v), len(self.log_alphas) - 1) - 1
        low, high = self.log_alphas[i], self.log_alphas[i + 1]
        return (i + (log_alpha - low) / (high - low)) / (len(self.log_alphas) - 1)


@dataclass(frozen=True)
class VE(Schedule):
    """Variance exploding: alpha = 1, v = eps; sigma(t) = sigma_max (r^t - 1) / (r - 1) with r = sigma_max / sigma_min.

    Geometric for t away from 0 (as in Song et al., 2011.13456) and exactly 0 at t = 0. The network is given sigma.

    >>> VE(sigma_max=80.0).sigma(1.0), VE(sigma_max=80.0).sigma(0.0)
    (80.0, 0.0)
    """

    sigma_max: float = 80.0
    sigma_min: float = 0.002

    def alpha(self, t: T) -> T:
        return 0 * t + 1.0

    def sigma(self, t: T) -> T:
        log_r = math.log(self.sigma_max / self.sigma_min)
        return self.sigma_max * _lib(t).expm1(log_r * t) / math.expm1(log_r)

    def timestep(self, t: T) -> T:
        return self.sigma(t)

    def time(self, ratio: float) -> float:
        log_r = math.log(self.sigma_max / self.sigma_min)
        return math.log1p(ratio / self.sigma_max * math.expm1(log_r)) / log_r

    def at_timestep(self, timestep: float) -> float:
        return self.time(timestep)

    def v_weights(self, t: T) -> tuple[T, T]:
        return 0 * t, 0 * t + 1.0


@dataclass(frozen=True)
class RectifiedFlow(Schedule):
    """Rectified flow: alpha = 1 - t, sigma = t, v = eps - x_0; the network is given timesteps * t.

    A network that predicts eps says nothing of x_0 at t = 1: give t_max = 0.999 or so to start a little later.

    Source: Liu et al., "Flow Straight and Fast", 2209.03003; times as in Esser et al., 2403.03206.

    >>> RectifiedFlow().alpha(0.25), RectifiedFlow().sigma(0.25)
    (0.75, 0.25)
    """

    timesteps: float = 1000.0
    t_max: float = 1.0

    def alpha(self, t: T) -> T:
        return 1.0 - t

    def sigma(self, t: T) -> T:
        return 1.0 * t

    def timestep(self, t: T) -> T:
        return self.timesteps * t

    def time(self, ratio: float) -> float:
        return 1.0 if math.isinf(ratio) else ratio / (1 + ratio)

    def v_weights(self, t: T) -> tuple[T, T]:
        return 0 * t - 1.0, 0 * t + 1.0


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "vp-linear": VP.linear,
    "vp-cosine": VP.cosine,
    "vp-discrete": VP.discrete,
    "ve": VE,
    "flow": RectifiedFlow,
}


def from_spec(spec: Mapping[str, Any]) -> Schedule:
    """The schedule of a model folder's {"name": ..., **arguments}; ConfigError for an unknown name or argument.

    >>> from_spec({"name": "vp-linear", "beta_max": 12.0}).beta_max
    12.0
    """
    arguments = {k: v for k, v in spec.items() if k != "name"}
    if spec.get("name") not in SCHEDULES:
        raise unknown("schedule", spec.get("name"), SCHEDULES)
    try:
        return SCHEDULES[spec["name"]](**arguments)
    except TypeError as error:
        raise ConfigError(f"schedule {spec['name']!r} does not take these arguments: {error}") from None


def to_spec(schedule: Schedule) -> dict[str, Any]:
    """What from_spec makes the schedule from again."""
    if isinstance(schedule, _Discrete):
        return {"name": "vp-discrete", "alphas_cumprod": [math.exp(2 * v) for v in schedule.log_alphas[1:]]}
    names: dict[type, str] = {_Linear: "vp-linear", _Cosine: "vp-cosine", VE: "ve", RectifiedFlow: "flow"}
    if type(schedule) not in names:
        raise ConfigError(f"a schedule of type {type(schedule).__name__} has no name to save it under")
    return {"name": names[type(schedule)], **asdict(schedule)}  # type: ignore[call-overload]
