"""Captions of scenes, and the tokens that the models read.

    a large red striped star on the left on blue and white checks
    a green disk in front of a small white dotted cross on yellow

Colour and shape of every object are always named, a texture where it is not plain; the rest may be left out.
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from symguide.errors import ConfigError
from symguide.worlds.scenes.scene import BACKGROUNDS, COLOURS, POSITIONS, SHAPES, SIZES, TEXTURES, Scenes, toward

LENGTH = 16
"""Tokens of a caption; shorter ones are filled up with 0."""

SILENT = ("a", "an", "and", "the", "of", "to", "in", "at")
"""Words that captions may hold and the models never see."""

_PLACES = ("middle", "left", "right", "top", "bottom")
_RELATIONS = ("front", "behind", "above", "below")
_GROUNDS = ("gradient", "stripes", "checks", "noise")
VOCABULARY = ("", *SHAPES, *COLOURS, *TEXTURES[1:], *SIZES, *_PLACES, *_RELATIONS, "on", *_GROUNDS)
"""The word of every token; 0 is "no word". A caption of zeros alone is "no caption"."""

_NUMBER = {word: number for number, word in enumerate(VOCABULARY) if word}


def captions(scenes: Scenes) -> list[str]:
    """One caption for each scene."""
    return [_caption(scenes[[row]]) for row in range(len(scenes))]


def _caption(scene: Scenes) -> str:
    says_size, says_place, says_ground, says_second, swapped = (bool(w) for w in scene.words[0, [0, 2, 3, 4, 5]])
    sizes = [says_size, bool(scene.words[0, 1])]

    def thing(slot: int) -> str:
        texture = int(scene.texture[0, slot])
        words = [SIZES[scene.size[0, slot]]] if sizes[slot] else []
        words += [COLOURS[scene.colour[0, slot]], *([TEXTURES[texture]] if texture else [])]
        words.append(SHAPES[scene.shape[0, slot]])
        return f"{article(words[0])} {' '.join(words)}"

    if scene.count[0] == 2:
        first, second = (1, 0) if swapped else (0, 1)
        text = f"{thing(first)} {_relation(scene, first, second)} {thing(second)}"
    else:
        text = thing(0)
        if says_place:
            place = POSITIONS[scene.position[0, 0]]
            text += " in the middle" if place == "middle" else f" at the {place}"
    return f"{text} on {_ground(scene, says_second)}" if says_ground else text


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _relation(scene: Scenes, first: int, second: int) -> str:
    """How the first object stands to the second: by depth where they overlap, else by where it is."""
    offset = (scene.centre[0, first] - scene.centre[0, second])[None]
    if offset.norm() < 0.9 * scene.radius[0].sum():
        return "in front of" if first == 0 else "behind"
    return ("", "left of", "right of", "above", "below")[toward(offset, 0.0)[0]]


def _ground(scene: Scenes, says_second: bool) -> str:
    kind = BACKGROUNDS[scene.background[0]]
    first, second = (COLOURS[i] for i in scene.paint[0])
    if kind == "plain":
        return first
    if not says_second:
        return f"{article(first)} {first} gradient" if kind == "gradient" else f"{first} {kind}"
    if kind == "gradient":
        return f"{article(first)} {first} to {second} gradient"
    return f"{first} and {second} {kind}"


def tokens(texts: str | Sequence[str]) -> Tensor:
    """The tokens of captions, (B, LENGTH) int64: what the models take as the condition "caption".

    Raises:
        ConfigError: for a word outside the vocabulary, or a caption of more than LENGTH words.

    >>> tokens("a red star on blue stripes")[0, :6].tolist()
    [7, 5, 28, 11, 30, 0]
    """
    rows = []
    for text in [texts] if isinstance(texts, str) else texts:
        words = [word for word in re.findall(r"[^\W_]+", text.lower()) if word not in SILENT]
        if strange := [word for word in words if word not in _NUMBER]:
            raise ConfigError(
                f"the scenes models do not know the word {strange[0]!r} in {text!r}; they know {', '.join(_NUMBER)}"
            )
        if len(words) > LENGTH:
            raise ConfigError(f"a caption has at most {LENGTH} words, and {text!r} has {len(words)}: shorten it")
        rows.append([_NUMBER[word] for word in words] + [0] * (LENGTH - len(words)))
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, LENGTH)
