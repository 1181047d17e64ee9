"""Steer toward a picture set in motion."""

import torch
import torch.nn.functional as F
from torch import Tensor

from symguide.errors import ConfigError
from symguide.objectives.base import Objective, pictures, rows_for, wide

ROUNDING = 0.01
"""Differences below this, in [-1, 1], count as squares: the absolute value, smooth at zero."""


class MotionField(Objective):
    """The reference after every pixel p of it moved by flow[p]: the sample shows at p + flow[p] what it showed at p.

        loss = sum_p v_p rho(x_0[p + flow_p] - reference[p]) / sum_p v_p
        rho(r) = sqrt(r² + delta²) - delta, mean over channels;    delta = 0.01

    x_0 is read between pixels bilinearly. v_p is the mask, and 0 where p + flow_p lies outside of the picture or out of
    sight: where a pixel that moves at least one pixel farther lands on the same place, what moves being in front. What
    appears where things moved away is nobody's target and left to the model. Range 0 to about 2.

    This is the colour term of motion guidance, with the flow as given; its other term needs a network that estimates
    the flow between reference and sample, and can be added to this objective.

    Args:
        reference: (C, H, W), or (B, C, H, W) with one for each sample.
        flow: (2, H, W) or (B, 2, H, W), displacements in pixels: channel 0 to the right, channel 1 down.
        mask: (H, W) or (B, 1, H, W), in [0, 1], 1 where the reference counts; everywhere by default.

    Raises:
        ConfigError: for shapes that do not fit, or a motion that leaves nothing in sight.

    Source: Geng & Owens, Motion Guidance, 2401.18085, with its L1 made smooth and its mean over what is in sight only.

    >>> picture = torch.arange(12.0).reshape(1, 3, 4) / 12
    >>> flow = torch.zeros(2, 3, 4)
    >>> flow[0] = 1                                                                        # one pixel to the right
    >>> MotionField(picture, flow)(torch.stack([picture.roll(1, dims=2), picture])).round(decimals=4)
    tensor([0.0000, 0.0739])
    """

    def __init__(self, reference: Tensor, flow: Tensor, mask: Tensor | None = None) -> None:
        reference, flow = pictures(reference), flow if flow.ndim == 4 else flow[None]
        mask = torch.ones(1, 1, *reference.shape[-2:]) if mask is None else mask
        mask = mask if mask.ndim == 4 else mask[None, None]
        size = reference.shape[-2:]
        if (flow.shape[1:], mask.shape[1:]) != ((2, *size), (1, *size)):
            raise ConfigError(
                "the reference must be (C, H, W), the flow (2, H, W) and the mask (H, W), or (B, ...) with one for "
                f"each sample, not {tuple(reference.shape)}, {tuple(flow.shape)} and {tuple(mask.shape)}"
            )
        if bool((mask < 0).any()) or bool((mask > 1).any()):
            raise ConfigError("the mask must lie in [0, 1], 1 where the reference counts")
        flow = flow.double()
        self.reference = reference
        target = flow + torch.stack(torch.meshgrid(*map(torch.arange, size), indexing="ij")[::-1]).to(flow)
        sides = target.new_tensor(size[::-1])
        self.grid = (2 * target.movedim(1, 3) + 1) / sides - 1  # grid_sample's units under align_corners=False
        inside = ((target >= 0) & (target <= sides[:, None, None] - 1)).all(dim=1, keepdim=True)
        try:
            self.visible = mask.to(flow) * (inside & _in_front(target, flow))
        except RuntimeError:
            raise ConfigError(
                f"there are {len(flow)} flows and {len(mask)} masks: give one for all or one each"
            ) from None
        if not bool((self.visible.flatten(1).sum(dim=1) > 0).all()):
            raise ConfigError(
                "nothing is in sight: the mask is empty, or the flow moves all it selects off the picture"
            )

    def __call__(self, x0: Tensor) -> Tensor:
        x = x0.to(wide(x0))
        reference = rows_for(self.reference.to(x), x0, "the reference")
        if reference.shape != x.shape:
            raise ConfigError(f"the reference is {tuple(reference.shape[1:])}, and the samples {tuple(x.shape[1:])}")
        grid = rows_for(self.grid.to(x), x0, "the flow")
        visible = rows_for(self.visible.to(x), x0, "the mask")
        back = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
        squares = (back - reference).square()
        apart = squares / ((squares + ROUNDING**2).sqrt() + ROUNDING)  # rho, without its round-off
        return (apart.mean(dim=1, keepdim=True) * visible).flatten(1).sum(dim=1) / visible.flatten(1).sum(dim=1)


def _in_front(target: Tensor, flow: Tensor) -> Tensor:
    """(B, 1, H, W), False where a pixel that moves at least one pixel farther lands on the same pixel."""
    height, width = flow.shape[-2:]
    right, down = target.round().long().unbind(dim=1)
    outside = (right < 0) | (right >= width) | (down < 0) | (down >= height)
    place = (down * width + right).masked_fill(outside, height * width).flatten(1)
    length = flow.norm(dim=1).flatten(1)
    farthest = length.new_zeros(len(flow), height * width + 1).scatter_reduce(1, place, length, "amax")
    return (length > farthest.gather(1, place) - 1).reshape(-1, 1, height, width)
