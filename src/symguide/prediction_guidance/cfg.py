"""Classifier-free guidance (CFG)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from symguide.branch import Asked, Branch, Point, Rule
from symguide.errors import number
from symguide.ranges import Around
from symguide.registry import register


@register("prediction guidance", "cfg")
@dataclass(frozen=True)
class CFG(Rule):
    """Classifier-free guidance: y = u + scale (c - u), with both branches in one batched call.

    Affine with weights that sum to 1, so the same in every prediction space. Gradients go through both branches.

    Args:
        scale: 1.0 is off (the second branch is not computed), more is stronger.
        negative: condition of the u branch, where it is not the model's own null condition.

    Raises:
        ConfigError: without a condition to guide towards, or where the model has no null condition and none is given.

    Use it with conditional models, and under any loss guidance.

    Cost: 2 calls per sample in one batch; 1 at scale 1.0.

    Source: Ho & Salimans, "Classifier-Free Diffusion Guidance", 2207.12598, with scale = 1 + w.
    """

    scale: Annotated[float, Around(2.0)] = 3.0
    negative: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        number(self.scale, "the scale of CFG")

    def calls(self, at: Point) -> Asked:
        if self.scale == 1.0:
            return (yield {"c": Branch()})["c"]
        p = yield {"u": at.null(self.negative), "c": Branch()}
        u, c = p["u"], p["c"]
        guided = u.with_value(u.value + self.scale * (c.value - u.value))
        return guided.with_value(guided.value, shift=(guided.eps - u.eps).detach())
