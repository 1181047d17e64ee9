"""Best of n: sample n particles for every sample and keep the best one."""

from typing import Any

import torch
from torch import Tensor

from symguide.errors import GuidanceError, whole
from symguide.registry import register
from symguide.step import Step


@register("particle guidance", "best_of_n")
class BestOfN:
    """Of n independent samples the one with the lowest loss: the baseline that every particle method has to beat.

    Args:
        objective: clean samples (B, ...) -> loss (B,); needs no gradient, so any rule or black box will do.
        n: particles for every sample; 1 is off.

    Use it as the baseline of all particle guidance, and for rules without gradients.

    Cost: n times the run, and one evaluation of the objective.
    """

    def __init__(self, objective: Any, n: int = 4) -> None:
        self.objective, self.particles = objective, whole(n, "n", 1, of="particles")

    def move(self, step: Step, x_s: Tensor) -> Tensor:
        return x_s

    def choose(self, samples: Tensor, log_weights: Tensor) -> Tensor:
        with torch.no_grad():
            loss = self.objective(samples.clone())  # which may change it in place
        if not isinstance(loss, Tensor) or loss.shape != (len(samples),):
            raise GuidanceError(
                f"an objective must return one loss per sample, a tensor of shape ({len(samples)},): wrap a rule that "
                "returns numbers in objectives.BlackBox"
            )
        groups = loss.reshape(-1, self.particles).nan_to_num(nan=float("inf"))
        first = torch.arange(len(groups), device=samples.device) * self.particles
        return first + groups.argmin(dim=1)
