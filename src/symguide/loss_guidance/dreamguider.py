"""Dreamguider: the gradient at augmented clean estimates, at a length of its own, without a backward pass."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from symguide.errors import ConfigError, settle, whole
from symguide.loss import Objective
from symguide.loss_guidance.descent import AtEstimate
from symguide.loss_guidance.recipe import Constrained, Repeats, Rule, Scale, Window
from symguide.ranges import Range
from symguide.registry import register
from symguide.step import Step

Augmentation = Callable[[Tensor, Tensor], Tensor]


def jitter(x0: Tensor, noise: Tensor) -> Tensor:
    """(1 + 0.1 a) x_0 + 0.1 b, contrast and brightness, with two normal numbers a and b for every sample.

    >>> jitter(torch.ones(1, 3), torch.tensor([[1.0, 0.0, -1.0]]))
    tensor([[1., 1., 1.]])
    """
    numbers, shape = noise.flatten(1), (-1, *[1] * (x0.ndim - 1))
    a, b = numbers[:, 0].reshape(shape), numbers[:, -1].reshape(shape)
    return (1 + 0.1 * a) * x0 + 0.1 * b


@register("loss guidance", "dreamguider")
@dataclass(frozen=True, kw_only=True)
class Dreamguider(AtEstimate):
    """Dreamguider, by its abstract.

        g   = d (1/m) sum_k objective(augment(x_0, z_k)) / d x_0
        x_s = mean + std z - scale * r_t g / |g|,    r_t = sqrt(d) * ancestral std

    Of the paper's abstract: no backward pass of the network, a factor that varies with time, a scale that follows from
    the gradient's size in place of a tuned one, and light differentiable augmentation. Ours, as the formulas are not in
    what could be read: the factor r_t and the norm, which together are `rules.normalise()`, the mean over m, and the
    augmentation. So figures measured with this are not the paper's. The last step has r = 0 and is left unguided.

    Args:
        objective: clean samples (B, ...) -> loss (B,).
        scale: strength; 0 is off.
        window, repeats, constraint: when it acts, how often a step is made, and where x_s may lie; see `Recipe`.
        samples: m, augmented copies at every step.
        augment: (x_0, z) -> samples like x_0, differentiable, with z ~ N(0, I) shaped like x_0, which belongs to the
            sample and the step; by default `jitter`, contrast and brightness. For classifiers of pictures give one that
            also shifts and crops; a measurement wants one that leaves places where they are.
        update: another update rule in place of the normalised one.

    Raises:
        ConfigError: samples < 1, or an augmentation that is no callable.

    Use it when the network is too large to differentiate and the scorer is easily fooled.

    Cost of a guided step: 1 forward and no backward call; the objective is evaluated m times.

    Source: Nair & Patel, "Dreamguider: Improved Training free Diffusion-based Conditional Generation", 2406.02549,
    abstract.
    """

    scale: Scale = 0.5
    samples: Annotated[int, Range(1, 8)] = 4
    augment: Augmentation | None = None
    window: Window = (0.0, 1.0)
    repeats: Repeats = 1
    update: Rule | None = None
    constraint: Constrained = None

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, samples=whole(self.samples, f"{type(self).__name__}'s samples", 1))
        if self.augment is not None and not callable(self.augment):
            raise ConfigError(f"augment takes a callable (x_0, noise) -> x_0, not {self.augment!r}")

    def objective_at(self, step: Step) -> Objective:
        objective, drawn = super().objective_at(step), step.draw("smooth", self.samples)
        augment = self.augment or jitter

        def mean(x0: Tensor) -> Tensor:
            return torch.stack([objective(augment(x0, z)) for z in drawn]).mean(dim=0)

        return mean
