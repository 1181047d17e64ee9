"""Trials, the front of quality against cost, and what a search found."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from symguide.errors import ConfigError
from symguide.step import LossHook
from symguide.tuning.space import Space

COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"


@dataclass(frozen=True)
class Trial:
    """One setting, measured.

    Attributes:
        number: in order of drawing; -1 for unguided samples.
        method, settings: what the recipe is made with; `constraint` is a rate of Sphere. No method is unguided.
        state: "complete"; "pruned" where it was stopped after some samples; "failed" where it cannot be used.
        values: the metric of every sample that was drawn, lower is better.
        kept: what `keep` says of them.
        forward_calls, backward_calls: of the network for each sample.
        seconds: for each sample.
        why: it failed or was stopped.
    """

    number: int
    method: str | None
    settings: Mapping[str, Any]
    state: str
    values: Sequence[float] = field(repr=False)
    kept: Sequence[float] = field(repr=False)
    forward_calls: int
    backward_calls: int
    seconds: float
    why: str = ""

    @property
    def value(self) -> float:
        """The metric's mean over the samples that were drawn; NaN where there is none."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def error(self) -> float:
        """Standard error of the value."""
        finite = [value for value in self.values if math.isfinite(value)]
        return statistics.stdev(finite) / math.sqrt(len(finite)) if len(finite) > 1 else 0.0

    @property
    def keep(self) -> float | None:
        """The mean of `keep`, where it was asked."""
        return statistics.fmean(self.kept) if self.kept else None

    @property
    def calls(self) -> int:
        """Forward and backward calls for each sample."""
        return self.forward_calls + self.backward_calls


def front(trials: Iterable[Trial]) -> list[Trial]:
    """The trials that no other beats: none has a lower value for as few calls, or as low a value for fewer.

    In order of calls, so that values fall; of trials that are equal in both, the first.
    """
    out: list[Trial] = []
    for trial in sorted(trials, key=lambda t: (t.calls, t.value, t.number)):
        if not out or trial.value < out[-1].value:
            out.append(trial)
    return out


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes:
        trials: all that were drawn, in order; the first are the methods' defaults.
        unguided: the same samples without guidance.
        floor: what `keep` must reach; None where nothing was asked to be kept.
        spent: network calls, forward and backward, each sample counted.
    """

    trials: Sequence[Trial] = field(repr=False)
    unguided: Trial = field(repr=False)
    floor: float | None
    spent: int
    space: Space = field(repr=False)

    @property
    def defaults(self) -> list[Trial]:
        """The trials of the methods' defaults."""
        return list(self.trials[: len(self.space.methods)])

    @property
    def eligible(self) -> list[Trial]:
        """The trials that were drawn to their end, and keep what they must."""
        return [t for t in self.trials if eligible(t, self.floor)]

    @property
    def front(self) -> list[Trial]:
        """The non-dominated trials by value and calls, in order of calls."""
        return front(self.eligible)

    @property
    def best(self) -> Trial:
        """The trial with the lowest value of those that may be chosen.

        Raises:
            ConfigError: where none may.
        """
        if not self.eligible:
            states = ", ".join(f"{sum(t.state == s for t in self.trials)} {s}" for s in (COMPLETE, PRUNED, FAILED))
            last = next((f"; the last: {t.why}" for t in reversed(self.trials) if t.why), "")
            raise ConfigError(
                f"no trial can be chosen ({states}"
                + ("" if self.floor is None else f", and none that is complete keeps {self.floor:.3g}")
                + f"{last}): search lower scales or narrower windows, lower the floor, or give more budget"
            )
        return self.front[-1]

    @property
    def settings(self) -> Mapping[str, Any]:
        """Of the best trial."""
        return self.best.settings

    def recipe(self, objective: Any, trial: Trial | None = None) -> LossHook:
        """The best trial's recipe, or another's, for `sample(..., loss=...)`."""
        chosen = trial or self.best
        if chosen.method is None:
            raise ConfigError("unguided samples have no recipe: leave loss= out")
        return self.space.methods[chosen.method].recipe(chosen.settings, objective)


def eligible(trial: Trial, floor: float | None) -> bool:
    """Whether a trial may be chosen."""
    return trial.state == COMPLETE and (floor is None or (trial.keep is not None and trial.keep >= floor))
