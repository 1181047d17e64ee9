"""How a pipeline lays out its latents, and what its autoencoder takes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from symguide.errors import ConfigError
from symguide.pipelines.calls import RecordedCall
from symguide.pipelines.running import running
from symguide.pipelines.slots import Slot, as_video
from symguide.private.diffusers import unpack

Layout = Callable[[Tensor], Tensor]
LAST = ("CogVideoX", "ConsisID", "AceStep", "StableVideoDiffusion")
"""Families whose second axis is time and whose third has the channels."""
BEHIND = (
    *("HunyuanVideoImageToVideoPipeline", "SanaImageToVideoPipeline"),
    *("LTXImageToVideoPipeline", "LTX2ImageToVideoPipeline"),
)
"""Pipelines whose scheduler may not see the first frame, which is given, where the autoencoder does."""
LEFT_OUT = {
    "GlmImage": ("scaling_factor",),
    "Kandinsky5": ("shift_factor",),
    "LDMSuperResolution": ("scaling_factor",),
    "StableDiffusion3Inpaint": ("shift_factor",),
}
"""What these families do not ask of their autoencoder's config, though it is there."""


OVER_DATA = ("SanaSprint", "CosmosTextToWorld", "CosmosVideoToWorld", "Cosmos2TextToImage", "Cosmos2VideoToWorld")
"""Families that decode the scheduler's clean samples over the deviation of its data."""


def layout(pipe: Any, vae: nn.Module, call: RecordedCall, slot: Slot | None = None) -> Layout:
    """Latents as the scheduler has them -> as the autoencoder has them, channels first: (B, C, ...).

    Args:
        pipe, vae: the pipeline and its autoencoder.
        call: of its network, whose named arguments say the sizes that a row of tokens does not show.
        slot: where the call has the latents.

    Raises:
        ConfigError: for pipelines that decode more than the latents, and, when it is called, where the latents do not
            come out with the autoencoder's channels.
    """
    name, given = type(pipe).__name__, call.kwargs
    grid = _grid(given, slot is not None and slot.last)
    if name.startswith("HunyuanVideoFramepack"):
        raise ConfigError(
            f"{name} decodes what it draws together with what it drew before, which objectives do not see: use "
            "decode=False and an objective on latents"
        )
    if name.startswith(LAST):
        more = running(pipe).get("additional_frames", 0)  # of CogVideoX 1.5, which come first and are not decoded
        return _checked(lambda z: z[:, more:].transpose(1, 2), name, vae)
    if name.startswith("WanAnimate"):  # the first one is the character's
        return _checked(lambda z: z[:, :, 1:], name, vae)
    if name.startswith("WanVACE"):
        references = running(pipe).get("num_reference_images", 0)
        return _checked(lambda z: z[:, :, references:], name, vae)
    if name in BEHIND and slot is not None and ((slot.axis == 2 and slot.last) or slot.tokens):
        return _checked(_behind_the_first_frame(call, slot), name, vae)
    if name.startswith("Kandinsky5"):
        return _checked(lambda z: z.movedim(-1, 1) if video(vae) else z.movedim(-1, 1).squeeze(2), name, vae)
    if name.startswith(OVER_DATA):
        return _checked(lambda z: z / pipe.scheduler.config.sigma_data, name, vae)
    if name == "LTXConditionPipeline":
        return _checked(_without_conditions(pipe), name, vae)
    if hasattr(pipe, "transformer_temporal_patch_size") and "num_frames" in given:  # LTX
        sizes = [given[key] for key in ("num_frames", "height", "width")]
        patches = pipe.transformer_spatial_patch_size, pipe.transformer_temporal_patch_size
        return _checked(lambda z: z if z.ndim == 5 else unpack(pipe)(z, *sizes, *patches), name, vae)
    if name == "LTXModularPipeline":
        sizes = [given[key] for key in ("num_frames", "height", "width")]
        return _checked(lambda z: pipe.pachifier.unpack_latents(z, *sizes), name, vae)

    def arranged(z: Tensor) -> Tensor:
        if z.ndim != 3 or sound(vae):
            return z
        size = None if grid is None else grid(z.shape[1])
        if size is None:
            raise _unknown(name)
        return _unpacked(_normal(z, vae), size, channels(vae))

    return _checked(arranged, name, vae)


def left_out(pipe: Any) -> tuple[str, ...]:
    """What a pipeline does not ask of its autoencoder's config, though it may be there."""
    return next((left for name, left in LEFT_OUT.items() if type(pipe).__name__.startswith(name)), ())


def unscaled(z: Tensor, vae: Any, without: Sequence[str] = ()) -> Tensor:
    """The latents as the decoder knows them: times their deviation, over their scale, plus their mean or shift.

    Args:
        z, vae: the latents and their autoencoder.
        without: what of its config does not count.
    """
    config = {name: value for name, value in dict(vae.config).items() if name not in without}
    mean, std = (config.get(name) for name in ("latents_mean", "latents_std"))
    buffers = dict(vae.named_buffers(recurse=False))  # LTX's; asked as attributes, diffusers warns of its configs
    mean = buffers.get("latents_mean") if mean is None else mean
    std = buffers.get("latents_std") if std is None else std
    if std is not None:
        z = z * _by_channel(std, z)
    z = z / (config.get("scaling_factor") or 1.0)
    shift = config.get("shift_factor")
    return z + (_by_channel(mean, z) if mean is not None else shift or 0.0)


def channels(vae: Any) -> int | None:
    """Of the autoencoder's latents, where its config says it."""
    names = ("latent_channels", "z_dim", "decoder_input_channels")
    return next((c for name in names if isinstance(c := getattr(vae.config, name, None), int)), None)


def video(vae: nn.Module) -> bool:
    """Whether the autoencoder takes frames as an axis, and not as pictures of their own."""
    return any(isinstance(part, nn.Conv3d) for part in vae.modules())


def sound(vae: nn.Module) -> bool:
    """Whether the autoencoder takes one axis beside the channels."""
    return not any(isinstance(part, nn.Conv2d | nn.Conv3d) for part in vae.modules())


def _by_channel(values: Any, z: Tensor) -> Tensor:
    every = torch.as_tensor(values, dtype=z.dtype, device=z.device)
    if z.ndim == 5 and len(every) > z.shape[1]:  # Cosmos 1's has one for each frame, too
        return every.view(1, z.shape[1], -1, 1, 1)[:, :, : z.shape[2]]
    return every.view(1, -1, *[1] * (z.ndim - 2))


def _checked(arrange: Layout, name: str, vae: nn.Module) -> Layout:
    def arranged(z: Tensor) -> Tensor:
        out = arrange(z)
        if channels(vae) not in (None, out.shape[1]) or (out.ndim == 3) is not sound(vae):
            raise _unknown(name)
        return out

    return arranged


def _unknown(name: str) -> ConfigError:
    return ConfigError(
        f"guide does not know how {name} lays out its latents: use decode=False and an objective on latents"
    )


def _behind_the_first_frame(call: RecordedCall, slot: Slot) -> Layout:
    """The latents behind the given first frame, which the scheduler does not see, but the autoencoder does."""
    given = call.get(slot.latents)

    def arranged(z: Tensor) -> Tensor:
        axis = 1 if slot.tokens else 2
        before = given[: len(z)].narrow(axis, 0, given.shape[axis] - slot.laid(z).shape[axis])
        if slot.tokens:
            before = as_video(before, (0, 0, -1, *z.shape[3:]))
        return torch.cat([before.to(z), z], dim=2)

    return arranged


def _without_conditions(pipe: Any) -> Layout:
    """The tokens of LTX's video, behind those of given frames, as a video."""
    call = running(pipe)
    names = ("latent_num_frames", "latent_height", "latent_width")
    sizes, more = [call.get(name) for name in names], call.get("extra_conditioning_num_latents", 0)
    patches = pipe.transformer_spatial_patch_size, pipe.transformer_temporal_patch_size
    return lambda z: unpack(pipe)(z[:, more:], *sizes, *patches)


def _grid(given: Mapping[str, Any], last: bool) -> Callable[[int], tuple[int, int] | None] | None:
    """Rows and columns of the first or last tokens, by their positions (Flux) or the sizes of all pictures (Qwen)."""
    ids, shapes = given.get("img_ids"), given.get("img_shapes")
    if isinstance(ids, Tensor):

        def size(tokens: int) -> tuple[int, int] | None:
            every = ids[0] if ids.ndim == 3 else ids
            own = every[-tokens:] if last else every[:tokens]
            rows, columns = (int(own[:, axis].max() - own[:, axis].min()) + 1 for axis in (1, 2))
            return (rows, columns) if rows * columns == tokens else None

        return size
    if shapes:
        own = shapes[0][-1 if last else 0] if isinstance(shapes[0], list) else shapes[0]
        return lambda tokens: (own[1], own[2]) if own[1] * own[2] == tokens else None
    return None


def _normal(z: Tensor, vae: nn.Module) -> Tensor:
    """Tokens with the mean and deviation that Flux 2's autoencoder keeps for them."""
    norm = getattr(vae, "bn", None)
    if norm is None:
        return z
    std = (norm.running_var + vae.config.batch_norm_eps).sqrt()  # type: ignore[union-attr]
    return z * std.to(z) + norm.running_mean.to(z)


def _unpacked(z: Tensor, size: tuple[int, int], wanted: int | None) -> Tensor:
    """Tokens in a row as a grid, (B, C, rows, columns); a token may hold 2 x 2 places of it."""
    side = 1 if z.shape[2] == wanted else 2
    grid = z.reshape(len(z), *size, -1, side, side)
    return grid.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
