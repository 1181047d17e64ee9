"""FreeDoM: guide by the gradient at the one-step estimate."""

from dataclasses import dataclass
from typing import ClassVar

from symguide.loss_guidance.descent import OneCall
from symguide.loss_guidance.recipe import Constrained, Repeats, Rule, Scale, Window
from symguide.memory_plan import MemoryPlan
from symguide.registry import register


@register("loss guidance", "freedom")
@dataclass(frozen=True, kw_only=True)
class FreeDoM(OneCall):
    """FreeDoM: SAG with the one-step (Tweedie) estimate.

        x_s = mean + std z - scale * update(d objective(E[x_0 | x_t]) / d x_t)

    The last step, to sigma = 0, has no noise to be as long as, and is left unguided.

    Args:
        objective: clean samples (B, ...) -> loss (B,).
        scale: strength; 0 is off, 0.1 to 1 is usual.
        window, repeats, constraint: when it acts, how often a step is made, and where x_s may lie; see `Recipe`.
        update: another update rule in place of the normalised step, e.g. `rules.rho(0.2)`, the published one.
        memory, jacobian: of the gradient through the one call, see `lookahead_gradient`.

    Raises:
        ConfigError: for bad settings. GuidanceError: see `lookahead_gradient`.

    Use it first: of all that were tuned on identity it was the best.

    Cost of a guided step: 1 forward and 1 backward call.

    Source: Yu et al., "FreeDoM", 2303.09833, algorithm 1, and 2 with repeats > 1.
    """

    by_frame: ClassVar[bool] = True

    scale: Scale = 0.5
    window: Window = (0.0, 1.0)
    repeats: Repeats = 1
    update: Rule | None = None
    constraint: Constrained = None
    memory: MemoryPlan = "minimal"
    jacobian: str = "exact"
