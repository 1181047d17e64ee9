"""What all loss guidance shares: when it acts, how often a step is repeated, and what is done with bad numbers.

A recipe says in `push` what the objective's gradient does to the clean estimate and to x_s. Everything else (window,
time travel, the constraint, the trace, non-finite losses) is here, once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Protocol, get_args

import torch
from torch import Tensor

from symguide.errors import ConfigError, GuidanceError, is_number, number, settle, whole
from symguide.loss import Objective, finite, not_finite
from symguide.objectives.base import at_step
from symguide.per_sample import expand, norm
from symguide.ranges import Around, Choice, Domain, Maybe, Range
from symguide.ranges import Window as Windows
from symguide.registry import named, parameters
from symguide.step import Guided, Run, Step

OverTime = float | Callable[[float], float]
Count = int | Callable[[float], int]
Rule = Callable[[Tensor, Step, Tensor], Tensor]
Eps = Literal["own", "anew", "fresh"]
EPS: tuple[str, ...] = get_args(Eps)


class Push(NamedTuple):
    """What a recipe wants at a step: the gradient and loss (for the trace), and changes of x_0 and of x_s.

    With a changed x_0 a step may keep the network's `own` eps, so that alpha_s of the change arrives in x_s whatever
    the solver; or find eps `anew` from x_t and the changed x_0, which takes a part of it back (`Step.x0_weight`); or
    forget x_t and draw `fresh` noise, x_s = alpha_s x_0' + sigma_s z with the step's own z, whatever eta is, as methods
    do that find x_0' by optimising it.
    """

    gradient: Tensor
    loss: Tensor
    x0: Tensor | None = None
    x_s: Tensor | None = None
    eps: Eps = "own"

    def apply(self, step: Step) -> Tensor:
        """x_s with these changes."""
        if self.x0 is None or self.eps == "own":
            return step.x_s() + self.change(step)
        x0 = step.prediction.x0 + self.x0
        x_s = step.x_s(x0) if self.eps == "anew" else step.fresh(x0)
        return x_s if self.x_s is None else x_s + self.x_s

    def change(self, step: Step) -> Tensor:
        """Both changes as one of x_s, whatever its noise; a straight step's where eps is found anew. Zero for none."""
        change = torch.zeros_like(step.x) if self.x_s is None else self.x_s
        if self.x0 is None:
            return change
        weight = step.x0_weight if self.eps == "anew" else step.schedule.alpha(step.s)
        return change + weight * self.x0


class Constraint(Protocol):
    """Where a guided x_s may lie, whatever the recipe; see `symguide.Sphere`."""

    def prepare(self, run: Run) -> None: ...

    def __call__(self, step: Step, change: Tensor) -> Tensor: ...


# Types of parameters that recipes share, with where `symguide.tune` looks for their values.
Scale = Annotated[float, Around(8.0)]
Window = Annotated[tuple[float, float] | Callable[[Step], bool], Windows(Range(0.0, 0.4), Range(0.6, 1.0))]
Repeats = Annotated[Count, Range(1, 3)]
Constrained = Annotated[Constraint | None, Maybe(Range(0.02, 0.8, log=True))]  # a rate of Sphere
Calls = Annotated[Count | Literal["all"], Range(1, 8, log=True)]
Jacobian = Annotated[str, Choice("exact", "first")]
Path = Literal["ode", "own"]  # without noise, or where the run will go
AnyPath = Literal["ode", "own", "fresh"]  # or with noise of its own


@dataclass(frozen=True)
class Recipe(ABC):
    """Base of loss guidance. A recipe of yours is a frozen dataclass with `push`, and further fields as it needs them.

    Recipes are values: they never change, so that threads may share one, two with equal settings for one objective are
    equal, and `symguide.registry.to_settings` writes a registered one to a file. What is remembered from step to step
    belongs to the run, `step.run.memory`.

    Args:
        objective: clean samples (B, ...) -> loss (B,).
        scale: strength; 0 is off (no call is spent).
        window: (start, stop), fractions of the steps, start <= i / steps < stop; or a function of the step, such as
            `noise_window(low, high)`.
        repeats: how often a guided step is made, with time travel between; a number or a function of t.
        constraint: e.g. Sphere(0.1), which keeps x_s on DSG's sphere.
    """

    by_frame: ClassVar[bool] = False
    """Whether it guides runs whose frames have noise levels of their own; `step.t` is that of the noisiest."""

    unguided: ClassVar[str] = "the last step, to sigma = 0, is left unguided"
    """Which steps are not guided even in the window."""

    objective: Any
    _: KW_ONLY
    scale: Scale = 1.0
    window: Window = (0.0, 1.0)
    repeats: Repeats = 1
    constraint: Constrained = None

    def __post_init__(self) -> None:
        if not callable(self.objective):
            raise ConfigError(f"an objective is a callable x0 -> loss (B,), not {self.objective!r}")
        if not getattr(self.objective, "differentiable", True):
            raise GuidanceError(
                f"{type(self).__name__} needs gradients and the objective is a black box: use a differentiable "
                "objective here, or particle guidance such as BestOfN(objective) with this one"
            )
        settle(self, window=checked_window(self.window), repeats=checked_count("repeats", self.repeats))
        if is_number(self.scale) and self.scale < 0:
            raise ConfigError(f"scale must not be negative, and is {self.scale}: to go uphill use -1 * objective")
        settle(self, scale=number(self.scale, "scale"))
        if self.constraint is not None and not callable(getattr(self.constraint, "prepare", None)):
            raise ConfigError(f"constraint takes one such as Sphere(0.1), not {self.constraint!r}")

    @classmethod
    def search_space(cls, **defaults: Any) -> dict[str, Domain]:
        """The ranges of its parameters by name, around these defaults where they are not its own.

        >>> from symguide import SAG
        >>> SAG.search_space(scale=0.1)["scale"]
        Range(low=0.0125, high=0.8, log=True)
        """
        return {name: p.domain for name, p in parameters(cls, **defaults).items() if p.domain is not None}

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

    def guides_at(self, run: Run, index: int) -> bool:
        """Whether a step of the run can be guided, if it lies in the window."""
        return index < run.steps - 1 or self.guides_last or run.times[-1] > 0  # where a refiner goes on, it has noise

    def prepare(self, run: Run) -> None:
        if run.levels is not None and not self.by_frame:
            raise ConfigError(f"{type(self).__name__} guides one noise level for all frames: use SAG or FreeDoM here")
        if self.scale > 0 and not callable(self.window):
            begin, end = self.window
            inside = [i for i in range(run.steps) if begin <= i / run.steps < end]
            if not any(self.guides_at(run, i) for i in inside):
                but = f" ({self.unguided})" if inside else ""
                instead = (
                    ", or a recipe that guides the last one, such as MPGD or DPS"
                    if inside and not self.guides_last
                    else ""
                )
                raise ConfigError(
                    f"no step of {run.steps} lies in the window {self.window}{but}: widen it or use more steps{instead}"
                )
        if self.constraint is not None:
            self.constraint.prepare(run)

    def active(self, step: Step) -> bool:
        """Whether the step is guided."""
        if self.scale == 0 or not self.guides_at(step.run, step.index):
            return False
        if callable(self.window):
            return self.window(step)
        return self.window[0] <= step.index / step.run.steps < self.window[1]

    def repeats_at(self, step: Step) -> int:
        return count_at("repeats", self.repeats, step.t) if self.active(step) else 1

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


@named("window")
def noise_window(low: float, high: float) -> Callable[[Step], bool]:
    """A window of noise: guide where low <= sigma / alpha <= high at the step's start.

    >>> noise_window(5.0, 1.0)
    Traceback (most recent call last):
    symguide.errors.ConfigError: noise_window(low, high) needs 0 <= low < high, not (5.0, 1.0)
    """
    low, high = number(low, "low of noise_window"), float("inf") if high == float("inf") else number(high, "high")
    if not 0 <= low < high:
        raise ConfigError(f"noise_window(low, high) needs 0 <= low < high, not ({low}, {high})")
    return lambda step: low <= step.schedule.ratio(step.t) <= high


def checked_window(window: Any) -> Window:
    """A window that was given; ConfigError where it is none."""
    if callable(window):
        made: Window = window
        return made
    if not isinstance(window, Sequence) or isinstance(window, str) or len(window) != 2:
        raise ConfigError(f"window is (start, stop), fractions of the steps, or a function of the step, not {window!r}")
    begin, end = (number(each, f"{which} of a window") for which, each in zip(("start", "stop"), window, strict=True))
    if not 0 <= begin < end <= 1:
        raise ConfigError(f"window is (start, stop) with 0 <= start < stop <= 1, fractions of the steps, not {window}")
    return begin, end


def checked_count(what: str, count: Any) -> Count:
    """A count that was given, a number or a function of t; ConfigError where it is none."""
    made: Count = count if callable(count) else whole(count, what, 1)
    return made


def count_at(what: str, count: Count, t: float) -> int:
    """A count at t."""
    return whole(count(t), f"{what} at t = {t:.4f}", 1) if callable(count) else count


def checked_over_time(what: str, value: Any, **bounds: float) -> OverTime:
    """A number that was given, or a function of t; ConfigError where it is neither."""
    made: OverTime = value if callable(value) else number(value, what, **bounds)
    return made


def value_at(value: OverTime, t: float) -> float:
    """A number, or a function of t at t."""
    return number(value(t), f"a function of t at t = {t:.4f}") if callable(value) else value
