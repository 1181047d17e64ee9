"""EluCD: guide by an off-the-shelf classifier of clean samples, without a backward pass of the network."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from symguide.loss_guidance import rules
from symguide.loss_guidance.descent import AtEstimate
from symguide.loss_guidance.recipe import Constrained, Repeats, Rule, Scale, Window
from symguide.ranges import Range
from symguide.registry import register
from symguide.step import Run


@register("loss guidance", "elucd")
@dataclass(frozen=True, kw_only=True)
class EluCD(AtEstimate):
    """Classifier guidance at the clean estimate, with EluCD's schedule.

        x_s = mean + std z - scale * (std_t² + gamma max(std²) sin(pi t)) d objective(x_0) / d x_0

    std_t is that of the ancestral step, max(std²) the largest variance of the run's steps. (The published code takes
    the largest of the steps so far, of a model that learns its variances; from noise to clean that is the first.)

    The paper's other two parts are objectives and combine with every recipe: the temperatures of
    `objectives.Classifier(network, label, joint=1.0, marginal=0.5)`, and `objectives.softened(network)` for the
    classifier, with softplus in place of ReLU.

    Args:
        objective: clean samples (B, ...) -> loss (B,).
        scale: in units of variance per unit of slope, 1 as published for 250 steps; 0 is off.
        gamma: share of the sine in the schedule, 0.3 as published; 0 is classifier guidance's std².
        window, repeats, constraint: when it acts, how often a step is made, and where x_s may lie; see `Recipe`.
        update: another update rule in place of the schedule.

    Use it with a classifier of clean samples and many steps.

    Cost of a guided step: 1 forward and no backward call.

    Source: Ma et al., "Elucidating The Design Space of Classifier-Guided Diffusion Generation", 2310.11311, as in its
    published code.
    """

    scale: Scale = 1.0
    gamma: Annotated[float, Range(0.0, 1.0)] = 0.3
    window: Window = (0.0, 1.0)
    repeats: Repeats = 1
    update: Rule | None = None
    constraint: Constrained = None

    normalised: ClassVar[bool] = False
    unguided: ClassVar[str] = "steps in which its schedule is 0 are left unguided"

    def own_rule(self) -> Rule:
        return rules.variance(self.gamma)

    def guides_at(self, run: Run, index: int) -> bool:
        weighed = self.update is not None or rules.variance_at(run, index, self.gamma) > 0
        return super().guides_at(run, index) and weighed
