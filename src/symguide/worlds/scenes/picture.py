"""Pictures of scenes: every pixel from signed distances, vectorised over the batch, with soft edges one pixel wide."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from symguide.worlds.scenes.scene import Scenes

PALETTE = torch.tensor(
    [
        [0.86, 0.12, 0.14],  # red
        [0.98, 0.55, 0.06],  # orange
        [0.99, 0.90, 0.22],  # yellow
        [0.10, 0.62, 0.26],  # green
        [0.10, 0.36, 0.86],  # blue
        [0.60, 0.25, 0.75],  # purple
        [0.97, 0.97, 0.97],  # white
        [0.06, 0.06, 0.07],  # black
    ],
    dtype=torch.float32,
)
"""RGB of COLOURS, 0..1."""

TEXTURE_PERIOD = 0.15  # of stripes and dots on objects, a fraction of the side


def _disk(x: Tensor, y: Tensor) -> Tensor:
    return torch.hypot(x, y) - 0.95


def _ring(x: Tensor, y: Tensor) -> Tensor:
    return (torch.hypot(x, y) - 0.72).abs() - 0.25


def _square(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.80


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    sides = [math.sin(a) * x + math.cos(a) * y for a in (0.0, 2 * math.pi / 3, -2 * math.pi / 3)]
    return torch.stack(sides).amax(0) - 0.55


def _star(x: Tensor, y: Tensor) -> Tensor:
    """Five points of radius 1.1 with the inner corners at 0.45: the angle is folded into one half of one point."""
    tenth = math.pi / 5
    angle = torch.atan2(x, -y)
    angle = (torch.remainder(angle + tenth, 2 * tenth) - tenth).abs()
    radius = torch.hypot(x, y)
    tip, corner = (0.0, 1.1), (0.45 * math.sin(tenth), 0.45 * math.cos(tenth))
    edge = (corner[0] - tip[0], corner[1] - tip[1])
    length = math.hypot(*edge)
    normal = (-edge[1] / length, edge[0] / length)
    return (radius * angle.sin() - tip[0]) * normal[0] + (radius * angle.cos() - tip[1]) * normal[1]


def _cross(x: Tensor, y: Tensor) -> Tensor:
    a, b = x.abs(), y.abs()
    return torch.minimum(torch.maximum(a - 1.0, b - 0.34), torch.maximum(a - 0.34, b - 1.0))


DISTANCES: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (_disk, _ring, _square, _triangle, _star, _cross)
"""Of SHAPES, in their own coordinates (radius 1, y down): negative inside, 0 on the outline."""


def _pixels(side: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(x, y) of the pixels' centres, (side, side) each, 0..1."""
    line = (torch.arange(side, dtype=dtype) + 0.5) / side
    y, x = torch.meshgrid(line, line, indexing="ij")
    return x, y


def _rotated(x: Tensor, y: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    c, s = angle.cos()[:, None, None], angle.sin()[:, None, None]
    return c * x + s * y, c * y - s * x


def _wave(x: Tensor, side: int, period: Tensor | float) -> Tensor:
    """A square wave of x / period in 0..1, (…), whose edges are as wide as a pixel."""
    soft = math.pi / side / period
    return (0.5 + torch.cos(2 * math.pi * x / period) / (2 * soft)).clamp(0, 1)


def _chosen(kind: Tensor, makers: Sequence[Callable[[Tensor], Tensor]], like: Tensor) -> Tensor:
    """Row i made by makers[kind[i]]; every maker is called once, with the rows that are its own."""
    out = torch.zeros_like(like)
    for index, make in enumerate(makers):
        rows = torch.nonzero(kind == index).squeeze(1)
        if len(rows):
            out[rows] = make(rows)
    return out


def _background(scenes: Scenes, side: int, dtype: torch.dtype) -> Tensor:
    """How much of the second colour every pixel has, (B, side, side)."""
    x, y = _pixels(side, dtype)
    u, _ = _rotated(x - 0.5, y - 0.5, scenes.angle.to(dtype))
    period, phase = scenes.period.to(dtype)[:, None, None], scenes.phase.to(dtype)[:, :, None, None]

    def gradient(rows: Tensor) -> Tensor:
        return (0.5 + u[rows]).clamp(0, 1)

    def stripes(rows: Tensor) -> Tensor:
        return _wave(u[rows] + phase[rows, 0] * period[rows], side, period[rows])

    def checks(rows: Tensor) -> Tensor:
        double = 2 * period[rows]
        across, down = (
            _wave(x + phase[rows, 0] * double, side, double),
            _wave(y + phase[rows, 1] * double, side, double),
        )
        return across + down - 2 * across * down

    def noise(rows: Tensor) -> Tensor:
        knots = scenes.lattice[rows, None].to(dtype)
        smooth = F.interpolate(knots, size=(side, side), mode="bilinear", align_corners=True)[:, 0]
        return (0.5 + 1.6 * (smooth - 0.5)).clamp(0, 1)

    return _chosen(scenes.background, (lambda rows: torch.zeros_like(u[rows]), gradient, stripes, checks, noise), u)


def _objects(scenes: Scenes, side: int, dtype: torch.dtype, slot: int) -> tuple[Tensor, Tensor]:
    """A slot's coverage and its texture's share of the second tone, (B, side, side) each."""
    x, y = _pixels(side, dtype)
    centre, radius = scenes.centre[:, slot].to(dtype), scenes.radius[:, slot].to(dtype)[:, None, None]
    u, v = _rotated(x - centre[:, 0, None, None], y - centre[:, 1, None, None], scenes.turn[:, slot].to(dtype))

    def distance(shape: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda rows: radius[rows] * shape(u[rows] / radius[rows], v[rows] / radius[rows])

    def dots(rows: Tensor) -> Tensor:
        bumps = torch.cos(2 * math.pi * u[rows] / TEXTURE_PERIOD) + torch.cos(2 * math.pi * v[rows] / TEXTURE_PERIOD)
        return (0.5 + 1.2 * (bumps - 0.4)).clamp(0, 1)

    textures = (lambda rows: torch.zeros_like(u[rows]), lambda rows: _wave(v[rows], side, TEXTURE_PERIOD), dots)
    kind = torch.where(scenes.count > slot, scenes.shape[:, slot], -1)
    outline = _chosen(kind, [distance(shape) for shape in DISTANCES], u)
    coverage = torch.where((kind < 0)[:, None, None], 0, (0.5 - outline * side).clamp(0, 1))
    return coverage, _chosen(scenes.texture[:, slot], textures, u)


def second_tone(colour: Tensor) -> Tensor:
    """Of an object's texture: half as bright; for the two darkest and lightest, a grey that shows."""
    grey = torch.tensor([[0.55, 0.55, 0.55]]).to(colour)
    dark = colour.amax(1, keepdim=True) < 0.3
    pale = colour.amin(1, keepdim=True) > 0.9
    return torch.where(dark | pale, grey, 0.5 * colour)


def render(scenes: Scenes, side: int = 32, dtype: torch.dtype | None = None) -> Tensor:
    """The pictures, (B, 3, side, side) in [-1, 1], red, green, blue.

    Args:
        scenes: what `draw` gave, or scenes of your own.
        side: height and width in pixels; the models know 32 and 64.
        dtype: of the pictures, torch's default where not given.
    """
    dtype = dtype or torch.get_default_dtype()
    palette = PALETTE.to(dtype)
    share = _background(scenes, side, dtype)[:, None]
    first, second = palette[scenes.paint].unbind(1)
    picture = first[..., None, None] * (1 - share) + second[..., None, None] * share
    for slot in (1, 0):  # the front object last
        coverage, tone = (part[:, None] for part in _objects(scenes, side, dtype, slot))
        colour = palette[scenes.colour[:, slot]]
        paint = colour[..., None, None] * (1 - tone) + second_tone(colour)[..., None, None] * tone
        picture = picture * (1 - coverage) + paint * coverage
    return 2 * picture - 1


def masks(scenes: Scenes, side: int = 32) -> Tensor:
    """What every pixel shows, (B, side, side): 0 the background, 1 + index in SHAPES an object of that shape."""
    front, behind = (_objects(scenes, side, torch.float32, slot)[0] > 0.5 for slot in (0, 1))
    labels = (1 + scenes.shape)[..., None, None]
    return torch.where(front, labels[:, 0], torch.where(behind, labels[:, 1], 0))
