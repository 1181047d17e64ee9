"""A scheduler's step as recipes see it."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from symguide.denoiser import Denoiser, Prediction
from symguide.half import in_dtype
from symguide.lookahead import Call, GuidedPredictor
from symguide.pipelines.combine import Combine
from symguide.pipelines.experts import Experts
from symguide.pipelines.record import Recorder, Replay
from symguide.step import Run, Step


class PipelineNetwork:
    """A pipeline's own prediction as a network of ours: (x, timestep) -> prediction."""

    def __init__(self, replay: Replay, combine: Combine, recorder: Recorder, experts: Experts | None) -> None:
        self.replay, self.combine, self.recorder, self.experts = replay, combine, recorder, experts

    def __call__(self, x: Tensor, timestep: Tensor) -> Tensor:
        t, network, combine = float(timestep[0]), None, self.combine
        if self.experts is not None and self.experts.network(t) is not self.experts.network(self.replay.timestep):
            network, combine = self.experts.network(t), self.experts.combine(t, self.replay.passes)

        def call(narrow: Tensor) -> Tensor:
            with self.recorder.paused():
                return combine([y.to(x.dtype) for y in self.replay(narrow, t, network)])

        return in_dtype(call, x, self.replay.dtype)


class PipelineDenoiser(Denoiser):
    """A denoiser that counts every pass of the pipeline's networks."""

    def __call__(self, x: Tensor, t: Any, **condition: Any) -> Prediction:
        assert isinstance(self.network, PipelineNetwork)
        self.counter.forward += (self.network.replay.passes - 1) * len(x)
        return super().__call__(x, t, **condition)


class Known(Call):
    """A call that the pipeline itself has made."""

    def __init__(self, predict: GuidedPredictor, t: float, prediction: Prediction) -> None:
        self.predict, self.t, self.device, self.x = predict, t, prediction.x.device, prediction.x
        self.prediction, self._graph, self.rows = prediction, None, 0


class PipelineStep(Step):
    """A step that a scheduler has made: what it gave is `stock`, and guidance changes that.

    x, t and s are in the terms of the schedule. A changed clean estimate moves what the scheduler gave by the weight
    that a straight step has for it, which is exact for first-order schedulers.

    Args:
        run, index, repeat, x: as for `Step`.
        known: the pipeline's own prediction at x.
        stock: what the scheduler made of it.
        moments: mean and standard deviation of that, asked for when a recipe needs them.
    """

    def __init__(
        self,
        run: Run,
        index: int,
        repeat: int,
        known: Known,
        stock: Tensor,
        moments: Callable[[], tuple[Tensor, float]],
    ) -> None:
        super().__init__(run, index, repeat, known.x, None)
        self._first, self._stock, self._moments = known, stock, functools.cache(moments)

    @property
    def std(self) -> float:
        return self._moments()[1]

    @property
    def noise(self) -> Tensor:
        mean, std = self._moments()
        return (self._stock - mean) / std if std > 0 else torch.zeros_like(mean)

    def mean(self, x0: Tensor | None = None) -> Tensor:
        return self._with(self._moments()[0], x0)

    def x_s(self, x0: Tensor | None = None) -> Tensor:
        return self._with(self._stock, x0)

    def _with(self, x_s: Tensor, x0: Tensor | None) -> Tensor:
        return x_s if x0 is None else x_s + self.x0_weight * (x0 - self.prediction.x0)
