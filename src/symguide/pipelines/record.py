"""The calls that a pipeline makes to its networks, noted as they are made, and with graphs where those are wanted."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from symguide.meter import SavedBytes
from symguide.modules import frozen, lend_weights
from symguide.pipelines.calls import Graph, Made, exchanged
from symguide.pipelines.slots import Slot


class Recorder:
    """Hooks on a pipeline's networks that note every call between two looks.

    Args:
        networks: the modules.

    Attributes:
        slots: where the latents are in the calls to come, if those are to be made with a graph; else empty.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        self.networks, self.calls, self._paused = tuple(networks), list[Made](), False
        self.slots: Sequence[Slot] = ()
        self._handles: list[Any] = []
        self._given: dict[int, Any] = {}
        self._begun: tuple[Tensor, SavedBytes | None, ExitStack] | None = None

    def attach(self) -> None:
        """Begin to note."""
        for network in self.networks:
            self._handles += [
                network.register_forward_pre_hook(self._begin, with_kwargs=True),
                network.register_forward_hook(self._note, with_kwargs=True, always_call=True),
            ]

    def detach(self) -> None:
        """Remove all hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles, self.calls, self._given = [], [], {}
        if self._begun is not None:  # an interrupt ends a call without a word; grad mode is the pipeline's own then
            mode = torch.is_grad_enabled()
            self._end()
            torch.set_grad_enabled(mode)

    def take(self) -> list[Made]:
        """The calls since the last look."""
        calls, self.calls = self.calls, []
        return calls

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Calls inside are not noted."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def __reduce__(self) -> tuple[Any, ...]:
        return Recorder, ((),)  # a copy of a pipeline has hooks that note nothing

    def _begin(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Keep what is given, and let the call be made with a graph from its latents on, if that is wanted."""
        if not self._handles or self._paused:
            return None
        # networks take things out of the lists that they are given: U-Nets, what a T2I-Adapter made
        self._given[id(network)] = exchanged({}, (args, kwargs))
        if len(self.calls) >= len(self.slots):
            return None
        key = self.slots[len(self.calls)].latents
        given: dict[str | int, Any] = dict([*enumerate(args), *kwargs.items()])
        if torch.is_inference_mode_enabled() or torch.is_grad_enabled() or not isinstance(given.get(key), Tensor):
            return None
        leaf, stack = given[key].detach().requires_grad_(), ExitStack()
        meter = stack.enter_context(SavedBytes()) if leaf.device.type != "cuda" else None
        stack.enter_context(frozen(network))
        stack.enter_context(torch.enable_grad())
        self._begun = leaf, meter, stack
        given[key] = leaf
        return tuple(given[i] for i in range(len(args))), {name: given[name] for name in kwargs}

    def _note(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Note the call. Called after failures too, without an output, as grad mode must be what it was."""
        if not self._handles or self._paused:
            return None
        args, kwargs = self._given.pop(id(network), (args, kwargs))
        graph = None
        if self._begun is not None:
            lend_weights(output, network)
            leaf, meter = self._end()
            graph = Graph(leaf, output, 0 if meter is None else meter.live)
            output = tree_map(lambda v: v.detach() if isinstance(v, Tensor) else v, output)
        if output is not None:
            self.calls.append(Made(network, args, kwargs, output, graph))
        return None if graph is None else output

    def _end(self) -> tuple[Tensor, SavedBytes | None]:
        """What `_begin` began."""
        assert self._begun is not None
        (leaf, meter, stack), self._begun = self._begun, None
        stack.close()
        return leaf, meter
