"""Spherical Gaussian constraint (DSG): a guided step that stays where the noise lives.

A step x_s = mean + std * z with z ~ N(0, I) lands, in d dimensions, almost surely near the sphere of radius
r = sqrt(d) * std around the mean. Adding a gradient leaves that sphere, and with it the noise level that the network
expects. DSG picks the point on the sphere between where the noise points and where the loss falls fastest:

    m   = std * z + rate * (-r * g / |g| - std * z)
    x_s = mean + r * m / |m|

Source: Yang et al., "Guidance with Spherical Gaussian Constraint for Conditional Diffusion", 2402.03201 (the closed
form of DSG denoising and its mix with the sampled noise).
"""

import math
from dataclasses import dataclass, field
from typing import Annotated

from torch import Tensor

from symguide.errors import GuidanceError, number, settle
from symguide.loss_guidance.descent import Drawn
from symguide.loss_guidance.recipe import AnyPath, Calls, Constraint, Jacobian, Repeats, Rule, Window
from symguide.memory_plan import MemoryPlan
from symguide.per_sample import direction
from symguide.ranges import Range
from symguide.registry import register
from symguide.solver import Grid
from symguide.step import Run, Step


def on_sphere(mean: Tensor, std: float, noise: Tensor, gradient: Tensor, rate: float) -> Tensor:
    """The guided state x_s on the sphere of radius sqrt(d) * std around the step's mean.

    Args:
        mean: mean of x_s given x_t, (B, ...).
        std: standard deviation of the step, positive.
        noise: the step's own z ~ N(0, I), (B, ...).
        gradient: gradient of the loss, (B, ...); only its direction is used. Where it is zero the noise decides alone.
        rate: 0 follows the noise (brought to the sphere), 1 follows the loss alone. The paper uses 0.05 to 0.2.

    Returns:
        x_s, (B, ...), with |x_s - mean| = sqrt(d) * std for every sample.

    Raises:
        GuidanceError: if std is not positive, as in a deterministic step: the sphere is then a point.

    Cost: no network call.

    >>> import torch
    >>> mean, z, g = torch.zeros(2, 3), torch.ones(2, 3), torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    >>> on_sphere(mean, 0.5, z, g, rate=1.0)
    tensor([[-0.8660,  0.0000,  0.0000],
            [ 0.0000, -0.8660,  0.0000]])
    """
    if not std > 0:
        raise GuidanceError("DSG needs a stochastic step, and this one has std = 0: use eta > 0 (eta=1 is usual)")
    rate, radius = number(rate, "DSG's rate", least=0, most=1), math.sqrt(mean[0].numel()) * std
    step = std * noise
    downhill = -radius * direction(gradient)
    return mean + radius * direction(step + rate * (downhill - step))


@register("constraint", "Sphere")
@dataclass(frozen=True)
class Sphere:
    """DSG as a constraint for any recipe: the change that the recipe wants gives the direction, the sphere the rest.

        recipe = SAG(objective, n=4, constraint=Sphere(0.1))

    Only the direction of that change counts, so the recipe's scale does nothing but switch it off at 0.

    Args:
        rate: 0 to 1, see `on_sphere`.

    Raises:
        GuidanceError: with eta = 0, where steps have no sphere. The last step, to sigma = 0, is left unguided.
    """

    rate: float = 0.1

    def __post_init__(self) -> None:
        settle(self, rate=number(self.rate, "DSG's rate", least=0, most=1))

    def prepare(self, run: Run) -> None:
        if run.eta == 0:
            raise GuidanceError(
                "DSG needs stochastic steps: with eta = 0 the sphere around a step's mean is a point; use eta=1, "
                "and in a pipeline a scheduler that draws noise, such as EulerAncestralDiscreteScheduler"
            )

    def __call__(self, step: Step, change: Tensor) -> Tensor:
        return on_sphere(step.mean(), step.std, step.noise, -change, self.rate)


@register("loss guidance", "dsg")
@dataclass(frozen=True, kw_only=True)
class DSG(Drawn):
    """FreeDoM's gradient (or SAG's, with n > 1) under the spherical Gaussian constraint.

        m   = std z + rate * (-r g / |g| - std z),    g = d objective(x_0') / d x_t
        x_s = mean + r m / |m|,                       r = sqrt(d) * std

    A guided step stays on the sphere where its own noise lives, so that strong guidance does not leave the noise level
    that the network expects. The last step, to sigma = 0, is left unguided.

    Args:
        objective: clean samples (B, ...) -> loss (B,).
        rate: 0 to 1, how far a step turns from its noise to the gradient; 0.05 to 0.2 in the paper. 0 is a plain step
            brought to the sphere and costs gradients all the same: leave the recipe out to switch it off.
        n: network calls of the look-ahead, a number or a function of t.
        window, repeats: when it acts, and how often a step is made; see `Recipe`.
        update: another update rule; the sphere takes only the direction of what it gives.
        path, samples: along which it goes, see `SAG`.
        solver, grid, memory, jacobian: of the look-ahead, see `lookahead_gradient`.

    Raises:
        ConfigError: a rate outside [0, 1], n < 1 and other bad settings. GuidanceError: with eta = 0.

    Use it, or `constraint=Sphere(rate)` in another recipe, with one-call gradients for measurements, with MPGD, with
    few steps, and where the right strength is not known: no rate breaks samples. In our figures it did not add to SAG.

    Cost of a guided step: as SAG with the same n.

    Source: Yang et al., "Guidance with Spherical Gaussian Constraint for Conditional Diffusion", 2402.03201.
    """

    rate: Annotated[float, Range(0.02, 0.8, log=True)] = 0.1
    n: Calls = 1
    window: Window = (0.0, 1.0)
    repeats: Repeats = 1
    update: Rule | None = None
    path: AnyPath = "ode"
    samples: int = 1
    solver: str = "best"
    grid: str | Grid | None = None
    memory: MemoryPlan = "minimal"
    jacobian: Jacobian = "exact"
    scale: float = field(default=1.0, init=False)
    constraint: Constraint | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        settle(self, constraint=Sphere(self.rate))
        super().__post_init__()
