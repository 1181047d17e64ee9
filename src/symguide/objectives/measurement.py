"""Steer toward a measurement y = A x_0 + noise: inpainting, super-resolution, deblurring, and any operator of yours."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from symguide.errors import ConfigError, is_number
from symguide.objectives.base import Objective, Sum, rows_for, to_device_of
from symguide.objectives.decoded import Decoded
from symguide.objectives.operators import LinearOperator, Mask
from symguide.registry import register


@register("objective", "measurement")
class Measurement(Objective):
    """|y - A x_0|² / (2 noise²), which is -log p(y | x_0) up to a constant.

    Args:
        operator: A, from samples (B, ...) to measurements (B, ...); differentiable, linear or not.
        y: the measurement, (...) or (1, ...) for all samples, (B, ...) with one for each.
        noise: standard deviation of its noise; 1.0 leaves half the squared error.

    Raises:
        ConfigError: if noise is not positive, or A x_0 has another shape than y.

    >>> halves = Measurement(lambda x: x[:, :2], torch.zeros(1, 2), noise=0.5)
    >>> halves(torch.ones(3, 4))
    tensor([4., 4., 4.])
    """

    def __init__(self, operator: Callable[[Tensor], Tensor], y: Tensor, noise: float = 1.0) -> None:
        if not is_number(noise) or not noise > 0:
            raise ConfigError(
                f"the noise of a measurement is one positive number, not {noise!r}: use 1.0 for a plain squared error"
            )
        self.operator, self.y = operator, y
        self.noise = float(noise)

    def __call__(self, x0: Tensor) -> Tensor:
        return (self.residual(x0) / self.noise).square().flatten(1).sum(dim=1) / 2

    def residual(self, x0: Tensor) -> Tensor:
        """y - A x_0, (B, ...), in at least float32."""
        wide = torch.promote_types(x0.dtype, torch.float32)
        predicted = self.operator(x0.to(wide))
        y = to_device_of(self.y, predicted)
        y = rows_for(y[None] if y.ndim == predicted.ndim - 1 else y, x0, "the measurement y")
        if y.shape != predicted.shape:
            raise ConfigError(f"A x_0 has shape {tuple(predicted.shape[1:])}, and the measurement {tuple(y.shape[1:])}")
        return y - predicted

    @property
    def linear(self) -> LinearOperator:
        """A with its adjoint and inverses; ConfigError where it is a callable that has none."""
        if not isinstance(self.operator, LinearOperator):
            raise ConfigError(
                "this method asks for A's adjoint and inverse: measure with an objectives.LinearOperator, such as "
                "Downsample(4), or one of your own with a call and `adjoint`"
            )
        return self.operator


@register("objective", "region")
class Region(Measurement):
    """Keep a region of a reference, and let the rest be made: inpainting. Measurement with A x_0 = mask * x_0.

    Args:
        reference: what the region shows, in the shape of a sample or (B, ...).
        mask: 1 where the reference counts, 0 where it does not; broadcasts over a sample.
        noise: as in Measurement.

    Raises:
        ConfigError: for a mask that selects nothing, or shapes that do not fit.

    >>> left = Region(torch.zeros(1, 4), torch.tensor([1.0, 1.0, 0.0, 0.0]))
    >>> left(torch.ones(2, 4))
    tensor([1., 1.])
    """

    def __init__(self, reference: Tensor, mask: Tensor, noise: float = 1.0) -> None:
        if not bool((mask != 0).any()):
            raise ConfigError("the mask selects nothing: it must be 1 where the reference counts")
        try:
            y = reference * mask.to(reference)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            raise ConfigError(
                f"a mask of shape {tuple(mask.shape)} does not fit a reference of shape {tuple(reference.shape)}"
            ) from None
        super().__init__(Mask(mask), y, noise)


def measured(objective: Any) -> Measurement:
    """The measurement that an objective is, for methods that ask for its operator, y and noise.

    Raises:
        ConfigError: for any other objective, sums and decoded ones too.
    """
    if not isinstance(objective, Measurement):
        raise ConfigError(
            f"this method solves y = A x_0 + noise and needs objectives.Measurement(operator, y, noise), not a "
            f"{type(objective).__name__} (in a pipeline: of the latents, with decode=False)"
        )
    return objective


def noise_of(objective: Any) -> float | None:
    """s of an objective that is |residual|² / (2 s²), such that s sqrt(2 loss) is the residual's norm; None of others.

    Measurements have one, decoded ones too, and so has a weighted sum of measurements that all have the same noise: its
    residual is theirs in a row, each times the root of its weight.

    >>> halves = Measurement(lambda x: x[:, :2], torch.zeros(1, 2), noise=0.5)
    >>> noise_of(4 * halves + halves), noise_of(halves + (lambda x: x.sum(dim=1)))
    (0.5, None)
    """
    if isinstance(objective, Measurement):
        return objective.noise
    if isinstance(objective, Decoded):
        return noise_of(objective.objective)
    if isinstance(objective, Sum) and all(factor >= 0 for factor, _ in objective.terms):
        noises = {noise_of(term) for _, term in objective.terms}
        return noises.pop() if len(noises) == 1 else None
    return None
