"""Autoguidance: away from what a weaker model says."""

from dataclasses import dataclass
from typing import Annotated

from symguide.branch import Asked, Branch, Point, Rule
from symguide.denoiser import Denoiser
from symguide.errors import ConfigError
from symguide.ranges import Around
from symguide.registry import register


@register("prediction guidance", "autoguidance")
@dataclass(frozen=True)
class Autoguidance(Rule):
    """Autoguidance: y = k + scale (c - k), k by a weaker model with the same condition.

    The weaker one is smaller or less trained, of the same data, so that what it does wrong the model does wrong, too,
    but less. Affine with weights that sum to 1; where the two predict in different spaces, clean estimates are taken.

    Args:
        weak: the weaker model, of the same noise levels and conditions.
        scale: 1.0 is off (the weaker one is not asked), more is stronger; about 2 in the paper.

    Raises:
        ConfigError: for what is no denoiser, and for one of other noise levels.

    Use it where a smaller or earlier version of the model is at hand.

    Cost: 1 call per sample of the model, and 1 of the weaker one, which count alike; 1 at scale 1.0.

    Source: Karras et al., "Guiding a Diffusion Model with a Bad Version of Itself", 2406.02507.
    """

    weak: Denoiser
    scale: Annotated[float, Around(2.0)] = 2.0

    def __post_init__(self) -> None:
        if not isinstance(self.weak, Denoiser):
            raise ConfigError(f"Autoguidance takes a weaker denoiser, such as load('scenes-weak'), not {self.weak!r}")

    @property
    def models(self) -> tuple[Denoiser, ...]:
        return () if self.scale == 1.0 else (self.weak,)

    def calls(self, at: Point) -> Asked:
        if self.scale == 1.0:
            return (yield {"c": Branch()})["c"]
        p = yield {"c": Branch(), "k": Branch(model=self.weak)}
        c, k = p["c"], p["k"]
        if k.space != c.space:
            c, k = c.with_x0(c.x0), k.with_x0(k.x0)
        guided = c.with_value(k.value + self.scale * (c.value - k.value))
        return guided.with_value(guided.value, shift=(guided.eps - c.eps).detach())
