"""Manifold Preserving Guided Diffusion (MPGD): move the clean estimate, without a backward pass of the network."""

from dataclasses import dataclass
from typing import ClassVar

from symguide.errors import unknown
from symguide.loss_guidance import rules
from symguide.loss_guidance.descent import AtEstimate
from symguide.loss_guidance.recipe import EPS, Constrained, Eps, Push, Repeats, Rule, Scale, Window
from symguide.registry import register
from symguide.step import Step


@register("loss guidance", "mpgd")
@dataclass(frozen=True, kw_only=True)
class MPGD(AtEstimate):
    """Manifold Preserving Guided Diffusion, without the optional autoencoder projection.

        x_0' = x_0 - scale * update(d objective(x_0) / d x_0)
        x_s  = alpha_s x_0' + sqrt(sigma_s² - std²) eps + std z = mean + std z + alpha_s (x_0' - x_0)

    update(g) = sqrt(d) sigma / sqrt(alpha² + sigma²) g / |g| by default. eps is the network's own at x_t, as in the
    paper's algorithm and its code for pixels. The second form holds for every solver: whatever it makes of x_0 and eps,
    and of the steps before, the move arrives with the weight alpha_s.

    Args:
        objective: clean samples (B, ...) -> loss (B,).
        scale: strength; 0 is off.
        window, repeats, constraint: when it acts, how often a step is made, and where x_s may lie; see `Recipe`.
        update: another update rule in place of the default one.
        eps: "own", or "anew": eps is found from x_t and x_0', (x_t - alpha x_0') / sigma, as in the paper's code for
            Stable Diffusion. Less of the move arrives then, in most steps a tenth to a third. Or "fresh": x_s is drawn
            from q(x_s | x_0'), alpha_s x_0' + sigma_s z, as DiffPIR and DAPS go on.

    Use it, on the sphere, when the network is too large to differentiate, or speed is all.

    Cost of a guided step: 1 forward and no backward call.

    Source: He et al., "Manifold Preserving Guided Diffusion", 2311.16424, algorithm 1.
    """

    scale: Scale = 0.2
    window: Window = (0.0, 1.0)
    repeats: Repeats = 1
    update: Rule | None = None
    constraint: Constrained = None
    eps: Eps = "own"

    normalised: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eps not in EPS:
            raise unknown("eps of a step with a moved estimate", self.eps, EPS)

    def own_rule(self) -> Rule:
        return rules.estimate_length()

    def push(self, step: Step) -> Push:
        gradient, loss = self.gradient(step)
        return Push(gradient, loss, x0=-self.scale * self.rule(gradient, step, loss), eps=self.eps)
