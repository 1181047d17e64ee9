"""A first look at what a sentence and a style ask for: layers that a denoiser is shown beside its noisy samples."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 32


class Sketch(nn.Module):
    """A sentence's vector and a style to layers (B, 4, 32, 32): colours times the opacity, then the opacity.

    An autoencoder's second half, of `rank` numbers, with a few layers of its own before it: it gives the mean of what
    it takes to be asked for, sharp where it knows the drawing and a blur where it does not. It costs a
    thirtieth of a call of the emoji model that it stands in, so training can show it every drawing several hundred
    times, and a denoiser that is shown what it makes need not learn by heart which name is which picture.

    Args:
        text: numbers of a sentence's vector, which has length 1; zeros mean "no text".
        styles: number of styles; style == styles means "no style".
        width: of the layers before.
        blocks: residual ones among these, whose channels the style scales.
        rank: of the drawings.
    """

    def __init__(self, text: int = 384, styles: int = 3, width: int = 576, blocks: int = 2, rank: int = 256) -> None:
        super().__init__()
        self.text, self.style = nn.Linear(text, width), nn.Embedding(styles + 1, width)
        self.gates = nn.ModuleList(nn.Embedding(styles + 1, width) for _ in range(blocks))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks))
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)) for _ in range(blocks)
        )
        self.numbers = nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, rank))
        self.basis = nn.Linear(rank, 4 * SIDE**2)

    def forward(self, text: Tensor, style: Tensor) -> Tensor:
        """(B, text) and (B,) -> (B, 4, 32, 32), about 0 to 1 and not clamped."""
        return self.basis(self.coefficients(text, style)).unflatten(1, (4, SIDE, SIDE))

    def coefficients(self, text: Tensor, style: Tensor) -> Tensor:
        """Of the basis, (B, rank)."""
        h = self.text(text * text.shape[1] ** 0.5) + self.style(style)
        for gate, norm, block in zip(self.gates, self.norms, self.blocks, strict=True):
            h = h + block(norm(h) * (1 + gate(style)))
        return self.numbers(h)


def placed(layers: Tensor, view: Tensor) -> Tensor:
    """Layers (B, 4, H, W) as a picture (B, 3, H, W) in [-1, 1], where a view (B, 7) puts them and on its ground.

    A view: right and down by parts of a side, log of the zoom, the turn in radians, clockwise, and 1 - the ground's
    red, green and blue in 0..1. It is zoomed and turned about its middle, then moved.
    """
    layers = moved(layers, view)
    return 2 * on(layers, 1 - view[:, 4:]) - 1


def on(layers: Tensor, ground: Tensor) -> Tensor:
    """Layers (B, 4, H, W) on grounds (B, 3): colours (B, 3, H, W), in 0..1 as both are."""
    return layers[:, :3] + (1 - layers[:, 3:]) * ground[:, :, None, None]


def moved(layers: Tensor, view: Tensor) -> Tensor:
    """Layers where a view puts them; what comes from outside is empty."""
    right, down, zoom, turn = view[:, :4].unbind(1)
    cos, sin = turn.cos() / zoom.exp(), turn.sin() / zoom.exp()
    back = torch.stack(  # from a place in the picture to that in the layers
        [
            torch.stack([cos, sin, -2 * (cos * right + sin * down)], dim=1),
            torch.stack([-sin, cos, 2 * (sin * right - cos * down)], dim=1),
        ],
        dim=1,
    )
    places = F.affine_grid(back, list(layers.shape), align_corners=False)
    return F.grid_sample(layers, places, align_corners=False)
