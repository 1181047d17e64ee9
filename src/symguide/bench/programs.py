"""Ways through our solvers' programs: the sweep with its memory plans, its approximations, and plain autograd."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from symguide.bench.way import Task, Way, by_autograd
from symguide.call import GuidedPredictor
from symguide.lookahead import lookahead, lookahead_gradient, lookahead_program, run
from symguide.memory_plan import Forecast, MemoryPlan, budget_of, graphs_to_keep
from symguide.solver import SOLVERS


class ProgramWay(Way):
    """A way whose forward map is the solver's program."""

    map = "program"
    solvers = tuple(SOLVERS)

    def sample(self, task: Task, x: Tensor) -> Tensor:
        return lookahead(task.denoiser, x, task.t, task.n, task.solver).x0


class Ours(ProgramWay):
    """`lookahead_gradient` with some settings."""

    def __init__(self, name: str, **settings: Any) -> None:
        self.name, self.settings = name, settings

    def gradient(self, task: Task, x: Tensor) -> Tensor:
        where = task.denoiser, x, task.t, task.objective, task.n, task.solver
        return lookahead_gradient(*where, **self.settings).value

    def states(self, task: Task) -> int:
        return task.n


class Sweep(Ours):
    """The program read backwards, under a memory plan."""

    def __init__(self, memory: MemoryPlan) -> None:
        super().__init__(f"symguide, {memory}", memory=memory)
        self.memory = memory

    def kept(self, task: Task, forecast: Forecast, device: torch.device) -> int | None:
        return graphs_to_keep(self.memory, task.n, forecast, budget_of(self.memory, device))


class Approximation(Ours):
    """A Jacobian other than the exact one.

    "first" differentiates the first call alone. "identity" takes the gradient at the clean estimate for the gradient at
    x, as MPGD (2311.16424), ECM and FlowChef (2412.00100) do.
    """

    def __init__(self, jacobian: str, name: str) -> None:
        super().__init__(name, jacobian=jacobian)


class Autograd(ProgramWay):
    """Plain autograd through the sampler: the graphs of all n calls at once."""

    name = "autograd"

    def gradient(self, task: Task, x: Tensor) -> Tensor:
        return by_autograd(self, task, x)

    def kept(self, task: Task, forecast: Forecast, device: torch.device) -> int | None:
        return task.n


class Checkpoint(ProgramWay):
    """torch.utils.checkpoint around every network call: autograd stores its input, and calls it again.

    In its reentrant form, whose bytes saved-tensor hooks see.
    """

    name = "torch checkpoint"

    def gradient(self, task: Task, x: Tensor) -> Tensor:
        predict = GuidedPredictor(task.denoiser)
        program = lookahead_program(task.denoiser, task.t, task.n, task.solver, None)
        leaf = x.detach().clone().requires_grad_()

        def call(state: Tensor, t: float) -> Tensor:
            out: Tensor = checkpoint(lambda z: predict(z, t).x0, state, use_reentrant=True)
            return out

        with torch.enable_grad():
            loss = task.objective(run(program, [leaf], call)).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        return leaf.grad

    def kept(self, task: Task, forecast: Forecast, device: torch.device) -> int | None:
        return 0

    def seen(self, task: Task) -> int:
        return task.n
