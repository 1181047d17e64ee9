"""Resampling: who of a population goes on, by its weights. Pure functions of weights and uniform numbers."""

from typing import Literal, get_args

import torch
from torch import Tensor

from symguide.errors import ConfigError, GuidanceError, unknown

Kind = Literal["systematic", "multinomial", "residual"]
KINDS: tuple[str, ...] = get_args(Kind)


def resample(log_weights: Tensor, particles: int, uniform: Tensor, kind: Kind = "systematic") -> Tensor:
    """Rows that go on, (B K,), for `Moved(x_s[parents], parents)`: particle i is drawn K w_i times on average.

    With w = softmax(log_weights) of the K particles of a sample and u uniform in (0, 1):

        systematic    the particles at (k + u_0) / K of the cumulated weights, k = 0 ... K - 1
        multinomial   the particles at u_k of the cumulated weights, independent of each other
        residual      floor(K w_i) times particle i, and the rest multinomial by what is left of the weights

    All are unbiased; systematic resampling has the least variance in most cases and needs one number for a sample.

    Args:
        log_weights: (B K,), sample after sample; any constant may be added to those of a sample.
        particles: K.
        uniform: numbers in (0, 1), (B, K) or, for systematic, (B, 1): `step.uniform("resample", K)`.
        kind: one of the three.

    Raises:
        ConfigError: for an unknown kind, and numbers of another shape. GuidanceError: where no particle of a sample
            weighs anything, or a weight is no number.

    Cost: no network call.

    Source: Douc, Cappé & Moulines, "Comparison of Resampling Schemes for Particle Filtering", cs/0507025.

    >>> resample(torch.tensor([0.0, -torch.inf, 0.0, 0.0]), 2, torch.tensor([[0.5], [0.5]]))
    tensor([0, 0, 2, 3])
    """
    if kind not in KINDS:
        raise unknown("resampling", kind, KINDS)
    weights = torch.softmax(log_weights.reshape(-1, particles).double(), dim=1)
    wanted = 1 if kind == "systematic" else particles
    if uniform.ndim != 2 or len(uniform) != len(weights) or uniform.shape[1] < wanted:
        raise ConfigError(f"{kind} resampling needs uniform numbers ({len(weights)}, {wanted}): step.uniform(...)")
    if weights.device.type == "cpu" and not bool(weights.isfinite().all()):
        raise GuidanceError("no particle of a sample weighs anything, or a weight is no number: look at the potentials")
    u, places = uniform.double(), torch.arange(particles, device=weights.device)
    if kind == "systematic":
        chosen = _at(weights, (places + u[:, :1]) / particles)
    elif kind == "multinomial":
        chosen = _at(weights, u)
    else:
        copies = torch.floor(particles * weights + 1e-9)  # an expected number of 2 is 2, whatever its rounding
        rest = (particles * weights - copies).clamp_min(0)
        drawn = _at(rest / rest.sum(dim=1, keepdim=True).clamp_min(1e-300), u)
        ends = copies.cumsum(dim=1)
        sure = torch.searchsorted(ends, places.expand_as(ends).double().contiguous(), right=True)
        chosen = torch.where(sure < particles, sure, drawn)
    first = torch.arange(len(weights), device=weights.device) * particles
    return (first[:, None] + chosen).flatten()


def _at(weights: Tensor, points: Tensor) -> Tensor:
    """The particles at these points of the cumulated weights, (B, K)."""
    ends = weights.cumsum(dim=1)
    ends = ends / ends[:, -1:].clamp_min(1e-300)  # the last one is 1, whatever the rounding
    return torch.searchsorted(ends, points.contiguous(), right=True).clamp_max(weights.shape[1] - 1)
