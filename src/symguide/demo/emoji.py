"""Emoji: a sentence in the style of a picture, by four methods from the same noise, beside the drawing of a person."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from symguide.demo.misaligned import Misaligned
from symguide.demo.panel import COSTS, UNGUIDED, Panel, four
from symguide.demo.tasks import METHODS, Strength
from symguide.denoiser import Denoiser
from symguide.errors import ConfigError, WeightsError, unknown
from symguide.evaluation.emoji import Judges, judges
from symguide.evaluation.emoji_album import SETS, Album
from symguide.evaluation.tasks import Features
from symguide.objectives import Style
from symguide.prediction_guidance import CFG
from symguide.report import Column, Section, Tile, grid
from symguide.specs.references import resized
from symguide.worlds import WORLDS
from symguide.worlds.emoji import drawing, drawings
from symguide.worlds.emoji.names import emojis, vectors
from symguide.worlds.emoji.sentences import text
from symguide.worlds.emoji.views import look
from symguide.worlds.load import scorer

STRENGTH = Strength(0.1, 0.2, 0.2)
"""At these penguin and octopus stay what they are (four pictures, 25 steps, seed 0, MiniLM installed): by the judge
2.24 from the style unguided, then 1.34, 1.57 and 1.62; of "a happy octopus" 2.79, then 1.97, 2.29 and 1.56."""
GIVEN, TRUTH = "the style", "drawn by a person"
CALLS, SHARES = (1, 4), (0.0, 0.2, 0.4, 0.6, 0.8)
"""Of an estimate; and of the steps that are done when it is made."""


@dataclass(frozen=True)
class Wish:
    """What is asked for.

    Attributes:
        prompt: a sentence.
        style: a picture's file, or a set of drawings: one that shows something else is taken.
        weight: of classifier-free guidance.
    """

    prompt: str = "a penguin"
    style: str = "openmoji"
    weight: float = WORLDS["emoji"].weight


@dataclass(frozen=True)
class Read:
    """A wish as the world takes it.

    Attributes:
        vector: of the sentence, (384,).
        character: the one whose name is nearest to it, its place in the world.
        reference: the picture that has the style, (3, 32, 32).
        shown: what it is, in words.
        drawn_by: the set whose style it is, None where that is not known.
        truth: how that set draws the character, (3, 32, 32), None where that cannot be had.
        remarks: what is to be said of all this.
    """

    vector: Tensor
    character: int
    reference: Tensor
    shown: str
    drawn_by: str | None
    truth: Tensor | None
    remarks: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of the character."""
        return emojis()[self.character].name


def read(wish: Wish, judge: Judges) -> Read:
    """A wish as the world takes it. The set whose style a picture of one's own has is as the judge of styles reads it.

    Raises:
        ConfigError: for a sentence that cannot be read, and a style that is neither a picture nor a set of drawings.
        WeightsError: where the style is a set's, whose drawings cannot be had.
    """
    if not wish.prompt.strip():
        raise ConfigError("--prompt says nothing: give a sentence, such as --prompt 'a happy octopus'")
    said: list[str] = []
    vector = text(wish.prompt, said.append)[0]
    character = int((vectors() @ vector).argmax())
    by: str | None = wish.style
    if wish.style in SETS:
        other, reference = another(character, wish.style)
        shown = f"{emojis()[other].name} of {wish.style}"
    elif Path(wish.style).suffix or Path(wish.style).exists():
        shown, reference = Path(wish.style).name, resized(wish.style, (3, 32, 32), said.append).float()
        by = SETS[int(judge.see(reference[None])["style"].argmax())] if "style" in judge else None
    else:
        raise ConfigError(f"--style is the file of a picture, or of these sets: {unknown('set', wish.style, SETS)}")
    truth = None
    if by is None:
        said.append(f"which set draws like {shown} is for the judge of styles to say, which is not there")
    else:
        try:
            truth = drawn(by, character)
        except WeightsError as missing:
            said.append(f"the true drawing is not shown: {missing}")
        else:
            said += [f"{by} has no {emojis()[character].name}: there is no true drawing"] if truth is None else []
    return Read(vector, character, reference, shown, by, truth, tuple(said))


def drawn(by: str, place: int) -> Tensor | None:
    """How a set draws a character, (3, 32, 32); None where it does not.

    Raises:
        WeightsError: where its drawings cannot be had.
    """
    if emojis()[place].code not in drawings.icons(by):
        return None
    try:
        return drawing(emojis()[place].name, by, side=32)
    except ConfigError as missing:  # the program that draws
        raise WeightsError(str(missing)) from missing


def another(place: int, by: str) -> tuple[int, Tensor]:
    """The next character of its group, in the order in which all are asked for, that the set draws, and its drawing.

    Of a set that the models know it is one that they have seen.
    """
    known, order = emojis(), Album(emojis(), vectors()).order.tolist()
    at = order.index(place)
    for other in [*order[at + 1 :], *order[:at]]:
        if known[other].group == known[place].group and by not in known[other].unseen:
            found = drawn(by, other)
            if found is not None:
                return other, found
    raise ConfigError(f"{by} draws nothing like {known[place].name}: give another --style")


class InTheStyle(Panel):
    """What a sentence says in the style of a picture, which the model is not told: by the four methods."""

    columns = (
        Column("method", "method"),
        Column("scorer", "style,\nscorer", "{:.2f}"),
        Column("judge", "style,\njudge", "{:.2f}"),
        Column("name", "name\nread", "{:.0%}"),
        Column("style", "style\nread", "{:.0%}"),
        Column("truth", "from the\ntruth", "{:.2f}"),
        *COSTS,
    )

    def __init__(self, denoiser: Denoiser, num: int, device: torch.device | str, wish: Wish) -> None:
        network = scorer("emoji", "classifier", device, torch.float32)
        self.wish, self.judges = wish, judges(device=device)
        self.read = read(wish, self.judges)
        self.reference = self.read.reference[None].to(device)
        self.scorer, calls = Style(self.reference, network), 1 if wish.weight == 1 else 2
        super().__init__(denoiser, device, num, four(self.scorer, *STRENGTH, passes=calls))

    def told(self, count: int) -> dict[str, Any]:
        """What the model is told: the sentence for every sample, no style, and that it may look as it will."""
        free = torch.tensor([look(free=True)] * count, device=self.device)
        return {"text": self.read.vector.to(self.device).expand(count, -1), "look": free}

    def settings(self) -> dict[str, Any]:
        """The sentence and its guidance."""
        return {"condition": self.told(self.num), "prediction": CFG(self.wish.weight)}

    @torch.no_grad()
    def quality(self, samples: Tensor) -> dict[str, Any]:
        """What scorer and judges say; of a judge that is not there nothing."""
        found: dict[str, Any] = {"scorer": self.scorer(samples).mean().item()}
        seen = self.judges.see(samples)
        if "classifier" in seen:
            judge = self.judges.networks["classifier"]
            found["judge"] = Style(self.reference, judge)(samples).mean().item()
            if self.read.truth is not None:
                truth = self.read.truth[None].to(samples)
                found["truth"] = Features(truth, judge)(samples).mean().item()
        if "name" in seen:
            found["name"] = (seen["name"].argmax(dim=1) == self.read.character).double().mean().item()
        if "style" in seen and self.read.drawn_by is not None:
            found["style"] = (seen["style"].argmax(dim=1) == SETS.index(self.read.drawn_by)).double().mean().item()
        return found

    def others(self) -> dict[str, Tensor]:
        """The true drawing."""
        return {} if self.read.truth is None else {TRUTH: self.read.truth[None].to(self.device)}

    def picture(self) -> Image.Image:
        """What is given, what every method made of it, and the true drawing."""
        rows = {GIVEN: self.reference, **{name: result.samples for name, result in self.results.items()}}
        rows |= self.others()
        labels = [name.replace(" + ", "\n+ ").replace(" by a", "\nby a") for name in rows]
        return grid(list(rows.values()), labels, cell=128)

    def tiles(self) -> list[Tile]:
        """The same, a picture each with what was measured of it."""
        across = math.ceil(self.num**0.5)
        found = [Tile(grid(self.reference, cell=256), GIVEN, (self.read.shown,), f"The style: {self.read.shown}")]
        for row in self.rows:
            name = row["method"]
            samples = self.results[name].samples if name in self.results else self.others()[name]
            alt = f"{self.wish.prompt}, {name}" if name in self.results else f"{self.read.name}, {name}"
            drawn = grid(samples, columns=min(across, len(samples)), cell=256 // min(across, len(samples)))
            found.append(Tile(drawn, name, self.lines(row, len(samples)), alt))
        return found

    def lines(self, row: Mapping[str, Any], count: int) -> tuple[str, ...]:
        """What a row says, in words."""

        def of(key: str) -> str:
            return f"{round(row[key] * count)} of {count}"

        said = []
        if "judge" in row:
            said.append(f"from the style {row['judge']:.2f}")
        if "truth" in row and row["method"] in self.results:
            said.append(f"from the truth {row['truth']:.2f}")
        if row["method"] in self.results:
            said += [f"{what} read: {of(key)}" for key, what in (("name", "name"), ("style", "style")) if key in row]
            said.append(f"{row['forward_calls']} + {row['backward_calls']} calls")
        return tuple(said)

    def section(self) -> Section:
        """The panel as a part of a page."""
        missing = [f"Without {what}: {why}" for what, why in self.judges.missing.items()]
        return Section(
            "Emoji: a sentence, and the style of a picture",
            f'Told to the model: "{self.wish.prompt}", and no style: it may look as it will. The style is that of a '
            f"picture, which guidance alone asks for: {self.read.shown}. All methods start from the same noise. "
            f"{self.summary()}",
            tiles=self.tiles(),
            table=self.table,
            notes=(*self.read.remarks, *missing, *self.notes()),
        )

    def notes(self) -> list[str]:
        """What the figures are."""
        by = "" if self.read.drawn_by is None else f", and the style as that of {self.read.drawn_by}"
        return [
            "Style: distance of Gram matrices to the given picture's, by EfficientNet-lite0, which guidance follows "
            "(scorer), and by EfficientNet-lite2, which it never sees (judge). Less is better.",
            f"Read: the share in which judges read the name, of {len(emojis()):,}, as {self.read.name}{by}.",
            "From the truth: |f(x) - f(truth)|² / |f(truth)|² in the judge's features. The truth is how a person drew "
            f"{self.read.name} for the set whose style is asked for. Calls: forward and backward, for one picture.",
            f"Strengths: FreeDoM {STRENGTH.freedom:g}, SAG {STRENGTH.sag:g}, sphere {STRENGTH.sphere:g}; "
            f"classifier-free guidance {self.wish.weight:g}. A few pictures of one seed: see docs/results for more.",
        ]

    def summary(self) -> str:
        """What to see, in a sentence or two."""
        rows = {row["method"]: row for row in self.rows}
        key, whose = ("judge", "the judge") if "judge" in rows[UNGUIDED] else ("scorer", "the scorer")
        best = min(METHODS[1:], key=lambda name: rows[name][key])
        said = (
            f"By {whose} the distance to the style falls from {rows[UNGUIDED][key]:.2f}, unguided, to "
            f"{rows[best][key]:.2f} by {best}"
        )
        if "name" not in rows[best]:
            return f"{said}."
        of = {name: round(rows[name]["name"] * self.num) for name in (UNGUIDED, best)}
        read = f"{of[UNGUIDED]} of {self.num} pictures unguided, and in {of[best]} by {best}"
        return f"{said}; {self.read.name} is read in {read}."


class Forming(Misaligned):
    """How the picture forms: estimates by one call and by four on the way from one noise."""

    def __init__(self, panel: InTheStyle) -> None:
        self.prompt = panel.wish.prompt
        super().__init__(panel.denoiser, panel.told(1), panel.wish.weight, CALLS, SHARES)

    def section(self) -> Section:
        """A strip for each number of calls."""
        tiles = [
            Tile(
                grid(torch.cat([x, self.final]), cell=128),
                f"by {n} call{'s' if n > 1 else ''}",
                (f"off by {', '.join(f'{gap:.2f}' for gap in gaps)}",),
                f"{self.prompt}: estimates by {n} calls from noise to the finished picture",
                row=True,
            )
            for (n, x), gaps in zip(self.estimates.items(), self.gaps.values(), strict=True)
        ]
        shares = ", ".join(f"{share:.0%}" for share in SHARES)
        return Section(
            "How it forms",
            f"What guidance sees of the picture to come, from noise on the left to the picture itself on the right, "
            f"unguided: after {shares} of the steps, by one call of the network and by four.",
            tiles=tiles,
            notes=("Off by: root mean square distance to the picture; pixels are -1 to 1.",),
        )
