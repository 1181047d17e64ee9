"""Update rules: pure functions (gradient, step, loss) -> update, which chain; the step is against the update.

All are per sample. `scale` and `clip` are what they say; `normalise` and `estimate_length` make a scale mean the same
for every loss and model; `rho` and `root_loss` are the rules of the FreeDoM / SAG and DPS papers.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from symguide.errors import ConfigError, GuidanceError
from symguide.loss_guidance.recipe import OverTime, at
from symguide.per_sample import direction, expand, norm, rms
from symguide.step import Step

Rule = Callable[[Tensor, Step, Tensor], Tensor]


def chain(*rules: Rule) -> Rule:
    """One rule after the other."""

    def chained(gradient: Tensor, step: Step, loss: Tensor) -> Tensor:
        for rule in rules:
            gradient = rule(gradient, step, loss)
        return gradient

    return chained


def scale(factor: OverTime) -> Rule:
    """factor * g, with a number or a function of t."""
    return lambda gradient, step, loss: at(factor, step.t) * gradient


def clip(length: float) -> Rule:
    """g, shortened to |g| <= length."""
    return lambda gradient, step, loss: gradient * (length / norm(gradient).clamp_min(length))


def normalise() -> Rule:
    """r * g / |g| with r = sqrt(d) * std of the ancestral step: as long as the step's own noise. 0 in the last step."""
    return lambda gradient, step, loss: step.radius * direction(gradient)


def estimate_length() -> Rule:
    """sqrt(d) * sigma / sqrt(alpha² + sigma²) * g / |g|: as long as the clean estimate of unit data is uncertain."""

    def rule(gradient: Tensor, step: Step, loss: Tensor) -> Tensor:
        alpha, sigma = step.schedule.alpha(step.t), step.schedule.sigma(step.t)
        return math.sqrt(gradient[0].numel()) * sigma / math.hypot(alpha, sigma) * direction(gradient)

    return rule


def rho(factor: float = 0.2) -> Rule:
    """factor * rms(w c) / rms(g) * g, with w c what classifier-free guidance added to eps.

    Source: FreeDoM (2303.09833) and SAG (2312.12030) as published for Stable Diffusion: factor 0.2, w the CFG scale,
    c = eps_cond - eps_uncond. Here per sample. Raises GuidanceError without classifier-free guidance.
    """

    def rule(gradient: Tensor, step: Step, loss: Tensor) -> Tensor:
        shift = step.prediction.shift
        if shift is None:
            raise GuidanceError(
                "the rho rule is measured in what classifier-free guidance adds: pass prediction=CFG(...) with a scale "
                "other than 1, or use the default normalised step"
            )
        return factor * math.sqrt(gradient[0].numel()) * rms(shift) * direction(gradient)

    return rule


def root_loss() -> Rule:
    """g / (2 sqrt(loss)): the gradient of sqrt(loss), which DPS takes of a squared residual norm."""

    def rule(gradient: Tensor, step: Step, loss: Tensor) -> Tensor:
        if bool((loss < 0).any()):
            raise GuidanceError(
                "DPS takes the root of the loss, and this one is negative: use a squared error, or FreeDoM"
            )
        return gradient / (2 * expand(loss, gradient).sqrt().clamp_min(1e-12))

    return rule


def polyak(target: float = 0.0) -> Rule:
    """(loss - target) g / |g|²: as far as the loss would fall to `target` if it went on falling as it does here.

    Where the loss is at or below the target, nothing. With FreeDoM, SAG and LGD the last step is guided too. Source:
    Polyak, 1969; Shen et al., 2403.12404, algorithm 2, whose code puts |eps| in place of the loss's excess.
    """

    def rule(gradient: Tensor, step: Step, loss: Tensor) -> Tensor:
        excess = expand((loss - target).clamp_min(0).to(gradient), gradient)
        return excess * direction(gradient) / norm(gradient).clamp_min(torch.finfo(gradient.dtype).tiny)

    return rule


def feedback(level: float) -> Rule:
    """loss / (loss + level) g: half of it where the loss is `level`, and less and less the lower it is. Ours.

    Put it behind the rule that sets the length, as in chain(normalise(), feedback(0.5)). For losses from 0.
    """
    if not level > 0:
        raise ConfigError(f"the level of feedback is the loss at which guidance is halved, positive, not {level}")

    def rule(gradient: Tensor, step: Step, loss: Tensor) -> Tensor:
        low = expand(loss.clamp_min(0).to(gradient), gradient)
        return low / (low + level) * gradient

    return rule


def forward_weight() -> Rule:
    """sigma² / alpha * g: what adding sigma * g to eps does to x_0 (Universal Guidance, 2302.07121, equation 6)."""
    return lambda gradient, step, loss: step.schedule.sigma(step.t) ** 2 / step.schedule.alpha(step.t) * gradient
