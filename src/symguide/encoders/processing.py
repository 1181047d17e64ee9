"""What an image processor of transformers does, for samples, differentiably."""

from collections.abc import Callable, Mapping
from math import floor
from typing import Any

from torch import Tensor

from symguide.errors import ConfigError
from symguide.objectives.preprocess import Mode, Preprocess, resize

MODES: Mapping[Any, Mode] = {2: "bilinear", 3: "bicubic", "bilinear": "bilinear", "bicubic": "bicubic"}
"""Of a processor's resample: pillow's numbers, torchvision's names."""

ELSE = ("do_pad", "do_flip_channel_order", "do_thumbnail", "do_align_long_axis", "rescale_offset", "crop_pct")
"""Settings that change pictures in ways which this does not know."""


class Processing:
    """The steps of a processor, with its own settings, for samples in [-1, 1] instead of pictures of 8 bits.

        resize (antialiased) -> centre crop -> (255 factor (x + 1) / 2 - mean) / std

    Equal to the processor's own output up to its rounding: that rounds to 8 bits after each of the two passes of the
    resize and cuts off what overshoots black and white, and this does neither, since both would stop gradients.

    Args:
        processor: an image processor, or a processor that has one inside: of CLIP, SegFormer, DPT and their kin, which
            resize to a size or by the shorter side, keep multiples of patches, crop the centre, scale and normalise.

    Raises:
        ConfigError: for a processor that does anything else.

    Cost: the resize.
    """

    def __init__(self, processor: Any) -> None:
        processor = getattr(processor, "image_processor", processor)

        def setting(name: str) -> Any:
            return getattr(processor, name, None)

        if setting("image_mean") is None or setting("size") is None:
            raise ConfigError(f"{type(processor).__name__} is no image processor: it has no image_mean or no size")
        if unknown := [name for name in ELSE if setting(name)]:
            raise ConfigError(f"{type(processor).__name__} has {unknown[0]} set, which this does not know: {_OWN}")
        unit = 255 * (setting("rescale_factor") if setting("do_rescale") else 1.0)
        mean, std = (setting("image_mean"), setting("image_std")) if setting("do_normalize") else (3 * [0.0], 3 * [1.0])
        self.normalise = Preprocess([value / unit for value in mean], [value / unit for value in std])
        self.size = _sides(setting("size")) if setting("do_resize") else None
        self.crop = _sides(setting("crop_size")) if setting("do_center_crop") else None
        self.multiple, self.keep_aspect = setting("ensure_multiple_of") or 1, bool(setting("keep_aspect_ratio"))
        resample = getattr(setting("resample"), "value", setting("resample"))
        if self.size is not None and resample not in MODES:
            raise ConfigError(f"{type(processor).__name__} resizes with {resample}, which this does not know: {_OWN}")
        self.mode: Mode = MODES.get(resample, "bicubic")
        if set(self.size or ()) not in (set(), {"shortest_edge"}, {"height", "width"}):
            raise ConfigError(f"{type(processor).__name__} resizes to {self.size}, which this does not know: {_OWN}")

    def __call__(self, x: Tensor) -> Tensor:
        """Samples (B, 3, H, W) in [-1, 1] -> pixel values, in at least float32."""
        if x.ndim != 4 or x.shape[1] != 3:
            raise ConfigError(f"pictures must be (B, 3, H, W) for this network, not {tuple(x.shape)}")
        if self.size is not None:
            x = resize(x, self.resized(*x.shape[-2:]), self.mode)
        if self.crop is not None:
            x = self._centre(x, self.crop["height"], self.crop["width"])
        return self.normalise(x)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """The sides that a picture is resized to, before the crop."""
        if self.size is None:
            return height, width
        if "shortest_edge" in self.size:
            short = min(height, width)
            return self.size["shortest_edge"] * height // short, self.size["shortest_edge"] * width // short
        tall, broad = self.size["height"] / height, self.size["width"] / width
        if self.keep_aspect:  # DPT: whichever factor changes the picture less
            tall = broad = broad if abs(1 - broad) < abs(1 - tall) else tall
        patches = round(tall * height / self.multiple), round(broad * width / self.multiple)
        return patches[0] * self.multiple, patches[1] * self.multiple

    def _centre(self, x: Tensor, height: int, width: int) -> Tensor:
        """As transformers cuts it: an odd margin has its larger half below and to the right (torchvision rounds)."""
        margins = x.shape[-2] - height, x.shape[-1] - width
        if min(margins) < 0:
            raise ConfigError(f"a centre of {height}x{width} cannot be cut from {x.shape[-2]}x{x.shape[-1]}: {_OWN}")
        top, left = (floor(margin / 2) for margin in margins)
        return x[..., top : top + height, left : left + width]


_OWN = "give a symguide.objectives.Preprocess of your own in its place"


def preprocessing(processor: Any) -> Callable[[Tensor], Tensor]:
    """A Preprocess as it is, and of anything else its Processing."""
    return processor if isinstance(processor, Preprocess) else Processing(processor)


def _sides(size: Any) -> dict[str, int]:
    """A processor's size, a dictionary or an object of transformers like one, without what is not set."""
    return {str(side): int(length) for side, length in dict(size).items() if length is not None}
