"""From a pipeline's clean latents to what its objectives see: the pipeline's own decoding, differentiably."""

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as again

from symguide.errors import ConfigError
from symguide.half import in_dtype
from symguide.modules import lend_weights, refuse_inference
from symguide.pipelines.calls import RecordedCall
from symguide.pipelines.layout import Layout, layout, left_out, unscaled, video
from symguide.pipelines.lean import lean
from symguide.pipelines.modules import components
from symguide.pipelines.running import running
from symguide.pipelines.slots import Slot

Decode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Decoder:
    """Latents (B, ...) as the scheduler has them -> pictures (B, C, H, W) or videos (B, C, F, H, W), about [-1, 1].

    Attributes:
        given: latents -> what the pipeline's autoencoder is given for them, a row for each of its pictures.
        pictures: latents -> what it makes of that.
        level: of the noise that the autoencoder is told, where it is told one.
        network: the autoencoder, where there is one.
    """

    given: Layout
    pictures: Decode
    level: float | None = None
    network: nn.Module | None = None

    def __call__(self, z: Tensor) -> Tensor:
        refuse_inference(self.network)
        made = self.pictures(z)
        lend_weights(made, self.network)
        return made


def decoder(pipe: Any, calls: Sequence[RecordedCall], checkpoint: bool, slot: Slot | None = None) -> Decoder:
    """The decoding of a pipeline.

    Pixel pipelines have nothing to decode. Sizes that packed latents do not show are read off the recorded calls, and
    what those do not show off the pipeline's `__call__`, which runs. An autoencoder in float16 that needs float32
    (SDXL's) is copied into it: the pipeline's own stays what it is.

    Args:
        checkpoint: decode several samples one by one, and keep less of each for the backward sweep (`sparing`).
        slot: where the last of the calls has the latents.

    Raises:
        ConfigError: for a pipeline whose latents this does not know how to lay out, or which decodes more than them.
    """
    found = autoencoder(pipe)
    if found is None:
        return Decoder(lambda z: z, lambda z: z)
    arranged, level = layout(pipe, found, calls[-1], slot), _level(pipe, found)
    vae, kandinsky = _wide_enough(pipe, found), found is getattr(pipe, "movq", None)  # neither scales nor quantises
    more: dict[str, Any] = {"force_not_quantize": True} if kandinsky else {}
    chunk = _chunk(pipe, vae)
    single = chunk is not None or not video(vae)

    def scaled(z: Tensor) -> Tensor:
        return z if kandinsky else unscaled(z, vae, left_out(pipe))

    def framed(z: Tensor) -> Tensor:
        """As the autoencoder takes them: videos frame by frame, or pictures as videos of one frame."""
        if z.ndim == 5 and single:
            return z.transpose(1, 2).flatten(0, 1)
        return z.unsqueeze(2) if z.ndim == 4 and not single else z

    def pictures(z: Tensor) -> Tensor:
        frames = framed(z)
        told = more if level is None else more | {"temb": frames.new_full((len(frames),), level)}
        if chunk is None:
            made: Tensor = vae.decode(frames, return_dict=False, **told)[0]
        else:
            parts = torch.split(frames, chunk if chunk > 0 else z.shape[2])
            made = torch.cat([vae.decode(part, num_frames=len(part), return_dict=False)[0] for part in parts])
        if z.ndim == 5 and single:
            return made.reshape(len(z), -1, *made.shape[1:]).transpose(1, 2)
        if type(vae).__name__ == "AutoencoderKLAllegro":  # gives frames before channels
            return made.transpose(1, 2)
        return made.squeeze(2) if z.ndim == 4 and not single else made

    def decode(z: Tensor) -> Tensor:
        return in_dtype(pictures, scaled(z), next(vae.parameters()).dtype)

    spared = sparing(decode, vae) if checkpoint else decode
    return Decoder(lambda z: framed(scaled(arranged(z))), lambda z: spared(arranged(z)), level, vae)


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


def autoencoder(pipe: Any) -> Any:
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


def _chunk(pipe: Any, vae: Any) -> int | None:
    """How many frames an autoencoder that mixes them (Stable Video Diffusion's) is given at once; 0 is all of a video.

    None is of autoencoders that are not told how many frames there are.
    """
    if "num_frames" not in inspect.signature(vae.decode).parameters:
        return None
    return int(running(pipe).get("decode_chunk_size") or 0)


def _level(pipe: Any, vae: Any) -> float | None:
    """The level of noise that an autoencoder which is told one (LTX 0.9.1's) decodes at.

    Raises:
        ConfigError: where the pipeline adds noise of its own before it decodes.
    """
    if not getattr(vae.config, "timestep_conditioning", False):
        return None
    call = running(pipe)
    level, noise = (call.get(name) for name in ("decode_timestep", "decode_noise_scale"))
    levels = set(level if isinstance(level, list) else [level or 0.0])
    noises = levels if noise is None else set(noise if isinstance(noise, list) else [noise])
    if noises != {0.0} or len(levels) > 1:
        raise ConfigError(
            f"{type(pipe).__name__} adds noise to its latents before it decodes them, which no objective can see: "
            "call it with decode_noise_scale=0.0 and one decode_timestep, or use decode=False and an objective on "
            "latents"
        )
    return float(levels.pop())


def _wide_enough(pipe: Any, vae: Any) -> Any:
    """The autoencoder, or a float32 copy of its decoding half where the pipeline itself would decode in float32."""
    upcasts = hasattr(pipe, "upcast_vae") or type(pipe).__name__ == "StableDiffusionXLModularPipeline"
    overflows = upcasts and getattr(vae.config, "force_upcast", False)
    if not overflows or next(vae.parameters()).dtype != torch.float16:
        return vae
    without = {id(vae.encoder): None} if hasattr(vae, "encoder") else {}
    return copy.deepcopy(vae, without).float()
