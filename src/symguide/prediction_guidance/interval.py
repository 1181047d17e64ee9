"""Guidance in an interval of noise levels only."""

from dataclasses import dataclass

from symguide.branch import Asked, Branch, Point, Rule
from symguide.denoiser import Denoiser
from symguide.errors import ConfigError
from symguide.registry import register


@register("prediction guidance", "interval")
@dataclass(frozen=True)
class Interval(Rule):
    """A rule where low < sigma / alpha <= high, and the model's own prediction elsewhere.

        prediction=Interval(CFG(3.0), 0.28, 5.42)        # SDXL's in the paper

    The noise level is that of every evaluation, not the step's: second stages and look-ahead calls have their own.

    Args:
        rule: the rule, such as CFG(3.0).
        low, high: ends of the interval, in sigma / alpha (EDM's sigma; t / (1 - t) for flows).

    Raises:
        ConfigError: for what is no rule, and unless 0 <= low < high.

    Use it with CFG and its like: cheaper, and samples vary more.

    Cost: the rule's inside of the interval, 1 call per sample outside.

    Source: Kynkäänniemi et al., "Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in
    Diffusion Models", 2404.07724.
    """

    rule: Rule
    low: float
    high: float

    def __post_init__(self) -> None:
        if not isinstance(self.rule, Rule):
            raise ConfigError(f"Interval takes a rule, such as CFG(3.0), not {self.rule!r}")
        if not 0 <= self.low < self.high:
            raise ConfigError(f"an interval of sigma / alpha is 0 <= low < high, not {self.low} and {self.high}")

    @property
    def by_step(self) -> bool:
        return self.rule.by_step

    @property
    def moves(self) -> bool:
        return self.rule.moves

    @property
    def models(self) -> tuple[Denoiser, ...]:
        return self.rule.models

    def calls(self, at: Point) -> Asked:
        if isinstance(at.t, tuple):
            raise ConfigError("frames that each have a noise level have no one that lies in an interval: guide without")
        if self.low < at.denoiser.schedule.ratio(at.t) <= self.high:
            return (yield from self.rule.calls(at.of(self.rule)))
        return (yield {"c": Branch()})["c"]
