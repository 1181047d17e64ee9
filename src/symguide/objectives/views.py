"""Objectives of many random views of a sample, so that no single one of them can be fooled."""

import math
from abc import abstractmethod
from collections.abc import Callable
from numbers import Integral
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from symguide.errors import ConfigError, whole
from symguide.objectives.base import Draws, Objective, at_least_float32, at_step
from symguide.objectives.preprocess import Mode
from symguide.per_sample import expand


class Views(Objective):
    """The mean of an objective over random views of a sample; what a view is, its subclasses say.

    The random numbers belong to the sample and to the step of the run, whatever the batch; within a step they stay the
    same. Asked outside of a step, as by BestOfN or lookahead_gradient, it is the objective itself.

    Args:
        objective: pictures (B, C, H, W) -> loss (B,).
        samples: m, how many views.
        trim: share of the views left out at both ends, those with the highest and with the lowest loss, from 0 to
            below 0.5: a mean that single views cannot carry away. Rounded down to whole views.
    """

    numbers: int
    """How many random numbers a view takes."""
    grain = False
    """Whether it takes noise in the shape of a picture, too."""

    def __init__(self, objective: Callable[[Tensor], Tensor], samples: int, trim: float) -> None:
        if not callable(objective):
            raise ConfigError(f"views are of an objective, a callable, not {type(objective).__name__}")
        samples = whole(samples, "samples", 1, of="views")
        if not 0 <= trim < 0.5:
            raise ConfigError(f"trim must be at least 0 and below 0.5, not {trim}")
        self.objective, self.samples, self.trim = objective, samples, trim

    @property
    def differentiable(self) -> Any:  # type: ignore[override]
        return getattr(self.objective, "differentiable", True)

    @abstractmethod
    def view(self, x: Tensor, numbers: Tensor, *noise: Tensor) -> Tensor:
        """One view of every sample, by its numbers (B, k) from [0, 1] and, with `grain`, normal noise like x."""

    def __call__(self, x0: Tensor) -> Tensor:
        return self.objective(x0)

    def at_step(self, step: Draws) -> Callable[[Tensor], Tensor]:
        objective = at_step(self.objective, step)
        # normal numbers through their distribution function are uniform
        numbers = torch.special.ndtr(step.draw("augment", self.samples, (self.numbers,)).double())
        noise: list[Tensor] = []

        def averaged(x0: Tensor) -> Tensor:
            if x0.ndim != 4:
                raise ConfigError(f"{type(self).__name__} looks at pictures (B, C, H, W), not {tuple(x0.shape)}")
            if self.grain and not noise:
                noise.append(step.draw("grain", self.samples, x0.shape[1:]))
            x = x0.to(at_least_float32(x0))
            views = (self.view(x, n.to(x), *(z[i].to(x) for z in noise)) for i, n in enumerate(numbers))
            return self._mean(torch.stack([objective(view) for view in views]))

        return averaged

    def _mean(self, losses: Tensor) -> Tensor:
        """(m, B) -> (B,), trimmed where all of a sample's losses are numbers: NaN is for others to see."""
        out = int(self.trim * self.samples)
        if out == 0:
            return losses.mean(dim=0)
        kept = losses.sort(dim=0).values[out : self.samples - out]
        return torch.where(losses.isnan().any(dim=0), losses.mean(dim=0), kept.mean(dim=0))


class Augmented(Views):
    """An objective whose gradient is averaged over random augmentations of the clean estimate.

        loss = (1/m) sum_i objective(view_i(x_0))

    Gradients of networks that saw clean pictures only are adversarial where they differ from view to view, and what is
    common to all views is not. Every view is mirrored, turned and shifted, in this order, then noise is added and a
    square cut out. By default: mirrored half of the time, and shifted by up to an eighth of the sides.

    Args:
        objective, samples, trim: as for `Views`: m = 8 views, none trimmed.
        flip: mirror left and right with probability 1/2.
        shift: most of a shift, as a share of the sides, uniform up to that in both directions; bilinear.
        turn: most of a turn to either side, in degrees; bilinear. What comes in from outside continues the border.
        noise: standard deviation of Gaussian noise.
        cut: side of a square somewhere within the picture that is set to 0, as a share of the sides.

    Raises:
        ConfigError: for settings out of their range, and samples that are no pictures.

    Cost: m evaluations of the objective.

    Source: Shen et al., "Understanding and Improving Training-free Loss-based Diffusion Guidance", 2403.12404,
    algorithm 1; their code has shifts of up to an eighth, sizes, colours and cuts of half the side, m = 20.
    """

    numbers = 6

    def __init__(
        self,
        objective: Callable[[Tensor], Tensor],
        samples: int = 8,
        *,
        flip: bool = True,
        shift: float = 0.125,
        turn: float = 0.0,
        noise: float = 0.0,
        cut: float = 0.0,
        trim: float = 0.0,
    ) -> None:
        super().__init__(objective, samples, trim)
        if not 0 <= shift <= 1 or not 0 <= turn <= 180 or not noise >= 0 or not 0 <= cut < 1:
            raise ConfigError(
                "Augmented takes shift from 0 to 1, turn from 0 to 180 degrees, noise of at least 0 and cut from 0 to "
                f"below 1, not shift={shift}, turn={turn}, noise={noise}, cut={cut}"
            )
        self.flip, self.shift, self.turn, self.noise, self.cut = flip, shift, turn, noise, cut
        self.grain = noise > 0

    def view(self, x: Tensor, numbers: Tensor, *noise: Tensor) -> Tensor:
        mirror, right, down, angle, *corner = numbers.unbind(dim=1)
        if self.flip:
            x = torch.where(expand(mirror < 0.5, x), x.flip(-1), x)
        if self.shift or self.turn:
            x = _moved(x, self.shift * (2 * right - 1), self.shift * (2 * down - 1), self.turn * (2 * angle - 1))
        for z in noise:
            x = x + self.noise * z
        return x * _hole(x, self.cut, *corner) if self.cut else x


def _moved(x: Tensor, right: Tensor, down: Tensor, degrees: Tensor) -> Tensor:
    """Pictures turned counter-clockwise about their middle, then shifted by shares of their sides; each (B,)."""
    height, width = x.shape[-2:]
    cos, sin = torch.deg2rad(degrees).cos(), torch.deg2rad(degrees).sin()
    # where every pixel of the view comes from, in grid_sample's units, of which a side has two
    turn = torch.stack([cos, -sin * height / width, sin * width / height, cos], dim=1).reshape(-1, 2, 2)
    move = -turn @ torch.stack([2 * right, 2 * down], dim=1)[:, :, None]
    grid = F.affine_grid(torch.cat([turn, move], dim=2), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _hole(x: Tensor, share: float, right: Tensor, down: Tensor) -> Tensor:
    """(B, 1, H, W), 0 in a square of that share of the sides and 1 elsewhere."""
    inside = []
    for place, side in ((down, x.shape[-2]), (right, x.shape[-1])):
        long = max(round(share * side), 1)
        first = (place * (side - long + 1)).floor().clamp_max(side - long)[:, None]
        at = torch.arange(side, device=x.device)
        inside.append((at >= first) & (at < first + long))
    return 1 - (inside[0][:, None, :, None] & inside[1][:, None, None, :]).to(x)


class Cutouts(Views):
    """An objective of random square crops, resized without aliasing, as pictures are guided by CLIP.

        loss = (1/m) sum_i objective(resize(crop_i(x_0)))

    The area of a crop is log-uniform between two shares of the largest square's, so that small ones are not drowned by
    large ones; its place is uniform. The resize is antialiased: a plain bilinear one folds the frequencies that it
    cannot show into those it can, and the gradient with them. It equals pillow's and torch's of the crop alone.

    Args:
        objective, samples, trim: as for `Views`: m = 8 crops, none trimmed.
        size: side of the resized crops; that of the largest square where not given.
        area: least and largest share of the largest square's area, 0 < least <= largest <= 1.
        mode: "bicubic", as CLIP was trained with, or "bilinear".

    Raises:
        ConfigError: for settings out of their range, and samples that are no pictures.

    Cost: m evaluations of the objective, in pictures of size x size.

    Source: cutouts as in K. Crowson's CLIP-guided diffusion, 2021; the distribution of their area is ours.
    """

    numbers = 3

    def __init__(
        self,
        objective: Callable[[Tensor], Tensor],
        samples: int = 8,
        *,
        size: int | None = None,
        area: tuple[float, float] = (0.1, 1.0),
        mode: Mode = "bicubic",
        trim: float = 0.0,
    ) -> None:
        super().__init__(objective, samples, trim)
        if not 0 < area[0] <= area[1] <= 1:
            raise ConfigError(f"area is two shares, 0 < least <= largest <= 1, not {area}")
        if size is not None and (isinstance(size, bool) or not isinstance(size, int | Integral) or size < 1):
            raise ConfigError(f"the size of cutouts is a positive whole number of pixels, not {size!r}")
        if mode not in FILTERS:
            raise ConfigError(f"the mode of a resize is 'bicubic' or 'bilinear', not {mode!r}")
        self.size, self.area, self.mode = None if size is None else int(size), (float(area[0]), float(area[1])), mode

    def view(self, x: Tensor, numbers: Tensor, *noise: Tensor) -> Tensor:
        corners, sides = self.boxes(numbers, x.shape[-2], x.shape[-1])
        return crops(x, corners, sides, self.size or min(x.shape[-2:]), self.mode)

    def boxes(self, numbers: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """First row and column (B, 2) and side (B,) of the crops of these numbers (B, 3), in whole pixels."""
        least, largest = map(math.log, self.area)
        short = min(height, width)
        side = (short * torch.exp((least + (largest - least) * numbers[:, 0]) / 2)).round().clamp(1, short)
        room = numbers.new_tensor([height, width]) - side[:, None]
        return (numbers[:, 1:] * (room + 1)).floor().minimum(room), side


def crops(x: Tensor, corners: Tensor, sides: Tensor, size: int, mode: Mode) -> Tensor:
    """Square crops of pictures, one each, as (B, C, size, size), antialiased.

    Args:
        x: (B, C, H, W).
        corners: first row and column of every crop, (B, 2).
        sides: of every crop, (B,), in pixels.
        size: of the result.
        mode: "bicubic" or "bilinear".
    """
    down = _weights(x.shape[-2], corners[:, 0], sides, size, mode)
    right = _weights(x.shape[-1], corners[:, 1], sides, size, mode)
    return down[:, None] @ x @ right[:, None].mT


def _weights(side: int, first: Tensor, long: Tensor, size: int, mode: Mode) -> Tensor:
    """How much each of `side` pixels counts in each of `size` resized ones, (B, size, side); rows sum to 1."""
    radius, weigh = FILTERS[mode]
    scale = (long / size)[:, None, None]
    width = scale.clamp_min(1.0)  # of the filter, in pixels: as wide as what one resized pixel covers
    pixels = torch.arange(side, dtype=long.dtype, device=long.device)
    middle = first[:, None, None] + (torch.arange(size).to(long)[None, :, None] + 0.5) * scale
    away = (pixels + 0.5 - middle) / width
    within = (pixels >= first[:, None, None]) & (pixels < (first + long)[:, None, None]) & (away.abs() < radius)
    weight = torch.where(within, weigh(away.abs()), 0)
    return weight / weight.sum(dim=2, keepdim=True)


def _triangle(away: Tensor) -> Tensor:
    return (1 - away).clamp_min(0)


def _cubic(away: Tensor) -> Tensor:
    """Keys' kernel with a = -1/2, as pillow and antialiased torch have it."""
    near = (1.5 * away - 2.5) * away**2 + 1
    far = ((-0.5 * away + 2.5) * away - 4) * away + 2
    return torch.where(away < 1, near, far)


FILTERS: dict[str, tuple[float, Callable[[Tensor], Tensor]]] = {"bicubic": (2.0, _cubic), "bilinear": (1.0, _triangle)}
"""By mode: how far the filter reaches and what it weighs at a distance, both in its own widths."""
