"""What stands between a pipeline's loop and its scheduler while the pipeline is guided.

All pipelines pass one point: scheduler.step(model_output, timestep, sample), where the prediction is final and the
sample is the one that it was made at. There the calls that the pipeline has just made to its networks are known, so its
prediction can be made again at any (x, t), with a graph, and given to the recipes as an ordinary denoiser.

The scheduler makes its own step of its own prediction, so that the histories of multistep schedulers are those of the
model, and the guided change is added to what it gives.
"""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from symguide.call import Call, GuidedPredictor, Weights
from symguide.denoiser import Counter, Prediction
from symguide.errors import ConfigError, GuidanceError
from symguide.loop import Cost, StepRecord
from symguide.meter import Peak
from symguide.modules import frozen
from symguide.objectives import Decoded
from symguide.per_sample import Noise
from symguide.pipelines import state
from symguide.pipelines.calls import Made, plain
from symguide.pipelines.decode import decoder
from symguide.pipelines.earlier import Earlier, clocks
from symguide.pipelines.experts import experts
from symguide.pipelines.guiders import refuse_unfit_guiders
from symguide.pipelines.levels import Clock, levels, numbers
from symguide.pipelines.modules import components, networks, offloaded, refuse_caches
from symguide.pipelines.patch import patched
from symguide.pipelines.reading import read
from symguide.pipelines.record import Recorder
from symguide.pipelines.replay import Replay
from symguide.pipelines.shown import Shown
from symguide.pipelines.slots import Slot
from symguide.pipelines.step import InPlaceOfItsOwn, Known, PipelineDenoiser, PipelineNetwork, PipelineStep, at
from symguide.prediction_guidance import TwoBranches
from symguide.run_memory import RunMemory
from symguide.step import Run, Step


@dataclass
class Record:
    """What the pipeline's last run did: a line for every step, and what it cost so far, calls for each sample."""

    trace: list[StepRecord] = field(default_factory=list)
    cost: Cost = field(default_factory=lambda: Cost(0, 0, 0.0, 0))


class _Unguided:
    """No loss guidance: the hook of every recipe, which leaves all steps as they are."""

    objective = None

    def prepare(self, run: Run) -> None: ...

    def repeats_at(self, step: Step) -> int:
        return 1

    def guide(self, step: Step) -> None: ...


class _Run:
    """One run of the pipeline: its times, and where it stands."""

    def __init__(self, times: list[float], clock: Clock, count: float) -> None:
        self.timesteps, self.earlier = clock, Earlier(clocks(count))
        self.times, place = times[:1], 0
        while place < len(times) - 1:  # a time that stands twice is where the scheduler corrects a step
            place += 2 if times[place + 1 : place + 2] == times[place + 2 : place + 3] else 1
            self.times.append(times[place])
        self.index, self.group = 0, times[0]
        self.change: Tensor | None = None
        """Of a step whose second half is still to come."""
        self.weights, self.memory = Weights(), RunMemory()
        self.slots: Sequence[Slot] = ()
        """Of the calls to come, if their graphs are wanted."""
        self.peak = 0

    @property
    def over(self) -> bool:
        """Whether its last step is made."""
        return self.index == len(self.times) - 1


class Bridge:
    """What stands between a pipeline's loop and its scheduler."""

    def __init__(
        self,
        pipe: Any,
        loss: Any,
        rule: TwoBranches | None,
        decode: bool,
        checkpoint: bool,
        seed: int,
        indices: tuple[int, ...] | None,
        on_nan: str,
    ) -> None:
        if getattr(pipe, "scheduler", None) is None:
            raise ConfigError(f"guide takes a diffusers pipeline with a scheduler, and {type(pipe).__name__} has none")
        refuse_caches(pipe)
        refuse_unfit_guiders(pipe, rule is not None)
        self.pipe, self.scheduler, self.on_nan = pipe, pipe.scheduler, on_nan
        self.seed, self.indices = seed, indices
        self.rule, self.decode, self.checkpoint = rule, decode, checkpoint
        self.loss, self.levels = copy.copy(loss or _Unguided()), levels(pipe.scheduler)
        if offloaded(pipe) and hasattr(self.loss, "memory"):
            self.loss.memory = 0  # a graph that lives while the decoder runs would lose its weights
        self.recorder = Recorder(networks(pipe))
        self.objective = self.loss.objective
        self.record, self.counter = Record(), Counter()
        self.run: _Run | None = None
        self.shown, self.rows = Shown(pipe), 0

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The scheduler's step and set_timesteps are ours inside, and its own again outside."""
        self.stock, prepare = self.scheduler.step, self.scheduler.set_timesteps

        def set_timesteps(*args: Any, **kwargs: Any) -> Any:
            self.run, self.recorder.slots = None, ()
            self.shown.begin()
            self.recorder.take()  # calls of a run that was broken off, or of a pipeline inside this one
            return prepare(*args, **kwargs)

        def step(*args: Any, **kwargs: Any) -> Any:
            with frozen(*components(self.pipe)):  # no longer: torch multiplies frozen matrices in another order
                result = self.step(*args, **kwargs)
            if self.run is not None and self.run.over:
                self.shown.end(_sample(result)[: self.rows])
            return result

        with ExitStack() as stack:
            stack.enter_context(patched(self.scheduler, step=step, set_timesteps=set_timesteps))
            if self.decode and self.objective is not None:
                stack.enter_context(self.shown.watched())
            self.recorder.attach()
            try:
                yield
            finally:
                self.recorder.detach()

    def refuse_unseen(self) -> None:
        """GuidanceError where networks were called, and this scheduler made no step of what they said."""
        if self.run is None and self.recorder.calls:
            raise GuidanceError(
                f"{type(self.pipe).__name__} made no step with its own scheduler, but with copies, so nothing was "
                "guided: this pipeline cannot be guided"
            )

    @torch.inference_mode(mode=False)
    @torch.no_grad()
    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The scheduler's own step, then the guided change of what it gave."""
        if model_output.shape != sample.shape:
            raise GuidanceError(
                "networks that also predict variances for their scheduler cannot be guided: give the pipeline one of "
                "fixed variance, such as DDIMScheduler.from_config(pipe.scheduler.config), if it runs with that"
            )
        if torch.as_tensor(timestep).numel() != 1:
            raise GuidanceError("pipelines that denoise parts of a sample at different timesteps cannot be guided")
        model_output, sample = plain(model_output), plain(sample)
        calls, began, spent = self.recorder.take(), time.perf_counter(), (self.counter.forward, self.counter.backward)
        run = self.run = self.run or self._begin(timestep)
        half = run.change is not None  # the first half of this step was guided
        rows = self.rows = len(sample) // 2 if _doubled(self.pipe, calls) else len(sample)
        t = run.times[run.index]
        x = self.levels.ours(_wide(sample[:rows]), t)

        def stock(prediction: Prediction) -> Any:
            value, place = getattr(prediction, self.levels.predicts), self.levels.state(prediction.x, t)
            both = (torch.cat([z.to(sample)] * (len(sample) // rows)) for z in (value, place))
            return self.stock(next(both), timestep, next(both), *args, **kwargs)

        def own() -> Any:  # with the pipeline's own tensors: the same to the last bit
            return self.stock(model_output, timestep, sample, *args, **kwargs)

        if half and self.rule is None:
            self.recorder.slots = run.slots
            return self._whole(own())
        before = state.kept(self.scheduler)
        predict, prediction = self._predictor(calls, x, t, _wide(model_output[:rows]), float(timestep))
        result = own() if self.rule is None else stock(prediction)
        if half:
            self.recorder.slots = run.slots
            return self._whole(result)
        replay = predict.denoiser.network.replay  # type: ignore[attr-defined]
        graphs = replay.graphs()
        held = 0 if graphs is None else graphs.held
        known: Call = Known(predict, t, prediction, graphs)
        del graphs  # known alone has them, and lets go of them
        everything = Run(predict, self._noise(x), tuple(run.times), "ddim", 1.0, self.on_nan, memory=run.memory)
        if run.index == 0:
            if self.decode and self.objective is not None:
                decoding = decoder(self.pipe, calls, self.checkpoint, replay.slots[-1])
                decoding.given(x)  # latents of a layout that is not known are refused now, not when a window begins
                self.loss.objective = Decoded(self.objective, self.shown.decoding(decoding))
            self.loss.prepare(everything)
        s, repeat = run.times[run.index + 1], 0
        while True:  # as symguide.loop's step, with the scheduler's in place of the solver's
            given = self.levels.ours(_wide(_sample(result)[:rows]), s)
            step = PipelineStep(everything, run.index, repeat, known, given, self._moments(before, stock, known, s))
            with Peak(x.device) as peak:
                guided = self.loss.guide(step)
            run.peak = max(run.peak, held + peak())
            if unmet := everything.unmet():
                raise unmet.error()
            repeat += 1
            if repeat >= self.loss.repeats_at(step):
                break
            x = step.back_in_time(given if guided is None else guided.x_s)
            known = Call(predict, x, t, keep=known.wanted)
            state.put_back(self.scheduler, before)
            result = stock(known.prediction)
        run.slots = replay.slots if known.wanted and len({id(call.network) for call in calls}) == 1 else ()
        self.recorder.slots = () if state.unfinished(self.scheduler) else run.slots
        self._note(step, guided, rows, spent, began)
        run.index += 1
        change = None if guided is None else self.levels.state(guided.x_s - given, s)
        if state.unfinished(self.scheduler):
            if repeat > 1:
                raise ConfigError(f"{type(self.scheduler).__name__} makes steps in two halves: repeats must be 1")
            run.change = torch.zeros_like(given) if change is None else change
            return result
        if getattr(self.scheduler, "order_list", None) and self.scheduler.order_list[run.index - 1] == 1:
            run.group = t
        if change is None:
            return result
        state.move_stored(self.scheduler, change.to(sample), self.levels.schedule, t, s, run.group)
        return _moved(result, change)

    def _whole(self, result: Any) -> Any:
        """The second half of a step, with the change that its first half was owed."""
        assert self.run is not None and self.run.change is not None
        change, self.run.change = self.run.change, None
        return _moved(result, change)

    def _begin(self, timestep: Any) -> _Run:
        """A new run, from the timestep that the pipeline begins at: a later one than the first for img2img."""
        times = self.levels.times(self.scheduler)
        every = numbers(self.scheduler.timesteps)
        began = getattr(self.scheduler, "begin_index", None)
        self.record.trace, self.record.cost, self.counter = [], Cost(0, 0, 0.0, 0), Counter()
        start = every.index(float(timestep)) if began is None else began
        return _Run(times[start:], self.levels.clock(self.scheduler), self.scheduler.config.num_train_timesteps)

    def _predictor(
        self, calls: list[Made], x: Tensor, t: float, made: Tensor, timestep: float
    ) -> tuple[GuidedPredictor, Prediction]:
        """The pipeline's prediction as ours, and what it is at x, by the calls that were made there."""
        assert self.run is not None
        replay = Replay(calls, x, timestep, self.run.earlier)
        passes, handed = replay.recorded(), at(self.levels.schedule, self.levels.predicts, x, t, made)
        reading = read(passes, handed, self.pipe, self.rule is not None, replay.others)
        if reading.combine is not None:
            self.run.earlier.steady(reading.combine, type(self.pipe).__name__)
        network = PipelineNetwork(replay, reading, self.recorder, self.run.timesteps, experts(self.pipe))
        denoiser = PipelineDenoiser(network, self.levels)
        denoiser.counter = self.counter
        self.counter.forward += len(x) * replay.passes
        if self.rule is None:
            predict = GuidedPredictor(denoiser)
            prediction = handed if reading.convert is None else handed.with_x0(handed.x0)
        else:
            assert reading.conditional is not None
            ours = InPlaceOfItsOwn(self.rule, reading.conditional)
            predict = GuidedPredictor(denoiser, guidance=ours)
            prediction = ours.combine([denoiser.said(x, t, reading.sign * _wide(y)) for y in passes])
        predict.weights = self.run.weights
        return predict, prediction

    def _noise(self, x: Tensor) -> Noise:
        indices = range(len(x)) if self.indices is None else self.indices
        if len(indices) != len(x):
            raise ConfigError(f"indices= names {len(indices)} samples, and the pipeline draws {len(x)}")
        return Noise(self.seed, indices, x.shape[1:], x.dtype, x.device)

    def _moments(
        self, before: dict[str, Any], stock: Callable[[Prediction], Any], known: Call, s: float
    ) -> Callable[[], tuple[Tensor, float]]:
        """Mean and standard deviation of the scheduler's step, in the schedule's terms."""

        def ask() -> tuple[Tensor, float]:
            rows = len(known.x)
            step = state.mean_and_std(self.scheduler, before, lambda: _wide(_sample(stock(known.prediction))[:rows]))
            mean, std = step
            factor = self.levels.schedule.alpha(s) if self.levels.exploded else 1.0
            return factor * mean, factor * std

        return ask

    def _note(self, step: PipelineStep, guided: Any, rows: int, spent: tuple[int, int], began: float) -> None:
        """A line of the trace, and the totals."""
        loss, length = (None, None) if guided is None else (guided.loss, guided.gradient_norm)
        forward, backward = self.counter.forward // rows, self.counter.backward // rows
        calls = forward - spent[0] // rows, backward - spent[1] // rows
        assert self.run is not None
        seconds = time.perf_counter() - began
        self.record.trace.append(StepRecord(step.index, step.t, step.s, loss, length, *calls, seconds))
        self.record.cost = Cost(forward, backward, self.record.cost.seconds + seconds, self.run.peak)


def _doubled(pipe: Any, calls: list[Made]) -> bool:
    """Whether the samples that the scheduler sees hold every sample twice, as DiT's with guidance do."""
    if type(pipe).__name__ != "DiTPipeline":
        return False
    first, second = calls[-1].args[0].chunk(2) if len(calls[-1].args[0]) % 2 == 0 else (calls[-1].args[0], None)
    return second is not None and torch.equal(first, second)


def _sample(result: Any) -> Tensor:
    """x_s of what a scheduler returns."""
    return result[0] if isinstance(result, tuple) else result.prev_sample


def _moved(result: Any, change: Tensor) -> Any:
    """What a scheduler returns, with x_s moved; changes of half as many rows are for samples that are there twice."""
    x_s = _sample(result)
    x_s = x_s + torch.cat([change.to(x_s)] * (len(x_s) // len(change)))
    if isinstance(result, tuple):
        return (x_s, *result[1:])
    moved = copy.copy(result)
    moved.prev_sample = x_s
    return moved


def _wide(x: Tensor) -> Tensor:
    """At least float32, which gradients and steps are computed in."""
    return x.detach().to(torch.promote_types(x.dtype, torch.float32))
