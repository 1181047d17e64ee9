"""What recipes share whose gradient stops at the one-step clean estimate, so that no network is differentiated."""

from typing import Any

from symguide.loss_guidance.rules import Rule
from symguide.loss_guidance.sag import SAG


class AtEstimate(SAG):
    """Guide by the gradient at the clean estimate.

        x_s = mean + std z - scale * update(d objective(x_0) / d x_0)

    Args: as SAG, without what belongs to its look-ahead. Cost of a guided step: 1 forward and no backward call.
    """

    fixed = ("n", "solver", "grid", "memory", "jacobian", "offload")

    def __init__(self, objective: Any, scale: float = 1.0, update: Rule | None = None, **settings: Any) -> None:
        super().__init__(objective, 1, scale, update=update, jacobian="identity", **settings)
