"""A pipeline's recorded calls, made again with other latents at another timestep."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from symguide.errors import GuidanceError
from symguide.modules import lend_weights, refuse_inference, vjp
from symguide.pipelines.calls import Made, exchanged, links_between, mains, plain, tensors
from symguide.pipelines.earlier import Earlier
from symguide.pipelines.slots import Slot, batch_of, epsilon, locate, timesteps, told_in


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

    Raises:
        GuidanceError: for calls that cannot be made again.
    """

    def __init__(self, calls: Sequence[Made], expected: Tensor, timestep: float, earlier: Earlier) -> None:
        if not calls:
            raise GuidanceError(
                "the pipeline called none of the networks that guide knows before its scheduler's step, so its "
                "prediction cannot be made again: this pipeline cannot be guided"
            )
        self.calls, self.timestep, self.expected = tuple(calls), timestep, expected
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

    def __call__(self, x: Tensor, timestep: float, network: nn.Module | None = None) -> list[Tensor]:
        """What they say of other latents at another timestep, differentiably; or what another network says.

        Raises:
            GuidanceError: if at the latents and timestep that are known they say something else than they did.
        """
        if self.moving and timestep != self.timestep:
            raise GuidanceError(
                f"{type(self.calls[-1].network).__name__} is also given {' and '.join(sorted(self.moving))}, which "
                "changes with time and is not known at other times: look one call ahead only (n=1, as in FreeDoM)"
            )
        replaced = dict(self._plain)
        outputs = []
        for index, (call, slot, told) in enumerate(zip(self.calls, self.slots, self.told, strict=True)):
            clocked = dict.fromkeys(told, self._clocked(call, slot, timestep))
            new = {slot.latents: self._latents(call, slot, x), **clocked}
            replaced |= {id(call.get(key)): value for key, value in new.items() if isinstance(call.get(key), Tensor)}
            args, kwargs = exchanged(replaced, (list(call.args), dict(call.kwargs)))
            for key, value in new.items():
                if isinstance(key, int):
                    args[key] = value
                else:
                    kwargs[key] = value
            refuse_inference(network or call.network)
            output = (network or call.network)(*args, **kwargs)
            lend_weights(output, network or call.network)
            outputs.append(output)
            made = tensors(output)
            replaced |= {id(link.given): link.of(made[link.place]) for link in self.links if link.call == index}
        parts = self._split(outputs)
        if network is None and timestep == self.timestep and torch.equal(x.detach(), self.expected.to(x.dtype)):
            self._refuse_others(parts)
        return parts

    def _refuse_others(self, parts: Sequence[Tensor]) -> None:
        """GuidanceError if these are not what the networks said of the same before."""
        for old, new in zip(self.recorded(), parts, strict=True):
            gap = (old.double() - new.detach().double()).norm()
            if not bool(gap <= 2 * epsilon(old) ** 0.5 * old.double().norm().clamp_min(1e-12)):
                raise GuidanceError(
                    f"{type(self.calls[-1].network).__name__}, called again with what the pipeline gave it, said "
                    "something else: it is random (in train mode?) or keeps state between calls, and cannot be guided"
                )

    def _latents(self, call: Made, slot: Slot, x: Tensor) -> Any:
        value = call.get(slot.latents)
        given = batch_of(value)
        assert given is not None
        whole = torch.cat([slot.laid(x.to(given.dtype))] * slot.repeats)
        if slot.held is not None:
            held = torch.cat([slot.laid(slot.held)] * slot.repeats)
            whole = torch.where(held, slot.part(given, whole.shape), whole)
        if slot.axis is not None:
            rest = slot.beside(call)
            assert rest is not None
            whole = torch.cat([rest, whole] if slot.last else [whole, rest], dim=slot.axis)
        return list(whole.unsqueeze(2).unbind()) if slot.listed else whole

    def _clocked(self, call: Made, slot: Slot, timestep: float) -> Any:
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

    def _cut(self, output: Tensor, call: Made, slot: Slot) -> Tensor:
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
