"""Blurs of pictures, as linear operators with exact adjoints."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from symguide.errors import ConfigError
from symguide.objectives.base import at_least_float32, to_device_of
from symguide.objectives.operators import LinearOperator, divided

LARGEST = 1000
"""Pixels of a blur, beyond which its kernel takes gigabytes."""


class Blur(LinearOperator):
    """Circular convolution of every channel with one kernel, by FFT: (A x)[p] = sum_q kernel[q] x[p - q mod H, W].

    The circular boundary makes the adjoint exact and as simple: the correlation, a conjugate spectrum. It also lets
    a kernel be larger than the picture. The price: what leaves on one side comes back on the other.

    Args:
        kernel: (h, w), both odd, the origin in the middle; used as it is.

    Raises:
        ConfigError: if a side of the kernel is even.

    >>> move = Blur(torch.tensor([[0.0, 0.0, 1.0]]))                     # one pixel to the right
    >>> move(torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]])).round(decimals=4)
    tensor([[[[4., 1., 2., 3.]]]])
    """

    def __init__(self, kernel: Tensor) -> None:
        if kernel.ndim != 2 or not all(side % 2 for side in kernel.shape):
            raise ConfigError(f"a kernel is (h, w) with odd sides, so that it has a middle; not {tuple(kernel.shape)}")
        self.kernel = kernel

    def _wrapped(self, x: Tensor) -> Tensor:
        """The kernel on the picture's circle, its middle at 0."""
        sides = zip(self.kernel.shape, x.shape[-2:], strict=True)
        rows, columns = ((torch.arange(k, device=x.device) - k // 2) % side for k, side in sides)
        return x.new_zeros(x.shape[-2:]).index_put(
            (rows[:, None], columns), to_device_of(self.kernel, x), accumulate=True
        )

    def _spectrum(self, x: Tensor) -> Tensor:
        return torch.fft.rfft2(self._wrapped(x))

    def __call__(self, x: Tensor) -> Tensor:
        x = x.to(at_least_float32(x))
        return torch.fft.irfft2(torch.fft.rfft2(x) * self._spectrum(x), s=x.shape[-2:])

    def adjoint(self, y: Tensor) -> Tensor:
        y = y.to(at_least_float32(y))
        return torch.fft.irfft2(torch.fft.rfft2(y) * self._spectrum(y).conj(), s=y.shape[-2:])

    def pinv(self, y: Tensor) -> Tensor:
        """A^+ y; frequencies that the blur leaves no more of than rounding are 0 in it. Those close to it explode."""
        y = y.to(at_least_float32(y))
        spectrum, null = self._spectrum(y), self._null(y)
        kept = torch.where(null, 0, torch.fft.rfft2(y) / spectrum.masked_fill(null, 1))
        return torch.fft.irfft2(kept, s=y.shape[-2:])

    def solve(self, v: Tensor, ridge: float = 0.0) -> Tensor:
        v = v.to(at_least_float32(v))
        squares = self._spectrum(v).abs().square()
        return torch.fft.irfft2(divided(torch.fft.rfft2(v), squares, ridge, self._null(v)), s=v.shape[-2:])

    def singular(self, shape: Sequence[int]) -> Tensor:
        kernel = self.kernel.to(at_least_float32(self.kernel))
        values = torch.fft.fft2(self._wrapped(kernel.new_empty(tuple(shape)))).abs().flatten()
        return values.repeat(math.prod(shape[:-2])).sort(descending=True).values

    def _null(self, x: Tensor) -> Tensor:
        """Frequencies of which nothing is left, as `torch.linalg.pinv` finds them."""
        size = self._spectrum(x).abs()
        return size <= size.max() * torch.finfo(size.dtype).eps * x[0].numel()


class GaussianBlur(Blur):
    """Circular blur with exp(-|q|² / (2 sigma²)), normalised to sum 1, cut to size x size.

    Args:
        sigma: standard deviation in pixels.
        size: side of the kernel, odd; by default four standard deviations to each side.

    Raises:
        ConfigError: if sigma is not positive, is above 1000, or size is not odd.

    >>> GaussianBlur(1.5).kernel.shape
    torch.Size([13, 13])
    """

    def __init__(self, sigma: float, size: int | None = None) -> None:
        if not 0 < sigma <= LARGEST:
            raise ConfigError(f"the sigma of a blur must be positive and at most {LARGEST} pixels, not {sigma}")
        size = 2 * int(4 * sigma + 0.5) + 1 if size is None else size
        if size < 1 or size % 2 == 0:
            raise ConfigError(f"the size of a blur must be odd and positive, not {size}")
        weight = torch.exp(-0.5 * ((torch.arange(size, dtype=torch.float64) - size // 2) / sigma) ** 2)
        super().__init__(torch.outer(weight, weight) / weight.sum() ** 2)


class MotionBlur(Blur):
    """Circular blur along a line: the mean of the picture moved by s (cos angle, sin angle), |s| <= length / 2.

    The moves are bilinear, which makes the kernel's line anti-aliased and its sum exactly 1.

    Args:
        length: of the line, in pixels.
        angle: of the line, in degrees counter-clockwise from the horizontal.

    Raises:
        ConfigError: if length is not positive or above 1000.

    >>> MotionBlur(2, angle=90).kernel[:, 1]
    tensor([0.2500, 0.5000, 0.2500], dtype=torch.float64)
    """

    def __init__(self, length: float, angle: float) -> None:
        if not 0 < length <= LARGEST:
            raise ConfigError(
                f"the length of a motion blur must be positive and at most {LARGEST} pixels, not {length}"
            )
        points = 64 * math.ceil(length)
        s = length * ((torch.arange(points, dtype=torch.float64) + 0.5) / points - 0.5)
        reach = math.ceil(length / 2)
        pixels = torch.arange(-reach, reach + 1, dtype=torch.float64)[:, None]
        down, right = (
            (1 - (pixels - s * slope).abs()).clamp_min(0)
            for slope in (-math.sin(math.radians(angle)), math.cos(math.radians(angle)))
        )
        super().__init__(down @ right.T / points)
