"""What memory is measured of: the embedded models, small latent models, and published architectures on a GPU.

Architectures have random weights, which take the memory that trained ones do, and classifier-free guidance in a doubled
batch; their objective looks at decoded pictures. They are in float32 on a CPU and in bfloat16 on a GPU.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.subjects import T
from benchmarks.peers.way import Problem
from symguide.checkpointed import checkpointed
from symguide.denoiser import Denoiser
from symguide.extras import library
from symguide.loss import Objective
from symguide.memory_plan import Forecast
from symguide.objectives import Classifier
from symguide.per_sample import Noise
from symguide.planning.architecture import Architecture, Component, architecture
from symguide.planning.inputs import network_call
from symguide.planning.parts import Parts, decoded
from symguide.planning.simulate import Footprint, footprint
from symguide.schedule import VP
from symguide.worlds.load import load, scorer

SAVED, LIVE = "saved", "peak"
"""Bytes saved for backward, and bytes of all tensors that are made."""


class Network:
    """A network and an objective, at any size and batch, with checkpointed blocks or without."""

    device: torch.device

    def shape(self, size: int) -> tuple[int, ...]:
        """Of one sample for pictures of so many pixels."""
        raise NotImplementedError

    def problem(self, size: int, n: int, solver: str, checkpoint: bool) -> Problem:
        """The gradient that is asked for."""
        raise NotImplementedError

    def within(self, checkpoint: bool) -> AbstractContextManager[None]:
        """Where the gradient is to be taken."""
        raise NotImplementedError

    def weigh(self, size: int, batch: int, checkpoint: bool) -> Mapping[str, Forecast]:
        """Forecasts of one call without states, of both kinds of bytes."""
        raise NotImplementedError

    def start(self, size: int, batch: int, seed: int) -> Tensor:
        """Noisy samples (B, ...)."""
        return Noise(seed, range(batch), self.shape(size), torch.float32).draw("start").to(self.device)


class Embedded(Network):
    """An embedded model, whose forecast is that of one real call and one look at the objective."""

    BLOCKS = "down.*.*", "middle.*", "up.*.*"

    def __init__(self, name: str, objective: Objective, device: torch.device) -> None:
        self.denoiser, self.objective, self.device = load(name, device, torch.float32), objective, device

    def shape(self, size: int) -> tuple[int, ...]:
        assert self.denoiser.shape is not None
        return self.denoiser.shape[0], size, size

    def problem(self, size: int, n: int, solver: str, checkpoint: bool) -> Problem:
        return Problem(self.denoiser, self.objective, T, n, solver)

    def within(self, checkpoint: bool) -> AbstractContextManager[None]:
        return checkpointed(self.denoiser.network, *self.BLOCKS) if checkpoint else nullcontext()  # type: ignore[arg-type]

    def weigh(self, size: int, batch: int, checkpoint: bool) -> Mapping[str, Forecast]:
        x = self.start(size, batch, 0)
        self.objective(x)  # what it makes once and keeps is no part of a gradient's memory
        with self.within(checkpoint), self.denoiser.frozen():
            return _forecasts(footprint(lambda z: self.denoiser(z, T).x0, x), footprint(self.objective, x))


class Latents(Network):
    """A pipeline's network and decoder, whose forecast is simulated without weights, as `estimate_memory` does it."""

    def __init__(self, made: Architecture, device: torch.device) -> None:
        library("diffusers", "this architecture", "pipelines")
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.parts, self.device = Parts(made, dtype), device
        self.network: Any = made.network.build(dtype, str(device))
        self.vae: Any = made.vae.build(dtype, str(device))

    def shape(self, size: int) -> tuple[int, ...]:
        return tuple(self.parts.latents(1, size, size)[1:])

    def problem(self, size: int, n: int, solver: str, checkpoint: bool) -> Problem:
        _, rows, columns = self.shape(size)
        call = network_call(self.network, rows, columns, guidance=True)

        def objective(z: Tensor) -> Tensor:
            return decoded(self.vae, z, checkpoint).square().mean(dim=(1, 2, 3))

        return Problem(Denoiser(lambda z, timestep: call(z), VP.linear()), objective, T, n, solver)

    def within(self, checkpoint: bool) -> AbstractContextManager[None]:
        for module in (self.network, self.vae):
            module.enable_gradient_checkpointing() if checkpoint else module.disable_gradient_checkpointing()
        return nullcontext()

    def weigh(self, size: int, batch: int, checkpoint: bool) -> Mapping[str, Forecast]:
        return _forecasts(*self.parts.footprints(self.parts.latents(batch, size, size), True, checkpoint))


def _forecasts(call: Footprint, objective: Footprint) -> dict[str, Forecast]:
    return {
        SAVED: Forecast(1, *call.hooked, objective.hooked[1]),
        LIVE: Forecast(1, call.saved, call.peak, objective.peak),
    }


@dataclass(frozen=True)
class Subject:
    """A network to measure: how it is made, and the sizes in pixels and batches that it is measured at."""

    make: Callable[[torch.device], Network]
    sizes: tuple[int, ...]
    batches: tuple[int, ...]

    def first(self) -> "Subject":
        """At its first size and batch alone."""
        return replace(self, sizes=self.sizes[:1], batches=self.batches[:1])


def _digits(device: torch.device) -> Network:
    return Embedded("digits", Classifier(scorer("digits", "classifier", device, torch.float32), 3), device)


def _scenes(device: torch.device) -> Network:
    aesthetic = scorer("scenes", "aesthetic", device, torch.float32)
    return Embedded("scenes", lambda x0: -aesthetic(x0).flatten(), device)


_AUTOENCODER = Component(
    "diffusers",
    "AutoencoderKL",
    {
        "block_out_channels": (16, 32),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 8,
        "latent_channels": 4,
    },
)
SMALL_UNET = Architecture(
    "StableDiffusionPipeline",
    {
        "unet": Component(
            "diffusers",
            "UNet2DConditionModel",
            {
                "sample_size": 16,
                "layers_per_block": 1,
                "block_out_channels": (16, 32),
                "norm_num_groups": 8,
                "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
                "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
                "cross_attention_dim": 32,
                "attention_head_dim": 4,
            },
        ),
        "vae": _AUTOENCODER,
    },
)
SMALL_TRANSFORMER = Architecture(
    "DiTPipeline",
    {
        "transformer": Component(
            "diffusers",
            "DiTTransformer2DModel",
            {
                "sample_size": 16,
                "num_layers": 2,
                "num_attention_heads": 4,
                "attention_head_dim": 16,
                "in_channels": 4,
                "out_channels": 8,
                "patch_size": 2,
                "num_embeds_ada_norm": 10,
            },
        ),
        "vae": _AUTOENCODER,
    },
)

SUBJECTS: dict[str, Subject] = {
    "digits": Subject(_digits, (8,), (1, 4, 16, 64)),
    "scenes": Subject(_scenes, (32, 64), (1, 4)),
    "small-unet": Subject(lambda device: Latents(SMALL_UNET, device), (32, 64), (1, 4)),
    "small-transformer": Subject(lambda device: Latents(SMALL_TRANSFORMER, device), (32, 64), (1, 4)),
    "sd-1.5": Subject(lambda device: Latents(architecture("sd-1.5"), device), (512, 64, 256, 1024), (1, 4, 16, 64)),
    "sdxl": Subject(lambda device: Latents(architecture("sdxl"), device), (1024, 256, 512), (1, 4, 16)),
    "dit-xl-2": Subject(lambda device: Latents(architecture("dit-xl-2"), device), (256, 32, 512), (1, 4, 16, 64)),
}
ON_CPU = ("digits", "scenes", "small-unet", "small-transformer")
ON_GPU = ("sd-1.5", "sdxl", "dit-xl-2")
"""What is measured where nothing is asked for; all can be measured on both."""
