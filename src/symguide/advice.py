"""How far to look ahead: what one network call sees of what is asked for, and the look-ahead which that names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from symguide.call import GuidedPredictor
from symguide.condition import expand_condition
from symguide.denoiser import Denoiser
from symguide.errors import ConfigError, unknown
from symguide.loss_guidance.recipe import checked_window
from symguide.modules import refuse_training
from symguide.solver import Grid, get_grid
from symguide.step import PredictionHook

AHEAD = 4
"""Calls of a look-ahead that is worth its cost; with two the same losses fall less."""
KINDS = ("statistic", "place", "choice")


@dataclass(frozen=True)
class Advice:
    """A look-ahead, and what it was named by.

    Attributes:
        n, path: for the recipe.
        why: in a sentence.
        bias: how much more of what is asked for a one-call estimate has than the sample, where the window begins.
        middle, end: how far one call is off in what is asked for, at the window's middle and where it ends.
        asked: how far what is asked for is from what samples have, the largest of it; negative where it is less.
            All four are in standard deviations over the samples.
    """

    n: int
    path: str
    why: str
    bias: float
    middle: float
    end: float
    asked: float

    @property
    def settings(self) -> dict[str, Any]:
        """For a recipe: SAG(objective, **advice.settings)."""
        return {"n": self.n, "path": self.path}


@torch.no_grad()
def advise(
    denoiser: Denoiser,
    x0: Tensor,
    feature: Callable[[Tensor], Tensor],
    target: Tensor | float,
    *,
    eta: float,
    window: tuple[float, float] = (0.0, 1.0),
    steps: int = 25,
    grid: str | Grid = "uniform",
    kind: str = "statistic",
    condition: Mapping[str, Any] | None = None,
    prediction: PredictionHook | None = None,
    seed: int = 0,
) -> Advice:
    """One call or four, and along which path, for a loss |f(x_0) - y|² and a window of guided steps.

    Samples x_0 are noised to times of the window and estimated by one call, x̂_0(t). With s_j the standard deviation
    of f_j over the samples and d_j = (y_j - mean f_j(x_0)) / s_j:

        bias    = sum_j d_j / |d| mean (f_j(x̂_0) - f_j(x_0)) / s_j        where the window begins
        off(t)  = root mean square over samples and j of (f_j(x̂_0(t)) - f_j(x_0)) / s_j

    One call is enough for a choice (a class, a mode) and for known values at known places, and where more is asked for
    than nearly any sample has, d_j > 3. Otherwise look ahead where the blur of one call has what is asked for before
    the sample has it, so that it stops pushing too early (bias > 0.4); where one call does not see it before the
    guidance is over (off > 0.5 where the window ends, though not with noise in the steps and bias < -2: there a
    blur is pushed hardest); or, of what it is right about in the mean (bias > -0.5), before half of it is over
    (off > 0.7). "own" is the path with noise in the steps, "ode" without.

    Args:
        denoiser: what is guided.
        x0: clean samples (B, ...), 64 or more, that it draws unguided, or of its data.
        feature: f, from (B, ...) to (B, m): what the loss compares, such as a sample's mean or its band powers.
        target: y, (m,) or a number.
        eta, window, steps, grid, condition, prediction: those of the guided run.
        kind: "statistic", "place" or "choice": what is asked for.
        seed: of the noise.

    Raises:
        ConfigError: for another kind, a window that is no part of the run, fewer than 2 samples, features or a target
            of another shape, or a feature that is the same in all samples.
        GuidanceError: for a network in training mode.

    Cost: three network calls for each sample, without a backward pass.

    Measured on closed forms and digits, at eta = 0 and 1: docs/which-method.md has in how many held-out cells it names
    a look-ahead that ends within 5 % of the best.

    >>> from symguide.closed_form import MixtureDenoiser
    >>> prior = MixtureDenoiser(torch.tensor([[-2.0], [2.0]]), 0.01 * torch.eye(1))
    >>> x0 = torch.tensor([-2.0, 2.0]).repeat(64)[:, None] + 0.1 * torch.linspace(-1, 1, 128)[:, None]
    >>> advise(prior, x0, lambda x0: x0**2, 3.9, eta=1.0).settings  # less than samples have, as a blur has at once
    {'n': 4, 'path': 'own'}
    """
    if kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    if callable(asked_window := checked_window(window)):
        raise ConfigError("advice is for a window (start, stop) of fractions of the steps, not for a function")
    start, stop = asked_window
    refuse_training(denoiser.network)
    has = _features(feature, x0)
    mean, spread = has.mean(dim=0), has.std(dim=0)
    if not bool((spread > 0).all()):
        raise ConfigError("a feature is the same in all samples x0, so that nothing can be said of it: leave it out")
    y = torch.as_tensor(target).to(mean)
    if y.ndim and y.shape != mean.shape:
        raise ConfigError(f"the target is a number or {tuple(mean.shape)}, as features are, not {tuple(y.shape)}")
    asked = (y - mean) / spread

    times = get_grid(grid)(denoiser.schedule, denoiser.schedule.t_max, steps)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed)).to(x0)
    predict = GuidedPredictor(denoiser, expand_condition(condition, len(x0), x0.device), prediction)

    def off(part: float) -> Tensor:
        """(f(x̂_0) - f(x_0)) / s at that part of the run, (B, m)."""
        t = times[min(int(part * steps), steps - 1)]
        x = denoiser.schedule.alpha(t) * x0 + denoiser.schedule.sigma(t) * noise
        return (_features(feature, predict(x, t).x0) - has) / spread

    bias = (off(start).mean(dim=0) * asked / asked.norm().clamp_min(1e-12)).sum().item()
    middle, end = (off(part).square().mean().sqrt().item() for part in ((start + stop) / 2, stop))
    ahead, why = _named(kind, eta, bias, middle, end, asked.max().item())
    n, path = (AHEAD, "own" if eta > 0 else "ode") if ahead else (1, "ode")
    return Advice(n, path, why, bias, middle, end, asked.max().item())


def _named(kind: str, eta: float, bias: float, middle: float, end: float, asked: float) -> tuple[bool, str]:
    """Whether to look ahead, and why."""
    if kind == "choice":
        return False, "one call knows of all choices that are open, and a longer way has made one"
    if kind == "place":
        return False, "one call is right about known places in the mean"
    if asked > 3:
        return False, "nearly no sample has as much, and one call pushes hardest"
    if bias > 0.4:
        return True, "one call's blur has what is asked for before the sample has it"
    if end > 0.5 and not (eta > 0 and bias < -2):
        return True, "one call does not see what is asked for before guidance is over"
    if middle > 0.7 and bias > -0.5:
        return True, "one call is right in the mean, and does not see it for half of the window"
    return False, "one call sees what is asked for"


def _features(feature: Callable[[Tensor], Tensor], x0: Tensor) -> Tensor:
    found = feature(x0)
    if found.ndim != 2 or len(found) != len(x0) or len(x0) < 2:
        raise ConfigError(f"features are (B, m) for two samples or more, not {tuple(found.shape)} for {len(x0)}")
    return found
