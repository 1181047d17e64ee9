"""Steer toward a depth map: how far away everything is."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symguide.errors import ConfigError
from symguide.objectives.base import Follower, Objective, pictures, rows_for, to_device_of
from symguide.registry import register


@register("objective", "depth")
class Depth(Objective):
    """The gap between the depth of x_0 and a reference, after each is shifted and scaled to mean 0 and deviation 1.

        d = depth(x_0),   d' = (d - mean_p d_p) / std_p d_p,   loss = mean_p (d'_p - r'_p)² / 2

    which is 1 - corr(d, r), from 0 (the same layout in depth) to 2 (far and near exchanged). Scale and shift are each
    sample's own, since most networks know depth no better; a flat sample has 1. With aligned=False depth counts as it
    is, for networks that know it in metres: mean_p (d_p - r_p)².

    Args:
        reference: depth in the terms of the network, floats (H, W) for all samples or (B, H, W) with one for each. Most
            networks give inverse depth, larger where nearer; a reference the other way around needs its sign changed.
        network: clean samples (B, C, H, W) -> depth (B, H, W) or (B, 1, H, W), such as encoders.DepthEstimator.
        aligned: whether scale and shift are free.
        preprocess: applied to samples before the network.

    Raises:
        ConfigError: for a reference that is no depth map or flat, or of another size than the network's depth.

    Cost: one evaluation of the network.

    Source: Ranftl et al., "Towards Robust Monocular Depth Estimation", 1907.01341, with mean and deviation in place of
    median and absolute deviation, so that every pixel has a gradient.

    >>> nearer_right = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    >>> Depth(nearer_right, nn.Identity())(torch.stack([3 * nearer_right + 5, -nearer_right]))
    tensor([0., 2.])
    """

    def __init__(
        self,
        reference: Tensor,
        network: nn.Module,
        aligned: bool = True,
        preprocess: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if not isinstance(reference, Tensor) or reference.ndim not in (2, 3) or not reference.is_floating_point():
            what = f"{tuple(reference.shape)} of {reference.dtype}" if isinstance(reference, Tensor) else "no tensor"
            raise ConfigError(f"a depth map is floats (H, W) or (B, H, W), not {what}")
        self.reference = reference if reference.ndim == 3 else reference[None]
        if aligned and not bool((self.reference.flatten(1).amax(1) > self.reference.flatten(1).amin(1)).all()):
            raise ConfigError("the depth map is flat, so it says nothing up to scale and shift: give another")
        self.network, self.aligned = Follower(network, preprocess=preprocess), aligned

    @classmethod
    def of(
        cls,
        picture: Tensor,
        network: nn.Module,
        aligned: bool = True,
        preprocess: Callable[[Tensor], Tensor] | None = None,
    ) -> "Depth":
        """Toward the depth that the network sees in a picture, (C, H, W) or (B, C, H, W), of the samples' size."""
        with torch.no_grad():
            depth = _map(Follower(network, preprocess=preprocess)(pictures(picture)))
        return cls(depth, network, aligned, preprocess)

    def __call__(self, x0: Tensor) -> Tensor:
        depth = _map(self.network(x0))
        wanted = rows_for(to_device_of(self.reference, depth), x0, "the depth map")
        if depth.shape != wanted.shape:
            raise ConfigError(
                f"the network's depth has shape {tuple(depth.shape[1:])}, and the depth map {tuple(wanted.shape[1:])}: "
                "both must be (H, W)"
            )
        made, wanted = depth.flatten(1), wanted.flatten(1)
        if not self.aligned:
            return (made - wanted).square().mean(dim=1)
        made, wanted = (d - d.mean(dim=1, keepdim=True) for d in (made, wanted))
        return 1 - F.cosine_similarity(made, wanted, dim=1)


def _map(depth: Tensor) -> Tensor:
    """Depth (B, H, W), also of a network that gives it a channel."""
    return depth[:, 0] if depth.ndim == 4 and depth.shape[1] == 1 else depth
