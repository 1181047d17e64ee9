"""How good a text-to-image model of scenes is, by a judge that neither training nor guidance has seen."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from symguide.denoiser import Denoiser
from symguide.evaluation.drawing import Drawing
from symguide.report.quality import frechet, precision_recall
from symguide.worlds.scenes.caption import captions, tokens
from symguide.worlds.scenes.picture import PALETTE, render, second_tone
from symguide.worlds.scenes.scene import COLOURS, HELD_OUT_PAIRS, SHAPES, Scenes, draw


@dataclass(frozen=True)
class Plain:
    """Captions "a COLOUR SHAPE on PAINT" and what they say, (N,) each."""

    shape: Tensor
    colour: Tensor
    paint: Tensor

    @property
    def texts(self) -> list[str]:
        rows = zip(self.shape.tolist(), self.colour.tolist(), self.paint.tolist(), strict=True)
        return [f"a {COLOURS[c]} {SHAPES[s]} on {COLOURS[p]}".replace("a orange", "an orange") for s, c, p in rows]


def plain(count: int, unseen: bool = False) -> Plain:
    """The first `count` plain captions, over and over: every (shape, colour) on every other colour.

    Args:
        count: how many.
        unseen: of the pairs of shape and colour that training never showed together, in place of those that it did.

    >>> plain(2).texts
    ['a red disk on purple', 'an orange ring on white']
    """
    shapes, colours = len(SHAPES), len(COLOURS)
    period = math.lcm(shapes, colours)
    # along the diagonals, so that the first few captions already have different shapes and colours
    pairs = [(i % shapes, (i + i // period) % colours) for i in range(shapes * colours)]
    pairs = [pair for pair in pairs if (pair in HELD_OUT_PAIRS) is unseen]
    rows = []
    for index in range(count):
        shape, colour = pairs[index % len(pairs)]
        others = [p for p in range(len(COLOURS)) if p != colour]
        rows.append((shape, colour, others[(index // len(pairs) * 3 + 4 + index) % len(others)]))
    return Plain(*torch.tensor(rows).reshape(-1, 3).unbind(1))


class Evaluation(Drawing):
    """Draws samples of a model and has them judged.

    Args:
        denoiser: takes the condition "caption".
        judge: the scenes world's judge of kind "classifier".
        segmenter: its judge of kind "segmenter", for captions of two objects.
        weight: of classifier-free guidance.
        settings: of `Drawing`; no two sets of samples share their noise.
    """

    def __init__(
        self, denoiser: Denoiser, judge: Any, segmenter: Any = None, *, weight: float = 5.0, **settings: Any
    ) -> None:
        super().__init__(denoiser, weight=weight, **settings)
        self.judge, self.segmenter = judge, segmenter

    def figures(self, count: int) -> dict[str, dict[str, float]]:
        """Every figure below over `count` samples each, under the name of what was drawn."""
        return {
            "plain captions": self.plain(count),
            "pairs that training never showed": self.plain(count, unseen=True),
            "captions of two objects": self.pairs(count),
            "held-out captions, held-out pictures": self.distance(count),
        }

    def samples(self, texts: list[str], what: str, first: int = 0) -> Tensor:
        """One picture for each caption; sample i has the noise of index first + i."""
        return self.draw({"caption": tokens(texts)}, what, first)

    @torch.no_grad()
    def plain(self, count: int, unseen: bool = False) -> dict[str, float]:
        """Shares of the samples of plain captions that the judge reads as shape, colour and background they ask for."""
        asked = plain(count, unseen)
        x = self.samples(asked.texts, "unseen pairs" if unseen else "plain captions", first=unseen * 1_000_000)
        logits = self.judge.split(torch.cat([self.judge(part) for part in torch.split(x, 256)]))
        return {
            "shape": _share(logits["shape"].argmax(1) == asked.shape),
            "colour": _share(logits["colour"].argmax(1) == asked.colour),
            "background": _share(logits["paints"].argmax(1) == asked.paint),
            "one object": _share(logits["count"].argmax(1) == 0),
        }

    @torch.no_grad()
    def pairs(self, count: int) -> dict[str, float]:
        """Captions of two objects: shares of the samples that show both, shape and colour, and of all objects shown.

        The segmenter says where every shape is, and the mean colour there which of the colours it has.
        """
        scenes = _first(count, lambda s: s.count == 2)
        x = self.samples(captions(scenes), "two objects", first=2_000_000)
        found = torch.cat([self.segmenter(part).argmax(1) for part in torch.split(x, 256)])
        right = torch.stack([colours_in(x, found == 1 + scenes.shape[:, k, None, None]) for k in (0, 1)], 1)
        right = (right == scenes.colour).sum(1)
        return {"both": _share(right == 2), "each": right.sum().item() / (2 * count)}

    @torch.no_grad()
    def distance(self, count: int) -> dict[str, float]:
        """Samples of held-out captions against held-out pictures: Frechet distance, precision and recall.

        Beside the distance its floor: between two sets of real pictures, none in both, as large as these.
        """
        real, other = draw("held_out", range(count)), draw("held_out", range(count, 2 * count))
        x = self.samples(captions(other), "held-out captions", first=3_000_000)
        side = x.shape[-1]
        features, target, floor = (
            torch.cat([self.judge.features(part) for part in torch.split(pictures, 256)])
            for pictures in (x, render(real, side, x.dtype), render(other, side, x.dtype))
        )
        precision, recall = precision_recall(features, target)
        best = precision_recall(floor, target)
        return {
            "frechet": frechet(features, target),
            "frechet of real pictures": frechet(floor, target),
            "precision": precision,
            "precision of real pictures": best[0],
            "recall": recall,
            "recall of real pictures": best[1],
        }


def colours_in(x: Tensor, region: Tensor, least: float = 0.0117) -> Tensor:
    """Index in COLOURS of the mean colour within each region (B, H, W), nearest to that of a plain or textured object.

    -1 where the region is a share of the picture less than `least`.
    """
    palette = PALETTE.to(x)
    known = torch.cat([palette, 0.6 * palette + 0.4 * second_tone(palette)])
    area = region.sum(dim=(1, 2))
    mean = ((x + 1) / 2 * region[:, None]).sum(dim=(2, 3)) / area.clamp_min(1)[:, None]
    return torch.where(area < least * region[0].numel(), -1, torch.cdist(mean, known).argmin(1) % len(COLOURS))


def _share(right: Tensor) -> float:
    return right.double().mean().item()


def _first(count: int, keep: Callable[[Scenes], Tensor]) -> Scenes:
    """The first held-out scenes that fit."""

    def blocks() -> Iterator[int]:
        found, start = 0, 0
        while found < count:
            rows = start + torch.nonzero(keep(draw("held_out", range(start, start + 1024)))).squeeze(1)
            found, start = found + len(rows), start + 1024
            yield from rows.tolist()

    return draw("held_out", [row for row, _ in zip(blocks(), range(count), strict=False)])
