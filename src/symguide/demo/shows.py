"""What the demo shows of each world: its panels, what comes before them, and the sentence it ends with."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from symguide.demo.inpaint import Inpaint
from symguide.demo.misaligned import Misaligned
from symguide.demo.panel import Panel
from symguide.demo.steer import Steer
from symguide.demo.tasks import WEIGHT, TaskPanel, overview
from symguide.evaluation.tasks import TASKS
from symguide.report import Section
from symguide.worlds.load import load


@dataclass(frozen=True)
class Show:
    """A world's demo.

    Attributes:
        panels: by the name of their picture.
        summary: what to see, in a sentence, when all has run.
        lead: what the page begins with, the summary where there is none.
        opening: what comes before the panels.
        closing: what comes after them.
    """

    panels: dict[str, Panel]
    summary: Callable[[], str]
    lead: str | None = None
    opening: Misaligned | None = None
    closing: Callable[[], Section] | None = None


def digits(num: int, device: torch.device | str) -> Show:
    """A classifier's digit, and half of a digit."""
    denoiser = load("digits", device=device)
    steer = Steer(denoiser, num, device)
    return Show({"steer": steer, "inpaint": Inpaint(denoiser, min(num, 30), device)}, steer.summary)


def scenes(num: int, device: torch.device | str) -> Show:
    """The paper's tasks, text to image."""
    denoiser = load("scenes", device=device)
    panels = {name: TaskPanel(name, denoiser, num, device) for name in TASKS}

    def summary() -> str:
        parts = ", ".join(f"{name} {panel.gain()}" for name, panel in panels.items())
        return f"By the judge, from unguided to the best method (less is better): {parts}."

    return Show(dict(panels), summary, LEAD, Misaligned(denoiser, WEIGHT), lambda: overview(panels))


LEAD = (
    "A small text-to-image model draws these pictures, and nothing of it is trained here: its sampling is steered. In "
    "every column all methods start from the same noise. FreeDoM follows the gradient of a loss on an estimate by one "
    "network call; SAG looks 4 calls ahead and differentiates them exactly; DSG takes steps of the length that the "
    "model's own noise has."
)


@dataclass(frozen=True)
class World:
    """A show by name: how it is made, its sizes in full and with --quick, and the page's title."""

    make: Callable[[int, torch.device | str], Show]
    num: tuple[int, int]
    steps: tuple[int, int]
    title: str


SHOWS = {
    "scenes": World(scenes, (4, 2), (20, 8), "symguide: one model, five ways to steer it"),
    "digits": World(digits, (100, 20), (30, 12), "symguide: guidance at sampling time"),
}
