"""A small U-Net: what the embedded pixel models are made of."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symguide.errors import ConfigError
from symguide.networks.attention import CrossAttention, SelfAttention
from symguide.networks.saveable import saveable


def sinusoids(timestep: Tensor, width: int, longest: float = 10_000.0) -> Tensor:
    """(cos(w_k t), sin(w_k t)) with w_k = longest^(-2k / width): (B,) -> (B, width), at least float32 inside and out.

    >>> sinusoids(torch.tensor([0.0]), 4)
    tensor([[1., 1., 0., 0.]])
    """
    wide = timestep.to(torch.promote_types(timestep.dtype, torch.float32))
    places = torch.arange(width // 2, dtype=wide.dtype, device=wide.device)
    angles = wide[:, None] * torch.exp(-math.log(longest) * places / (width // 2))
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class Residual(nn.Module):
    """x + conv(silu(film(norm(conv(silu(norm(x))))))), where the embedding gives film's scale and shift.

    Where it attends, its pixels then attend to each other and, where there is a context, to the context's tokens.
    """

    def __init__(
        self,
        width_in: int,
        width: int,
        embedding: int,
        groups: int,
        dropout: float,
        attention: int,
        context: int | None = None,
    ) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, width_in), nn.Conv2d(width_in, width, 3, padding=1)
        self.film = nn.Linear(embedding, 2 * width)
        self.norm2, self.conv2 = nn.GroupNorm(groups, width), nn.Conv2d(width, width, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()
        self.norm3 = nn.GroupNorm(groups, width) if attention else None
        self.attention = SelfAttention(width, attention) if attention else None
        self.norm4 = nn.LayerNorm(width) if attention and context else None
        self.cross = CrossAttention(width, context, attention) if attention and context else None
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor | None = None) -> Tensor:
        scale, shift = self.film(embedding)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(nn.functional.silu(self.norm1(x)))
        h = nn.functional.silu(self.norm2(h) * (1 + scale) + shift)
        h = self.skip(x) + self.conv2(self.dropout(h))
        if self.norm3 is None or self.attention is None:
            return h
        tokens = self.attention(self.norm3(h).flatten(2).transpose(1, 2))
        h = h + tokens.transpose(1, 2).reshape(h.shape)
        if self.norm4 is None or self.cross is None:
            return h
        tokens = self.cross(self.norm4(h.flatten(2).transpose(1, 2)), context)
        return h + tokens.transpose(1, 2).reshape(h.shape)


class Trunk(nn.Module):
    """What the U-Nets share: all but the embedding of time and condition.

    Every level has `blocks` residual blocks on the way down and one more on the way up; the sides are halved between
    levels. All normalisation is within a sample, so results do not depend on the batch.

    Args:
        in_channels: channels in and out.
        channels: width of every level, finest first; the embedding is 4 * channels[0] wide.
        blocks: residual blocks of a level on the way down.
        attention: for every level, whether its blocks attend over all positions.
        heads: attention heads.
        groups: groups of every GroupNorm; divides all widths.
        dropout: rate inside the blocks while training.
        context: width of the tokens that the attending blocks also attend to, None for none.
        lean: skips from the residual blocks alone, so as many blocks on the way up as down, and levels that grow after
            their convolution instead of before: six tenths of the multiplications.

    Raises:
        ConfigError: for arguments that do not fit together.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        blocks: int,
        attention: Sequence[bool],
        heads: int,
        groups: int,
        dropout: float,
        context: int | None = None,
        lean: bool = False,
    ) -> None:
        super().__init__()
        if not channels or len(attention) != len(channels):
            raise ConfigError(
                f"attention needs one flag for each of the {len(channels)} channels, not {len(attention)}"
            )
        if channels[0] % 2:
            raise ConfigError(f"the first of channels must be even, as it counts cosines and sines, not {channels[0]}")
        if any(width % groups for width in channels):
            raise ConfigError(f"groups ({groups}) must divide every width of channels {list(channels)}")
        self.factor, self.lean = 2 ** (len(channels) - 1), lean
        base, wide = channels[0], 4 * channels[0]
        self.time = nn.Sequential(nn.Linear(base, wide), nn.SiLU(), nn.Linear(wide, wide))
        self.input = nn.Conv2d(in_channels, base, 3, padding=1)

        def block(width_in: int, width: int, attend: bool) -> Residual:
            return Residual(width_in, width, wide, groups, dropout, heads if attend else 0, context)

        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.shrink, self.grow = nn.ModuleList(), nn.ModuleList()
        width, skips = base, [] if lean else [base]
        for level, (target, attend) in enumerate(zip(channels, attention, strict=True)):
            stage = nn.ModuleList()
            for _ in range(blocks):
                stage.append(block(width, target, attend))
                width = target
                skips.append(width)
            self.down.append(stage)
            if level < len(channels) - 1:
                self.shrink.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                skips += [] if lean else [width]
        self.middle = nn.ModuleList([block(width, width, attention[-1]), block(width, width, False)])
        for target, attend in zip(reversed(channels), reversed(attention), strict=True):
            stage = nn.ModuleList()
            for _ in range(blocks if lean else blocks + 1):
                stage.append(block(width + skips.pop(), target, attend))
                width = target
            self.up.append(stage)
            if len(self.up) < len(channels):
                self.grow.append(nn.Conv2d(width, width, 3, padding=1))
        self.norm = nn.GroupNorm(groups, width)
        self.output = nn.Conv2d(width, in_channels, 3, padding=1)
        nn.init.zeros_(self.output.weight)

    def run(self, x: Tensor, embedding: Tensor, context: Tensor | None = None, hint: Tensor | None = None) -> Tensor:
        """x (B, in_channels, H, W), embedding (B, 4 * channels[0]), context (B, M, context) -> the shape of x.

        A hint (B, channels[0], H, W) is added to what the first convolution makes of x.
        """
        h: Tensor = self.input(x) if hint is None else self.input(x) + hint
        skips = [] if self.lean else [h]
        for level, stage in enumerate(self.down):
            for block in stage:  # type: ignore[attr-defined]
                h = block(h, embedding, context)
                skips.append(h)
            if level < len(self.shrink):
                h = self.shrink[level](h)
                skips += [] if self.lean else [h]
        for block in self.middle:
            h = block(h, embedding, context)
        for level, stage in enumerate(self.up):
            for block in stage:  # type: ignore[attr-defined]
                h = block(torch.cat([h, skips.pop()], dim=1), embedding, context)
            if level < len(self.grow):
                h = self._grown(h, self.grow[level])
        return self.output(nn.functional.silu(self.norm(h)))

    def _grown(self, h: Tensor, conv: nn.Module) -> Tensor:
        h = conv(h) if self.lean else h
        h = nn.functional.interpolate(h, scale_factor=2.0, mode="nearest")
        return h if self.lean else conv(h)

    def embed_time(self, timestep: Tensor, count: int) -> Tensor:
        """(), (1,) or (count,) -> (count, 4 * channels[0])."""
        sines = sinusoids(timestep.expand(count), self.input.out_channels)
        return self.time(sines.to(self.input.weight.dtype))

    def check(self, x: Tensor, timestep: Tensor, channels: int, factor: int) -> None:
        """Raise ConfigError for x of another number of channels, sides no multiple of factor, or a foreign timestep."""
        if x.ndim != 4 or x.shape[1] != channels or x.shape[2] % factor or x.shape[3] % factor:
            raise ConfigError(
                f"this network takes x of shape (B, {channels}, H, W) with H and W multiples of {factor},"
                f" not {tuple(x.shape)}"
            )
        if timestep.shape not in ((), (1,), (len(x),)):
            raise ConfigError(
                f"timestep must be of shape ({len(x)},), one for each sample, not {tuple(timestep.shape)}"
            )


def labels(given: Tensor, count: int, none: int, what: str) -> Tensor:
    """A label for each of `count` samples, 0..none; ConfigError for anything else.

    Asking a GPU for their values would wait for it, and a compiled network would fall apart: there the embedding's own
    check has to do.
    """
    if given.shape != (count,) or given.is_floating_point() or given.is_complex():
        raise ConfigError(
            f"{what} must be {count} integers, one for each sample, not {given.dtype} of shape {tuple(given.shape)}"
        )
    looked_at = given.device.type == "cpu" and not torch.compiler.is_compiling()
    if count and looked_at and not 0 <= given.min() <= given.max() <= none:
        raise ConfigError(f"{what}s must be within 0..{none} ({none} is none), not {given.min()}..{given.max()}")
    return given.long()


@saveable
class UNet(Trunk):
    """A U-Net that is told the noise level and, where it has classes, a label.

    Args:
        in_channels: channels of x.
        channels: width of every level, finest first.
        blocks: residual blocks of a level on the way down; one more on the way up.
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
        super().__init__(in_channels, channels, blocks, attention, heads, groups, dropout)
        self.in_channels, self.classes = in_channels, classes
        self.label = nn.Embedding(classes + 1, 4 * channels[0]) if classes is not None else None

    def forward(self, x: Tensor, timestep: Tensor, label: Tensor | None = None) -> Tensor:
        """The network's output, shaped as x.

        Args:
            x: noisy samples, (B, in_channels, H, W), with sides that can be halved between all levels.
            timestep: noise level in 0..1000, (B,), or one number for all.
            label: class of every sample, (B,) integers 0..classes; None means the null label for all.
        """
        self.check(x, timestep, self.in_channels, self.factor)
        embedding = self.embed_time(timestep, len(x))
        if self.label is not None:
            null = torch.full((len(x),), self.label.num_embeddings - 1, device=x.device)
            embedding = embedding + self.label(
                null if label is None else labels(label, len(x), self.classes or 0, "label")
            )
        elif label is not None:
            raise ConfigError("this network has no classes: call it without a label")
        return self.run(x, nn.functional.silu(embedding))
