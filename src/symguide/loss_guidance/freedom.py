"""FreeDoM: guide by the gradient at the one-step estimate."""

from typing import Any, ClassVar

from symguide.loss_guidance.sag import SAG
from symguide.ranges import Ranges


class FreeDoM(SAG):
    """FreeDoM: SAG with the one-step (Tweedie) estimate.

        x_s = mean + std z - scale * update(d objective(E[x_0 | x_t]) / d x_t)

    Args: as SAG, without n. Cost of a guided step: 1 forward and 1 backward call.

    Source: Yu et al., "FreeDoM", 2303.09833, algorithm 1, and 2 with repeats > 1.
    """

    fixed = ("n", "solver", "grid")
    ranges: ClassVar[Ranges] = {"jacobian": None}  # through one call they are the same

    def __init__(self, objective: Any, scale: float = 0.5, **settings: Any) -> None:
        super().__init__(objective, 1, scale, **settings)
