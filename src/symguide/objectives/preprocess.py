"""From samples to what a network of others expects."""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from symguide.errors import ConfigError
from symguide.objectives.base import at_least_float32

Mode = Literal["bicubic", "bilinear"]


class Preprocess:
    """((x + 1) / 2, resized, - mean) / std for each channel: samples in [-1, 1] to a network's own units.

    Differentiable and per sample; computes and returns at least float32. Nothing is clamped, since a clamp has no
    gradient where guidance needs one. Style networks of two published guidance codes are fed wrongly normalised
    pictures, which is why this is a piece of its own and tested against pillow.

    Args:
        mean, std: of the network's training pictures in [0, 1], a number for each channel.
        size: None keeps the size; a number is the shorter side, with the middle square kept, as CLIP does it; a pair
            is (height, width), stretched.
        mode: of the resize, "bicubic" or "bilinear", antialiased.

    Raises:
        ConfigError: for a std that is not positive, an unknown mode, or samples with other channels.

    >>> import torch
    >>> black_and_white = torch.stack([-torch.ones(3, 4, 4), torch.ones(3, 4, 4)])
    >>> Preprocess.imagenet()(black_and_white)[:, :, 0, 0]
    tensor([[-2.1179, -2.0357, -1.8044],
            [ 2.2489,  2.4286,  2.6400]])
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        size: int | tuple[int, int] | None = None,
        mode: Mode = "bicubic",
    ) -> None:
        if len(mean) != len(std) or not all(s > 0 for s in std):
            raise ConfigError("mean and std must have a number for each channel, and those of std be positive")
        if mode not in ("bicubic", "bilinear"):
            raise ConfigError(f"the mode of a resize is 'bicubic' or 'bilinear', not {mode!r}")
        self.mean, self.std, self.size, self.mode = tuple(mean), tuple(std), size, mode

    @classmethod
    def clip(cls, size: int | tuple[int, int] | None = 224) -> "Preprocess":
        """OpenAI's CLIP, and the open ones that kept its figures; bicubic."""
        return cls((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), size)

    @classmethod
    def imagenet(cls, size: int | tuple[int, int] | None = None) -> "Preprocess":
        """Networks trained on ImageNet, such as torchvision's; bilinear."""
        return cls((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), size, "bilinear")

    def __call__(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != len(self.mean):
            raise ConfigError(f"pictures must be (B, {len(self.mean)}, H, W) for this network, not {tuple(x.shape)}")
        x = self._resize((x.to(at_least_float32(x)) + 1) / 2)
        mean, std = (x.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (x - mean) / std

    def _resize(self, x: Tensor) -> Tensor:
        if self.size is None:
            return x
        if not isinstance(self.size, int):
            return resize(x, self.size, self.mode)
        short = min(x.shape[-2:])
        height, width = (self.size * side // short for side in x.shape[-2:])
        top, left = round((height - self.size) / 2), round((width - self.size) / 2)
        return resize(x, (height, width), self.mode)[..., top : top + self.size, left : left + self.size]


def resize(x: Tensor, size: tuple[int, int], mode: Mode) -> Tensor:
    """Pictures in another size, (height, width), as pillow resizes them: antialiased, in at least float32."""
    x = x.to(at_least_float32(x))
    return x if x.shape[-2:] == size else F.interpolate(x, size, mode=mode, align_corners=False, antialias=True)
