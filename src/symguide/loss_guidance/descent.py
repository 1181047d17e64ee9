"""Recipes that step against a gradient: each is a gradient, a rule that makes a step of it, and a constraint."""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from symguide.errors import ConfigError, settle, unknown
from symguide.lookahead import JACOBIANS
from symguide.loss import value_and_gradient
from symguide.loss_guidance import rules
from symguide.loss_guidance.recipe import Calls, Count, Jacobian, Push, Recipe, Rule, checked_count, count_at
from symguide.memory_plan import MemoryPlan, check_memory
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


@dataclass(frozen=True, kw_only=True)
class LookAhead(Descent):
    """The gradient through a look-ahead of n calls, see `lookahead_gradient`."""

    n: Calls = 1
    solver: str = "best"
    grid: str | Grid | None = None
    memory: MemoryPlan = "minimal"
    jacobian: Jacobian = "exact"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.jacobian not in JACOBIANS:
            raise unknown("jacobian", self.jacobian, JACOBIANS)
        solver, grid = choose(self.solver, self.grid)
        settle(self, n=checked_count("n", self.n), solver=solver, grid=grid, memory=check_memory(self.memory))

    def prepare(self, run: Run) -> None:
        super().prepare(run)
        for t in run.times[:-1]:
            count_at("n", self.n, t)

    def ahead(self, step: Step) -> tuple[int, str, str | Grid | None, MemoryPlan, str]:
        """What the look-ahead of a step takes beside the objective."""
        return count_at("n", self.n, step.t), self.solver, self.grid, self.memory, self.jacobian

    def gradient(self, step: Step) -> Pair:
        return step.lookahead_gradient(self.objective_at(step), *self.ahead(step))


@dataclass(frozen=True, kw_only=True)
class OneCall(LookAhead):
    """The gradient through the sampler's own call alone, which no solver and no grid changes."""

    n: Count = field(default=1, init=False)
    solver: str = field(default="best", init=False)
    grid: str | Grid | None = field(default=None, init=False)
    jacobian: str = "exact"


@dataclass(frozen=True, kw_only=True)
class AtEstimate(Descent):
    """The gradient at the one-step clean estimate, so that no network is differentiated."""

    def gradient(self, step: Step) -> Pair:
        loss, gradient = value_and_gradient(self.objective_at(step), step.prediction.x0)
        return gradient, loss
