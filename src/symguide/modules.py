"""Networks as guidance uses them: weights frozen while graphs are made, in eval mode, and not made in inference mode.

Weights without requires_grad let autograd save nothing for their sake. Functions of other libraries may ask for their
gradients all the same: the `checkpoint` of guided-diffusion and of latent-diffusion calls torch.autograd.grad with the
weights of its block in its own backward pass, and fails where they are frozen. So a graph is looked through for such
functions, once for each network of a run, and they are lent the weights that they hold for as long as they run.
"""

import copy
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from symguide.errors import ConfigError, GuidanceError
from symguide.private.torch import compiled, function_of, leaves, python_function, reentrant_checkpoint


@dataclass
class _Weight:
    """A parameter that is frozen or lent now: by how many, and whether it is trainable otherwise."""

    parameter: nn.Parameter
    trained: bool
    holds: int = 0
    loans: int = 0


_LOCK = threading.RLock()
_WEIGHTS: dict[int, _Weight] = {}
"""By id, for as long as somebody holds or has lent the parameter."""
_LENT: dict[int, list[list[nn.Parameter]]] = {}
"""By id of a node, what it has been lent while its backward pass runs."""
_PLAIN: WeakSet[nn.Module] = WeakSet()
"""Networks in whose graphs nobody asks for weights."""


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Weights without requires_grad inside, as before outside; by several at the same time until the last one leaves.

    >>> layer = nn.Linear(2, 2)
    >>> with frozen(layer):
    ...     with frozen(layer):
    ...         pass
    ...     inside = layer.weight.requires_grad
    >>> inside, layer.weight.requires_grad
    (False, True)
    """
    held: list[nn.Parameter] = []
    try:
        _count(dict.fromkeys(p for module in modules for p in module.parameters()), held, holds=1)
        yield
    finally:
        _count(held, [], holds=-1)


def _count(parameters: Iterable[nn.Parameter], done: list[nn.Parameter], holds: int = 0, loans: int = 0) -> None:
    """One holder, or one loan, more or less of each; `done` are those that were counted."""
    with _LOCK:
        for p in parameters:
            known = _WEIGHTS.get(id(p))
            if known is None:
                if p.is_inference() or (holds and not p.requires_grad):  # nothing to freeze
                    continue
                known = _WEIGHTS[id(p)] = _Weight(p, p.requires_grad)
            done.append(p)
            known.holds, known.loans = known.holds + holds, known.loans + loans
            wanted = known.loans > 0 or (known.trained and known.holds == 0)
            if p.requires_grad != wanted:
                p.requires_grad_(wanted)
            if known.holds == known.loans == 0:
                del _WEIGHTS[id(p)]


def look_again() -> None:
    """Forgets which networks were looked through: a run begins, and they may have been changed since the last one."""
    with _LOCK:
        _PLAIN.clear()


def lend_weights(made: Any, network: Any) -> bool:
    """Lets functions in the graph of what a network returned have the frozen weights that they hold while they run.

    Functions of torch's own need none. To be called for every graph; looked through is the first one of a network.

    Args:
        made: what the network returned, with its graph: a tensor, or tensors in lists, tuples and dictionaries.
        network: the network; what is no module has no weights that were frozen, and nothing is done.

    Returns:
        Whether torch's reentrant checkpoints are in the graph; `vjp` must be told.
    """
    if not isinstance(network, nn.Module) or network in _PLAIN or not torch.is_grad_enabled():
        return False
    tensors = [leaf for leaf in leaves(made) if isinstance(leaf, Tensor) and leaf.requires_grad]
    plain, reentrant = bool(tensors), False  # where nothing has a graph, nothing is known
    for node in _functions(tensors):
        reentrant |= function_of(node) is reentrant_checkpoint()
        weights = [] if _of_torch(node) else list(dict.fromkeys(_held(vars(node).values())))
        if weights:
            _lend(node, weights)
            plain = False
    if plain and not reentrant:
        with _LOCK:
            _PLAIN.add(network)
    return reentrant


def _lend(node: Any, weights: list[nn.Parameter]) -> None:
    key = id(node)

    def before(cotangents: Any) -> None:
        with _LOCK:
            lent: list[nn.Parameter] = []
            _LENT.setdefault(key, []).append(lent)
            _count(weights, lent, loans=1)

    def after(gradients: Any, cotangents: Any) -> None:
        _give_back(key)

    node.register_prehook(before)
    node.register_hook(after)


def _give_back(key: int) -> None:
    """All that the node of that id has been lent."""
    with _LOCK:
        for lent in _LENT.pop(key, []):
            _count(lent, [], loans=-1)


def vjp(
    made: Tensor | Sequence[Tensor],
    leaves: Tensor | Sequence[Tensor],
    cotangents: Tensor | Sequence[Tensor] | None = None,
    reentrant: bool = False,
    again: bool = False,
) -> tuple[Tensor, ...]:
    """torch.autograd.grad, after which no weight is lent any longer, also where it fails.

    Args:
        made, leaves, cotangents: outputs, inputs and grad_outputs.
        reentrant: whether torch's reentrant checkpoints are in the graph, for which torch has torch.autograd.backward
            alone: that is asked then, and must find no other leaf that requires a gradient. Weights are frozen.
        again: whether the graph is kept for another time.

    Raises:
        GuidanceError: at a reentrant checkpoint that nobody told of.
    """
    try:
        if not reentrant:
            return torch.autograd.grad(made, leaves, cotangents, retain_graph=again)
        torch.autograd.backward(made, cotangents, retain_graph=again)
        leaves = [leaves] if isinstance(leaves, Tensor) else leaves
        gradients = tuple(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves)
        for leaf in leaves:
            leaf.grad = None
        return gradients
    except BaseException as error:
        for node in _functions([made] if isinstance(made, Tensor) else made):
            _give_back(id(node))
        if "compatible with .grad()" not in str(error):
            raise
        raise GuidanceError(
            "torch gives no gradient through its reentrant checkpoints here: call torch.utils.checkpoint.checkpoint "
            "with use_reentrant=False, or switch the network's checkpointing off"
        ) from error


def passes_again(made: Tensor) -> bool:
    """Whether a graph that is kept gives a second gradient: functions in Python may free what they hold at the first.

    So do torch's reentrant checkpoints and others', and networks that torch.compile made.
    """
    return next(_functions([made]), None) is None


def _functions(made: Iterable[Tensor]) -> Iterator[Any]:
    """The nodes of a graph that are functions written in Python."""
    stack = [tensor.grad_fn for tensor in made if tensor.grad_fn is not None]
    seen, written = set(stack), python_function()
    while stack:
        node = stack.pop()
        if isinstance(node, written):
            yield node
        for before, _ in node.next_functions:
            if before is not None and before not in seen:
                seen.add(before)
                stack.append(before)


def _of_torch(node: Any) -> bool:
    """Whether a function is torch's or ours."""
    return str(function_of(node).__module__).split(".")[0] in ("torch", "symguide")


def _held(values: Iterable[Any], depth: int = 3) -> Iterator[nn.Parameter]:
    """The parameters among values, in modules and in lists, tuples and dictionaries."""
    for value in values:
        if isinstance(value, nn.Parameter):
            yield value
        elif isinstance(value, nn.Module):
            yield from value.parameters()
        elif isinstance(value, list | tuple | dict) and depth:
            yield from _held(value.values() if isinstance(value, dict) else value, depth - 1)


def modules_of(*callables: Any) -> list[nn.Module]:
    """The modules among callables, and those whose methods they are or that they have as their `network`."""
    found = []
    for thing in callables:
        owners = (thing, getattr(thing, "__self__", None), getattr(thing, "network", None))
        found += [owner for owner in owners if isinstance(owner, nn.Module)][:1]
    return found


def named(network: Any, pattern: str) -> dict[str, nn.Module]:
    """The modules of these names that are called, * for any one part of a name.

    Raises:
        ConfigError: where there is none, and in networks that torch.compile has compiled: they go on without hooks and
            checkpoints that come later.

    >>> list(named(nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Tanh())), "*"))
    ['0', '1']
    >>> named(nn.Sequential(nn.Linear(2, 2), nn.Tanh()), "[01]")
    Traceback (most recent call last):
    symguide.errors.ConfigError: '[01]' names no module of Sequential, which has '0', '1'
    """
    kind = type(network).__name__
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{pattern!r} names a module of a network that is a torch.nn.Module, not {kind}")
    found = {"": network}
    for part in pattern.split("."):
        _refuse_compiled(found.values())
        rule = re.compile(re.escape(part).replace(r"\*", r"[^.]+"))
        below = (
            (f"{name}.{own}" if name else own, m) for name, each in found.items() for own, m in each.named_children()
        )
        found = {name: m for name, m in below if rule.fullmatch(name.rpartition(".")[2])}
    _refuse_compiled(found.values())
    found = {name: m for name, m in found.items() if not isinstance(m, nn.ModuleList | nn.ModuleDict)}
    if not found:
        names = [
            name for name, m in network.named_modules() if name and not isinstance(m, nn.ModuleList | nn.ModuleDict)
        ]
        close = get_close_matches(pattern, names, n=8, cutoff=0.0)
        some = ", ".join(repr(name) for name in names if name in close)
        raise ConfigError(f"{pattern!r} names no module of {kind}, which has {some}")
    return found


def _refuse_compiled(modules: Iterable[nn.Module]) -> None:
    for module in modules:
        if compiled(module):
            raise ConfigError(
                "torch.compile has compiled this network, and a compiled one is not listened to: name modules of the "
                "network as it was before"
            )


def made_in_inference_mode(module: nn.Module) -> bool:
    """Whether weights or buffers are tensors that can be no part of a graph."""
    return any(tensor.is_inference() for tensors in (module.parameters(), module.buffers()) for tensor in tensors)


def refuse_inference(network: Any) -> None:
    """GuidanceError where a graph is to be made and the network was made in inference mode."""
    if isinstance(network, nn.Module) and torch.is_grad_enabled() and made_in_inference_mode(network):
        raise GuidanceError(
            f"{type(network).__name__} was made in torch.inference_mode(), and no gradient passes through its weights: "
            "load it outside of that"
        )


def differentiable(call: Callable[..., Any]) -> Callable[..., Any]:
    """A network itself, or a copy of one that was made in inference mode, which gradients can flow through."""
    if not isinstance(call, nn.Module) or not made_in_inference_mode(call):
        return call
    with torch.inference_mode(mode=False):
        return copy.deepcopy(call)


def sharing(module: nn.Module) -> nn.Module:
    """A copy with the module's own weights and buffers, which are never trainable in it; it takes no memory of theirs.

    Tensors that were made in inference mode are copied, as they can be no part of a graph.
    """
    own = [p for p in module.parameters() if type(p) is nn.Parameter and not p.is_inference()]
    shared: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in own}
    shared |= {id(buffer): buffer for buffer in module.buffers() if not buffer.is_inference()}
    with torch.inference_mode(mode=False):
        return copy.deepcopy(module, shared).requires_grad_(False)


def refuse_training(network: Any) -> None:
    """GuidanceError where a network draws noise or mixes its batch because it is in training mode."""
    if not isinstance(network, nn.Module):
        return
    part = next((m for m in network.modules() if m.training and _matters(m)), None)
    if part is not None:
        raise GuidanceError(
            f"the network is in training mode, and its {type(part).__name__} says something else each time or in each "
            "batch: call network.eval() first"
        )


DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
BATCHES = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
INSTANCES = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


def _matters(part: nn.Module) -> bool:
    """Whether the training mode of a module changes what it returns."""
    if isinstance(part, DROPOUTS):
        return part.p > 0
    if isinstance(part, (*BATCHES, *INSTANCES)):
        return bool(part.track_running_stats)
    if isinstance(part, nn.MultiheadAttention | nn.RNNBase):
        return part.dropout > 0
    return isinstance(part, nn.RReLU)
