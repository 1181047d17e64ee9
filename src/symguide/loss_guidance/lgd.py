"""Loss-Guided Diffusion (LGD-MC): the loss averaged over a cloud around the clean estimate."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from symguide.errors import settle, whole
from symguide.loss import Objective
from symguide.loss_guidance.descent import LookAhead
from symguide.loss_guidance.recipe import Calls, Constrained, Jacobian, Path, Repeats, Rule, Scale, Window
from symguide.memory_plan import MemoryPlan
from symguide.ranges import Range
from symguide.registry import register
from symguide.solver import Grid
from symguide.step import Step


@register("loss guidance", "lgd")
@dataclass(frozen=True, kw_only=True)
class LGD(LookAhead):
    """Loss-Guided Diffusion with Monte Carlo.

        L(x_0) = -log (1/m) sum_i exp(-objective(x_0 + r z_i)),   r = sigma / sqrt(alpha² + sigma²)
        x_s    = mean + std z - scale * update(d L(E[x_0 | x_t]) / d x_t)

    r is the spread of x_0 given x_t for data of unit variance. The draws z_i belong to the sample and the step, so they
    do not depend on the batch.

    Args:
        objective: clean samples (B, ...) -> loss (B,).
        samples: m, points of the cloud.
        scale: strength; 0 is off, 0.1 to 1 is usual.
        n: network calls of the look-ahead, a number or a function of t.
        window, repeats, constraint: when it acts, how often a step is made, and where x_s may lie; see `Recipe`.
        update: another update rule in place of the normalised step.
        path: "ode" or "own", along the run's own steps and noise; see `SAG`.
        solver, grid, memory, jacobian: of the look-ahead, see `lookahead_gradient`.

    Raises:
        ConfigError: samples < 1 or n < 1, and other bad settings. GuidanceError: see `lookahead_gradient`.

    Use it when the objective is rough and cheap.

    Cost of a guided step: as SAG with the same n; the objective is evaluated m times.

    Source: Song et al., "Loss-Guided Diffusion Models for Plug-and-Play Controllable Generation", ICML 2023, eq. 8.
    """

    samples: Annotated[int, Range(1, 16, log=True)] = 8
    scale: Scale = 0.5
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

    def spread(self, step: Step) -> float:
        """r, the cloud's standard deviation."""
        alpha, sigma = step.schedule.alpha(step.t), step.schedule.sigma(step.t)
        return sigma / math.hypot(alpha, sigma)

    def objective_at(self, step: Step) -> Objective:
        objective = super().objective_at(step)
        cloud = self.spread(step) * step.draw("smooth", self.samples)

        def smoothed(x0: Tensor) -> Tensor:
            losses = torch.stack([objective(x0 + shift) for shift in cloud])
            return math.log(self.samples) - torch.logsumexp(-losses, dim=0)

        return smoothed
