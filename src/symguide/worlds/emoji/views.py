"""Pictures of drawings: moved, zoomed and turned, on a ground of any colour; the models are told how."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from symguide.errors import ConfigError, number
from symguide.networks.sketch import moved, on
from symguide.networks.vector_unet import VIEW


def picture(drawings: Tensor, view: Tensor | None = None, side: int = 32) -> Tensor:
    """Pictures (B, 3, side, side) in [-1, 1] of drawings (B, 4, H, H), as `drawings.render` has them.

    Args:
        drawings: uint8 or floats in 0..255, H a multiple of side.
        view: (B, 7), see `symguide.networks.sketch.placed`; zeros, or None, are the drawing as it is, on white.
        side: of the pictures; drawings are averaged over blocks.

    Raises:
        ConfigError: for drawings or views of other shapes.
    """
    if drawings.ndim != 4 or drawings.shape[1] != 4 or drawings.shape[2] != drawings.shape[3]:
        raise ConfigError(f"drawings are (B, 4, side, side), not {tuple(drawings.shape)}")
    if side < 1 or drawings.shape[3] % side:
        raise ConfigError(f"drawings of {drawings.shape[3]} pixels have no whole blocks for pictures of {side}")
    if view is not None and view.shape != (len(drawings), VIEW):
        raise ConfigError(f"views of {len(drawings)} drawings are ({len(drawings)}, {VIEW}), not {tuple(view.shape)}")
    layers = drawings.float() / 255
    ground = layers.new_ones(len(layers), 3)
    if view is not None:
        view = view.to(layers)
        layers, ground = _moved(layers, view), 1 - view[:, 4:]
    return 2 * F.avg_pool2d(on(layers, ground), drawings.shape[-1] // side) - 1


def _moved(layers: Tensor, view: Tensor) -> Tensor:
    """Layers where a view puts them; those that no view moves stay bit for bit."""
    rows = view[:, :4].any(dim=1).nonzero()[:, 0]
    return layers.index_copy(0, rows, moved(layers[rows], view[rows])) if len(rows) else layers


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
