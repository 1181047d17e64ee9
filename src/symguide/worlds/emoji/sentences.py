"""Sentences as the emoji models take them: by MiniLM where it is installed, else as the nearest name, by its words."""

import functools
import re
import unicodedata
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from symguide.errors import ConfigError
from symguide.worlds.emoji import minilm
from symguide.worlds.emoji.names import Emoji, emojis, vectors

WIDTH = 384
"""Numbers of a sentence's vector."""

SILENT = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "at",
        "by",
        "for",
        "from",
        "in",
        "is",
        "it",
        "of",
        "on",
        "or",
        "some",
        "the",
        "to",
        "with",
    ]
)
"""Words that say nothing of what a picture shows."""

_PLURALS = (("", ""), ("s", ""), ("es", ""), ("ies", "y"), ("ves", "f"), ("ves", "fe"), ("men", "man"))
"""Endings of plurals, and what stands there in the singular; a word may be a singular itself."""

_ODD = {"mice": "mouse", "feet": "foot", "teeth": "tooth", "geese": "goose", "children": "child", "people": "person"}


def text(sentences: str | Sequence[str], say: Callable[[str], None] | None = None) -> Tensor:
    """Vectors of sentences, (B, WIDTH) float32 of length 1: what the models take as the condition "text".

    A character's name has the vector that ships. Any other sentence has MiniLM's own; where that is not installed, the
    vector of `nearest` to it, and where its words are others, which name that is is said. An empty sentence has zeros,
    which mean no text.

    Args:
        sentences: one, or several.
        say: told which name was taken; a warning where not given.

    Raises:
        ConfigError: without MiniLM, for a sentence that shares no word with any name or tag.

    >>> bool((text("Octopus ") == vectors()[[one.name for one in emojis()].index("octopus")]).all())
    True
    """
    rows = []
    for sentence in [sentences] if isinstance(sentences, str) else sentences:
        taken = taken_for(sentence)
        if taken is not None:
            rows.append(vectors()[emojis().index(taken)])
        else:  # one by one, so that a sentence's vector does not depend on the others
            rows.append(minilm.embed([sentence])[0] if sentence.strip() else torch.zeros(WIDTH, dtype=torch.float32))
        if taken is not None and _words(sentence) != _words(taken.name):
            remark = f"{sentence!r} is taken for {taken.name!r}, the nearest name: for the sentence itself, "
            (say or _warn)(remark + minilm.INSTALL)
    return torch.stack(rows) if rows else torch.zeros(0, WIDTH, dtype=torch.float32)


def _warn(remark: str) -> None:
    warnings.warn(remark, stacklevel=3)


def taken_for(sentence: str) -> Emoji | None:
    """The character whose vector a sentence gets; None for one that has a vector of its own, and an empty one.

    Raises:
        ConfigError: as `text`.
    """
    exact = _exact().get(_spoken(sentence))
    if exact is not None or minilm.is_installed() or not sentence.strip():
        return exact
    return nearest(sentence)


def nearest(sentence: str) -> Emoji:
    """The character whose name shares most words with a sentence, whether MiniLM is installed or not.

    Singular and plural are one word, and words such as "a" and "with" count for nothing. Among equals it is the one
    that shares most words with name and tags together, then the one of the fewest words, the shortest, the first. A
    name of the very same words comes before all.

    Raises:
        ConfigError: where none shares a word.

    >>> nearest("Two happy octopuses").name, nearest("happy birthday").name
    ('octopus', 'birthday cake')
    """
    if (exact := _exact().get(_spoken(sentence))) is not None:
        return exact
    words = _words(sentence)
    asked = [_singulars(word) for word in dict.fromkeys(words)]

    def far(place: int) -> tuple[int, ...]:
        name, tags = _known()[place]
        by_name, by_either = (sum(not forms.isdisjoint(known) for forms in asked) for known in (name, name | tags))
        own = _words(emojis()[place].name)
        return own != words, -by_name, -by_either, len(own), len(emojis()[place].name), place

    best = min(range(len(emojis())), key=far)
    if not far(best)[2]:
        raise ConfigError(f"no emoji's name or tag has a word of {sentence!r}: to draw any sentence, {minilm.INSTALL}")
    return emojis()[best]


def _spoken(sentence: str) -> str:
    """A sentence without what is not heard: case, spaces, the kind of its apostrophes."""
    return " ".join(sentence.replace("’", "'").casefold().split())


def _words(sentence: str) -> list[str]:
    """The words that say something, without accents and the 's of an owner.

    >>> _words("A woman’s Piñata!")
    ['woman', 'pinata']
    """
    plain = unicodedata.normalize("NFKD", _spoken(sentence))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return [word for word in re.findall(r"[^\W_]+", re.sub(r"'s\b", "", plain)) if word not in SILENT]


def _singulars(word: str) -> frozenset[str]:
    """A word with all that it may be the plural of.

    >>> sorted(_singulars("glasses")), sorted(_singulars("wolves"))
    (['glass', 'glasse', 'glasses'], ['wolf', 'wolfe', 'wolv', 'wolve', 'wolves'])
    """
    cut = ((word.removesuffix(many), many, one) for many, one in _PLURALS if word.endswith(many))
    return frozenset(stem + one for stem, many, one in cut if len(stem) > 1 or not many) | {_ODD.get(word, word)}


@functools.cache
def _exact() -> dict[str, Emoji]:
    """Characters by name."""
    return {_spoken(one.name): one for one in emojis()}


@functools.cache
def _known() -> tuple[tuple[frozenset[str], frozenset[str]], ...]:
    """For every character the words of its name and of its tags, each with its singulars."""
    return tuple((_all_singulars(one.name), frozenset[str]().union(*map(_all_singulars, one.tags))) for one in emojis())


def _all_singulars(sentence: str) -> frozenset[str]:
    return frozenset[str]().union(*map(_singulars, _words(sentence)))
