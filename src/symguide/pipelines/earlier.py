"""What the earlier steps of a run have shown of a pipeline: how it tells time, and what else changes with time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from symguide.errors import GuidanceError
from symguide.pipelines.calls import Link, RecordedCall, tensors
from symguide.pipelines.combine import Affine, Combine
from symguide.pipelines.slots import Slot, epsilon, timesteps, told_in

LinearClock = tuple[float, float]
"""(a, b) of what networks are told for the scheduler's timestep t: a + b t."""
OF_TIME = ("audio_hidden_states", "timestep_r")
"""Arguments that are known to belong to a step: the noisy sound of LTX-2, and where a step of MeanFlow ends."""
_TensorIn = tuple[int, str | int, int]


def clocks(steps: float) -> tuple[LinearClock, ...]:
    """All clocks that guide knows, for a scheduler of so many timesteps: t, t / steps, 1 - t / steps and t - 1."""
    return tuple(dict.fromkeys([(0.0, 1.0), (0.0, 1 / steps), (1.0, -1 / steps), (-1.0, 1.0)]))


@dataclass
class Earlier:
    """What is known before a step, and learns from it.

    Attributes:
        clocks: those that fit all that networks were told so far.
        beside: what they were given beside latents and timestep in the last step.
        changed: the arguments that changed before the last step; None before there were two.
        rule: how the pipeline combined its passes in the last step, where it does not say so itself.
        apart: whether passes of a batch were seen to say the same when they are made one without the other.
    """

    clocks: tuple[LinearClock, ...]
    beside: Mapping[_TensorIn, Tensor] = field(default_factory=dict)
    changed: frozenset[str] | None = None
    rule: Affine | None = None
    apart: bool = False

    def tell(self, given: Tensor, timestep: float) -> tuple[LinearClock, ...]:
        """The clocks that fit what a network was told at a timestep of the scheduler.

        Raises:
            GuidanceError: if there is none.
        """
        told, eps = told_in(given), epsilon(given)

        def fitting(tolerance: float) -> tuple[LinearClock, ...]:
            return tuple(
                (a, b)
                for a, b in self.clocks
                if abs(a + b * timestep - told) <= tolerance * max(abs(told), abs(a), abs(b * timestep))
                and (given.is_floating_point() or abs(b) == 1)
            )

        # half precision rounds what is told, and some pipelines have rounded it before; a known clock must still go
        found = fitting(4 * eps) or fitting(max(1e-3, 4 * eps)) or (fitting(0.02) if len(self.clocks) == 1 else ())
        if not found:
            raise GuidanceError(
                f"the network was told {told:g} for the scheduler's timestep {timestep:g}: guide knows t, t - 1, "
                "t / N and 1 - t / N of N timesteps, so this pipeline cannot be guided"
            )
        self.clocks = found
        return found

    def moving(self, calls: Sequence[RecordedCall], slots: Sequence[Slot], links: Sequence[Link]) -> frozenset[str]:
        """Names of what else networks are given that changes with time.

        What a callback changes once, such as a prompt, does not: it counts from the first step on, or twice in a row.
        """
        now, first = _beside(calls, slots, links), not self.beside
        named = {str(place[1]) for place in now if place[1] in OF_TIME}
        changed = frozenset(
            str(place[1])
            for place, value in now.items()
            if (old := self.beside.get(place)) is not None and old is not value and _differ(old, value)
        )
        again = changed if self.changed is None else changed & self.changed
        self.beside, self.changed = now, None if first else changed
        return frozenset(named) | again

    def steady(self, rule: Combine, pipeline: str) -> None:
        """Weights that a pipeline does not say must be those of the step before: others depend on the predictions.

        Raises:
            GuidanceError: if they are not.
        """
        found = rule if isinstance(rule, Affine) and not rule.said else None
        old, self.rule = self.rule, found
        if old is None or found is None or len(old.weights) != len(found.weights):
            return
        if bool((old.weights - found.weights).abs().max() > 0.01 * found.weights.abs().max().clamp_min(1)):
            raise GuidanceError(
                f"{pipeline} weighs its network's outputs otherwise in every step, so the weights depend on the "
                "predictions or on time (APG's threshold, adaptive scales): switch that off"
            )


def _beside(calls: Sequence[RecordedCall], slots: Sequence[Slot], links: Sequence[Link]) -> dict[_TensorIn, Tensor]:
    """What the networks are given besides: all floating tensors but latents, timesteps and what helpers returned."""
    found: dict[_TensorIn, Tensor] = {}
    for index, (call, slot) in enumerate(zip(calls, slots, strict=True)):
        known = (slot.latents, *timesteps(call, slot))
        own = {id(call.get(key)) for key in known} | {id(link.given) for link in links}
        arguments: list[tuple[int | str, Any]] = [*enumerate(call.args), *call.kwargs.items()]
        for key, value in arguments:
            for place, tensor in enumerate([] if key in known else tensors(value)):
                if id(tensor) not in own and tensor.is_floating_point():
                    found[index, key, place] = tensor
        if (rest := slot.beside(call)) is not None:
            found[index, slot.latents, -1] = rest
        if (held := slot.given(call)) is not None:
            found[index, slot.latents, -2] = held
    return found


def _differ(old: Tensor, new: Tensor) -> bool:
    return old.shape == new.shape and old.dtype == new.dtype and not torch.equal(old, new)
