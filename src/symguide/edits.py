"""Edits: what named modules of a network give is changed, for some rows of one call, and for nobody else.

A module that is edited has one hook, which asks what is in force in its own thread (more exactly, context): calls of
the same network in other threads pass it unchanged. Checkpoints compute a block again when the edit is long gone, so
those of `symguide.checkpointed` and `guide(checkpoint=True)` carry it along; other ones are refused.
"""

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from symguide.errors import GuidanceError
from symguide.modules import named
from symguide.private.torch import tree_map


@dataclass(frozen=True)
class Part:
    """A module's call, as an edit sees it: its name, and the edit's own rows of what it was given."""

    name: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True)
class Edit:
    """What the modules of these names give is changed.

        Edit("time", lambda made, part: made + noise)

    Args:
        pattern: names of modules as `network.named_modules()` has them, * for any one part of a name.
        change: (what the module gave, (B, ...), its `Part`) -> what it is to have given.
    """

    pattern: str
    change: Callable[[Tensor, Part], Tensor]

    @contextmanager
    def on(self, network: Any, rows: slice, batch: int) -> Iterator[None]:
        """In force inside, for these rows of calls of `batch` rows, in this thread.

        Raises:
            ConfigError: for a pattern that names no module, and a network that torch.compile has compiled or that is
                no module.
            GuidanceError: in a call, where the rows of what a module gives are not those of the batch, and where
                another's checkpoint would make the call again without the edit.
        """
        modules = {module: name for name, module in named(network, self.pattern).items()}
        own = _InForce(self.change, modules, rows, batch, torch.is_grad_enabled())
        with _in_force((*_NOW.get(), own)):
            yield


class Capture(Edit):
    """Nothing is changed; `made` holds what the modules gave for the edit's rows, by name. Good for one evaluation.

    >>> from symguide import load
    >>> network, seen = load("digits", dtype=torch.float32).network, Capture("middle.*.attention.softmax")
    >>> with seen.on(network, slice(0, 1), 2):
    ...     _ = network(torch.zeros(2, 1, 8, 8), torch.zeros(2))
    >>> {name: tuple(map.shape) for name, map in seen.made.items()}
    {'middle.0.attention.softmax': (1, 4, 16, 16)}
    """

    made: dict[str, Tensor]

    def __init__(self, pattern: str) -> None:
        seen: dict[str, Tensor] = {}

        def look(made: Tensor, part: Part) -> Tensor:
            seen[part.name] = made
            return made

        super().__init__(pattern, look)
        object.__setattr__(self, "made", seen)


def attention_identity(pattern: str) -> Edit:
    """Every token of the self-attentions sees itself alone: their map is the identity, their output that of the values.

    Args:
        pattern: names of modules that give an attention map, such as "middle.*.attention.softmax", or of diffusers'
            attention modules, such as "mid_block.attentions.*.transformer_blocks.*.attn1".

    Raises:
        GuidanceError: in a call, for modules of other kinds, and where tokens attend to others than themselves.
    """
    return Edit(pattern, _identity)


def skipped(pattern: str) -> Edit:
    """The modules are left out: each gives what it was given first.

    Raises:
        GuidanceError: in a call, where that has another shape than what the module gives.
    """
    return Edit(pattern, _skip)


def _skip(made: Tensor, part: Part) -> Tensor:
    given = next((v for v in (*part.args, *part.kwargs.values()) if isinstance(v, Tensor)), None)
    if given is None or given.shape != made.shape:
        shape = None if given is None else tuple(given.shape)
        raise GuidanceError(
            f"{part.name} cannot be skipped, as it makes {tuple(made.shape)} of {shape}: name a module that keeps the "
            "shape of its input"
        )
    return given


PROCESSORS = ("AttnProcessor", "AttnProcessor2_0")
"""diffusers' attention processors whose output under an identity map is known."""


def _identity(made: Tensor, part: Part) -> Tensor:
    module = part.module
    if type(module) is nn.Softmax:
        if made.shape[-1] != made.shape[-2]:
            raise GuidanceError(
                f"the map of {part.name} is {made.shape[-2]} x {made.shape[-1]}, so tokens attend to others there: "
                "name a self-attention"
            )
        return torch.eye(made.shape[-1], dtype=made.dtype, device=made.device).expand_as(made)
    processor = type(getattr(module, "processor", None)).__name__
    if type(module).__name__ != "Attention" or processor not in PROCESSORS:
        what = type(module).__name__ if processor == "NoneType" else f"{type(module).__name__} with {processor}"
        raise GuidanceError(
            f"guide does not know what {part.name}, a {what}, gives where tokens see themselves alone: name a Softmax "
            f"module, or an Attention of diffusers with {' or '.join(PROCESSORS)}"
        )
    given = dict(zip(("hidden_states", "encoder_hidden_states", "attention_mask"), part.args, strict=False))
    given |= part.kwargs
    if given.get("encoder_hidden_states") is not None or given.get("attention_mask") is not None:
        raise GuidanceError(f"tokens attend to others in {part.name}, or some are masked: name a self-attention")
    return _values(module, given["hidden_states"], given.get("temb"))


def _values(attention: Any, x: Tensor, temb: Tensor | None) -> Tensor:
    """What diffusers' processors do with x, where the values stand for what was attended to."""
    h = x if attention.spatial_norm is None else attention.spatial_norm(x, temb)
    tokens = h.flatten(2).transpose(1, 2) if h.ndim == 4 else h
    if attention.group_norm is not None:
        tokens = attention.group_norm(tokens.transpose(1, 2)).transpose(1, 2)
    for layer in (attention.to_v, *attention.to_out):
        tokens = layer(tokens)
    h = tokens.transpose(1, 2).reshape(x.shape) if h.ndim == 4 else tokens
    h = h + x if attention.residual_connection else h
    out: Tensor = h / attention.rescale_output_factor
    return out


@dataclass(frozen=True)
class _InForce:
    """An edit with the modules that it found, for these rows of calls of `batch` rows."""

    change: Callable[[Tensor, Part], Tensor]
    modules: Mapping[nn.Module, str]
    rows: slice
    batch: int
    graph: bool

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], made: Any) -> Any:
        name, batch = self.modules[module], self.batch
        if not isinstance(made, Tensor) or len(made) != batch:
            what = f"{len(made)} rows" if isinstance(made, Tensor) else f"a {type(made).__name__}"
            raise GuidanceError(
                f"{name} gives {what} for a batch of {batch}, and which of it belongs to whom is not known: name "
                "another module"
            )
        self._refuse_checkpoints(name)

        def own(value: Any) -> Any:
            return value[self.rows] if isinstance(value, Tensor) and value.ndim and len(value) == batch else value

        part = Part(name, module, tree_map(own, args), tree_map(own, dict(kwargs)))
        changed = self.change(made[self.rows], part)
        return torch.cat([made[: self.rows.start], changed.to(made.dtype), made[self.rows.stop :]])

    def _refuse_checkpoints(self, name: str) -> None:
        """GuidanceError inside of a checkpoint that does not carry the edit along."""
        if self.graph and (not torch.is_grad_enabled() or _in_a_checkpoint_of_others()):
            raise GuidanceError(
                f"{name} lies in a block that a checkpoint computes again for the gradient, without the edit: switch "
                "the network's own checkpoints off, and use symguide.checkpointed or guide(checkpoint=True)"
            )


_NOW: ContextVar[tuple[_InForce, ...]] = ContextVar("edits in force", default=())
_LOCK = threading.Lock()
_HOOKS: WeakKeyDictionary[nn.Module, tuple[int, Any]] = WeakKeyDictionary()
"""How many edits want the hook of a module, and what takes it off."""


@contextmanager
def _in_force(edits: tuple[_InForce, ...]) -> Iterator[None]:
    """These edits, and no others, inside, for this thread; hooks are there until the last edit leaves."""
    held: list[nn.Module] = []
    token = _NOW.set(edits)
    try:
        with _LOCK:
            for module in dict.fromkeys(m for edit in edits for m in edit.modules):
                count, handle = _HOOKS.get(module, (0, None))
                _HOOKS[module] = count + 1, handle or module.register_forward_hook(_hook, with_kwargs=True)
                held.append(module)
        yield
    finally:
        _NOW.reset(token)
        with _LOCK:
            for module in held:
                count, handle = _HOOKS.pop(module, (0, None))
                if count > 1:
                    _HOOKS[module] = count - 1, handle
                elif handle is not None:
                    handle.remove()


def _hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], made: Any) -> Any:
    for edit in _NOW.get():
        if module in edit.modules:
            made = edit(module, args, kwargs, made)
    return made


class _Carrying:
    """A call under these edits, whenever it is made."""

    def __init__(self, call: Callable[..., Any], edits: tuple[_InForce, ...]) -> None:
        self.call, self.edits = call, edits

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with _in_force(self.edits):
            return self.call(*args, **kwargs)


def carrying(call: Callable[..., Any]) -> Callable[..., Any]:
    """A call under the edits that are in force now, whenever it is made: what checkpoints make again is edited too."""
    edits = _NOW.get()
    return _Carrying(call, edits) if edits else call


def _in_a_checkpoint_of_others() -> bool:
    """Whether one of torch's checkpoints under way in this thread was given a call that carries no edits."""
    frame, carried = inspect.currentframe(), False
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if module == "torch.utils.checkpoint":
            if not carried:
                return True
        elif not module.startswith("torch._"):  # what the compiler puts between a checkpoint's own functions
            carried = frame.f_code is _Carrying.__call__.__code__
        frame = frame.f_back
    return False
