"""Objectives: what to steer toward. Clean samples (B, ...) in, one loss per sample (B,) out, lower is better."""

from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from symguide.errors import ConfigError, GuidanceError, is_number
from symguide.modules import lend_weights, sharing
from symguide.per_sample import particles_now
from symguide.private.torch import version
from symguide.registry import register
from symguide.schedule import Schedule

T = TypeVar("T")


class Draws(Protocol):
    """What an objective may ask of a step: noise that belongs to each sample and to the step, and to nothing else."""

    def draw(self, stream: str, times: int | None = None, shape: Sequence[int] | None = None) -> Tensor:
        """N(0, I), (B, *shape) or (times, B, *shape), the same whenever it is asked for within the step."""


class NoInferenceTensors:
    """Keeps tensors such that gradients may flow past them, also where it is made in inference mode."""

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Tensor) and value.is_inference():
            with torch.inference_mode(mode=False):
                value = value.clone()
        super().__setattr__(name, value)


class Objective(NoInferenceTensors):
    """Base of objectives; they add up and take factors: 0.5 * a + b.

    >>> class Brightness(Objective):
    ...     def __call__(self, x0):
    ...         return -x0.flatten(1).mean(dim=1)
    >>> (2 * Brightness() + Brightness())(torch.ones(2, 4))
    tensor([-3., -3.])
    """

    differentiable = True

    def __call__(self, x0: Tensor) -> Tensor:
        raise NotImplementedError

    def at_step(self, step: Draws) -> Callable[[Tensor], Tensor]:
        """The objective as loss guidance asks it at one step: itself, but for objectives that draw noise."""
        return self

    def __add__(self, other: Any) -> "Objective":
        if isinstance(other, int) and other == 0:
            return self  # as sum() begins
        return Sum([(1.0, self), (1.0, other)])

    __radd__ = __add__

    def __sub__(self, other: Any) -> "Objective":
        return Sum([(1.0, self), (-1.0, other)])

    def __mul__(self, factor: float) -> "Objective":
        return Sum([(factor, self)])

    __rmul__ = __mul__

    def __neg__(self) -> "Objective":
        return Sum([(-1.0, self)])


class Sum(Objective):
    """A weighted sum of objectives (any callables), flat however it was made."""

    def __init__(self, terms: list[tuple[float, Any]]) -> None:
        self.terms: list[tuple[float, Callable[[Tensor], Tensor]]] = []
        for factor, term in terms:
            if not is_number(factor):
                raise ConfigError(f"an objective is multiplied with a number, not {type(factor).__name__}")
            if not callable(term):
                raise ConfigError(f"an objective is added to another callable, not {type(term).__name__}")
            inner = term.terms if isinstance(term, Sum) else [(1.0, term)]
            self.terms += [(float(factor) * f, o) for f, o in inner]

    @property
    def differentiable(self) -> bool:  # type: ignore[override]
        return all(getattr(o, "differentiable", True) for _, o in self.terms)

    def __call__(self, x0: Tensor) -> Tensor:
        losses = [factor * objective(x0) for factor, objective in self.terms]
        return sum(losses[1:], losses[0])

    def at_step(self, step: Draws) -> "Sum":
        return Sum([(factor, at_step(objective, step)) for factor, objective in self.terms])

    def noisy(self, x: Tensor, t: float, schedule: Schedule) -> Tensor:
        """The sum of noise-aware objectives, see `NoisyClassifier`; GuidanceError where one of them is not."""
        losses = [factor * at_noise(objective)(x, t, schedule) for factor, objective in self.terms]
        return sum(losses[1:], losses[0])


def at_step(objective: Callable[[Tensor], Tensor], step: Draws) -> Callable[[Tensor], Tensor]:
    """Any callable as it is asked at a step."""
    return objective.at_step(step) if isinstance(objective, Objective) else objective


def at_noise(objective: Any) -> Callable[[Tensor, float, Schedule], Tensor]:
    """The loss of noisy samples, (x_t (B, ...), t, schedule) -> (B,), of an objective that has one.

    Raises GuidanceError for one that knows clean samples only.
    """
    if not callable(getattr(objective, "noisy", None)):
        raise GuidanceError(
            f"{type(objective).__name__} knows clean samples only, and is asked about noisy ones: give a noise-aware "
            "objective such as objectives.NoisyClassifier (in a pipeline with decode=False), or use FreeDoM or SAG"
        )
    loss: Callable[[Tensor, float, Schedule], Tensor] = objective.noisy
    return loss


@register("objective", "blackbox")
class BlackBox(Objective):
    """A rule without gradients: any callable from clean samples to one number each (tensor, array or list).

    For particle guidance such as `BestOfN`; loss guidance refuses it with a sentence that says so.

    >>> BlackBox(lambda x0: [float(x.sum() > 1) for x in x0])(torch.ones(2, 3))
    tensor([1., 1.])
    """

    differentiable = False

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        if not callable(function):
            raise ConfigError(f"BlackBox takes a callable, not {type(function).__name__}")
        self.function = function

    def __call__(self, x0: Tensor) -> Tensor:
        values = torch.as_tensor(self.function(x0.detach()), device=x0.device)
        if values.shape != (len(x0),):
            raise GuidanceError(f"the rule must return one number per sample, ({len(x0)},), not {tuple(values.shape)}")
        return values if values.is_floating_point() else values.to(x0.dtype)


class Follower:
    """A scorer's network that follows the samples' device and precision (float32 for anything narrower).

    The copies are kept, so a scorer is converted once; the network given is never changed. A copy shares the weights
    that need not be converted.

    Args:
        network: the scorer, a module.
        methods: names of methods that it must have beside being callable.
        preprocess: applied to samples, in the copy's precision, before the network; (B, ...) -> (B, ...).

    Raises:
        ConfigError: for a network that is no module or lacks a method, or a preprocess that is no callable.
    """

    def __init__(self, network: nn.Module, *methods: str, preprocess: Callable[[Tensor], Tensor] | None = None) -> None:
        if not isinstance(network, nn.Module):
            raise ConfigError(f"the network of an objective must be a torch.nn.Module, not {type(network).__name__}")
        for method in methods:
            if not callable(getattr(network, method, None)):
                raise ConfigError(
                    f"this objective needs a network with a method {method}, and {type(network).__name__} has none"
                )
        if preprocess is not None and not callable(preprocess):
            raise ConfigError(f"preprocess takes a callable, not {type(preprocess).__name__}")
        self.network, self.preprocess = network, preprocess
        self._copy = Fixed(self._converted)

    def _converted(self, like: Tensor) -> nn.Module:
        return sharing(self.network).to(device=like.device, dtype=at_least_float32(like)).eval()

    def at(self, like: Tensor) -> Any:
        """The network itself, as it is for samples like these: for its other methods, without a graph."""
        return self._copy(like)

    def __call__(self, x: Tensor, method: str | None = None, *rest: Any) -> Any:
        """network(x, *rest), or network.method(x, *rest)."""
        network = self._copy(x)
        x = x.to(at_least_float32(x))
        x = x if self.preprocess is None else self.preprocess(x)
        made = (network if method is None else getattr(network, method))(x, *rest)
        lend_weights(made, network)
        return made


class Fixed(Generic[T]):
    """What stays the same from call to call, such as the features of a reference: made once for a device and precision.

    Made without a graph of its own, but such that it can be part of one, also where it is made in inference mode.

    >>> ones = Fixed(torch.ones_like)
    >>> ones(torch.zeros(2)) is ones(torch.zeros(2)), ones(torch.zeros(2, dtype=torch.float64)).dtype
    (True, torch.float64)
    """

    def __init__(self, make: Callable[[Tensor], T]) -> None:
        self._make = make
        self._made: dict[tuple[torch.device, torch.dtype], T] = {}

    def __call__(self, like: Tensor) -> T:
        key = (like.device, at_least_float32(like))
        if key not in self._made:
            with torch.inference_mode(mode=False), torch.no_grad():
                self._made[key] = self._make(torch.empty(0, device=like.device, dtype=at_least_float32(like)))
        return self._made[key]


def to_device_of(fixed: Tensor, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """fixed.to(like), or of a dtype that is named; copied to another device once, as every copy waits for a GPU."""
    dtype = dtype or like.dtype
    if fixed.device == like.device:
        return fixed.to(dtype)
    if fixed not in _COPIES:
        _COPIES[fixed] = {}
    key, copies = (like.device, dtype, version(fixed)), _COPIES[fixed]  # changed in place, it is copied again
    if key not in copies:
        copies[key] = fixed.to(like.device, dtype)
    return copies[key]


_COPIES: MutableMapping[Tensor, dict[tuple[torch.device, torch.dtype, int], Tensor]] = WeakTensorKeyDictionary()


def at_least_float32(x: Tensor) -> torch.dtype:
    """The precision that losses of these samples are computed in: theirs, and at least float32.

    >>> at_least_float32(torch.zeros(1, dtype=torch.bfloat16))
    torch.float32
    """
    return torch.promote_types(x.dtype, torch.float32)


def required(network: nn.Module | None, objective: Objective, name: str, *given: str) -> nn.Module:
    """The network of an objective that needs one: there is no default, since none knows all samples.

    Args:
        network: what was given.
        objective: that needs it.
        name: of the objective in OBJECTIVES.
        given: names of the arguments before the network.

    Raises:
        ConfigError: where there is none.
    """
    if network is None:
        made = type(objective).__name__
        raise ConfigError(
            f"{made} needs a network that knows your samples: give one, {made}({', '.join([*given, 'network'])}), or "
            "for samples of an embedded world take the objective with the world's own, "
            f"symguide.worlds.scenes.objective({', '.join([repr(name), *given])})"
        )
    return network


def pictures(reference: Tensor) -> Tensor:
    """One picture (C, H, W) or several (B, C, H, W) as (B, C, H, W).

    Raises:
        ConfigError: for other shapes, and for whole numbers, which would mean 0 to 255.
    """
    if not isinstance(reference, Tensor) or reference.ndim not in (3, 4) or not reference.is_floating_point():
        what = f"{tuple(reference.shape)} of {reference.dtype}" if isinstance(reference, Tensor) else type(reference)
        raise ConfigError(f"a reference is pictures (C, H, W) or (B, C, H, W) of floats in [-1, 1], not {what}")
    return reference if reference.ndim == 4 else reference[None]


def rows_for(target: Tensor, x0: Tensor, what: str) -> Tensor:
    """A target with a row for every row of x0: of one target for all, or of one for each sample.

    A sample has one row, or in a run with K particles the K rows that follow each other.
    """
    particles = particles_now()
    if len(target) in (1, len(x0)):
        return target.expand(len(x0), *target.shape[1:])
    if len(target) * particles == len(x0):
        return target.repeat_interleave(particles, dim=0)
    raise ConfigError(
        f"{what} has {len(target)} rows, and there are {len(x0) // particles} samples: give one for all or one for each"
    )
