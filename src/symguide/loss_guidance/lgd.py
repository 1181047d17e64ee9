"""Loss-Guided Diffusion (LGD-MC): the loss averaged over a cloud around the clean estimate."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from symguide.errors import ConfigError
from symguide.loss import Objective
from symguide.loss_guidance.sag import SAG
from symguide.ranges import Range, Ranges
from symguide.step import Step


class LGD(SAG):
    """Loss-Guided Diffusion with Monte Carlo.

        L(x_0) = -log (1/m) sum_i exp(-objective(x_0 + r z_i)),   r = sigma / sqrt(alpha² + sigma²)
        x_s    = mean + std z - scale * update(d L(E[x_0 | x_t]) / d x_t)

    r is the spread of x_0 given x_t for data of unit variance. The draws z_i belong to the sample and the step, so they
    do not depend on the batch.

    Args: as SAG, and n = 1 unless given; `samples` is m.

    Cost of a guided step: as SAG; the objective is evaluated m times.

    Source: Song et al., "Loss-Guided Diffusion Models for Plug-and-Play Controllable Generation", ICML 2023, eq. 8.
    """

    ranges: ClassVar[Ranges] = {"samples": Range(1, 16, log=True)}

    def __init__(self, objective: Any, samples: int = 8, scale: float = 0.5, n: int = 1, **settings: Any) -> None:
        if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
            raise ConfigError(f"{type(self).__name__} needs samples >= 1, a whole number, not {samples!r}")
        super().__init__(objective, n, scale, **settings)
        self.samples = samples

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
