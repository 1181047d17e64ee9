"""A small U-Net: what the embedded pixel models are made of."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from symguide.errors import ConfigError
from symguide.networks.attention import SelfAttention


def sinusoids(timestep: Tensor, width: int, longest: float = 10_000.0) -> Tensor:
    """(cos(w_k t), sin(w_k t)) with w_k = longest^(-2k / width): (B,) -> (B, width), at least float32 inside and out.

    >>> sinusoids(torch.tensor([0.0]), 4)
    tensor([[1., 1., 0., 0.]])
    """
    wide = timestep.to(torch.promote_types(timestep.dtype, torch.float32))
    places = torch.arange(width // 2, dtype=wide.dtype, device=wide.device)
    angles = wide[:, None] * torch.exp(-math.log(longest) * places / (width // 2))
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class _Residual(nn.Module):
    """x + conv(silu(film(norm(conv(silu(norm(x))))))), where the embedding gives film's scale and shift."""

    def __init__(self, width_in: int, width: int, embedding: int, groups: int, dropout: float, attention: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, width_in), nn.Conv2d(width_in, width, 3, padding=1)
        self.film = nn.Linear(embedding, 2 * width)
        self.norm2, self.conv2 = nn.GroupNorm(groups, width), nn.Conv2d(width, width, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()
        self.norm3 = nn.GroupNorm(groups, width) if attention else None
        self.attention = SelfAttention(width, attention) if attention else None
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.film(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(nn.functional.silu(self.norm1(x)))
        h = nn.functional.silu(self.norm2(h) * (1 + scale) + shift)
        h = self.skip(x) + self.conv2(self.dropout(h))
        if self.norm3 is None or self.attention is None:
            return h
        tokens = self.norm3(h).flatten(2).transpose(1, 2)
        return h + self.attention(tokens).transpose(1, 2).reshape(h.shape)


class UNet(nn.Module):
    """A U-Net that is told the noise level and, where it has classes, a label.

    Every level has `blocks` residual blocks on the way down and one more on the way up; between levels the sides are
    halved. All normalisation is within a sample, so results do not depend on the batch.

    Args:
        in_channels: channels of x.
        channels: width of every level, finest first.
        blocks: residual blocks of a level on the way down.
        classes: number of labels; label == classes means "no label". None makes the network unconditional.
        attention: for every level, whether its blocks attend over all positions.
        heads: attention heads.
        groups: groups of every GroupNorm; divides all widths.
        dropout: rate inside the blocks while training.

    Raises:
        ConfigError: for arguments that do not fit together, inputs of the wrong shape, and a label for a network
            without classes.
    """

    def __init__(
        self,
        in_channels: int = 1,
        channels: Sequence[int] = (48, 96),
        blocks: int = 1,
        classes: int | None = None,
        attention: Sequence[bool] = (False, True),
        heads: int = 4,
        groups: int = 8,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {
            "in_channels": in_channels,
            "channels": list(channels),
            "blocks": blocks,
            "classes": classes,
            "attention": list(attention),
            "heads": heads,
            "groups": groups,
            "dropout": dropout,
        }
        if not channels or len(attention) != len(channels):
            raise ConfigError(
                f"attention needs one flag for each of the {len(channels)} channels, not {len(attention)}"
            )
        if channels[0] % 2:
            raise ConfigError(f"the first of channels must be even, as it counts cosines and sines, not {channels[0]}")
        if any(width % groups for width in channels):
            raise ConfigError(f"groups ({groups}) must divide every width of channels {list(channels)}")
        self.in_channels, self.classes, self.factor = in_channels, classes, 2 ** (len(channels) - 1)
        base, wide = channels[0], 4 * channels[0]
        self.time = nn.Sequential(nn.Linear(base, wide), nn.SiLU(), nn.Linear(wide, wide))
        self.label = nn.Embedding(classes + 1, wide) if classes is not None else None
        self.input = nn.Conv2d(in_channels, base, 3, padding=1)

        def block(width_in: int, width: int, attend: bool) -> _Residual:
            return _Residual(width_in, width, wide, groups, dropout, heads if attend else 0)

        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.shrink, self.grow = nn.ModuleList(), nn.ModuleList()
        width, skips = base, [base]
        for level, (target, attend) in enumerate(zip(channels, attention, strict=True)):
            stage = nn.ModuleList()
            for _ in range(blocks):
                stage.append(block(width, target, attend))
                width = target
                skips.append(width)
            self.down.append(stage)
            if level < len(channels) - 1:
                self.shrink.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                skips.append(width)
        self.middle = nn.ModuleList([block(width, width, attention[-1]), block(width, width, False)])
        for target, attend in zip(reversed(channels), reversed(attention), strict=True):
            stage = nn.ModuleList()
            for _ in range(blocks + 1):
                stage.append(block(width + skips.pop(), target, attend))
                width = target
            self.up.append(stage)
            if len(self.up) < len(channels):
                self.grow.append(nn.Conv2d(width, width, 3, padding=1))
        self.norm = nn.GroupNorm(groups, width)
        self.output = nn.Conv2d(width, in_channels, 3, padding=1)
        nn.init.zeros_(self.output.weight)

    def forward(self, x: Tensor, timestep: Tensor, label: Tensor | None = None) -> Tensor:
        """The network's output, shaped as x.

        Args:
            x: noisy samples, (B, in_channels, H, W), with sides that can be halved between all levels.
            timestep: noise level in 0..1000, (B,), or one number for all.
            label: class of every sample, (B,) integers 0..classes; None means the null label for all.
        """
        self._check(x, timestep, label)
        embedding = self._embed(timestep, label, len(x))
        h: Tensor = self.input(x)
        skips = [h]
        for level, stage in enumerate(self.down):
            for block in stage:  # type: ignore[attr-defined]
                h = block(h, embedding)
                skips.append(h)
            if level < len(self.shrink):
                h = self.shrink[level](h)
                skips.append(h)
        for block in self.middle:
            h = block(h, embedding)
        for level, stage in enumerate(self.up):
            for block in stage:  # type: ignore[attr-defined]
                h = block(torch.cat([h, skips.pop()], dim=1), embedding)
            if level < len(self.grow):
                h = self.grow[level](nn.functional.interpolate(h, scale_factor=2.0, mode="nearest"))
        return self.output(nn.functional.silu(self.norm(h)))

    def _embed(self, timestep: Tensor, label: Tensor | None, count: int) -> Tensor:
        """silu(time + label), (count, 4 * channels[0])."""
        sines = sinusoids(timestep.expand(count), self.input.out_channels)
        embedding: Tensor = self.time(sines.to(self.input.weight.dtype))
        if self.label is not None:
            if label is None:
                label = torch.full((count,), self.label.num_embeddings - 1, device=self.input.weight.device)
            embedding = embedding + self.label(label.long())
        return nn.functional.silu(embedding)

    def _check(self, x: Tensor, timestep: Tensor, label: Tensor | None) -> None:
        if x.ndim != 4 or x.shape[1] != self.in_channels or x.shape[2] % self.factor or x.shape[3] % self.factor:
            raise ConfigError(
                f"this network takes x of shape (B, {self.in_channels}, H, W) with H and W multiples of {self.factor},"
                f" not {tuple(x.shape)}"
            )
        count = len(x)
        if timestep.shape not in ((), (1,), (count,)):
            raise ConfigError(f"timestep must be of shape ({count},), one for each sample, not {tuple(timestep.shape)}")
        if label is None:
            return
        if self.classes is None:
            raise ConfigError("this network has no classes: call it without a label")
        if label.shape != (count,) or label.is_floating_point() or label.is_complex():
            raise ConfigError(
                f"label must be {count} integers, one for each sample, not {label.dtype} of shape {tuple(label.shape)}"
            )
        if count and not 0 <= label.min() <= label.max() <= self.classes:
            raise ConfigError(
                f"labels must be within 0..{self.classes} ({self.classes} is none), not {label.min()}..{label.max()}"
            )
