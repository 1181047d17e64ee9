"""From a pipeline's clean latents to what its objectives see: the pipeline's own decoding, differentiably."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as again

from symguide.errors import ConfigError
from symguide.half import in_dtype
from symguide.pipelines.calls import Made
from symguide.pipelines.layout import layout, unscaled, video
from symguide.pipelines.lean import lean
from symguide.pipelines.modules import components

Decode = Callable[[Tensor], Tensor]


def decoder(pipe: Any, calls: Sequence[Made], checkpoint: bool) -> Decode:
    """Latents (B, ...) as the scheduler has them -> pictures (B, C, H, W) or videos (B, C, F, H, W), about [-1, 1].

    Pixel pipelines have nothing to decode. Sizes that packed latents do not show are read off the recorded calls. An
    autoencoder in float16 that needs float32 (SDXL's) is copied into it: the pipeline's own stays what it is.

    Args:
        checkpoint: decode several samples one by one, and keep less of each for the backward sweep (`sparing`).

    Raises:
        ConfigError: for a pipeline whose latents this does not know how to lay out.
    """
    found = _autoencoder(pipe)
    if found is None:
        return lambda z: z
    arranged = layout(pipe, found, calls[-1].kwargs)
    vae = _wide_enough(pipe, found)
    kandinsky = found is getattr(pipe, "movq", None)  # it neither scales nor quantises
    more: dict[str, Any] = {"force_not_quantize": True} if kandinsky else {}

    def one(z: Tensor) -> Tensor:
        if getattr(vae.config, "timestep_conditioning", False):  # LTX 0.9.1: at decode_timestep=0
            more["temb"] = z.new_zeros(len(z))
        return vae.decode(z, return_dict=False, **more)[0]

    def pictures(z: Tensor) -> Tensor:
        if z.ndim == 5 and not video(vae):
            frames = one(z.transpose(1, 2).flatten(0, 1))
            return frames.reshape(len(z), -1, *frames.shape[1:]).transpose(1, 2)
        if z.ndim == 4 and video(vae):
            return one(z.unsqueeze(2)).squeeze(2)
        return one(z)

    def decode(z: Tensor) -> Tensor:
        z = arranged(z)
        return in_dtype(pictures, z if kandinsky else unscaled(z, vae), next(vae.parameters()).dtype)

    return sparing(decode, vae) if checkpoint else decode


def sparing(decode: Decode, vae: Any) -> Decode:
    """`decode`, with the decoder of `vae` lean; several samples one by one, each once more in the backward sweep."""

    def one(z: Tensor) -> Tensor:
        with lean(vae):
            return decode(z)

    def each(z: Tensor) -> Tensor:
        if len(z) == 1:  # lean enough
            return one(z)
        return torch.cat([again(one, row, use_reentrant=False) for row in torch.split(z, 1)])

    return each


def _autoencoder(pipe: Any) -> Any:
    """What decodes a pipeline's latents, None if it draws pixels.

    Raises:
        ConfigError: if it is something else than an autoencoder that is known.
    """
    for name in ("vae", "vqvae", "movq"):
        if getattr(pipe, name, None) is not None:
            return getattr(pipe, name)
    other = next((m for m in components(pipe) if callable(getattr(m, "decode", None))), None)
    if other is not None:
        raise ConfigError(
            f"guide does not know how {type(pipe).__name__} decodes with its {type(other).__name__}: use decode=False "
            "and an objective on latents"
        )
    return None


def _wide_enough(pipe: Any, vae: Any) -> Any:
    """The autoencoder, or a float32 copy of its decoding half where the pipeline itself would decode in float32."""
    upcasts = hasattr(pipe, "upcast_vae") or type(pipe).__name__ == "StableDiffusionXLModularPipeline"
    overflows = upcasts and getattr(vae.config, "force_upcast", False)
    if not overflows or next(vae.parameters()).dtype != torch.float16:
        return vae
    without = {id(vae.encoder): None} if hasattr(vae, "encoder") else {}
    return copy.deepcopy(vae, without).float()
