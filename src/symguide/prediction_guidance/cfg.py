"""Classifier-free guidance (CFG)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from symguide.denoiser import Denoiser, Prediction, expand_condition
from symguide.errors import ConfigError


class CFG:
    """Classifier-free guidance: y = u + scale (c - u), with both branches in one batched call.

    Affine with weights that sum to 1, so the same in every prediction space. Gradients go through both branches.

    Args:
        scale: 1.0 is off (the second branch is not computed), more is stronger.
        negative: condition of the u branch, where it is not the model's own null condition.

    Raises:
        ConfigError: without a condition to guide towards, or where the model has no null condition and none is given.

    Cost: 2 calls per sample in one batch; 1 at scale 1.0.

    Source: Ho & Salimans, "Classifier-Free Diffusion Guidance", 2207.12598, with scale = 1 + w.
    """

    def __init__(self, scale: float = 3.0, negative: Mapping[str, Any] | None = None) -> None:
        self.scale, self.negative = float(scale), negative

    def __call__(self, denoiser: Denoiser, x: Tensor, t: float, condition: Mapping[str, Any]) -> Prediction:
        if self.scale == 1.0:
            return denoiser(x, t, **condition)
        null = dict(denoiser.null if self.negative is None else self.negative)
        if not null:
            raise ConfigError("this model has no null condition: pass CFG(scale, negative={...})")
        if not condition:
            raise ConfigError("CFG strengthens a condition, and none is given: pass condition={...}")
        unconditional = {**condition, **expand_condition(null, len(x), x.device)}
        both = {
            name: _pair(name, unconditional[name], condition.get(name, unconditional[name])) for name in unconditional
        }
        u, c = denoiser(torch.cat([x, x]), t, **both).chunk(2)
        guided = u.with_value(u.value + self.scale * (c.value - u.value))
        return guided.with_value(guided.value, shift=(guided.eps - u.eps).detach())


def _pair(name: str, u: Any, c: Any) -> Any:
    """Rows of both branches, one after the other; what has no rows must be the same in both."""
    if isinstance(u, Tensor) and isinstance(c, Tensor):
        if u.shape[1:] != c.shape[1:]:
            raise ConfigError(f"condition {name!r} has shape {tuple(c.shape[1:])}, and its null {tuple(u.shape[1:])}")
        return torch.cat([u.to(c.dtype), c])
    if u is c or u == c:
        return c
    raise ConfigError(f"condition {name!r} differs between the branches and is not a tensor with a row for each sample")
