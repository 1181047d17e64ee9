"""Steer toward a layout: what every pixel shows."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symguide.errors import ConfigError
from symguide.objectives.base import Follower, Objective, required, rows_for, to_device_of
from symguide.registry import register

ANY = -1


@register("objective", "segmentation")
class Segmentation(Objective):
    """The mean over the mask's pixels of -log p(class of the pixel | x_0), by a segmentation network.

    Args:
        mask: the class of every pixel, integers (H, W) for all samples or (B, H, W) with one for each; -1 is "any".
        network: clean samples (B, ...) -> logits (B, K, H, W), such as encoders.Segmenter.
        preprocess: applied to samples before the network.

    Raises:
        ConfigError: without a network, for a mask of another shape or kind, with classes that the network has not, or
            that says nothing.

    Cost: one evaluation of the network.

    Source: Bansal et al., "Universal Guidance", 2302.07121; FreeDoM, 2303.09833.

    >>> import torch
    >>> halves = Segmentation(torch.tensor([[0, -1]]), nn.Identity())      # logits (B, 2, 1, 2) stand for samples
    >>> halves(torch.tensor([[[[9.0, 0.0]], [[-9.0, 0.0]]]])).round(decimals=3)
    tensor([0.])
    """

    def __init__(
        self, mask: Tensor, network: nn.Module | None = None, preprocess: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        if mask.ndim not in (2, 3) or mask.is_floating_point() or mask.is_complex():
            raise ConfigError(f"a mask is integers (H, W) or (B, H, W), not {tuple(mask.shape)} of {mask.dtype}")
        mask = (mask if mask.ndim == 3 else mask[None]).long()
        if not mask.numel() or not bool((mask != ANY).flatten(1).any(dim=1).all()):
            raise ConfigError("the mask says nothing: it must give at least one pixel of each sample a class")
        self.mask, self._least, self._most = mask, int(mask.min()), int(mask.max())
        self.network = Follower(required(network, self, "segmentation", "mask"), preprocess=preprocess)

    def __call__(self, x0: Tensor) -> Tensor:
        logits: Tensor = self.network(x0)
        mask = rows_for(to_device_of(self.mask, x0, torch.long), x0, "the mask")
        if logits.ndim != 4 or logits.shape[2:] != mask.shape[1:]:
            raise ConfigError(
                f"the network's logits have shape {tuple(logits.shape[1:])}, and the mask {tuple(mask.shape[1:])}: "
                "they must be (K, H, W) and (H, W)"
            )
        if self._least < ANY or self._most >= logits.shape[1]:
            raise ConfigError(
                f"the mask has classes {self._least} to {self._most}, and the network 0 to {logits.shape[1] - 1} "
                f"({ANY} is any)"
            )
        losses = F.cross_entropy(logits, mask, ignore_index=ANY, reduction="none")
        return losses.flatten(1).sum(dim=1) / (mask != ANY).flatten(1).sum(dim=1)
