"""What the panels of the demo share: methods that start from the same noise, and the rows and pictures they leave."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from symguide.denoiser import Denoiser
from symguide.loop import Result, StepRecord, sample
from symguide.loss_guidance.recipe import Push, Recipe
from symguide.meter import show_bytes
from symguide.report import Column
from symguide.step import LossHook, Step

COSTS = (
    Column("forward_calls", "forward\ncalls"),
    Column("backward_calls", "backward\ncalls"),
    Column("seconds", "\nseconds", "{:.1f}"),
    Column("peak_bytes", "held for\ngradients", show_bytes),
)


class Watch(Recipe):
    """Unguided sampling with the objective written to the trace: reads the sampler's own estimate, changes nothing."""

    def push(self, step: Step) -> Push:
        x0 = step.prediction.x0
        with torch.no_grad():
            return Push(torch.zeros_like(x0), self.objective(x0))


@dataclass(frozen=True)
class Method:
    """A row of a panel: its name, its guidance, and what a step of it costs, in network calls, for the progress bar."""

    name: str
    guidance: LossHook
    work: int


def run_all(
    denoiser: Denoiser, methods: Sequence[Method], tick: Callable[[str, int], None], **settings: Any
) -> dict[str, Result]:
    """Every method with the same settings, and so with the same noise; `tick` hears of every step."""
    results = {}
    for method in methods:

        def step_done(record: StepRecord, x: Tensor, method: Method = method) -> None:
            tick(method.name, method.work)

        results[method.name] = sample(denoiser, loss=method.guidance, callback=step_done, **settings)
    return results


def costs(result: Result) -> Mapping[str, Any]:
    """The cost columns of a row."""
    cost = result.cost
    return {
        "forward_calls": cost.forward_calls,
        "backward_calls": cost.backward_calls,
        "seconds": cost.seconds,
        "peak_bytes": cost.peak_bytes,
    }
