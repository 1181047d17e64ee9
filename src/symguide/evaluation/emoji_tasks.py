"""The tasks that guidance is measured on in the emoji world, each with the true answer: a drawing that a person made.

Sample i of a task always has the same character, reference and truth, whatever the others are. What guidance follows is
computed by the world's scorers, and by its judges how far a sample is from what was asked, and from the true drawing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symguide.errors import unknown
from symguide.evaluation.emoji import Judges, before
from symguide.evaluation.emoji_album import CHARACTERS, DRAWINGS, SETS, TRAINED, Album, Pairs, album
from symguide.evaluation.tasks import Features
from symguide.objectives import Balanced, Edges, ImageSimilarity, Measurement, Palette, Region, Style
from symguide.objectives.base import Follower
from symguide.objectives.operators import Downsample
from symguide.objectives.similarity import Similarity
from symguide.worlds.emoji import look, view
from symguide.worlds.emoji.names import STYLES
from symguide.worlds.load import judge, scorer

Loss = Callable[[Tensor], Tensor]
NONE = len(STYLES)
"""The number of no style."""
GROUNDS = ("skyblue", "#ffcc00", "#99dd88", "#ee99bb", "#555577")
"""Colours that personalisation puts a drawing on, in turn."""


@dataclass(frozen=True)
class Task:
    """One task for some samples.

    Attributes:
        prompts: what every sample's text says; "" is no text.
        character: of every sample, its place in the album, (B,).
        style: in which the truth is drawn, its place in `SETS`, (B,).
        condition: what the model is told: text, style, view and look.
        reference: what guidance is given to follow, (B, 3, side, side), None where it follows no picture.
        scorer: the objective, by the scorers: what guidance may use.
        judge: the same by the judges, or how far their features are from those of the truth, for measuring alone.
        truth: the true drawing, (B, 3, side, side).
        known: the character's drawings in the styles that training knows, (B, 3, 3, side, side).
        seen: which of these training saw, in another style than the truth's, (B, 3).
        mask: the pixels that are given, where only some are.
        texts: what every sample is asked to show where guidance alone asks for it, and no text.
        upper: what a model would be told that may be told the style, where guidance alone asks for one that it knows.
    """

    prompts: list[str]
    character: Tensor
    style: Tensor
    condition: dict[str, Tensor]
    reference: Tensor | None
    scorer: Loss
    judge: Loss
    truth: Tensor
    known: Tensor
    seen: Tensor
    mask: Tensor | None = None
    texts: tuple[str, ...] = ()
    upper: dict[str, Tensor] | None = None

    @property
    def told(self) -> bool:
        """Whether the model is told a text or a style, and there is something for classifier-free guidance."""
        return bool(self.condition["text"].any() or (self.condition["style"] != NONE).any())


@dataclass(frozen=True)
class Ask:
    """The drawings that a task is about, and what is made of them.

    Attributes:
        book: the album.
        asked: the character and the style of every sample's truth.
        side: of the pictures.
        index: of every sample.
    """

    book: Album
    asked: Pairs
    side: int
    index: list[int]

    @property
    def names(self) -> list[str]:
        """What the characters are called."""
        return [self.book.characters[c].name for c in self.asked.character.tolist()]

    @property
    def vectors(self) -> Tensor:
        """Of the names."""
        return self.book.vectors[self.asked.character]

    def pictures(self, asked: Pairs, views: Tensor | None = None) -> Tensor:
        """The drawings as pictures."""
        return self.book.pictures(asked, self.side, views)

    def task(
        self,
        scorer: Loss,
        judge: Loss,
        *,
        text: bool = True,
        style: bool = False,
        reference: Tensor | None = None,
        views: Tensor | None = None,
        **more: Any,
    ) -> Task:
        """The task, with the truth and what training saw of its characters.

        Args:
            scorer, judge, reference, more: of the task.
            text: whether the model is told the names.
            style: whether it is told the style.
            views: of the truth, (B, 7); the model is told them.

        Where it is told no style, it may draw in any look, as `symguide sample` has it.
        """
        character, number = self.asked.character, self.asked.style
        none = torch.full_like(number, NONE)
        condition = {
            "text": self.vectors if text else torch.zeros_like(self.vectors),
            "style": number if style else none,
        }
        if views is not None:
            condition["view"] = views
        if not style:
            condition["look"] = torch.tensor([look(free=True)] * len(character))
        known = [self.pictures(Pairs(character, torch.full_like(number, s)), views) for s in range(NONE)]
        seen = self.book.seen[character] & (torch.arange(NONE) != number[:, None])
        return Task(
            more.pop("prompts", self.names if text else [""] * len(character)),
            character,
            number,
            condition,
            reference,
            scorer,
            judge,
            self.pictures(self.asked, views),
            torch.stack(known, dim=1),
            seen,
            **more,
        )


@dataclass(frozen=True)
class Kind:
    """What a task is about, in words, which drawings are its truths, and how it is made of these.

    Attributes:
        title: its name.
        about: what is asked.
        goal: what the judges measure.
        group: of the drawings, one of the album's `GROUPS`.
        make: the task.
        style: in which the truth is drawn, where it is none of the group's own.
    """

    title: str
    about: str
    goal: str
    group: str
    make: Callable[[Ask], Task]
    style: str | None = None


class VectorSimilarity(Similarity):
    """1 - cos(image embedding of x_0, a sentence's vector), (B, 384) with one for each sample."""

    method = "image"

    def __init__(self, vectors: Tensor, network: nn.Module) -> None:
        self.vectors = vectors
        super().__init__(Follower(network, "image"))

    def _target(self, like: Tensor) -> Tensor:
        return self.vectors.to(like)


def _by_both(kind: str, make: Callable[[nn.Module], Loss]) -> tuple[Loss, Loss]:
    """An objective by the world's scorer, and by its judge."""
    return make(scorer("emoji", kind, dtype=torch.float32)), make(judge("emoji", kind, dtype=torch.float32))


def _features(truth: Tensor) -> Loss:
    """How far the judge's features are from those of the truth."""
    return Features(truth, judge("emoji", "classifier", dtype=torch.float32))


def _style(ask: Ask) -> Task:
    reference = ask.pictures(ask.book.others(ask.asked))
    trained = bool((ask.asked.style < NONE).all())
    upper = {"text": ask.vectors, "style": ask.asked.style} if trained else None
    both = _by_both("classifier", lambda net: Style(reference, net))
    return ask.task(*both, reference=reference, upper=upper)


def _text(ask: Ask) -> Task:
    both = _by_both("clip", lambda net: VectorSimilarity(ask.vectors, net))
    return ask.task(*both, text=False, style=True, texts=tuple(ask.names))


def _personalisation(ask: Ask) -> Task:
    """The name says what it is, the view on what ground, and a drawing how it looks; training saw no drawing of it."""
    grounds = [GROUNDS[i % len(GROUNDS)] for i in ask.index]
    reference, views = ask.pictures(ask.asked), torch.tensor([view(ground=ground) for ground in grounds])
    both = _by_both("clip", lambda net: ImageSimilarity(reference, net))
    prompts = [f"{name} on {ground}" for name, ground in zip(ask.names, grounds, strict=True)]
    return ask.task(*both, reference=reference, views=views, prompts=prompts)


def _palette(ask: Ask) -> Task:
    truth = ask.pictures(ask.asked)
    return ask.task(Palette.of(truth, 4), _features(truth), reference=truth)


def _edges(ask: Ask) -> Task:
    truth = ask.pictures(ask.asked)
    return ask.task(Edges.of(truth), _features(truth), reference=truth)


def _left(side: int) -> Tensor:
    """1 in the left half."""
    mask = torch.ones(side, side)
    mask[:, side // 2 :] = 0
    return mask


def _inpainting(ask: Ask) -> Task:
    truth, mask = ask.pictures(ask.asked), _left(ask.side)
    return ask.task(Region(truth, mask), _features(truth), text=False, reference=truth, mask=mask)


def _super_resolution(ask: Ask) -> Task:
    truth, coarse = ask.pictures(ask.asked), Downsample(2)
    seen = coarse(truth)
    shown = F.interpolate(seen, scale_factor=2.0, mode="nearest")
    return ask.task(Measurement(coarse, seen), _features(truth), reference=shown)


def _translation(ask: Ask) -> Task:
    """What a drawing shows, and where its edges are, in another style, of which the model is told the number."""
    seen = ask.book.seen[ask.asked.character] & (torch.arange(NONE) != ask.asked.style[:, None])
    reference = ask.pictures(Pairs(ask.asked.character, seen.long().argmax(dim=1)))
    shows = ImageSimilarity(reference, scorer("emoji", "clip", dtype=torch.float32))
    loss, truth = Balanced([shows, Edges.of(reference)]), ask.pictures(ask.asked)
    return ask.task(loss, _features(truth), text=False, style=True, reference=reference)


def _composed(ask: Ask) -> Task:
    """A name by guidance alone, and the left half of the drawing."""
    truth, mask = ask.pictures(ask.asked), _left(ask.side)
    says, judged = _by_both("clip", lambda net: VectorSimilarity(ask.vectors, net))
    far = _features(truth)
    loss = Balanced([says, Region(truth, mask)])
    texts = tuple(ask.names)
    return ask.task(loss, lambda x: judged(x) + far(x), text=False, reference=truth, mask=mask, texts=texts)


TASKS: dict[str, Kind] = {
    "style": Kind(
        "Style",
        "A name says what to draw, and the drawing of something else in which style; training knows both, not "
        "together.",
        "distance of Gram matrices to the reference's",
        DRAWINGS,
        _style,
    ),
    "line-art": Kind(
        "Line art",
        "A name says what to draw, and a drawing of OpenMoji in which style, one that training never saw.",
        "distance of Gram matrices to the reference's",
        TRAINED,
        _style,
        "openmoji",
    ),
    "text": Kind(
        "Text",
        "The style by its number, and no text: guidance alone says what to draw.",
        "distance of the image's embedding to the name's vector",
        DRAWINGS,
        _text,
    ),
    "personalisation": Kind(
        "Personalisation",
        "A drawing of something that training never saw, its name, and another ground to put it on.",
        "distance of image embeddings to the reference's",
        CHARACTERS,
        _personalisation,
    ),
    "palette": Kind(
        "Palette",
        "A name says what to draw, and four colours with their shares in which: those of the true drawing.",
        "distance of the judge's features to the true drawing's",
        DRAWINGS,
        _palette,
    ),
    "edges": Kind(
        "Edges",
        "A name says what to draw, and a sketch where its lines are: those of the true drawing.",
        "distance of the judge's features to the true drawing's",
        DRAWINGS,
        _edges,
    ),
    "inpainting": Kind(
        "Inpainting",
        "No text: the left half of a drawing that training never saw is kept, and the rest is made to fit.",
        "distance of the judge's features to the true drawing's",
        CHARACTERS,
        _inpainting,
    ),
    "super-resolution": Kind(
        "Super-resolution",
        "A drawing of something that training never saw at half its resolution, and its name.",
        "distance of the judge's features to the true drawing's",
        CHARACTERS,
        _super_resolution,
    ),
    "translation": Kind(
        "Translation",
        "No text: a drawing in one style, to be drawn in another, which training never saw of it.",
        "distance of the judge's features to the true drawing's",
        DRAWINGS,
        _translation,
    ),
    "composed": Kind(
        "Text and half a drawing",
        "Two objectives with an equal say, and no text: what the drawing is called, and its left half.",
        "distance of the image's embedding to the name's vector, and of the judge's features to the true drawing's",
        DRAWINGS,
        _composed,
    ),
}


def task(name: str, indices: Sequence[int], side: int = 32, book: Album | None = None) -> Task:
    """The task of that name for the samples of these indices.

    Args:
        name: one of `TASKS`.
        indices: of the samples.
        side: of the pictures.
        book: the characters and their drawings, those of the world where not given.

    Raises:
        ConfigError: for an unknown name. WeightsError, ConfigError: where the drawings, the scorers or the judges
            cannot be had.
    """
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    kind, book = TASKS[name], book or album()
    pairs = book.pairs(kind.group)
    asked = pairs[torch.tensor([i % len(pairs) for i in indices], dtype=torch.long)]
    if kind.style is not None:
        asked = Pairs(asked.character, torch.full_like(asked.style, SETS.index(kind.style)))
    return kind.make(Ask(book, asked, side, list(indices)))


class Truth:
    """The true drawings of a task as judges see them, to measure many pictures of it against."""

    def __init__(self, goal: Task, judges: Judges) -> None:
        self.goal, self.judges = goal, judges
        self.truth = self._spaces(goal.truth, judges.see(goal.truth))
        styles = range(goal.known.shape[1])
        known = [self._spaces(goal.known[:, s], judges.see(goal.known[:, s])) for s in styles]
        self.copied = {}
        for space in self.truth:
            each = torch.stack([self._far(space, drawn[space]) for drawn in known], dim=1)
            least = torch.where(goal.seen, each, torch.inf).amin(dim=1)
            self.copied[space] = torch.where(least.isinf(), torch.nan, least)

    def against(self, x: Tensor, seen: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """How near pictures of the task are to the true drawings, and what the judges still read in them; (B,) each.

        pixels: root mean square distance to the truth. features: |f(x) - f(truth)|² / |f(truth)|² in the judge's
        features. copied, pixels and copied, features: the same of that of the character's drawings, which training saw
        in other styles, that is nearest; NaN where it saw none. name, among five, style: 1 where judges read the
        character first, or among the first five, and the style as the truth's, else 0.

        Args:
            x: the pictures.
            seen: what the judges see in them, where they have looked already.
        """
        seen = self.judges.see(x) if seen is None else seen
        found: dict[str, Tensor] = {}
        for space, each in self._spaces(x, seen).items():
            found |= {space: self._far(space, each), f"copied, {space}": self.copied[space]}
        if "name" in seen:
            places = before(seen["name"], self.goal.character)
            found |= {"name": (places < 1).double(), "among five": (places < 5).double()}
        if "style" in seen:
            found["style"] = (seen["style"].argmax(dim=1) == self.goal.style).double()
        return found

    def _spaces(self, x: Tensor, seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        spaces = {"pixels": x.cpu().double().flatten(1)}
        return spaces | ({"features": seen["classifier"].double()} if "classifier" in seen else {})

    def _far(self, space: str, each: Tensor) -> Tensor:
        truth = self.truth[space]
        gap = (each - truth).square()
        return gap.mean(dim=1).sqrt() if space == "pixels" else gap.sum(dim=1) / truth.square().sum(dim=1)
