"""What a pipeline's modules are while guidance takes gradients through them, and are no more afterwards."""

import inspect
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from symguide.checkpointed import again
from symguide.errors import ConfigError
from symguide.private.diffusers import can_checkpoint, in_offloaded_group, offload_hook

NETWORKS = ("unet", "transformer", "transformer_2", "prior", "controlnet")
"""Names of the components that see a pipeline's latents."""
_LOCK = threading.Lock()
Counts = WeakKeyDictionary[nn.Module, int]
_CHECKPOINTED: Counts = WeakKeyDictionary()
"""How many want checkpoints in a module that had none of its own."""
_COMPLETED: Counts = WeakKeyDictionary()
"""How many want the switch of checkpoints in a module that never sets it."""


def components(pipe: Any) -> list[nn.Module]:
    """All modules of a pipeline."""
    return [module for module in pipe.components.values() if isinstance(module, nn.Module)]


def networks(pipe: Any) -> list[nn.Module]:
    """The components that see the latents: those of these names, and others that are told a timestep."""
    modules = {name: m for name, m in pipe.components.items() if isinstance(m, nn.Module)}
    return [m for name, m in modules.items() if name in NETWORKS or _told(m)]


def _told(module: nn.Module) -> bool:
    return bool({"timestep", "timesteps"} & set(inspect.signature(module.forward).parameters))


@contextmanager
def checkpointed(pipe: Any, wanted: bool) -> Iterator[None]:
    """Blocks of networks and autoencoder are computed again in the backward sweep inside, where that is wanted.

    These are diffusers' own checkpoints; decoders that `lean` knows have finer ones in their place, and EasyAnimate's
    keeps frames between its calls, so that none of them can be made again. Where several pipelines of the same networks
    want them, they are there until the last one leaves.

    Raises:
        ConfigError: if none of the networks can do that.
    """
    modules = [m for m in (*networks(pipe), getattr(pipe, "vae", None)) if isinstance(m, nn.Module)] if wanted else []
    able = [m for m in modules if can_checkpoint(m) and not _remembers(m)]
    if modules and not able:
        raise ConfigError(f"{type(modules[0]).__name__} cannot be checkpointed: leave checkpoint=True out")
    with _while_wanted(
        _CHECKPOINTED,
        able,
        lambda m: not m.is_gradient_checkpointing,
        lambda m: m.enable_gradient_checkpointing(again),
        lambda m: m.disable_gradient_checkpointing(),
    ):
        yield


@contextmanager
def complete(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, networks have the switch of their checkpoints that they ask for where gradients are on.

    ZImageControlNetModel asks for one that it never sets: no gradient passes otherwise.
    """

    def lacks(m: nn.Module) -> bool:
        asked = getattr(getattr(type(m).forward, "__code__", None), "co_names", ())
        return "gradient_checkpointing" in asked and not hasattr(m, "gradient_checkpointing")

    def give(m: Any) -> None:
        m.gradient_checkpointing = False

    def take(m: Any) -> None:
        del m.gradient_checkpointing

    with _while_wanted(_COMPLETED, modules, lacks, give, take):
        yield


@contextmanager
def _while_wanted(
    counts: Counts,
    modules: Iterable[nn.Module],
    lacks: Callable[[Any], bool],
    on: Callable[[Any], Any],
    off: Callable[[Any], Any],
) -> Iterator[None]:
    """on(m) for the first who wants it of a module that lacks it, and off(m) when the last one leaves."""
    held: list[nn.Module] = []
    try:
        with _LOCK:
            for m in modules:
                if m not in counts and not lacks(m):
                    continue
                if m not in counts:
                    on(m)
                held.append(m)
                counts[m] = counts.get(m, 0) + 1
        yield
    finally:
        with _LOCK:
            for m in held:
                counts[m] -= 1
                if not counts[m]:
                    del counts[m]
                    off(m)


def _remembers(module: nn.Module) -> bool:
    """Whether a call of one of its layers depends on the one before."""
    return any(hasattr(part, "prev_features") for part in module.modules())


def refuse_caches(pipe: Any) -> None:
    """ConfigError where a network keeps what it computed at one step for the next: it is no function of (x, t) then."""
    if any(getattr(module, "is_cache_enabled", False) for module in networks(pipe)):
        raise ConfigError(
            "a network with a cache cannot be guided: switch it off, with pipe.transformer.disable_cache()"
        )


def offloaded(pipe: Any) -> bool:
    """Whether the networks' weights leave the device when another component is called (`enable_model_cpu_offload`).

    Raises:
        ConfigError: if they leave it within a call: no gradient can pass then.
    """
    parts = [part for module in networks(pipe) for part in module.modules()]
    hooks = [hook for part in parts if (hook := offload_hook(part)) is not None]
    if any(map(in_offloaded_group, parts)) or any(getattr(hook, "offload", False) for hook in hooks):
        raise ConfigError(
            "no gradient passes through networks whose weights leave the device within a call, as they do with "
            "sequential and group offloading: use pipe.enable_model_cpu_offload() instead"
        )
    return bool(hooks)
