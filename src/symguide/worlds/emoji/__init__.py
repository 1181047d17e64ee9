"""Emoji: a text-to-image world of real drawings, where a style has a true answer that a person drew."""

from symguide.worlds.emoji.names import STYLES as STYLES
from symguide.worlds.emoji.names import WEIGHTS as WEIGHTS
from symguide.worlds.emoji.names import Emoji as Emoji
from symguide.worlds.emoji.names import emojis as emojis
from symguide.worlds.emoji.names import vectors as vectors
from symguide.worlds.emoji.views import picture as picture
from symguide.worlds.emoji.views import view as view
