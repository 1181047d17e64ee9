"""Objectives: what to steer toward. Clean samples (B, ...) in, one loss per sample (B,) out, lower is better."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from symguide.errors import ConfigError, GuidanceError


class Objective:
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

    def __add__(self, other: Any) -> "Objective":
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
            if isinstance(factor, bool) or not isinstance(factor, int | float):
                raise ConfigError(f"an objective is multiplied with a number, not {type(factor).__name__}")
            if not callable(term):
                raise ConfigError(f"an objective is added to another callable, not {type(term).__name__}")
            inner = term.terms if isinstance(term, Sum) else [(1.0, term)]
            self.terms += [(factor * f, o) for f, o in inner]

    @property
    def differentiable(self) -> bool:  # type: ignore[override]
        return all(getattr(o, "differentiable", True) for _, o in self.terms)

    def __call__(self, x0: Tensor) -> Tensor:
        losses = [factor * objective(x0) for factor, objective in self.terms]
        return sum(losses[1:], losses[0])


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

    The copies are kept, so a scorer is converted once; the network given is never changed.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._copies: dict[tuple[torch.device, torch.dtype], nn.Module] = {}

    def __call__(self, x: Tensor) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        key = (x.device, dtype)
        if key not in self._copies:
            copied = copy.deepcopy(self.network).to(device=x.device, dtype=dtype).eval().requires_grad_(False)
            self._copies[key] = copied
        return self._copies[key](x.to(dtype))


def rows_for(target: Tensor, x0: Tensor, what: str) -> Tensor:
    """A target with a row for every sample: one for all, one for each, or one for each group of particles."""
    if len(target) in (1, len(x0)):
        return target.expand(len(x0), *target.shape[1:])
    if len(x0) % len(target) == 0:
        return target.repeat_interleave(len(x0) // len(target), dim=0)
    raise ConfigError(
        f"{what} has {len(target)} rows, and there are {len(x0)} samples: give one for all or one for each"
    )
