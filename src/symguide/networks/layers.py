"""Layers of a drawing, colours times its opacity and then the opacity: coloured, moved, and put on a ground."""

import torch
import torch.nn.functional as F
from torch import Tensor

VIEW = 7
"""Numbers of a view: how a picture is moved, and on what it stands."""
LOOK = 5
"""Numbers of a look: ink, pale, gray, hue, and 1 for any look, else 0; see symguide.worlds.emoji.look."""


def placed(layers: Tensor, view: Tensor, look: Tensor) -> Tensor:
    """Layers (B, S, 4, H, W) as pictures (B, S, 3, H, W) in [-1, 1], where a view (B, 7) puts them and on its ground.

    A view: right and down by parts of a side, log of the zoom, the turn in radians, clockwise, and 1 - the ground's
    red, green and blue in 0..1. It is zoomed and turned about its middle, then moved. Of a look (B, 5) see `coloured`.
    """
    rows, count, _, *sides = layers.shape
    seen, look = layers.flatten(0, 1), look.repeat_interleave(count, dim=0)
    put = moved(coloured(seen, look).reshape(rows, count * 4, *sides), view).reshape(-1, 4, *sides)
    return 2 * on(put, (1 - view[:, 4:]).repeat_interleave(count, dim=0)).reshape(rows, count, 3, *sides) - 1


def on(layers: Tensor, ground: Tensor) -> Tensor:
    """Layers (B, 4, H, W) on grounds (B, 3): colours (B, 3, H, W), in 0..1 as both are."""
    return layers[:, :3] + (1 - layers[:, 3:]) * ground[:, :, None, None]


def coloured(layers: Tensor, look: Tensor) -> Tensor:
    """Layers (B, 4, H, W) in the colours of a look (B, 5), within their opacity; its ink is not drawn here.

    Colours are turned by the angle `hue` about the axis of grays, mixed with their mean by `gray`, and with white by
    `pale`.
    """
    _, pale, gray, hue, _ = look.unbind(1)
    one = torch.eye(3, dtype=look.dtype, device=look.device)
    mean = torch.full_like(one, 1 / 3)
    across = (one.roll(1, 0) - one.roll(-1, 0)) / 3**0.5
    cos, sin, gray, pale = (z[:, None, None] for z in (hue.cos(), hue.sin(), gray, pale))
    colours = (1 - gray) * (cos * one + (1 - cos) * mean + sin * across) + gray * mean
    mixed = torch.einsum("bij,bjhw->bihw", (1 - pale) * colours, layers[:, :3]) + pale[:, :, :, None] * layers[:, 3:]
    return torch.cat([mixed.clamp_min(0).minimum(layers[:, 3:].clamp_min(0)), layers[:, 3:]], dim=1)


def moved(layers: Tensor, view: Tensor) -> Tensor:
    """Layers (B, C, H, W) where a view puts them, by places in float32 at least; what comes from outside is empty."""
    wide = torch.promote_types(layers.dtype, torch.float32)
    right, down, zoom, turn = view[:, :4].to(wide).unbind(1)
    cos, sin = turn.cos() / zoom.exp(), turn.sin() / zoom.exp()
    back = torch.stack(  # from a place in the picture to that in the layers
        [
            torch.stack([cos, sin, -2 * (cos * right + sin * down)], dim=1),
            torch.stack([-sin, cos, 2 * (sin * right - cos * down)], dim=1),
        ],
        dim=1,
    )
    places = F.affine_grid(back, list(layers.shape), align_corners=False)
    return F.grid_sample(layers.to(wide), places, align_corners=False).to(layers.dtype)
