"""Linear measurements A of pictures, each with its exact adjoint A*: <A x, y> = <x, A* y>; for `Measurement`.

Each has its pseudoinverse `pinv`, and `solve`, the inverse of A A* + ridge I, in closed form where there is one. All
work on (B, C, H, W), sample by sample, and compute and return at least float32.
"""

import math
from collections.abc import Sequence
from numbers import Integral

import torch
import torch.nn.functional as F
from torch import Tensor

from symguide.errors import ConfigError, GuidanceError, number
from symguide.linear import conjugate_gradients
from symguide.objectives.base import NoInferenceTensors, at_least_float32, rows_for, to_device_of
from symguide.per_sample import Noise


class LinearOperator(NoInferenceTensors):
    """Base of linear operators: a call is A, `adjoint` is A*, `measure` adds noise; these two are all that one needs.

    >>> half = Downsample(2)
    >>> y = half.measure(torch.ones(1, 3, 8, 8), noise=0.1)
    >>> from symguide.objectives.measurement import Measurement
    >>> Measurement(half, y, noise=0.1)(torch.zeros(5, 3, 8, 8)).shape
    torch.Size([5])
    """

    def __call__(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def adjoint(self, y: Tensor) -> Tensor:
        raise NotImplementedError

    def pinv(self, y: Tensor) -> Tensor:
        """A^+ y, the shortest x of those with the least |A x - y| (Moore and Penrose).

        By conjugate gradients on A* A x = A* y, in the samples' shape, where an operator has no closed form.
        """
        return conjugate_gradients(lambda x: self.adjoint(self(x)), self.adjoint(y))

    def solve(self, v: Tensor, ridge: float = 0.0) -> Tensor:
        """(A A* + ridge I)^-1 v, (B, ...) like measurements.

        By conjugate gradients where an operator has no closed form. With ridge = 0 the v that A A* cannot make have
        none: GuidanceError; of the others it is the shortest solution.
        """
        ridge = number(ridge, "the ridge of solve", least=0)
        return conjugate_gradients(lambda u: self(self.adjoint(u)) + ridge * u, v.to(at_least_float32(v)))

    def singular(self, shape: Sequence[int]) -> Tensor:
        """Singular values of A on samples of a shape (C, H, W), the largest first: as many as A's smaller side.

        Where a `Mask` has one for each sample, (B, ...). ConfigError where an operator has no closed form.
        """
        raise ConfigError(
            f"the singular values of {type(self).__name__} have no closed form here: use solve() or pinv()"
        )

    def measure(self, x: Tensor, noise: float = 0.0, seed: int = 0) -> Tensor:
        """y = A x + noise z with z ~ N(0, I); z of row i depends on (seed, i) only. The y of `Measurement`.

        Raises:
            ConfigError: if noise is negative.
        """
        if not noise >= 0:
            raise ConfigError(f"the noise of a measurement cannot be negative, as {noise} is")
        y = self(x)
        z = Noise(seed, range(len(y)), y.shape[1:], dtype=y.dtype, device=y.device).draw("measure")
        return y + noise * z


def divided(v: Tensor, squares: Tensor, ridge: float, null: Tensor) -> Tensor:
    """v / (squares + ridge), the `solve` of an A A* that is diagonal; where it is `null` and ridge = 0, v must be 0."""
    ridge = number(ridge, "the ridge of solve", least=0)
    if ridge > 0:
        return v / (squares + ridge)
    size = torch.linalg.vector_norm(v.flatten(1), dim=1)
    lost = torch.linalg.vector_norm(torch.where(null, v, 0).flatten(1), dim=1)
    if bool((lost > 100 * torch.finfo(size.dtype).eps * size).any()):
        raise GuidanceError("solve was given measurements that A cannot make, and ridge = 0: give a ridge > 0")
    return torch.where(null, 0, v / squares.masked_fill(null, 1))


class Mask(LinearOperator):
    """A x = mask * x, its own adjoint: inpainting, where the measurement is 0 in the hole.

    Args:
        mask: 1 where the picture is seen, 0 where it is not; broadcasts over a sample, or (B, ...) with one for each.

    Raises:
        ConfigError: for a mask that selects nothing or does not fit the samples.

    >>> Mask(torch.tensor([1.0, 0.0]))(torch.full((1, 1, 2, 2), 3.0))
    tensor([[[[3., 0.],
              [3., 0.]]]])
    """

    def __init__(self, mask: Tensor) -> None:
        if not bool((mask != 0).any()):
            raise ConfigError("the mask selects nothing: it must be 1 where the picture is seen")
        self.mask = mask

    def __call__(self, x: Tensor) -> Tensor:
        x = x.to(at_least_float32(x))
        return x * self._like(x)

    def _like(self, x: Tensor) -> Tensor:
        """The mask in the shape of samples."""
        mask = to_device_of(self.mask, x)
        if mask.ndim == x.ndim:
            mask = rows_for(mask, x, "the mask")
        try:
            return mask.expand_as(x)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            raise ConfigError(
                f"a mask of shape {tuple(mask.shape)} does not fit samples of shape {tuple(x.shape)}"
            ) from None

    def adjoint(self, y: Tensor) -> Tensor:
        return self(y)

    def pinv(self, y: Tensor) -> Tensor:
        y = y.to(at_least_float32(y))
        mask = self._like(y)
        return torch.where(mask == 0, 0, y / mask.masked_fill(mask == 0, 1))

    def solve(self, v: Tensor, ridge: float = 0.0) -> Tensor:
        v = v.to(at_least_float32(v))
        mask = self._like(v)
        return divided(v, mask.square(), ridge, mask == 0)

    def singular(self, shape: Sequence[int]) -> Tensor:
        mask = self.mask.to(at_least_float32(self.mask))
        rows = mask.shape[:1] if mask.ndim == len(shape) + 1 else ()
        return mask.expand(*rows, *shape).abs().flatten(len(rows)).sort(descending=True).values


class Downsample(LinearOperator):
    """Means of factor x factor blocks: super-resolution. The adjoint spreads every number evenly over its block.

    Raises:
        ConfigError: if the factor is not a positive whole number, or does not divide height and width.

    >>> Downsample(2)(torch.arange(4.0).reshape(1, 1, 2, 2))
    tensor([[[[1.5000]]]])
    """

    def __init__(self, factor: int) -> None:
        if not (isinstance(factor, int | Integral) and factor >= 1):
            raise ConfigError(f"the factor of Downsample must be a positive whole number, not {factor!r}")
        self.factor = int(factor)

    def __call__(self, x: Tensor) -> Tensor:
        if any(side % self.factor for side in x.shape[-2:]):
            raise ConfigError(f"pictures of {x.shape[-2]} x {x.shape[-1]} have no whole blocks of {self.factor}")
        return F.avg_pool2d(x.to(at_least_float32(x)), self.factor)

    def adjoint(self, y: Tensor) -> Tensor:
        spread = y.to(at_least_float32(y)).repeat_interleave(self.factor, dim=-2).repeat_interleave(self.factor, dim=-1)
        return spread / self.factor**2

    def pinv(self, y: Tensor) -> Tensor:
        return self.factor**2 * self.adjoint(y)

    def solve(self, v: Tensor, ridge: float = 0.0) -> Tensor:
        return v.to(at_least_float32(v)) / (self.factor**-2 + number(ridge, "the ridge of solve", least=0))

    def singular(self, shape: Sequence[int]) -> Tensor:
        return torch.full((math.prod(shape) // self.factor**2,), 1 / self.factor)


class CompressedSensing(LinearOperator):
    """round(ratio d) random numbers of a sample of d: A = R H D, with orthonormal rows, A A* = I.

    D flips signs at random, H is the orthonormal Hartley transform (real, symmetric, its own inverse, for every d), R
    keeps random rows. That measures as well as a dense random matrix up to logarithms (Krahmer & Ward, 1009.0744), in
    O(d) memory and O(d log d) time, where a dense matrix of a 256 x 256 picture would take gigabytes.

    Args:
        shape: of a sample, (C, H, W).
        ratio: numbers kept, in (0, 1] of all; at least one.
        seed: of signs and rows.

    Raises:
        ConfigError: if ratio is not in (0, 1], or the samples have another shape.

    >>> CompressedSensing((3, 8, 8), ratio=0.25)(torch.ones(2, 3, 8, 8)).shape
    torch.Size([2, 48])
    """

    def __init__(self, shape: Sequence[int], ratio: float, seed: int = 0) -> None:
        if not 0 < ratio <= 1:
            raise ConfigError(f"the ratio of CompressedSensing must be in (0, 1], not {ratio}")
        self.shape, d = tuple(shape), math.prod(shape)
        generator = torch.Generator().manual_seed(seed)
        self.signs = 2 * torch.randint(2, (d,), generator=generator) - 1
        self.rows = torch.randperm(d, generator=generator)[: max(1, round(ratio * d))]

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.shape:
            raise ConfigError(f"CompressedSensing measures samples of {self.shape}, not of {tuple(x.shape[1:])}")
        x = x.to(at_least_float32(x)).flatten(1)
        return _hartley(x * to_device_of(self.signs, x))[:, to_device_of(self.rows, x, torch.long)]

    def adjoint(self, y: Tensor) -> Tensor:
        y = y.to(at_least_float32(y))
        full = y.new_zeros(len(y), math.prod(self.shape)).index_copy(1, to_device_of(self.rows, y, torch.long), y)
        return (_hartley(full) * to_device_of(self.signs, y)).reshape(-1, *self.shape)

    def pinv(self, y: Tensor) -> Tensor:
        return self.adjoint(y)

    def solve(self, v: Tensor, ridge: float = 0.0) -> Tensor:
        return v.to(at_least_float32(v)) / (1 + number(ridge, "the ridge of solve", least=0))

    def singular(self, shape: Sequence[int]) -> Tensor:
        return torch.ones(len(self.rows))


def _hartley(x: Tensor) -> Tensor:
    f = torch.fft.fft(x, norm="ortho")
    return f.real - f.imag
