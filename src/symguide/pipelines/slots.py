"""Where a network's call has the latents and the timestep."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from symguide.errors import GuidanceError
from symguide.pipelines.calls import RecordedCall


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
        tokens: whether it holds the latents of a video as a row of tokens.
        held: the places, (B, ...), where networks are given something clean, whatever the latents are there.
    """

    latents: str | int
    repeats: int
    axis: int | None
    last: bool
    listed: bool
    timestep: str | int
    length: int = 0
    tokens: bool = False
    held: Tensor | None = None

    def laid(self, x: Tensor) -> Tensor:
        """Latents as the argument has them."""
        return as_tokens(x) if self.tokens else x

    def back(self, part: Tensor, shape: Sequence[int]) -> Tensor:
        """Latents, of this shape but for the rows, of what the argument has."""
        return as_video(part, shape) if self.tokens else part

    def part(self, whole: Tensor, shape: Sequence[int]) -> Tensor:
        """What belongs to the latents, of this shape, in a tensor that may hold more along its axes."""
        return _part(whole, shape, self.axis, self.last)

    def beside(self, call: RecordedCall) -> Tensor | None:
        """What the argument holds besides the latents."""
        given = batch_of(call.get(self.latents))
        if self.axis is None or given is None:
            return None
        more = given.shape[self.axis] - self.length
        return given.narrow(self.axis, 0 if self.last else self.length, more)

    def given(self, call: RecordedCall) -> Tensor | None:
        """What the argument holds at the places that are held, with 0 at all others, laid as the latents; or None."""
        whole = batch_of(call.get(self.latents))
        if self.held is None or whole is None:
            return None
        laid = self.laid(self.held)
        own = self.back(self.part(whole, (len(whole), *laid.shape[1:]))[: len(laid)], self.held.shape)
        return torch.where(self.held, own, 0.0)


def locate(call: RecordedCall, expected: Tensor) -> Slot:
    """The slot of a call, by comparing its arguments with the latents that it should have been given.

    Raises:
        GuidanceError: if no argument holds them, or none the timestep.
    """
    everything: list[str | int] = ["hidden_states", "sample", *range(len(call.args)), *call.kwargs]
    for key in dict.fromkeys(key for key in everything if isinstance(key, int) or key in call.kwargs):
        value = call.get(key)
        given = batch_of(value)
        clock = next((name for name in ("timestep", "timesteps") if name in call.kwargs), None)
        tokens = given is not None and given.ndim == 3 and expected.ndim == 5
        laid = as_tokens(expected) if tokens else expected
        held = None if given is None or clock is None else told_clean(call.kwargs[clock], given, laid)
        if given is None or (place := _placed(given, laid, held)) is None:
            continue
        if clock is None and len(call.args) < (2 if key == 0 else 1):
            break
        timestep = clock if clock is not None else (1 if key == 0 else 0)
        repeats, length = given.shape[0] // expected.shape[0], 0 if place[0] is None else laid.shape[place[0]]
        if held is not None:
            held = _part(held, (*given.shape[:1], *laid.shape[1:]), *place)[: len(laid)]
            held = as_video(held, expected.shape) if tokens else held
            held = held if bool(held.any()) else None
        return Slot(key, repeats, *place, not isinstance(value, Tensor), timestep, length, tokens, held)
    raise GuidanceError(
        f"{type(call.network).__name__} was not called with the latents that the scheduler is given and a timestep, "
        "so its prediction cannot be made again at other ones: this pipeline cannot be guided"
    )


def timesteps(call: RecordedCall, slot: Slot) -> list[str | int]:
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


def as_tokens(z: Tensor) -> Tensor:
    """A video (B, C, F, H, W) as a row of tokens (B, F H W, C)."""
    return z.flatten(2).transpose(1, 2)


def as_video(tokens: Tensor, shape: Sequence[int]) -> Tensor:
    """Of such a row, the videos of this shape but for the rows."""
    return tokens.transpose(1, 2).reshape(len(tokens), tokens.shape[2], *shape[2:])


def told_clean(told: Any, given: Tensor, laid: Tensor) -> Tensor | None:
    """The places of an argument, as broad as it, of which networks are told that nothing there is noise.

    They are told a timestep for every token, which is 0 there. Tokens are those of the argument, or patches of frames.
    """
    if not isinstance(told, Tensor) or told.ndim != 2 or len(told) != len(given) or not bool((told == 0).any()):
        return None
    if given.ndim == 3 and told.shape[1] == given.shape[1]:
        return (told == 0)[:, :, None].expand(given.shape)
    if given.ndim == 5 and given.shape == (len(told), *laid.shape[1:]) and told.shape[1] % given.shape[2] == 0:
        frames = (told == 0).reshape(len(told), given.shape[2], -1)
        if bool((frames == frames[:, :, :1]).all()):
            return frames[:, None, :, :1, None].expand(given.shape)
    return None


def _placed(given: Tensor, expected: Tensor, held: Tensor | None = None) -> tuple[int | None, bool] | None:
    """Along which axis an argument has more than the latents, and whether they are last there; None: they are not.

    Where places are held, the argument may have there what it likes.
    """
    if given.ndim != expected.ndim or given.shape[0] == 0 or given.shape[0] % expected.shape[0]:
        return None
    longer = [d for d in range(1, given.ndim) if given.shape[d] != expected.shape[d]]
    if len(longer) > 1 or any(given.shape[d] < expected.shape[d] for d in longer):
        return None
    axis = longer[0] if longer else None
    whole = torch.cat([expected] * (given.shape[0] // expected.shape[0]))

    def there(last: bool) -> bool:
        own = _part(given, whole.shape, axis, last)
        if held is not None:
            own = torch.where(_part(held, whole.shape, axis, last), whole.to(own), own)
        return _close(own, whole)

    return next(((axis, last) for last in (False, True) if there(last)), None)


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
