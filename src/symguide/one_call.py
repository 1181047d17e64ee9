"""Generators of one call, a GAN's or the decoder of a VAE, as models of our own loop: `Denoiser.from_generator`."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from symguide.denoiser import Denoiser
from symguide.errors import ConfigError
from symguide.schedule import VP


class _Normal(nn.Module):
    """v of N(0, I) on a variance-preserving schedule, which is 0; it has the generator's device and floating type.

    E[x_0 | x] = alpha x and E[eps | x] = sigma x, so v = alpha sigma x - sigma alpha x.
    """

    def __init__(self, generator: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.generator = generator if isinstance(generator, nn.Module) else None

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        return 0 * x


def from_generator(generator: Callable[[Tensor], Tensor], shape: Sequence[int]) -> Denoiser:
    """See `Denoiser.from_generator`."""
    if not callable(generator):
        raise ConfigError(f"from_generator takes a callable z -> pictures, not {type(generator).__name__}")
    return Denoiser(_Normal(generator), VP.cosine(), "v", shape=shape, decoder=generator)
