"""Networks of small pictures that look at larger ones."""

from collections.abc import Collection
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from symguide.errors import ConfigError

_LOOK = ("attribute", "features", "image", "maps")
"""Methods whose first argument is pictures."""


class Averaged(nn.Module):
    """A network for pictures of one side, given larger ones: they are averaged over blocks of pixels first.

    All methods of the network are this one's too. What comes out as a picture, such as a segmenter's logits, is
    repeated over the blocks.

    Args:
        network: takes (B, C, side, side).
        side: that it knows; pictures are squares of a multiple of it.
        shapes: of the pictures (C, H, W) that it may be shown; any of such sides where not given. Shown others it would
            answer all the same, and the answer mean nothing.

    Raises:
        ConfigError: when called with pictures of other sides or shapes.

    >>> import torch
    >>> largest = nn.AdaptiveMaxPool2d(1)
    >>> Averaged(largest, 2)(torch.eye(4)[None, None]).item()
    0.5
    """

    def __init__(self, network: nn.Module, side: int, shapes: Collection[tuple[int, ...]] = ()) -> None:
        super().__init__()
        self.network, self.side, self.shapes = network, side, tuple(map(tuple, shapes))

    def forward(self, x: Tensor, *rest: Any) -> Any:
        """network(x averaged, *rest)."""
        seen = self._seen(x)
        out, factor = self.network(seen, *rest), x.shape[-1] // self.side
        whole = isinstance(out, Tensor) and factor > 1 and out.shape[2:] == seen.shape[2:]
        return F.interpolate(out, scale_factor=float(factor), mode="nearest") if whole else out

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            member = getattr(super().__getattr__("network"), name)
        return (lambda x, *rest: member(self._seen(x), *rest)) if name in _LOOK else member

    def _seen(self, x: Tensor) -> Tensor:
        if self.shapes and tuple(x.shape[1:]) not in self.shapes:
            raise ConfigError(
                f"this network knows samples of shape {' and '.join(map(str, self.shapes))}, not {tuple(x.shape[1:])}: "
                "give a network that was trained for yours, or resize them in preprocess="
            )
        if x.ndim != 4 or x.shape[2] != x.shape[3] or x.shape[3] % self.side or not x.shape[3]:
            raise ConfigError(
                f"this network takes squares whose sides are a multiple of {self.side} pixels, not {tuple(x.shape)}"
            )
        return x if x.shape[3] == self.side else F.avg_pool2d(x, x.shape[3] // self.side)
