"""From a pipeline's clean latents to what its objectives see: the pipeline's own decoding, differentiably."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as again

from symguide.errors import ConfigError
from symguide.half import in_dtype
from symguide.pipelines.lean import lean
from symguide.pipelines.record import Made

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
    vae = getattr(pipe, "vae", None) or getattr(pipe, "vqvae", None)
    if vae is None:
        return lambda z: z
    unpack = _layout(pipe, calls[-1].kwargs)
    vae = _wide_enough(pipe, vae)

    def pictures(z: Tensor) -> Tensor:
        if z.ndim == 5 and not _takes_video(vae):
            frames = vae.decode(z.transpose(1, 2).flatten(0, 1), return_dict=False)[0]
            return frames.unflatten(0, (len(z), -1)).transpose(1, 2)
        return vae.decode(z, return_dict=False)[0]

    def decode(z: Tensor) -> Tensor:
        return in_dtype(pictures, _unscaled(unpack(z), vae.config, vae), next(vae.parameters()).dtype)

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


def _wide_enough(pipe: Any, vae: Any) -> Any:
    """The autoencoder, or a float32 copy of its decoding half where the pipeline itself would decode in float32."""
    upcasts = hasattr(pipe, "upcast_vae") or type(pipe).__name__ == "StableDiffusionXLModularPipeline"
    overflows = upcasts and getattr(vae.config, "force_upcast", False)
    if not overflows or next(vae.parameters()).dtype != torch.float16:
        return vae
    without = {id(vae.encoder): None} if hasattr(vae, "encoder") else {}
    return copy.deepcopy(vae, without).float()


def _takes_video(vae: Any) -> bool:
    return type(vae).__name__ not in ("AutoencoderKL", "AsymmetricAutoencoderKL", "AutoencoderTiny")


def _unscaled(z: Tensor, config: Any, vae: Any) -> Tensor:
    """The latents as the decoder knows them: times their deviation, over their scale, plus their mean or shift."""
    mean, std = (getattr(config, name, None) for name in ("latents_mean", "latents_std"))
    buffers = dict(vae.named_buffers(recurse=False))  # LTX's; asked as attributes, diffusers warns of its configs
    mean = buffers.get("latents_mean") if mean is None else mean
    std = buffers.get("latents_std") if std is None else std
    if std is not None:
        z = z * _channels(std, z)
    z = z / (getattr(config, "scaling_factor", None) or 1.0)
    shift = getattr(config, "shift_factor", None)
    return z + (_channels(mean, z) if mean is not None else shift or 0.0)


def _channels(values: Any, z: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=z.dtype, device=z.device).view(1, -1, *[1] * (z.ndim - 2))


def _layout(pipe: Any, given: Any) -> Decode:
    """Latents as a grid with channels first."""
    if given.get("img_ids") is not None and hasattr(pipe, "_unpack_latents"):  # Flux and its kin: 2 x 2 blocks in a row
        rows, columns = (int(given["img_ids"][..., axis].max()) + 1 for axis in (1, 2))
        factor = pipe.vae_scale_factor
        return lambda z: pipe._unpack_latents(z, 2 * rows * factor, 2 * columns * factor, factor)
    if all(name in given for name in ("num_frames", "height", "width")) and hasattr(pipe, "_unpack_latents"):  # LTX
        sizes = [given[name] for name in ("num_frames", "height", "width")]
        patches = pipe.transformer_spatial_patch_size, pipe.transformer_temporal_patch_size
        return lambda z: pipe._unpack_latents(z, *sizes, *patches)
    if type(pipe).__name__ == "LTXModularPipeline":
        sizes = [given[name] for name in ("num_frames", "height", "width")]
        return lambda z: pipe.pachifier.unpack_latents(z, *sizes)
    if type(pipe).__name__.startswith("CogVideoX"):
        return lambda z: z.transpose(1, 2)
    packed = hasattr(pipe, "update_components") and getattr(given.get("hidden_states"), "ndim", 4) == 3
    if packed or hasattr(pipe, "_unpack_latents"):  # modular pipelines unpack in their blocks
        raise ConfigError(
            f"guide does not know how {type(pipe).__name__} lays out its latents: use decode=False and an "
            "objective on latents"
        )
    return lambda z: z
