"""One call of a scheduler's `step`: what the pipeline handed it, what it makes of that, and of other predictions."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from symguide.denoiser import Prediction
from symguide.pipelines.calls import RecordedCall
from symguide.pipelines.draws import Drawn
from symguide.pipelines.levels import Levels
from symguide.pipelines.schedulers import Stock


class SchedulerCall:
    """A call of `step`, in our terms where recipes see it.

    Args:
        step: the scheduler's own, in the usual terms.
        levels: the scheduler's.
        t: our time of the timestep.
        rows: how many samples there are; those that the scheduler sees may hold each of them twice.
        timestep: the scheduler's.

    Attributes:
        model_output, sample: what the pipeline makes it of, in these terms.
        x: the schedule's x_t, (B, ...), in single precision at least.
        made: the prediction of those samples, as networks say it.
        drawn: what the step drew when it was made last.
    """

    def __init__(self, step: Stock, levels: Levels, t: float, rows: int, timestep: float) -> None:
        self.step, self.levels, self.t, self.rows, self.timestep = step, levels, t, rows, timestep
        self.model_output, self.sample = step.handed, step.sample
        self.x = levels.ours(in_at_least_float32(self.sample[:rows]), t)
        self.made = levels.said(self.x, t, in_at_least_float32(self.model_output[:rows]))
        self.drawn: list[Drawn] = []

    def own(self) -> Any:
        """The scheduler's step with the pipeline's own tensors: the same to the last bit."""
        return self.step(self.model_output, self.sample)

    def of(self, prediction: Prediction, like: Tensor | None = None) -> Any:
        """The scheduler's step of another prediction, in the sample's type, or that of another tensor."""
        like = self.sample if like is None else like
        value, place = self.levels.handed(prediction, self.t), self.levels.state(prediction.x, self.t)
        both = (torch.cat([z.to(like)] * (len(self.sample) // self.rows)) for z in (value, place))
        return self.step(next(both), next(both))

    def given(self, result: Any, s: float) -> Tensor:
        """The schedule's x_s of what the scheduler returned."""
        return self.levels.ours(in_at_least_float32(sample_of(result)[: self.rows]), s)

    @property
    def generators(self) -> list[Any]:
        """Those among its arguments."""
        found = [value for value in self.step.given.values() if isinstance(value, torch.Generator | list)]
        return [one for value in found for one in (value if isinstance(value, list) else [value])]


def doubled(pipe: Any, calls: Sequence[RecordedCall]) -> bool:
    """Whether the samples that the scheduler sees hold every sample twice, as DiT's with guidance do."""
    if type(pipe).__name__ != "DiTPipeline":
        return False
    first, second = calls[-1].args[0].chunk(2) if len(calls[-1].args[0]) % 2 == 0 else (calls[-1].args[0], None)
    return second is not None and torch.equal(first, second)


def sample_of(result: Any) -> Tensor:
    """x_s of what a scheduler returns."""
    return result[0] if isinstance(result, tuple) else result.prev_sample


def moved(result: Any, change: Tensor, last: bool) -> Any:
    """What a scheduler returns, with x_s moved.

    In a run's `last` step, to sigma = 0, all that it returns of that shape is the clean sample, by one name or another,
    and pipelines take now this and now that: latent consistency models `denoised`.

    Args:
        change: of the sample; where it has half as many rows, samples are there twice.
    """
    x_s = sample_of(result)
    change = torch.cat([change] * (len(x_s) // len(change)))

    def move(value: Any) -> Any:
        alike = isinstance(value, Tensor) and value.shape == x_s.shape
        return value + change.to(value) if alike and (last or value is x_s) else value

    if isinstance(result, tuple):
        return tuple(move(value) for value in result)
    made = copy.copy(result)
    for name, value in vars(result).items():
        setattr(made, name, move(value))
    return made


def in_at_least_float32(x: Tensor) -> Tensor:
    """At least float32, which gradients and steps are computed in."""
    return x.detach().to(torch.promote_types(x.dtype, torch.float32))
