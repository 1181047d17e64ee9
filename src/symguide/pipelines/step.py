"""A scheduler's step as recipes see it."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from symguide.branch import Branch, Point, further
from symguide.call import Call, GuidedPredictor
from symguide.denoiser import Denoiser, Prediction
from symguide.errors import ConfigError
from symguide.half import in_dtype
from symguide.own_path import Move
from symguide.pipelines.ahead import Ahead
from symguide.pipelines.combine import two_passes
from symguide.pipelines.experts import Experts
from symguide.pipelines.levels import Clock, Levels
from symguide.pipelines.reading import Reading
from symguide.pipelines.record import Recorder
from symguide.pipelines.replay import Ask, Graphs, Replay
from symguide.pipelines.scheduler_call import in_at_least_float32
from symguide.schedule import Schedule
from symguide.solver import Program
from symguide.step import Run, State, Step

CONDITIONAL, UNCONDITIONAL = {"pass": "conditional"}, {"pass": "unconditional"}
"""The conditions that rules of ours can ask a pipeline for: its own passes, as it has made them."""


class PipelineNetwork:
    """A pipeline's own networks, and what it makes of their passes: (passes, timestep of our schedule) -> prediction.

    `graphs` of the pipeline's own calls, where they are there, stand in for the next call; while `made` is True what
    the pipeline was told does, without a graph.
    """

    def __init__(
        self, replay: Replay, reading: Reading, recorder: Recorder, clock: Clock, experts: Experts | None
    ) -> None:
        self.replay, self.reading, self.recorder, self.experts = replay, reading, recorder, experts
        self.clock = clock
        self.graphs: Graphs | None = None
        self.made = False

    def __call__(self, passes: Sequence[Tensor], timestep: float) -> Tensor:
        """The pipeline's prediction of its passes at a timestep of ours."""
        t = self.clock(timestep)
        combine = self.reading.combine if self._speaks(t) else self._experts.combine(t, self.replay.passes)
        assert combine is not None
        return combine(passes)

    def passes(self, x: Tensor, t: float) -> list[Tensor]:
        """What the networks say in each of their passes at the scheduler's timestep t, in x's type."""
        if self.graphs is None:
            return self.asked([Ask(index, x) for index in range(self.replay.passes)], t)
        said = in_dtype(lambda x: AsRecorded.apply(x, self), x, self.replay.dtype)  # type: ignore[no-untyped-call]
        return list(said.unbind(dim=1))

    def asked(self, asks: Sequence[Ask], t: float) -> list[Tensor]:
        """What one network says in each of these passes."""
        replay = self.replay.apart([ask.index for ask in asks])
        network = asks[0].other or (None if self._speaks(t) else self._experts.network(t))
        edits, one = [ask.edit for ask in asks], all(ask.x is asks[0].x for ask in asks)

        def call(x: Tensor) -> Tensor:
            with self.recorder.paused():
                return torch.stack(replay(x if one else x.unbind(dim=1), t, network, edits), dim=1)

        x = asks[0].x if one else torch.stack([ask.x for ask in asks], dim=1)
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
        self.own, self.null = levels.predicts, UNCONDITIONAL

    def __call__(self, x: Tensor, t: Any, **condition: Any) -> Prediction:
        assert isinstance(self.network, PipelineNetwork)
        self.counter.forward += (self.network.replay.passes - 1) * len(x)
        return super().__call__(x, t, **condition)

    def _evaluate(self, x: Tensor, t: Any, condition: Mapping[str, Any]) -> Tensor:
        assert isinstance(self.network, PipelineNetwork)
        timestep = float(self.schedule.timestep(t))  # a tensor of it would have to be waited for
        passes = [self.said(x, t, y).value for y in self.network.passes(x, self.network.clock(timestep))]
        combined: Tensor = self.network(passes, timestep)
        return self.kept(prediction_at(self.schedule, self.predicts, x, t, combined)).value

    def branches(self, point: Point, wanted: Mapping[str, Branch]) -> dict[str, Prediction]:
        """Branches of a rule of ours: the pipeline's passes with and without the condition, and edits of these.

        Those that the pipeline has made at this point are not made again; others are made in one batch where it makes
        its passes in one. Once a run it is looked at whether a pass of a batch says the same alone, for a call more.

        Raises:
            ConfigError: for what a pipeline has no place for: conditions that are not its own, other timesteps, models
                that are no networks of diffusers.
            GuidanceError: where the pipeline makes no pass without the condition, and where its passes cannot be taken
                apart.
        """
        network = self.network
        assert isinstance(network, PipelineNetwork) and isinstance(point.t, float)
        t = float(self.schedule.timestep(point.t))
        asks = {name: self._ask(point, branch) for name, branch in wanted.items()}
        said = {}
        if any(ask.plain(point.x) for ask in asks.values()) and (network.made or network.graphs is not None):
            passes = self._known(point.x, t)
            said = {name: passes[ask.index] for name, ask in asks.items() if ask.plain(point.x)}
        for other in {id(ask.other): ask.other for ask in asks.values()}.values():
            mine = [name for name, ask in asks.items() if name not in said and ask.other is other]
            mine.sort(key=lambda name: asks[name].index)
            if mine:
                self._look_whether_apart([asks[name].index for name in mine])
                self.counter.forward += len(mine) * len(point.x)
                said |= dict(zip(mine, network.asked([asks[name] for name in mine], network.clock(t)), strict=True))
        sign = network.reading.sign
        return {name: self.kept(self.said(ask.x, point.t, sign * said[name])) for name, ask in asks.items()}

    def _ask(self, point: Point, branch: Branch) -> Ask:
        """A branch as a pass of the pipeline's."""
        network, name = self.network, type(point.rule).__name__
        assert isinstance(network, PipelineNetwork) and network.reading.conditional is not None
        condition = point.condition if branch.condition is None else branch.condition
        if condition not in (CONDITIONAL, UNCONDITIONAL):
            raise ConfigError(f"in a pipeline {name} takes no conditions: a negative prompt is an argument of its call")
        if branch.timestep is not None:
            raise ConfigError(f"{name} tells the network a timestep of its own, which is not known how in a pipeline")
        other = None
        if branch.model is not None:
            other = getattr(further(point, branch.model).network, "network", None)
            if not isinstance(other, type(network.replay.calls[-1].network)):
                raise ConfigError(
                    f"in a pipeline {name} takes a network of the same class as the pipeline's, as "
                    "from_diffusers(unet, scheduler)"
                )
        index = network.reading.conditional
        if condition == UNCONDITIONAL:
            two_passes(network.replay.recorded(), network.recorder.pipe)
            index = 1 - index
        return Ask(index, point.x if branch.x is None else branch.x, branch.edit, other)

    def _known(self, x: Tensor, t: float) -> list[Tensor]:
        """The pipeline's own passes, which it has made at x."""
        network = self.network
        assert isinstance(network, PipelineNetwork)
        if network.graphs is None:
            return [in_at_least_float32(y) for y in network.replay.recorded()]
        self.counter.forward += network.replay.passes * len(x)
        return network.passes(x, network.clock(t))

    def _look_whether_apart(self, passes: Sequence[int]) -> None:
        """GuidanceError if a pass, taken out of a batch of several, says something else alone."""
        network = self.network
        assert isinstance(network, PipelineNetwork)
        replay = network.replay
        if replay.earlier.apart or not replay.batched or replay.apart(passes) is replay:
            return
        replay.earlier.apart = True
        self.counter.forward += len(replay.expected)
        with torch.no_grad():
            network.asked([Ask(passes[0], replay.expected)], replay.timestep)

    def said(self, x: Tensor, t: float, value: Tensor) -> Prediction:
        """What the network said in a pass at (x, t), as a prediction."""
        prediction = prediction_at(self.schedule, self.own, x, t, value)
        return prediction if self.convert is None else prediction.with_x0(self.convert(prediction))

    def kept(self, prediction: Prediction) -> Prediction:
        """The prediction, but at places where networks are given something clean, whose clean estimate is that."""
        assert isinstance(self.network, PipelineNetwork)
        if (held := self.network.replay.held) is None:
            return prediction
        places, clean = held
        there = getattr(prediction.with_x0(clean.to(prediction.x)), prediction.space)
        return prediction.with_value(torch.where(places, there, prediction.value))


def prediction_at(schedule: Schedule, space: str, x: Tensor, t: float, value: Tensor) -> Prediction:
    """A value at (x, t) as a prediction."""
    return Prediction(x, value, space, schedule.alpha(t), schedule.sigma(t), schedule.v_weights(t))


class PipelineCall(Call):
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
        assert isinstance(denoiser.network, PipelineNetwork)
        denoiser.network.graphs = graphs
        made = super()._build()
        if denoiser.network.graphs is None:
            denoiser.counter.forward -= denoiser.network.replay.passes * len(self.x)  # was counted when it was made
        denoiser.network.graphs = None
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
        ahead: what the scheduler is going to do, asked for by look-aheads along the run's own path.
    """

    def __init__(
        self,
        run: Run,
        index: int,
        repeat: int,
        known: Call,
        stock: Tensor,
        moments: Callable[[], tuple[Tensor, float]],
        ahead: Ahead,
    ) -> None:
        super().__init__(run, index, State(known.x), repeat)
        assert run.predict.moment is not None
        run.predict.moment.to_come = False  # it is `known`
        self._first, self._stock, self._moments = known, stock, functools.cache(moments)
        self._to_come, self._read = ahead, functools.cache(ahead.read)

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

    def own_path(self, n: int | None, solver: str = "best", after: bool = False) -> tuple[Program, list[Tensor]]:
        """The way that the pipeline will go, in n calls: the scheduler's own steps where these are all that are left.

        Fewer are `ddim` steps along the scheduler's, with its noise.
        """
        if solver == "best" and (n is None or n >= self._to_come.calls(after)):
            read = self._read(after)
            return read.program, read.inputs
        return super().own_path(n, solver, after)

    def moves(self, after: bool = False) -> Iterator[Move]:
        return iter(self._to_come.moves(after))

    def _with(self, x_s: Tensor, x0: Tensor | None) -> Tensor:
        return x_s if x0 is None else x_s + self.x0_weight * (x0 - self.prediction.x0)
