"""The continuous adjoint, and plain autograd, through others' integrators of the probability-flow ODE.

The vanilla adjoint integrates dλ/du = -(df/dy)^T λ backwards with a solver of its own, so that it is the gradient of
the flow up to two discretisation errors, and of no discrete map exactly. Source: Chen et al., "Neural ODEs",
1806.07366; for diffusion models Pan et al., "AdjointDPM", 2307.10711.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.way import Problem, Way, by_autograd
from symguide.denoiser import Denoiser, Prediction
from symguide.extras import library
from symguide.schedule import Schedule

FLOOR = 0.002
"""The smallest sigma / alpha that an integrator's network sees, EDM's sigma_min: at 0 there is no noise to predict.

Solvers here never ask for less than their last step's start; sweeps of others begin at sigma = 0.
"""


@dataclass(frozen=True)
class Frame:
    """y = x / scale and a time u of the ratio r = sigma / alpha, in which Euler's rule is DDIM."""

    scale: Callable[[Schedule, float], float]
    time: Callable[[float], float]
    ratio: Callable[[float], float]
    velocity: Callable[[Prediction], Tensor]


FLOW = Frame(lambda s, t: s.alpha(t) + s.sigma(t), lambda r: r / (1 + r), lambda u: u / (1 - u), lambda p: p.flow)
"""y = x / (alpha + sigma), u = sigma / (alpha + sigma), dy/du = eps - x_0: the frame of our two-stage solvers."""

RATIO = Frame(lambda s, t: s.alpha(t), lambda r: r, lambda u: u, lambda p: p.eps)
"""y = x / alpha, u = sigma / alpha, dy/du = eps: the DDIM ODE, as AdjointDPM has it."""


class Field:
    """dy/du of the probability-flow ODE in a frame: one network call."""

    def __init__(self, denoiser: Denoiser, frame: Frame) -> None:
        self.denoiser, self.frame = denoiser, frame

    def __call__(self, u: Tensor | float, y: Tensor) -> Tensor:
        schedule = self.denoiser.schedule
        here = u.item() if isinstance(u, Tensor) else u
        t = schedule.time(max(self.frame.ratio(here), FLOOR))
        return self.frame.velocity(self.denoiser(self.frame.scale(schedule, t) * y, t))


METHODS = {"ddim": "euler", "heun": "heun2", "midpoint": "midpoint"}


class Odeint(Way):
    """torchdiffeq's odeint with plain autograd: the same map as our solver's program."""

    name = "odeint"
    map = "odeint, flow"
    solvers = tuple(METHODS)
    library = "torchdiffeq"
    frame = FLOW

    def sample(self, problem: Problem, x: Tensor) -> Tensor:
        return self._integrate(_torchdiffeq(self.name).odeint, problem, x)

    def gradient(self, problem: Problem, x: Tensor) -> Tensor:
        return by_autograd(self, problem, x)

    def _integrate(self, odeint: Callable[..., Tensor], problem: Problem, x: Tensor, **settings: Any) -> Tensor:
        """Steps of as many stages as our solver makes, those of one kind in one call of the integrator."""
        schedule, frame, times = problem.denoiser.schedule, self.frame, problem.times
        field, y, done = Field(problem.denoiser, frame), x / frame.scale(schedule, problem.t), 0
        for stages, steps in groupby(problem.stages):
            points = times[done : (done := done + len(list(steps))) + 1]
            u = torch.tensor([frame.time(schedule.ratio(t)) for t in points], dtype=torch.float64, device=x.device)
            method = METHODS[problem.solver] if stages > 1 or problem.solver == "ddim" else "euler"
            y = odeint(field, y, u, method=method, **settings)[-1]
        return y  # the scale is 1 where sigma is 0


class OdeintAdjoint(Odeint):
    """torchdiffeq's odeint_adjoint: the vanilla adjoint, on the same time points."""

    name = "odeint_adjoint"

    def gradient(self, problem: Problem, x: Tensor) -> Tensor:
        leaf = x.detach().clone().requires_grad_()
        x0 = self._integrate(_torchdiffeq(self.name).odeint_adjoint, problem, leaf, adjoint_params=())
        return torch.autograd.grad(problem.objective(x0).sum(), leaf)[0]


class OdeintAdjointRatio(OdeintAdjoint):
    """The vanilla adjoint of the DDIM ODE dy/ds = eps, as AdjointDPM takes it."""

    name = "odeint_adjoint, dy/ds = eps"
    map = "odeint, ratio"
    solvers = ("ddim",)
    frame = RATIO


def _torchdiffeq(what: str) -> Any:
    return library("torchdiffeq", what, "bench")
