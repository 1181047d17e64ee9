"""What all rules of two branches share: the prediction with the condition and the one without, in one batched call."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from symguide.condition import expand_condition
from symguide.denoiser import Denoiser, Prediction
from symguide.errors import ConfigError


class TwoBranches(ABC):
    """Base of rules that make one prediction of u, without the condition, and c, with it. A rule says in `combine` how.

    Args:
        scale: strength.
        negative: condition of the u branch, where it is not the model's own null condition.

    Raises:
        ConfigError: without a condition to guide towards, or where the model has no null condition and none is given.
    """

    off: float | None = 1.0
    """The scale at which only c counts, and only c is computed; None where there is none."""

    def __init__(self, scale: float, negative: Mapping[str, Any] | None = None) -> None:
        self.scale, self.negative = float(scale), negative

    @abstractmethod
    def combine(self, u: Prediction, c: Prediction) -> Prediction:
        """The one prediction of the two, with `shift`, what it adds to u in eps."""

    def __call__(self, denoiser: Denoiser, x: Tensor, t: float, condition: Mapping[str, Any]) -> Prediction:
        if self.scale == self.off:
            return denoiser(x, t, **condition)
        null = dict(denoiser.null if self.negative is None else self.negative)
        name = type(self).__name__
        if not null:
            raise ConfigError(f"this model has no null condition: pass {name}(scale, negative={{...}})")
        if not condition:
            raise ConfigError(f"{name} strengthens a condition, and none is given: pass condition={{...}}")
        unconditional = {**condition, **expand_condition(null, len(x), x.device)}
        both = {
            name: _pair(name, unconditional[name], condition.get(name, unconditional[name])) for name in unconditional
        }
        u, c = denoiser(torch.cat([x, x]), t, **both).chunk(2)
        return self.combine(u, c)


def _pair(name: str, u: Any, c: Any) -> Any:
    """Rows of both branches, one after the other; what has no rows must be the same in both."""
    if isinstance(u, Tensor) and isinstance(c, Tensor):
        if u.shape[1:] != c.shape[1:]:
            raise ConfigError(f"condition {name!r} has shape {tuple(c.shape[1:])}, and its null {tuple(u.shape[1:])}")
        return torch.cat([u.to(c.dtype), c])
    if u is c or u == c:
        return c
    raise ConfigError(f"condition {name!r} differs between the branches and is not a tensor with a row for each sample")
