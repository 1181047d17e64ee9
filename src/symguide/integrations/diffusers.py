"""diffusers' networks as denoisers of ours: `from_diffusers`."""

import inspect
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from symguide.denoiser import Denoiser
from symguide.errors import ConfigError
from symguide.pipelines.decode import decoder
from symguide.pipelines.levels import levels
from symguide.pipelines.modules import networks

THOUSANDTHS = ("Flux", "Chroma", "LongCat", "Ovis")
"""Families whose transformers are told the scheduler's timestep divided by 1000."""


class DiffusersNetwork(nn.Module):
    """A U-Net or transformer of diffusers as (x, timestep, **condition) -> prediction.

    Arguments that its `forward` does not name go into `added_cond_kwargs` where it has that: SDXL's `text_embeds` and
    `time_ids`, for example. What it predicts beside the noise (learned variances) is cut off.

    Args:
        network: the module.
        factor: of the timestep, for networks that are told another one than the scheduler's.
        constant: arguments that are the same for all samples and have no row for each, such as Flux's `img_ids`.

    Raises:
        ConfigError: for a module that takes no latents and timestep, and for conditions that it does not take.
    """

    def __init__(self, network: nn.Module, factor: float, constant: Mapping[str, Any]) -> None:
        super().__init__()
        self.network, self.factor, self.constant = network, factor, dict(constant)
        named = list(inspect.signature(network.forward).parameters)
        self._first, self._named = named[0], set(named)
        if "timestep" not in self._named:
            raise ConfigError(f"{type(network).__name__} takes no timestep: it is no denoiser")

    def forward(self, x: Tensor, timestep: Tensor, **condition: Any) -> Tensor:
        given = condition | self.constant
        named = {name: value for name, value in given.items() if name in self._named}
        added = {name: value for name, value in given.items() if name not in self._named}
        if added and "added_cond_kwargs" not in self._named:
            raise ConfigError(f"{type(self.network).__name__} takes no {', '.join(sorted(added))}")
        if added:
            named["added_cond_kwargs"] = added
        latents = {self._first: x, "timestep": self.factor * timestep}
        out: Tensor = self.network(**latents, **named, return_dict=False)[0]
        return out if out.shape == x.shape else out.narrow(1, 0, x.shape[1])


def from_diffusers(
    model: Any,
    scheduler: Any = None,
    *,
    null: Mapping[str, Any] | None = None,
    constant: Mapping[str, Any] | None = None,
) -> Denoiser:
    """A diffusers pipeline, or a network and its scheduler, as a denoiser for our own loop.

        pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
        encode = symguide.integrations.text_condition
        denoiser = from_diffusers(pipe, null=encode(pipe, ""))
        sample(denoiser, condition=encode(pipe, "a cat"), prediction=CFG(5.0), loss=...)

    Args:
        model: a pipeline with one network, which also gives scheduler and decoder; or a U-Net or transformer.
        scheduler: what says which noise levels the network knows and what it predicts; how it steps is not used.
        null: the condition that stands for none: the embedding of "", for example.
        constant: arguments of the network that are the same for all samples, such as Flux's `img_ids`.

    Conditions are the arguments of the network's `forward`, or of its `added_cond_kwargs`, by name.

    Raises:
        ConfigError: for schedulers whose noise levels are not known, and pipelines with several networks.
    """
    if isinstance(model, nn.Module):
        network, pipe = model, None
    else:
        pipe, found = model, networks(model)
        if len(found) != 1:
            names = ", ".join(type(module).__name__ for module in found) or "none"
            raise ConfigError(
                f"from_diffusers takes a pipeline with one network, and {type(model).__name__} has {names}: give the "
                "network itself"
            )
        network = found[0]
        scheduler = pipe.scheduler if scheduler is None else scheduler
    if scheduler is None:
        raise ConfigError(
            "from_diffusers needs the scheduler that goes with the network: from_diffusers(unet, scheduler)"
        )
    known, constant = levels(scheduler), constant or {}
    if known.kind not in ("diffusion", "flows"):
        raise ConfigError(
            f"from_diffusers knows networks of diffusion and of flows, and {type(scheduler).__name__} is one of "
            f"{known.kind}: use guide(pipe, ...)"
        )
    factor = 1e-3 if type(network).__name__.startswith(THOUSANDTHS) else 1.0
    return Denoiser(
        DiffusersNetwork(network, factor, constant),
        known.schedule,
        known.predicts,
        shape=_shape(network),
        null=null,
        decoder=None if pipe is None else _decoder(pipe, constant),
    )


def _shape(network: Any) -> tuple[int, ...] | None:
    """Of one sample, where the network's config says it."""
    channels, side = (getattr(network.config, name, None) for name in ("in_channels", "sample_size"))
    if not isinstance(channels, int) or not isinstance(side, int):
        return None
    return channels, side, side


def _decoder(pipe: Any, constant: Mapping[str, Any]) -> Callable[[Tensor], Tensor] | None:
    """The pipeline's own decoding; None for pixel pipelines."""
    if not hasattr(pipe, "vae"):
        return None
    return decoder(pipe, [SimpleNamespace(kwargs=constant)], checkpoint=False)  # type: ignore[list-item]


@torch.no_grad()
def text_condition(
    pipe: Any, prompt: str | list[str], size: tuple[int, int] | None = None, **settings: Any
) -> dict[str, Tensor]:
    """The condition of prompts, for a denoiser made of a Stable Diffusion pipeline (1.x, 2.x, XL, 3).

    Args:
        pipe: the pipeline.
        prompt: one for all samples, or one for each.
        size: height and width in pixels, which XL is told; the pipeline's default where not given.
        settings: further arguments of the pipeline's `encode_prompt`, such as `max_sequence_length` or `clip_skip`.

    Returns:
        Tensors with a row for each prompt, by name: for `sample(condition=...)`, for `null=` those of "".

    Raises:
        ConfigError: for pipelines of other families: there call the pipeline's own `encode_prompt`.
    """
    name = type(pipe).__name__
    settings |= {"device": pipe.device, "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    if name.startswith("StableDiffusionXL"):
        embeddings, _, pooled, _ = pipe.encode_prompt(prompt, **settings)
        height, width = size or (pipe.default_sample_size * pipe.vae_scale_factor,) * 2
        numbers = torch.tensor([[height, width, 0, 0, height, width]], dtype=embeddings.dtype, device=embeddings.device)
        ids = numbers.expand(len(embeddings), -1)
        return {"encoder_hidden_states": embeddings, "text_embeds": pooled, "time_ids": ids}
    if name.startswith("StableDiffusion3"):
        embeddings, _, pooled, _ = pipe.encode_prompt(prompt, prompt, prompt, **settings)
        return {"encoder_hidden_states": embeddings, "pooled_projections": pooled}
    if name.startswith("StableDiffusion"):
        return {"encoder_hidden_states": pipe.encode_prompt(prompt, **settings)[0]}
    raise ConfigError(f"text_condition does not know the conditions of {name}: call its own encode_prompt")
