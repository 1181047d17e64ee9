"""Emoji: a text-to-image world of real drawings, where a style has a true answer that a person drew."""

from typing import Any

from torch import Tensor

from symguide.errors import ConfigError, unknown
from symguide.objectives import Objective
from symguide.registry import register
from symguide.worlds import World, scorers
from symguide.worlds.emoji import drawings as _drawings
from symguide.worlds.emoji.names import STYLES as STYLES
from symguide.worlds.emoji.names import WEIGHTS as WEIGHTS
from symguide.worlds.emoji.names import Emoji as Emoji
from symguide.worlds.emoji.names import emojis as emojis
from symguide.worlds.emoji.names import style as style
from symguide.worlds.emoji.names import vectors as vectors
from symguide.worlds.emoji.sentences import WIDTH as WIDTH
from symguide.worlds.emoji.sentences import nearest as nearest
from symguide.worlds.emoji.sentences import taken_for as taken_for
from symguide.worlds.emoji.sentences import text as text
from symguide.worlds.emoji.views import look as look
from symguide.worlds.emoji.views import picture as picture
from symguide.worlds.emoji.views import view as view

register("world", "emoji")(
    World(
        "emoji, 32x32 pixels, RGB; conditions: a sentence 'a happy octopus', style=noto, twemoji or fluent",
        WEIGHTS / "denoiser",
        {kind: WEIGHTS / "scorers" / kind for kind in ("classifier", "clip")},
        {kind: WEIGHTS / "judges" / kind for kind in ("classifier", "clip", "style", "name")},
        shapes=((3, 32, 32), (3, 64, 64)),
        weight=3.0,
        scale=0.1,
        reads=text,
    )
)


def drawing(name: str, by: str, side: int = 64) -> Tensor:
    """How a set draws a character, (3, side, side) in [-1, 1], on white.

    Args:
        name: of the character, see `emojis`.
        by: the set, of `drawings.SETS`.
        side: a divisor of 64.

    Raises:
        ConfigError: for a name and a set that are unknown, a character that the set lacks, other sides, and where
            cairosvg is not installed. WeightsError: where the set cannot be had.
    """
    codes = {one.name: one.code for one in emojis()}
    if name not in codes:
        raise unknown("emoji", name, codes)
    svg = _drawings.icons(by).get(codes[name])
    if svg is None:
        raise ConfigError(f"{by} has no {name}: take another of {', '.join(_drawings.SETS)}")
    return picture(_drawings.render(svg)[None], side=side)[0]


def objective(name: str, *given: Any, **settings: Any) -> Objective:
    """An objective for pictures of this world, or of any size, by the world's own scorer.

    Args:
        name: "text", "image" or "style".
        given, settings: what the objective takes beside its network, see symguide.objectives; texts are sentences.

    Raises:
        ConfigError: for an unknown name, a sentence that `text` refuses, and whatever the objective refuses.
            WeightsError: where the networks of others that the scorers stand on
            are not installed.
    """
    if name == "text":
        settings = {"tokenize": text, **settings}
    return scorers.objective("emoji", name, *given, **settings)
