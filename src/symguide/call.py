"""One network call of a look-ahead: its prediction, its stored input, and its graph while that is kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from symguide.denoiser import Denoiser, Prediction
from symguide.errors import GuidanceError
from symguide.memory import Forecast
from symguide.meter import SavedBytes


@dataclass
class Weights:
    """Bytes that one call and the objective save for backward, once the memory plan "auto" has weighed them."""

    graph: int | None = None
    objective: int | None = None

    def forecast(self, n: int, states: int) -> Forecast:
        """Of n calls; what is not weighed yet counts nothing."""
        return Forecast(n, self.graph or 0, self.graph or 0, self.objective or 0, states)


class GuidedPredictor:
    """The prediction that sampler and look-ahead share: a denoiser with its condition and prediction guidance.

    `weights` remembers what the memory plan "auto" has weighed. `meter` is the meter of a run, which weighs the first
    graph (`graph_bytes`) and takes later ones to weigh as much for as many rows (the objective's graph likewise).
    Asking autograd about each saved tensor of each graph would cost a small network a tenth of its time.
    """

    def __init__(self, denoiser: Denoiser, condition: Mapping[str, Any] | None = None, guidance: Any = None) -> None:
        self.denoiser, self.condition, self.guidance = denoiser, dict(condition or {}), guidance
        self.weights = Weights()
        self.meter: SavedBytes | None = None
        self.graph_bytes = self.graph_rows = 0

    def __call__(self, x: Tensor, t: float) -> Prediction:
        if self.guidance is None:
            return self.denoiser(x, t, **self.condition)
        return self.guidance(self.denoiser, x, t, self.condition)

    def with_graph(self, leaf: Tensor, t: float) -> tuple[Prediction, int, Any]:
        """The prediction, the rows that the network was given, and what counts its graph's bytes while it is kept."""
        counter, meter = self.denoiser.counter, self.meter
        before = counter.forward
        if meter is None or not meter.innermost:
            return self(leaf, t), counter.forward - before, None
        if not self.graph_rows:
            live = meter.live
            prediction = self(leaf, t)
            self.graph_bytes, self.graph_rows = meter.live - live, counter.forward - before
            return prediction, self.graph_rows, None
        with meter.paused():
            prediction = self(leaf, t)
        rows = counter.forward - before
        return prediction, rows, meter.hold(self.graph_bytes * rows // self.graph_rows)


class Call:
    """One network call of a program: its stored input, its prediction, and its graph while that is kept.

    `wanted` says whether the memory plan would have kept the graph from the look-ahead on.
    """

    def __init__(self, predict: GuidedPredictor, x: Tensor, t: float, keep: bool) -> None:
        self.predict, self.t, self.device = predict, t, x.device
        self.x = x.detach()
        self._graph: tuple[Tensor, Tensor, Any] | None = None
        self.rows, self.wanted = 0, keep
        if keep:
            self.prediction = self._build()
        else:
            with torch.no_grad():
                self.prediction = predict(self.x, t)

    def _build(self) -> Prediction:
        with torch.enable_grad():
            leaf = self.x.to(self.device).requires_grad_()
            prediction, self.rows, held = self.predict.with_graph(leaf, self.t)
            x0 = prediction.x0
        if not x0.requires_grad:
            raise GuidanceError(
                "the network's output has no gradient path to x: "
                "do not run it under torch.no_grad() or inference_mode(), or use jacobian='identity'"
            )
        self._graph = leaf, x0, held
        return prediction.detach()

    @property
    def kept(self) -> bool:
        """Whether the graph is held."""
        return self._graph is not None

    def free(self) -> None:
        """Drop the graph; the next vjp computes it again."""
        self._graph = None

    def offload(self) -> None:
        """Move the stored input to the CPU until the sweep needs it."""
        self.x = self.x.to("cpu")

    def vjp(self, cotangent: Tensor) -> Tensor:
        """(d x_0 / d x)^T cotangent; one backward call, and a forward call where the graph was not kept."""
        if self._graph is None:
            self._build()
        assert self._graph is not None
        (leaf, x0, _), self._graph = self._graph, None
        self.predict.denoiser.counter.backward += self.rows
        return torch.autograd.grad(x0, leaf, cotangent)[0]


def weighed(predict: GuidedPredictor, x: Tensor, t: float) -> Call:
    """A call whose graph is kept and weighed."""
    with SavedBytes() as saved:
        made = Call(predict, x, t, keep=True)
    predict.weights.graph = saved.live
    return made
