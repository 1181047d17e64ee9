"""Diffusion Posterior Sampling (DPS): guide by the gradient of the residual's norm."""

from typing import Any, ClassVar

from symguide.loss_guidance import rules
from symguide.loss_guidance.sag import SAG
from symguide.ranges import Ranges


class DPS(SAG):
    """Diffusion Posterior Sampling.

        x_s = mean + std z - scale * d sqrt(objective(E[x_0 | x_t])) / d x_t

    With a squared-error objective that is the gradient of the residual norm |y - A x_0|, as the paper has it, per
    sample (the published code takes one norm over the batch). The scale is in units of x per unit of loss, so it must
    be found for every task: 0.3 to 1 in the paper, for 1000 steps.

    Args: as SAG, without n and update; `update` given replaces the root rule. Cost: 1 forward and 1 backward call.

    Source: Chung et al., "Diffusion Posterior Sampling for General Noisy Inverse Problems", 2209.14687, algorithm 1.
    """

    fixed = ("n", "solver", "grid")
    ranges: ClassVar[Ranges] = {"jacobian": None}  # through one call they are the same

    def __init__(self, objective: Any, scale: float = 0.3, **settings: Any) -> None:
        super().__init__(objective, 1, scale, **{"update": rules.root_loss(), **settings})
