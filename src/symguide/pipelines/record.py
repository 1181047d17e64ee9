"""The calls that a pipeline makes to its networks, noted as they are made, and with graphs where those are wanted."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from symguide.errors import GuidanceError
from symguide.meter import SavedBytes
from symguide.modules import frozen, lend_weights
from symguide.pipelines.calls import Graph, RecordedCall, exchanged
from symguide.pipelines.running import caller
from symguide.pipelines.slots import Slot, batch_of
from symguide.private.torch import tree_map

_LOCK = threading.Lock()
"""Torch numbers hooks without one."""
_ATTACHED: set["Recorder"] = set()
_PAUSED: ContextVar[bool] = ContextVar("paused", default=False)
"""Whether calls that are made in no pipeline are those of a guided step."""


class Recorder:
    """Hooks on a pipeline's networks that note every call that the pipeline makes between two looks.

    Networks may be shared: calls of other pipelines, in this thread or in others, are not noted. Those that are made in
    no pipeline, but in a loop of the user's own, are noted in the thread where the run began, and are of the pipeline
    whose scheduler makes the next step there.

    Args:
        networks: the modules.
        pipe: the pipeline; every call in this thread is noted where it is not given.

    Attributes:
        slots: where the latents are in the calls to come, if those are to be made with a graph; else empty. A step of
            more calls than these has them where the last one has.
        thread: that the calls so far were made in.
        owned: how many of them the pipeline's own `__call__` made.
    """

    def __init__(self, networks: Sequence[nn.Module], pipe: Any = None) -> None:
        self.networks, self.pipe, self.scheduler = tuple(networks), pipe, getattr(pipe, "scheduler", None)
        self.slots: Sequence[Slot] = ()
        self.calls, self.owned, self.thread, self._paused = list[RecordedCall](), 0, threading.get_ident(), False
        self._handles: list[Any] = []
        self._under_way: dict[tuple[int, int], _Call] = {}

    def attach(self) -> None:
        """Begin to note."""
        self.here()
        with _LOCK:
            _ATTACHED.add(self)
            for network in self.networks:
                self._handles += [
                    network.register_forward_pre_hook(self._begin, with_kwargs=True),
                    network.register_forward_hook(self._note, with_kwargs=True, always_call=True),
                ]

    def detach(self) -> None:
        """Remove all hooks."""
        with _LOCK:
            _ATTACHED.discard(self)
            for handle in self._handles:
                handle.remove()
        self._handles, self.calls, self.owned = [], [], 0
        under_way, self._under_way = self._under_way, {}
        for call in under_way.values():  # an interrupt ends a call without a word; grad mode is the pipeline's own then
            mode = torch.is_grad_enabled()
            call.end()
            torch.set_grad_enabled(mode)

    def here(self) -> None:
        """A run begins in this thread."""
        self.thread = threading.get_ident()

    def take(self) -> list[RecordedCall]:
        """The calls since the last look."""
        calls, self.calls = self.calls, []
        if calls and not self.owned:  # other recorders cannot know whose they were either
            with _LOCK:
                others = [other for other in _ATTACHED if other.thread == self.thread and not other.owned]
            for other in others:
                other.calls = []
        self.owned = 0
        return calls

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Calls inside are not noted, and in a loop of the user's own by nobody else either."""
        before, self._paused = self._paused, True
        token = _PAUSED.set(True)
        try:
            yield
        finally:
            self._paused = before
            _PAUSED.reset(token)

    def __reduce__(self) -> tuple[Any, ...]:
        return Recorder, ((),)  # a copy of a pipeline has hooks that note nothing

    def _ours(self, who: Any) -> bool:
        """Whether a call that is made in this pipeline, or in none, is to be noted.

        Raises:
            GuidanceError: if it is, and what it says will not reach the scheduler that is guided.
        """
        here = threading.get_ident()
        if who is None and (here != self.thread or _PAUSED.get()):
            return False
        if who is not None and who is not self.pipe and who.scheduler is not self.scheduler:
            return False
        if self.calls and here != self.thread:
            raise GuidanceError(
                f"{type(self.pipe).__name__} calls its networks in two threads at once: give each thread a pipeline of "
                "its own, of the same networks and another scheduler"
            )
        if self.pipe is not None and self.pipe.scheduler is not self.scheduler:
            raise GuidanceError(
                f"the scheduler of {type(self.pipe).__name__} was exchanged inside `guide`, by its own call or between "
                "two, and guide stands at the one before: exchange it outside, and leave pipelines that do so unguided"
            )
        self.thread = here
        return True

    def _begin(self, network: nn.Module, args: tuple[Any, ...], kwargs: Any = None) -> Any:
        """Keep what is given, and let the call be made with a graph from its latents on, if that is wanted.

        Other threads may call while hooks are being put on, and then hand over no keywords: they are not ours.
        """
        if not self._handles or self._paused:
            return None
        who = None if self.pipe is None else caller()
        if not self._ours(who):
            return None
        # networks take things out of the lists that they are given: U-Nets, what a T2I-Adapter made
        call = self._under_way[threading.get_ident(), id(network)] = _Call(who, *exchanged({}, (args, kwargs)))
        if not self.slots or torch.is_inference_mode_enabled() or torch.is_grad_enabled():
            return None
        slot = self.slots[min(len(self.calls), len(self.slots) - 1)]
        given: dict[str | int, Any] = dict([*enumerate(args), *kwargs.items()])
        latents = batch_of(given.get(slot.latents))
        if latents is None:
            return None
        leaf = call.begin(network, latents)
        given[slot.latents] = list(leaf.unsqueeze(2).unbind()) if slot.listed else leaf
        return tuple(given[i] for i in range(len(args))), {name: given[name] for name in kwargs}

    def _note(self, network: nn.Module, args: tuple[Any, ...], *more: Any) -> Any:
        """Note the call. Called after failures too, without an output, as grad mode must be what it was."""
        call = self._under_way.pop((threading.get_ident(), id(network)), None)
        if call is None:
            return None
        graph, output = None, more[-1]
        if call.leaf is not None:
            lend_weights(output, network)
            held = call.end()
            graph = Graph(call.leaf, output, held)
            output = tree_map(lambda v: v.detach() if isinstance(v, Tensor) else v, output)
        if output is not None:
            self.calls.append(RecordedCall(network, call.args, call.kwargs, output, graph))
            self.owned += call.who is not None
        return None if graph is None else output


class _Call:
    """A call that is being made: what was given, and what is in force meanwhile if it is made with a graph."""

    def __init__(self, who: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.who, self.args, self.kwargs = who, args, kwargs
        self.leaf: Tensor | None = None
        self._meter: SavedBytes | None = None
        self._stack = ExitStack()

    def begin(self, network: nn.Module, latents: Tensor) -> Tensor:
        """From here on a graph is made; what it begins at."""
        self.leaf = latents.detach().requires_grad_()
        self._meter = self._stack.enter_context(SavedBytes()) if latents.device.type != "cuda" else None
        self._stack.enter_context(frozen(network))
        self._stack.enter_context(torch.enable_grad())
        return self.leaf

    def end(self) -> int:
        """The graph is made; the bytes that it holds, on a CPU."""
        self._stack.close()
        return 0 if self._meter is None else self._meter.live
