"""A decoder that keeps little for the backward sweep: what goes into its residual blocks, and nothing else.

Weights are frozen in guidance, and then the cotangent of a convolution's input needs nothing of that input, though
autograd keeps it. So of a block

    y = x + conv2(silu(norm2(h))),    h = conv1(silu(norm1(x)))

only x is kept: the backward sweep computes h again, and passes norm and SiLU some groups of channels at a time, as
groups are normalised apart. Checkpoints around all blocks of a size, which diffusers has, keep less of the forward
pass, but at full size bring back three blocks at once.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input
from torch.utils.checkpoint import checkpoint as again

from symguide.pipelines.patch import patched
from symguide.private.torch import hooks

PARTS = 8
"""Of the channels, one after the other in the backward sweep: more hold less, but leave a GPU too little to do."""
KNOWN = {
    *("Decoder", "UNetMidBlock2D", "UpDecoderBlock2D", "ResnetBlock2D", "Upsample2D", "Attention"),
    *("ModuleList", "Conv2d", "GroupNorm", "SiLU", "Linear", "Dropout"),
}
"""Classes of the parts of Stable Diffusion's decoder."""


@contextmanager
def lean(vae: Any) -> Iterator[None]:
    """What an autoencoder decodes inside keeps the inputs of blocks for the backward sweep, and no more.

    Values are the same bit for bit, and the gradient is, up to round-off. Weights must be frozen. Decoders other than
    Stable Diffusion's (which XL, 3, Flux, PixArt, DiT and AnimateDiff have as well), those with adapters or hooks in
    them, and all under autocast, are left as they are, with diffusers' own checkpoints where these are on.

    Cost: in the backward sweep the first convolution of every block, and the attention, are computed again.

    Raises:
        RuntimeError: from torch, where a second derivative is asked for.
    """
    decoder: Any = getattr(vae, "decoder", None)
    if not _known(decoder) or any(map(torch.is_autocast_enabled, ("cuda", "cpu"))):
        yield
        return
    with ExitStack() as stack:
        stack.enter_context(_own_checkpoints_off(decoder))
        for part in decoder.modules():
            kind = type(part).__name__
            if kind == "ResnetBlock2D":
                stack.enter_context(patched(part, forward=partial(_block, part, part.forward)))
            elif kind == "Upsample2D":
                stack.enter_context(patched(part.conv, forward=partial(_FrozenConv.apply, part.conv)))
            elif kind == "Attention":
                stack.enter_context(patched(part, forward=partial(again, part.forward, use_reentrant=False)))
        norm, silu, conv = decoder.conv_norm_out, decoder.conv_act, decoder.conv_out
        stack.enter_context(patched(norm, forward=lambda x: x))  # conv_out's makes these two as well
        stack.enter_context(patched(silu, forward=lambda x: x))
        stack.enter_context(patched(conv, forward=partial(_last, norm, conv)))
        yield


def _block(block: Any, stock: Callable[[Tensor, None], Tensor], x: Tensor, temb: None = None) -> Tensor:
    """A residual block; none of the decoder's knows a time."""

    def pull(x: Tensor, cotangent: Tensor) -> Tensor:
        inner = _unit(block.norm1, block.conv1, x)
        inner = _pull_unit(block.norm2, block.conv2, inner, cotangent)
        inner = _pull_unit(block.norm1, block.conv1, x, inner)
        skip = block.conv_shortcut
        return inner.add_(cotangent if skip is None else _pull_conv(skip, x.shape, cotangent))

    return _Kept.apply(lambda x: stock(x, None), pull, x)  # type: ignore[no-untyped-call]


def _last(norm: nn.GroupNorm, conv: nn.Conv2d, x: Tensor) -> Tensor:
    """The decoder's last layers."""
    return _Kept.apply(partial(_unit, norm, conv), partial(_pull_unit, norm, conv), x)  # type: ignore[no-untyped-call]


def _unit(norm: nn.GroupNorm, conv: nn.Conv2d, x: Tensor) -> Tensor:
    """conv(silu(norm(x))), by the classes' own forward passes: the modules' may be exchanged."""
    return nn.Conv2d.forward(conv, F.silu(nn.GroupNorm.forward(norm, x), inplace=True))


def _pull_unit(norm: nn.GroupNorm, conv: nn.Conv2d, x: Tensor, cotangent: Tensor) -> Tensor:
    """The cotangent of x where that of `_unit` is given, in memory of its own."""
    cotangent = _pull_conv(conv, x.shape, cotangent)
    size = x.shape[1] // norm.num_groups
    step = size * -(-norm.num_groups // PARTS)
    whole = (x, 1), (cotangent, 1), (norm.weight, 0), (norm.bias, 0)
    for values, slopes, weight, bias in zip(*(torch.split(z, step, axis) for z, axis in whole), strict=True):
        slopes.copy_(_pull_norm(values, slopes, len(weight) // size, weight, bias, norm.eps))
    return cotangent


def _pull_norm(x: Tensor, cotangent: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """The cotangent of x where that of silu(group_norm(x)) is given."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        y = F.silu(F.group_norm(x, groups, weight, bias, eps))
    return torch.autograd.grad(y, x, cotangent)[0]


def _pull_conv(conv: nn.Conv2d, shape: torch.Size, cotangent: Tensor) -> Tensor:
    """The cotangent of a convolution's input, which has this shape."""
    how: Any = conv.stride, conv.padding, conv.dilation, conv.groups
    return conv2d_input(shape, conv.weight, cotangent, *how)  # type: ignore[no-untyped-call]


class _Kept(torch.autograd.Function):
    """call(x), of which x alone is kept; pull(x, cotangent of the result) is the cotangent of x."""

    @staticmethod
    def forward(ctx: Any, call: Callable[[Tensor], Tensor], pull: Callable[[Tensor, Tensor], Tensor], x: Tensor) -> Any:
        ctx.pull = pull
        ctx.save_for_backward(x)
        return call(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        return None, None, ctx.pull(*ctx.saved_tensors, cotangent)


class _FrozenConv(torch.autograd.Function):
    """A convolution that keeps nothing."""

    @staticmethod
    def forward(ctx: Any, conv: nn.Conv2d, x: Tensor) -> Any:
        ctx.conv, ctx.shape = conv, x.shape
        return nn.Conv2d.forward(conv, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        return None, _pull_conv(ctx.conv, ctx.shape, cotangent)


@contextmanager
def _own_checkpoints_off(decoder: nn.Module) -> Iterator[None]:
    """diffusers' checkpoints would compute again what ours already do."""
    on: list[Any] = [part for part in decoder.modules() if getattr(part, "gradient_checkpointing", False)]
    try:
        for part in on:
            part.gradient_checkpointing = False
        yield
    finally:
        for part in on:
            part.gradient_checkpointing = True


def _known(decoder: Any) -> bool:
    """Whether this decoder's parts compute what is written above, and nobody listens to them or has exchanged them."""
    if type(decoder).__name__ != "Decoder":
        return False
    _, *parts = decoder.modules()
    changed = any("forward" in vars(part) or hooks(part) for part in parts)
    return not changed and {type(part).__name__ for part in parts} <= KNOWN
