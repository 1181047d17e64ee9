"""What the demo shows of each world: its panels, what comes before them, and the sentence it ends with."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from symguide.demo.ahead import Elongated
from symguide.demo.inpaint import Inpaint
from symguide.demo.misaligned import Misaligned
from symguide.demo.panel import Panel
from symguide.demo.steer import Steer
from symguide.demo.tasks import WEIGHT, PaperCell, TaskPanel, overview
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
        why: what explains the first panel, and comes after it.
        closing: what comes after them.
    """

    panels: dict[str, Panel]
    summary: Callable[[], str]
    lead: str | None = None
    why: Misaligned | None = None
    closing: Callable[[], Section] | None = None


def digits(num: int, device: torch.device | str) -> Show:
    """A classifier's digit, and half of a digit."""
    denoiser = load("digits", device=device)
    steer = Steer(denoiser, num, device)
    return Show({"steer": steer, "inpaint": Inpaint(denoiser, min(num, 30), device)}, steer.summary)


def scenes(num: int, device: torch.device | str) -> Show:
    """Where a look-ahead pays, on digits; then the paper's tasks, text to image."""
    denoiser = load("scenes", device=device)
    slim = Elongated(load("digits", device=device), 10 * num, device)
    style = PaperCell("style", denoiser, 2 * num, device)
    others = {name: TaskPanel(name, denoiser, num, device) for name in TASKS if name != "style"}

    def summary() -> str:
        parts = ", ".join(f"{name} {panel.gain()}" for name, panel in others.items())
        return (
            f"Slim digits: {slim.summary()}\n\nStyle: {style.summary()}\n\n"
            f"The others by the judge, from unguided to the best method (less is better): {parts}."
        )

    panels = {"slim": slim, "style": style, **others}
    return Show(panels, summary, LEAD, Misaligned(denoiser, WEIGHT), lambda: overview(others))


LEAD = (
    "Small pretrained models draw these pictures, and nothing of them is trained here: their sampling is steered. In "
    "every column all methods start from the same noise. Guidance follows the gradient of a loss on an estimate of the "
    "clean sample, by one network call (FreeDoM) or by several (SAG), differentiated exactly. First where a longer "
    "look-ahead pays, beside what strength buys in its place; then five more tasks of a text-to-image model, where one "
    "call is good to begin with. DSG takes steps of the length that the model's own noise has."
)


@dataclass(frozen=True)
class World:
    """A show by name: how it is made, its sizes in full and with --quick, and the page's title."""

    make: Callable[[int, torch.device | str], Show]
    num: tuple[int, int]
    steps: tuple[int, int]
    title: str


SHOWS = {
    "scenes": World(scenes, (4, 2), (20, 8), "symguide: look ahead, and steer"),
    "digits": World(digits, (100, 20), (30, 12), "symguide: guidance at sampling time"),
}
