"""The Jacobian J = d x_0 / d x_t of a look-ahead: J^T v and J v as often as a method asks.

`lookahead_gradient` needs one J^T v, and frees each network graph behind it. Methods for inverse problems solve linear
systems with J, and conjugate gradients ask for it 5 to 50 times: here the graphs of all calls stay until it is closed.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from symguide.call import Call, GuidedPredictor
from symguide.condition import expand_condition
from symguide.denoiser import Denoiser
from symguide.errors import ConfigError, GuidanceError
from symguide.kept_graphs import KeptGraphs
from symguide.lookahead import checked_program, read_backwards, record, run
from symguide.modules import refuse_training
from symguide.schedule import Time
from symguide.solver import Grid, Program


class Jacobian:
    """A look-ahead x_t -> x_0 of n calls and its Jacobian J at x_t, exact for the discretised map.

        vjp(v) = J^T v,  the program read backwards        vjp and jvp take and give (B, ...), sample by sample
        jvp(v) = J v,    the program read forwards on v

    For a perfect one-call look-ahead J is symmetric up to a factor: J = alpha / sigma² Cov[x_0 | x_t].

    Attributes:
        x0: the clean estimate (B, ...).

    Cost per sample: n forward calls when it is made, but for the sampler's own; n backward calls each vjp; n forward
    calls each jvp, in dual numbers, each of which takes several times as long as a plain one. Memory: the graphs of n
    calls. A graph with functions written in Python (others' checkpoints, torch.compile) is made anew for each vjp: n
    forward calls more.
    """

    def __init__(self, predict: GuidedPredictor, x: Tensor, program: Program, first: Call | None = None) -> None:
        kept = KeptGraphs("fast", predict, program, x)
        self.x0, calls = record(kept, [x], program, first)
        self.first = calls[0]
        self.first.wanted = False  # a graph that others make passes once
        self._program, self._calls = program, calls

    @torch.inference_mode(mode=False)
    def vjp(self, v: Tensor) -> Tensor:
        """J^T v. Raises ConfigError for another shape than x_0's, GuidanceError where it is closed."""
        return read_backwards(self._program, self._open(v), v.to(self.x0), again=True)[0]

    @torch.inference_mode(mode=False)
    def jvp(self, v: Tensor) -> Tensor:
        """J v. Raises as `vjp`, and GuidanceError where a function of the network has no forward-mode derivative."""
        calls = iter(self._open(v))
        return run(self._program, [v.to(self.x0)], lambda tangent, t: next(calls).jvp(tangent))

    def _open(self, v: Tensor) -> list[Call]:
        if not self._calls:
            raise GuidanceError("this Jacobian is closed: ask it inside its `with` block")
        if v.shape != self.x0.shape:
            raise ConfigError(f"this Jacobian takes vectors of shape {tuple(self.x0.shape)}, not {tuple(v.shape)}")
        return self._calls

    def close(self) -> None:
        """Frees the graphs; the first call's too, which the sampler goes on using without."""
        for call in self._calls:
            call.free()
        self._calls = []

    def __enter__(self) -> "Jacobian":
        return self

    def __exit__(self, *failure: Any) -> None:
        self.close()


@contextmanager
def linearise(
    denoiser: Denoiser,
    x: Tensor,
    t: Time,
    n: int = 1,
    solver: str = "best",
    grid: str | Grid | None = None,
    *,
    condition: Mapping[str, Any] | None = None,
    prediction: Any = None,
) -> Iterator[Jacobian]:
    """The `Jacobian` of `lookahead` at x, open inside a `with` block.

    Args:
        denoiser, x, t, n, solver, grid, condition, prediction: as for `lookahead`.

    Raises:
        ConfigError: n < 1, t outside (0, 1], unknown names.
        GuidanceError: a network without gradients.

    Cost: see `Jacobian`.

    >>> from symguide import GaussianDenoiser
    >>> denoiser, x = GaussianDenoiser(torch.zeros(2), torch.eye(2)), torch.ones(3, 2)
    >>> with linearise(denoiser, x, 0.5) as ahead:
    ...     back, forth = ahead.vjp(x), ahead.jvp(x)
    >>> torch.allclose(back, denoiser.schedule.alpha(0.5) * x), torch.allclose(back, forth)
    (True, True)
    """
    with torch.inference_mode(mode=False):
        x = x.clone() if x.is_inference() else x
        refuse_training(denoiser.network)
        denoiser = denoiser.differentiable()
        predict = GuidedPredictor(denoiser, expand_condition(condition, len(x), x.device), prediction)
        program = checked_program(denoiser, x, t, n, solver, grid)
    with denoiser.frozen():
        with torch.inference_mode(mode=False):
            made = Jacobian(predict, x, program)
        with made:
            yield made
