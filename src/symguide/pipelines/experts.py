"""Pipelines with two networks, one for the noisy and one for the clean part of the path, as Wan 2.2 has them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from symguide.pipelines.combine import Affine, Combine
from symguide.pipelines.guiders import guiders
from symguide.private.diffusers import second_scale


@dataclass(frozen=True)
class Experts:
    """Which network, under which classifier-free guidance, speaks at a timestep.

    Attributes:
        boundary: the timestep from which up `early` speaks, and below which `late` does.
        early, late: the networks.
        scales: weights of their guidance.
    """

    boundary: float
    early: nn.Module
    late: nn.Module
    scales: tuple[float, float]

    def network(self, timestep: float) -> nn.Module:
        """Who speaks at a timestep."""
        return self.early if timestep >= self.boundary else self.late

    def combine(self, timestep: float, passes: int) -> Combine:
        """The rule at a timestep: with two passes, the conditional one comes first."""
        scale = self.scales[timestep < self.boundary]
        weights = [scale, 1 - scale] if passes == 2 else [1.0]
        return Affine(torch.tensor(weights, dtype=torch.float64))


def experts(pipe: Any) -> Experts | None:
    """The two networks of a pipeline that has two, else None."""
    ratio = getattr(pipe.config, "boundary_ratio", None)
    if ratio is None or getattr(pipe, "transformer_2", None) is None:
        return None
    if both := guiders(pipe):
        first, second = (guider.guidance_scale for guider in both)
    else:
        first, second = pipe.guidance_scale, second_scale(pipe)
    scales = (float(first), float(first if second is None else second))
    return Experts(ratio * pipe.scheduler.config.num_train_timesteps, pipe.transformer, pipe.transformer_2, scales)
