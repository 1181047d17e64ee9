"""A scheduler's step as recipes see it."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from symguide.call import Call, GuidedPredictor
from symguide.denoiser import Denoiser, Prediction
from symguide.half import in_dtype
from symguide.pipelines.experts import Experts
from symguide.pipelines.levels import Clock, Levels
from symguide.pipelines.reading import Reading
from symguide.pipelines.record import Recorder
from symguide.pipelines.replay import Graphs, Replay
from symguide.prediction_guidance import TwoBranches
from symguide.schedule import Schedule
from symguide.step import Run, State, Step


class PipelineNetwork:
    """A pipeline's own networks, and what it makes of their passes: (passes, timestep of our schedule) -> prediction.

    `graphs` of the pipeline's own calls, where they are there, stand in for the next call.
    """

    def __init__(
        self, replay: Replay, reading: Reading, recorder: Recorder, clock: Clock, experts: Experts | None
    ) -> None:
        self.replay, self.reading, self.recorder, self.experts = replay, reading, recorder, experts
        self.clock = clock
        self.graphs: Graphs | None = None

    def __call__(self, passes: Sequence[Tensor], timestep: float) -> Tensor:
        """The pipeline's prediction of its passes at a timestep of ours."""
        t = self.clock(timestep)
        combine = self.reading.combine if self._speaks(t) else self._experts.combine(t, self.replay.passes)
        assert combine is not None
        return combine(passes)

    def passes(self, x: Tensor, t: float) -> list[Tensor]:
        """What the networks say in each of their passes at the scheduler's timestep t, in x's type."""
        network = None if self._speaks(t) else self._experts.network(t)

        def call(x: Tensor) -> Tensor:
            if self.graphs is not None:
                recorded: Tensor = AsRecorded.apply(x, self)  # type: ignore[no-untyped-call]
                return recorded
            with self.recorder.paused():
                return torch.stack(self.replay(x, t, network), dim=1)

        return list(in_dtype(call, x, self.replay.dtype).unbind(dim=1))

    def _speaks(self, t: float) -> bool:
        """Whether the network that was recorded also speaks at timestep t."""
        return self.experts is None or self._experts.network(t) is self._experts.network(self.replay.timestep)

    @property
    def _experts(self) -> Experts:
        assert self.experts is not None
        return self.experts


class AsRecorded(torch.autograd.Function):
    """What the networks said when the pipeline called them, (B, passes, ...), with the graphs of those calls."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, network: PipelineNetwork) -> Tensor:
        ctx.graphs, network.graphs = network.graphs, None
        return torch.stack(network.replay.recorded(), dim=1)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        graphs, ctx.graphs = ctx.graphs, None
        return graphs.vjp(cotangent.unbind(dim=1)), None


class PipelineDenoiser(Denoiser):
    """A denoiser that counts every pass of the pipeline's networks.

    Where passes are combined as clean estimates, that is what it predicts.
    """

    def __init__(self, network: PipelineNetwork, levels: Levels) -> None:
        self.convert = network.reading.convert
        super().__init__(network, levels.schedule, levels.predicts if self.convert is None else "x0")
        self.own = levels.predicts

    def __call__(self, x: Tensor, t: Any, **condition: Any) -> Prediction:
        assert isinstance(self.network, PipelineNetwork)
        self.counter.forward += (self.network.replay.passes - 1) * len(x)
        return super().__call__(x, t, **condition)

    def _evaluate(self, x: Tensor, t: Any, condition: Mapping[str, Any]) -> Tensor:
        assert isinstance(self.network, PipelineNetwork)
        timestep = float(self.schedule.timestep(t))  # a tensor of it would have to be waited for
        passes = [self.said(x, t, y).value for y in self.network.passes(x, self.network.clock(timestep))]
        combined: Tensor = self.network(passes, timestep)
        return self.kept(at(self.schedule, self.predicts, x, t, combined)).value

    def passes(self, x: Tensor, t: float) -> list[Prediction]:
        """The prediction of each pass."""
        assert isinstance(self.network, PipelineNetwork)
        self.counter.forward += self.network.replay.passes * len(x)
        every = self.network.passes(x, self.network.clock(float(self.schedule.timestep(t))))
        return [self.kept(self.said(x, t, self.network.reading.sign * y)) for y in every]

    def said(self, x: Tensor, t: float, value: Tensor) -> Prediction:
        """What the network said in a pass at (x, t), as a prediction."""
        prediction = at(self.schedule, self.own, x, t, value)
        return prediction if self.convert is None else prediction.with_x0(self.convert(prediction))

    def kept(self, prediction: Prediction) -> Prediction:
        """The prediction, but at places where networks are given something clean, whose clean estimate is that."""
        assert isinstance(self.network, PipelineNetwork)
        if (held := self.network.replay.held) is None:
            return prediction
        places, clean = held
        there = getattr(prediction.with_x0(clean.to(prediction.x)), prediction.space)
        return prediction.with_value(torch.where(places, there, prediction.value))


def at(schedule: Schedule, space: str, x: Tensor, t: float, value: Tensor) -> Prediction:
    """A value at (x, t) as a prediction."""
    return Prediction(x, value, space, schedule.alpha(t), schedule.sigma(t), schedule.v_weights(t))


class InPlaceOfItsOwn:
    """A rule of two branches of ours, in place of the pipeline's own combination of the same passes.

    Args:
        rule: what combines them.
        conditional: which of the two passes has the condition.
    """

    def __init__(self, rule: TwoBranches, conditional: int) -> None:
        self.rule, self.conditional = rule, conditional

    def combine(self, passes: Sequence[Prediction]) -> Prediction:
        """The one prediction of the two."""
        return self.rule.combine(passes[1 - self.conditional], passes[self.conditional])

    def __call__(self, denoiser: PipelineDenoiser, x: Tensor, t: float, condition: Mapping[str, Any]) -> Prediction:
        return self.combine(denoiser.passes(x, t))


class Known(Call):
    """A call that the pipeline itself has made; its graph is the pipeline's where that was kept."""

    compared = False  # a replay compares what it says with what was recorded

    def __init__(self, predict: GuidedPredictor, t: float, prediction: Prediction, graphs: Graphs | None) -> None:
        self.predict, self.t, self.x = predict, t, prediction.x
        self.prediction, self._graph, self.rows, self.wanted = prediction, None, 0, False
        self.graphs = graphs

    def _build(self) -> Prediction:
        graphs, self.graphs = self.graphs, None
        if graphs is None:
            return super()._build()
        denoiser = self.predict.denoiser
        before = denoiser.counter.forward
        assert isinstance(denoiser.network, PipelineNetwork)
        denoiser.network.graphs = graphs
        made = super()._build()
        denoiser.counter.forward = before  # the pipeline's call was counted when it was made
        return made


class PipelineStep(Step):
    """A step that a scheduler has made: what it gave is `stock`, and guidance changes that.

    x, t and s are in the terms of the schedule. A changed clean estimate moves what the scheduler gave by the weight
    that a straight step has for it, which is exact for first-order schedulers.

    Args:
        run, index, repeat, x: as for `Step`.
        known: the call at x.
        stock: what the scheduler made of it.
        moments: mean and standard deviation of that, asked for when a recipe needs them.
    """

    def __init__(
        self,
        run: Run,
        index: int,
        repeat: int,
        known: Call,
        stock: Tensor,
        moments: Callable[[], tuple[Tensor, float]],
    ) -> None:
        super().__init__(run, index, State(known.x), repeat)
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
