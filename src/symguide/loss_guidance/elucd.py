"""EluCD: guide by an off-the-shelf classifier of clean samples, without a backward pass of the network."""

from typing import Any, ClassVar

from symguide.loss_guidance import rules
from symguide.loss_guidance.at_estimate import AtEstimate
from symguide.ranges import Range, Ranges


class EluCD(AtEstimate):
    """Classifier guidance at the clean estimate, with EluCD's schedule.

        x_s = mean + std z - scale * (std_t² + gamma max(std²) sin(pi t)) d objective(x_0) / d x_0

    std_t is that of the ancestral step, max(std²) the largest variance of the run's steps. (The published code takes
    the largest of the steps so far, of a model that learns its variances; from noise to clean that is the first.)

    The paper's other two parts are objectives and combine with every recipe: the temperatures of
    `objectives.Classifier(network, label, joint=1.0, marginal=0.5)`, and `objectives.softened(network)` for the
    classifier, with softplus in place of ReLU.

    Args:
        objective, window, repeats, constraint: see `Recipe`.
        scale: in units of variance per unit of slope, 1 as published for 250 steps; 0 is off.
        gamma: share of the sine in the schedule, 0.3 as published; 0 is classifier guidance's std².
        update: another update rule in place of the schedule.

    Cost of a guided step: 1 forward and no backward call.

    Source: Ma et al., "Elucidating The Design Space of Classifier-Guided Diffusion Generation", 2310.11311, as in its
    published code.
    """

    ranges: ClassVar[Ranges] = {"gamma": Range(0.0, 1.0)}

    def __init__(self, objective: Any, scale: float = 1.0, gamma: float = 0.3, **settings: Any) -> None:
        super().__init__(objective, scale, **{"update": rules.variance(gamma), **settings})
