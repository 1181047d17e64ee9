"""Update rules: functions (gradient, step, loss) -> update, which chain; the step is against the update.

All are per sample and pure; what `adam` remembers is in `step.run.memory`. `scale`, `clip` and `clamp` are what they
say; `normalise` and `estimate_length` make a scale mean the same for every loss and model; the others are rules of
papers. Rules are values: two that are made alike are equal, and files and commands write them as Python does,
`chain(normalise(), feedback(0.5))`.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from symguide.denoiser import times
from symguide.errors import ConfigError, GuidanceError, number, settle
from symguide.loss_guidance.recipe import OverTime, Rule, checked_over_time, value_at
from symguide.per_sample import direction, expand, norm, rms
from symguide.registry import named, register
from symguide.schedule import Schedule
from symguide.solver import transition
from symguide.step import Run, Step


@named("update rule")
def chain(*rules: Rule) -> Rule:
    """One rule after the other."""
    if strange := [each for each in rules if not callable(each)]:
        raise ConfigError(f"chain takes rules, such as rules.normalise(), not {strange[0]!r}")

    def rule(gradient: Tensor, step: Step, loss: Tensor) -> Tensor:
        for each in rules:
            gradient = each(gradient, step, loss)
        return gradient

    return rule


@named("update rule")
def scale(factor: OverTime) -> Rule:
    """factor * g, with a number or a function of t."""
    factor = checked_over_time("the factor of a rule", factor)
    return lambda gradient, step, loss: value_at(factor, step.t) * gradient


@named("update rule")
def clip(length: float) -> Rule:
    """g, shortened to |g| <= length."""
    length = number(length, "the length to clip at", above=0)
    return lambda gradient, step, loss: gradient * (length / norm(gradient).clamp_min(length))


@named("update rule")
def clamp(limit: float) -> Rule:
    """g with every entry between -limit and limit."""
    limit = number(limit, "the limit to clamp at", above=0)
    return lambda gradient, step, loss: gradient.clamp(-limit, limit)


@named("update rule")
def normalise() -> Rule:
    """r * g / |g| with r = sqrt(d) * std of the ancestral step: as long as the step's own noise. 0 in the last step."""
    return lambda gradient, step, loss: times(step.radius, direction(gradient))


@named("update rule")
def estimate_length() -> Rule:
    """sqrt(d) * sigma / sqrt(alpha² + sigma²) * g / |g|: as long as the clean estimate of unit data is uncertain."""

    def rule(gradient: Tensor, step: Step, loss: Tensor) -> Tensor:
        alpha, sigma = step.schedule.alpha(step.t), step.schedule.sigma(step.t)
        return math.sqrt(gradient[0].numel()) * sigma / math.hypot(alpha, sigma) * direction(gradient)

    return rule


@named("update rule")
def rho(factor: float = 0.2) -> Rule:
    """factor * rms(w c) / rms(g) * g, with w c what classifier-free guidance added to eps.

    Source: FreeDoM (2303.09833) and SAG (2312.12030) as published for Stable Diffusion: factor 0.2, w the CFG scale,
    c = eps_cond - eps_uncond. Here per sample. Raises GuidanceError without classifier-free guidance.
    """
    factor = number(factor, "the factor of rho", least=0)

    def rule(gradient: Tensor, step: Step, loss: Tensor) -> Tensor:
        shift = step.prediction.shift
        if shift is None:
            raise GuidanceError(
                "the rho rule is measured in what classifier-free guidance adds: pass prediction=CFG(...) with a scale "
                "other than 1, or use the default normalised step"
            )
        return factor * math.sqrt(gradient[0].numel()) * rms(shift) * direction(gradient)

    return rule


@named("update rule")
def root_loss() -> Rule:
    """g / (2 sqrt(loss)): the gradient of sqrt(loss), which is a residual's norm where the loss is its square."""

    def rule(gradient: Tensor, step: Step, loss: Tensor) -> Tensor:
        step.require(
            ~(loss < 0),
            lambda: GuidanceError(
                "DPS takes the root of the loss, and this one is negative: use a squared error, or FreeDoM"
            ),
        )
        return gradient / (2 * expand(loss, gradient).sqrt().clamp_min(1e-12))

    return rule


@named("update rule")
def residual_norm(noise: float) -> Rule:
    """sqrt(2) noise g / (2 sqrt(loss)): the gradient of |y - A x_0| where the loss is |y - A x_0|² / (2 noise²)."""
    return chain(root_loss(), scale(math.sqrt(2) * number(noise, "the noise of a residual's norm", above=0)))


@named("update rule")
def polyak(target: float = 0.0) -> Rule:
    """(loss - target) g / |g|²: as far as the loss would fall to `target` if it went on falling as it does here.

    Where the loss is at or below the target, nothing. With FreeDoM, SAG and LGD the last step is guided too. Source:
    Polyak, 1969; Shen et al., 2403.12404, algorithm 2, whose code puts |eps| in place of the loss's excess.
    """
    target = number(target, "the target of polyak")

    def rule(gradient: Tensor, step: Step, loss: Tensor) -> Tensor:
        excess = expand((loss - target).clamp_min(0).to(gradient), gradient)
        return excess * direction(gradient) / norm(gradient).clamp_min(torch.finfo(gradient.dtype).tiny)

    return rule


@named("update rule")
def feedback(level: float) -> Rule:
    """loss / (loss + level) g: half of it where the loss is `level`, and less and less the lower it is. Ours.

    Put it behind the rule that sets the length, as in chain(normalise(), feedback(0.5)). For losses from 0.
    """
    level = number(level, "the level of feedback, the loss at which guidance is halved,", above=0)

    def rule(gradient: Tensor, step: Step, loss: Tensor) -> Tensor:
        low = expand(loss.clamp_min(0).to(gradient), gradient)
        return low / (low + level) * gradient

    return rule


@named("update rule")
def forward_weight() -> Rule:
    """sigma² / alpha * g: what adding sigma * g to eps does to x_0 (Universal Guidance, 2302.07121, equation 6).

    Raises GuidanceError where alpha = 0, at the very start of a flow: x_t is all noise, and eps cannot be another.
    """

    def rule(gradient: Tensor, step: Step, loss: Tensor) -> Tensor:
        alpha, sigma = step.schedule.alpha(step.t), step.schedule.sigma(step.t)
        if not alpha > 0:
            raise GuidanceError(
                f"forward_weight has no bound at t = {step.t:g}, where x_t is all noise: begin after it, e.g. "
                "window=(0.01, 1), or use the default rule"
            )
        return sigma**2 / alpha * gradient

    return rule


@named("update rule")
def of_x0() -> Rule:
    """alpha_s g: what a change of x_0 is in x_s, where the step keeps the network's own eps (MPGD, ECM, TFG).

    A step that finds eps anew lets less of the change arrive: `of_moved_x0`.
    """
    return lambda gradient, step, loss: step.schedule.alpha(step.s) * gradient


@named("update rule")
def of_moved_x0() -> Rule:
    """What a change of x_0 is in x_s, where the (straight) step finds eps anew (Universal Guidance)."""
    return lambda gradient, step, loss: step.x0_weight * gradient


@named("update rule")
def of_x_t(most: float = 2.0) -> Rule:
    """alpha_s / alpha_t g: what a change of x_t is in x_s, where the step keeps the network's own eps (TFG, Adam).

    The ratio has no bound where x_t is nearly all noise, as in the first step of a flow: `most` is ours.
    """
    most = number(most, "the most of of_x_t", above=0)

    def rule(gradient: Tensor, step: Step, loss: Tensor) -> Tensor:
        alpha_t, alpha_s = step.schedule.alpha(step.t), step.schedule.alpha(step.s)
        return (alpha_s / alpha_t if alpha_s < most * alpha_t else most) * gradient

    return rule


@named("update rule")
def increase(mean: float = 1.0) -> Rule:
    """w_t g, with w_t along abar_t / abar_s, so larger toward the clean end, and `mean` on average over the steps.

    abar = alpha² / (alpha² + sigma²), so that schedules which are not variance preserving have the weights of the one
    with the same ratio. Source: Ye et al., "TFG", 2409.15761, as published in code.
    """
    mean = number(mean, "the mean of a schedule", least=0)
    return lambda gradient, step, loss: mean * _signal_kept(step)[0] * gradient


@named("update rule")
def decrease(mean: float = 1.0) -> Rule:
    """w_t g, with w_t along 1 - abar_t / abar_s, the other way than `increase`."""
    mean = number(mean, "the mean of a schedule", least=0)
    return lambda gradient, step, loss: mean * _signal_kept(step)[1] * gradient


@named("update rule")
def variance(gamma: float = 0.0) -> Rule:
    """(std² + gamma max(std²) sin(pi t)) g, std of the ancestral step and its largest of the run.

    std² g is classifier guidance (Dhariwal & Nichol, 2105.05233), the sine EluCD's (2310.11311), which keeps guidance
    up through the middle of the run.
    """
    gamma = number(gamma, "gamma", least=0)
    return lambda gradient, step, loss: variance_at(step.run, step.index, gamma) * gradient


def variance_at(run: Run, index: int, gamma: float) -> float:
    """The weight of `variance` in a step of a run."""
    stds = _stds(run.solver, run.predict.denoiser.schedule, run.times)
    return stds[index] ** 2 + gamma * max(stds) ** 2 * math.sin(math.pi * run.times[index])


@register("update rule", "adam")
@dataclass(frozen=True)
class adam:
    """m / (sqrt(v) + 1e-8), with m and v the bias-corrected averages of g and g² over the gradients of the run so far.

    Every element has its own averages, so samples stay independent; every gradient that is taken counts, those of
    steps made again with `repeats` too. A gradient that is not finite leaves the averages of its sample alone. The
    averages are the run's (`step.run.memory`): every run begins anew, and runs at the same time may share a recipe.

    Source: Belardi et al., "Adaptive Moments are Surprisingly Effective for Plug-and-Play Diffusion Sampling",
    2603.16797. The defaults are those of the published code; its tuned values are 0.1 to 0.77 and 0.03 to 0.94.
    """

    beta1: float = 0.9
    beta2: float = 0.995

    def __post_init__(self) -> None:
        settle(self, beta1=number(self.beta1, "adam's beta1"), beta2=number(self.beta2, "adam's beta2"))
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ConfigError(f"adam's betas must be at least 0 and below 1, not {self.beta1} and {self.beta2}")

    def __call__(self, gradient: Tensor, step: Step, loss: Tensor) -> Tensor:
        g = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
        none = torch.zeros_like(g), torch.zeros_like(g), g.new_zeros(len(g))
        m, v, count = step.run.memory.get(self, "averages", none)
        good = torch.isfinite(norm(g)) & expand(torch.isfinite(loss), g)
        m = torch.where(good, torch.lerp(g, m, self.beta1), m)
        v = torch.where(good, torch.lerp(g * g, v, self.beta2), v)
        count = count + good.flatten()
        step.run.memory.put(self, "averages", (m, v, count))
        first, second = (1 - expand(beta**count, g) for beta in (self.beta1, self.beta2))
        return torch.where(good, m / first / ((v / second).sqrt() + 1e-8), g).to(gradient)


@lru_cache(maxsize=64)
def _weights(schedule: Schedule, times: tuple[float, ...]) -> tuple[tuple[float, float], ...]:
    """For each step abar_t / abar_s and 1 minus it, each divided by its mean over the steps."""
    abar = [schedule.alpha(t) ** 2 / (schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2) for t in times]
    kept = [t / s for t, s in pairwise(abar)]
    up, down = sum(kept) / len(kept), 1 - sum(kept) / len(kept)
    return tuple((k / up if up > 0 else 1.0, (1 - k) / down) for k in kept)


def _signal_kept(step: Step) -> tuple[float, float]:
    return _weights(step.schedule, step.run.times)[step.index]


@lru_cache(maxsize=64)
def _stds(solver: str, schedule: Schedule, times: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(transition(solver, schedule, t, s, 1.0, None).radius_std for t, s in pairwise(times))
