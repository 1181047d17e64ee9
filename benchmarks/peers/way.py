"""What a way to the gradient of a look-ahead is, and the problem that all of them are given."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from symguide.denoiser import Counter, Denoiser, Level
from symguide.errors import ConfigError
from symguide.extras import library
from symguide.loss import Objective
from symguide.memory_plan import Forecast
from symguide.solver import SOLVERS, flow, get_solver

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Problem:
    """The gradient that is asked for: of the objective's sum at the clean sample, with respect to x at time t.

    `solver` is one of ours, or the name of a way's own sampler, which makes n steps of one stage on the same grid.
    """

    denoiser: Denoiser
    objective: Objective
    t: float
    n: int
    solver: str

    @property
    def stages(self) -> tuple[int, ...]:
        """Stages of every step."""
        return get_solver(self.solver).calls(self.n) if self.solver in SOLVERS else (1,) * self.n

    @property
    def times(self) -> list[float]:
        """Times of all steps, from t to 0: uniform in sigma / (alpha + sigma), as `lookahead` has them."""
        return flow(self.denoiser.schedule, self.t, len(self.stages))

    def metered(self) -> tuple["Problem", Counter]:
        """The same problem, and the counter of what its network computes."""
        denoiser = Metered(self.denoiser)
        return replace(self, denoiser=denoiser), denoiser.passes


class Way:
    """A way to the gradient of a look-ahead.

    Attributes:
        name: as in tables.
        map: the name of its forward map; ways with one name have one map.
        solvers: solvers that it has, or its own sampler alone.
        library: the package that it needs, "" for none.
    """

    name: str
    map: str
    solvers: tuple[str, ...]
    library: str = ""

    @property
    def missing(self) -> str:
        """The sentence that says how to get the way's library, "" where it is installed or none is needed."""
        try:
            if self.library:
                library(self.library, self.name, "bench")
        except ConfigError as error:
            return str(error)
        return ""

    def sample(self, problem: Problem, x: Tensor) -> Tensor:
        """Its clean sample of x, differentiable by plain autograd: what its own discretisation is."""
        raise NotImplementedError

    def gradient(self, problem: Problem, x: Tensor) -> Tensor:
        """The gradient at x, (B, ...)."""
        raise NotImplementedError

    def kept(self, problem: Problem, forecast: Forecast, device: torch.device) -> int | None:
        """Network graphs that live when it asks the objective; None where `Forecast` does not speak of such a way."""
        return None

    def states(self, problem: Problem) -> int:
        """Samples that it stores between its passes where autograd does not see them."""
        return 0

    def seen(self, problem: Problem) -> int:
        """Samples that it stores where autograd sees them, beside graphs of the network."""
        return 0


def by_autograd(way: Way, problem: Problem, x: Tensor) -> Tensor:
    """The gradient through the way's own discretisation, with all graphs at once."""
    leaf = x.detach().clone().requires_grad_()
    return torch.autograd.grad(problem.objective(way.sample(problem, leaf)).sum(), leaf)[0]


def vjp(denoiser: Denoiser, space: str, x: Tensor, t: float, cotangent: Tensor) -> tuple[Tensor, Tensor]:
    """(prediction, (d prediction / d x)^T cotangent), the prediction in a space such as "eps"; one call each way."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        value: Tensor = getattr(denoiser(leaf, t), space)
    return value.detach(), torch.autograd.grad(value, leaf, cotangent)[0]


class Metered(Denoiser):
    """A denoiser that counts, in rows, what its network computes: every forward pass, and every backward pass.

    Backward passes are counted by a hook on the network's output, so that no way has to say what it did.
    """

    def __init__(self, of: Denoiser) -> None:
        self.__dict__.update(of.__dict__)
        self.of, self.passes = of, Counter()

    def _evaluate(self, x: Tensor, t: Level, condition: Any) -> Tensor:
        self.passes.forward += len(x)
        out = self.of._evaluate(x, t, condition)
        if out.requires_grad:
            out.register_hook(self._backward)  # type: ignore[no-untyped-call]
        return out

    def _backward(self, gradient: Tensor) -> None:
        self.passes.backward += len(gradient)
