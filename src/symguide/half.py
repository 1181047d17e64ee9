"""Gradients through networks in half precision: kept from vanishing, exactly.

float16 has no numbers below 6e-8, and the gradient of a mean over a picture's pixels is smaller than that. So the
cotangent of every sample is brought to a largest entry between 1 and 2 by a power of two before it enters the network,
and what comes out is divided by it again: no digit changes, and a sample's gradient still does not depend on its batch.

Source: loss scaling of Micikevicius et al., "Mixed Precision Training", 1710.03740, section 3.2, dynamic here by
construction.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from symguide.per_sample import expand


def in_dtype(call: Callable[[Tensor], Tensor], x: Tensor, dtype: torch.dtype) -> Tensor:
    """call(x) computed in another type, the result in x's own; through float16 with scaled cotangents.

    Args:
        call: row i of its result depends on row i of x.
        x: (B, ...).
        dtype: of what `call` is given.

    Cost: through float16, two passes over x and two over the result in the backward sweep.

    >>> x = torch.ones(2, 3, dtype=torch.float32, requires_grad=True)
    >>> y = 1e-9 * in_dtype(torch.cos, x, torch.float16)
    >>> torch.autograd.grad(y.sum(), x)[0].abs().min().item() > 0
    True
    """

    def there_and_back(x: Tensor) -> Tensor:
        return call(x.to(dtype)).to(x.dtype)

    if dtype != torch.float16 or x.dtype == dtype:
        return there_and_back(x)
    factors: list[Tensor] = []
    return _Leave.apply(there_and_back(_Enter.apply(x, factors)), factors)  # type: ignore[no-untyped-call]


class _Enter(torch.autograd.Function):
    """x on its way in; the gradient, on its way out, is divided by what `_Leave` multiplied with."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factors: list[Tensor]) -> Tensor:
        ctx.factors = factors
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient / expand(ctx.factors[-1], gradient), None


class _Leave(torch.autograd.Function):
    """The result on its way out; its cotangent, on its way in, is scaled."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, factors: list[Tensor]) -> Tensor:
        ctx.factors = factors
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        largest = cotangent.detach().flatten(1).abs().amax(dim=1)
        _, exponent = torch.frexp(largest)  # 0 where there is no gradient: the factor is 2 there, and nothing changes
        factor = torch.ldexp(torch.ones_like(largest), 1 - exponent)
        ctx.factors[:] = [factor]
        return cotangent * expand(factor, cotangent), None
