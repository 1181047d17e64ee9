"""Private parts of diffusers, and of accelerate, which hooks on to its modules.

Attributes that a module or pipeline has only at times (hooks, above all) are None or empty where they are not there.
"""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from symguide.private.missing import attribute, missing

STATE = {
    "HeunDiscreteScheduler": ("state_in_first_order",),
    "FlowMatchHeunDiscreteScheduler": ("state_in_first_order",),
    "KDPM2DiscreteScheduler": ("state_in_first_order",),
    "KDPM2AncestralDiscreteScheduler": ("state_in_first_order",),
    "DPMSolverSDEScheduler": ("state_in_first_order",),
    "PNDMScheduler": ("plms_timesteps", "counter"),
    "UniPCMultistepScheduler": ("last_sample",),
    "SASolverScheduler": ("last_sample", "predict_x0", "tau_func", "timestep_list"),
    "DPMSolverSinglestepScheduler": ("order_list", "sample"),
}
"""What schedulers keep from step to step that guidance must know of, by class."""


def check_state(scheduler: Any) -> None:
    """ConfigError where a scheduler lacks what guidance must know of its state."""
    for kind in type(scheduler).__mro__:
        for name in STATE.get(kind.__name__, ()):
            attribute(scheduler, name, f"diffusers.{kind.__name__}", "to guide the whole of a step")


def second_scale(pipe: Any) -> float | None:
    """The weight of classifier-free guidance of the second of two networks; None where it is the first one's."""
    name = type(pipe).__name__
    return attribute(pipe, "_guidance_scale_2", f"diffusers.{name}", "to know the guidance of its second network")


def scales(thing: Any) -> Iterator[Any]:
    """What a pipeline or a guider may have as its weight of classifier-free guidance, wherever it keeps it."""
    for name in ("guidance_scale", "true_cfg_scale", "guidance_scale_2", "_guidance_scale", "_guidance_scale_2"):
        yield getattr(thing, name, None)


def pag_scale(thing: Any) -> Any:
    """The weight of perturbed attention of a pipeline or a guider, if it has one."""
    return getattr(thing, "_pag_scale", None)


def packs(pipe: Any) -> bool:
    """Whether a pipeline packs 2 x 2 places of its latents into a token."""
    return hasattr(pipe, "_unpack_latents")


def unpack(pipe: Any) -> Callable[..., Tensor]:
    """How a pipeline of LTX makes a video of its tokens."""
    return attribute(pipe, "_unpack_latents", f"diffusers.{type(pipe).__name__}", "to decode its latents")


def can_checkpoint(module: nn.Module) -> bool:
    """Whether a network of diffusers has gradient checkpoints."""
    if hasattr(module, "enable_gradient_checkpointing") and not hasattr(module, "_supports_gradient_checkpointing"):
        raise missing("diffusers.ModelMixin._supports_gradient_checkpointing", "to know whether it has checkpoints")
    return bool(getattr(module, "_supports_gradient_checkpointing", False))


def offload_hook(module: nn.Module) -> Any:
    """accelerate's hook that moves a module's weights, if it has one."""
    return getattr(module, "_hf_hook", None)


def in_offloaded_group(module: nn.Module) -> bool:
    """Whether a module is part of diffusers' group offloading."""
    registry = getattr(module, "_diffusers_hook", None)
    if registry is None:
        return False
    named = attribute(registry, "hooks", "diffusers.hooks.HookRegistry", "to see group offloading")
    return any("group_offloading" in str(name) for name in named)
