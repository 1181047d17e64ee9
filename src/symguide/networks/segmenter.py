"""Segmenters in two builds: what every pixel shows."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symguide.networks.saveable import saveable


def _layer(width_in: int, width: int, activation: type[nn.Module], dilation: int = 1, groups: int = 8) -> nn.Module:
    conv = nn.Conv2d(width_in, width, 3, padding=dilation, dilation=dilation)
    return nn.Sequential(conv, nn.GroupNorm(groups, width), activation())


@saveable
class PyramidSegmenter(nn.Module):
    """Down to a quarter and up again, with the finer levels added on the way up; smooth everywhere.

    Args:
        in_channels: channels of x.
        channels: width of every level, finest first.
        classes: number of logits of a pixel.
    """

    def __init__(self, in_channels: int = 3, channels: Sequence[int] = (24, 48, 96), classes: int = 7) -> None:
        super().__init__()
        self.down, self.across = nn.ModuleList(), nn.ModuleList()
        last = in_channels
        for width in channels:
            self.down.append(nn.Sequential(_layer(last, width, nn.SiLU), _layer(width, width, nn.SiLU)))
            self.across.append(nn.Conv2d(width, channels[0], 1))
            last = width
        self.up = nn.ModuleList(_layer(channels[0], channels[0], nn.SiLU) for _ in channels)
        self.output = nn.Conv2d(channels[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B, C, H, W) -> (B, classes, H, W); H and W multiples of 2^(levels - 1)."""
        levels = []
        for level, stage in enumerate(self.down):
            x = stage(nn.functional.avg_pool2d(x, 2) if level else x)
            levels.append(x)
        h = torch.zeros_like(self.across[-1](levels[-1]))
        for level in reversed(range(len(levels))):
            h = self.up[level](self.across[level](levels[level]) + h)
            if level:
                h = nn.functional.interpolate(h, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.output(h)


@saveable
class DilatedSegmenter(nn.Module):
    """One resolution, half of the picture's, and ever wider dilations; rectifiers.

    Args:
        in_channels: channels of x.
        width: of all layers.
        dilations: of the layers, in order.
        classes: number of logits of a pixel.
    """

    def __init__(
        self, in_channels: int = 3, width: int = 48, dilations: Sequence[int] = (1, 2, 4, 2, 1), classes: int = 7
    ) -> None:
        super().__init__()
        self.input = _layer(4 * in_channels, width, nn.ReLU)
        self.body = nn.ModuleList(_layer(width, width, nn.ReLU, dilation) for dilation in dilations)
        self.output = nn.Conv2d(width, 4 * classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B, C, H, W) -> (B, classes, H, W); H and W even."""
        h = self.input(nn.functional.pixel_unshuffle(x, 2))
        for layer in self.body:
            h = h + layer(h)
        return nn.functional.pixel_shuffle(self.output(h), 2)
