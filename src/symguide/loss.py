"""The loss at clean samples, its gradient there, and what is said where one of them cannot be used."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from symguide.errors import GuidanceError
from symguide.modules import vjp

Objective = Callable[[Tensor], Tensor]
"""Clean samples (B, ...) -> loss (B,)."""
Cotangent = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Clean samples x_0 (B, ...) -> loss (B,) and what is to be carried back from x_0, (B, ...)."""


def evaluate(objective: Objective, x0: Tensor) -> tuple[Tensor, Tensor]:
    """Loss (B,) with its graph, and the clean estimate (B, ...) that the graph begins at.

    Raises GuidanceError where the loss is not (B,) or has no gradient path to the sample.
    """
    with torch.enable_grad():
        leaf = x0.detach().requires_grad_()
        loss = objective(leaf)
    if not isinstance(loss, Tensor) or loss.shape != (len(x0),):
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise GuidanceError(
            f"an objective must return one loss per sample, shape ({len(x0)},), and this one returned {got}: "
            "reduce over all dimensions but the first"
        )
    if not loss.requires_grad:
        raise GuidanceError(
            "the loss has no gradient path to the sample (detach, no_grad, argmax or a rule?): "
            "guide by loss with a differentiable objective, or by particles with a black-box one"
        )
    return loss, leaf


def value_and_gradient(objective: Objective, x0: Tensor) -> tuple[Tensor, Tensor]:
    """Loss (B,) and its gradient at the clean estimate (B, ...), the objective's graph freed; raises as `evaluate`."""
    loss, leaf = evaluate(objective, x0)
    return loss.detach(), vjp(loss, leaf, torch.ones_like(loss))[0]


@dataclass(frozen=True)
class GradientOf:
    """The cotangent of an objective: its gradient. Equal for equal objectives."""

    objective: Objective

    def __call__(self, x0: Tensor) -> tuple[Tensor, Tensor]:
        return value_and_gradient(self.objective, x0)


def finite(loss: Tensor, gradient_norm: Tensor) -> Tensor:
    """Whether loss and gradient are numbers, for every sample, (B,)."""
    return (loss - loss) + (gradient_norm - gradient_norm) == 0  # inf - inf and NaN - NaN are NaN


def require_finite(loss: Tensor, gradient_norm: Tensor) -> None:
    """GuidanceError that names the samples whose loss or gradient is NaN or infinite, both (B,)."""
    if not bool(finite(loss, gradient_norm).all()):  # one look at the device, as a rule
        raise not_finite(loss, gradient_norm)


def not_finite(loss: Tensor, gradient_norm: Tensor) -> GuidanceError:
    """The error of those that are not `finite`."""
    what, values = ("gradient", gradient_norm) if bool(torch.isfinite(loss).all()) else ("loss", loss)
    bad = (~torch.isfinite(values)).nonzero().flatten().tolist()
    return GuidanceError(
        f"the {what} is not finite for samples {bad[:8]}: lower the scale, check the objective at "
        "this noise level, or pass on_nan='skip' to leave such samples unguided for the step"
    )
