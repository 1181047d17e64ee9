"""torchsde's reversible Heun: an invertible integrator, whose adjoint inverts it step by step.

    z' = 2 y - z + h f(z),   y' = y + h / 2 (f(z) + f(z'))

Source: Kidger et al., "Efficient and Accurate Gradients for Neural SDEs", 2105.13493, algorithms 1 and 2.
"""

from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.ode import FLOW, Field
from benchmarks.peers.way import Problem, Way
from symguide.extras import library


class ReversibleHeun(Way):
    """torchsde's sdeint_adjoint with adjoint_reversible_heun, on the SDE without noise: n steps, n + 1 calls.

    Time is counted in steps, so that the integrator, which has one step size, meets the grid's points exactly.
    """

    name = "sdeint_adjoint"
    map = "reversible Heun"
    solvers = ("reversible Heun",)
    library = "torchsde"

    def sample(self, problem: Problem, x: Tensor) -> Tensor:
        return self._integrate(problem, x, "sdeint")

    def gradient(self, problem: Problem, x: Tensor) -> Tensor:
        leaf = x.detach().clone().requires_grad_()
        method = {"adjoint_method": "adjoint_reversible_heun", "adjoint_params": ()}
        x0 = self._integrate(problem, leaf, "sdeint_adjoint", **method)
        return torch.autograd.grad(problem.objective(x0).sum(), leaf)[0]

    def _integrate(self, problem: Problem, x: Tensor, integrate: str, **settings: Any) -> Tensor:
        torchsde = library("torchsde", self.name, "bench")
        y = (x / FLOW.scale(problem.denoiser.schedule, problem.t)).flatten(1)
        ends = torch.tensor([0.0, problem.n], dtype=torch.float64, device=x.device)
        system = _Noiseless(problem, x.shape[1:])
        settings = {"method": "reversible_heun", "dt": 1.0, **settings}
        return getattr(torchsde, integrate)(system, y, ends, **settings)[-1].reshape(x.shape)


class _Noiseless:
    """dy = -u_t / n f(y, u_t (1 - k / n)) dk + 0 dW, with k the number of steps made."""

    noise_type, sde_type = "diagonal", "stratonovich"

    def __init__(self, problem: Problem, shape: torch.Size) -> None:
        self.field, self.shape, self.n = Field(problem.denoiser, FLOW), shape, problem.n
        self.start = FLOW.time(problem.denoiser.schedule.ratio(problem.t))

    def f(self, k: Tensor, y: Tensor) -> Tensor:
        u = self.start * (1 - float(k) / self.n)
        return -self.start / self.n * self.field(u, y.reshape(-1, *self.shape)).flatten(1)

    def g(self, k: Tensor, y: Tensor) -> Tensor:
        return torch.zeros_like(y)
