"""Steer toward a picture set in motion."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symguide.errors import ConfigError
from symguide.objectives.base import Follower, Objective, at_least_float32, pictures, rows_for, to_device_of
from symguide.registry import register

ROUNDING = 0.01
"""Differences below this, in [-1, 1], count as squares: the absolute value, smooth at zero."""


@register("objective", "motion")
class MotionField(Objective):
    """The reference after every pixel p of it moved by flow[p]: the sample shows at p + flow[p] what it showed at p.

        loss = sum_p v_p rho(x_0[p + flow_p] - reference[p]) / sum_p v_p
        rho(r) = sqrt(r² + delta²) - delta, mean over channels;    delta = 0.01

    x_0 is read between pixels bilinearly. v_p is the mask, and 0 where p + flow_p lies outside of the picture or out of
    sight: where a pixel that moves at least one pixel farther lands on the same place, what moves being in front. What
    appears where things moved away is nobody's target and left to the model. Range 0 to about 2.

    This is the colour term of motion guidance, with the flow as given; `Motion` adds the term that needs a network to
    estimate the flow between reference and sample.

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
        target = flow + _places(flow)
        sides = target.new_tensor(size[::-1])
        self.flow = flow
        inside = ((target >= 0) & (target <= sides[:, None, None] - 1)).all(dim=1, keepdim=True)
        try:
            self.visible = mask.to(flow) * (inside & _in_front(target, flow))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            raise ConfigError(
                f"there are {len(flow)} flows and {len(mask)} masks: give one for all or one each"
            ) from None
        if not bool((self.visible.flatten(1).sum(dim=1) > 0).all()):
            raise ConfigError(
                "nothing is in sight: the mask is empty, or the flow moves all it selects off the picture"
            )

    def __call__(self, x0: Tensor) -> Tensor:
        x = x0.to(at_least_float32(x0))
        reference = rows_for(to_device_of(self.reference, x), x0, "the reference")
        if reference.shape != x.shape:
            raise ConfigError(f"the reference is {tuple(reference.shape[1:])}, and the samples {tuple(x.shape[1:])}")
        visible = rows_for(to_device_of(self.visible, x), x0, "the mask")
        apart = _rho(_warped(x, rows_for(to_device_of(self.flow, x), x0, "the flow")) - reference)
        return (apart.mean(dim=1, keepdim=True) * visible).flatten(1).sum(dim=1) / visible.flatten(1).sum(dim=1)


class Motion(Objective):
    """Motion guidance: the flow that a network sees between reference and sample is the wanted one.

        f    = flow network(reference, x_0)
        loss = flow_weight mean_p |f_p - flow_p| + colour_weight mean_p v_p rho(x_0[p + f_p] - reference[p])

    The first term, a mean over both components and all pixels, wants the motion; the second, with v and rho of
    `MotionField`, wants what moved to look as before, wherever the network says that it went, and gradients go through
    the flow of both terms. With `oracle` the colours are read along the given flow instead. The paper makes every step
    ten times (`repeats=10`) and shortens the gradient (`rules.clip`).

    Args:
        network: differentiable, (reference (B, C, H, W), x_0 (B, C, H, W)) -> flow (B, 2, H, W) in pixels from the
            first to the second, channel 0 to the right and 1 down; both in [-1, 1]. RAFT, for example, wrapped.
        reference, flow, mask: as for `MotionField`.
        flow_weight, colour_weight: of the terms, 1 and 100 in the paper's code for pictures in [0, 1], hence 50 here.
        oracle: whether colours are read along the given flow.

    Raises:
        ConfigError: as MotionField, for weights that are negative or both 0, and for a network of another output.

    Cost: one evaluation of the network and one bilinear warp.

    Source: Geng & Owens, "Motion Guidance", 2401.18085, equations 5 to 7, with its L1 of colours made smooth and over
    what is in sight (its masked mean divides by all pixels, ours by those in sight).
    """

    def __init__(
        self,
        network: Callable[[Tensor, Tensor], Tensor],
        reference: Tensor,
        flow: Tensor,
        mask: Tensor | None = None,
        *,
        flow_weight: float = 1.0,
        colour_weight: float = 50.0,
        oracle: bool = False,
    ) -> None:
        if not callable(network):
            raise ConfigError(
                f"a flow network is a callable of reference and sample -> flow, not {type(network).__name__}"
            )
        if not flow_weight >= 0 or not colour_weight >= 0 or flow_weight + colour_weight == 0:
            raise ConfigError(
                f"the weights of motion must not be negative or both 0, not {flow_weight} and {colour_weight}"
            )
        self.network: Any = Follower(network) if isinstance(network, nn.Module) else network
        self.field, self.oracle = MotionField(reference, flow, mask), oracle
        self.flow_weight, self.colour_weight = flow_weight, colour_weight

    def __call__(self, x0: Tensor) -> Tensor:
        x = x0.to(at_least_float32(x0))
        reference = rows_for(to_device_of(self.field.reference, x), x0, "the reference")
        if reference.shape != x.shape:
            raise ConfigError(f"the reference is {tuple(reference.shape[1:])}, and the samples {tuple(x.shape[1:])}")
        given = (reference, None, x) if isinstance(self.network, Follower) else (reference, x)
        seen = self.network(*given)
        if not isinstance(seen, Tensor) or seen.shape != (len(x), 2, *x.shape[2:]):
            got = tuple(seen.shape) if isinstance(seen, Tensor) else type(seen).__name__
            raise ConfigError(f"a flow network gives (B, 2, H, W) in pixels, not {got}")
        wanted = rows_for(to_device_of(self.field.flow, x), x0, "the flow")
        visible = rows_for(to_device_of(self.field.visible, x), x0, "the mask")
        apart = _rho(_warped(x, wanted if self.oracle else seen) - reference).mean(dim=1, keepdim=True)
        colour = (apart * visible).flatten(1).sum(dim=1) / visible.flatten(1).sum(dim=1)
        return self.flow_weight * (seen - wanted).abs().flatten(1).mean(dim=1) + self.colour_weight * colour


def _places(flow: Tensor) -> Tensor:
    """(2, H, W): column and row of every pixel."""
    rows, columns = (torch.arange(side, device=flow.device) for side in flow.shape[-2:])
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1]).to(flow)


def _warped(x: Tensor, flow: Tensor) -> Tensor:
    """x[p + flow_p] at every pixel p, bilinear; (B, C, H, W) and (B, 2, H, W)."""
    sides = flow.new_tensor(x.shape[:-3:-1])
    grid = (2 * (flow + _places(flow)).movedim(1, 3) + 1) / sides - 1  # grid_sample's units under align_corners=False
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _rho(difference: Tensor) -> Tensor:
    """sqrt(r² + delta²) - delta, without its round-off."""
    squares = difference.square()
    return squares / ((squares + ROUNDING**2).sqrt() + ROUNDING)


def _in_front(target: Tensor, flow: Tensor) -> Tensor:
    """(B, 1, H, W), False where a pixel that moves at least one pixel farther lands on the same pixel."""
    height, width = flow.shape[-2:]
    right, down = target.round().long().unbind(dim=1)
    outside = (right < 0) | (right >= width) | (down < 0) | (down >= height)
    place = (down * width + right).masked_fill(outside, height * width).flatten(1)
    length = flow.norm(dim=1).flatten(1)
    farthest = length.new_zeros(len(flow), height * width + 1).scatter_reduce(1, place, length, "amax")
    return (length > farthest.gather(1, place) - 1).reshape(-1, 1, height, width)
