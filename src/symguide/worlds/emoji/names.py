"""The names of the emoji world: what each character is called, which drawings training never saw, and vectors of all.

The file names.json and the vectors ship with the weights; `training/emoji.py data` makes them of the packages.
"""

import functools
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

import safetensors.torch
import torch
from torch import Tensor

from symguide.errors import WeightsError, unknown
from symguide.worlds import WEIGHTS as _WEIGHTS
from symguide.worlds import installed

WEIGHTS = _WEIGHTS / "emoji"
STYLES = ("noto", "twemoji", "fluent")
"""The sets that the models were trained on; a style's number is its place."""

HELD_OUT, PAIRS = 150, 300


@dataclass(frozen=True)
class Emoji:
    """A character that all sets draw.

    Attributes:
        code: its code points, such as "1f419".
        name: "octopus".
        tags: further words for it.
        group: its part of Unicode's list, 0 smileys, 1 people, 3 animals, 4 food, 5 places, 6 activities, 7 objects,
            8 symbols, 9 flags.
        unseen: the styles whose drawing of it training never saw: all of `STYLES`, one of them, or none.
    """

    code: str
    name: str
    tags: tuple[str, ...]
    group: int
    unseen: tuple[str, ...] = ()


@functools.cache
def emojis() -> tuple[Emoji, ...]:
    """All characters of the world, in Unicode's order.

    Raises:
        WeightsError: where the world's files are not installed.
    """
    path = installed(WEIGHTS / "names.json")
    try:
        listed = json.loads(path.read_text())
        return tuple(
            Emoji(one["code"], one["name"], tuple(one["tags"]), one["group"], tuple(one["unseen"])) for one in listed
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} is not the list of the emoji world's names ({error}): install it again") from error


def style(name: str) -> int:
    """A style's number, as the models take it; `len(STYLES)` is none.

    Raises:
        ConfigError: for a set that the models were not trained on.

    >>> style("twemoji")
    1
    """
    if name not in STYLES:
        raise unknown("style", name, STYLES)
    return STYLES.index(name)


def codes() -> tuple[str, ...]:
    """The code points of all characters, as `drawings.drawings` takes them."""
    return tuple(one.code for one in emojis())


@functools.cache
def vectors() -> Tensor:
    """(N, 384) float32: MiniLM's vector of every name, of length 1, in the order of `emojis`.

    Raises:
        WeightsError: where the world's files are not installed, or are of different versions.
    """
    path = installed(WEIGHTS / "vectors.safetensors")
    try:
        found = torch.nn.functional.normalize(safetensors.torch.load_file(path)["name"].float(), dim=1)
    except (OSError, KeyError, safetensors.SafetensorError) as error:
        raise WeightsError(
            f"{path} does not hold the vectors of the emoji world ({error}): install it again"
        ) from error
    if len(found) != len(emojis()):
        raise WeightsError(f"{path} holds {len(found)} vectors for {len(emojis())} names: install the world again")
    return found


def split(characters: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The styles whose drawing of a character training never sees, by its code points; others are not listed.

    The 150 characters whose sha512 is smallest are held out in all styles; of the others' drawings the 300 whose
    sha512 is smallest, at most one for each character.
    """

    def rank(*words: str) -> str:
        return hashlib.sha512(" ".join(words).encode()).hexdigest()

    ordered = sorted(characters, key=lambda code: rank("character", code))
    unseen: dict[str, tuple[str, ...]] = dict.fromkeys(ordered[:HELD_OUT], STYLES)
    pairs = ((code, style) for code in ordered[HELD_OUT:] for style in STYLES)
    for code, style in sorted(pairs, key=lambda pair: rank("drawing", *pair)):
        if len(unseen) == HELD_OUT + PAIRS:
            break
        unseen.setdefault(code, (style,))
    return unseen
