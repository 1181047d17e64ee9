"""What the demo shows of each world: its panels, what comes before them, and the sentence it ends with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from symguide.demo.ahead import Elongated
from symguide.demo.emoji import Forming, InTheStyle, Wish
from symguide.demo.inpaint import Inpaint
from symguide.demo.misaligned import PROMPT, Misaligned
from symguide.demo.panel import Part
from symguide.demo.steer import Steer
from symguide.demo.tasks import STRENGTHS, WEIGHT, PaperCell, TaskPanel, overview
from symguide.errors import WeightsError
from symguide.report import Section
from symguide.worlds.load import load
from symguide.worlds.scenes import tokens


@dataclass(frozen=True)
class Show:
    """What a demo shows.

    Attributes:
        parts: in the order they are drawn, by the name of their picture.
        sections: of the page, when all has run.
        summary: what to see, in a sentence.
        lead: what the page begins with, the summary where there is none.
    """

    parts: Mapping[str, Part]
    sections: Callable[[], list[Section]]
    summary: Callable[[], str]
    lead: str | None = None


def digits(num: int, device: torch.device | str, wish: Wish) -> Show:
    """A classifier's digit, and half of a digit."""
    denoiser = load("digits", device=device)
    steer, inpaint = Steer(denoiser, num, device), Inpaint(denoiser, min(num, 30), device)
    return Show({"steer": steer, "inpaint": inpaint}, lambda: [steer.section(), inpaint.section()], steer.summary)


def scenes(num: int, device: torch.device | str, wish: Wish) -> Show:
    """Where a look-ahead pays, on digits; then tasks of the paper, text to image."""
    denoiser = load("scenes", device=device)
    slim = Elongated(load("digits", device=device), 10 * num, device)
    why = Misaligned(denoiser, {"caption": tokens(PROMPT)}, WEIGHT)
    style = PaperCell("style", denoiser, 2 * num, device)
    others = {name: TaskPanel(name, denoiser, num, device) for name in STRENGTHS}
    parts: dict[str, Part] = {"slim": slim, "estimates": why, "style": style, **others}

    def summary() -> str:
        gains = ", ".join(f"{name} {panel.gain()}" for name, panel in others.items())
        return (
            f"Slim digits: {slim.summary()}\n\nStyle: {style.summary()}\n\n"
            f"The others by the judge, from unguided to the best method (less is better): {gains}."
        )

    return Show(parts, lambda: [*(part.section() for part in parts.values()), overview(others)], summary, LEAD)


def emoji(num: int, device: torch.device | str, wish: Wish) -> Show:
    """A sentence in the style of a picture.

    Raises:
        WeightsError: where what it needs of others is not installed.
    """
    panel = InTheStyle(load("emoji", device=device), num, device, wish)
    forming = Forming(panel)
    return Show(
        {"emoji": panel, "emoji-estimates": forming}, lambda: [panel.section(), forming.section()], panel.summary
    )


def tour(num: int, device: torch.device | str, wish: Wish) -> Show:
    """Scenes, then emoji, or why these cannot be shown."""
    first = scenes(num, device, wish)
    try:
        last = emoji(num, device, wish)
    except WeightsError as missing:
        last = _without(f"There are no emoji here: {missing}")
    return Show(
        {**first.parts, **last.parts},
        lambda: [*first.sections(), *last.sections()],
        lambda: f"{first.summary()}\n\n{last.summary()}",
        LEAD,
    )


def _without(why: str) -> Show:
    """No emoji, and the reason."""
    return Show({}, lambda: [Section("Emoji", why)], lambda: why)


LEAD = (
    "Small pretrained models draw these pictures, and nothing of them is trained here: their sampling is steered. In "
    "every column all methods start from the same noise. Guidance follows the gradient of a loss on an estimate of the "
    "clean sample, by one network call (FreeDoM) or by several (SAG), differentiated exactly. First where a longer "
    "look-ahead pays, beside what strength buys in its place; then tasks of a text-to-image model, where one call "
    "is good to begin with. DSG takes steps of the length that the model's own noise has."
)


@dataclass(frozen=True)
class World:
    """A show by name: how it is made, its sizes in full and with --quick, the page's title, whether one may wish."""

    make: Callable[[int, torch.device | str, Wish], Show]
    num: tuple[int, int]
    steps: tuple[int, int]
    title: str
    wishes: bool = False


SHOWS = {
    "tour": World(tour, (4, 2), (20, 8), "symguide: look ahead, and steer", wishes=True),
    "scenes": World(scenes, (4, 2), (20, 8), "symguide: look ahead, and steer"),
    "digits": World(digits, (100, 20), (30, 12), "symguide: guidance at sampling time"),
    "emoji": World(emoji, (4, 2), (20, 8), "symguide: a sentence, and the style of a picture", wishes=True),
}
