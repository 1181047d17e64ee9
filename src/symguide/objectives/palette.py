"""Steer toward a set of colours."""

import math

import torch
from torch import Tensor

from symguide.errors import ConfigError
from symguide.objectives.base import Objective, at_least_float32, pictures, rows_for, to_device_of
from symguide.registry import register


@register("objective", "palette")
class Palette(Objective):
    """Every pixel near a colour q_k of the palette, and every colour used in its share w_k.

        d_pk = |x_p - q_k|²,    a_pk = softmax_k(-b d_pk),    m_k = mean_p a_pk
        loss = mean_p -(1/b) log sum_k exp(-b d_pk)  +  (1/b) sum_k w_k log(w_k / m_k)

    with b the sharpness: the soft distance of pixels to the palette, and the divergence of the wanted shares from the
    shares m of pixels that the colours take. They are the two sides of a soft Chamfer distance: where a colour is
    unused, -log(m_k) / b is the distance to the pixels nearest to it and pulls these. Range: from -log(K) / b up; for
    colours well apart (b |q_j - q_k|² >> 1), from 0, where all pixels have colours of the palette in their shares.

    Args:
        colours: (K, C) in the samples' units, RGB in [-1, 1]; (B, K, C) with a palette for each sample.
        weights: positive shares, (K,) or (B, K), normalised to sum 1; equal by default. Shares are asked for softly,
            as an unused colour costs much more than a rare one.
        sharpness: b; colours nearer than about 1 / sqrt(2 b) are not told apart. 5 is 0.32, 40 of 255 levels.
            Less keeps to the shares better, more to the colours.

    Raises:
        ConfigError: for colours beyond [-1, 1], weights that are not positive, or shapes that do not fit.

    >>> palette = Palette(torch.tensor([[1.0, -1.0, -1.0], [-1.0, -1.0, 1.0]]))              # red and blue
    >>> red, blue = palette.colours[0, :, :, None, None]
    >>> half, mostly = torch.cat([red, blue], dim=2), torch.cat([red, red, red, blue], dim=2)
    >>> [round(float(palette(x[None])), 3) for x in (half, mostly, red)]
    [0.0, 0.029, 3.861]
    """

    def __init__(self, colours: Tensor, weights: Tensor | None = None, sharpness: float = 5.0) -> None:
        if colours.ndim not in (2, 3):
            raise ConfigError(f"colours are (K, C) or (B, K, C), not {tuple(colours.shape)}")
        if bool((colours.abs() > 1).any()):
            raise ConfigError("colours must lie in [-1, 1] as samples do: 2 * colour - 1 for those in [0, 1]")
        if not sharpness > 0:
            raise ConfigError(f"the sharpness of a palette must be positive, not {sharpness}")
        weights = torch.ones(colours.shape[:-1]) if weights is None else weights
        if weights.shape[-1] != colours.shape[-2] or weights.ndim > 2 or not bool((weights > 0).all()):
            raise ConfigError(f"weights must be {colours.shape[-2]} positive numbers, one for each colour")
        self.colours = colours if colours.ndim == 3 else colours[None]
        self.weights = (weights / weights.sum(dim=-1, keepdim=True)).reshape(-1, weights.shape[-1])
        self.sharpness = sharpness

    @classmethod
    def of(cls, picture: Tensor, colours: int, sharpness: float = 5.0) -> "Palette":
        """The palette of a picture (C, H, W) or pictures (B, C, H, W): k-means of its pixels, weighted by their shares.

        The same picture gives the same palette.

        Raises:
            ConfigError: if a picture has fewer different colours.
        """
        found = [_kmeans(p.flatten(1).T.double().clamp(-1, 1), colours) for p in pictures(picture)]
        centres, shares = (torch.stack(part) for part in zip(*found, strict=True))
        return cls(centres, shares, sharpness)

    def __call__(self, x0: Tensor) -> Tensor:
        x = x0.to(at_least_float32(x0)).flatten(2)
        colours = rows_for(to_device_of(self.colours, x), x0, "the palette")
        weights = rows_for(to_device_of(self.weights, x), x0, "the palette's weights")
        if colours.shape[2] != x.shape[1]:
            raise ConfigError(f"the palette's colours have {colours.shape[2]} channels, the samples {x.shape[1]}")
        closeness = -self.sharpness * (x[:, None] - colours[..., None]).square().sum(dim=2)  # (B, K, pixels)
        nearest = closeness.logsumexp(dim=1)
        log_shares = (closeness - nearest[:, None]).logsumexp(dim=2) - math.log(x.shape[2])
        divergence = (weights * (weights.log() - log_shares)).sum(dim=1)
        return (divergence - nearest.mean(dim=1)) / self.sharpness


def _kmeans(points: Tensor, k: int, starts: int = 4, rounds: int = 50) -> tuple[Tensor, Tensor]:
    """Centres (k, C) and shares (k,), the most frequent first: the best of some greedy k-means++ starts."""
    points = points.cpu()
    different = len(torch.unique(points, dim=0))
    if not 1 <= k <= different:
        raise ConfigError(f"a picture of {different} different colours has no palette of {k}")
    generator = torch.Generator().manual_seed(0)
    best = (math.inf, points, points)
    for _ in range(starts):
        centres = points[torch.randint(len(points), (1,), generator=generator)]
        for _ in range(k - 1):
            far = _squares(points, centres).amin(dim=1)
            tried = points[far.multinomial(8, replacement=True, generator=generator)]
            left = torch.minimum(far[:, None], _squares(points, tried)).sum(dim=0)
            centres = torch.cat([centres, tried[left.argmin()][None]])
        for _ in range(rounds):
            distance, owner = _squares(points, centres).min(dim=1)
            count = owner.bincount(minlength=k)[:, None]
            total = torch.zeros_like(centres).index_add(0, owner, points)
            moved = torch.where(count > 0, total / count, centres)
            if torch.equal(moved, centres):
                break
            centres = moved
        if float(distance.sum()) < best[0]:
            count = count[:, 0].clamp_min(1)  # a share is positive, and a colour that lost its pixels is a rare one
            order = count.argsort(descending=True, stable=True)
            best = (float(distance.sum()), centres[order], count[order] / count.sum())
    return best[1], best[2]


def _squares(points: Tensor, centres: Tensor) -> Tensor:
    return (points[:, None] - centres).square().sum(dim=2)
