"""Classifiers in two builds, so that one can guide and another, which guidance never sees, can judge."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from symguide.errors import ConfigError
from symguide.networks.attention import SelfAttention


class ConvClassifier(nn.Module):
    """Convolutions, GroupNorm and SiLU; one level for each width, with sides halved by average pooling in between.

    Smooth everywhere, so that its gradient with respect to the image is of use to guidance.

    Args:
        in_channels: channels of x.
        size: height and width of x; halved between levels.
        channels: width of every level.
        classes: number of logits.
        width: of the feature vector.
        groups: groups of every GroupNorm; divides all channels.
        dropout: rate on the features while training.

    Raises:
        ConfigError: where size cannot be halved between all levels.
    """

    def __init__(
        self,
        in_channels: int = 1,
        size: int = 8,
        channels: Sequence[int] = (32, 64),
        classes: int = 10,
        width: int = 64,
        groups: int = 8,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {
            "in_channels": in_channels,
            "size": size,
            "channels": list(channels),
            "classes": classes,
            "width": width,
            "groups": groups,
            "dropout": dropout,
        }
        factor = 2 ** (len(channels) - 1)
        if size % factor:
            raise ConfigError(f"size ({size}) must be a multiple of {factor} for {len(channels)} levels")
        layers: list[nn.Module] = []
        last = in_channels
        for level, channel in enumerate(channels):
            layers += [nn.AvgPool2d(2)] if level else []
            for _ in range(2):
                layers += [nn.Conv2d(last, channel, 3, padding=1), nn.GroupNorm(groups, channel), nn.SiLU()]
                last = channel
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.project = nn.Linear(last * (size // factor) ** 2, width)
        self.head = nn.Sequential(nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, classes))

    def features(self, x: Tensor) -> Tensor:
        """The vector before the last nonlinearity, (B, C, size, size) -> (B, width)."""
        return self.project(self.body(x))

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B, C, size, size) -> (B, classes)."""
        return self.head(self.features(x))


class _TokenBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class TokenClassifier(nn.Module):
    """A small vision transformer: patches become tokens, which attend to each other and are averaged.

    Args:
        in_channels: channels of x.
        size: height and width of x.
        patch: sides of a patch; divides size.
        width: of the tokens, and of the feature vector.
        depth: transformer blocks.
        heads: attention heads; divides width.
        classes: number of logits.
        dropout: rate on the features while training.

    Raises:
        ConfigError: where patch does not divide size or heads do not divide width.
    """

    def __init__(
        self,
        in_channels: int = 1,
        size: int = 8,
        patch: int = 2,
        width: int = 64,
        depth: int = 3,
        heads: int = 4,
        classes: int = 10,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {
            "in_channels": in_channels,
            "size": size,
            "patch": patch,
            "width": width,
            "depth": depth,
            "heads": heads,
            "classes": classes,
            "dropout": dropout,
        }
        if size % patch:
            raise ConfigError(f"patch ({patch}) must divide size ({size})")
        self.patches = nn.Conv2d(in_channels, width, patch, stride=patch)
        self.places = nn.Parameter(0.02 * torch.randn((size // patch) ** 2, width))
        self.blocks = nn.Sequential(*(_TokenBlock(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, width)
        self.head = nn.Sequential(nn.GELU(), nn.Dropout(dropout), nn.Linear(width, classes))

    def features(self, x: Tensor) -> Tensor:
        """The vector before the last nonlinearity, (B, C, size, size) -> (B, width)."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        return self.project(self.norm(self.blocks(tokens)).mean(dim=1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B, C, size, size) -> (B, classes)."""
        return self.head(self.features(x))
