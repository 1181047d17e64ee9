"""Pseudoinverse-guided diffusion models (PiGDM): the likelihood of a linear measurement, with its uncertainty."""

from dataclasses import dataclass

from symguide.loss_guidance.recipe import Constrained, Push, Recipe, Repeats, Scale, Window
from symguide.objectives.measurement import measured
from symguide.registry import register
from symguide.step import Run, Step


@register("loss guidance", "pigdm")
@dataclass(frozen=True, kw_only=True)
class PiGDM(Recipe):
    """Pseudoinverse-guided diffusion models, for linear measurements y = A x_0 + noise z.

        p(x_0 | x_t) ~ N(E[x_0 | x_t], r² I),   r² = sigma² / (alpha² + sigma²),   J = d E[x_0 | x_t] / d x_t
        g    = J^T A* (r² A A* + noise² I)^-1 (y - A E[x_0 | x_t]),   the gradient of log p(y | x_t)
        x_0' = E[x_0 | x_t] + scale * (sigma² / alpha) g,   and eps anew from x_t and x_0'

    For data ~ N(0, I) that is E[x_0 | x_t, y] itself at scale = 1. The published code (pgdm.py of NVlabs/RED-diff, for
    variance-preserving schedules) has alpha² times as much, which holds the guidance back where x_t is noisy.

    Args:
        objective: a `Measurement` by a `LinearOperator`, or a `Region`.
        scale: strength; 0 is off, 1 is Bayes' rule.
        window, repeats, constraint: when it acts, how often a step is made, and where x_s may lie; see `Recipe`.

    Raises:
        ConfigError: for a bad setting, and when a run begins for another objective.

    Use it for inpainting, super-resolution, deblurring and compressed sensing: no strength is to be found.

    Cost of a guided step: 1 forward and 1 backward call, and one `LinearOperator.solve`. A step from pure noise, where
    alpha = 0, is left unguided.

    Source: Song et al., "Pseudoinverse-Guided Diffusion Models for Inverse Problems", ICLR 2023.
    """

    scale: Scale = 1.0
    window: Window = (0.0, 1.0)
    repeats: Repeats = 1
    constraint: Constrained = None

    def guides_at(self, run: Run, index: int) -> bool:
        return super().guides_at(run, index) and run.schedule.alpha(run.times[index]) > 0

    def prepare(self, run: Run) -> None:
        super().prepare(run)
        _ = measured(self.objective).linear  # refused before the first step

    def push(self, step: Step) -> Push:
        alpha, sigma = step.schedule.alpha(step.t), step.schedule.sigma(step.t)
        variance, task = sigma**2 / (alpha**2 + sigma**2), measured(self.objective)
        with step.linearised() as estimate:
            solved = task.linear.solve(task.residual(estimate.x0), task.noise**2 / variance) / variance
            g = estimate.vjp(task.linear.adjoint(solved))
            loss = task(estimate.x0)
        return Push(-g, loss, x0=self.scale * sigma**2 / alpha * g, eps="anew")
