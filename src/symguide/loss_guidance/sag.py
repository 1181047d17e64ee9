"""Symplectic Adjoint Guidance (SAG): guide by the exact gradient at an n-call estimate of the clean sample."""

from typing import Any, ClassVar

from symguide.errors import ConfigError, unknown
from symguide.lookahead import JACOBIANS
from symguide.loss_guidance import rules
from symguide.loss_guidance.recipe import Constraint, Count, Push, Recipe, Window
from symguide.loss_guidance.rules import Rule
from symguide.memory import Memory, check_memory
from symguide.ranges import Choice, Range, Ranges
from symguide.solver import Grid, choose
from symguide.step import Run, Step


class SAG(Recipe):
    """Symplectic Adjoint Guidance.

        x_0' = n solver calls from (x_t, t) to the clean sample
        g    = d objective(x_0') / d x_t,  exact for the discretised map (the program read backwards)
        x_s  = mean + std z - scale * update(g),   update(g) = r g / |g|,  r = sqrt(d) * ancestral std

    n = 1 is FreeDoM's step. The last step, to sigma = 0, has r = 0 and is left unguided.

    Args:
        objective: clean samples (B, ...) -> loss (B,).
        n: network calls of the look-ahead, a number or a function of t. On scenes more than 2 was no better.
        scale: strength; 0 is off, 0.1 to 1 is usual.
        window, repeats, constraint: see `Recipe`.
        update: another update rule in place of the normalised step, e.g. `rules.rho(0.2)`, the published one.
        solver, grid, memory, jacobian, offload: see `lookahead_gradient`.

    Raises:
        ConfigError: n < 1 and other bad settings. GuidanceError: see `lookahead_gradient`.

    Cost of a guided step per sample, the sampler's own call included: forward n (memory="fast"), 2n - 1 ("minimal"),
    n (jacobian "first" or "identity"); backward n, 1 for "first", 0 for "identity".

    Source: Pan et al., "Towards Accurate Guided Diffusion Sampling through Symplectic Adjoint Method", 2312.12030.
    """

    ranges: ClassVar[Ranges] = {"n": Range(1, 8, log=True), "jacobian": Choice("exact", "first")}

    def __init__(
        self,
        objective: Any,
        n: Count = 2,
        scale: float = 0.5,
        *,
        window: Window = (0.0, 1.0),
        repeats: Count = 1,
        update: Rule | None = None,
        constraint: Constraint | None = None,
        solver: str = "best",
        grid: str | Grid | None = None,
        memory: Memory = "minimal",
        jacobian: str = "exact",
        offload: bool = False,
    ) -> None:
        super().__init__(objective, scale, window, repeats, constraint)
        if not callable(n) and (isinstance(n, bool) or not isinstance(n, int) or n < 1):
            raise ConfigError(f"n must be at least 1, a whole number or a function of t, not {n!r}")
        if jacobian not in JACOBIANS:
            raise unknown("jacobian", jacobian, JACOBIANS)
        self.n, self.update = n, update or rules.normalise()
        self._normalised = update is None
        self.solver, self.grid = choose(solver, grid)
        self.memory, self.jacobian, self.offload = check_memory(memory), jacobian, offload

    @classmethod
    def paper(cls, objective: Any, n: int = 4, scale: float = 1.0, **settings: Any) -> "SAG":
        """The published settings: DDIM look-ahead uniform in t, the rho rule at 0.2, the middle 40% of steps, twice.

        Needs classifier-free guidance, as the rho rule does. (The published code's num_pred_steps counts grid points
        and stops short of the clean sample; n here counts calls and ends clean.)
        """
        published = {"window": (0.3, 0.7), "repeats": 2, "update": rules.rho(0.2), "solver": "paper"}
        return cls(objective, n, scale, **{**published, **settings})

    @property
    def guides_last(self) -> bool:
        return super().guides_last and not self._normalised

    def prepare(self, run: Run) -> None:
        super().prepare(run)
        if not callable(self.n):
            return
        for t in run.times[:-1]:
            if self.n(t) != int(self.n(t)) or self.n(t) < 1:
                raise ConfigError(f"n gave {self.n(t)!r} at t = {t:.4f}: it must be a whole number, at least 1")

    def push(self, step: Step) -> Push:
        n = int(self.n(step.t)) if callable(self.n) else self.n
        gradient, loss = step.lookahead_gradient(
            self.objective_at(step), n, self.solver, self.grid, self.memory, self.jacobian, self.offload
        )
        return Push(gradient, loss, x_s=-self.scale * self.update(gradient, step, loss))
