"""One network call of a look-ahead: its prediction, its stored input, and its graph while that is kept."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.autograd.forward_ad as fwAD
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from symguide.branch import Branch, Moment, Point, Rule
from symguide.condition import repeat_rows
from symguide.denoiser import Denoiser, Prediction
from symguide.errors import GuidanceError, SymguideError
from symguide.memory_plan import Weights
from symguide.meter import SavedBytes
from symguide.modules import lend_weights, passes_again, vjp
from symguide.schedule import Time

Require = Callable[[Tensor, Callable[[], SymguideError]], None]
"""Raises the error of the second unless all of the first is true, as `Step.require` does."""


class GuidedPredictor:
    """The prediction that sampler and look-ahead share: a denoiser with its condition and prediction guidance.

    `moment` is where a run stands, for rules that remember or draw noise. `weights` remembers what the memory plan
    "auto" has weighed. `require` is that of the step at hand, see `Step`, if there is one. `meter` is the meter of a
    run, which weighs the first graph (`graph_bytes`) and takes later ones to weigh as much for as many rows (the
    objective's graph likewise). Asking autograd about each saved tensor of each graph would cost a small network a
    tenth of its time.
    """

    def __init__(self, denoiser: Denoiser, condition: Mapping[str, Any] | None = None, guidance: Any = None) -> None:
        self.denoiser = denoiser.beside(guidance.models) if isinstance(guidance, Rule) and guidance.models else denoiser
        self.condition, self.guidance = dict(condition or {}), guidance
        self.moment: Moment | None = None
        self._nulls: dict[Any, Branch] = {}
        self.weights = Weights()
        self.require: Require | None = None
        self.meter: SavedBytes | None = None
        self.graph_bytes = self.graph_rows = 0

    @property
    def by_step(self) -> bool:
        """Whether predictions depend on the step that asks."""
        return isinstance(self.guidance, Rule) and self.guidance.by_step

    def __call__(self, x: Tensor, t: Time) -> Prediction:
        if self.guidance is None:
            return self.denoiser(x, t, **self.condition)
        if isinstance(self.guidance, Rule):
            now, nulls = self.moment, self._nulls
            return self.guidance.at(Point(self.guidance, self.denoiser, x, t, self.condition, now, nulls=nulls))
        made: Prediction = self.guidance(self.denoiser, x, t, self.condition)
        return made

    def repeated(self, k: int) -> "GuidedPredictor":
        """The same for k rows in the place of every row, those of a row together."""
        if k == 1:
            return self
        other = copy.copy(self)
        other.condition, other._nulls = repeat_rows(self.condition, k), {}
        other.moment = None if self.moment is None else self.moment.repeated(k)
        return other

    def require_same(self, before: Tensor, again: Tensor) -> None:
        """GuidanceError where a prediction that was made again, (B, ...), is another one than before.

        Within a run the step says when that is looked at: a GPU is not waited for.
        """
        same = ~((before - again).norm() > 2 * _coarsest(before, self.denoiser.dtype) ** 0.5 * before.norm())
        if self.require is not None:
            self.require(same, _said_something_else)
        elif not bool(same):
            raise _said_something_else()

    def with_graph(self, leaf: Tensor, t: Time) -> tuple[Prediction, int, Any]:
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


@dataclass
class _Graph:
    """From a call's input to its clean estimate; `held` counts its bytes, see `lend_weights` for `reentrant`."""

    leaf: Tensor
    x0: Tensor
    held: Any
    reentrant: bool

    @cached_property
    def passes_again(self) -> bool:
        return passes_again(self.x0)


class Call:
    """One network call of a program: its stored input, its prediction, and its graph while that is kept.

    `wanted` says whether the memory plan would have kept the graph from the look-ahead on.
    """

    compared = True
    """Whether a prediction that is made again is compared with what it was."""

    def __init__(self, predict: GuidedPredictor, x: Tensor, t: Time, keep: bool) -> None:
        self.predict, self.t = predict, t
        self.x = x.detach()
        self._graph: _Graph | None = None
        self.rows, self.wanted = 0, keep
        if keep:
            self.prediction = self._build()
        else:
            with torch.no_grad():
                self.prediction = predict(self.x, t)

    @classmethod
    def of(cls, predict: GuidedPredictor, t: Time, prediction: Prediction) -> "Call":
        """A call that has been made already."""
        made = cls.__new__(cls)
        made.predict, made.t, made.x, made.prediction = predict, t, prediction.x.detach(), prediction.detach()
        made._graph, made.rows, made.wanted = None, 0, False
        return made

    def _build(self) -> Prediction:
        with torch.enable_grad():
            leaf = self.x.detach().requires_grad_()
            prediction, self.rows, held = self.predict.with_graph(leaf, self.t)
            x0 = prediction.x0
            reentrant = lend_weights(x0, self.predict.denoiser.network)
        if not x0.requires_grad:
            raise _no_path()
        self._graph = _Graph(leaf, x0, held, reentrant)
        return prediction.detach()

    @property
    def kept(self) -> bool:
        """Whether the graph is held."""
        return self._graph is not None

    def free(self) -> None:
        """Drop the graph; the next vjp computes it again."""
        self._graph = None

    def vjp(self, cotangent: Tensor, again: bool = False) -> Tensor:
        """(d x_0 / d x)^T cotangent; one backward call, and a forward call where the graph was not kept.

        With `again` the graph stays, for further cotangents, where it passes them; else the next one makes it anew.
        """
        if self._graph is None:
            anew = self._build()
            if self.compared and hasattr(self, "prediction"):
                self.predict.require_same(self.prediction.value, anew.value)
        assert self._graph is not None
        graph, again = self._graph, again and self._graph.passes_again
        self._graph = graph if again else None
        self.predict.denoiser.counter.backward += self.rows
        return vjp(graph.x0, graph.leaf, cotangent, graph.reentrant, again)[0]

    def jvp(self, tangent: Tensor) -> Tensor:
        """(d x_0 / d x) tangent, by forward-mode derivatives: one forward call, in dual numbers, and no graph.

        Raises GuidanceError where a function of the network has none.
        """
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), fwAD.dual_level():  # fused attention has none
            try:
                x0 = self.predict(fwAD.make_dual(self.x, tangent), self.t).x0  # type: ignore[no-untyped-call]
            except (RuntimeError, NotImplementedError) as error:
                if not any(name in str(error) for name in ("forward AD", "forward mode AD")):
                    raise
                raise GuidanceError(
                    f"the network has no forward-mode derivative, so its Jacobian has vjp() alone ({error}): switch "
                    "reentrant or custom checkpointing off, or use attention written in torch"
                ) from error
            moved: Tensor | None = fwAD.unpack_dual(x0).tangent  # type: ignore[no-untyped-call]
        if moved is None:
            raise _no_path()
        return moved


def _no_path() -> GuidanceError:
    return GuidanceError(
        "the network's output has no gradient path to x: "
        "do not run it under torch.no_grad() or inference_mode(), or use jacobian='identity'"
    )


def _coarsest(value: Tensor, dtype: torch.dtype | None) -> float:
    """The largest rounding error of what a value was computed in: its own type, its network's or autocast's."""
    kinds, device = [value.dtype, dtype or value.dtype], value.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        kinds.append(torch.get_autocast_dtype(device))
    rounding = max(torch.finfo(kind).eps for kind in kinds)
    return max(rounding, 2.0**-10) if device == "cuda" else rounding  # a GPU may compute in TF32


def _said_something_else() -> GuidanceError:
    return GuidanceError(
        "the network, called again with what it was given before, said something else: it is random (in training "
        "mode?) or keeps state between calls, and has no gradient then; call network.eval(), or wrap it such that it "
        "is a function of (x, timestep, condition)"
    )
