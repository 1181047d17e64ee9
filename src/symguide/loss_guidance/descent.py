"""Recipes that step against a gradient: each is a gradient, a rule that makes a step of it, and a constraint."""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, get_args

from torch import Tensor

from symguide.errors import ConfigError, settle, unknown, whole
from symguide.lookahead import JACOBIANS
from symguide.loss import value_and_gradient
from symguide.loss_guidance import rules
from symguide.loss_guidance.recipe import (
    AnyPath,
    Calls,
    Count,
    Jacobian,
    Path,
    Push,
    Recipe,
    Rule,
    checked_count,
    count_at,
)
from symguide.memory_plan import MemoryPlan, check_memory
from symguide.own_path import check_ahead
from symguide.solver import Grid, choose
from symguide.step import Run, Step

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Descent(Recipe):
    """x_s = mean + std z - scale * update(g), with a recipe's own gradient g and rule, or another rule as `update`."""

    update: Rule | None = None
    rule: Rule = field(init=False, repr=False, compare=False)
    """The rule that is followed: `update`, or its own."""

    normalised: ClassVar[bool] = True
    """Whether its own rule is the normalised step, which is 0 in the last step: that is left unguided then."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.update is not None and not callable(self.update):
            raise ConfigError(f"update takes a rule, such as symguide.rules.normalise(), not {self.update!r}")
        settle(self, rule=self.update or self.own_rule())

    def own_rule(self) -> Rule:
        """The rule where `update` gives none."""
        return rules.normalise()

    @abstractmethod
    def gradient(self, step: Step) -> Pair:
        """Gradient (B, ...) and loss (B,)."""

    @property
    def guides_last(self) -> bool:
        return super().guides_last and not (self.normalised and self.update is None)

    def push(self, step: Step) -> Push:
        gradient, loss = self.gradient(step)
        return Push(gradient, loss, x_s=-self.scale * self.rule(gradient, step, loss))


class Ahead(NamedTuple):
    """What a look-ahead of a step takes beside the objective, see `Step.lookahead_gradient`; n = None is all calls."""

    n: int | None
    solver: str
    grid: str | Grid | None
    memory: MemoryPlan
    jacobian: str
    path: str


@dataclass(frozen=True, kw_only=True)
class LookAhead(Descent):
    """The gradient through a look-ahead of n calls, see `lookahead_gradient`, or along the run's own path."""

    n: Calls = 1
    path: str = "ode"
    solver: str = "best"
    grid: str | Grid | None = None
    memory: MemoryPlan = "minimal"
    jacobian: Jacobian = "exact"

    paths: ClassVar[tuple[str, ...]] = get_args(Path)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.jacobian not in JACOBIANS:
            raise unknown("jacobian", self.jacobian, JACOBIANS)
        if isinstance(self.n, str) and self.n != "all":
            raise ConfigError(f"n must be a whole number, at least 1, or 'all' (with path='own'), not {self.n!r}")
        n = None if self.n == "all" else checked_count("n", self.n)
        check_ahead(self.path, 1 if callable(n) else n, self.grid, paths=self.paths, of=type(self).__name__)
        solver, grid = choose(self.solver, self.grid)
        if self.path == "ode":
            settle(self, solver=solver, grid=grid)
        settle(self, memory=check_memory(self.memory), n="all" if n is None else n)

    def prepare(self, run: Run) -> None:
        super().prepare(run)
        if run.levels is not None and self.path != "ode":
            raise ConfigError("frames with noise levels of their own have no one way to go: use path='ode'")
        for t in run.times[:-1]:
            self.calls_at(t)

    def calls_at(self, t: float) -> int | None:
        """n at t; None for all."""
        return None if self.n == "all" else count_at("n", self.n, t)

    def ahead(self, step: Step) -> Ahead:
        """What the look-ahead of a step takes beside the objective."""
        return Ahead(self.calls_at(step.t), self.solver, self.grid, self.memory, self.jacobian, self.path)

    def gradient(self, step: Step) -> Pair:
        return step.lookahead_gradient(self.objective_at(step), *self.ahead(step))


@dataclass(frozen=True, kw_only=True)
class Drawn(LookAhead):
    """The same, which may also look ahead with noise of its own."""

    samples: int = 1

    paths: ClassVar[tuple[str, ...]] = get_args(AnyPath)

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, samples=whole(self.samples, f"{type(self).__name__}'s samples", 1))
        check_ahead(self.path, 1, samples=self.samples)

    def gradient(self, step: Step) -> Pair:
        return step.lookahead_gradient(self.objective_at(step), *self.ahead(step), samples=self.samples)


@dataclass(frozen=True, kw_only=True)
class OneCall(LookAhead):
    """The gradient through the sampler's own call alone, which no solver and no grid changes."""

    n: Count = field(default=1, init=False)
    path: str = field(default="ode", init=False)
    solver: str = field(default="best", init=False)
    grid: str | Grid | None = field(default=None, init=False)
    jacobian: str = "exact"


@dataclass(frozen=True, kw_only=True)
class AtEstimate(Descent):
    """The gradient at the one-step clean estimate, so that no network is differentiated."""

    def gradient(self, step: Step) -> Pair:
        loss, gradient = value_and_gradient(self.objective_at(step), step.prediction.x0)
        return gradient, loss
