"""A pipeline's recorded calls, made again with other latents at another timestep."""

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from symguide.edits import Edit
from symguide.errors import GuidanceError
from symguide.modules import lend_weights, refuse_inference, vjp
from symguide.pipelines.calls import RecordedCall, exchanged, links_between, mains, plain, tensors
from symguide.pipelines.earlier import Earlier
from symguide.pipelines.slots import Slot, batch_of, epsilon, locate, timesteps, told_in
from symguide.private.torch import tree_map


@dataclass(frozen=True)
class Ask:
    """A pass of a pipeline's, by its number, that is to be made again.

    Attributes:
        x: the latents, (B, ...).
        edit: what modules of the network give instead.
        other: what is called in place of the network.
    """

    index: int
    x: Tensor
    edit: Edit | None = None
    other: nn.Module | None = None

    def plain(self, x: Tensor) -> bool:
        """Whether it is the pipeline's own pass at x."""
        return self.edit is None and self.other is None and self.x is x


class Replay:
    """A pipeline's calls as one function of the latents and the timestep.

    Args:
        calls: in order; a later call may be given what an earlier one returned, as a U-Net is by its ControlNet.
        expected: the latents, (B, ...), that the networks were given.
        timestep: the scheduler's timestep of these calls.
        earlier: what earlier steps of the run have shown; it learns from these calls.

    Attributes:
        passes: how many predictions the calls made.
        others: which of them are of another network than the last.
        batched: whether several of them were made in one batch.

    Raises:
        GuidanceError: for calls that cannot be made again.
    """

    def __init__(self, calls: Sequence[RecordedCall], expected: Tensor, timestep: float, earlier: Earlier) -> None:
        if not calls:
            raise GuidanceError(
                "the pipeline called none of the networks that guide knows before its scheduler's step, so its "
                "prediction cannot be made again: this pipeline cannot be guided"
            )
        self.calls, self.timestep, self.expected, self.earlier = tuple(calls), timestep, expected, earlier
        self.slots = [locate(call, expected) for call in calls]
        last, clean = self.slots[-1], self.slots[-1].given(calls[-1])
        self.held = None if last.held is None or clean is None else (last.held, plain(clean).to(expected))
        self.links = links_between(self.calls)
        self.told = [timesteps(call, slot) for call, slot in zip(self.calls, self.slots, strict=True)]
        given = tensors([(call.args, dict(call.kwargs)) for call in calls])
        self._plain = {id(v): plain(v) for v in given if v.is_inference()}
        self.clocks = earlier.tell(torch.as_tensor(calls[-1].get(self.slots[-1].timestep)), timestep)
        self.moving = earlier.moving(calls, self.slots, self.links)
        self.dtype = tensors([calls[-1].get(self.slots[-1].latents)])[0].dtype
        of = [calls[index].network for index in mains(calls) for _ in range(self.slots[index].repeats)]
        self.batched = len(of) > len(mains(calls))
        self.passes, self.others = len(of), [place for place, network in enumerate(of) if network is not of[-1]]

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

    def apart(self, passes: Sequence[int]) -> "Replay":
        """Some of the passes alone, in the order of their numbers, and as often as they are named.

        Those that the pipeline made in one batch are made in one batch again.

        Raises:
            GuidanceError: where rows of what the networks are given cannot be told apart.
        """
        if list(passes) == list(range(self.passes)):
            return self
        predicting, name = mains(self.calls), type(self.calls[-1].network).__name__
        if any(slot.listed for slot in self.slots) or (len(predicting) > 1 and len(predicting) < len(self.calls)):
            raise GuidanceError(f"the passes of {name} cannot be made one without the other: guide with a rule for two")
        if len({slot.repeats for slot in self.slots}) > 1:
            raise GuidanceError(f"the networks beside {name} are called for some of its passes alone: switch that off")
        taken: dict[int, Tensor] = {}  # a tensor stays one tensor wherever it is given
        other, first, kept = copy.copy(self), 0, []
        for index, (call, slot) in enumerate(zip(self.calls, self.slots, strict=True)):
            first = first + self.slots[index - 1].repeats if index > predicting[0] else 0
            own = [p - first for p in passes if 0 <= p - first < slot.repeats]
            taken = {} if len(predicting) > 1 else taken
            if own:
                rows = _Rows(len(self.expected), slot.repeats, own, taken)
                kept.append((rows.of(call), replace(slot, repeats=len(own)), self.told[index]))
        calls, slots, told = zip(*kept, strict=True)
        other.calls, other.slots, other.told, other.passes = calls, list(slots), list(told), len(passes)
        other.links = [replace(link, given=taken.get(id(link.given), link.given)) for link in self.links]
        return other

    def __call__(
        self,
        x: Tensor | Sequence[Tensor],
        timestep: float,
        network: nn.Module | None = None,
        edits: Sequence[Edit | None] = (),
    ) -> list[Tensor]:
        """What they say of other latents at another timestep, differentiably; or what another network says.

        Args:
            x: latents (B, ...), of all passes or of each.
            timestep: the scheduler's.
            network: what is called in place of the one that was.
            edits: of each pass, where there are any.

        Raises:
            GuidanceError: if at the latents and timestep that are known they say something else than they did.
        """
        if self.moving and timestep != self.timestep:
            raise GuidanceError(
                f"{type(self.calls[-1].network).__name__} is also given {' and '.join(sorted(self.moving))}, which "
                "changes with time and is not known at other times: look one call ahead only (n=1, as in FreeDoM)"
            )
        each = [x] * self.passes if isinstance(x, Tensor) else list(x)
        edits = list(edits) or [None] * self.passes
        replaced, predicting, first = dict(self._plain), mains(self.calls), 0
        outputs = []
        for index, (call, slot, told) in enumerate(zip(self.calls, self.slots, self.told, strict=True)):
            mine = slice(first, first + slot.repeats)
            clocked = dict.fromkeys(told, self._clocked(call, slot, timestep))
            latents = [x] * slot.repeats if isinstance(x, Tensor) else each[mine]
            new = {slot.latents: self._latents(call, slot, latents), **clocked}
            replaced |= {id(call.get(key)): value for key, value in new.items() if isinstance(call.get(key), Tensor)}
            args, kwargs = exchanged(replaced, (list(call.args), dict(call.kwargs)))
            for key, value in new.items():
                if isinstance(key, int):
                    args[key] = value
                else:
                    kwargs[key] = value
            asked = network or call.network
            refuse_inference(asked)
            with ExitStack() as stack:
                if index in predicting:
                    first += slot.repeats
                    self._edit(stack, asked, edits[mine])
                output = asked(*args, **kwargs)
            lend_weights(output, asked)
            outputs.append(output)
            made = tensors(output)
            replaced |= {id(link.given): link.of(made[link.place]) for link in self.links if link.call == index}
        parts = self._split(outputs)
        if network is None and timestep == self.timestep:
            self._refuse_others(each, parts, edits)
        return parts

    def _edit(self, stack: ExitStack, network: nn.Module, edits: Sequence[Edit | None]) -> None:
        """Each edit is on for its own rows of a call, until the stack is left."""
        size = len(self.expected)
        for place, edit in enumerate(edits):
            if edit is not None:
                stack.enter_context(edit.on(network, slice(place * size, (place + 1) * size), len(edits) * size))

    def _refuse_others(self, each: Sequence[Tensor], parts: Sequence[Tensor], edits: Sequence[Edit | None]) -> None:
        """GuidanceError if what unedited passes say at the latents that are known is not what they said before."""
        same = {id(x): torch.equal(x.detach(), self.expected.to(x.dtype)) for x in each}
        for x, old, new, edit in zip(each, self.recorded(), parts, edits, strict=True):
            if edit is not None or not same[id(x)]:
                continue
            gap = (old.double() - new.detach().double()).norm()
            if not bool(gap <= 2 * epsilon(old) ** 0.5 * old.double().norm().clamp_min(1e-12)):
                raise GuidanceError(
                    f"{type(self.calls[-1].network).__name__}, called again with what the pipeline gave it, said "
                    "something else: it is random (in train mode?) or keeps state between calls, and cannot be guided"
                )

    def _latents(self, call: RecordedCall, slot: Slot, each: Sequence[Tensor]) -> Any:
        value = call.get(slot.latents)
        given = batch_of(value)
        assert given is not None
        whole = torch.cat([slot.laid(x.to(given.dtype)) for x in each])
        if slot.held is not None:
            held = torch.cat([slot.laid(slot.held)] * slot.repeats)
            whole = torch.where(held, slot.part(given, whole.shape), whole)
        if slot.axis is not None:
            rest = slot.beside(call)
            assert rest is not None
            whole = torch.cat([rest, whole] if slot.last else [whole, rest], dim=slot.axis)
        return list(whole.unsqueeze(2).unbind()) if slot.listed else whole

    def _clocked(self, call: RecordedCall, slot: Slot, timestep: float) -> Any:
        given = call.get(slot.timestep)
        if timestep == self.timestep:
            return given
        value = self._told(timestep, 4 * epsilon(torch.as_tensor(given)))
        if not isinstance(given, Tensor):
            return value
        given = given if given.is_floating_point() else given.to(torch.float32)
        return torch.where(given == told_in(given), value, given).to(given.dtype)

    def _told(self, timestep: float, rounding: float) -> float:
        """What the networks are told at another timestep of the scheduler.

        Raises:
            GuidanceError: where that is not known yet, as several clocks fit what they were told.
        """
        values = [a + b * timestep for a, b in self.clocks]
        if max(values) - min(values) > rounding * max(map(abs, values)):
            raise GuidanceError(
                f"at the timestep t = {self.timestep:g} guide cannot tell whether the network is told t / N or "
                "1 - t / N of N timesteps, which look-aheads need: begin at another one, with another strength, or "
                "look one call ahead only (n=1, as in FreeDoM)"
            )
        return values[0]

    def _split(self, outputs: Sequence[Any]) -> list[Tensor]:
        """The predictions of what was called last and of its like, cut to the latents' shape, pass by pass."""
        parts: list[Tensor] = []
        for index in mains(self.calls):
            call, slot, said = self.calls[index], self.slots[index], tensors(outputs[index])
            whole = torch.stack(said).squeeze(2) if slot.listed else said[0]
            cut = slot.back(self._cut(whole, call, slot), self.expected.shape)
            parts += list(cut.chunk(slot.repeats))
        return parts

    def _shape(self, slot: Slot) -> tuple[int, ...]:
        """Of the latents in a call's argument."""
        return len(self.expected) * slot.repeats, *slot.laid(self.expected[:1]).shape[1:]

    def _cut(self, output: Tensor, call: RecordedCall, slot: Slot) -> Tensor:
        """Without what is predicted beside the latents: variances, or the tokens of a reference."""
        shape = self._shape(slot)
        if (
            output.ndim != len(shape)
            or len(output) != shape[0]
            or any(a < b for a, b in zip(output.shape, shape, strict=True))
        ):
            raise GuidanceError(
                f"{type(call.network).__name__} was given latents of shape {shape} and returned a tensor of shape "
                f"{tuple(output.shape)}, so what it predicts is not known: this pipeline cannot be guided"
            )
        return slot.part(output, shape)


@dataclass(frozen=True)
class _Rows:
    """Rows of some of the batches, of `size` each, that a call holds `repeats` of; `taken` is what was taken so far."""

    size: int
    repeats: int
    batches: Sequence[int]
    taken: dict[int, Tensor]

    def of(self, call: RecordedCall) -> RecordedCall:
        """The call with these rows of all that has a row for each."""
        args, kwargs, output = tree_map(self._take, (call.args, dict(call.kwargs), tensors(call.output)))
        return RecordedCall(call.network, args, kwargs, output)

    def _take(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.ndim or len(value) != self.size * self.repeats:
            return value
        if id(value) not in self.taken:
            chunks = plain(value).chunk(self.repeats)
            self.taken[id(value)] = torch.cat([chunks[place] for place in self.batches])
        return self.taken[id(value)]


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
        gradients = vjp(passes, self.leaves, cotangents)
        parts: list[Tensor] = []
        for gradient, slot in zip(gradients, self.slots, strict=True):
            own, shape = cotangents[0].shape, (len(gradient), *slot.laid(cotangents[0][:1]).shape[1:])
            each = slot.back(slot.part(gradient, shape), own).chunk(slot.repeats)
            parts += each if slot.held is None else [part.masked_fill(slot.held, 0.0) for part in each]
        return torch.stack(parts).sum(dim=0)
