"""The calls that a pipeline makes to its networks: recorded as they are made, and made again with another x and t."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from symguide.errors import GuidanceError
from symguide.meter import SavedBytes

_CLOCKS: tuple[tuple[float, float], ...] = ((0.0, 1.0), (0.0, 1e-3), (1.0, -1e-3))
"""(a, b) of what networks are told for the scheduler's timestep t: a + b t."""


@dataclass(frozen=True)
class Graph:
    """What a network returned with its graph, the latents that this begins at, and the bytes it holds (on a CPU)."""

    latents: Tensor
    output: Any
    held: int


@dataclass(frozen=True)
class Made:
    """One call of a network, what it returned, and its graph where one was asked for."""

    network: nn.Module
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Any
    graph: Graph | None = None

    def get(self, key: str | int) -> Any:
        """An argument by name or place."""
        return self.args[key] if isinstance(key, int) else self.kwargs[key]


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
        self._begun: tuple[Tensor, SavedBytes | None] | None = None

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
        self._handles, self.calls = [], []
        self._ended()  # an interrupt ends a call without a word; grad mode is the pipeline's own then

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
        """Let the call be made with a graph from its latents on, if that is wanted."""
        if not self._handles or self._paused or len(self.calls) >= len(self.slots):
            return None
        key = self.slots[len(self.calls)].latents
        given: dict[str | int, Any] = dict([*enumerate(args), *kwargs.items()])
        if torch.is_inference_mode_enabled() or torch.is_grad_enabled() or key not in given:
            return None
        leaf = given[key].detach().requires_grad_()
        meter = SavedBytes().__enter__() if leaf.device.type != "cuda" else None
        self._begun = leaf, meter
        torch.set_grad_enabled(True)
        given[key] = leaf
        return tuple(given[i] for i in range(len(args))), {name: given[name] for name in kwargs}

    def _note(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Note the call. Called after failures too, without an output, as grad mode must be what it was."""
        if not self._handles or self._paused:
            return None
        graph = None
        if begun := self._ended():
            torch.set_grad_enabled(False)
            leaf, meter = begun
            graph = Graph(leaf, output, 0 if meter is None else meter.live)
            output = tree_map(lambda v: v.detach() if isinstance(v, Tensor) else v, output)
        if output is not None:
            self.calls.append(Made(network, args, kwargs, output, graph))
        return None if graph is None else output

    def _ended(self) -> tuple[Tensor, SavedBytes | None] | None:
        """What `_begin` began, if it did."""
        begun, self._begun = self._begun, None
        if begun is not None and begun[1] is not None:
            begun[1].__exit__(None, None, None)
        return begun


@dataclass(frozen=True)
class Slot:
    """Where the latents and the timestep of a call are.

    Attributes:
        latents: the argument that holds the latents, `repeats` times over.
        repeats: how many batches it holds.
        axis: where the argument has more than the latents, the axis along which they come first, else None.
        timestep: the argument with the timestep.
    """

    latents: str | int
    repeats: int
    axis: int | None
    timestep: str | int


def locate(call: Made, expected: Tensor) -> Slot:
    """The slot of a call, by comparing its arguments with the latents that it should have been given.

    Raises:
        GuidanceError: if no argument holds them.
    """
    named: list[str | int] = [key for key in ("hidden_states", "sample") if isinstance(call.kwargs.get(key), Tensor)]
    for key in [*named, *([0] if call.args and isinstance(call.args[0], Tensor) else [])]:
        given = call.get(key)
        if given.ndim != expected.ndim or given.shape[0] % expected.shape[0]:
            continue
        longer = [d for d in range(1, given.ndim) if given.shape[d] != expected.shape[d]]
        if len(longer) > 1 or any(given.shape[d] < expected.shape[d] for d in longer):
            continue
        axis = longer[0] if longer else None
        part = given if axis is None else given.narrow(axis, 0, expected.shape[axis])
        repeats = given.shape[0] // expected.shape[0]
        if _close(part, torch.cat([expected] * repeats)):
            clock = next((name for name in ("timestep", "timesteps") if name in call.kwargs), None)
            if clock is None and len(call.args) < (2 if key == 0 else 1):
                break
            return Slot(key, repeats, axis, clock if clock is not None else (1 if key == 0 else 0))
    raise GuidanceError(
        f"{type(call.network).__name__} was not called with the pipeline's latents and a timestep, so its prediction "
        "cannot be made again at other ones: this pipeline cannot be guided"
    )


def _close(a: Tensor, b: Tensor) -> bool:
    eps = max(torch.finfo(t.dtype).eps for t in (a, b, torch.empty(0, dtype=torch.float32)))  # as schedulers' sigmas
    a, b = a.double(), b.double()
    return bool((a - b).abs().max() <= 64 * eps * b.abs().max().clamp_min(1.0))


class Replay:
    """A pipeline's calls as one function of the latents and the timestep.

    Args:
        calls: in order; a later call may be given what an earlier one returned, as a U-Net is by its ControlNet.
        expected: the latents, (B, ...), that the networks were given.
        timestep: the scheduler's timestep of these calls.
        clock: (a, b) of earlier steps of the run, None in the first one.

    Raises:
        GuidanceError: for calls that cannot be made again.
    """

    def __init__(
        self, calls: Sequence[Made], expected: Tensor, timestep: float, clock: tuple[float, float] | None
    ) -> None:
        self.calls, self.timestep, self.shape = tuple(calls), timestep, expected.shape
        self.slots = [locate(call, expected) for call in calls]
        given = tree_flatten([(call.args, dict(call.kwargs)) for call in calls])[0]
        self._plain = {id(v): plain(v) for v in given if isinstance(v, Tensor) and v.is_inference()}
        told = float(torch.as_tensor(calls[-1].get(self.slots[-1].timestep)).flatten()[0])
        self.clock = clock or next((c for c in _CLOCKS if self._told(c, told)), None)
        if self.clock is None:
            raise GuidanceError(
                f"the network was told {told:g} for the scheduler's timestep {timestep:g}: guide knows t, t / 1000 and "
                "1 - t / 1000"
            )
        main, self.dtype = calls[-1].network, calls[-1].get(self.slots[-1].latents).dtype
        self.passes = sum(slot.repeats for call, slot in zip(calls, self.slots, strict=True) if call.network is main)

    def _told(self, clock: tuple[float, float], told: float) -> bool:
        return abs(clock[0] + clock[1] * self.timestep - told) <= 1e-3 * max(abs(told), 1e-3)

    def recorded(self) -> list[Tensor]:
        """What the networks said then: a tensor (B, ...) for each of their passes."""
        return self._split([call.output for call in self.calls])

    def graphs(self) -> "Graphs | None":
        """The graphs that the calls were made with, if they were."""
        graphs = [call.graph for call in self.calls if call.graph is not None]
        if len(graphs) < len(self.calls):
            return None
        with torch.enable_grad():
            passes = self._split([graph.output for graph in graphs])
        return Graphs([graph.latents for graph in graphs], self.slots, passes, sum(graph.held for graph in graphs))

    def __call__(self, x: Tensor, timestep: float, network: nn.Module | None = None) -> list[Tensor]:
        """What they say of other latents at another timestep, differentiably; or what another network says."""
        replaced = dict(self._plain)
        outputs = []
        for call, slot in zip(self.calls, self.slots, strict=True):
            args, kwargs = tree_map(
                lambda v: replaced.get(id(v), v) if isinstance(v, Tensor) else v, (list(call.args), dict(call.kwargs))
            )
            for key, value in (
                (slot.latents, self._latents(call, slot, x)),
                (slot.timestep, self._clocked(call, slot, timestep)),
            ):
                if isinstance(key, int):
                    args[key] = value
                else:
                    kwargs[key] = value
            output = (network or call.network)(*args, **kwargs)
            outputs.append(output)
            for old, new in zip(_tensors(call.output), _tensors(output), strict=True):
                replaced[id(old)] = new
        return self._split(outputs)

    def _latents(self, call: Made, slot: Slot, x: Tensor) -> Tensor:
        given: Tensor = call.get(slot.latents)
        whole = torch.cat([x.to(given.dtype)] * slot.repeats)
        if slot.axis is None:
            return whole
        length = whole.shape[slot.axis]
        rest = given.narrow(slot.axis, length, given.shape[slot.axis] - length)
        return torch.cat([whole, rest], dim=slot.axis)

    def _clocked(self, call: Made, slot: Slot, timestep: float) -> Any:
        given = call.get(slot.timestep)
        if timestep == self.timestep:
            return given
        assert self.clock is not None
        value = self.clock[0] + self.clock[1] * timestep
        if not isinstance(given, Tensor):
            return value
        return torch.full_like(given, value, dtype=given.dtype if given.is_floating_point() else torch.float32)

    def _split(self, outputs: Sequence[Any]) -> list[Tensor]:
        """The predictions of the network that was called last, cut to the latents' shape, pass by pass."""
        main, parts = self.calls[-1].network, []
        for call, slot, output in zip(self.calls, self.slots, outputs, strict=True):
            if call.network is main:
                parts += list(self._cut(_tensors(output)[0]).chunk(slot.repeats))
        return parts

    def _cut(self, output: Tensor) -> Tensor:
        """Without what is predicted beside the latents: variances, or the tokens of a reference."""
        for axis, length in enumerate(self.shape[1:], start=1):
            output = output.narrow(axis, 0, length)
        return output


@dataclass
class Graphs:
    """The graphs of a pipeline's own calls, good for one gradient: of each pass with respect to the latents."""

    leaves: list[Tensor]
    slots: list[Slot]
    passes: list[Tensor]
    held: int

    def vjp(self, cotangents: Sequence[Tensor]) -> Tensor:
        """sum over passes of (d y_k / d x)^T c_k, (B, ...); the graphs are freed."""
        passes, self.passes = self.passes, []
        gradients = torch.autograd.grad(passes, self.leaves, cotangents)
        parts: list[Tensor] = []
        for gradient, slot in zip(gradients, self.slots, strict=True):
            for axis, length in enumerate(cotangents[0].shape[1:], start=1):
                gradient = gradient.narrow(axis, 0, length)
            parts += gradient.chunk(slot.repeats)
        return torch.stack(parts).sum(dim=0)


def plain(tensor: Tensor) -> Tensor:
    """The tensor, or where it was made in inference mode a copy that can be part of a graph."""
    if not tensor.is_inference():
        return tensor
    with torch.inference_mode(mode=False):
        return tensor.clone()


def _tensors(output: Any) -> list[Tensor]:
    """The tensors of a network's output, in order: a tuple, a dictionary of diffusers', or a tensor."""
    values = output.values() if isinstance(output, Mapping) else output
    return [
        leaf
        for leaf in tree_flatten(list(values) if not isinstance(values, Tensor) else values)[0]
        if isinstance(leaf, Tensor)
    ]
