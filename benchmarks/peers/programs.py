"""Ways through our solvers' programs: the sweep with its memory plans, its approximations, and plain autograd."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from benchmarks.peers.way import Problem, Way, by_autograd
from symguide.call import GuidedPredictor
from symguide.lookahead import lookahead, lookahead_gradient, lookahead_program, run
from symguide.memory_plan import Forecast, MemoryPlan, budget_of, graphs_to_keep
from symguide.schedule import Time
from symguide.solver import SOLVERS


class ProgramWay(Way):
    """A way whose forward map is the solver's program."""

    map = "program"
    solvers = tuple(SOLVERS)

    def sample(self, problem: Problem, x: Tensor) -> Tensor:
        return lookahead(problem.denoiser, x, problem.t, problem.n, problem.solver).x0


class Ours(ProgramWay):
    """`lookahead_gradient` with some settings."""

    def __init__(self, name: str, **settings: Any) -> None:
        self.name, self.settings = name, settings

    def gradient(self, problem: Problem, x: Tensor) -> Tensor:
        where = problem.denoiser, x, problem.t, problem.objective, problem.n, problem.solver
        return lookahead_gradient(*where, **self.settings).value

    def states(self, problem: Problem) -> int:
        return problem.n


class Sweep(Ours):
    """The program read backwards, under a memory plan."""

    def __init__(self, memory: MemoryPlan) -> None:
        super().__init__(f"symguide, {memory}", memory=memory)
        self.memory = memory

    def kept(self, problem: Problem, forecast: Forecast, device: torch.device) -> int | None:
        return graphs_to_keep(self.memory, problem.n, forecast, budget_of(self.memory, device))


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

    def gradient(self, problem: Problem, x: Tensor) -> Tensor:
        return by_autograd(self, problem, x)

    def kept(self, problem: Problem, forecast: Forecast, device: torch.device) -> int | None:
        return problem.n


class Checkpoint(ProgramWay):
    """torch.utils.checkpoint around every network call: autograd stores its input, and calls it again.

    In its reentrant form, whose bytes saved-tensor hooks see.
    """

    name = "torch checkpoint"

    def gradient(self, problem: Problem, x: Tensor) -> Tensor:
        predict = GuidedPredictor(problem.denoiser)
        program = lookahead_program(problem.denoiser, problem.t, problem.n, problem.solver, None)
        leaf = x.detach().clone().requires_grad_()

        def call(state: Tensor, t: Time) -> Tensor:
            out: Tensor = checkpoint(lambda z: predict(z, t).x0, state, use_reentrant=True)
            return out

        with torch.enable_grad():
            loss = problem.objective(run(program, [leaf], call)).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        return leaf.grad

    def kept(self, problem: Problem, forecast: Forecast, device: torch.device) -> int | None:
        return 0

    def seen(self, problem: Problem) -> int:
        return problem.n
