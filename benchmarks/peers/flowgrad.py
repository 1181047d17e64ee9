"""FlowGrad: the sweep of Euler's rule, with one vector-Jacobian product for a whole run of straight steps.

    λ_j = λ_m + (u_m - u_j) (dv/dy (y_j, u_j))^T λ_m       for the steps j ... m - 1 that were merged

Source: Liu et al., "FlowGrad: Controlling the Output of Generative ODEs with Gradients", CVPR 2023.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from benchmarks.peers.ode import FLOW
from benchmarks.peers.programs import ProgramWay
from benchmarks.peers.way import Problem, vjp
from symguide.loss import value_and_gradient
from symguide.per_sample import norm


class FlowGrad(ProgramWay):
    """FlowGrad's gradient at the start.

    Args:
        threshold: steps are merged until the changes of velocity among them come to more; 5e-3 is the authors' code's,
            and at 0 nothing is merged.
    """

    name = "FlowGrad"
    solvers = ("ddim",)

    def __init__(self, threshold: float = 5e-3) -> None:
        self.threshold = threshold

    def gradient(self, problem: Problem, x: Tensor) -> Tensor:
        schedule, times = problem.denoiser.schedule, problem.times
        scale, u = [FLOW.scale(schedule, t) for t in times], [FLOW.time(schedule.ratio(t)) for t in times]
        y, states, changes, last = x / scale[0], [], [0.0] * problem.n, None
        with torch.no_grad():
            for j in range(problem.n):
                v = problem.denoiser(scale[j] * y, times[j]).flow
                if last is not None:
                    gap = (v - last).square()
                    changes[j - 1] = max(changes[j - 1], _share(gap, last))
                    changes[j] = _share(gap, v)
                states.append(y)
                y, last = y + (u[j + 1] - u[j]) * v, v
        bar = value_and_gradient(problem.objective, y)[1]
        for j, m in reversed(list(pairwise(merged(changes, self.threshold)))):
            pulled = vjp(problem.denoiser, "flow", scale[j] * states[j], times[j], bar)[1]
            bar = bar + (u[m] - u[j]) * scale[j] * pulled
        return bar / scale[0]

    def states(self, problem: Problem) -> int:
        return problem.n


def merged(changes: Sequence[float], threshold: float) -> list[int]:
    """Where runs of merged steps begin, and the number of steps: a run ends with the step that exceeds the threshold.

    >>> merged([0.1, 0.1, 0.1, 0.1, 0.1], 0.15), merged([0.1, 0.1, 0.1], 0.0)
    ([0, 2, 4, 5], [0, 1, 2, 3])
    """
    starts, total = [0], 0.0
    for j, change in enumerate(changes):
        total += change
        if total > threshold and j + 1 < len(changes):
            starts.append(j + 1)
            total = 0.0
    return [*starts, len(changes)]


def _share(gap: Tensor, v: Tensor) -> float:
    """|gap|² to |v|², of the sample where it is largest: a batch has one set of runs."""
    return (gap.flatten(1).sum(dim=1) / norm(v).flatten().square()).max().item()
