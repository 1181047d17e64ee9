"""A generator: one call from a vector of noise to a picture."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from symguide.errors import ConfigError


class _Level(nn.Module):
    """silu(norm(conv(x))) twice."""

    def __init__(self, width_in: int, width: int, groups: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for last in (width_in, width):
            layers += [nn.Conv2d(last, width, 3, padding=1), nn.GroupNorm(groups, width), nn.SiLU()]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out


class Generator(nn.Module):
    """G: z ~ N(0, I) -> a picture, as the generator of a GAN or the decoder of a VAE.

    A linear layer makes a small map of z; every level doubles its sides but the first; the finest map becomes pixels in
    blocks of 2 x 2. All normalisation is within a sample, so pictures do not depend on the batch.

    Args:
        latent: numbers of z.
        out_channels: channels of pictures.
        size: height and width of pictures, 2^levels times a whole number.
        channels: width of every level, coarsest first.
        groups: groups of every GroupNorm; divides all channels.

    Raises:
        ConfigError: where size cannot be halved so often, and for z of the wrong shape.

    >>> Generator(latent=8, size=16, channels=(16, 8))(torch.zeros(2, 8)).shape
    torch.Size([2, 3, 16, 16])
    """

    def __init__(
        self,
        latent: int = 64,
        out_channels: int = 3,
        size: int = 32,
        channels: Sequence[int] = (96, 64, 48),
        groups: int = 8,
    ) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {
            "latent": latent,
            "out_channels": out_channels,
            "size": size,
            "channels": list(channels),
            "groups": groups,
        }
        if size % 2 ** len(channels):
            raise ConfigError(f"size ({size}) must be a multiple of {2 ** len(channels)} for {len(channels)} levels")
        self.latent, self.side = latent, size // 2 ** len(channels)
        self.input = nn.Linear(latent, channels[0] * self.side**2)
        widths = zip([channels[0], *channels], channels, strict=False)
        self.levels = nn.ModuleList(_Level(last, width, groups) for last, width in widths)
        self.output = nn.Conv2d(channels[-1], 4 * out_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """z (B, latent) -> pictures (B, out_channels, size, size), about [-1, 1] and not clamped."""
        if z.ndim != 2 or z.shape[1] != self.latent:
            raise ConfigError(f"this generator takes z of shape (B, {self.latent}), not {tuple(z.shape)}")
        h: Tensor = self.input(z).unflatten(1, (-1, self.side, self.side))
        for index, level in enumerate(self.levels):
            h = level(nn.functional.interpolate(h, scale_factor=2.0, mode="nearest") if index else h)
        return nn.functional.pixel_shuffle(self.output(h), 2)
