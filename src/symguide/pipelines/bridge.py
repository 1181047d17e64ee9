"""What stands between a pipeline's loop and its scheduler while the pipeline is guided.

All pipelines pass one point: scheduler.step(model_output, timestep, sample), where the prediction is final and the
sample is the one that it was made at. There the calls that the pipeline has just made to its networks are known, so its
prediction can be made again at any (x, t), with a graph, and given to the recipes as an ordinary denoiser.

The scheduler makes its own step of its own prediction, so that the histories of multistep schedulers are those of the
model, and the guided change is added to what it gives.
"""

import copy
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from symguide.branch import Moment, Rule
from symguide.call import Call, GuidedPredictor
from symguide.denoiser import Counter, Prediction
from symguide.errors import ConfigError, GuidanceError
from symguide.loop import Cost, StepRecord, guided_step
from symguide.meter import Peak
from symguide.modules import frozen, look_again, modules_of
from symguide.objectives import Decoded
from symguide.per_sample import Noise
from symguide.pipelines import state
from symguide.pipelines.ahead import Ahead
from symguide.pipelines.calls import RecordedCall
from symguide.pipelines.decode import decoder
from symguide.pipelines.draws import Draws, mean_and_std, same_draw
from symguide.pipelines.earlier import Earlier, clocks
from symguide.pipelines.experts import experts
from symguide.pipelines.guiders import refuse_unfit_guiders
from symguide.pipelines.levels import levels, numbers
from symguide.pipelines.modules import complete, components, networks, offloaded, refuse_caches
from symguide.pipelines.patch import Patched, patched
from symguide.pipelines.reading import read
from symguide.pipelines.record import Recorder
from symguide.pipelines.replay import Replay
from symguide.pipelines.running import caller
from symguide.pipelines.runs import PipelineRun, Record, announced
from symguide.pipelines.scheduler_call import SchedulerCall, doubled, in_at_least_float32, moved, sample_of
from symguide.pipelines.schedulers import (
    draws_later,
    in_usual_terms,
    midpoint,
    only_asks,
    refuse_to_repeat,
    refuse_two_noises,
)
from symguide.pipelines.shown import Shown
from symguide.pipelines.step import (
    CONDITIONAL,
    PipelineCall,
    PipelineDenoiser,
    PipelineNetwork,
    PipelineStep,
    prediction_at,
)
from symguide.step import Guided, Run, Step

UNFIT = {
    "TextToVideoZeroPipeline": "half-way it exchanges its scheduler for a copy",
    "TextToVideoZeroSDXLPipeline": "half-way it exchanges its scheduler for a copy",
    "StableDiffusionPanoramaPipeline": "it puts its scheduler's attributes back and forth between views",
    "StableDiffusionPix2PixZeroPipeline": "in a second loop it takes gradients of its own between its network's calls",
}
"""Pipelines in which only a later step would show that they cannot be guided, and why."""


class _Unguided:
    """No loss guidance: the hook of every recipe, which leaves all steps as they are."""

    objective = None

    def prepare(self, run: Run) -> None: ...

    def repeats_at(self, step: Step) -> int:
        return 1

    def guide(self, step: Step) -> None: ...


def _with(loss: Any, **settings: Any) -> Any:
    """The same hook with other settings: a copy, as recipes never change."""
    other = copy.copy(loss)
    vars(other).update(settings)
    return other


class Bridge:
    """What stands between a pipeline's loop and its scheduler."""

    def __init__(
        self,
        pipe: Any,
        loss: Any,
        rule: Rule | None,
        decode: bool,
        checkpoint: bool,
        seed: int,
        indices: tuple[int, ...] | None,
        on_nan: str,
    ) -> None:
        refuse_scheduler(pipe)
        refuse_caches(pipe)
        refuse_unfit_guiders(pipe, rule is not None)
        self.pipe, self.scheduler, self.on_nan = pipe, pipe.scheduler, on_nan
        self.seed, self.indices = seed, indices
        self.rule, self.decode, self.checkpoint = rule, decode, checkpoint
        self.loss: Any = loss or _Unguided()
        self.levels = levels(pipe.scheduler)
        if offloaded(pipe) and hasattr(self.loss, "memory"):
            self.loss = _with(self.loss, memory=0)  # a graph that lives while the decoder runs would lose its weights
        self.recorder = Recorder(networks(pipe), pipe)
        self.objective = self.loss.objective
        further = () if rule is None else rule.models
        self.frozen = [*components(pipe), *modules_of(*(model.network for model in further))]
        self.record, self.counter = Record(), Counter()
        self.run: PipelineRun | None = None
        self.shown = Shown(pipe)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The scheduler's step and set_timesteps are ours inside, and its own again outside."""
        look_again()
        stock, prepare = self.scheduler.step, self.scheduler.set_timesteps

        def set_timesteps(*args: Any, **kwargs: Any) -> Any:
            self.run, self.recorder.slots = None, ()
            self.recorder.here()
            self.shown.begin()
            self.recorder.take()  # calls of a run that was broken off, or of a pipeline inside this one
            return prepare(*args, **kwargs)

        def step(*args: Any, **kwargs: Any) -> Any:
            if only_asks(self.pipe, kwargs):
                return stock(*args, **kwargs)
            with (
                self.recorder.paused(),  # what objectives and look-aheads call is none of the pipeline's calls
                frozen(*self.frozen),  # no longer: torch multiplies frozen matrices in another order
            ):
                return self.step(stock, args, kwargs)

        with ExitStack() as stack:
            stack.enter_context(complete(self.recorder.networks))
            stack.enter_context(patched(self.scheduler, step=step, set_timesteps=set_timesteps))
            if self.decode and self.objective is not None:
                stack.enter_context(self.shown.watched())
            self.recorder.attach()
            try:
                yield
            finally:
                self.recorder.detach()

    def refuse_unseen(self) -> None:
        """GuidanceError where the pipeline called networks for steps that this scheduler has not made.

        One step's calls may be left by a run that was broken off.
        """
        if self.recorder.owned > (0 if self.run is None else self.run.calls):
            raise GuidanceError(
                f"{type(self.pipe).__name__} made no step with its own scheduler, but with copies or others, after "
                f"{self.recorder.owned} calls of its networks, so they were not guided: this pipeline cannot be guided"
            )
        if self.run is not None and self._left_out(self.run):
            warnings.warn(
                f"{type(self.pipe).__name__} made {self.run.index} of {len(self.run.times) - 1} steps, and none of "
                f"these lies in the window {self.loss.window}: nothing was guided",
                stacklevel=4,
            )

    @torch.inference_mode(mode=False)
    @torch.no_grad()
    def step(self, stock: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The scheduler's own step, then the guided change of what it gave."""
        make = in_usual_terms(self.scheduler, stock, args, kwargs)
        sample, timestep = make.sample, self._refuse(make.handed, make.given["timestep"], make.sample)
        began, calls, run = time.perf_counter(), self.recorder.take(), self._run_at(timestep)
        run.calls, spent = max(run.calls, len(calls)), (self.counter.forward, self.counter.backward)
        rows = len(sample) // 2 if doubled(self.pipe, calls) else len(sample)
        between = None if run.change is None else midpoint(self.scheduler)
        t = run.times[run.index] if between is None else self.levels.time(between)
        call = SchedulerCall(make, self.levels, t, rows, timestep)
        if run.change is not None:
            result = self._second_half(run, call, calls)
        else:
            before = state.kept(self.scheduler)
            known, replay, result = self._observe(run, call, calls)
            step, guided, result = self._guide(run, call, known, replay, result, before)
            self._note(run, step, guided, rows, spent, began)
            result = self._give_back(run, call, step, guided, result)
        run.made += 1
        if run.over:
            self._end(run, sample_of(result)[:rows])
        return result

    def _end(self, run: PipelineRun, sample: Tensor) -> None:
        """The last step of a run is made, and gave this sample."""
        if self._left_out(run):
            raise GuidanceError(f"none of the {run.index} steps lies in the window {self.loss.window}: widen it")
        self.shown.end(sample)

    def _refuse(self, model_output: Tensor, timestep: Any, sample: Tensor) -> float:
        """The one timestep of a call of the scheduler's step; GuidanceError where the call is not understood."""
        name, times = type(self.pipe).__name__, numbers(timestep)
        if model_output.shape != sample.shape:
            raise GuidanceError(
                "networks that also predict variances for their scheduler cannot be guided: give the pipeline one of "
                "fixed variance, such as DDIMScheduler.from_config(pipe.scheduler.config), if it runs with that"
            )
        if len(set(times)) != 1:
            raise GuidanceError("pipelines that denoise parts of a sample at different timesteps cannot be guided")
        if not bool(sample.isfinite().all()):
            raise GuidanceError(
                f"the latents of {name} are not finite at the timestep {times[0]:g}, where its scheduler or "
                "guidance has led them: use another dtype or scheduler if they are so without guidance, too, and a "
                "lower scale if not"
            )
        here = threading.get_ident()
        if self.recorder.thread != here or (self.run is not None and self.run.thread != here):
            raise GuidanceError(
                f"{name} calls its networks and its scheduler in several threads: give each thread a pipeline of its "
                "own, of the same networks and another scheduler"
            )
        return times[0]

    def _run_at(self, timestep: float) -> PipelineRun:
        """The run that a step belongs to, which begins with it if none is under way.

        It may begin at a later timestep than the first, as image to image does, and end before the last, as Stable
        Diffusion XL does where a refiner goes on.
        """
        if self.run is not None and not self.run.over:
            return self.run
        every, start = numbers(self.scheduler.timesteps), getattr(self.scheduler, "begin_index", None)
        if start is None and timestep not in every:
            raise GuidanceError(
                f"{type(self.pipe).__name__} begins at the timestep {timestep:g}, which is none of its "
                "scheduler's, so its noise level is not known: this pipeline cannot be guided"
            )
        start = every.index(timestep) if start is None else start
        end = start + announced(caller(), self.scheduler, len(every) - start)
        times = self.levels.times(self.scheduler)[start : end + 1]
        known = ((0.0, 1.0),) if self.levels.exact else clocks(self.scheduler.config.num_train_timesteps)
        self.run = PipelineRun(times, start, self.levels.clock(self.scheduler), Earlier(known))
        self.record.runs.append(self.run.record)
        self.counter.forward = self.counter.backward = 0
        return self.run

    def _observe(
        self, run: PipelineRun, call: SchedulerCall, calls: list[RecordedCall]
    ) -> tuple[PipelineCall, Replay, Any]:
        """The pipeline's prediction as a call of ours, how it is made again, and what the scheduler makes of it."""
        predict, replay, prediction = self._predictor(run, call, calls)
        result = self._made(run, call, None if self.rule is None else prediction)
        run.stochastic = run.stochastic or bool(call.drawn) or draws_later(self.scheduler)
        return PipelineCall(predict, call.t, prediction, replay.graphs()), replay, result

    def _made(self, run: PipelineRun, call: SchedulerCall, prediction: Prediction | None, repeat: int = 0) -> Any:
        """What the scheduler makes of a prediction, or of the pipeline's own.

        Raises:
            GuidanceError: where a look-ahead has foreseen that it would draw other noise.
        """
        with Draws() as draws:
            result = call.own() if prediction is None else call.of(prediction)
        call.drawn, foreseen = draws.made, run.foreseen.pop((run.made, repeat), draws.made)
        if len(foreseen) != len(call.drawn) or not all(map(same_draw, foreseen, call.drawn)):
            raise GuidanceError(
                f"{type(self.pipe).__name__}, or what it is guided by, draws random numbers between its scheduler's "
                "steps, so the noise that path='own' looked ahead with is not what came: use path='ode'"
            )
        return result

    def _guide(
        self,
        run: PipelineRun,
        call: SchedulerCall,
        first: PipelineCall,
        replay: Replay,
        result: Any,
        before: dict[str, Any],
    ) -> tuple[PipelineStep, Guided | None, Any]:
        """The step as the recipe sees it, what that makes of it, and the scheduler's result, of the last repeat."""
        predict, noise, eta = first.predict, self._noise(call.x), float(run.stochastic)
        everything = Run(predict, noise, tuple(run.times), "ddim", eta, self.on_nan, self.loss, memory=run.memory)
        if run.index == 0:
            if self.objective is not None and (self.decode or self.levels.data != 1):
                self.loss = _with(self.loss, objective=Decoded(self.objective, self._seen(call, replay)))
            self.loss.prepare(everything)
        s, held = run.times[run.index + 1], 0 if first.graphs is None else first.graphs.held
        held_at = None if replay.held is None else replay.held[0]

        def make(x: Tensor, repeat: int) -> PipelineStep:
            nonlocal result
            known: Call = first
            if repeat:
                refuse_to_repeat(self.scheduler)
                predict.moment = self._moment(run, call)
                known = Call(predict, x, call.t, keep=known.wanted)
                state.put_back(self.scheduler, before)
                result = self._made(run, call, known.prediction, repeat)
            given = self._reached(call, known.prediction, result, s)
            moments = partial(self._moments, call, before, known.prediction, s)
            ahead = Ahead(self.scheduler, call, run, everything, repeat, before, known.prediction, result, held_at)
            return PipelineStep(everything, run.index, repeat, known, given, moments, ahead)

        with Peak(call.x.device) as peak:
            step, guided = guided_step(make, first.x, self.loss)
        run.peak = max(run.peak, held + peak())
        if unmet := everything.unmet():
            raise unmet.error()
        one = len({id(made.network) for made in replay.calls}) == 1
        run.slots = replay.slots if first.wanted and one else ()
        run.active = run.active or (hasattr(self.loss, "active") and self.loss.active(step))
        return step, guided, result

    def _seen(self, call: SchedulerCall, replay: Replay) -> Callable[[Tensor], Tensor]:
        """What objectives see of the schedule's clean sample: it in the pipeline's units, and decoded if asked for."""
        if not self.decode:
            return lambda x0: self.levels.state(x0, 0.0)
        decoding = decoder(self.pipe, replay.calls, self.checkpoint, replay.slots[-1])
        decoding.given(call.x)  # latents of a layout that is not known are refused now, not when a window begins
        decode = self.shown.decoding(decoding)
        return lambda x0: decode(self.levels.state(x0, 0.0))

    def _reached(self, call: SchedulerCall, prediction: Prediction, result: Any, s: float) -> Tensor:
        """x_s of what the scheduler gave; a straight step's where the network is called once more before s."""
        if midpoint(self.scheduler) is None:
            return call.given(result, s)
        schedule = self.levels.schedule
        return schedule.alpha(s) * prediction.x0 + schedule.sigma(s) * prediction.eps

    def _give_back(
        self, run: PipelineRun, call: SchedulerCall, step: PipelineStep, guided: Guided | None, result: Any
    ) -> Any:
        """What the pipeline gets: what the scheduler gave, with the guided change."""
        run.index += 1
        half = state.unfinished(self.scheduler)
        self.recorder.slots = () if half else run.slots
        change = None if guided is None else self.levels.state(guided.x_s - step.x_s(), step.s)
        if half:
            run.change = torch.zeros_like(step.x) if change is None else change
            return result
        if getattr(self.scheduler, "order_list", None) and self.scheduler.order_list[run.index - 1] == 1:
            run.group = step.t
        if change is None:
            return result
        state.move_stored(self.scheduler, change.to(call.sample), self.levels.schedule, step.t, step.s, run.group)
        return moved(result, change, last=step.s == 0)

    def _second_half(self, run: PipelineRun, call: SchedulerCall, calls: list[RecordedCall]) -> Any:
        """The second half of a step, with the change that its first half was owed."""
        assert run.change is not None
        result = self._made(run, call, None if self.rule is None else self._predictor(run, call, calls)[2])
        self.recorder.slots = run.slots
        change, run.change = run.change, None
        return moved(result, change, last=call.t == 0)

    def _predictor(
        self, run: PipelineRun, call: SchedulerCall, calls: list[RecordedCall]
    ) -> tuple[GuidedPredictor, Replay, Prediction]:
        """The pipeline's prediction as ours, by the calls that were made at x, and what it is there."""
        replay = Replay(calls, call.x, self.levels.told(call.timestep), run.earlier)
        passes = replay.recorded()
        handed = prediction_at(self.levels.schedule, self.levels.predicts, call.x, call.t, call.made)
        reading = read(passes, handed, self.pipe, self.rule is not None, replay.others)
        if reading.combine is not None:
            run.earlier.steady(reading.combine, type(self.pipe).__name__)
        network = PipelineNetwork(replay, reading, self.recorder, run.timesteps, experts(self.pipe))
        denoiser = PipelineDenoiser(network, self.levels)
        denoiser.counter = self.counter
        self.counter.forward += call.rows * replay.passes
        if self.rule is None:
            predict = GuidedPredictor(denoiser)
            prediction = denoiser.kept(handed if reading.convert is None else handed.with_x0(handed.x0))
        else:
            predict = GuidedPredictor(denoiser, CONDITIONAL, self.rule)
            predict.moment = self._moment(run, call)
            network.made = True
            prediction = predict(call.x, call.t)
            network.made = False
        predict.weights = run.weights
        return predict, replay, prediction

    def _moment(self, run: PipelineRun, call: SchedulerCall) -> Moment:
        """Where the run stands, for rules that remember; the second half of a step is none of its own."""
        half = run.change is not None
        index = run.index - half
        run.memory.begin(index)
        return Moment(self._noise(call.x), run.memory, index, call.t, to_come=not half)

    def _noise(self, x: Tensor) -> Noise:
        indices = range(len(x)) if self.indices is None else self.indices
        if len(indices) != len(x):
            raise ConfigError(f"indices= names {len(indices)} samples, and the pipeline draws {len(x)}")
        return Noise(self.seed, indices, x.shape[1:], x.dtype, x.device)

    def _moments(
        self, call: SchedulerCall, before: dict[str, Any], prediction: Prediction, s: float
    ) -> tuple[Tensor, float]:
        """Mean and standard deviation of the scheduler's step, in the schedule's terms."""
        refuse_two_noises(self.scheduler)
        if midpoint(self.scheduler) is not None:
            return self._reached(call, prediction, None, s), 0.0

        def step() -> Tensor:
            return in_at_least_float32(sample_of(call.of(prediction, like=in_at_least_float32(call.sample))))

        mean, std = mean_and_std(self.scheduler, before, step, call.sample, call.generators)
        return self.levels.ours(mean[: call.rows], s), std / self.levels.unit(s)

    def _left_out(self, run: PipelineRun) -> bool:
        """Whether steps were made, and none was in the window of a recipe that is on."""
        return run.index > 0 and not run.active and hasattr(self.loss, "active") and self.loss.scale > 0

    def _note(
        self,
        run: PipelineRun,
        step: PipelineStep,
        guided: Guided | None,
        rows: int,
        spent: tuple[int, int],
        began: float,
    ) -> None:
        """A line of the trace, and the totals."""
        loss, length = (None, None) if guided is None else (guided.loss, guided.gradient_norm)
        forward, backward = self.counter.forward // rows, self.counter.backward // rows
        calls = forward - spent[0] // rows, backward - spent[1] // rows
        seconds, record = time.perf_counter() - began, run.record
        record.trace.append(StepRecord(step.index, step.t, step.s, loss, length, *calls, seconds))
        record.cost = Cost(forward, backward, record.cost.seconds + seconds, run.peak)


def refuse_scheduler(pipe: Any) -> None:
    """ConfigError where there is no scheduler's step to stand at, or another `guide` stands there."""
    name, scheduler = type(pipe).__name__, getattr(pipe, "scheduler", None)
    if name in UNFIT:
        raise ConfigError(f"{name} cannot be guided: {UNFIT[name]}")
    if scheduler is None:
        raise ConfigError(f"guide takes a diffusers pipeline with a scheduler, and {name} has none")
    if not callable(getattr(scheduler, "step", None)):
        raise ConfigError(
            f"guide stands at a scheduler's `step`, and {type(scheduler).__name__} has none: {name} cannot be guided "
            "with it"
        )
    if isinstance(vars(scheduler).get("step"), Patched):
        raise ConfigError(
            f"the scheduler of {name} is in a `guide` already: one recipe guides at a time (losses can be added), and "
            "pipelines of the same networks need a scheduler each"
        )
