"""FlowGrad and OC-Flow: a control at every step of the trajectory."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch

from symguide.errors import settle
from symguide.registry import register
from symguide.solver import control_weight
from symguide.trajectory.path import Path, Point, check_iterations, check_settings


@register("trajectory optimisation", "ocflow")
@dataclass(frozen=True)
class OCFlow:
    """A control c_j at every step, which bends the trajectory from a start that stays as it is.

        y_{j+1} = step(y_j) + h_j c_j                  in the flow frame: y = x / (alpha + sigma), h_j its steps
        lambda_j = (d step / d y_j)^T lambda_{j+1},    lambda_n = d objective / d x_0
        c_j <- decay * c_j - rate * lambda_{j+1}

    One sweep gives the costates of all steps, at the cost of the start's gradient alone. A decay below 1 is gradient
    descent on the objective plus the running cost (1 - decay) / (2 rate) * sum_j h_j |c_j|², which keeps trajectories
    near the model's own (OC-Flow); decay=1 is FlowGrad, without its merging of straight steps. For a rectified flow
    the flow frame is x itself; other schedules are brought to it.

    Args:
        iterations: updates of the controls; 0 is off.
        rate: step of the updates, in the units of the loss: a rate that is too large overshoots.
        decay: what is left of the controls in an update.

    Use it with flows, where the sample is to stay near the one that its noise leads to; the rate must be found for
    every task.

    Cost per sample, with n calls a run: forward n + iterations * (2n - 1) (memory="minimal"), n + iterations * n
    ("fast"); backward iterations * n. Memory: the controls, one tensor of a sample's size a step.

    Source: Liu et al., "FlowGrad", CVPR 2023; Wang et al., "Training Free Guided Flow Matching with Optimal Control",
    2410.18070, in Euclidean space. The published code adds controls before the velocity is evaluated; here, as in the
    ODE dy = (v + c) du, they are added to the step.
    """

    controlled: ClassVar[bool] = True

    iterations: int = 15
    rate: float = 0.5
    decay: float = 0.995

    def __post_init__(self) -> None:
        settle(self, iterations=check_iterations(self.iterations))
        check_settings(
            rate=(self.rate, self.rate > 0, "positive"),
            decay=(self.decay, 0 < self.decay <= 1, "above 0 and at most 1"),
        )

    def visit(self, path: Path) -> Iterator[Point]:
        # the sweep's cotangent of c_j is w_j d loss / d x_{j+1}; lambda_{j+1}, of y_{j+1}, is that over h_j
        schedule, steps = path.schedule, pairwise(path.times)
        h = [control_weight(schedule, t, s) / (schedule.alpha(s) + schedule.sigma(s)) for t, s in steps]
        controls = [torch.zeros_like(path.start) for _ in h]
        point = path.at(path.start, controls)
        yield point
        for _ in range(self.iterations):
            bars = point.gradient()[1:]
            controls = [self.decay * c - self.rate / step * bar for c, step, bar in zip(controls, h, bars, strict=True)]
            point = path.at(path.start, controls)
            yield point
