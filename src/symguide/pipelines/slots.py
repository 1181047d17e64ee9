"""Where a network's call has the latents and the timestep."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from symguide.errors import GuidanceError
from symguide.pipelines.calls import Made


@dataclass(frozen=True)
class Slot:
    """Where the latents and the timestep of a call are.

    Attributes:
        latents: the argument that holds the latents, `repeats` times over.
        repeats: how many batches it holds.
        axis: where the argument has more than the latents, the axis along which they are first or last, else None.
        last: whether they are last.
        listed: whether the argument is a list of samples, each with an axis more, of length 1.
        length: how many the latents have along that axis.
        timestep: the argument with the timestep.
    """

    latents: str | int
    repeats: int
    axis: int | None
    last: bool
    listed: bool
    timestep: str | int
    length: int = 0

    def part(self, whole: Tensor, shape: Sequence[int]) -> Tensor:
        """What belongs to the latents, of this shape, in a tensor that may hold more along its axes."""
        return _part(whole, shape, self.axis, self.last)

    def beside(self, call: Made) -> Tensor | None:
        """What the argument holds besides the latents."""
        given = batch_of(call.get(self.latents))
        if self.axis is None or given is None:
            return None
        more = given.shape[self.axis] - self.length
        return given.narrow(self.axis, 0 if self.last else self.length, more)


def locate(call: Made, expected: Tensor) -> Slot:
    """The slot of a call, by comparing its arguments with the latents that it should have been given.

    Raises:
        GuidanceError: if no argument holds them, or none the timestep.
    """
    everything: list[str | int] = ["hidden_states", "sample", *range(len(call.args)), *call.kwargs]
    for key in dict.fromkeys(key for key in everything if isinstance(key, int) or key in call.kwargs):
        value = call.get(key)
        given = batch_of(value)
        if given is None or (place := _placed(given, expected)) is None:
            continue
        clock = next((name for name in ("timestep", "timesteps") if name in call.kwargs), None)
        if clock is None and len(call.args) < (2 if key == 0 else 1):
            break
        timestep = clock if clock is not None else (1 if key == 0 else 0)
        repeats, length = given.shape[0] // expected.shape[0], 0 if place[0] is None else expected.shape[place[0]]
        return Slot(key, repeats, *place, not isinstance(value, Tensor), timestep, length)
    raise GuidanceError(
        f"{type(call.network).__name__} was not called with the latents that the scheduler is given and a timestep, "
        "so its prediction cannot be made again at other ones: this pipeline cannot be guided"
    )


def timesteps(call: Made, slot: Slot) -> list[str | int]:
    """The argument with the timestep, and others that say the same again, as AceStep's and LTX-2's do."""
    told = call.get(slot.timestep)
    again = [
        name
        for name, value in call.kwargs.items()
        if name != slot.timestep and ("timestep" in name or name == "sigma") and isinstance(value, Tensor)
    ]
    same = [name for name in again if isinstance(told, Tensor) and _same(told, call.kwargs[name])]
    return [slot.timestep, *same]


def _same(a: Tensor, b: Tensor) -> bool:
    return a is b or (a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b))


def batch_of(value: Any) -> Tensor | None:
    """An argument as one batch: a list of samples with an axis of length 1 (Z-Image's frames) without that axis."""
    if isinstance(value, Tensor):
        return value
    if not isinstance(value, list) or not all(isinstance(v, Tensor) and v.ndim == 4 for v in value):
        return None
    alike = len({v.shape for v in value}) == 1 and value[0].shape[1] == 1
    return torch.stack(value).squeeze(2) if alike else None


def _placed(given: Tensor, expected: Tensor) -> tuple[int | None, bool] | None:
    """Along which axis an argument has more than the latents, and whether they are last there; None: they are not."""
    if given.ndim != expected.ndim or given.shape[0] == 0 or given.shape[0] % expected.shape[0]:
        return None
    longer = [d for d in range(1, given.ndim) if given.shape[d] != expected.shape[d]]
    if len(longer) > 1 or any(given.shape[d] < expected.shape[d] for d in longer):
        return None
    axis = longer[0] if longer else None
    whole = torch.cat([expected] * (given.shape[0] // expected.shape[0]))
    return next(((axis, last) for last in (False, True) if _close(_part(given, whole.shape, axis, last), whole)), None)


def _part(given: Tensor, shape: Sequence[int], axis: int | None, last: bool) -> Tensor:
    """The first of what is given along all axes, or along one of them the last."""
    for place, length in enumerate(shape):
        more = given.shape[place] - length
        given = given.narrow(place, more if last and place == axis else 0, length)
    return given


def _close(a: Tensor, b: Tensor) -> bool:
    eps = max(epsilon(t) for t in (a, b))  # single precision at least, which schedulers' sigmas have
    a, b = a.double(), b.double()
    return bool((a - b).abs().max() <= 64 * eps * b.abs().max().clamp_min(1.0))


def epsilon(tensor: Tensor) -> float:
    single = torch.finfo(torch.float32).eps
    return max(torch.finfo(tensor.dtype).eps, single) if tensor.is_floating_point() else single


def told_in(given: Tensor) -> float:
    """The timestep in an argument, which may be 0 in places: where there is no noise, as in a given first frame.

    Raises:
        GuidanceError: if it holds several.
    """
    flat = given.detach().double().flatten()
    told = flat[flat.abs().argmax()]
    if not bool(((flat == told) | (flat == 0)).all()):
        raise GuidanceError(
            "the network is told different timesteps for parts of a sample: this pipeline cannot be guided"
        )
    return float(told)
