"""D-Flow: the starting noise by L-BFGS."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from symguide.errors import ConfigError, settle
from symguide.per_sample import expand, norm
from symguide.registry import register
from symguide.trajectory.lbfgs import lbfgs
from symguide.trajectory.path import Path, Point, check_iterations, check_settings


@register("trajectory optimisation", "dflow")
@dataclass(frozen=True, eq=False)
class DFlow:
    """L-BFGS on the starting noise z (x_T in units of its noise), with a line search, every sample for itself.

        min over z of  objective(x_0(z)) + regularisation * (|z|² / 2 - (d - 1) log |z|)
        z_0 = sqrt(blend) * z(data) + sqrt(1 - blend) * noise

    The regulariser is -log of the density of |z| for z ~ N(0, I), lowest at |z|² = d - 1. z(data) is where the
    probability-flow ODE carries given data (a degraded picture, say), on the same time grid.

    Made for few, accurate steps: `optimise(..., steps=6, solver="midpoint", grid="flow")`.

    Args:
        iterations: steps of L-BFGS; 0 is off. It ends earlier where no sample can be improved.
        regularisation: weight of the regulariser, in the units of the loss; 0 is off.
        data: clean samples (B, ...) to begin near, or (1, ...) for all.
        blend: share of the data in the first z; needs `data`.
        history: pairs that L-BFGS remembers.

    Use it for smooth objectives (inverse problems) with few accurate steps. Random objectives (augmentations) mislead a
    line search: take DOODL for those.

    Cost per sample, with n calls a run: forward n for the first run and for every trial of a line search (one an
    iteration where steps are good, for all samples as many as the slowest of the batch needs), n - 1 more an iteration
    with memory="minimal"; backward iterations * n. `data` costs a call for every step but the last.

    Source: Ben-Hamu et al., "D-Flow: Differentiating through Flows for Controlled Generation", 2402.14017. The line
    search is backtracking (Armijo).
    """

    controlled: ClassVar[bool] = False

    iterations: int = 20
    regularisation: float = 0.0
    data: Tensor | None = None
    blend: float = 0.1
    history: int = 10

    def __post_init__(self) -> None:
        settle(self, iterations=check_iterations(self.iterations))
        check_settings(
            regularisation=(self.regularisation, self.regularisation >= 0, "at least 0"),
            blend=(self.blend, 0 <= self.blend <= 1, "between 0 and 1"),
            history=(self.history, self.history >= 1, "at least 1"),
        )

    def visit(self, path: Path) -> Iterator[Point]:
        start = path.start
        if self.data is not None:
            start = math.sqrt(self.blend) * self._encoded(path, self.data) + math.sqrt(1 - self.blend) * start
        z = start / path.unit

        def evaluate(z_now: Tensor) -> _Regularised:
            point = path.at(start if z_now is z else path.unit * z_now)
            return _Regularised(point, z_now, self.regularisation)

        for _, at in lbfgs(evaluate, z, self.iterations, self.history):
            yield at.point

    @torch.no_grad()
    def _encoded(self, path: Path, data: Tensor) -> Tensor:
        """x_T of clean data: x_t = alpha_t x_0 + sigma_t eps from clean to noise, with the prediction before the step.

        The first step, from sigma = 0, where a network is not defined, takes data for what it is: x_s = alpha_s x_0.
        """
        if data.shape[1:] != path.start.shape[1:] or len(data) not in (1, len(path.start)):
            raise ConfigError(f"data must be clean samples of shape {tuple(path.start.shape)}, not {tuple(data.shape)}")
        alpha, sigma = path.schedule.alpha, path.schedule.sigma
        times = list(reversed(path.times[:-1]))
        x = alpha(times[0]) * data.to(path.start).expand_as(path.start)
        for s, t in pairwise(times):
            prediction = path.predict(x, s)
            x = alpha(t) * prediction.x0 + sigma(t) * prediction.eps
        return x


class _Regularised:
    """Loss of a run plus the regulariser of its start, for L-BFGS."""

    def __init__(self, point: Point, z: Tensor, weight: float) -> None:
        self.point, self.z, self.weight = point, z, weight
        self.value = point.loss
        if weight > 0:
            length, d = norm(z).flatten(), z[0].numel()
            self.value = self.value + weight * (0.5 * length**2 - (d - 1) * length.log())

    def slope(self) -> Tensor:
        g = self.point.path.unit * self.point.gradient()[0]
        if self.weight == 0:
            return g
        radial = 1 - (self.z[0].numel() - 1) / norm(self.z).flatten() ** 2
        return g + self.weight * expand(radial, self.z) * self.z
