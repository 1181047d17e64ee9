"""Denoisers: a network, what it predicts, and the schedule it was trained on.

A `Prediction` holds one network output y and converts it. With x = alpha x_0 + sigma eps and y = p x_0 + q eps,

    x_0 = (q x - sigma y) / (alpha q - sigma p),    eps = (alpha y - p x) / (alpha q - sigma p)

so every space is linear in (x, y), and whatever is affine in y with weights that sum to 1 gives the same step in all.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from symguide.condition import as_floats_of, rows_of, scalar
from symguide.errors import ConfigError, GuidanceError, unknown
from symguide.half import in_dtype
from symguide.modules import differentiable, frozen, lend_weights, look_again, modules_of, refuse_training
from symguide.per_sample import by_frame, expand
from symguide.private.torch import version
from symguide.schedule import VP, Schedule, Time

SPACES = ("eps", "x0", "v", "flow")
Level = Time | Tensor
"""When: a t for all, or for each frame (a tuple), or for each sample (B,)."""
Weight = float | Tensor
"""What alpha and sigma are there: a number, (B,) or (B, F)."""


def times(level: Weight | tuple[float, ...], x: Tensor) -> Tensor:
    """level x, with a level for all samples or one for each, or for each frame."""
    level = by_frame(level, x) if isinstance(level, tuple) else level
    return x * (expand(level, x).to(x) if isinstance(level, Tensor) and level.ndim else level)


@dataclass(frozen=True)
class Prediction:
    """One output `value` of a network at x, in `space` ("eps", "x0", "v" or "flow"), converting to all others.

    `v` is the schedule's own velocity (VP: alpha eps - sigma x_0, VE: eps, rectified flow: eps - x_0); `flow` is
    eps - x_0 everywhere; score = -eps / sigma. `shift` is what a prediction guidance added, in eps, where it did.

    >>> p = Prediction(torch.tensor([[1.0]]), torch.tensor([[0.5]]), "eps", alpha=0.8, sigma=0.6, v_weights=(-0.6, 0.8))
    >>> round(p.x0.item(), 3), round(p.score.item(), 3)
    (0.875, -0.833)
    """

    x: Tensor
    value: Tensor
    space: str
    alpha: Weight
    sigma: Weight
    v_weights: tuple[Weight, Weight]
    shift: Tensor | None = None

    @cached_property
    def x0(self) -> Tensor:
        """The clean estimate, E[x_0 | x_t] for a perfect network."""
        if self.space == "x0":
            return self.value
        if self.space == "eps":
            if not isinstance(self.alpha, Tensor) and self.alpha == 0:
                raise ConfigError(
                    "where alpha = 0 an eps prediction says nothing of x_0: start later, at a t_max below 1"
                )
            return times(1 / self.alpha, self.x - times(self.sigma, self.value))
        p, q = self._weights
        det = self.alpha * q - self.sigma * p
        return times(q / det, self.x) - times(self.sigma / det, self.value)

    @cached_property
    def eps(self) -> Tensor:
        """The noise estimate, E[eps | x_t]."""
        if self.space == "eps":
            return self.value
        if self.space == "x0":
            return times(1 / self.sigma, self.x - times(self.alpha, self.value))
        p, q = self._weights
        det = self.alpha * q - self.sigma * p
        return times(self.alpha / det, self.value) - times(p / det, self.x)

    @property
    def v(self) -> Tensor:
        """The schedule's velocity."""
        p, q = self.v_weights
        return self.value if self.space == "v" else times(p, self.x0) + times(q, self.eps)

    @property
    def flow(self) -> Tensor:
        """eps - x_0, the rectified-flow velocity."""
        return self.value if self.space == "flow" else self.eps - self.x0

    @property
    def score(self) -> Tensor:
        """Gradient of log p_t at x, -eps / sigma."""
        return times(-1 / self.sigma, self.eps)

    @property
    def _weights(self) -> tuple[Weight, Weight]:
        return self.v_weights if self.space == "v" else (-1.0, 1.0)

    def with_value(self, value: Tensor, shift: Tensor | None = None) -> "Prediction":
        """The same point with another value in the same space."""
        return replace(self, value=value, shift=shift)

    def with_x0(self, x0: Tensor) -> "Prediction":
        """The same point with another clean estimate (and the eps that goes with it)."""
        return replace(self, value=x0, space="x0")

    def detach(self) -> "Prediction":
        """The prediction without its graph."""
        return replace(self, x=self.x.detach(), value=self.value.detach())

    def rows(self, index: Tensor) -> "Prediction":
        """The prediction of these rows of the batch."""

        def of(level: Any) -> Any:
            return level[index] if isinstance(level, Tensor) and level.ndim else level

        levels = {"alpha": of(self.alpha), "sigma": of(self.sigma), "v_weights": tuple(map(of, self.v_weights))}
        return replace(self, x=self.x[index], value=self.value[index], shift=of(self.shift), **levels)

    def chunk(self, parts: int) -> list["Prediction"]:
        """The prediction of a batch made of `parts` batches, taken apart again."""

        def split(level: Weight) -> Sequence[Weight]:
            return level.chunk(parts) if isinstance(level, Tensor) and level.ndim else [level] * parts

        columns = (self.x.chunk(parts), self.value.chunk(parts), split(self.alpha), split(self.sigma))
        weights = zip(split(self.v_weights[0]), split(self.v_weights[1]), strict=True)
        return [Prediction(x, y, self.space, a, s, w) for x, y, a, s, w in zip(*columns, weights, strict=True)]


@dataclass
class Counter:
    """Network evaluations, counted in rows (samples x passes) where they happen."""

    forward: int = 0
    backward: int = 0


class Denoiser:
    """A network with its schedule and prediction type: denoiser(x, t, **condition) -> Prediction.

    Args:
        network: any callable (x, timestep, **condition) -> tensor like x, with x (B, ...) and timestep (B,).
            x and floating conditions are cast to the network's own floating type, and the output back to x's. A
            network that changes x in place is given a copy each time.
        schedule: the schedule that it was trained on.
        predicts: "eps", "x0", "v" (the schedule's velocity) or "flow" (eps - x_0).
        shape: shape of one sample, where the model knows it.
        null: the condition that stands for "no condition", e.g. {"label": 10}, for classifier-free guidance.
        decoder: where samples are latents, what makes pictures of them: a callable, latents (B, ...) -> pictures.

    Raises:
        ConfigError: for an unknown prediction type, or an output that is not a tensor of x's shape.

    >>> denoiser = Denoiser(lambda x, timestep: 0 * x, schedule=VP.linear(), predicts="eps")
    >>> denoiser(torch.ones(2, 3), 0.5).x0.shape
    torch.Size([2, 3])
    """

    def __init__(
        self,
        network: Callable[..., Tensor],
        schedule: Schedule | None = None,
        predicts: str = "eps",
        *,
        shape: Sequence[int] | None = None,
        null: Mapping[str, Any] | None = None,
        decoder: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if predicts not in SPACES:
            raise unknown("prediction type", predicts, SPACES)
        if not callable(network):
            raise ConfigError(
                f"network must be a callable (x, timestep, **condition) -> tensor, not {type(network).__name__}"
            )
        self.network, self.schedule, self.predicts = network, schedule or VP.linear(), predicts
        self.shape = None if shape is None else tuple(shape)
        self.null, self.decoder = dict(null or {}), decoder
        self.counter = Counter()
        self.further: Mapping[int, Denoiser] = {}
        """Other models that a rule of prediction guidance asks in its place, by their id, see `beside`."""
        self._in_place: bool | None = None  # whether the network changes its input; None until it was called

    def __call__(self, x: Tensor, t: Level, **condition: Any) -> Prediction:
        """The prediction at (x, t), t in (0, 1], a float or (B,). Cost: one forward call.

        A tuple is a t for each frame (axis 1 of x), in [0, 1], of which the network is given (B, F). A frame at t = 0
        is clean and its own estimate; the network is told 0 of it.
        """
        self.counter.forward += len(x)
        return self._said(x, t, self._evaluate(x, t, condition))

    def told(self, x: Tensor, t: Level, timestep: Tensor, condition: Mapping[str, Any]) -> Prediction:
        """The prediction at (x, t) of a network that is told these timesteps, (B,) or (B, F).

        Raises:
            ConfigError: for a model without a network that is told a timestep: one in closed form.
        """
        if type(self)._evaluate is not Denoiser._evaluate:
            raise ConfigError(f"{type(self).__name__} is told no timestep, and another one would change nothing")
        self.counter.forward += len(x)
        return self._said(x, t, self._ask_network(x, timestep, condition))

    def _said(self, x: Tensor, t: Level, value: Tensor) -> Prediction:
        """What the network said at (x, t), as a prediction."""
        if isinstance(t, tuple):
            return self._by_frame(x, t, value)
        schedule = self.schedule
        return Prediction(x, value, self.predicts, schedule.alpha(t), schedule.sigma(t), schedule.v_weights(t))

    def _by_frame(self, x: Tensor, t: tuple[float, ...], value: Tensor) -> Prediction:
        """The prediction of frames that each have a level of their own."""

        def level(of: Callable[[float], float]) -> Weight:
            every = [of(r) for r in t]
            return every[0] if len(set(every)) == 1 else by_frame(every, x)

        schedule = self.schedule
        if self.predicts == "eps" and min(schedule.alpha(r) for r in t) == 0:
            raise ConfigError("where alpha = 0 an eps prediction says nothing of x_0: start frames later, below t = 1")
        if self.predicts == "x0" and 0 in t:
            value = torch.where(expand(by_frame([r == 0 for r in t], x).bool(), x), x, value)
        weights = level(lambda r: schedule.v_weights(r)[0]), level(lambda r: schedule.v_weights(r)[1])
        return Prediction(x, value, self.predicts, level(schedule.alpha), level(schedule.sigma), weights)

    def timestep(self, x: Tensor, t: Level) -> Tensor:
        """What the network is given for t, (B,) or (B, F)."""
        told = self.schedule.timestep
        wide = torch.promote_types(x.dtype, torch.float32)  # a timestep of 999 does not fit bfloat16
        if isinstance(t, tuple):
            return by_frame([told(r) if r > 0 else max(told(r), 0.0) for r in t], x)
        return scalar(told(t), wide, x.device).expand(len(x))

    def decode(self, x0: Tensor) -> Tensor:
        """Pictures of clean samples: the decoder's where samples are latents, x0 itself where they are pictures.

        Differentiable. A decoder that is a module is called in its own floating type, and the result cast back.
        """
        if self.decoder is None:
            return x0
        decoder = differentiable(self.decoder) if torch.is_grad_enabled() else self.decoder
        made = in_dtype(decoder, x0, _dtype(decoder) or x0.dtype)
        lend_weights(made, decoder)
        return made

    def _evaluate(self, x: Tensor, t: Level, condition: Mapping[str, Any]) -> Tensor:
        """What the model says at (x, t), in the space that it predicts in."""
        return self._ask_network(x, self.timestep(x, t), condition)

    def _ask_network(self, x: Tensor, timestep: Tensor, condition: Mapping[str, Any]) -> Tensor:
        """What the network says of x where it is told this timestep."""
        own = self.dtype or x.dtype
        given = {name: as_floats_of(value, own) for name, value in condition.items()}

        def call(x: Tensor) -> Tensor:
            copied = self._in_place is not False or x.is_inference()
            x = x.clone() if copied else x
            theirs = {name: value for name, value in given.items() if value is condition[name]}
            before = _versions(x, theirs)
            out = self.network(x, timestep, **given)
            after = _versions(x, theirs)
            if after != before:
                self._refuse_changes([name for name in before if before[name] != after[name]], copied)
            self._in_place = self._in_place or after["x"] != before["x"]
            if not isinstance(out, Tensor):
                raise ConfigError(
                    f"the network returned {type(out).__name__}, not a tensor: "
                    "wrap it, e.g. lambda x, t, **c: unet(x, t, **c).sample"
                )
            if out.shape != x.shape:
                raise ConfigError(
                    f"the network returned shape {tuple(out.shape)} for x of shape {tuple(x.shape)}: "
                    "wrap it so that it returns the prediction alone (cut off learned variances)"
                )
            return out

        return in_dtype(call, x, own)

    def _refuse_changes(self, changed: Sequence[str], copied: bool) -> None:
        """GuidanceError unless what the network changed in place is x alone, and a copy."""
        others = [name for name in changed if name != "x"]
        if others:
            raise GuidanceError(
                f"the network changes its condition {others[0]!r} in place, which the next call would be given: let it "
                "work on a clone"
            )
        if not copied:
            raise GuidanceError(
                "the network changed its input in place, and did not when it was called first: let it work on a clone"
            )

    @property
    def dtype(self) -> torch.dtype | None:
        """Floating type of the network's parameters; None where it has none."""
        return _dtype(self.network)

    @property
    def device(self) -> torch.device | None:
        """Device of the network's parameters; None where it has none."""
        return next((p.device for p in self._parameters()), None)

    def _parameters(self) -> Iterator[nn.Parameter]:
        return self.network.parameters() if isinstance(self.network, nn.Module) else iter(())

    def to(
        self,
        *target: "torch.device | str | int | torch.dtype | Tensor | Denoiser | None",
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        memory_format: torch.memory_format | None = None,
    ) -> "Denoiser":
        """This denoiser with its network on another device or in another floating type; self where nothing changes.

            denoiser.to("cuda"), denoiser.to(torch.float64), denoiser.to("cuda", torch.float64), denoiser.to(other)

        With memory_format=torch.channels_last the weights of 2D convolutions are laid out as these are fastest.
        The network is copied, never converted in place, so that nobody else's precision changes.

        Args:
            target: a device, a floating type or both, or a tensor or denoiser whose device and type are taken.
            device, dtype, memory_format: the same by name.

        Raises:
            ConfigError: for anything else, and where two devices or types are given.
        """
        devices: list[Any] = [device]
        types = [dtype]
        for each in target:
            if isinstance(each, Tensor | Denoiser):
                devices.append(each.device)
                types.append(each.dtype)
            elif isinstance(each, torch.dtype):
                types.append(each)
            elif each is None or isinstance(each, torch.device | str | int):
                devices.append(each)
            else:
                raise ConfigError(f"to() takes a device, a floating type, a tensor or a denoiser, not {each!r}")
        devices = [value for value in devices if value is not None]
        kinds = [kind for kind in types if kind is not None]
        if len(devices) > 1 or len(kinds) > 1 or not all(kind.is_floating_point for kind in kinds):
            raise ConfigError(f"to() takes one device and one floating type, not {[*devices, *kinds]}")
        device, dtype = devices[0] if devices else None, kinds[0] if kinds else None
        same_device = device is None or self.device is None or torch.device(device) == self.device
        if same_device and (dtype is None or self.dtype in (None, dtype)) and memory_format is None:
            return self
        laid_out = {} if memory_format is None else {"memory_format": memory_format}

        def moved(module: Any) -> Any:
            return copy.deepcopy(module).to(device=device, dtype=dtype, **laid_out)

        other = copy.copy(self)
        if isinstance(self.network, nn.Module):
            other.network = moved(self.network)
        if isinstance(self.decoder, nn.Module):
            other.decoder = moved(self.decoder)
        return other

    def counted(self, counter: Counter, device: torch.device | None = None) -> "Denoiser":
        """The same denoiser, adding its calls to `counter`; its null condition is brought to `device`, if given."""
        other = copy.copy(self)
        other.counter = counter
        other.further = {key: model.counted(counter) for key, model in self.further.items()}
        if device is not None:
            other.null = {name: rows_of(value, device) for name, value in self.null.items()}
        return other

    def differentiable(self) -> "Denoiser":
        """This denoiser, or one with a copy of a network that was made in inference mode, for gradients to pass."""
        network = differentiable(self.network)
        if network is self.network:
            return self
        other = copy.copy(self)
        other.network = network
        return other

    def beside(self, models: Iterable["Denoiser"]) -> "Denoiser":
        """This denoiser with others that rules ask in its place: on its device, counted and frozen with it.

        Raises:
            GuidanceError: where one of them is in training mode.
        """
        other, further = copy.copy(self), {}
        for model in models:
            refuse_training(model.network)
            further[id(model)] = model.to(self.device).differentiable().counted(self.counter)
        other.further = further
        return other

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """A run: weights of networks and decoder have no requires_grad inside, see `symguide.modules`."""
        look_again()
        further = [model.network for model in self.further.values()]
        with frozen(*modules_of(self.network, self.decoder, *further)):
            yield


def _dtype(network: Any) -> torch.dtype | None:
    """Floating type of a module's parameters; None where there are none."""
    parameters = network.parameters() if isinstance(network, nn.Module) else ()
    return next((p.dtype for p in parameters if p.is_floating_point()), None)


def _versions(x: Tensor, condition: Mapping[str, Any]) -> dict[str, int | None]:
    """How often each tensor was changed in place; None where that is not known, of tensors of inference mode."""
    tensors = {name: value for name, value in condition.items() if isinstance(value, Tensor)} | {"x": x}
    return {name: None if tensor.is_inference() else version(tensor) for name, tensor in tensors.items()}
