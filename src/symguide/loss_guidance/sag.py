"""Symplectic Adjoint Guidance (SAG): guide by the exact gradient at an n-call estimate of the clean sample."""

from dataclasses import dataclass
from typing import Any, ClassVar

from symguide.errors import number, settle
from symguide.loss_guidance import rules
from symguide.loss_guidance.descent import Drawn
from symguide.loss_guidance.recipe import AnyPath, Calls, Constrained, Jacobian, Repeats, Rule, Scale, Window
from symguide.memory_plan import MemoryPlan
from symguide.registry import register
from symguide.solver import Grid


@register("loss guidance", "sag")
@dataclass(frozen=True, kw_only=True)
class SAG(Drawn):
    """Symplectic Adjoint Guidance.

        x_0' = n calls from (x_t, t) to the clean sample, along a path
        g    = d objective(x_0') / d x_t,  exact for the discretised map (the program read backwards)
        x_s  = mean + std z - scale * update(g),   update(g) = r g / |g|,  r = sqrt(d) * ancestral std

    n = 1 is FreeDoM's step. The last step, to sigma = 0, has r = 0 and is left unguided.

    Args:
        objective: clean samples (B, ...) -> loss (B,).
        n: network calls of the look-ahead, a number or a function of t; "all" is as many as the run makes (path "own").
        scale: strength; 0 is off, 0.1 to 1 is usual.
        window, repeats, constraint: when it acts, how often a step is made, and where x_s may lie; see `Recipe`.
        update: another update rule in place of the normalised step, e.g. `rules.rho(0.2)`, the published one.
        path: along which the look-ahead goes.
            "ode": without noise, by `solver` on `grid`.
            "own": where the run will go if nothing guides it any more. The n calls are on the run's own remaining
            grid, each leg takes the noise that the run will draw in the steps it spans, carried through their linear
            parts (`symguide.own_path`), through repeats and restarts. With eta = 0 it is the ODE on the run's grid.
            Hooks of the run, and particles that are exchanged later, are not looked at; prediction rules that
            remember (the momentum of `APG`) stand still in it.
            "fresh": ancestral steps on the run's grid with noise of their own, in `samples` look-aheads, whose loss
            is -log mean_k exp(-objective(x_0^k)): with many samples and calls -log E[exp(-objective) | x_t]. Where
            modes are apart that takes more samples than one can pay (docs/theory/lookahead.md).
        samples: look-aheads of path "fresh".
        solver, grid, memory, jacobian: of the look-ahead, see `lookahead_gradient`. Along "own" and "fresh" the solver
            "best" is the run's own; another goes by its times and noise, but is not the run. Neither takes a grid.
        eta: of runs whose `sample` is not told one.

    Raises:
        ConfigError: n < 1 and other bad settings. GuidanceError: see `lookahead_gradient`.

    Use it, at the same strength for all, where the loss is

        of powers, asks for less than samples have, eta = 1       n=4, path="own", early window
        of powers, eta = 0                                        n=4, early window
        a network's, guidance strong                              n=2, the default
        a choice (a class, an identity) or a measurement          FreeDoM, one call

    and with jacobian="first" for more calls of a network's loss. `advise` says it of what a loss asks for;
    docs/which-method.md says where that was found and where it failed.

    Cost of a guided step per sample, the sampler's own call included: forward n (memory="fast"), 2n - 1 ("minimal"),
    n (jacobian "first" or "identity"); backward n, 1 for "first", 0 for "identity". Path "fresh" of K samples: forward
    1 + K (n - 1) with "fast", 2 + K (2n - 3) with "minimal", 2 + K (2n - 2 - k) with a number k < n, 1 + K (n - 1) for
    "first" and "identity"; backward 1 + K (n - 1), 1, 0. With n = 1 it is one call, whatever K.

    Source: Pan et al., "Towards Accurate Guided Diffusion Sampling through Symplectic Adjoint Method", 2312.12030; the
    paths along noise are ours.
    """

    by_frame: ClassVar[bool] = True

    n: Calls = 2
    scale: Scale = 0.5
    window: Window = (0.0, 1.0)
    repeats: Repeats = 1
    update: Rule | None = None
    constraint: Constrained = None
    path: AnyPath = "ode"
    samples: int = 1
    solver: str = "best"
    grid: str | Grid | None = None
    memory: MemoryPlan = "minimal"
    jacobian: Jacobian = "exact"
    eta: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eta is not None:
            settle(self, eta=number(self.eta, "SAG's eta", least=0, most=1))

    @classmethod
    def paper(
        cls,
        objective: Any,
        *,
        n: Calls = 4,
        scale: Scale = 1.0,
        window: Window = (0.3, 0.7),
        repeats: Repeats = 2,
        constraint: Constrained = None,
        memory: MemoryPlan = "minimal",
        jacobian: Jacobian = "exact",
    ) -> "SAG":
        """The published settings: DDIM look-ahead uniform in t, the rho rule at 0.2, the middle 40% of steps, twice.

        Steps are deterministic but for the time travel between repeats: eta = 0, where `sample` is not told another.
        Needs classifier-free guidance, as the rho rule does. (The published code's num_pred_steps counts grid points
        and stops short of the clean sample; n here counts calls and ends clean.)
        """
        return cls(
            objective,
            n=n,
            scale=scale,
            window=window,
            repeats=repeats,
            update=rules.rho(0.2),
            constraint=constraint,
            solver="paper",
            memory=memory,
            jacobian=jacobian,
            eta=0.0,
        )
