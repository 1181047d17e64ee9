"""Sheets of a model's emoji to look at: the first samples of those that `symguide evaluate emoji` measures."""

from PIL import Image

from symguide.evaluation.emoji import Evaluation
from symguide.evaluation.emoji_album import CHARACTERS, DRAWINGS, TRAINED
from symguide.report import grid

TRUE, MODEL = "drawn by\na person", "by the model"


def trained(evaluation: Evaluation, count: int = 64, columns: int = 8, cell: int = 64) -> Image.Image:
    """Samples of characters that training saw in all styles, the styles in turn."""
    x = evaluation.samples(evaluation.album.pairs(TRAINED)[:count], TRAINED)
    return grid(x, columns=columns, cell=cell)


def unseen(evaluation: Evaluation, count: int = 12, cell: int = 64) -> Image.Image:
    """True drawings that training never saw, and below each the model's of that character in that style.

    First those of characters that it saw in the other styles, then those of characters that it saw in none.
    """
    rows, side = [], 0
    for group in (DRAWINGS, CHARACTERS):
        asked = evaluation.album.pairs(group)[:count]
        x = evaluation.samples(asked, group).cpu()
        side = x.shape[-1]
        rows += [evaluation.album.pictures(asked, side).to(x), x]
    return grid(rows, [TRUE, MODEL] * 2, cell=max(cell, side))
