"""Runs of a pipeline: from the scheduler's timesteps to the last step, and what is told of them."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from symguide.loop import Cost, StepRecord
from symguide.memory import Memory
from symguide.memory_plan import Weights
from symguide.own_path import Move
from symguide.pipelines.draws import Drawn
from symguide.pipelines.earlier import Earlier
from symguide.pipelines.guiders import guiders
from symguide.pipelines.levels import Clock
from symguide.pipelines.slots import Slot


@dataclass
class RunRecord:
    """One run of the pipeline's scheduler: a line for every step, and what it cost so far, calls for each sample."""

    trace: list[StepRecord] = field(default_factory=list)
    cost: Cost = field(default_factory=lambda: Cost(0, 0, 0.0, 0))


@dataclass
class Record:
    """What was drawn inside `guide`: all runs, in their order.

    Most pipelines make one run in a call. FreeInit, ensembles and videos in segments make several.

    Attributes:
        runs: each of them.
    """

    runs: list[RunRecord] = field(default_factory=list)

    @property
    def trace(self) -> list[StepRecord]:
        """A line for every step of the last run."""
        return self.runs[-1].trace if self.runs else []

    @property
    def cost(self) -> Cost:
        """What the last run cost."""
        return self.runs[-1].cost if self.runs else RunRecord().cost

    @property
    def total(self) -> Cost:
        """What all runs cost together; bytes are those of the largest."""
        costs = [run.cost for run in self.runs]
        return Cost(
            sum(cost.forward_calls for cost in costs),
            sum(cost.backward_calls for cost in costs),
            sum(cost.seconds for cost in costs),
            max((cost.peak_bytes for cost in costs), default=0),
        )


class ToMake(NamedTuple):
    """A call of a scheduler's step: its number in the run, the step that it belongs to, and the repeat of that."""

    place: int
    step: int
    repeat: int


ToMove = tuple[ToMake, Move]


class PipelineRun:
    """Where a run stands.

    Args:
        times: of all calls of the scheduler's step, and of where the last one ends.
        start: the place of the first of its timesteps among the scheduler's.
        clock: what networks are told at other times.
        earlier: what the steps so far have shown.
    """

    def __init__(self, times: Sequence[float], start: int, clock: Clock, earlier: Earlier) -> None:
        self.timesteps, self.earlier, self.start = clock, earlier, start
        self.thread, self.record = threading.get_ident(), RunRecord()
        self.times, self.every, place = list(times[:1]), tuple(times), 0
        self.parts: list[int] = []
        """The step that each call of the scheduler's belongs to; `every` are their times, and the last one's end."""
        while place < len(times) - 1:  # a time that stands twice is where the scheduler corrects a step
            calls = 2 if times[place + 1 : place + 2] == times[place + 2 : place + 3] else 1
            self.parts += [len(self.times) - 1] * calls
            place += calls
            self.times.append(times[place])
        self.made = 0
        """Calls of the scheduler's step so far."""
        self.foreseen: dict[tuple[int, int], list[Drawn]] = {}
        """What calls to come will draw, by the number of the call and the repeat, where a look-ahead has asked."""
        self.moves: list[ToMove] = []
        """Its moves that are left, where one has asked."""
        self.index, self.group = 0, times[0]
        self.change: Tensor | None = None
        """Of a step whose second half is still to come."""
        self.weights, self.memory = Weights(), Memory()
        self.slots: Sequence[Slot] = ()
        """Of the calls to come, if their graphs are wanted."""
        self.calls = self.peak = 0
        """The most calls of a step, and the most bytes."""
        self.stochastic, self.active = False, False
        """Whether the scheduler draws noise, and whether a step was in the recipe's window."""

    @property
    def over(self) -> bool:
        """Whether its last step is made."""
        return self.index == len(self.times) - 1 and self.change is None


def announced(pipe: Any, scheduler: Any, left: int) -> int:
    """How many calls of `step` a pipeline that runs is to make, of those that its scheduler has left.

    Ordinary pipelines say it themselves, and modular ones tell it their guider, in steps: as many, but for schedulers
    that make a step in two.
    """
    said = [getattr(pipe, "num_timesteps", None)]
    if getattr(scheduler, "num_inference_steps", None) == len(scheduler.timesteps):
        said += [getattr(guider, "_num_inference_steps", None) for guider in guiders(pipe)]
    return min([left, *(number for number in said if isinstance(number, int) and number > 0)])
