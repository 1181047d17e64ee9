"""Samplers that invert exactly, so that their gradient needs no stored states: EDICT and BDIA.

The state at every step is computed back from the end, and the network call that undoes a step is the one that is
differentiated. What inverts exactly in real numbers amplifies round-off in floating point.
"""

from itertools import pairwise

import torch
from torch import Tensor

from benchmarks.peers.way import Problem, Way, vjp
from symguide.denoiser import Denoiser
from symguide.loss import value_and_gradient
from symguide.schedule import Schedule

Pair = tuple[Tensor, Tensor]


def ddim_weights(schedule: Schedule, t: float, s: float) -> tuple[float, float]:
    """(a, b) of DDIM's x_s = a x_t + b eps, upwards as well as downwards."""
    a = schedule.alpha(s) / schedule.alpha(t)
    return a, schedule.sigma(s) - a * schedule.sigma(t)


class Edict:
    """Two coupled samples: x' = a x + b eps(y), y' = a y + b eps(x'), then mixed; roles change from step to step.

        x'' = p x' + (1 - p) y',   y'' = p y' + (1 - p) x''

    Source: Wallace et al., "EDICT", 2211.12446, with their p = 0.93. Cost: 2 calls a step.

    Args:
        denoiser: the model.
        times: of the steps, falling.
        mix: p.
    """

    def __init__(self, denoiser: Denoiser, times: list[float], mix: float = 0.93) -> None:
        self.denoiser, self.p = denoiser, mix
        self.steps = [(t, *ddim_weights(denoiser.schedule, t, s)) for t, s in pairwise(times)]

    def forward(self, x: Tensor, y: Tensor) -> Pair:
        """The pair at the last time."""
        p = self.p
        for t, a, b in self.steps:
            x = a * x + b * self.denoiser(y, t).eps
            y = a * y + b * self.denoiser(x, t).eps
            x = p * x + (1 - p) * y
            y = p * y + (1 - p) * x
            x, y = y, x
        return x, y

    def backward(self, ends: Pair, bars: Pair) -> tuple[Pair, Pair]:
        """(the pair at the first time, its cotangents) of the pair at the last and its own: 2 calls each way a step."""
        (x, y), (x_bar, y_bar), p = ends, bars, self.p
        for t, a, b in reversed(self.steps):
            x, y, x_bar, y_bar = y, x, y_bar, x_bar
            y, x_bar, y_bar = (y - (1 - p) * x) / p, x_bar + (1 - p) * y_bar, p * y_bar
            x, x_bar, y_bar = (x - (1 - p) * y) / p, p * x_bar, y_bar + (1 - p) * x_bar
            eps, pulled = vjp(self.denoiser, "eps", x, t, b * y_bar)
            y, x_bar, y_bar = (y - b * eps) / a, x_bar + pulled, a * y_bar
            eps, pulled = vjp(self.denoiser, "eps", y, t, b * x_bar)
            x, y_bar, x_bar = (x - b * eps) / a, y_bar + pulled, a * x_bar
        return (x, y), (x_bar, y_bar)


class Bdia:
    """x_{k+1} = γ x_{k-1} + (1 - γ) x_k - γ (D(t_k, t_{k-1}) x_k - x_k) + D(t_k, t_{k+1}) x_k - x_k, D a DDIM step.

    The first step is DDIM's. A step is linear in x_{k-1}, x_k and eps(x_k), so that two neighbours give the one before.
    Source: Zhang et al., "Exact Diffusion Inversion via Bi-directional Integration Approximation", 2307.10829; γ = 1 as
    its authors advise for many steps. Cost: 1 call a step.

    Args:
        denoiser: the model.
        times: of the steps, falling.
        gamma: γ, in (0, 1].
    """

    def __init__(self, denoiser: Denoiser, times: list[float], gamma: float = 1.0) -> None:
        self.denoiser, self.gamma = denoiser, gamma
        schedule = denoiser.schedule
        self.first = times[0], *ddim_weights(schedule, times[0], times[1])
        self.steps = []
        for before, t, s in zip(times, times[1:], times[2:], strict=False):
            (a, b), (c, d) = ddim_weights(schedule, t, s), ddim_weights(schedule, t, before)
            self.steps.append((t, a - gamma * c, b - gamma * d))

    def forward(self, x: Tensor) -> Pair:
        """The last two states."""
        t, a, b = self.first
        before, x = x, a * x + b * self.denoiser(x, t).eps
        for t, a, b in self.steps:
            before, x = x, self.gamma * before + a * x + b * self.denoiser(x, t).eps
        return before, x

    def backward(self, ends: Pair, bar: Tensor) -> Pair:
        """(x at the first time, its cotangent) of the last two states and the last one's: 1 call each way a step."""
        (x, after), before_bar, g = ends, torch.zeros_like(bar), self.gamma
        for t, a, b in reversed(self.steps):
            eps, pulled = vjp(self.denoiser, "eps", x, t, b * bar)
            x, after = (after - a * x - b * eps) / g, x
            bar, before_bar = before_bar + a * bar + pulled, g * bar
        t, a, b = self.first
        _, pulled = vjp(self.denoiser, "eps", x, t, b * bar)
        return x, before_bar + a * bar + pulled


class EdictWay(Way):
    """EDICT's sampler from a pair of equals, its gradient by inversion; the sample is the first of the pair."""

    name = "EDICT, inverted"
    map = "EDICT"
    solvers = ("EDICT",)

    def sample(self, problem: Problem, x: Tensor) -> Tensor:
        return Edict(problem.denoiser, problem.times).forward(x, x)[0]

    def gradient(self, problem: Problem, x: Tensor) -> Tensor:
        sampler = Edict(problem.denoiser, problem.times)
        with torch.no_grad():
            ends = sampler.forward(x, x)
        bar = value_and_gradient(problem.objective, ends[0])[1]
        _, (x_bar, y_bar) = sampler.backward(ends, (bar, torch.zeros_like(bar)))
        return x_bar + y_bar

    def states(self, problem: Problem) -> int:
        return 2


class BdiaWay(Way):
    """BDIA's sampler, its gradient by inversion."""

    name = "BDIA, inverted"
    map = "BDIA"
    solvers = ("BDIA",)

    def sample(self, problem: Problem, x: Tensor) -> Tensor:
        return Bdia(problem.denoiser, problem.times).forward(x)[1]

    def gradient(self, problem: Problem, x: Tensor) -> Tensor:
        sampler = Bdia(problem.denoiser, problem.times)
        with torch.no_grad():
            ends = sampler.forward(x)
        return sampler.backward(ends, value_and_gradient(problem.objective, ends[1])[1])[1]

    def states(self, problem: Problem) -> int:
        return 2
