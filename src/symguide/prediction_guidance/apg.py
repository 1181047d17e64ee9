"""Adaptive projected guidance (APG): strong classifier-free guidance without its oversaturation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from symguide.branch import Asked, Branch, Point, Rule
from symguide.errors import ConfigError, number
from symguide.per_sample import norm
from symguide.ranges import Around
from symguide.registry import register


@register("prediction guidance", "apg")
@dataclass(frozen=True)
class APG(Rule):
    """Adaptive projected guidance, on clean estimates: with d = c - u, shortened to a length of at most `threshold`,

        x0 = c + (scale - 1) (d_orthogonal + parallel d_parallel)

    where d_parallel is d's part along c, which is what saturates colours. Norms and products are of whole samples.

    With momentum d is that of the steps so far, d <- (c - u) + momentum d, before it is shortened. Look-ahead calls
    take the d of the steps before this one, and leave it as it is.

    Args:
        scale: 1.0 is off (the second branch is not computed), more is stronger; weights of 10 and more are usual.
        threshold: the longest d, a Euclidean norm that grows with the root of a sample's size (the paper: 15 for
            SDXL); 0 for no limit.
        parallel: how much of d_parallel is kept; with 1 and no limit it is CFG.
        negative: condition of the u branch, where it is not the model's own null condition.
        momentum: how much of the last step's d is added, negative in the paper (-0.5 for SDXL); 0 for none.

    Raises:
        ConfigError: for a negative threshold and a momentum of 1 and more; with momentum outside of a run, which has no
            steps; and as `CFG`.

    Use it at weights where CFG saturates.

    Cost: 2 calls per sample in one batch; 1 at scale 1.0.

    Source: Sadat et al., "Eliminating Oversaturation and Artifacts of High Guidance Scales in Diffusion Models",
    2410.02416, section 5.
    """

    scale: Annotated[float, Around(2.0)] = 10.0
    threshold: float = 0.0
    parallel: float = 0.0
    negative: Mapping[str, Any] | None = None
    momentum: float = 0.0

    def __post_init__(self) -> None:
        number(self.scale, "the scale of APG")
        if not self.threshold >= 0:
            raise ConfigError(f"threshold is a length, 0 for no limit, and is {self.threshold}")
        if not abs(self.momentum) < 1:
            raise ConfigError(f"momentum lies between -1 and 1, or its sum never ends, and is {self.momentum}")

    @property
    def by_step(self) -> bool:
        return self.momentum != 0

    def calls(self, at: Point) -> Asked:
        if self.scale == 1.0:
            return (yield {"c": Branch()})["c"]
        p = yield {"u": at.null(self.negative), "c": Branch()}
        u, c = p["u"], p["c"]
        d = c.x0 - u.x0
        if self.momentum != 0:
            d = d + self.momentum * at.recall("d", torch.zeros_like(d))
            at.keep("d", d)
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
