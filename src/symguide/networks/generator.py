"""Generators: one call from a vector of noise to a picture."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from symguide.errors import ConfigError
from symguide.networks.saveable import saveable


@saveable
class Generator(nn.Module):
    """G: z ~ N(0, I) -> a picture, every pixel made of z and of where it is, and of no other pixel.

        h_0 = silu(A(z) (x, y, 1)),    h_l = silu((1 + a_l(z)) W_l h_{l-1} + b_l(z)),    pixel = V h_L

    A(z) can move, turn and scale the picture's coordinates; a_l and b_l say what is drawn there.

    Args:
        latent: numbers of z.
        choices: sizes of groups that z begins with, of which the largest number is what counts: softmax(4 z) of each
            goes in beside z.
        out_channels: channels of pictures.
        size: height and width of pictures.
        width: of the layers.
        depth: layers after the first.

    Raises:
        ConfigError: for choices that are more than z, and for z of the wrong shape.

    Source: Anokhin et al., "Image Generators with Conditionally-Independent Pixel Synthesis", 2011.13775; without its
    fixed Fourier features.

    >>> Generator(latent=8, size=16)(torch.zeros(2, 8)).shape
    torch.Size([2, 3, 16, 16])
    """

    def __init__(
        self,
        latent: int = 64,
        choices: Sequence[int] = (),
        out_channels: int = 3,
        size: int = 32,
        width: int = 64,
        depth: int = 3,
    ) -> None:
        super().__init__()
        if sum(choices) > latent:
            raise ConfigError(f"choices are {sum(choices)} numbers, more than the latent's {latent}")
        self.latent, self.choices, self.size, self.width = latent, list(choices), size, width
        wide = 4 * width
        self.read = nn.Sequential(
            *(nn.Linear(latent + sum(choices), wide), nn.SiLU(), nn.Linear(wide, wide), nn.SiLU()),
            nn.Linear(wide, width * (3 + 2 * depth)),
        )
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.output = nn.Linear(width, out_channels)

    def at(self, z: Tensor, places: Tensor) -> Tensor:
        """The pixels of z (B, latent) at places (P, 2), (x, y) from -1 to 1: (B, out_channels, P)."""
        if z.ndim != 2 or z.shape[1] != self.latent:
            raise ConfigError(f"this generator takes z of shape (B, {self.latent}), not {tuple(z.shape)}")
        groups = torch.split(z[:, : sum(self.choices)], self.choices, dim=1)
        seen = torch.cat([z, *((4 * group).softmax(dim=1) for group in groups)], dim=1)
        first, *rest = self.read(seen).split([3 * self.width, *[2 * self.width] * len(self.layers)], dim=1)
        affine = first.unflatten(1, (3, self.width))
        h = nn.functional.silu(places @ affine[:, :2] + affine[:, 2:])  # (B, P, width)
        for layer, film in zip(self.layers, rest, strict=True):
            scale, shift = film[:, None].chunk(2, dim=2)
            h = nn.functional.silu((1 + scale) * layer(h) + shift)
        pixels: Tensor = self.output(h).transpose(1, 2)
        return pixels

    def places(self, like: Tensor) -> Tensor:
        """Where the pixels are, row by row, (size², 2)."""
        line = torch.linspace(-1, 1, self.size, dtype=like.dtype, device=like.device)
        y, x = torch.meshgrid(line, line, indexing="ij")
        return torch.stack([x, y], dim=-1).flatten(0, 1)

    def forward(self, z: Tensor) -> Tensor:
        """z (B, latent) -> pictures (B, out_channels, size, size), about [-1, 1] and not clamped."""
        return self.at(z, self.places(z)).reshape(len(z), -1, self.size, self.size)


@saveable
class LayeredGenerator(nn.Module):
    """G: z ~ N(0, I) -> a picture of two plain layers, of which a mask shows the one or the other.

        pixel = m a + (1 - m) b,    m = sigmoid(4 G_1(z)(x, y) - 1),    (a, b) = colours(z)

    G_1 is a `Generator` of one channel, so the mask's outline has no pixels of its own and is sharp at every place.

    Args:
        latent: numbers of z.
        out_channels: channels of pictures.
        size: height and width of pictures.
        width: of the mask's layers.
        depth: of the mask's layers after the first.
        hidden: width of the layers that choose the colours.

    Raises:
        ConfigError: for z of the wrong shape.

    Source: Yang et al., "LR-GAN: Layered Recursive Generative Adversarial Networks for Image Generation", 1703.01560,
    with plain layers; the mask is that of `Generator`.

    >>> LayeredGenerator(latent=8, size=16)(torch.zeros(2, 8)).shape
    torch.Size([2, 3, 16, 16])
    """

    def __init__(
        self,
        latent: int = 64,
        out_channels: int = 3,
        size: int = 32,
        width: int = 32,
        depth: int = 3,
        hidden: int = 128,
    ) -> None:
        super().__init__()
        self.out_channels, self.size = out_channels, size
        self.mask = Generator(latent, (), 1, size, width, depth)
        self.colours = nn.Sequential(
            *(nn.Linear(latent, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, hidden), nn.LeakyReLU(0.2)),
            nn.Linear(hidden, 2 * out_channels),
        )

    def at(self, z: Tensor, places: Tensor) -> Tensor:
        """The pixels of z (B, latent) at places (P, 2), (x, y) from -1 to 1: (B, out_channels, P)."""
        mask = (4 * self.mask.at(z, places) - 1).sigmoid()
        front, back = self.colours(z).unflatten(1, (2, self.out_channels, 1)).unbind(1)
        return mask * front + (1 - mask) * back

    def forward(self, z: Tensor) -> Tensor:
        """z (B, latent) -> pictures (B, out_channels, size, size), about [-1, 1] and not clamped."""
        return self.at(z, self.mask.places(z)).reshape(len(z), -1, self.size, self.size)
