"""azula's denoisers as denoisers of ours: `from_azula`. Needs nothing of azula itself."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from symguide.denoiser import Denoiser
from symguide.errors import ConfigError
from symguide.schedule import Schedule, T


@dataclass(frozen=True)
class AzulaSchedule(Schedule):
    """azula's alpha(t) and sigma(t), with t = 0 exactly clean: azula's own schedules end at a small noise there."""

    own: Any

    def alpha(self, t: T) -> T:
        return self._level(t, 0, 1.0)

    def sigma(self, t: T) -> T:
        return self._level(t, 1, 0.0)

    def _level(self, t: Any, which: int, clean: float) -> Any:
        if isinstance(t, Tensor):
            level = self.own(t)[which]
            return torch.where(t == 0, torch.full_like(level, clean), level)
        return clean if t == 0 else float(self.own(torch.as_tensor(t, dtype=torch.float64))[which])

    def timestep(self, t: T) -> T:
        return t

    def v_weights(self, t: T) -> tuple[T, T]:
        return -self.sigma(t), self.alpha(t)

    def time(self, ratio: float) -> float:
        """By bisection: sigma / alpha rises with t."""
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.ratio(middle) < ratio else (low, middle)
        return high


class AzulaNetwork(nn.Module):
    """The mean of azula's posterior, which is the clean estimate."""

    def __init__(self, own: nn.Module) -> None:
        super().__init__()
        self.own = own

    def forward(self, x: Tensor, timestep: Tensor, **condition: Any) -> Tensor:
        mean: Tensor = self.own(x, timestep, **condition).mean
        return mean


def from_azula(model: Any, *, shape: Sequence[int] | None = None) -> Denoiser:
    """A denoiser of azula (any subclass of `azula.denoise.Denoiser`), with its schedule, for our own loop.

    Conditions are the keyword arguments of its `forward`. Raises ConfigError for what is no denoiser of azula's.

    A model in the style of k-diffusion, (x, sigma) -> clean estimate with x = x_0 + sigma eps, needs no bridge:
    Denoiser(model, VE(sigma_max=80.0), "x0").
    """
    if not isinstance(model, nn.Module) or not callable(getattr(model, "schedule", None)):
        raise ConfigError(f"from_azula takes a denoiser of azula, with its schedule, not {type(model).__name__}")
    schedule = AzulaSchedule(model.schedule)
    if not math.isfinite(schedule.ratio(1.0)):
        raise ConfigError("from_azula needs a schedule with some signal left at t = 1")
    return Denoiser(AzulaNetwork(model), schedule, "x0", shape=shape)
