"""Augmentations of clean pictures (B, 3, H, W) in [-1, 1]: one kind for scorers and another for judges."""

import torch
import torch.nn.functional as F
from torch import Tensor

from symguide.per_sample import expand


def scorer_view(x: Tensor) -> Tensor:
    """A little brighter or darker, blurred in part, then Gaussian noise of random strength; one in four as it is."""
    gain, shift = 1 + 0.06 * torch.randn(len(x)), 0.05 * torch.randn(len(x))
    seen = x * expand(gain, x) + expand(shift, x)
    share = expand(torch.rand(len(x)) * (torch.rand(len(x)) < 0.5), x)
    seen = seen + share * (F.avg_pool2d(F.pad(seen, (1, 1, 1, 1), mode="replicate"), 3, stride=1) - seen)
    seen = seen + expand(0.15 * torch.rand(len(x)), x) * torch.randn(x.shape)
    return torch.where(expand(torch.rand(len(x)) < 0.25, x), x, seen)


def judge_view(x: Tensor) -> Tensor:
    """Single pixels and one block lost, every channel's contrast changed on its own, and very little noise."""
    count, side = len(x), x.shape[-1]
    seen = x * (1 + 0.05 * torch.randn(count, 3, 1, 1))
    corner = (torch.rand(count, 2, 1) * (side - 5)).long()
    line = torch.arange(side)
    rows, columns = ((line >= corner[:, axis]) & (line < corner[:, axis] + 5) for axis in (0, 1))
    block = (rows[:, None, :, None] & columns[:, None, None, :]) & expand(torch.rand(count) < 0.3, x)
    lost = block | (torch.rand(count, 1, side, side) < 0.03)
    return torch.where(lost, 2 * torch.rand(count, 3, 1, 1) - 1, seen) + 0.03 * torch.randn(x.shape)
