"""What the panels of the demo share: methods that start from the same noise, and the rows and pictures they leave."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import torch
from PIL import Image
from torch import Tensor

from symguide.denoiser import Denoiser
from symguide.loop import Result, StepRecord, sample
from symguide.loss import Objective
from symguide.loss_guidance import SAG, FreeDoM, Sphere
from symguide.loss_guidance.recipe import Push, Recipe
from symguide.meter import show_bytes
from symguide.report import Column, Section, Table
from symguide.step import LossHook, Step

COSTS = (
    Column("forward_calls", "forward\ncalls"),
    Column("backward_calls", "backward\ncalls"),
    Column("seconds", "\nseconds", "{:.1f}"),
    Column("peak_bytes", "held for\ngradients", show_bytes),
)


Tick = Callable[[str, int], None]
"""Hears of what was done, and of how many network calls it was."""


class Part(Protocol):
    """A part of a show: `run` it, then read what is left of it."""

    @property
    def table(self) -> Table: ...

    def work(self, steps: int) -> int: ...

    def run(self, tick: Tick, steps: int, seed: int) -> None: ...

    def picture(self) -> Image.Image: ...

    def section(self) -> Section: ...


class Watch(Recipe):
    """Unguided sampling with the objective written to the trace: reads the sampler's own estimate, changes nothing."""

    def push(self, step: Step) -> Push:
        x0 = step.prediction.x0
        with torch.no_grad():
            return Push(torch.zeros_like(x0), self.objective(x0))


@dataclass(frozen=True)
class Method:
    """A row of a panel: its name, its guidance, and what a step of it costs, in network calls, for the progress bar."""

    name: str
    guidance: LossHook
    work: int


UNGUIDED, FREEDOM, LOOKAHEAD, SPHERE = "unguided", "FreeDoM", "SAG (n=4)", "SAG (n=4) + DSG"


def four(objective: Objective, freedom: float, sag: float, sphere: float, passes: int = 1) -> list[Method]:
    """The four methods, at scales of FreeDoM and SAG and a rate of DSG's sphere; `passes` a prediction."""
    return [
        Method(UNGUIDED, Watch(objective), passes),
        Method(FREEDOM, FreeDoM(objective, scale=freedom), 2 * passes),
        Method(LOOKAHEAD, SAG(objective, n=4, scale=sag), 11 * passes),
        Method(SPHERE, SAG(objective, n=4, constraint=Sphere(sphere)), 11 * passes),
    ]


class Panel(ABC):
    """Methods on one task: `run` it, then read its rows, table, picture and section."""

    columns: ClassVar[tuple[Column, ...]]

    def __init__(self, denoiser: Denoiser, device: torch.device | str, num: int, methods: Sequence[Method]) -> None:
        self.denoiser, self.device, self.num, self.methods = denoiser, device, num, methods
        self.results: dict[str, Result] = {}
        self.rows: list[dict[str, Any]] = []

    @abstractmethod
    def quality(self, samples: Tensor) -> dict[str, Any]:
        """What is measured of samples, by column."""

    @abstractmethod
    def others(self) -> dict[str, Tensor]:
        """What to compare with that no method drew, by name."""

    @abstractmethod
    def section(self) -> Section:
        """The panel as a part of a page."""

    @abstractmethod
    def picture(self) -> Image.Image:
        """The samples of all methods."""

    def settings(self) -> dict[str, Any]:
        """What else the samples are drawn with."""
        return {}

    def work(self, steps: int) -> int:
        """Network calls of all methods, for the progress bar."""
        return steps * sum(method.work for method in self.methods)

    def run(self, tick: Tick, steps: int, seed: int) -> None:
        """Draw with every method, with the same settings and so with the same noise, and measure.

        `tick` hears of every step.
        """
        settings = {"batch": self.num, "steps": steps, "seed": seed, "device": self.device, **self.settings()}
        for method in self.methods:

            def step_done(record: StepRecord, x: Tensor, method: Method = method) -> None:
                tick(method.name, method.work)

            self.results[method.name] = sample(self.denoiser, loss=method.guidance, callback=step_done, **settings)
        self.rows = [{"method": n, **self.quality(r.samples), **asdict(r.cost)} for n, r in self.results.items()]
        self.rows += [{"method": name, **self.quality(x)} for name, x in self.others().items()]

    @property
    def table(self) -> Table:
        return Table(self.columns, self.rows)
