"""Steer latents by what they decode to."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from symguide.errors import ConfigError
from symguide.objectives.base import Draws, Objective, at_step


class Decoded(Objective):
    """objective(decode(z_0)): an objective on pictures, for a model whose samples are latents.

    The decoder is in the path of the gradient, as in guidance of Stable Diffusion.

    Args:
        objective: pictures (B, C, H, W) -> loss (B,).
        decode: latents -> pictures, differentiable: a denoiser's `decode`, or any callable.

    Raises:
        ConfigError: where one of the two is no callable.

    Cost: one evaluation of the decoder besides the objective's.

    >>> import torch
    >>> loss = Decoded(lambda x: x.flatten(1).sum(dim=1), lambda z: 2 * z)
    >>> loss(torch.ones(2, 3))
    tensor([6., 6.])
    """

    def __init__(self, objective: Callable[[Tensor], Tensor], decode: Callable[[Tensor], Tensor]) -> None:
        for what, thing in (("objective", objective), ("decode", decode)):
            if not callable(thing):
                raise ConfigError(f"{what} must be a callable, not {type(thing).__name__}")
        self.objective, self.decode = objective, decode

    @property
    def differentiable(self) -> Any:  # type: ignore[override]
        return getattr(self.objective, "differentiable", True)

    def at_step(self, step: Draws) -> "Decoded":
        return Decoded(at_step(self.objective, step), self.decode)

    def __call__(self, x0: Tensor) -> Tensor:
        return self.objective(self.decode(x0))
