"""What a call and its gradient hold in memory and compute, on tensors without data.

torch's meta device carries shapes and types through forward and backward and allocates nothing, so the architecture is
enough: no weights, no GPU. Every storage that an operator makes is counted from then until nothing refers to it, as an
allocator without fragments would. Scratch space inside kernels (cuDNN's workspaces, above all) is not seen.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from symguide.meter import SavedBytes
from symguide.private.torch import dispatch_mode, efficient_attention, flops, storage_id


class LiveBytes(dispatch_mode()):  # type: ignore[misc]
    """Context manager that counts storages made inside it: bytes `.live` now, `.peak` at most so far; and `.flops`.

    What was there before, such as weights, is not counted. Works on meta tensors and on those of a CPU.

    >>> with LiveBytes() as memory:
    ...     y = torch.ones(8, dtype=torch.float32).sin().cos()
    >>> memory.live, memory.peak
    (32, 64)
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = self.flops = 0
        self._known: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self._inferred = Inferred()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = list(_tensors((args, *kwargs.values())))
        for tensor in given:
            self._new(tensor)
        out = self._inferred(func, args, kwargs, given)
        for tensor in _tensors(out):
            if (storage := self._new(tensor)) is not None:
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._drop, storage.nbytes())
        count = flops(func)
        self.flops += 0 if count is None else count(*args, **kwargs, out_val=out)
        return out

    def _new(self, tensor: Tensor) -> Any:
        """The tensor's storage if it was not known, else None."""
        storage = tensor.untyped_storage()
        if (key := storage_id(storage)) in self._known:
            return None
        self._known[key] = storage
        return storage

    def _drop(self, size: int) -> None:
        self.live -= size


class Inferred:
    """Calls operators; new meta tensors are inferred once for all calls with arguments of the same shapes.

    Networks repeat their blocks, and torch infers shapes in Python, many times slower than it makes a tensor.
    """

    def __init__(self) -> None:
        self._made: dict[Any, Any] = {}

    def __call__(self, func: Any, args: Any, kwargs: Any, given: Sequence[Tensor]) -> Any:
        """func(*args, **kwargs), among which these tensors are."""
        if not given or any(tensor.device.type != "meta" for tensor in given):
            return func(*args, **kwargs)
        key = func, _signature(args), tuple(kwargs), _signature(tuple(kwargs.values()))
        if key in self._made:
            return self._made[key]()
        out = func(*args, **kwargs)
        old = {storage_id(tensor.untyped_storage()) for tensor in given}
        if all(storage_id(tensor.untyped_storage()) not in old for tensor in _tensors(out)):
            self._made[key] = _maker(out)
        return out


def _tensors(value: Any) -> Iterator[Tensor]:
    """Those among an operator's arguments or results."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


def _signature(value: Any) -> Any:
    """What an operator's result can depend on, tensors by shape."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype
    if isinstance(value, list | tuple):
        return tuple(map(_signature, value))
    return type(value), value  # 1, 1.0 and True are equal


def _maker(like: Any) -> Callable[[], Any]:
    """What makes results of the same shapes."""
    if isinstance(like, Tensor):
        return partial(torch.empty_strided, like.shape, like.stride(), dtype=like.dtype, device="meta")
    if isinstance(like, list | tuple):
        kind, makers = type(like), [_maker(part) for part in like]
        return lambda: kind(make() for make in makers)
    return lambda: like


@dataclass(frozen=True)
class Footprint:
    """What a call and its gradient hold: bytes beside weights and inputs, and floating point operations.

    Attributes:
        saved: after the forward pass, for the backward one: what a kept graph weighs.
        forward, backward: the most during each pass; the saved ones are part of it.
        hooked: of these, what saved-tensor hooks see: after the forward pass, and the most during both.
        forward_flops, backward_flops: of each pass; a checkpointed backward pass computes blocks again.
    """

    saved: int
    forward: int
    backward: int
    hooked: tuple[int, int]
    forward_flops: int
    backward_flops: int

    @property
    def peak(self) -> int:
        """The most during both passes."""
        return max(self.forward, self.backward)


def footprint(call: Callable[[Tensor], Tensor], x: Tensor) -> Footprint:
    """What call(x) and the gradient of its result with respect to x hold; x may be a meta tensor."""
    x = x.detach().requires_grad_()
    with fused_attention(), SavedBytes() as hooks, LiveBytes() as memory, torch.enable_grad():
        y = call(x)
        saved, forward, flops = memory.live, memory.peak, memory.flops
        seen = hooks.live
        cotangent = torch.empty_like(y)
        memory.peak = memory.live
        gradient = torch.autograd.grad(y, x, cotangent)
        backward = memory.peak
        del gradient
    return Footprint(saved, forward, backward, (seen, hooks.peak), flops, memory.flops - flops)


def forward_peak(call: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """The most bytes that call(x) holds without a graph."""
    with fused_attention(), LiveBytes() as memory, torch.no_grad():
        call(x)
    return memory.peak


@contextmanager
def fused_attention() -> Iterator[None]:
    """Attention on meta tensors inside is the fused kernel of GPUs, which never stores its matrix of scores.

    Left alone, the meta device takes the path of plain products. Exchanged by name: a torch function mode would be off
    while checkpointed blocks are computed again.
    """
    stock = F.scaled_dot_product_attention

    def fused(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        **more: Any,
    ) -> Tensor:
        if query.device.type != "meta" or any(more.values()):
            return stock(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, **more)
        if attn_mask is not None:
            sizes = (*query.shape[:-1], key.shape[-2])
            attn_mask = torch.empty(sizes[-2:], dtype=query.dtype, device="meta").expand(sizes)
        return efficient_attention()(
            query, key, value, attn_mask, torch.is_grad_enabled(), dropout_p, is_causal, scale=scale
        )[0]

    F.scaled_dot_product_attention = fused  # type: ignore[assignment]
    try:
        yield
    finally:
        F.scaled_dot_product_attention = stock
