"""A small autoencoder: pictures to latents a quarter as large and back, as the latent diffusion models have it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symguide.networks.saveable import saveable


class _Block(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1)]
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


@saveable
class Autoencoder(nn.Module):
    """Encoder and decoder without sampling; a quarter of the sides, `latent` channels, about unit variance.

    Args:
        in_channels: channels of pictures.
        latent: channels of latents.
        channels: width at half and at a quarter of the sides.
        blocks: residual blocks at each.

    Source: the layout of Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2112.10752.
    """

    def __init__(
        self, in_channels: int = 3, latent: int = 4, channels: Sequence[int] = (32, 64), blocks: int = 1
    ) -> None:
        super().__init__()
        fine, coarse = channels
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * in_channels, fine, 3, padding=1),
            *(_Block(fine) for _ in range(blocks)),
            nn.Conv2d(fine, coarse, 3, stride=2, padding=1),
            *(_Block(coarse) for _ in range(blocks)),
            nn.GroupNorm(8, coarse),
            nn.SiLU(),
            nn.Conv2d(coarse, latent, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(latent, coarse, 3, padding=1),
            *(_Block(coarse) for _ in range(blocks)),
            nn.Conv2d(coarse, 4 * fine, 1),
            nn.PixelShuffle(2),
            *(_Block(fine) for _ in range(blocks)),
            nn.GroupNorm(8, fine),
            nn.SiLU(),
            nn.Conv2d(fine, 4 * in_channels, 3, padding=1),
            nn.PixelShuffle(2),
        )
        self.register_buffer("mean", torch.zeros(1, latent, 1, 1))
        self.register_buffer("deviation", torch.ones(1, latent, 1, 1))
        self.mean: Tensor
        self.deviation: Tensor

    def encode(self, x: Tensor) -> Tensor:
        """Pictures (B, in_channels, H, W) in [-1, 1] -> latents (B, latent, H / 4, W / 4) of about unit variance."""
        return (self.encoder(x) - self.mean) / self.deviation

    def decode(self, z: Tensor) -> Tensor:
        """Latents (B, latent, h, w) -> pictures (B, in_channels, 4 h, 4 w), about [-1, 1] and not clamped."""
        return self.decoder(z * self.deviation + self.mean)

    def forward(self, x: Tensor) -> Tensor:
        """decode(encode(x))."""
        return self.decode(self.encode(x))
