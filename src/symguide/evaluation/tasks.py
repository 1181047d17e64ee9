"""The tasks that guidance is shown and measured on: style, aesthetics, personalisation, identity, text, inpainting.

Sample i of a task always has the same caption, reference and goal, whatever the others are. What guidance follows is
computed by the world's scorer, and the same quantity by its judge is how the result is measured.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from symguide.evaluation.quality import plain
from symguide.objectives import Aesthetic, Identity, ImageSimilarity, Objective, Region, Style, TextSimilarity
from symguide.objectives.base import Fixed, Follower
from symguide.worlds.load import judge, scorer
from symguide.worlds.scenes.caption import article, tokens
from symguide.worlds.scenes.picture import render
from symguide.worlds.scenes.scene import COLOURS, SHAPES, Scenes, draw

Loss = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Task:
    """One task for some samples.

    Attributes:
        prompts: what every sample's caption says; "" is no caption.
        shape: the shape that every sample should show, by the caption or the reference; index in SHAPES, (B,).
        reference: what guidance is given to follow, (B, 3, side, side), None where it follows no picture.
        scorer: the objective, by the scorer: what guidance may use.
        judge: the same by the judge, for measuring alone.
        mask: the pixels that are given, where only some are.
        texts: what every sample is asked to show where guidance alone asks for it, and no caption.
    """

    prompts: list[str]
    shape: Tensor
    reference: Tensor | None
    scorer: Loss
    judge: Loss
    mask: Tensor | None = None
    texts: tuple[str, ...] = ()

    @property
    def condition(self) -> dict[str, Tensor]:
        """The prompts as the models take them."""
        return {"caption": tokens(self.prompts)}


@torch.no_grad()
def shapes_read(samples: Tensor, shape: Tensor) -> Tensor:
    """1 where the judge reads a sample's shape as the one it should have (index in SHAPES), else 0; (B,) on the CPU.

    Guidance that is too strong breaks shapes up.
    """
    classifier: Any = judge("scenes", "classifier").to(samples)
    read = classifier.split(classifier(samples))["shape"].argmax(dim=1)
    return (read.cpu() == shape).double()


@dataclass(frozen=True)
class Kind:
    """What a task is about, in words, and how it is made for samples of given indices."""

    title: str
    about: str
    goal: str
    make: Callable[[Sequence[int], int], Task]


def _references(indices: Sequence[int], keep: Callable[[Scenes], Tensor]) -> Scenes:
    """For every index the held-out scene whose turn it is among those that fit."""
    pool = draw("held_out", range(8192))
    rows = torch.nonzero(keep(pool)).squeeze(1)
    return pool[rows[torch.as_tensor(list(indices)) % len(rows)]]


def _captions(indices: Sequence[int]) -> tuple[list[str], Tensor]:
    """Captions that leave the background open, and the shapes in them."""
    asked = plain(max(indices, default=0) + 1)
    return [asked.texts[i].partition(" on ")[0] for i in indices], asked.shape[torch.as_tensor(list(indices))]


def _by_both(kind: str, make: Callable[[nn.Module], Loss]) -> tuple[Loss, Loss]:
    """An objective by the world's scorer, and by its judge."""
    return make(scorer("scenes", kind)), make(judge("scenes", kind))


def _style(indices: Sequence[int], side: int) -> Task:
    reference = render(_references(indices, lambda s: s.background > 0), side, torch.float32)
    return Task(*_captions(indices), reference, *_by_both("classifier", lambda net: Style(reference, net)))


def _aesthetics(indices: Sequence[int], side: int) -> Task:
    return Task(*_captions(indices), None, *_by_both("aesthetic", Aesthetic))


def _personalisation(indices: Sequence[int], side: int) -> Task:
    """The prompt names the object and another background; its texture, size and place are the reference's to say."""
    scenes = _references(indices, lambda s: (s.count == 1) & (s.texture[:, 0] > 0) & (s.background == 0))
    reference = render(scenes, side, torch.float32)
    prompts = []
    for shape, colour, paint in zip(
        scenes.shape[:, 0].tolist(), scenes.colour[:, 0].tolist(), scenes.paint[:, 0].tolist(), strict=True
    ):
        other = next(c for c in (6, 7, 4, 2) if c not in (colour, paint))
        prompts.append(f"{article(COLOURS[colour])} {COLOURS[colour]} {SHAPES[shape]} on {COLOURS[other]}")
    both = _by_both("clip", lambda net: ImageSimilarity(reference, net))
    return Task(prompts, scenes.shape[:, 0], reference, *both)


def _identity(indices: Sequence[int], side: int) -> Task:
    scenes = _references(indices, lambda s: s.count == 1)
    reference = render(scenes, side, torch.float32)
    both = _by_both("identity", lambda net: Identity(reference, net))
    return Task([""] * len(scenes), scenes.shape[:, 0], reference, *both)


def _text(indices: Sequence[int], side: int) -> Task:
    texts, shape = _captions(indices)
    both = _by_both("clip", lambda net: TextSimilarity(texts, net, tokens))
    return Task([""] * len(texts), shape, None, *both, texts=tuple(texts))


class Features(Objective):
    """|f(x_0) - f(reference)|² / |f(reference)|² in a classifier's features: whether a whole picture reads the same."""

    def __init__(self, reference: Tensor, network: nn.Module) -> None:
        self.network = Follower(network, "features")
        self.wanted = Fixed(lambda like: self.network(reference.to(like), "features"))

    def __call__(self, x0: Tensor) -> Tensor:
        wanted = self.wanted(x0)
        loss: Tensor = (self.network(x0, "features") - wanted).square().sum(1) / wanted.square().sum(1)
        return loss


def _inpainting(indices: Sequence[int], side: int) -> Task:
    scenes = _references(indices, lambda s: s.count == 1)
    reference = render(scenes, side, torch.float32)
    mask = torch.ones(side, side)
    mask[:, side // 2 :] = 0
    whole = Features(reference, judge("scenes", "classifier"))
    return Task([""] * len(scenes), scenes.shape[:, 0], reference, Region(reference, mask), whole, mask)


TASKS: dict[str, Kind] = {
    "style": Kind(
        "Style",
        "A caption says what to draw, and a picture in which style: its colours and patterns.",
        "distance of Gram matrices to the reference's",
        _style,
    ),
    "aesthetics": Kind(
        "Aesthetics",
        "A caption says what to draw; a score says what is beautiful: contrast, calm, harmony, placement.",
        "aesthetic score, negative",
        _aesthetics,
    ),
    "personalisation": Kind(
        "Personalisation",
        "A caption puts an object before another background; a picture shows which object it is.",
        "distance of image embeddings to the reference's",
        _personalisation,
    ),
    "identity": Kind(
        "Identity",
        "No caption: the object of a picture again, wherever and before whatever the model likes.",
        "distance of identities to the reference's",
        _identity,
    ),
    "text": Kind(
        "Text",
        "No caption: guidance alone says what to draw, by how well a picture and a text go together.",
        "distance of the image's embedding to the text's",
        _text,
    ),
    "inpainting": Kind(
        "Inpainting",
        "No caption: the left half of a picture is kept, and the rest is made to fit.",
        "distance of the judge's features to the whole reference's",
        _inpainting,
    ),
}


def task(name: str, indices: Sequence[int], side: int = 32) -> Task:
    """The task of that name for the samples of these indices."""
    return TASKS[name].make(indices, side)
