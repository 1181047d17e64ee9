"""The characters of the emoji world with their drawings, and in which order they are asked for."""

import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from symguide.errors import SymguideError, unknown
from symguide.worlds.emoji import drawings
from symguide.worlds.emoji.names import STYLES, Emoji, emojis, vectors
from symguide.worlds.emoji.views import picture

SETS = tuple(drawings.SETS)
"""Sets of drawings; a style's number is its place, and the first are those that the models know."""

TRAINED, DRAWINGS, CHARACTERS = "trained characters", "drawings never trained", "characters never trained"
GROUPS = (TRAINED, DRAWINGS, CHARACTERS)
"""Characters that training saw in all of its styles; drawings that it never saw, of characters that it saw in the
others; and characters that it saw in none."""


@dataclass(frozen=True)
class Pairs:
    """Drawings that are asked for: characters by their place in the album, and styles by theirs in `SETS`, (N,)."""

    character: Tensor
    style: Tensor

    def __len__(self) -> int:
        return len(self.character)

    def __getitem__(self, rows: slice | Tensor) -> "Pairs":
        return Pairs(self.character[rows], self.style[rows])


@dataclass(frozen=True, eq=False)
class Album:
    """Characters, what they are called as vectors, and how each set draws them.

    Attributes:
        characters: of the world.
        vectors: of their names, (N, 384).
        layers: drawings by set, (N, 4, H, H) as `drawings.drawings` has them; those that a set lacks are empty.
    """

    characters: tuple[Emoji, ...]
    vectors: Tensor
    layers: Mapping[str, Tensor] = field(default_factory=dict)

    @functools.cached_property
    def seen(self) -> Tensor:
        """Which drawings training saw, (N, 3)."""
        return torch.tensor([[style not in one.unseen for style in STYLES] for one in self.characters])

    @functools.cached_property
    def order(self) -> Tensor:
        """Places of all characters in the order they are asked for: by chance, and always the same."""
        codes = [hashlib.sha512(f"turn {one.code}".encode()).hexdigest() for one in self.characters]
        return torch.tensor(sorted(range(len(codes)), key=codes.__getitem__))

    @functools.cached_property
    def drawn(self) -> Tensor:
        """Which characters each set draws, (N, 5)."""
        return torch.stack([(self.layers[style] > 0).flatten(1).any(dim=1) for style in SETS], dim=1)

    def training(self) -> Pairs:
        """All drawings that training saw."""
        return Pairs(*self.seen.nonzero(as_tuple=True))

    def pairs(self, group: str) -> Pairs:
        """All drawings of one of `GROUPS` in the order they are asked for, styles in turn."""
        count = self.seen[self.order].sum(dim=1)
        if group == DRAWINGS:
            rows = self.order[(count > 0) & (count < len(STYLES))]
            row, style = (~self.seen[rows]).nonzero(as_tuple=True)
            return Pairs(rows[row], style)
        if group not in GROUPS:
            raise unknown("group of emoji", group, GROUPS)
        rows = self.order[count == (len(STYLES) if group == TRAINED else 0)]
        turn, place = torch.arange(len(STYLES)).repeat_interleave(len(rows)), torch.arange(len(rows))
        return Pairs(rows.repeat(len(STYLES)), (place.repeat(len(STYLES)) + turn) % len(STYLES))

    def pictures(self, asked: Pairs, side: int = 32, view: Tensor | None = None) -> Tensor:
        """The drawings as pictures (B, 3, side, side), as they are or as a view has them."""
        layers = torch.stack([self.layers[SETS[s]][c] for c, s in zip(*_lists(asked), strict=True)])
        return picture(layers, view, side)

    def others(self, asked: Pairs) -> Pairs:
        """For each drawing one of another character in its style: of those of its group the next in order.

        Of a style that training knows it is a drawing that training saw.
        """
        place = torch.empty_like(self.order)
        place[self.order] = torch.arange(len(place))
        group = torch.tensor([one.group for one in self.characters])
        found = []
        for character, style in zip(*_lists(asked), strict=True):
            known = self.seen[:, style] if style < len(STYLES) else self.drawn[:, style]
            fit = known & (torch.arange(len(place)) != character)
            near = fit & (group == group[character])
            fit = near if near.any() else fit
            found.append(int(torch.where(fit, (place - place[character]) % len(place), len(place)).argmin()))
        return Pairs(torch.tensor(found, dtype=torch.long), asked.style)


def _lists(asked: Pairs) -> tuple[list[int], list[int]]:
    return asked.character.tolist(), asked.style.tolist()


@functools.cache
def album() -> Album:
    """All characters with their drawings.

    Raises:
        WeightsError, ConfigError: where the world's files are not installed, and where drawings cannot be had.
    """
    codes = tuple(one.code for one in emojis())
    return Album(emojis(), vectors(), {style: drawings.drawings(style, codes) for style in SETS})


def with_or_without(make: Callable[[], Album] = album) -> tuple[Album, str | None]:
    """The album; where drawings cannot be had one without any, and why.

    Raises:
        WeightsError: where the world's files are not installed.
    """
    bare = Album(emojis(), vectors())
    try:
        return make(), None
    except SymguideError as error:
        return bare, str(error)
