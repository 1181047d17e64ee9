"""The ground truth of scenes: what stands where, in which colours, before what. Deterministic by (seed, split, index).

A `Scenes` is a batch of B scenes as a struct of arrays. Slot 0 is the front object and slot 1, where count is 2, the
one behind it. Lengths are fractions of the picture's side, x runs to the right and y down, angles are in radians.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from symguide.errors import ConfigError, unknown

SHAPES = ("disk", "ring", "square", "triangle", "star", "cross")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
TEXTURES = ("plain", "striped", "dotted")
SIZES = ("small", "large")
BACKGROUNDS = ("plain", "gradient", "stripes", "checks", "noise")
POSITIONS = ("middle", "left", "right", "top", "bottom")

HELD_OUT_PAIRS = ((0, 3), (1, 0), (2, 5), (3, 4), (4, 6), (5, 2))
"""(shape, colour) of objects that no training picture shows: a green disk, a red ring, a purple square, a blue
triangle, a white star, a yellow cross. The split "combinations" shows nothing else in front."""

SPLITS = ("train", "held_out", "combinations")
LATTICE = 6  # knots of the noise background to a side
MIDDLE = 0.07  # an object whose centre is off by less than this on both axes stands in the middle


@dataclass(frozen=True)
class Scenes:
    """B scenes. All that a picture and its caption depend on; the caption's choice of words included."""

    count: Tensor
    """Number of objects, (B,), 1 or 2."""
    shape: Tensor
    """Index in SHAPES, (B, 2)."""
    colour: Tensor
    """Index in COLOURS, (B, 2)."""
    texture: Tensor
    """Index in TEXTURES, (B, 2)."""
    size: Tensor
    """Index in SIZES, (B, 2)."""
    radius: Tensor
    """(B, 2), a fraction of the side."""
    turn: Tensor
    """Rotation, (B, 2), radians."""
    centre: Tensor
    """(x, y), (B, 2, 2), 0..1."""
    background: Tensor
    """Index in BACKGROUNDS, (B,)."""
    paint: Tensor
    """Index in COLOURS of the background's two colours, (B, 2); the second counts for nothing where it is plain."""
    angle: Tensor
    """Direction of a gradient and of stripes, (B,), radians."""
    period: Tensor
    """Of stripes and checks, (B,)."""
    phase: Tensor
    """Of stripes and checks, (B, 2), 0..1."""
    lattice: Tensor
    """Knots of a noise background, (B, LATTICE, LATTICE), 0..1."""
    words: Tensor
    """What a caption mentions of what it may leave out, (B, 6), bool: sizes (2), position, background, its second
    colour, and whether the object behind comes first."""

    def __len__(self) -> int:
        return len(self.count)

    def __getitem__(self, rows: slice | Tensor | Sequence[int]) -> "Scenes":
        """The scenes of these rows."""
        return Scenes(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @property
    def position(self) -> Tensor:
        """Where every object stands, index in POSITIONS, (B, 2)."""
        return toward(self.centre - 0.5, MIDDLE)

    @property
    def identity(self) -> Tensor:
        """What makes an object that object, wherever it stands: shape, colour and texture as one number, (B, 2)."""
        return (self.shape * len(COLOURS) + self.colour) * len(TEXTURES) + self.texture

    @property
    def colours(self) -> Tensor:
        """Which colours the background has, (B, len(COLOURS)), 0 or 1."""
        first, second = torch.nn.functional.one_hot(self.paint, len(COLOURS)).unbind(1)
        return torch.where((self.background == 0)[:, None], first, torch.maximum(first, second))

    @property
    def pairs(self) -> Tensor:
        """Which (shape, colour) are shown, (B, len(SHAPES) * len(COLOURS)), 0 or 1."""
        hot = torch.nn.functional.one_hot(self.shape * len(COLOURS) + self.colour, len(SHAPES) * len(COLOURS))
        return torch.where((self.count == 1)[:, None], hot[:, 0], hot.amax(1))


def toward(offset: Tensor, middle: float) -> Tensor:
    """Index in POSITIONS of (x, y) offsets (..., 2)."""
    x, y = offset.unbind(-1)
    sideways = torch.where(x < 0, 1, 2)
    upright = torch.where(y < 0, 3, 4)
    return torch.where(offset.abs().amax(-1) < middle, 0, torch.where(x.abs() >= y.abs(), sideways, upright))


def _mix(z: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014)."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _uniforms(seed: int, split: int, indices: np.ndarray, count: int) -> np.ndarray:
    """(B, count) numbers in [0, 1), each a hash of (seed, split, index, column) alone."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        key = _mix(np.array([seed % 2**64], np.uint64) * golden + np.uint64(split + 1))
        key = _mix(key ^ _mix(indices.astype(np.uint64) + golden))
        columns = np.arange(1, count + 1, dtype=np.uint64) * golden
        return (_mix(key[:, None] + columns) >> np.uint64(11)) * 2.0**-53


def draw(split: str, indices: Sequence[int] | range | Tensor, seed: int = 0) -> Scenes:
    """The scenes of these indices.

    Args:
        split: "train", "held_out" (other scenes of the same kinds) or "combinations" (one object with a shape and a
            colour that were never together in training).
        indices: which, from 0; every index is a scene of its own.
        seed: of the whole world.

    Raises:
        ConfigError: for an unknown split, or a negative index.

    >>> draw("train", [3, 5]).centre.shape
    torch.Size([2, 2, 2])
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    rows = np.asarray(indices, dtype=np.int64)
    if rows.ndim != 1 or (len(rows) and rows.min() < 0):
        raise ConfigError("indices must be a list of whole numbers from 0")
    source = _Source(_uniforms(seed, SPLITS.index(split), rows, 256))
    count = 1 + (source.take() < (0.0 if split == "combinations" else 0.3)).long()
    shape, colour = _objects(split, source.take(len(SHAPES) * len(COLOURS)))
    size = source.below(2, 2)
    one = (count == 1)[:, None]
    least = torch.where(one, 0.21, 0.18) + torch.where(one, 0.08, 0.06) * size
    radius = least + torch.where(one, 0.04, 0.03) * source.take(2)
    background = source.below(len(BACKGROUNDS))
    return Scenes(
        count=count,
        shape=shape,
        colour=colour,
        texture=(source.take(2) * 4 - 1).clamp_min(0).floor().long(),  # half of them plain
        size=size,
        radius=radius,
        turn=0.8 * source.take(2) - 0.4,
        centre=_places(count, radius, source.take(40).reshape(-1, 10, 2, 2)),
        background=background,
        paint=_paint(count, colour, source.take(len(COLOURS))),
        angle=torch.pi * source.take() * torch.where(background == 1, 2, 1),
        period=0.22 + 0.10 * source.take(),
        phase=source.take(2),
        lattice=source.take(LATTICE**2).reshape(-1, LATTICE, LATTICE),
        words=source.take(6) < torch.tensor([0.5, 0.5, 0.4, 0.85, 0.6, 0.5], dtype=torch.float64),
    )


class _Source:
    """Hands out the columns of (B, K) uniform numbers, each once."""

    def __init__(self, numbers: np.ndarray) -> None:
        self.numbers, self.used = torch.from_numpy(numbers), 0

    def take(self, count: int | None = None) -> Tensor:
        """The next column, (B,), or the next `count`, (B, count)."""
        first, self.used = self.used, self.used + (count or 1)
        return self.numbers[:, first] if count is None else self.numbers[:, first : self.used]

    def below(self, bound: int, count: int | None = None) -> Tensor:
        """Whole numbers 0 .. bound - 1."""
        return (self.take(count) * bound).long()


def _objects(split: str, score: Tensor) -> tuple[Tensor, Tensor]:
    """Shape and colour of both slots, (B, 2) each: the two pairs of highest score that share neither."""
    held = torch.zeros(len(SHAPES), len(COLOURS), dtype=torch.bool)
    held[tuple(zip(*HELD_OUT_PAIRS, strict=True))] = True
    grid = score.reshape(-1, len(SHAPES), len(COLOURS))
    grid = grid.masked_fill(~held if split == "combinations" else held, -1.0)
    front = grid.flatten(1).argmax(1)
    shape, colour = front // len(COLOURS), front % len(COLOURS)
    same = torch.arange(len(SHAPES))[None, :, None] == shape[:, None, None]
    same = same | (torch.arange(len(COLOURS))[None, None] == colour[:, None, None])
    behind = grid.masked_fill(same, -2.0).flatten(1).argmax(1)
    return torch.stack([shape, behind // len(COLOURS)], 1), torch.stack([colour, behind % len(COLOURS)], 1)


def _places(count: Tensor, radius: Tensor, candidates: Tensor) -> Tensor:
    """Centres (B, 2, 2) inside the picture: the first candidate of (B, K, 2, 2) where two objects are both seen."""
    room = (1.02 * radius).clamp_max(0.5)[:, None, :, None]
    centres = room + (1 - 2 * room) * candidates
    apart = (centres[:, :, 0] - centres[:, :, 1]).norm(dim=-1) / radius.sum(1, keepdim=True)
    order = torch.arange(candidates.shape[1]) * 1e-6
    best = torch.where(count == 1, 0, (apart.clamp_max(0.85) - order).argmax(1))
    return centres[torch.arange(len(centres)), best]


def _paint(count: Tensor, colour: Tensor, score: Tensor) -> Tensor:
    """Two colours (B, 2) for the background that no object has."""
    score = score.scatter(1, colour[:, :1], -1.0)
    score = torch.where((count == 2)[:, None], score.scatter(1, colour[:, 1:], -1.0), score)
    return score.topk(2, dim=1).indices
