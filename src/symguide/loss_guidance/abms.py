"""ABMS: guide by the gradient one denoising step further on, at sampled x_s."""

from dataclasses import dataclass
from typing import Annotated

import torch

from symguide.errors import settle, whole
from symguide.loss_guidance.descent import LookAhead
from symguide.loss_guidance.recipe import Calls, Constrained, Jacobian, Path, Push, Repeats, Rule, Scale, Window
from symguide.memory_plan import MemoryPlan
from symguide.ranges import Range
from symguide.registry import register
from symguide.solver import Grid
from symguide.step import Step


@register("loss guidance", "abms")
@dataclass(frozen=True, kw_only=True)
class ABMS(LookAhead):
    """Additional Backward step and Monte-Carlo Sampling.

        x_s^k = mean + std z_k,    g_k = d objective(E[x_0 | x_s^k]) / d x_s^k
        x_s   = mean + std z - scale * (1/m) sum_k r g_k / |g_k|,    r = sqrt(d) * ancestral std

    The sample is drawn first and denoised once more, at s; there the estimate is better than at t. A change of the
    noise z by -sqrt(d) scale g / |g|, as published, is this change of x_s. With m = 1 the draw is the sample itself;
    with more they are draws of their own, and the mean of their directions moves the sample. r is that of a stochastic
    step whatever eta is; with eta = 0 all draws are one. The last step, to sigma = 0, is left unguided.

    Args:
        objective: clean samples (B, ...) -> loss (B,).
        scale: 0 is off, 0.3 the published rate.
        samples: m; 10 in the published code's full version.
        n: network calls of the look-ahead, which begins at s; 1 as published.
        window, repeats: when it acts, and how often a step is made; see `Recipe`.
        update: another update rule in place of the normalised step.
        constraint: where x_s may lie; `Sphere(rate)` takes the direction to DSG's sphere.
        path: "ode" or "own", along the run's own steps and noise; see `SAG`.
        solver, grid, memory, jacobian: of the look-ahead, see `lookahead_gradient`.

    Raises:
        ConfigError: samples < 1 or n < 1, and other bad settings. GuidanceError: see `lookahead_gradient`.

    Use it with eta > 0.

    Cost of a guided step per sample, the sampler's own call included: forward 1 + m n (memory="fast"),
    1 + m (2n - 1) ("minimal"); backward m n. A sampler of two stages makes its second call before the gradient.

    Source: Ren et al., "One step further with Monte-Carlo sampler to guide diffusion better", 2603.06685, as in its
    published code.
    """

    scale: Scale = 0.3
    samples: Annotated[int, Range(1, 4)] = 1
    n: Calls = 1
    window: Window = (0.0, 1.0)
    repeats: Repeats = 1
    update: Rule | None = None
    constraint: Constrained = None
    path: Path = "ode"
    solver: str = "best"
    grid: str | Grid | None = None
    memory: MemoryPlan = "minimal"
    jacobian: Jacobian = "exact"

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, samples=whole(self.samples, f"{type(self).__name__}'s samples", 1))

    @property
    def guides_last(self) -> bool:
        return False  # at sigma = 0 there is nothing left to denoise

    def push(self, step: Step) -> Push:
        if self.samples == 1:
            points = [step.x_s()]
        else:
            points = [step.mean() + step.std * z for z in step.draw("smooth", self.samples)]
        gradients, losses, updates = [], [], []
        for x_s in points:
            gradient, loss = step.gradient_after(x_s, self.objective_at(step), *self.ahead(step))
            gradients.append(gradient)
            losses.append(loss)
            updates.append(self.rule(gradient, step, loss))
        gradient, loss, update = (torch.stack(each).mean(dim=0) for each in (gradients, losses, updates))
        return Push(gradient, loss, x_s=-self.scale * update)
