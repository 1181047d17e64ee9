"""The network and the autoencoder of a pipeline on the meta device, called as guidance calls them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from symguide.errors import ConfigError
from symguide.pipelines.decode import sparing
from symguide.pipelines.modules import NETWORKS
from symguide.planning.architecture import Architecture
from symguide.planning.inputs import latent_shape, network_call
from symguide.planning.simulate import Footprint, footprint, forward_peak


class Parts:
    """A pipeline's network and autoencoder.

    Args:
        made: the pipeline.
        dtype: of its networks; the autoencoder is in float32 where the pipeline itself decodes in that.

    Attributes:
        size: pixels of the pictures that the model was trained for.
    """

    def __init__(self, made: Architecture, dtype: torch.dtype) -> None:
        self.made, self.dtype = made, dtype
        self.network: Any = made.network.build(dtype)
        self.upcast = dtype == torch.float16 and made.upcasts
        self.vae: Any = made.vae.build(torch.float32 if self.upcast else dtype)
        config: Any = self.vae.config
        self.factor = 2 ** (len(config.block_out_channels) - 1)
        self.size = self.factor * (getattr(self.network.config, "sample_size", None) or 128)

    def latents(self, batch: int, height: int, width: int) -> torch.Size:
        """Shape of the latents' grid, (B, C, rows, columns)."""
        step = self.factor * (2 if "Transformer" in self.made.network.name else 1)  # those take patches of the grid
        if height % step or width % step or min(height, width) < step:
            raise ConfigError(f"height and width must be multiples of {step} pixels, not {height} and {width}")
        return torch.Size((batch, self.vae.config.latent_channels, height // self.factor, width // self.factor))

    def weights(self, text_encoders: bool) -> int:
        """Bytes of all components on the device, and of a copy of the decoder where decoding is in float32."""
        names = [name for name in self.made.components if text_encoders or name in ("vae", *NETWORKS)]
        total = sum(_bytes(self.made.components[name].build(self.dtype)) for name in names)
        return total + (_bytes(self.vae) - _bytes(self.vae.encoder) if self.upcast else 0)

    def footprints(self, grid: torch.Size, guidance: bool, checkpoint: bool) -> tuple[Footprint, Footprint]:
        """What the network's call and the decoder hold, each with its gradient."""
        for module in (self.network, self.vae):
            module.enable_gradient_checkpointing() if checkpoint else module.disable_gradient_checkpointing()
        shape = latent_shape(self.network, *(grid[i] for i in (0, 2, 3, 1)))
        network = footprint(network_call(self.network, grid[2], grid[3], guidance), _meta(shape))
        return network, footprint(lambda z: decoded(self.vae, z, checkpoint).square().mean(dim=(1, 2, 3)), _meta(grid))

    def last_decoding(self, grid: torch.Size) -> int:
        """The most bytes while the pipeline decodes what it has drawn."""
        return forward_peak(lambda z: decoded(self.vae, z, False), _meta(grid))


def decoded(vae: Any, z: Tensor, checkpoint: bool) -> Tensor:
    """Pictures of latents by an autoencoder, in the latents' type; with checkpoints as `guide` decodes them."""

    def pictures(z: Tensor) -> Tensor:
        made: Tensor = vae.decode(z.to(vae.dtype), return_dict=False)[0]
        return made.to(z.dtype)

    return sparing(pictures, vae)(z) if checkpoint else pictures(z)


def _meta(shape: Sequence[int]) -> Tensor:
    return torch.empty(tuple(shape), dtype=torch.float32, device="meta")


def _bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
