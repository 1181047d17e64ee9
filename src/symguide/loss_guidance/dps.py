"""Diffusion Posterior Sampling (DPS): guide by the gradient of the residual's norm."""

from dataclasses import dataclass
from typing import Any, ClassVar

from symguide.loss_guidance import rules
from symguide.loss_guidance.descent import OneCall
from symguide.loss_guidance.recipe import Constrained, Repeats, Rule, Scale, Window
from symguide.memory_plan import MemoryPlan
from symguide.objectives.measurement import noise_of
from symguide.registry import register


@register("loss guidance", "dps")
@dataclass(frozen=True, kw_only=True)
class DPS(OneCall):
    """Diffusion Posterior Sampling.

        x_s = mean + std z - scale * d |y - A E[x_0 | x_t]| / d x_t

    The residual's norm is per sample (the published code takes one over the batch), and of a `Measurement` or `Region`
    it does not depend on its noise. A weighted sum of measurements of one noise has the norm of their residuals in a
    row, each times the root of its weight. Of any other objective it is sqrt(objective), the residual's norm where that
    is a squared error: so of a sum with other terms, or of measurements of different noise.

    Args:
        objective: a `Measurement`, or another squared error, clean samples (B, ...) -> loss (B,).
        scale: in units of x per unit of residual, so it must be found for every task; 0 is off, 0.3 to 1 in the paper,
            for 1000 steps.
        window, repeats, constraint: when it acts, how often a step is made, and where x_s may lie; see `Recipe`.
        update: another rule in place of that of the norm, `rules.residual_norm(noise)` or `rules.root_loss()`.
        memory, jacobian: of the gradient through the one call, see `lookahead_gradient`.

    Raises:
        ConfigError: for bad settings. GuidanceError: for an objective that is negative somewhere.

    Use it for inverse problems where you want the published behaviour.

    Cost of a guided step: 1 forward and 1 backward call.

    Source: Chung et al., "Diffusion Posterior Sampling for General Noisy Inverse Problems", 2209.14687, algorithm 1.
    """

    scale: Scale = 0.3
    window: Window = (0.0, 1.0)
    repeats: Repeats = 1
    update: Rule | None = None
    constraint: Constrained = None
    memory: MemoryPlan = "minimal"
    jacobian: str = "exact"

    normalised: ClassVar[bool] = False

    def own_rule(self) -> Rule:
        return of_norm(self.objective)


def of_norm(objective: Any) -> Rule:
    """From the gradient of an objective to that of its residual's norm."""
    noise = noise_of(objective)
    return rules.root_loss() if noise is None else rules.residual_norm(noise)
