"""staged(): runs in a row whose samples grow, each of which begins where the last one ended."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from symguide.denoiser import Counter, Denoiser
from symguide.errors import ConfigError, number, whole
from symguide.lookahead import lookahead
from symguide.loop import Cost, Result, sample
from symguide.per_sample import Noise
from symguide.solver import starting_at

Up = Callable[[Tensor], Tensor]
OWN = {"shape", "steps", "until", "restart", "return_trajectory"}
"""Settings of `sample` that stages have themselves, or that make no sense over several sizes."""
SEEDS = 2**48
"""How far the seeds of two stages lie apart, so that they share no noise."""


@dataclass(frozen=True)
class Stage:
    """One run of `staged`.

    Args:
        shape: of its samples, without the batch.
        steps: of a whole run from its first time to clean; those down to `until` are made.
        until: the time at which the next stage takes over; 0 for the last one.
        up: clean estimates of the stage before -> this stage's size; by nearest neighbours where not given.
        settings: of `sample`, where they are other ones than those of all stages, such as {"loss": None}.

    Raises:
        ConfigError: for steps and times that cannot be.
    """

    shape: tuple[int, ...]
    steps: int
    until: float = 0.0
    up: Up | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        whole(self.steps, "the steps of a Stage", 1)
        if not 0 <= number(self.until, "until of a Stage") < 1:
            raise ConfigError(f"until is a time in [0, 1), not {self.until}")


def staged(denoiser: Denoiser, stages: Sequence[Stage], **settings: Any) -> Result:
    """Samples by runs in a row: small ones first, for the large shapes at low cost, then larger ones for the detail.

        x_0'  = the clean estimate where a stage ends, at its first time t <= until, made larger
        x_t   = alpha_t x_0' + sigma_t z, where the next one begins

    Args:
        denoiser: the model, whose network takes all of the shapes.
        stages: one after the other, with falling `until`, that of the last one 0.
        settings: as for `sample`, but for shape, steps, restart and return_trajectory.

    Returns:
        Result: the last stage's samples, the trace of all stages, and what they cost together.

    Raises:
        ConfigError: for stages that do not follow on each other, and as `sample`.

    Cost: the steps that are made, as in `sample`, and one call for each stage but the last.

    Source: Zhang et al., "FreCaS", 2410.18410, section 3 (its frequency-aware guidance is a prediction rule, not here).
    """
    untils = [stage.until for stage in stages]
    if not untils or untils[-1] != 0 or any(a <= b for a, b in pairwise(untils)):
        raise ConfigError(f"stages end at falling times, the last one at 0, and these end at {untils}")
    if refused := OWN & {*settings, *(name for stage in stages for name in stage.settings)}:
        raise ConfigError(f"staged takes no {', '.join(sorted(refused))}: stages have a shape and steps of their own")
    seed, results, calls = whole(settings.pop("seed", 0), "seed"), list[Result](), 0
    for place, stage in enumerate(stages):
        given = settings | dict(stage.settings)
        if results:
            t, counter = results[-1].trace[-1].s, Counter()
            clean = _clean(denoiser.counted(counter), results[-1].samples, t, given)
            calls += counter.forward // len(clean)
            given |= {"start": _begin(denoiser, clean, stage), "grid": starting_at(t, given.get("grid", "uniform"))}
        given |= {"shape": stage.shape, "steps": stage.steps, "until": stage.until, "seed": seed + place * SEEDS}
        results.append(sample(denoiser, **given))
    costs = [result.cost for result in results]
    cost = Cost(
        calls + sum(cost.forward_calls for cost in costs),
        sum(cost.backward_calls for cost in costs),
        sum(cost.seconds for cost in costs),
        max(cost.peak_bytes for cost in costs),
    )
    return Result(results[-1].samples, [record for result in results for record in result.trace], cost)


@torch.inference_mode(mode=False)
@torch.no_grad()
def _clean(denoiser: Denoiser, x: Tensor, t: float, given: Mapping[str, Any]) -> Tensor:
    """The clean estimate of a stage where it ended."""
    model = denoiser.to(x.device, given.get("dtype"))
    return lookahead(model, x, t, 1, condition=given.get("condition"), prediction=given.get("prediction")).x0


def _begin(denoiser: Denoiser, clean: Tensor, stage: Stage) -> Callable[[Noise, float], Tensor]:
    """Where a stage begins: the clean estimate in its size, noised."""
    size = tuple(stage.shape[1:])
    try:
        large = torch.nn.functional.interpolate(clean, size=size) if stage.up is None else stage.up(clean)
    except (NotImplementedError, ValueError) as error:
        raise ConfigError(
            f"samples of shape {tuple(clean.shape[1:])} have no interpolation of ours: give up="
        ) from error

    def start(noise: Noise, t: float) -> Tensor:
        x0 = large.repeat_interleave(noise.particles, dim=0)
        if x0.shape[1:] != noise.shape:
            raise ConfigError(f"up= made samples of shape {tuple(x0.shape[1:])}, and the stage's are {noise.shape}")
        return denoiser.schedule.alpha(t) * x0 + denoiser.schedule.sigma(t) * noise.draw("start")

    return start
