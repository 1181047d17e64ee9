"""Memory plans: how many network graphs of a look-ahead are kept for its sweep, and what that takes.

A kept graph saves one forward call and costs the bytes that one call's backward needs; the gradient is the same.
"""

from contextlib import suppress
from dataclasses import dataclass

import torch

from symguide.errors import ConfigError, whole
from symguide.meter import free_bytes, parse_bytes

MemoryPlan = str | int


def check_memory(memory: MemoryPlan) -> MemoryPlan:
    """The plan itself; ConfigError if it is none.

    >>> check_memory("auto:2GB")
    'auto:2GB'
    """
    if isinstance(memory, str):
        plan = memory in ("minimal", "fast", "auto") or (
            memory.startswith("auto:") and parse_bytes(memory[5:]) is not None
        )
        if plan:
            return memory
    else:
        with suppress(ConfigError):
            return whole(memory, "memory", 0)
    raise ConfigError(f"memory is 'minimal', 'fast', 'auto', 'auto:2GB' or a number of graphs to keep, not {memory!r}")


@dataclass(frozen=True)
class Forecast:
    """The most bytes that the gradient of a look-ahead holds at once, by the number k of graphs that its plan keeps.

        look ahead   states + the graphs kept so far + one call
        objective    states + k graphs + the objective, forward and backward
        sweep        states + (k - 1) graphs + one call, forward and backward

    The look-ahead never holds more than the sweep. Plain autograd through all n calls is k = n. Bytes are of one kind,
    either those saved for backward or those of all tensors; weights are not among them.

    Attributes:
        n: calls of the look-ahead.
        graph: bytes that one kept graph holds.
        call: the most during one call and its gradient: the graph, and what comes and goes beside it.
        objective: the most during the objective and its gradient.
        states: of the stored inputs of the calls.

    >>> forecast = Forecast(n=8, graph=10, call=12, objective=5, states=8)
    >>> [forecast.peak(k) for k in (0, 1, 8)], forecast.graphs(40)
    ([20, 23, 93], 2)
    """

    n: int
    graph: int
    call: int
    objective: int
    states: int = 0

    def peak(self, kept: int) -> int:
        """The most bytes at once where so many graphs are kept."""
        return self.states + max(kept * self.graph + self.objective, max(kept - 1, 0) * self.graph + self.call)

    def graphs(self, budget: int) -> int:
        """The most graphs whose peak is within a budget; 0, which needs least, where no plan's is."""
        return max((k for k in range(self.n + 1) if self.peak(k) <= budget), default=0)


def budget_of(memory: MemoryPlan, device: torch.device) -> int | None:
    """Bytes that "auto" may fill, half of what is free where it names no number; None for all other plans."""
    if not isinstance(memory, str) or not memory.startswith("auto"):
        return None
    return free_bytes(device) // 2 if memory == "auto" else parse_bytes(memory[5:])


def graphs_to_keep(memory: MemoryPlan, n: int, forecast: Forecast | None, budget: int | None) -> int | None:
    """How many of n graphs a plan keeps; None for "auto" while nobody knows what a graph weighs.

    "auto" keeps as many as the forecast has room for in its budget.

    >>> forecast = Forecast(n=8, graph=10**6, call=10**6, objective=0)
    >>> [graphs_to_keep(plan, 8, forecast, 2_500_000) for plan in ("minimal", "fast", 3, "auto:2.5MB")]
    [1, 8, 3, 2]
    """
    if isinstance(memory, int):
        return min(memory, n)
    if memory in ("minimal", "fast"):
        return 1 if memory == "minimal" else n
    assert budget is not None
    return None if forecast is None else forecast.graphs(budget)


@dataclass
class Weights:
    """Bytes that one call and the objective save for backward, once "auto" has weighed them; kept for a whole run."""

    graph: int | None = None
    objective: int | None = None
