"""Private parts of torch: each function is the only place that names one."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from symguide.private.missing import attribute, fetched, missing

Hooks = tuple[Callable[[Any], Any], Callable[[Any], Any]]


def saved_tensor_hooks(unknown: Hooks | None = None) -> Hooks | None:
    """The innermost saved-tensor hooks that are in force now, (pack, unpack); None where there are none.

    torch 2.4 does not say: there they are `unknown`.
    """
    ask = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return unknown if ask is None else ask(False)


def base(tensor: Tensor) -> Tensor | None:
    """The tensor that this one is a view of."""
    return attribute(tensor, "_base", "torch.Tensor", "to tell views of parameters from other tensors")


def version(tensor: Tensor) -> int:
    """How many times a tensor was changed in place."""
    return attribute(tensor, "_version", "torch.Tensor", "to see that a tensor was changed in place")


def storage_id(storage: Any) -> int:
    """What tells storages apart, those of meta tensors too, which all have one address."""
    return attribute(storage, "_cdata", "torch.UntypedStorage", "to count every storage once")


def tree_map(change: Callable[[Any], Any], tree: Any) -> Any:
    """Nested tuples, lists and dictionaries with every leaf changed."""
    return fetched("torch.utils._pytree.tree_map", "to go through nested arguments")(change, tree)


def leaves(tree: Any) -> list[Any]:
    """The leaves of nested tuples, lists and dictionaries."""
    return fetched("torch.utils._pytree.tree_leaves", "to go through nested arguments")(tree)


def dispatch_mode() -> type[Any]:
    """The class whose instances see every operator that is called inside them."""
    return fetched("torch.utils._python_dispatch.TorchDispatchMode", "to forecast memory")


def flops(operator: Any) -> Callable[..., int] | None:
    """What counts an operator's floating point operations from its arguments and result; None where nothing does."""
    registry = fetched("torch.utils.flop_counter.flop_registry", "to forecast time")
    return registry.get(attribute(operator, "_overloadpacket", "torch._ops.OpOverload", "to forecast time"))


def efficient_attention() -> Callable[..., Any]:
    """The operator of fused attention, which also infers shapes on meta tensors."""
    name, use = "_scaled_dot_product_efficient_attention", "to forecast the memory of attention"
    operator = attribute(torch.ops.aten, name, "torch.ops.aten", use)
    if not torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", "Meta"):
        raise missing(f"torch.ops.aten.{name} on meta tensors", use)
    return operator


def hooks(module: nn.Module) -> list[Any]:
    """All hooks on a module, those on its forward and on its backward pass."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    use = "to see who listens to a decoder"
    return [hook for kind in kinds for hook in attribute(module, kind, "torch.nn.Module", use).values()]


def compiled(module: nn.Module) -> bool:
    """Whether torch.compile has compiled a module, or it holds one that was compiled."""
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None


def function_of(node: Any) -> type[Any]:
    """The torch.autograd.Function that a node of a graph is of; the node is of a function written in Python."""
    return attribute(type(node), "_forward_cls", "torch.autograd.function.BackwardCFunction", "to know whose it is")


def reentrant_checkpoint() -> type[Any]:
    """The torch.autograd.Function of checkpoints with use_reentrant=True."""
    return fetched("torch.utils.checkpoint.CheckpointFunction", "to take gradients through checkpoints")


def python_function() -> type[Any]:
    """The class of nodes of a graph that are functions written in Python."""
    return fetched("torch.autograd.function.BackwardCFunction", "to lend weights to functions of other libraries")
