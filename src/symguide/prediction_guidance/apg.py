"""Adaptive projected guidance (APG): strong classifier-free guidance without its oversaturation."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from symguide.denoiser import Prediction
from symguide.errors import ConfigError
from symguide.per_sample import norm
from symguide.prediction_guidance.branches import TwoBranches
from symguide.registry import register


@register("prediction guidance", "apg")
class APG(TwoBranches):
    """Adaptive projected guidance, on clean estimates: with d = c - u, shortened to a length of at most `threshold`,

        x0 = c + (scale - 1) (d_orthogonal + parallel d_parallel)

    where d_parallel is d's part along c, which is what saturates colours. Norms and products are of whole samples. The
    paper's momentum, a memory of earlier steps, is left out: a prediction here is a function of (x, t) alone, as exact
    gradients of it need.

    Args:
        scale: 1.0 is off (the second branch is not computed), more is stronger; weights of 10 and more are usual.
        threshold: the longest d, a Euclidean norm that grows with the root of a sample's size (the paper: 15 for
            SDXL); 0 for no limit.
        parallel: how much of d_parallel is kept; with 1 and no limit it is CFG.
        negative: condition of the u branch, where it is not the model's own null condition.

    Raises:
        ConfigError: for a negative threshold; and as `CFG`.

    Cost: 2 calls per sample in one batch; 1 at scale 1.0.

    Source: Sadat et al., "Eliminating Oversaturation and Artifacts of High Guidance Scales in Diffusion Models",
    2410.02416, section 5.
    """

    def __init__(
        self,
        scale: float = 10.0,
        threshold: float = 0.0,
        parallel: float = 0.0,
        negative: Mapping[str, Any] | None = None,
    ) -> None:
        if not threshold >= 0:
            raise ConfigError(f"threshold is a length, 0 for no limit, and is {threshold}")
        super().__init__(scale, negative)
        self.threshold, self.parallel = float(threshold), float(parallel)

    def combine(self, u: Prediction, c: Prediction) -> Prediction:
        d = c.x0 - u.x0
        if self.threshold > 0:
            d = d * (self.threshold / norm(d).clamp_min(torch.finfo(d.dtype).tiny)).clamp_max(1.0)
        along = c.x0 * (_dot(d, c.x0) / _dot(c.x0, c.x0).clamp_min(torch.finfo(d.dtype).tiny))
        guided = c.with_x0(c.x0 + (self.scale - 1) * (d - along + self.parallel * along))
        return guided.with_value(guided.value, shift=(guided.eps - u.eps).detach())


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Product of every sample, (B, 1, ..., 1), at least float32 inside."""
    wide = torch.promote_types(a.dtype, torch.float32)
    product = (a.to(wide) * b.to(wide)).flatten(1).sum(dim=1)
    return product.to(a.dtype).reshape(-1, *[1] * (a.ndim - 1))
