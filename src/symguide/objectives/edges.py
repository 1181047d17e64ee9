"""Steer toward a sketch: edges where its lines are, and none elsewhere."""

import torch
import torch.nn.functional as F
from torch import Tensor

from symguide.errors import ConfigError
from symguide.objectives.base import Objective, at_least_float32, pictures, rows_for, to_device_of
from symguide.registry import register

LUMINANCE = (0.299, 0.587, 0.114)
"""Rec. 601 weights of red, green and blue."""

FLOOR = 0.01
"""Steps of luminance per pixel, of 0..1, below which an edge counts for less: noise, not lines."""


@register("objective", "edges")
class Edges(Objective):
    """1 - cosine similarity of the picture's edges and the sketch's lines, both smoothed.

        e    = G * (sqrt((S_x l)² + (S_y l)² + floor²) - floor),    l = luminance of (x_0 + 1) / 2
        loss = 1 - <e, s> / (|e| |s|),                              s = G * sketch

    S are Sobel filters in units of luminance per pixel, G is a Gaussian, the border is repeated. Range 0 to 1. The
    cosine does not ask how strong edges are, only where: contrast is left to the model, and light on dark counts as
    dark on light. Smoothing lets an edge beside its line feel the line; more of it guides from farther and less finely.

    Args:
        sketch: (H, W), or (B, 1, H, W) with one for each sample; in [0, 1], 1 on the lines.
        smoothing: standard deviation of G in pixels; 0 is none.

    Raises:
        ConfigError: for a sketch without lines or beyond [0, 1], or of another size than the samples.

    >>> step = torch.ones(1, 3, 6, 6) * torch.tensor([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0])
    >>> middle, left = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    >>> float(Edges(middle.expand(6, 6))(step)) < 0.01 < 0.5 < float(Edges(left.expand(6, 6))(step))
    True
    """

    def __init__(self, sketch: Tensor, smoothing: float = 1.0) -> None:
        sketch = sketch[None, None] if sketch.ndim == 2 else sketch
        if sketch.ndim != 4 or sketch.shape[1] != 1:
            raise ConfigError(f"a sketch is (H, W) or (B, 1, H, W), not {tuple(sketch.shape)}")
        if bool((sketch < 0).any()) or bool((sketch > 1).any()):
            raise ConfigError("a sketch must lie in [0, 1], 1 on its lines: (x + 1) / 2 for a picture in [-1, 1]")
        if not bool((sketch.flatten(1).amax(dim=1) > 1e-3).all()):
            raise ConfigError("the sketch has no lines: it must be 1 where edges are wanted")
        if not smoothing >= 0:
            raise ConfigError(f"the smoothing of edges cannot be negative, as {smoothing} is")
        self.smoothing = smoothing
        self.lines = _smooth(sketch.double(), smoothing)

    @classmethod
    def of(cls, picture: Tensor, smoothing: float = 1.0) -> "Edges":
        """With the edges of a picture, (C, H, W) or (B, C, H, W) in [-1, 1], as the sketch."""
        strength = edge_strength(pictures(picture).double())
        return cls(strength / strength.amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-8), smoothing)

    def __call__(self, x0: Tensor) -> Tensor:
        edges = _smooth(edge_strength(x0), self.smoothing)
        lines = rows_for(to_device_of(self.lines, edges), x0, "the sketch")
        if lines.shape != edges.shape:
            raise ConfigError(
                f"the sketch is {tuple(lines.shape[2:])}, and the samples are {tuple(edges.shape[2:])}: resize it"
            )
        edges, lines = edges.flatten(1), lines.flatten(1)
        # The constant keeps the length smooth where a picture has no edges at all: the loss is 1 there.
        length = (edges.square().sum(dim=1) + 1e-6).sqrt() * lines.norm(dim=1)
        return 1 - (edges * lines).sum(dim=1) / length


def edge_strength(picture: Tensor) -> Tensor:
    """Sobel gradient of the luminance of pictures (B, C, H, W) in [-1, 1], C = 1 or 3: (B, 1, H, W), smooth at zero.

    >>> edge_strength(torch.linspace(-1, 1, 5).expand(1, 1, 5, 5))[0, 0, 2].round(decimals=2)  # 0.25 but for the floor
    tensor([0.1200, 0.2400, 0.2400, 0.2400, 0.1200])
    """
    if picture.ndim != 4 or picture.shape[1] not in (1, 3):
        raise ConfigError(f"edges are those of pictures (B, C, H, W) with 1 or 3 channels, not {tuple(picture.shape)}")
    x = (picture.to(at_least_float32(picture)) + 1) / 2
    if x.shape[1] == 3:
        x = (x * x.new_tensor(LUMINANCE)[:, None, None]).sum(dim=1, keepdim=True)
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    right, down = x[..., 2:] - x[..., :-2], x[..., 2:, :] - x[..., :-2, :]
    right = (right[..., :-2, :] + 2 * right[..., 1:-1, :] + right[..., 2:, :]) / 8
    down = (down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]) / 8
    squares = right.square() + down.square()
    return squares / ((squares + FLOOR**2).sqrt() + FLOOR)  # sqrt(squares + floor²) - floor, without its round-off


def _smooth(x: Tensor, sigma: float) -> Tensor:
    """(B, 1, H, W) blurred with a Gaussian, the border repeated."""
    if sigma == 0:
        return x
    radius = int(4 * sigma + 0.5)
    weight = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device) / sigma) ** 2)
    weight = weight / weight.sum()
    padded = F.pad(x, (radius, radius, radius, radius), mode="replicate")
    # Not conv2d, which some accelerators round to ten bits by default.
    return (padded.unfold(3, 2 * radius + 1, 1) @ weight).unfold(2, 2 * radius + 1, 1) @ weight
