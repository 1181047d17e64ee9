"""Systems of linear equations of samples, each sample solved by itself."""

from collections.abc import Callable

import torch
from torch import Tensor

from symguide.errors import GuidanceError
from symguide.per_sample import expand


def conjugate_gradients(
    apply: Callable[[Tensor], Tensor], b: Tensor, *, tolerance: float | None = None, iterations: int = 2000
) -> Tensor:
    """u with M u = b, where apply(u) = M u is symmetric and positive (semi-)definite, sample by sample.

        u = 0, r = p = b;   a = |r|² / <p, M p>,   u += a p,   r' = r - a M p,   p = r' + (|r'|² / |r|²) p

    Where M is singular and b in its range, u is the shortest solution. Every sample has its own numbers and its own
    end, so that none depends on its batch.

    Args:
        apply: M, from (B, ...) to (B, ...), of all samples at once.
        b: (B, ...).
        tolerance: a sample ends where |r| <= tolerance |b|; by default 100 roundings of b's type.
        iterations: at most so many.

    Raises:
        GuidanceError: where samples do not get there: b is not in the range of M, or M far from any solution.

    Cost: one call of `apply` an iteration, for all samples until the last one ends. A GPU is waited for in each.

    Source: Hestenes & Stiefel, "Methods of Conjugate Gradients for Solving Linear Systems", 1952.

    >>> conjugate_gradients(lambda u: 2 * u, torch.tensor([[1.0, 4.0]]))
    tensor([[0.5000, 2.0000]])
    """
    u, r, p, square = torch.zeros_like(b), b, b, _inner(b, b)
    goal = square * (100 * torch.finfo(b.dtype).eps if tolerance is None else tolerance) ** 2
    for _ in range(iterations):
        image = apply(p)
        curvature = _inner(p, image)
        going = (square > goal) & (curvature > 0)
        if not bool(going.any()):
            break
        a = expand(torch.where(going, square / curvature, 0.0), b)
        u, r = u + a * p, r - a * image
        shorter = torch.where(going, _inner(r, r), square)
        p = torch.where(expand(going, b), r + expand(shorter / square, b) * p, p)
        square = shorter
    if bool((square > goal).any()):
        bad = (square > goal).nonzero().flatten().tolist()
        raise GuidanceError(
            f"conjugate gradients found no solution for samples {bad[:8]} in {iterations} iterations: what is asked "
            "for is not in the map's range, or hardly; give a ridge > 0, or a larger one"
        )
    return u


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(dim=1)
