"""FreeDoM: guide by the gradient at the one-step estimate."""

from dataclasses import dataclass

from symguide.loss_guidance.descent import OneCall
from symguide.loss_guidance.recipe import Constraint, Count, Rule, Window
from symguide.memory_plan import MemoryPlan
from symguide.registry import register


@register("loss guidance", "freedom")
@dataclass(eq=False, kw_only=True)
class FreeDoM(OneCall):
    """FreeDoM: SAG with the one-step (Tweedie) estimate.

        x_s = mean + std z - scale * update(d objective(E[x_0 | x_t]) / d x_t)

    Args: as SAG, without n, solver and grid. Cost of a guided step: 1 forward and 1 backward call.

    Source: Yu et al., "FreeDoM", 2303.09833, algorithm 1, and 2 with repeats > 1.
    """

    scale: float = 0.5
    window: Window = (0.0, 1.0)
    repeats: Count = 1
    update: Rule | None = None
    constraint: Constraint | None = None
    memory: MemoryPlan = "minimal"
    jacobian: str = "exact"
