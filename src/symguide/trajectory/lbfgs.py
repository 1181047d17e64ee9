"""L-BFGS with a backtracking line search, every row of a batch for itself.

torch.optim.LBFGS takes a batch for one long vector: its curvature, its step and its stopping then depend on which
samples happen to be in it. Here a row's iterates are the same alone and in any batch; only evaluations are shared.
"""

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from symguide.per_sample import expand, norm


class Evaluated(Protocol):
    """f at x: `value` (B,), and its gradient (B, ...), asked for once and only where the search has ended."""

    @property
    def value(self) -> Tensor: ...

    def slope(self) -> Tensor: ...


E = TypeVar("E", bound=Evaluated)


def lbfgs(
    evaluate: Callable[[Tensor], E], x: Tensor, iterations: int, history: int = 10, trials: int = 12
) -> Iterator[tuple[Tensor, E]]:
    """x and f(x), the first one included and then after every iteration, until no row can be improved.

        d = -H g,   x <- x + a d,   a = 1, 1/2, 1/4, ... until f(x + a d) <= f(x) + 1e-4 a g . d

    H is the L-BFGS inverse Hessian of the last `history` steps; pairs without positive curvature are left out. Without
    pairs H is min(1, 1 / |g|). A row that no step in `trials` improves forgets its pairs; if that was steepest descent
    already, it is done. A step may only lower f, so the last x is the best.

    Source: Nocedal & Wright, "Numerical Optimization", algorithms 3.1 and 7.4.
    """
    inverse, done = InverseHessian(history), torch.zeros(len(x), dtype=torch.bool, device=x.device)
    at = evaluate(x)
    yield x, at
    g_before = x_before = None
    for _ in range(iterations):
        g = at.slope()
        if g_before is not None and x_before is not None:
            inverse.learn(x - x_before, g - g_before)
        d = -inverse.times(g)
        slope = _dot(g, d)
        done = done | ~(slope < 0)  # also where the gradient is 0
        if bool(done.all()):
            return
        value, a = at.value, torch.where(done, 0.0, torch.ones_like(slope))
        accepted = done.clone()
        for trial in range(trials + 1):
            tried = x + expand(a, x) * d
            del at  # what a rejected trial keeps for its slope is freed before the next one is made
            at = evaluate(tried)
            accepted = accepted | (at.value <= value + 1e-4 * a * slope)
            if bool(accepted.all()):
                break
            a = torch.where(accepted, a, 0.5 * a if trial < trials - 1 else 0.0)  # the last trial is x itself
        stuck = (a == 0) & ~done
        done = done | (stuck & ~inverse.known(x))
        inverse.forget(stuck)
        x_before, g_before, x = x, g, tried
        yield x, at


class InverseHessian:
    """H of every row: its last pairs s = x' - x, y = g' - g, by the two-loop recursion."""

    def __init__(self, history: int) -> None:
        self.history = history
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []  # s, y, 1 / (s . y), which is 0 where a pair is left out

    def learn(self, s: Tensor, y: Tensor) -> None:
        curvature = _dot(s, y)
        enough = curvature > 1e-10 * norm(s).flatten() * norm(y).flatten()
        rho = torch.where(enough, 1 / torch.where(enough, curvature, 1.0), 0.0)
        self.pairs = [*self.pairs, (s, y, rho)][-self.history :]

    def forget(self, rows: Tensor) -> None:
        self.pairs = [(s, y, torch.where(rows, 0.0, rho)) for s, y, rho in self.pairs]

    def known(self, x: Tensor) -> Tensor:
        """Rows that have a pair, (B,)."""
        found = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for _, _, rho in self.pairs:
            found = found | (rho > 0)
        return found

    def times(self, g: Tensor) -> Tensor:
        """H g."""
        q, weights = g, []
        gamma = (1 / norm(g).flatten().clamp_min(torch.finfo(g.dtype).tiny)).clamp_max(1.0)
        for _, y, rho in self.pairs:
            gamma = torch.where(rho > 0, 1 / (rho * _dot(y, y)).clamp_min(torch.finfo(g.dtype).tiny), gamma)
        for s, y, rho in reversed(self.pairs):
            weights.append(rho * _dot(s, q))
            q = q - expand(weights[-1], g) * y
        q = expand(gamma, g) * q
        for (s, y, rho), weight in zip(self.pairs, reversed(weights), strict=True):
            q = q + expand(weight - rho * _dot(y, q), g) * s
        return q


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(dim=1)
