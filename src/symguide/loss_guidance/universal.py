"""Universal Guidance: a gradient through the network on eps, then an optimisation of the clean estimate."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from symguide.errors import number, settle, whole
from symguide.loss import value_and_gradient
from symguide.loss_guidance import rules
from symguide.loss_guidance.descent import LookAhead
from symguide.loss_guidance.recipe import Calls, Constrained, Jacobian, Path, Push, Repeats, Rule, Scale, Window
from symguide.memory_plan import MemoryPlan
from symguide.ranges import Around, Range
from symguide.registry import register
from symguide.solver import Grid
from symguide.step import Step


@register("loss guidance", "universal")
@dataclass(frozen=True, kw_only=True)
class UniversalGuidance(LookAhead):
    """Universal Guidance: forward, backward, and recurrence (`repeats`).

        forward:   eps' = eps + w sigma g,   g = d objective(x_0) / d x_t,   that is x_0' = x_0 - w sigma² / alpha g
        backward:  x_0'' = x_0' + Delta,     Delta = argmin objective(x_0 + Delta) by m steps of Adam
        x_s:       the step with x_0'' and the eps that belongs to it, (x_t - alpha x_0'') / sigma, as published

    Args:
        objective: clean samples (B, ...) -> loss (B,).
        scale: w of the forward part; 0 is off.
        window, repeats, constraint: when it acts, how often a step is made, and where x_s may lie; see `Recipe`.
        n, path: network calls of the forward part's look-ahead, 1 as published, and along which it goes; see `SAG`.
        solver, grid, memory, jacobian: of the look-ahead, see `lookahead_gradient`.
        backward_steps: m, 0 for forward guidance alone.
        backward_rate: Adam's rate for Delta, in units of x_0.
        update: rule for the forward part; by default sqrt(d) sigma / sqrt(alpha² + sigma²) g / |g|, so that a scale
            means the same everywhere. `rules.forward_weight()` is the paper's sigma² / alpha g.

    Use it where the constraint must be met exactly (backward steps) and many repeats can be paid for.

    Cost of a guided step: as SAG with n (1 forward and 1 backward call for n = 1); the objective is evaluated
    1 + m times.

    Source: Bansal et al., "Universal Guidance for Diffusion Models", 2302.07121, algorithm 1.
    """

    scale: Scale = 0.2
    backward_steps: Annotated[int, Range(0, 8)] = 0
    backward_rate: Annotated[float, Around(4.0)] = 0.02
    window: Window = (0.0, 1.0)
    repeats: Repeats = 1
    update: Rule | None = None
    constraint: Constrained = None
    n: Calls = 1
    path: Path = "ode"
    solver: str = "best"
    grid: str | Grid | None = None
    memory: MemoryPlan = "minimal"
    jacobian: Jacobian = "exact"

    normalised: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, backward_steps=whole(self.backward_steps, "backward_steps", 0))
        settle(self, backward_rate=number(self.backward_rate, "backward_rate", above=0))

    def own_rule(self) -> Rule:
        return rules.estimate_length()

    def push(self, step: Step) -> Push:
        gradient, loss = self.gradient(step)
        change = -self.scale * self.rule(gradient, step, loss)
        if self.backward_steps:
            change = change + self._backward(step)
        return Push(gradient, loss, x0=change, eps="anew")

    def _backward(self, step: Step) -> torch.Tensor:
        """Delta; Adam is elementwise, so samples stay independent."""
        objective, x0 = self.objective_at(step), step.prediction.x0
        delta = torch.zeros_like(x0, requires_grad=True)
        adam = torch.optim.Adam([delta], lr=self.backward_rate)
        for _ in range(self.backward_steps):
            _, delta.grad = value_and_gradient(objective, x0 + delta.detach())
            adam.step()
        return delta.detach()
