"""Pictures of drawings: moved, zoomed, turned, on a ground of any colour, in other looks; models are told how."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from symguide.errors import ConfigError, number
from symguide.networks.layers import LOOK, VIEW, coloured, moved, on


def picture(drawings: Tensor, view: Tensor | None = None, side: int = 32, look: Tensor | None = None) -> Tensor:
    """Pictures (B, 3, side, side) in [-1, 1] of drawings (B, 4, H, H), as `drawings.render` has them.

    Args:
        drawings: uint8 or floats in 0..255, H a multiple of side.
        view: (B, 7), see `symguide.networks.layers.placed`; zeros, or None, are the drawing as it is, on white.
        side: of the pictures; drawings are averaged over blocks.
        look: (B, 5), see `look` of this module; zeros, or None, are the drawing as it is.

    Raises:
        ConfigError: for drawings, views or looks of other shapes.
    """
    if drawings.ndim != 4 or drawings.shape[1] != 4 or drawings.shape[2] != drawings.shape[3]:
        raise ConfigError(f"drawings are (B, 4, side, side), not {tuple(drawings.shape)}")
    if side < 1 or drawings.shape[3] % side:
        raise ConfigError(f"drawings of {drawings.shape[3]} pixels have no whole blocks for pictures of {side}")
    for what, given, numbers in (("views", view, VIEW), ("looks", look, LOOK)):
        if given is not None and given.shape != (len(drawings), numbers):
            shape = tuple(given.shape)
            raise ConfigError(f"{what} of {len(drawings)} drawings are ({len(drawings)}, {numbers}), not {shape}")
    layers = drawings.float() / 255
    if look is not None:
        layers = _looking(layers, look.to(layers))
    ground = layers.new_ones(len(layers), 3)
    if view is not None:
        view = view.to(layers)
        layers, ground = _moved(layers, view), 1 - view[:, 4:]
    return 2 * F.avg_pool2d(on(layers, ground), drawings.shape[-1] // side) - 1


def _moved(layers: Tensor, view: Tensor) -> Tensor:
    """Layers where a view puts them; those that no view moves stay bit for bit."""
    rows = view[:, :4].any(dim=1).nonzero()[:, 0]
    return layers.index_copy(0, rows, moved(layers[rows], view[rows])) if len(rows) else layers


def _looking(layers: Tensor, look: Tensor) -> Tensor:
    """Layers in their looks; those that look as they are stay bit for bit."""
    rows = look.any(dim=1).nonzero()[:, 0]
    if not len(rows):
        return layers
    plain, look = layers[rows], look[rows]
    seen, ink = coloured(plain, look), look[:, :1, None, None] * _edges(plain)
    black = torch.cat([torch.zeros_like(ink).expand(-1, 3, -1, -1), torch.ones_like(ink)], dim=1)
    return layers.index_copy(0, rows, seen + ink * (black - seen))


def _edges(layers: Tensor) -> Tensor:
    """Where a drawing's colours or opacity change, within two pixels of 64: (B, 4, H, H) -> (B, 1, H, H) in 0..1."""
    reach = max(layers.shape[-1] // 32, 2)
    wide = F.pad(layers, (0, reach - 1, 0, reach - 1), mode="replicate")
    most, least = F.max_pool2d(wide, reach, stride=1), -F.max_pool2d(-wide, reach, stride=1)
    return (((most - least).amax(dim=1, keepdim=True) - 0.15) / 0.3).clamp(0, 1)


def random_looks(count: int) -> Tensor:
    """Looks (count, 5) that training gives to drawings.

    Of these 0.6 are inked by 0.4 to 1, 0.5 pale by up to 0.7, 0.3 gray, and 0.4 turned by any angle.
    """
    most, least = torch.tensor([0.6, 0.7, 1.0, 2 * math.pi, 0]), torch.tensor([0.4, 0.0, 0.0, -math.pi, 0])
    return (torch.rand(count, LOOK) * most + least) * (torch.rand(count, LOOK) < torch.tensor([0.6, 0.5, 0.3, 0.4, 0]))


def random_views(count: int) -> Tensor:
    """Views (count, 7) as training draws them: a third moved by about 6 %, a quarter on a random colour."""
    moves = torch.randn(count, 4) * torch.tensor([0.06, 0.06, 0.12, 0.15]) * (torch.rand(count, 1) < 1 / 3)
    grounds = torch.rand(count, 3) * (torch.rand(count, 1) < 1 / 4)
    return torch.cat([moves, grounds], dim=1)


def view(
    right: float = 0.0, down: float = 0.0, zoom: float = 1.0, turn: float = 0.0, ground: str = "white"
) -> list[float]:
    """A view of one's own, as the condition "view" takes it: one row.

    Args:
        right, down: by how much of a side.
        zoom: 1 for none.
        turn: in degrees, clockwise.
        ground: a colour that Pillow knows, such as "skyblue" or "#ffcc00".

    Raises:
        ConfigError: for a colour that it does not know, and numbers that are none.

    >>> view(right=0.25, turn=180, ground="yellow")
    [0.25, 0.0, 0.0, 3.141592653589793, 0.0, 0.0, 1.0]
    """
    from PIL import ImageColor

    try:
        colour = [1 - value / 255 for value in ImageColor.getrgb(ground)[:3]]
    except (ValueError, TypeError, AttributeError):
        raise ConfigError(f"a ground is a colour such as skyblue or #ffcc00, not {ground!r}") from None
    right, down = number(right, "a move to the right"), number(down, "a move down")
    return [right, down, math.log(number(zoom, "a zoom", above=0)), math.radians(number(turn, "a turn")), *colour]


def look(
    ink: float = 0.0, pale: float = 0.0, gray: float = 0.0, hue: float = 0.0, free: bool | float = False
) -> list[float]:
    """A look of one's own, as the condition "look" takes it: one row.

    Args:
        ink: of black lines where a drawing's colours change, 0 to 1; training saw none below 0.4.
        pale: how much white is in its colours, 0 to 1; training saw none above 0.7.
        gray: how much gray, 0 to 1.
        hue: by how much its colours are turned about the circle of hues, in degrees: 120 makes red green.
        free: whether it may be any, for guidance to choose: with no other part, and where no style is told.

    Raises:
        ConfigError: for numbers that are none, parts outside 0 to 1, and a free look that is to have some part.

    >>> look(ink=1, hue=180)
    [1.0, 0.0, 0.0, 3.141592653589793, 0.0]
    """
    parts = {"ink": ink, "pale": pale, "gray": gray}
    shares = [number(value, f"{name} of a look", least=0, most=1) for name, value in parts.items()]
    angle = math.remainder(math.radians(number(hue, "a hue")), 2 * math.pi)
    if free not in (0, 1):
        raise ConfigError(f"a look is free or not, 1 or 0, not {free!r}")
    if free and (any(shares) or angle):
        raise ConfigError("a look that is free has no ink, pale, gray or hue of its own: leave them out")
    return [*shares, angle, float(free)]
