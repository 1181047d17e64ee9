"""Steer toward what a survey measures of a source: its flux, its size, its ellipticity."""

from dataclasses import dataclass

import torch
from torch import Tensor

from symguide.errors import ConfigError
from symguide.objectives.base import Objective, at_least_float32, rows_for, to_device_of
from symguide.objectives.edges import LUMINANCE
from symguide.registry import register

FLOOR = 0.01
"""Light in a pixel, of 0 to 1, below which it counts for less: noise of the sky, not the source."""


@dataclass(frozen=True)
class Moments:
    """Flux and second moments of the light l in pictures, each (B,); pixels are counted in whole ones, as are lengths.

        l = f² / (f + floor),  f = max((x_0 + 1) / 2, 0);    F = sum_p l_p,    Q_ij = sum_p l_p (p - c)_i (p - c)_j / F

    c is the centroid. A sky of noise far below the floor adds almost nothing, where it would rule plain moments.
    """

    flux: Tensor
    xx: Tensor
    yy: Tensor
    xy: Tensor

    @classmethod
    def of(cls, picture: Tensor) -> "Moments":
        """Of pictures (B, C, H, W) in [-1, 1], C = 1 or 3, whose levels are linear in the light; ConfigError else."""
        if picture.ndim != 4 or picture.shape[1] not in (1, 3):
            raise ConfigError(
                f"flux and shape are those of pictures (B, C, H, W) with 1 or 3 channels, not {tuple(picture.shape)}"
            )
        x = (picture.to(at_least_float32(picture)) + 1) / 2
        f = x[:, 0] if x.shape[1] == 1 else (x * x.new_tensor(LUMINANCE)[:, None, None]).sum(dim=1)
        f = f.clamp_min(0)
        l = f * f / (f + FLOOR)  # noqa: E741
        flux = l.sum(dim=(1, 2)) + 1e-6  # of a black picture nothing is asked, and its moments are 0
        y, x = (torch.arange(n, dtype=l.dtype, device=l.device) - (n - 1) / 2 for n in l.shape[1:])
        y = y[:, None]

        def mean(of: Tensor) -> Tensor:
            return (l * of).sum(dim=(1, 2)) / flux

        dy, dx = y - mean(y)[:, None, None], x - mean(x)[:, None, None]
        return cls(flux, mean(dx * dx), mean(dy * dy), mean(dx * dy))

    @property
    def size(self) -> Tensor:
        """R = sqrt(Q_xx + Q_yy), the r.m.s. radius; sqrt(2) sigma of a round Gaussian, 1.2 of its half-light radii."""
        return (self.xx + self.yy + 1e-6).sqrt()

    @property
    def ellipticity(self) -> Tensor:
        """|e| = sqrt((Q_xx - Q_yy)² + 4 Q_xy²) / (Q_xx + Q_yy) = (a² - b²) / (a² + b²) of an ellipse's half-axes."""
        length = ((self.xx - self.yy).square() + 4 * self.xy.square() + 1e-8).sqrt()
        return length / (self.xx + self.yy + 1e-4)


class _SetPoint(Objective):
    """(measured - target)², of one target for all samples or one for each."""

    what = ""

    def __init__(self, target: float | Tensor) -> None:
        self.target = torch.as_tensor(target, dtype=torch.float64).reshape(-1)
        if not self._can_be():
            raise ConfigError(f"{self.what}, not {target}")

    def _can_be(self) -> bool:
        return bool((self.target > 0).all()) and bool(self.target.isfinite().all())

    def measured(self, x0: Tensor) -> Tensor:
        """What it is of these pictures, (B,)."""
        raise NotImplementedError

    def _difference(self, measured: Tensor, target: Tensor) -> Tensor:
        return measured.log() - target.log()

    def __call__(self, x0: Tensor) -> Tensor:
        return self.of(self.measured(x0))

    def of(self, measured: Tensor) -> Tensor:
        """The loss of what was measured, (B,)."""
        return self._difference(
            measured, rows_for(to_device_of(self.target, measured), measured, "the target")
        ).square()


@register("objective", "flux")
class Flux(_SetPoint):
    """(log F - log target)², F the light of the picture in pixels of full brightness: see `Moments`.

    Args:
        target: positive, one for all samples or (B,).

    Raises:
        ConfigError: for a target that is not positive, or samples that are no pictures of 1 or 3 channels.

    >>> dot = -torch.ones(1, 1, 8, 8)
    >>> dot[..., 3:5, 3:5] = 1
    >>> Flux(4.0).measured(dot).round(decimals=1)
    tensor([4.])
    """

    what = "a flux is positive, in pixels of full brightness"

    def measured(self, x0: Tensor) -> Tensor:
        return Moments.of(x0).flux


@register("objective", "size")
class Size(_SetPoint):
    """(log R - log target)², R = sqrt(Q_xx + Q_yy) the r.m.s. radius of the light in pixels: see `Moments`.

    A round Gaussian of standard deviation sigma has R = 1.41 sigma and the half-light radius 1.18 sigma.

    Args:
        target: positive, in pixels, one for all samples or (B,).

    Raises:
        ConfigError: for a target that is not positive, or samples that are no pictures of 1 or 3 channels.

    >>> pair = -torch.ones(1, 1, 8, 8)
    >>> pair[..., 2, 2], pair[..., 2, 6] = 1.0, 1.0
    >>> Size(3.0).measured(pair).round(decimals=2)
    tensor([2.])
    """

    what = "a size is a positive number of pixels"

    def measured(self, x0: Tensor) -> Tensor:
        return Moments.of(x0).size


@register("objective", "ellipticity")
class Ellipticity(_SetPoint):
    """(|e| - target)², |e| = sqrt((Q_xx - Q_yy)² + 4 Q_xy²) / (Q_xx + Q_yy) of the light's second moments.

    0 is round; an ellipse of axis ratio q has (1 - q²) / (1 + q²): 0.5 is q = 0.58. The direction is left free. See
    `Moments`.

    Args:
        target: from 0 to below 1, one for all samples or (B,).

    Raises:
        ConfigError: for another target, or samples that are no pictures of 1 or 3 channels.

    Source: Bartelmann & Schneider, "Weak gravitational lensing", astro-ph/9912508, section 4.2 (there chi).

    >>> ellipse = 2 * torch.exp(-0.5 * ((torch.arange(64) - 31.5) / torch.tensor([[4.0], [8.0]])) ** 2)
    >>> round(Ellipticity(0.5).measured((ellipse[0, :, None] * ellipse[1] / 2 - 1)[None, None]).item(), 1)
    0.6
    """

    what = "an ellipticity is from 0 to below 1"

    def _can_be(self) -> bool:
        return bool((self.target >= 0).all()) and bool((self.target < 1).all())

    def measured(self, x0: Tensor) -> Tensor:
        return Moments.of(x0).ellipticity

    def _difference(self, measured: Tensor, target: Tensor) -> Tensor:
        return measured - target
