"""What the networks of a family are called with: made up from a config, of the right shapes and types."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from symguide.errors import unknown

Call = Callable[[Tensor], Tensor]


def latent_shape(network: nn.Module, batch: int, rows: int, columns: int, channels: int) -> tuple[int, ...]:
    """Shape of a pipeline's latents that are a grid (B, C, rows, columns) for its decoder: Flux packs 2 x 2 of them."""
    if type(network).__name__ == "FluxTransformer2DModel":
        return batch, (rows // 2) * (columns // 2), 4 * channels
    return batch, channels, rows, columns


def network_call(network: nn.Module, rows: int, columns: int, guidance: bool) -> Call:
    """The pipeline's prediction as a function of its latents (B, ...), with classifier-free guidance or without.

    Args:
        network: one of the families that `FAMILIES` names, on any device.
        rows, columns: of the latents' grid.
        guidance: two predictions for every sample, in one doubled batch or in two passes, as the pipeline makes them.

    Raises:
        ConfigError: for networks of other families.
    """
    kind = type(network).__name__
    if kind not in FAMILIES:
        raise unknown("network", kind, FAMILIES)
    make = FAMILIES[kind]
    config: Any = network.config
    own = next(network.parameters())

    def empty(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=own.dtype, device=own.device)

    def call(x: Tensor) -> Tensor:
        twice = guidance and kind not in TWO_PASSES
        passes = 2 if guidance and not twice else 1
        given = torch.cat([x.to(own.dtype)] * 2) if twice else x.to(own.dtype)
        more = config.in_channels - x.shape[1] if x.ndim == 4 else 0
        if more:  # an inpainting network's mask and masked picture
            given = torch.cat([given, empty(len(given), more, rows, columns)], dim=1)
        arguments = make(config, empty, len(given), rows, columns)
        parts = [network(given, **arguments, return_dict=False)[0].to(x.dtype) for _ in range(passes)]
        predictions = parts[0].chunk(2) if twice else parts
        predictions = [y.narrow(1, 0, x.shape[1]) if y.ndim == 4 else y for y in predictions]
        return predictions[0] + 5.0 * (predictions[1] - predictions[0]) if guidance else predictions[0]

    return call


def _unet(config: Any, empty: Callable[..., Tensor], batch: int, rows: int, columns: int) -> Mapping[str, Any]:
    given: dict[str, Any] = {
        "timestep": torch.tensor(500),
        "encoder_hidden_states": empty(batch, 77, config.cross_attention_dim),
    }
    if config.addition_embed_type == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        given["added_cond_kwargs"] = {"text_embeds": empty(batch, pooled), "time_ids": empty(batch, 6)}
    return given


def _sd3(config: Any, empty: Callable[..., Tensor], batch: int, rows: int, columns: int) -> Mapping[str, Any]:
    return {
        "encoder_hidden_states": empty(batch, 77 + 256, config.joint_attention_dim),
        "pooled_projections": empty(batch, config.pooled_projection_dim),
        "timestep": empty(batch),
    }


def _flux(config: Any, empty: Callable[..., Tensor], batch: int, rows: int, columns: int) -> Mapping[str, Any]:
    return {
        "encoder_hidden_states": empty(batch, 512, config.joint_attention_dim),
        "pooled_projections": empty(batch, config.pooled_projection_dim),
        "timestep": empty(batch),
        "img_ids": empty((rows // 2) * (columns // 2), 3),
        "txt_ids": empty(512, 3),
        **({"guidance": empty(batch)} if config.guidance_embeds else {}),
    }


def _dit(config: Any, empty: Callable[..., Tensor], batch: int, rows: int, columns: int) -> Mapping[str, Any]:
    return {"timestep": empty(batch), "class_labels": empty(batch).long()}


FAMILIES: dict[str, Callable[..., Mapping[str, Any]]] = {
    "UNet2DConditionModel": _unet,
    "SD3Transformer2DModel": _sd3,
    "FluxTransformer2DModel": _flux,
    "DiTTransformer2DModel": _dit,
}
"""The arguments beside the latents by the network's class, with texts as long as the pipelines make them."""

TWO_PASSES = ("FluxTransformer2DModel",)
"""Families whose guidance makes two passes; of the others it doubles the batch."""
