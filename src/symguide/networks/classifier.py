"""Classifiers in three builds, so that one can guide and another, which guidance never sees, can judge."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from symguide.errors import ConfigError, unknown
from symguide.networks.attention import TokenBlock
from symguide.networks.saveable import saveable
from symguide.networks.unet import Residual, sinusoids


class Heads(nn.Module):
    """A classifier of several attributes: its logits are the heads' side by side.

    Args:
        heads: names and logits of the attributes, in order; none where the logits are one attribute's.
        classes: number of logits where there are no heads.
    """

    head: nn.Module
    """From features to logits."""

    def __init__(self, heads: Mapping[str, int] | None, classes: int) -> None:
        super().__init__()
        self.heads = dict(heads or {})
        self.classes = sum(self.heads.values()) or classes

    def features(self, x: Tensor) -> Tensor:
        """The vector before the last nonlinearity, (B, C, H, W) -> (B, width)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B, C, H, W) -> (B, classes)."""
        return self.head(self.features(x))

    def attribute(self, x: Tensor, name: str) -> Tensor:
        """Logits of one head, (B, C, H, W) -> (B, heads[name]).

        Raises:
            ConfigError: for an unknown head.
        """
        if name not in self.heads:
            raise unknown("head", name, self.heads)
        return self.split(self(x))[name]

    def split(self, logits: Tensor) -> dict[str, Tensor]:
        """Logits (B, classes) by head."""
        parts = torch.split(logits, list(self.heads.values()), dim=1)
        return dict(zip(self.heads, parts, strict=True))


@saveable
class ConvClassifier(Heads):
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
        heads: names and logits of several attributes, in place of `classes`.

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
        heads: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(heads, classes)
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
        self.head = nn.Sequential(nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, self.classes))

    def maps(self, x: Tensor) -> list[Tensor]:
        """What every level ends with, finest first: (B, channels[l], size / 2^l, size / 2^l)."""
        out = []
        for layer in list(self.body)[:-1]:  # the last one flattens
            if isinstance(layer, nn.AvgPool2d):
                out.append(x)
            x = layer(x)
        return [*out, x]

    def features(self, x: Tensor) -> Tensor:
        """The vector before the last nonlinearity, (B, C, size, size) -> (B, width)."""
        return self.project(self.body(x))

    def read(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits of what `maps` gave, (B, classes)."""
        return self.head(self.project(maps[-1].flatten(1)))


class _Block(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x))))))."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(groups, width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(groups, width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x))))))


@saveable
class ResidualClassifier(Heads):
    """A residual network with strides and rectifiers, told where every pixel is, and averaged over all positions.

    All levels are averaged, and the first layer is not normalised, because normalisation within a sample takes away
    most of what a colour that fills the picture leaves.

    Args:
        in_channels: channels of x.
        channels: width of every level; the first is half as large as x, every further one half as large again.
        blocks: residual blocks of a level.
        classes: number of logits.
        width: of the feature vector.
        groups: groups of every GroupNorm; divides all channels.
        dropout: rate on the features while training.
        heads: names and logits of several attributes, in place of `classes`.
    """

    def __init__(
        self,
        in_channels: int = 3,
        channels: Sequence[int] = (32, 64, 96),
        blocks: int = 1,
        classes: int = 10,
        width: int = 64,
        groups: int = 8,
        dropout: float = 0.0,
        heads: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(heads, classes)
        self.levels = nn.ModuleList()
        last = in_channels + 2
        for level, channel in enumerate(channels):
            shrink = nn.Conv2d(last, channel, 3 if level else 4, stride=2, padding=1)
            norm = nn.GroupNorm(groups, channel) if level else nn.Identity()
            body = (_Block(channel, groups) for _ in range(blocks))
            self.levels.append(nn.Sequential(shrink, norm, nn.ReLU(), *body))
            last = channel
        self.project = nn.Linear(sum(channels), width)
        self.head = nn.Sequential(nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, self.classes))

    def maps(self, x: Tensor) -> list[Tensor]:
        """What every level ends with, finest first: (B, channels[l], H / 2^(l+1), W / 2^(l+1))."""
        rows, columns = (torch.linspace(-1, 1, side, dtype=x.dtype, device=x.device) for side in x.shape[2:])
        places = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).expand(len(x), -1, -1, -1)
        x, out = torch.cat([x, places], dim=1), []
        for level in self.levels:
            x = level(x)
            out.append(x)
        return out

    def features(self, x: Tensor) -> Tensor:
        """The vector before the last nonlinearity, (B, C, H, W) -> (B, width)."""
        return self._pooled(self.maps(x))

    def _pooled(self, maps: Sequence[Tensor]) -> Tensor:
        return self.project(torch.cat([level.mean(dim=(2, 3)) for level in maps], dim=1))

    def read(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits of what `maps` gave, (B, classes)."""
        return self.head(self._pooled(maps))


@saveable
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
        if size % patch:
            raise ConfigError(f"patch ({patch}) must divide size ({size})")
        self.patches = nn.Conv2d(in_channels, width, patch, stride=patch)
        self.places = nn.Parameter(0.02 * torch.randn((size // patch) ** 2, width))
        self.blocks = nn.Sequential(*(TokenBlock(width, heads) for _ in range(depth)))
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


@saveable
class TimedClassifier(nn.Module):
    """A classifier of noisy pictures that is told the noise level: the U-Net's way down, averaged over all positions.

    Args:
        in_channels: channels of x.
        channels: width of every level, finest first; sides are halved between levels.
        blocks: residual blocks of a level.
        classes: number of logits.
        groups: groups of every GroupNorm; divides all channels.
        dropout: rate inside the blocks while training.

    Raises:
        ConfigError: where channels are none, the first is odd, or groups does not divide them.

    Source: as the classifiers of Dhariwal & Nichol, 2105.05233, section 4.1, which are their U-Net's way down too.
    """

    def __init__(
        self,
        in_channels: int = 1,
        channels: Sequence[int] = (32, 48),
        blocks: int = 1,
        classes: int = 10,
        groups: int = 8,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not channels or channels[0] % 2 or any(width % groups for width in channels):
            raise ConfigError(
                f"channels must be one width for each level, the first even, all multiples of groups ({groups}), not "
                f"{list(channels)}"
            )
        base, wide = channels[0], 4 * channels[0]
        self.time = nn.Sequential(nn.Linear(base, wide), nn.SiLU(), nn.Linear(wide, wide))
        self.input = nn.Conv2d(in_channels, base, 3, padding=1)
        self.levels = nn.ModuleList()
        last = base
        for width in channels:
            stage = nn.ModuleList()
            for _ in range(blocks):
                stage.append(Residual(last, width, wide, groups, dropout, 0))
                last = width
            self.levels.append(stage)
        self.norm, self.head = nn.GroupNorm(groups, last), nn.Linear(last, classes)

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        """Logits, (B, C, H, W) and (B,) -> (B, classes)."""
        sines = sinusoids(timestep, self.input.out_channels).to(x.dtype)
        embedding, h = nn.functional.silu(self.time(sines)), self.input(x)
        for level, stage in enumerate(self.levels):
            h = nn.functional.avg_pool2d(h, 2) if level else h
            for block in stage:  # type: ignore[attr-defined]
                h = block(h, embedding)
        return self.head(nn.functional.silu(self.norm(h)).mean(dim=(2, 3)))
