"""Estimated Clean Manifold guidance (ECM): a clipped move of the clean estimate, without a backward pass."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from symguide.errors import number, settle
from symguide.loss_guidance import rules
from symguide.loss_guidance.descent import AtEstimate
from symguide.loss_guidance.recipe import Constrained, Repeats, Rule, Scale, Window
from symguide.ranges import Around
from symguide.registry import register


@register("loss guidance", "ecm")
@dataclass(frozen=True, kw_only=True)
class ECM(AtEstimate):
    """Estimated Clean Manifold guidance.

        x_0' = x_0 - clip(scale * d objective(x_0) / d x_0, -limit, limit)
        x_s  = the step with x_0' in place of x_0 and the network's own eps = mean + std z + alpha_s (x_0' - x_0)

    MPGD's move without its normalised length, clipped entry by entry.

    Args:
        objective: clean samples (B, ...) -> loss (B,).
        scale: 0 is off; 1 goes straight to the minimum of half a squared error. The published code has 10, for a cost
            that is a mean over the batch; here a sample's gradient is its own.
        window, repeats, constraint: when it acts, how often a step is made, and where x_s may lie; see `Recipe`.
        limit: the largest change of an entry of x_0, 1 as published.
        update: another update rule in place of the clipped one.

    Raises:
        ConfigError: a limit that is not positive.

    Use it for squared costs in plans and trajectories.

    Cost of a guided step: 1 forward and no backward call.

    Source: Wang et al., "Optimizing Diffusion Models for Joint Trajectory Prediction and Controllable Generation",
    2408.00766, ECM guidance, as in its published code.
    """

    scale: Scale = 1.0
    limit: Annotated[float, Around(4.0)] = 1.0
    window: Window = (0.0, 1.0)
    repeats: Repeats = 1
    update: Rule | None = None
    constraint: Constrained = None

    normalised: ClassVar[bool] = False

    def __post_init__(self) -> None:
        settle(self, limit=number(self.limit, "the limit of ECM's moves", above=0))
        super().__post_init__()

    def own_rule(self) -> Rule:
        clipped = rules.clamp(self.limit / self.scale if self.scale > 0 else self.limit)
        return rules.chain(clipped, rules.of_x0())  # scale * clip(g, limit / scale)
