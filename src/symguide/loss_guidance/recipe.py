"""What all loss guidance shares: when it acts, how often a step is repeated, and what is done with bad numbers.

A recipe says in `push` what the objective's gradient does to the clean estimate and to x_s. Everything else (window,
time travel, the constraint, the trace, non-finite losses) is here, once.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, get_args

import torch
from torch import Tensor

from symguide.errors import ConfigError, GuidanceError
from symguide.loss import Objective, finite, not_finite
from symguide.objectives.base import at_step
from symguide.per_sample import expand, norm
from symguide.ranges import Around, Domain, Maybe, Range, Ranges
from symguide.ranges import Window as Windows
from symguide.step import Guided, Run, Step

Window = tuple[float, float] | Callable[[Step], bool]
OverTime = float | Callable[[float], float]
Count = int | Callable[[float], int]
Eps = Literal["own", "anew"]
EPS: tuple[str, ...] = get_args(Eps)


class Push(NamedTuple):
    """What a recipe wants at a step: the gradient and loss (for the trace), and changes of x_0 and of x_s.

    With a changed x_0 a step may keep the network's own eps, so that alpha_s of the change arrives in x_s whatever the
    solver, or find eps anew from x_t and the changed x_0, which takes a part of it back (`Step.x0_weight`).
    """

    gradient: Tensor
    loss: Tensor
    x0: Tensor | None = None
    x_s: Tensor | None = None
    eps: Eps = "own"

    def apply(self, step: Step) -> Tensor:
        """x_s with these changes."""
        if self.x0 is not None and self.eps == "anew":
            x_s = step.x_s(step.prediction.x0 + self.x0)
            return x_s if self.x_s is None else x_s + self.x_s
        return step.x_s() + self.change(step)

    def change(self, step: Step) -> Tensor:
        """Both changes as one of x_s; a straight step's where eps is found anew. Zero where nothing is pushed."""
        change = torch.zeros_like(step.x) if self.x_s is None else self.x_s
        if self.x0 is None:
            return change
        weight = step.schedule.alpha(step.s) if self.eps == "own" else step.x0_weight
        return change + weight * self.x0


class Constraint(Protocol):
    """Where a guided x_s may lie, whatever the recipe; see `symguide.Sphere`."""

    def prepare(self, run: Run) -> None: ...

    def __call__(self, step: Step, change: Tensor) -> Tensor: ...


class Recipe(ABC):
    """Base of loss guidance.

    Args:
        objective: clean samples (B, ...) -> loss (B,).
        scale: strength; 0 is off (no call is spent).
        window: (start, stop), fractions of the steps, start <= i / steps < stop; or a function of the step, such as
            `noise_window(low, high)`.
        repeats: how often a guided step is made, with time travel between; a number or a function of t.
        constraint: e.g. Sphere(0.1), which keeps x_s on DSG's sphere.
    """

    fixed: ClassVar[tuple[str, ...]] = ()
    """Parameters of a base class that a recipe sets itself and does not take."""

    ranges: ClassVar[Ranges] = {
        "scale": Around(8.0),
        "window": Windows(Range(0.0, 0.4), Range(0.6, 1.0)),
        "repeats": Range(1, 3),
        "constraint": Maybe(Range(0.02, 0.8, log=True)),
    }
    """Where `symguide.tune` looks for what a class adds (`constraint`: a rate of `Sphere`); None is nowhere."""

    def __init__(
        self,
        objective: Any,
        scale: float = 1.0,
        window: Window = (0.0, 1.0),
        repeats: Count = 1,
        constraint: Constraint | None = None,
    ) -> None:
        if not callable(objective):
            raise ConfigError(f"an objective is a callable x0 -> loss (B,), not {type(objective).__name__}")
        if not getattr(objective, "differentiable", True):
            raise GuidanceError(
                f"{type(self).__name__} needs gradients and the objective is a black box: use a differentiable "
                "objective here, or particle guidance such as BestOfN(objective) with this one"
            )
        if not callable(window) and not 0 <= window[0] < window[1] <= 1:
            raise ConfigError(
                f"window is (start, stop) with 0 <= start < stop <= 1, fractions of the steps, not {window}"
            )
        if not callable(repeats) and (isinstance(repeats, bool) or repeats != int(repeats) or repeats < 1):
            raise ConfigError(f"repeats must be a whole number, at least 1, not {repeats!r}")
        if not scale >= 0:
            raise ConfigError(f"scale must not be negative, and is {scale}: to go uphill use -1 * objective")
        self.objective, self.scale, self.window = objective, float(scale), window
        self.repeats, self.constraint = repeats, constraint

    @classmethod
    def parameters(cls) -> dict[str, Any]:
        """Its parameters beside the objective, with defaults, those that it hands on to its base class included."""
        found: dict[str, Any] = {}
        for base in cls.__mro__:
            if base is object or "__init__" not in vars(base):
                continue
            own = list(inspect.signature(base.__init__).parameters.values())[2:]  # type: ignore[misc]
            found = {p.name: p.default for p in own if p.kind is not p.VAR_KEYWORD} | found
            if not any(p.kind is p.VAR_KEYWORD for p in own):
                break
        return {name: default for name, default in found.items() if name not in cls.fixed}

    @classmethod
    def search_space(cls, **defaults: Any) -> dict[str, Domain]:
        """The ranges of its parameters by name, around these defaults where they are not its own.

        >>> from symguide import SAG
        >>> SAG.search_space(scale=0.1)["scale"]
        Range(low=0.0125, high=0.8, log=True)
        """
        known = {**cls.parameters(), **defaults}
        found: dict[str, Domain | Around | None] = {}
        for base in reversed(cls.__mro__):
            found |= vars(base).get("ranges", {})
        return {
            name: domain.of(known[name]) if isinstance(domain, Around) else domain
            for name, domain in found.items()
            if name in known and domain is not None
        }

    def objective_at(self, step: Step) -> Objective:
        """The objective that is asked at this step, with the step's own noise where it draws some."""
        return at_step(self.objective, step)

    @abstractmethod
    def push(self, step: Step) -> Push:
        """The recipe's gradient and the changes it wants."""

    @property
    def guides_last(self) -> bool:
        """Whether the last step, to sigma = 0, is guided. It has no noise, so a step as long as its noise is none."""
        return self.constraint is None

    def prepare(self, run: Run) -> None:
        if self.scale > 0 and not callable(self.window):
            begin, end = self.window
            last = run.steps if self.guides_last else run.steps - 1
            if not any(begin <= i / run.steps < end for i in range(last)):
                but = "" if self.guides_last else " (the last step, to sigma = 0, is left unguided)"
                raise ConfigError(
                    f"no step of {run.steps} lies in the window {self.window}{but}: widen it or use more steps"
                )
        if self.constraint is not None:
            self.constraint.prepare(run)

    def active(self, step: Step) -> bool:
        """Whether the step is guided."""
        if self.scale == 0 or (step.index == step.run.steps - 1 and not self.guides_last):
            return False
        if callable(self.window):
            return self.window(step)
        return self.window[0] <= step.index / step.run.steps < self.window[1]

    def repeats_at(self, step: Step) -> int:
        if not self.active(step):
            return 1
        times = self.repeats(step.t) if callable(self.repeats) else int(self.repeats)
        if times < 1:
            raise ConfigError(f"repeats gave {times} at t = {step.t:.4f}: it must be at least 1")
        return times

    def guide(self, step: Step) -> Guided | None:
        if not self.active(step):
            return None
        push = self.push(step)
        length = norm(push.gradient).flatten()
        if step.run.on_nan == "raise":
            step.require(finite(push.loss, length), lambda: not_finite(push.loss, length))
        x_s = push.apply(step) if self.constraint is None else self.constraint(step, push.change(step))
        if step.run.on_nan == "skip":
            bad = ~finite(push.loss, length)
            if bad.device.type != "cpu" or bool(bad.any()):  # a GPU is not asked: the loop would wait for it
                x_s = torch.where(expand(bad, x_s), step.x_s(), x_s)
        return Guided(x_s, push.loss, length)


def noise_window(low: float, high: float) -> Callable[[Step], bool]:
    """A window of noise: guide where low <= sigma / alpha <= high at the step's start.

    >>> noise_window(5.0, 1.0)
    Traceback (most recent call last):
    symguide.errors.ConfigError: noise_window(low, high) needs 0 <= low < high, not (5.0, 1.0)
    """
    if not 0 <= low < high:
        raise ConfigError(f"noise_window(low, high) needs 0 <= low < high, not ({low}, {high})")
    return lambda step: low <= step.schedule.ratio(step.t) <= high


def at(value: OverTime, t: float) -> float:
    """A number, or a function of t at t."""
    return value(t) if callable(value) else value
