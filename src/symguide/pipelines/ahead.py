"""The steps that a scheduler is still to make, read as a program, with the noise that they are going to draw.

A scheduler's step is linear, number by number, in the sample, the model output, what is stored of earlier steps, and
noise:

    x_s = a x_t + b x_0 + sum_k h_k stored_k + sum_k c_k z_k

So a step of tensors of K numbers, of which each of these is another unit vector, gives all coefficients at once: in its
K numbers. The scheduler makes all of its remaining steps in this way, whatever its formulas are, and is put back. Its
noise is drawn ahead, from copies of the generators that it is handed.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from symguide.denoiser import Prediction
from symguide.errors import GuidanceError
from symguide.lookahead import run as run_program
from symguide.own_path import Move, clean_estimate
from symguide.pipelines import state
from symguide.pipelines.draws import Drawn, Draws, Instead, whole
from symguide.pipelines.runs import PipelineRun, ToMake, ToMove
from symguide.pipelines.scheduler_call import SchedulerCall, in_at_least_float32, sample_of
from symguide.pipelines.schedulers import draws_later
from symguide.solver import Builder, Program, noising
from symguide.step import Run

STEADY = {
    *("model_output", "timestep", "sample", "generator", "return_dict", "order", "eta", "use_clipped_model_output"),
    *("s_churn", "s_tmin", "s_tmax", "s_noise"),
}
"""Arguments of a scheduler's step that are the same in all steps of a run, or that we know."""
INSTEAD = "use another scheduler, or path='ode'"


class Read(NamedTuple):
    """What a scheduler is going to do, see `Step.own_path`; each move is of a call, or leads back before it."""

    program: Program
    inputs: list[Tensor]
    moves: list[ToMove]


@dataclass(frozen=True)
class Ahead:
    """What a scheduler is going to do from a step of a run on, the step's own call first.

    Attributes:
        scheduler: which has made the step.
        call: the step's.
        run: of the pipeline.
        course: the same, as recipes see it.
        repeat: of the step.
        before: the scheduler's state before the step, by `state.kept`.
        prediction: the step's.
        result: what the scheduler gave.
        held: the places of frames that are given, whose clean estimate is not the scheduler's matter.
    """

    scheduler: Any
    call: SchedulerCall
    run: PipelineRun
    course: Run
    repeat: int
    before: dict[str, Any]
    prediction: Prediction
    result: Any
    held: Tensor | None

    def calls(self, after: bool) -> int:
        """Network calls that are left, with the step's own, or `after` it."""
        return sum(1 for _ in self._to_make(after)) + (self.run.every[-1] > 0)

    def _to_make(self, after: bool = False) -> Iterator[ToMake]:
        """The scheduler's calls from the step's own on, with all repeats, or from x_s on."""
        run = self.run
        repeats = max(self._repeats(run.index), self.repeat + 1)
        for place in range(run.made, len(run.parts)):
            if run.parts[place] == run.index:
                yield from (ToMake(place, run.index, k) for k in range(self.repeat + after, repeats))
        for place, index in enumerate(run.parts):
            if index > run.index:
                yield from (ToMake(place, index, k) for k in range(self._repeats(index)))

    def _repeats(self, index: int) -> int:
        return self.course.repeats(index) if self.run.parts.count(index) == 1 else 1

    def moves(self, after: bool = False) -> list[Move]:
        """See `Step.moves`; read once in a run, as they do not change."""
        run = self.run
        here = run.index, self.repeat
        if not run.moves:
            run.moves = self.read().moves
        run.moves = [(to, move) for to, move in run.moves if to[1:] >= here]
        return [move for to, move in run.moves if to[1:] > here or not (after or move.back)]

    def read(self, after: bool = False) -> Read:
        """The rest of the run from x_t on, or from x_s: its program, that one's inputs beside x, and its moves.

        Raises:
            GuidanceError: for schedulers whose steps, or whose noise, cannot be known ahead.
        """
        self._refuse(after)
        if after:
            self.read()  # which looks whether the scheduler is read rightly
        now, make = state.kept(self.scheduler), list(self._to_make(after))
        try:
            drawn = self._drawn(now)
            noises = [self._noise(drawn[each.place, each.repeat]) for each in make]
            made = self._read(now, make, noises, after)
        finally:
            state.put_back(self.scheduler, now)
        if not after:
            self._check(made)
        return made

    def _refuse(self, after: bool) -> None:
        scheduler, given = self.scheduler, self.call.step.given
        named = {name for name, value in given.items() if not (value is None or isinstance(value, dict))}
        further = {name for value in given.values() if isinstance(value, dict) for name in value}
        why = None
        if hasattr(scheduler, "noise_sampler"):
            why = "draws noise that is a function of the level"
        elif draws_later(scheduler) or hasattr(scheduler, "sigmas_interpol"):
            why = "calls the network between its own times"
        elif named - STEADY or further - (STEADY - {"generator"}) or "old_pred_original_sample" in given:
            why = "is handed more than predictions and samples, and what that will be later is not known"
        elif after and state.unfinished(scheduler):
            why = "has made half of this step"
        if why is not None:
            name = type(scheduler).__name__
            raise GuidanceError(f"{name} {why}, so path='own' does not know its steps ahead: {INSTEAD}")

    def _drawn(self, now: dict[str, Any]) -> dict[tuple[int, int], list[Drawn]]:
        """What each call draws: the step's own has drawn already, those to come draw it from copies of generators."""
        (_, *later), foreseen = self._to_make(), self.run.foreseen
        if any((each.place, each.repeat) not in foreseen for each in later):
            foreseen.clear()
            sample, given = torch.zeros_like(self.call.sample), self._copies()
            device = sample.device
            state.put_back(self.scheduler, now)
            begin = self.before
            with torch.random.fork_rng([] if device.type == "cpu" else [device], device_type=_forked(device)):
                for place, _, repeat in later:
                    if repeat:
                        state.put_back(self.scheduler, begin)
                    else:
                        begin = state.kept(self.scheduler)
                    with Draws() as draws:
                        self.call.step(sample, sample, timestep=self._timestep(place), **given)
                    foreseen[place, repeat] = draws.made
        return {**foreseen, (self.run.made, self.repeat): self.call.drawn}

    def _copies(self) -> dict[str, Any]:
        """The generators among the step's arguments, by name, copied as they are now."""
        copies: dict[int, torch.Generator] = {}

        def copied(generator: torch.Generator) -> torch.Generator:
            if id(generator) not in copies:
                copies[id(generator)] = torch.Generator(generator.device).set_state(generator.get_state())
            return copies[id(generator)]

        found: dict[str, Any] = {}
        for name, value in self.call.step.given.items():
            if isinstance(value, torch.Generator):
                found[name] = copied(value)
            elif isinstance(value, list):
                found[name] = [copied(one) for one in value]
        return found

    def _noise(self, drawn: Sequence[Drawn]) -> list[Tensor]:
        noises = whole(drawn, self.call.sample)
        if noises is None:
            raise GuidanceError(
                f"{type(self.scheduler).__name__} draws other numbers than white noise, so path='own' does not know "
                f"what they do: {INSTEAD}"
            )
        return [noise[: self.call.rows].to(self.prediction.x) for noise in noises]

    def _timestep(self, place: int) -> Any:
        """What the scheduler is told in its call of that number, as the pipeline tells it."""
        given = self.call.step.given["timestep"]
        if place == self.run.made:
            return given
        value = self.scheduler.timesteps[self.run.start + place]
        if isinstance(given, Tensor):
            return torch.as_tensor(value).to(given).reshape([1] * given.ndim)
        return type(given)(value)

    def _read(
        self, now: dict[str, Any], make: Sequence[ToMake], noises: Sequence[Sequence[Tensor]], after: bool
    ) -> Read:
        """The scheduler's calls, made of unit vectors; `now` is its state after the step."""
        scheduler, levels, times = self.scheduler, self.call.levels, self.course.times
        x = self._reached() if after else self.prediction.x
        again = after and bool(make) and make[0].step == self.run.index  # from x_s back in time, with what it had then
        begin = now if after and not again else self.before
        state.put_back(scheduler, begin)
        if not again:
            self._move_stored(-x, after)
        stored = [in_at_least_float32(value[: self.call.rows]).to(x) for value in _stored(scheduler, self.call.sample)]
        travels = [self._travel(each) for each in make]
        inputs, places = list(stored), list[tuple[list[int], int]]()
        for each, travel in zip(noises, travels, strict=True):
            more = [*each, *([] if travel is None else [travel])]
            places.append((list(range(1 + len(inputs), 1 + len(inputs) + len(each))), len(inputs) + len(more)))
            inputs += more
        built = Builder(1 + len(inputs))
        unit = _Units(x, built.inputs + 3 * len(make) + 1)
        state.put_back(scheduler, begin)
        _store(scheduler, self.call.sample, [unit(1 + k) for k in range(len(stored))])
        if not again:
            self._move_stored(unit(0), after)
        node, moves, entering = 0, list[ToMove](), state.kept(scheduler)
        for to, own, (slots, travelled), travel in zip(make, noises, places, travels, strict=True):
            place, index, _ = to
            if travel is None:
                entering = state.kept(scheduler)
            else:
                kept, std = noising(levels.schedule, times[index + 1], times[index])
                node = built.linear((kept, node), (std, travelled))
                drawn = partial(_same, travel)
                moves.append((to, Move(times[index + 1], times[index], kept, std, drawn, "travel")))
                state.put_back(scheduler, entering)
            t, s = self.run.every[place : place + 2]
            made = self._unit_prediction(unit(node), unit(built.predict(node, t)), t)
            with Instead([unit(slot) for slot in slots]):
                result = self.call.step(levels.handed(made, t), levels.state(made.x, t), timestep=self._timestep(place))
            weights = unit.weights(levels.ours(sample_of(result), s))
            node = built.linear(*((c, k) for k, c in enumerate(weights)))
            if self.run.parts[place + 1 : place + 2] != [index]:  # else the step's second half is to come
                moves.append((to, self._move(index, [weights[slot] for slot in slots], own)))
        if (t := times[-1]) > 0:  # the run ends with noise, and its clean estimate there is what objectives see
            built.predict(node, t)
            end = ToMake(len(self.run.parts), self.course.steps, 0)
            moves.append((end, clean_estimate(t)))
        return Read(built.program(), inputs, moves)

    def _travel(self, to: ToMake) -> Tensor | None:
        """The noise of the time travel before a call, if there is one."""
        begin = self.repeat if to.step == self.run.index else 0
        return self.course.noise.draw("travel", to.step, to.repeat - 1) if to.repeat > begin else None

    def _reached(self) -> Tensor:
        return self.call.given(self.result, self.course.times[self.run.index + 1])

    def _unit_prediction(self, x: Tensor, x0: Tensor, t: float) -> Prediction:
        schedule = self.call.levels.schedule
        return Prediction(x, x0, "x0", schedule.alpha(t), schedule.sigma(t), schedule.v_weights(t))

    def _move_stored(self, x: Tensor, after: bool) -> None:
        """Moves what is stored of the path along with x, as a guided change is."""
        times, index, group = self.run.times, self.run.index + after, self.run.group
        if index == 0:
            return
        if after and getattr(self.scheduler, "order_list", None) and self.scheduler.order_list[index - 1] == 1:
            group = times[index - 1]
        levels, s = self.call.levels, times[index]
        change = levels.state(x, s)
        if len(x) == self.call.rows < len(self.call.sample):
            change = torch.cat([change] * (len(self.call.sample) // self.call.rows))
        state.move_stored(self.scheduler, change, levels.schedule, times[index - 1], s, group)

    def _move(self, index: int, weights: Sequence[float], noises: Sequence[Tensor]) -> Move:
        """A step as `own_path.legs` take it, by what its noise does."""
        schedule, (t, s) = self.call.levels.schedule, self.course.times[index : index + 2]
        std = math.hypot(*weights)

        def noise() -> Tensor:
            return torch.stack([c / std * z for c, z in zip(weights, noises, strict=True)]).sum(dim=0)

        kept = math.sqrt(max(schedule.sigma(s) ** 2 - std**2, 0.0)) / schedule.sigma(t)
        return Move(t, s, kept, std, noise)

    def _check(self, made: Read) -> None:
        """GuidanceError unless the step that is made already is what was read of it."""
        prediction, first = self.prediction, Program(made.program.inputs, made.program.nodes[:2])
        read = run_program(first, [prediction.x, *made.inputs], lambda x, t: prediction.x0)
        gap = read - self.call.given(self.result, self.run.every[self.run.made + 1])
        if self.held is not None:
            gap = gap.masked_fill(self.held, 0.0)
        dtype = self.call.sample.dtype if self.call.sample.dtype.itemsize < 4 else torch.float32
        if not bool(gap.norm() <= 2 * torch.finfo(dtype).eps ** 0.5 * read.norm()):
            name, config = type(self.scheduler).__name__, self.scheduler.config
            clips = [setting for setting in ("clip_sample", "thresholding") if getattr(config, setting, False)]
            other = f"make it with {clips[0]}=False, or path='ode'" if clips else INSTEAD
            raise GuidanceError(
                f"what {name} makes of a prediction is not linear in it and in what it has stored, so path='own' "
                f"cannot read its steps ahead: {other}"
            )


class _Units:
    """Unit vectors of so many numbers, (1, ..., 1, numbers), on the device of samples.

    They are of a size that a scheduler that clips would clip.
    """

    size = 2.0**16

    def __init__(self, x: Tensor, numbers: int) -> None:
        dtype = torch.float32 if x.device.type == "mps" else torch.float64
        self.zeros = torch.zeros([1] * (x.ndim - 1) + [numbers], dtype=dtype, device=x.device)

    def __call__(self, k: int) -> Tensor:
        made = self.zeros.clone()
        made[..., k] = self.size
        return made

    def weights(self, made: Tensor) -> list[float]:
        """How much of each unit there is in what was made of them."""
        return [value / self.size for value in made.flatten().tolist()]


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _forked(device: torch.device) -> str:
    return "cuda" if device.type == "cpu" else device.type


def _places(scheduler: Any, sample: Tensor) -> Iterator[tuple[Any, Any]]:
    """Where the scheduler keeps tensors of samples: (what holds them, key)."""
    for name, value in vars(scheduler).items():
        if isinstance(value, list):
            yield from ((value, k) for k, each in enumerate(value) if _alike(each, sample))
        elif _alike(value, sample):
            yield vars(scheduler), name


def _alike(value: Any, sample: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == sample.shape


def _stored(scheduler: Any, sample: Tensor) -> list[Tensor]:
    """The tensors of samples that a scheduler has stored."""
    return [holder[key] for holder, key in _places(scheduler, sample)]


def _store(scheduler: Any, sample: Tensor, tensors: Sequence[Tensor]) -> None:
    """Others in their place."""
    for (holder, key), tensor in zip(list(_places(scheduler, sample)), tensors, strict=True):
        holder[key] = tensor
