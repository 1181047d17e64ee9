"""Branches: the network evaluations that a rule of prediction guidance asks for, and how they are made together.

A rule is a generator. It yields the branches that it wants, by names of its own, is sent their predictions, may yield
again, and returns the one prediction that it makes of them:

    def calls(self, at):
        p = yield {"u": at.null(), "c": Branch()}
        return p["u"].with_value(p["u"].value + self.scale * (p["c"].value - p["u"].value))

All branches of a yield that are of one model are made in one batched call.
"""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from symguide.condition import expand_condition
from symguide.denoiser import Denoiser, Prediction
from symguide.edits import Edit
from symguide.errors import ConfigError
from symguide.memory import Memory
from symguide.per_sample import Noise
from symguide.schedule import Time


@dataclass(frozen=True, eq=False)
class Branch:
    """One network evaluation that a rule wants. What is None is as the sampler has it.

    Attributes:
        condition: all that the network is given beside x and the timestep, with a row for every row of x.
        edit: what the named modules give instead, for this branch alone.
        model: another denoiser, with a schedule of the same noise levels.
        x: another point of the same noise level, of the same shape.
        timestep: what the network is told in place of its schedule's, one number or (B,).
    """

    condition: Mapping[str, Any] | None = None
    edit: Edit | None = None
    model: Denoiser | None = None
    x: Tensor | None = None
    timestep: float | Tensor | None = None

    @property
    def plain(self) -> bool:
        """Whether it is the sampler's own evaluation."""
        return all(v is None for v in (self.condition, self.edit, self.model, self.x, self.timestep))


Asked = Generator[dict[str, Branch], dict[str, Prediction], Prediction]
"""What `Rule.calls` is: it yields branches by name, is sent their predictions, and returns its own."""


@dataclass
class Moment:
    """Where a run stands: the step whose noise and memory rules are given, its time, and whether its own prediction,
    the first one at that time, is still to come. `rows` stand in the place of every row of the run.
    """

    noise: Noise
    memory: Memory
    key: int
    t: Time
    to_come: bool = True
    rows: int = 1

    def repeated(self, k: int) -> "Moment":
        """For k rows in the place of every row, which are no predictions of the sampler's own."""
        return replace(self, to_come=False, rows=self.rows * k)

    def own(self, t: Time) -> bool:
        """Whether it is the sampler's own prediction that is made now, at t; asked once."""
        own, self.to_come = self.to_come and t == self.t, self.to_come and t != self.t
        return own


@dataclass(frozen=True)
class Point:
    """Where a rule is asked for its prediction, and what it can ask there.

    Attributes:
        rule: the rule itself.
        denoiser, x, t, condition: the model, x_t (B, ...), its time, and the sampler's condition.
        moment: of the run; None outside of one.
        own: whether this is the sampler's own prediction of a step, and no look-ahead's.
        nulls: the branches without the condition that were asked for before, of all points of a predictor.
    """

    rule: Any
    denoiser: Denoiser
    x: Tensor
    t: Time
    condition: Mapping[str, Any] = field(default_factory=dict)
    moment: Moment | None = None
    own: bool = False
    nulls: dict[Any, Branch] = field(default_factory=dict)

    def of(self, rule: Any) -> "Point":
        """The same point for another rule, which is part of this one."""
        return replace(self, rule=rule)

    def null(self, negative: Mapping[str, Any] | None = None) -> Branch:
        """The branch without the condition: with the model's null condition, or `negative` in its place.

        Raises:
            ConfigError: without a condition, and where the model has no null condition and none is given.
        """
        key = id(negative), len(self.x), self.x.device
        if key in self.nulls:
            return self.nulls[key]
        null, name = self.denoiser.null if negative is None else negative, type(self.rule).__name__
        if not null:
            raise ConfigError(f"this model has no null condition: pass {name}(..., negative={{...}})")
        if not self.condition:
            raise ConfigError(f"{name} strengthens a condition, and none is given: pass condition={{...}}")
        branch = Branch({**self.condition, **expand_condition(null, len(self.x), self.x.device)})
        kept = negative is None or negative is getattr(self.rule, "negative", None)  # others may be gone tomorrow
        return self.nulls.setdefault(key, branch) if kept else branch

    def noise(self, name: str, shape: Sequence[int] | None = None) -> Tensor:
        """N(0, I) of a name, (B, ...): of (seed, index, step) only, so the same in all look-aheads of a step.

        Raises:
            ConfigError: outside of a run, which has no seed.
        """
        moment = self._of_a_run("noise")
        drawn = moment.noise.draw("prediction", moment.key, zlib.crc32(name.encode()), shape=shape)
        return drawn.repeat_interleave(moment.rows, dim=0)

    def recall(self, key: str, default: Tensor) -> Tensor:
        """What this rule kept under this key, (B, ...), in the run's last step.

        Raises:
            ConfigError: outside of a run, which has no earlier steps.
        """
        moment = self._of_a_run("memory")
        kept: Tensor | None = moment.memory.get(self.rule, key)
        return default if kept is None else kept.repeat_interleave(moment.rows, dim=0)

    def keep(self, key: str, value: Tensor) -> None:
        """Keeps a value (B, ...) for the next step. What look-aheads keep does not count."""
        if self.own:
            self._of_a_run("memory").memory.later(self.rule, key, value.detach())

    def _of_a_run(self, what: str) -> Moment:
        if not self.rule.by_step:
            raise ConfigError(f"{type(self.rule).__name__} asks for the {what} of a run: its by_step must be True")
        if self.moment is None:
            raise ConfigError(
                f"{type(self.rule).__name__} asks for the {what} of a run, which sample() and guide() have, and a "
                "look-ahead on its own or optimise() has not: use it there, or switch off what needs it"
            )
        return self.moment


class Rule(ABC):
    """Base of the rules of prediction guidance: subclasses say in `calls` what they ask, and what they make of it."""

    @abstractmethod
    def calls(self, at: Point) -> Asked:
        """The branches that the rule wants at a point, one set after the other, and the prediction of them."""

    @property
    def models(self) -> tuple[Denoiser, ...]:
        """The further models that it asks."""
        return ()

    @property
    def by_step(self) -> bool:
        """Whether its predictions depend on the step that asks: it remembers earlier ones, or draws noise."""
        return False

    @property
    def moves(self) -> bool:
        """Whether its predictions are of another point than x_t, as CFG++'s are."""
        return False

    def at(self, point: Point) -> Prediction:
        """Its prediction at a point."""
        if self.by_step and point.moment is not None:
            point = replace(point, own=point.moment.own(point.t))
        asked = self.calls(point)
        wanted = next(asked)
        try:
            while True:
                wanted = asked.send(evaluate(point, wanted))
        except StopIteration as done:
            made: Prediction = done.value
            return made

    def __call__(self, denoiser: Denoiser, x: Tensor, t: Time, condition: Mapping[str, Any]) -> Prediction:
        return self.at(Point(self, denoiser, x, t, condition))


def evaluate(at: Point, wanted: Mapping[str, Branch]) -> dict[str, Prediction]:
    """The predictions of branches, by name.

    Cost: a forward call for every branch, in one batched call for each model.

    Raises:
        ConfigError: for a model of other noise levels, and for conditions that cannot stand in one batch.
    """
    first = {
        id(branch): name for name, branch in reversed(list(wanted.items()))
    }  # what is asked for twice is made once
    once = {name: branch for name, branch in wanted.items() if first[id(branch)] == name}
    ask = getattr(at.denoiser, "branches", None)  # a pipeline's, which makes them of its own calls
    made: dict[str, Prediction] = {}
    if ask is not None:
        made = ask(at, once)
    else:
        for model in {id(b.model): b.model for b in once.values()}.values():
            mine = {name: b for name, b in once.items() if b.model is model}
            denoiser = at.denoiser if model is None else further(at, model)
            made |= dict(zip(mine, _together(at, denoiser, list(mine.values())), strict=True))
    return {name: made[first[id(branch)]] for name, branch in wanted.items()}


def _together(at: Point, denoiser: Denoiser, branches: Sequence[Branch]) -> list[Prediction]:
    """Branches of one model in one batched call, each edit on its own rows."""
    size, count = len(at.x), len(branches)
    conditions = [at.condition if b.condition is None else b.condition for b in branches]
    places = [at.x if b.x is None else b.x for b in branches]
    if any(x is not at.x and x.shape != at.x.shape for x in places):
        raise ConfigError(f"the x of a branch has the shape of the sampler's, {tuple(at.x.shape)}")
    x, joint = (places[0], conditions[0]) if count == 1 else (torch.cat(places), _joint(conditions, at.condition))
    timestep = None
    if any(b.timestep is not None for b in branches):
        own = denoiser.timestep(at.x, at.t)
        timestep = torch.cat([own if b.timestep is None else _spread(b.timestep, own) for b in branches])
    with ExitStack() as stack:
        for k, b in enumerate(branches):
            if b.edit is not None:
                stack.enter_context(b.edit.on(denoiser.network, slice(k * size, (k + 1) * size), count * size))
        made = denoiser(x, at.t, **joint) if timestep is None else denoiser.told(x, at.t, timestep, joint)
    return [made] if count == 1 else made.chunk(count)


def _spread(timestep: float | Tensor, like: Tensor) -> Tensor:
    """One number or (B,) as (B,) or (B, F)."""
    value = torch.as_tensor(timestep, dtype=like.dtype, device=like.device)
    return (value.reshape(-1, *[1] * (like.ndim - 1)) if value.ndim else value).expand_as(like)


def _joint(conditions: Sequence[Mapping[str, Any]], own: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of all branches, one after the other; what one of them lacks is as the first that has it says."""
    first = {name: value for each in reversed(conditions) for name, value in each.items()}
    names = dict.fromkeys(name for each in conditions for name in each)
    return {name: _rows(name, [each.get(name, first[name]) for each in conditions], own.get(name)) for name in names}


def _rows(name: str, values: Sequence[Any], own: Any) -> Any:
    """Rows of a condition's values, one after the other; what has no rows must be the same in all."""
    if all(isinstance(value, Tensor) for value in values):
        kind = own if isinstance(own, Tensor) else values[-1]
        for value in values:
            if value is not kind and value.shape[1:] != kind.shape[1:]:
                raise ConfigError(
                    f"condition {name!r} has shape {tuple(kind.shape[1:])}, and in another branch, its null for one, "
                    f"{tuple(value.shape[1:])}"
                )
        return torch.cat([value.to(kind.dtype) for value in values])
    if all(value is values[0] or value == values[0] for value in values):
        return values[0]
    raise ConfigError(f"condition {name!r} differs between the branches and is not a tensor with a row for each sample")


def further(at: Point, model: Denoiser) -> Denoiser:
    """A rule's further model, as the run has it.

    Raises:
        ConfigError: where it has other noise levels at this time than the sampler's.
    """
    known = at.denoiser.further.get(id(model))
    known = model.counted(at.denoiser.counter) if known is None else known
    for t in at.t if isinstance(at.t, tuple) else (at.t,):
        ours, theirs = ((s.alpha(t), s.sigma(t)) for s in (at.denoiser.schedule, known.schedule))
        if any(abs(a - b) > 1e-6 * max(1.0, abs(a)) for a, b in zip(ours, theirs, strict=True)):
            raise ConfigError(
                f"at t = {t:.4f} the model has (alpha, sigma) = ({ours[0]:.4g}, {ours[1]:.4g}), and the other one that "
                f"{type(at.rule).__name__} asks ({theirs[0]:.4g}, {theirs[1]:.4g}): take one of the same schedule"
            )
    return known
