"""Training-Free Guidance (TFG): variance and mean guidance under a smoothed loss, which has others as special cases."""

from dataclasses import dataclass, field
from typing import Annotated, Any

import torch
from torch import Tensor

from symguide.errors import ConfigError, number, settle, whole
from symguide.loss import Objective, value_and_gradient
from symguide.loss_guidance import rules
from symguide.loss_guidance.lgd import LGD
from symguide.loss_guidance.recipe import (
    Calls,
    Constrained,
    Jacobian,
    OverTime,
    Path,
    Push,
    Recipe,
    Repeats,
    Rule,
    Scale,
    Window,
    checked_over_time,
    value_at,
)
from symguide.memory_plan import MemoryPlan
from symguide.ranges import Around, Range
from symguide.registry import register
from symguide.solver import Grid
from symguide.step import Step


@register("loss guidance", "tfg")
@dataclass(frozen=True, kw_only=True)
class TFG(LGD):
    """Training-Free Guidance: LGD's smoothed loss, followed from x_t (variance) and from x_0 (mean).

        L(x_0)    = -log (1/m) sum_i exp(-objective(x_0 + sigma r z_i)),   r = sigma_t / sqrt(alpha_t² + sigma_t²)
        variance:   Delta_s = -rho(d L(E[x_0 | x_t]) / d x_t)
        mean:       inner times  x_0 <- x_0 - mu(d L(x_0) / d x_0),  and Delta_0 its whole change
        x_s       = mean + std z + scale * (Delta_s + alpha_s Delta_0)

    and recurrence, which is `repeats`. The paper's rho_t alpha_s / alpha_t g and mu_t g are `TFG.paper(...)`,
    with the schedules `rules.increase`, `rules.decrease` and `rules.scale`. By default both are as long as a share of
    the step's noise, so that one setting serves every loss and model; then the last step is left unguided. The draws
    z_i are the same in all inner steps, as published, and belong to the sample and the step.

    Args:
        objective: clean samples (B, ...) -> loss (B,).
        scale: of the whole change; 0 is off.
        rho: rule of the variance part, or the share of the step's noise, `chain(normalise(), increase(rho))`; 0 is off.
        mu: rule of one inner step of the mean part, or a number as rho; 0 is off.
        inner: steps of the mean part, N_iter; with scale they are taken at mu and their sum scaled.
        sigma: spread of the cloud in units of r, a number or a function of t; 0 is none.
        samples: m, points of the cloud.
        n: network calls of the look-ahead of the variance part, a number or a function of t.
        window, repeats, constraint: when it acts, how often a step is made, and where x_s may lie; see `Recipe`.
        path: "ode" or "own", along the run's own steps and noise; see `SAG`.
        solver, grid, memory, jacobian: of the look-ahead, see `lookahead_gradient`.

    Special cases, step by step with the same scale and noise (u any update rule; straight steps: solver="ddim"):
        FreeDoM(o, update=u)                 TFG(o, rho=u, mu=0, sigma=0)
        DPS(o), of a Measurement             TFG(o, rho=residual_norm(o.noise), mu=0, sigma=0)
        DPS(o), of others                    TFG(o, rho=root_loss(), mu=0, sigma=0)
        LGD(o, samples=m, update=u)          TFG(o, rho=u, mu=0, sigma=1, samples=m)
        MPGD(o, update=u)                    TFG(o, rho=0, mu=u, inner=1, sigma=0)
        MPGD(o, update=u, eps="anew")        TFG(o, rho=0, mu=chain(u, w), inner=1, sigma=0)
        UniversalGuidance(o, update=u)       TFG(o, rho=chain(u, of_moved_x0()), mu=0, sigma=0)
    with w = of_moved_x0() / alpha_s: Universal Guidance finds eps anew from the moved estimate, TFG and MPGD keep the
    network's. Universal Guidance's backward steps are Adam's, those here plain ones, so the two part there.

    Raises:
        ConfigError: rho and mu both 0, inner or samples < 1. GuidanceError: see `lookahead_gradient`.

    Use it to combine the two parts, and where a search for rho, mu and sigma can be paid for.

    Cost of a guided step: as SAG with n (1 forward and 1 backward call for n = 1); with rho = 0, 1 forward and no
    backward call. The objective is evaluated m times for each part's gradient, m (1 + inner) in all.

    Source: Ye et al., "TFG: Unified Training-Free Guidance for Diffusion Models", 2409.15761, algorithm 1, as in its
    published code.
    """

    scale: Scale = 1.0
    rho: Annotated[float | Rule, Around(8.0)] = 0.25
    mu: Annotated[float | Rule, Around(8.0)] = 0.05
    inner: Annotated[int, Range(1, 8, log=True)] = 4
    sigma: Annotated[OverTime, Range(0.0, 1.0)] = 0.1
    samples: Annotated[int, Range(1, 4)] = 1
    n: Calls = 1
    window: Window = (0.0, 1.0)
    repeats: Repeats = 1
    constraint: Constrained = None
    path: Path = "ode"
    solver: str = "best"
    grid: str | Grid | None = None
    memory: MemoryPlan = "minimal"
    jacobian: Jacobian = "exact"
    update: Rule | None = field(default=None, init=False)
    variance: Rule | None = field(init=False, repr=False, compare=False)
    mean: Rule | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, inner=whole(self.inner, "TFG's inner", 1))
        settle(self, sigma=checked_over_time("TFG's sigma", self.sigma, least=0))
        settle(self, variance=_rule("TFG's rho", self.rho), mean=_rule("TFG's mu", self.mu))
        if self.variance is None and self.mean is None:
            raise ConfigError("TFG with rho = 0 and mu = 0 guides nothing: use scale=0 to switch a recipe off")

    @property
    def guides_last(self) -> bool:
        return self.constraint is None and (callable(self.rho) or callable(self.mu))

    @classmethod
    def paper(
        cls,
        objective: Any,
        *,
        scale: Scale = 1.0,
        rho: float = 1.0,
        mu: float = 0.25,
        inner: int = 4,
        sigma: OverTime = 0.001,
        samples: int = 1,
        window: Window = (0.0, 1.0),
        repeats: Repeats = 1,
        constraint: Constrained = None,
        memory: MemoryPlan = "minimal",
    ) -> "TFG":
        """The published rules and schedules: rho and mu increase, sigma decreases; the defaults are its CIFAR10 task's.

        rho, mu and sigma are in units of the loss and must be found for every task (the paper searches by doubling).
        """
        return cls(
            objective,
            scale=scale,
            rho=rules.chain(rules.increase(rho), rules.of_x_t()),
            mu=rules.increase(mu),
            inner=inner,
            sigma=sigma,
            samples=samples,
            window=window,
            repeats=repeats,
            constraint=constraint,
            memory=memory,
        )

    def spread(self, step: Step) -> float:
        return value_at(self.sigma, step.t) * super().spread(step)

    def objective_at(self, step: Step) -> Objective:
        return super().objective_at(step) if self.spread(step) > 0 else Recipe.objective_at(self, step)

    def push(self, step: Step) -> Push:
        objective = self.objective_at(step)
        changes: list[Tensor] = []
        if self.variance is not None:
            gradient, loss = step.lookahead_gradient(objective, *self.ahead(step))
            changes.append(-self.variance(gradient, step, loss))
        if self.mean is not None:
            x0 = step.prediction.x0
            for i in range(self.inner):
                value, slope = value_and_gradient(objective, x0)
                if self.variance is None and i == 0:
                    gradient, loss = slope, value
                x0 = x0 - self.mean(slope, step, value)
            changes.append(step.schedule.alpha(step.s) * (x0 - step.prediction.x0))
        return Push(gradient, loss, x_s=self.scale * torch.stack(changes).sum(dim=0))


def _rule(name: str, given: float | Rule) -> Rule | None:
    """A rule, or the default one of a share of the step's noise; None where that is 0."""
    if callable(given):
        return given
    share = number(given, name, least=0)
    return rules.chain(rules.normalise(), rules.increase(share)) if share > 0 else None
