"""Emoji: a text-to-image world of real drawings, where a style has a true answer that a person drew."""

from symguide.registry import register
from symguide.worlds import World
from symguide.worlds.emoji.names import STYLES as STYLES
from symguide.worlds.emoji.names import WEIGHTS as WEIGHTS
from symguide.worlds.emoji.names import Emoji as Emoji
from symguide.worlds.emoji.names import emojis as emojis
from symguide.worlds.emoji.names import vectors as vectors
from symguide.worlds.emoji.views import picture as picture
from symguide.worlds.emoji.views import view as view

register("world", "emoji")(
    World(
        "emoji, 32x32 pixels, RGB; conditions: a sentence such as 'a happy octopus', style=noto, twemoji or fluent",
        WEIGHTS / "denoiser",
        {kind: WEIGHTS / "scorers" / kind for kind in ("classifier", "clip")},
        {kind: WEIGHTS / "judges" / kind for kind in ("classifier", "clip", "style", "name")},
        shapes=((3, 32, 32), (3, 64, 64)),
    )
)
