"""The map from a start (and controls) to the clean sample, as methods that optimise a trajectory see it.

A `Path` is one solver's program over the whole time grid. `path.at(...)` reads it forwards: the sample and its loss.
`point.gradient()` reads it backwards: the exact gradient with respect to the start and to every control in one sweep.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from symguide.call import GuidedPredictor
from symguide.errors import ConfigError, whole
from symguide.kept_graphs import KeptGraphs
from symguide.lookahead import read_backwards, record
from symguide.loss import Objective, evaluate, require_finite
from symguide.memory_plan import MemoryPlan
from symguide.modules import vjp
from symguide.per_sample import Noise, expand
from symguide.schedule import Schedule
from symguide.solver import Program


@dataclass(frozen=True)
class Path:
    """What is fixed for a whole optimisation.

    `start` is x_T as the plain sampler has it and `unit` the length of unit noise there, so that settings of methods
    mean the same for every schedule: x_T = unit * z with z like N(0, I).
    """

    predict: GuidedPredictor
    objective: Objective
    program: Program
    start: Tensor
    unit: float
    noise: Noise
    times: Sequence[float]
    memory: MemoryPlan
    on_nan: str
    noise_of_steps: Sequence[Tensor] = ()
    """Further inputs of the program, which no method changes."""

    @property
    def schedule(self) -> Schedule:
        return self.predict.denoiser.schedule

    def at(self, start: Tensor, controls: Sequence[Tensor] = ()) -> "Point":
        """The sample that this start (and these controls) lead to, with its loss. Cost: one forward run."""
        return Point(self, [start, *controls])


class Point:
    """One run: its `inputs` (start, controls), the sample x0, the loss (B,), and its gradient where it is asked for.

    The objective is differentiated when the gradient is asked for: never at the last point, or at a rejected one.
    """

    def __init__(self, path: Path, inputs: list[Tensor]) -> None:
        self.path, self.inputs = path, inputs
        kept = KeptGraphs(path.memory, path.predict, path.program, inputs[0])
        self.x0, self._calls = record(kept, [*inputs, *path.noise_of_steps], path.program)
        loss, self._leaf = evaluate(path.objective, self.x0)
        self.loss, self._graph = loss.detach(), loss
        self.gradient_norm: Tensor | None = None

    def gradient(self) -> list[Tensor]:
        """Gradient of the loss with respect to all inputs, by one sweep; to be asked for once.

        Where it is not finite it is 0 with on_nan="skip", so that such a sample is left to what else a method does.
        """
        cotangent = vjp(self._graph, self._leaf, torch.ones_like(self.loss))[0]
        del self._graph, self._leaf  # before the sweep, which is where memory peaks
        bars = read_backwards(self.path.program, self._calls, cotangent, wanted=range(len(self.inputs)))
        self._calls = []
        free = bars[1:] or bars  # the start is not changed where there are controls
        self.gradient_norm = torch.stack([bar.flatten(1).norm(dim=1) for bar in free]).norm(dim=0)
        good = torch.isfinite(self.loss) & torch.isfinite(self.gradient_norm)
        if self.path.on_nan == "raise":
            require_finite(self.loss, self.gradient_norm)
        elif not bool(good.all()):
            bars = [torch.where(expand(good, bar), bar, 0.0) for bar in bars]
        return bars


class Method(Protocol):
    """A method: the points it visits, the first one included, `iterations` further ones at most."""

    iterations: int
    controlled: ClassVar[bool]
    """Whether it optimises a control at every step, not the start."""

    def visit(self, path: Path) -> Iterator[Point]: ...


def check_iterations(iterations: int) -> int:
    """The number itself; ConfigError unless it is a whole number, at least 0."""
    return whole(iterations, "iterations", 0)


def check_settings(**settings: tuple[float, bool, str]) -> None:
    """ConfigError for the first setting (value, whether it is allowed, what is) that is not."""
    for name, (value, allowed, what) in settings.items():
        if not allowed:
            raise ConfigError(f"{name} must be {what}, not {value!r}")
