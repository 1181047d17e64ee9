"""A memory plan at work: made once for a look-ahead, asked at each of its calls, and around its objective."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from symguide.call import Call, GuidedPredictor
from symguide.memory_plan import Forecast, MemoryPlan, budget_of, graphs_to_keep
from symguide.meter import SavedBytes
from symguide.schedule import Time
from symguide.solver import Program


class KeptGraphs:
    """Which network graphs of a look-ahead from x are kept for its sweep.

    All plans but "auto" know their number from the start. "auto" has a budget of bytes: it weighs the first graph that
    is made and plans with that; the first objective is weighed as its graph grows, and takes the room of kept graphs,
    the first call's first. Later look-aheads of the run find both in `predict.weights`.

    Args:
        memory: the plan, checked.
        predict, program, x: of the look-ahead.
        first: whether the first call's graph is kept whatever the plan.

    Attributes:
        count: how many of the last calls keep their graph; None while nobody knows.
    """

    def __init__(
        self, memory: MemoryPlan, predict: GuidedPredictor, program: Program, x: Tensor, first: bool = False
    ) -> None:
        self.memory, self.predict, self.n, self.first = memory, predict, program.calls, first
        self.budget, self.states = budget_of(memory, x.device), (self.n + program.inputs - 1) * x.nbytes
        self._plan()

    def _plan(self) -> None:
        weights = self.predict.weights
        known = None if weights.graph is None else self._forecast(weights.objective or 0)
        self.count = graphs_to_keep(self.memory, self.n, known, self.budget)

    def _forecast(self, objective: int) -> Forecast:
        graph = self.predict.weights.graph or 0
        return Forecast(self.n, graph, graph, objective, self.states)

    def wants(self, k: int) -> bool:
        """Whether the graph of call k is kept from the look-ahead on."""
        return (self.count is not None and k >= self.n - self.count) or (self.first and k == 0)

    def call(self, k: int, x: Tensor, t: Time) -> Call:
        """Call k; the first or last one is weighed where nobody knows what a graph weighs."""
        if self.count is not None or 0 < k < self.n - 1:
            return Call(self.predict, x, t, keep=self.wants(k))
        with SavedBytes() as saved:
            made = Call(self.predict, x, t, keep=True)
        self.predict.weights.graph = saved.live
        self._plan()
        if not self.wants(k):
            made.free()
        return made

    @contextmanager
    def beside(self, calls: Sequence[Call]) -> Iterator[None]:
        """Around the objective's graph: where "auto" does not know it yet, kept ones are freed as it needs the room."""
        if self.budget is None or self.predict.weights.objective is not None:
            yield
            return
        budget, kept = self.budget, [call for call in calls if call.kept]

        def make_room(objective: int) -> None:
            while kept and self._forecast(objective).peak(len(kept)) > budget:
                kept.pop(0).free()

        with SavedBytes(make_room) as saved:
            yield
        self.predict.weights.objective = saved.peak
