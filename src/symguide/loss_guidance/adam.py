"""Adam-DPS: DPS with the adaptive moments of its gradients over the steps."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from symguide.loss_guidance import rules
from symguide.loss_guidance.descent import OneCall
from symguide.loss_guidance.dps import of_norm
from symguide.loss_guidance.recipe import Constrained, Repeats, Rule, Scale, Window
from symguide.memory_plan import MemoryPlan
from symguide.ranges import Range
from symguide.registry import register


@register("loss guidance", "adam-dps")
@dataclass(frozen=True, kw_only=True)
class AdamDPS(OneCall):
    """Adam-DPS: DPS with every entry of its gradient averaged over the steps and in its own usual size.

        g   = d |y - A E[x_0 | x_t]| / d x_t,   the residual's norm as DPS has it
        m   = beta1 m + (1 - beta1) g,    v = beta2 v + (1 - beta2) g²
        x_s = mean + std z - scale * alpha_s / alpha_t * m' / (sqrt(v') + 1e-8),   m', v' without their bias

    m and v begin at 0 in every run and see every gradient, those of repeated steps too. alpha_s / alpha_t is taken as 2
    at most, as it has no bound where x_t is nearly all noise (`rules.of_x_t`).

    Args:
        objective: a `Measurement`, or another squared error, clean samples (B, ...) -> loss (B,).
        scale: the change of an entry in a step, in units of x; published after a search: 0.02 to 0.06.
        beta1, beta2: weights of the past in m and v.
        window, repeats, constraint: when it acts, how often a step is made, and where x_s may lie; see `Recipe`.
        update: another rule in place of these three; `rules.chain(rules.adam(), rules.of_x_t())` in any recipe takes
            the moments of that recipe's gradient, and `MPGD(objective, update=rules.adam())` is Adam-MPGD.
        memory, jacobian: of the gradient through the one call, see `lookahead_gradient`.

    Raises:
        ConfigError: a beta outside [0, 1). GuidanceError: for an objective that is negative somewhere.

    Use it for measurements, where gradients change from step to step.

    Cost of a guided step: 1 forward and 1 backward call; two tensors of the batch's size are kept.

    Source: Belardi et al., "Adaptive Moments are Surprisingly Effective for Plug-and-Play Diffusion Sampling",
    2603.16797, as in its published code.
    """

    scale: Scale = 0.04
    beta1: Annotated[float, Range(0.1, 0.95)] = 0.9
    beta2: Annotated[float, Range(0.03, 0.995)] = 0.995
    window: Window = (0.0, 1.0)
    repeats: Repeats = 1
    update: Rule | None = None
    constraint: Constrained = None
    memory: MemoryPlan = "minimal"
    jacobian: str = "exact"

    normalised: ClassVar[bool] = False

    def own_rule(self) -> Rule:
        return rules.chain(of_norm(self.objective), rules.adam(self.beta1, self.beta2), rules.of_x_t())
