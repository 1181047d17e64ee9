"""The search: defaults first, then what a tree-structured Parzen estimator proposes, until the budget is spent.

    value  = mean metric of the shared samples          calls = forward and backward calls for each sample
    front  = trials that no other beats in both

Proposals come from Optuna's TPE for two objectives (value and calls). The budget is strict: what a trial can cost at
most is known before it begins, and one that does not fit is not begun. Nothing of Optuna's is kept on disk: its
sampler is seeded, so a search that goes on hears the same proposals, and takes the results from its log.
"""

import json
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from symguide.errors import ConfigError, SymguideError
from symguide.extras import library
from symguide.tuning.log import Log
from symguide.tuning.measure import Measure
from symguide.tuning.space import Settings, Space
from symguide.tuning.trial import COMPLETE, FAILED, Trial, Tuned, eligible, front

RANDOM = 8
"""Trials before the estimator proposes; those of the defaults are among them."""

MISSES = 15
"""Proposals in a row that are known already, or do not fit the rest of the budget, after which the search ends."""

TENTH = 0.1
"""How much less than unguided samples a trial may keep, where no floor is given."""


def search(
    space: Space,
    measure: Measure,
    *,
    budget: int | None,
    seed: int = 0,
    floor: float | None = None,
    about: Mapping[str, Any] | None = None,
    log: Path | None = None,
    progress: bool | None = False,
) -> Tuned:
    """Search a space within a budget of network calls.

    Args:
        space: the methods and their ranges.
        measure: the samples, and what is asked of them.
        budget: network calls, forward and backward, samples x passes; None is what 30 trials of the defaults cost.
        seed: of the proposals.
        floor: what `keep` must reach; what unguided samples keep, less a tenth, where not given.
        about: what else tells this search from another, as JSON has it.
        log: file of the trials; a search that was interrupted goes on from it.
        progress: show a progress bar; None does on a terminal.

    Raises:
        ConfigError: without Optuna, and if the budget does not hold the defaults.
    """
    optuna = library("optuna", "tuning", "tune")
    identity = {"space": space.about(), "parts": [[s, r.start, r.stop] for s, r in measure.parts], "seed": seed}
    identity |= {"floor": floor, **(about or {}), "optuna": optuna.__version__}
    needed = least(space, measure)
    budget = 30 * needed if budget is None else budget
    if budget < needed:
        raise ConfigError(
            f"the budget of {budget:,} network calls is less than the defaults and unguided samples take, {needed:,}: "
            "give more, or use fewer samples, seeds or steps"
        )
    with _quiet(optuna), tqdm(total=budget, unit=" calls", disable=None if progress is None else not progress) as bar:
        state = _Search(optuna, space, measure, budget, seed, Log(log, identity), bar)
        state.begin(floor)
        while state.misses < MISSES:
            state.propose()
    return Tuned(state.trials, state.unguided, state.floor, state.spent, space)


def least(space: Space, measure: Measure) -> int:
    """Network calls of the unguided samples and of the methods' defaults, the least that a search draws."""
    return measure.samples * sum(sum(measure.drawer.cost(*each)) for each in [(None, {}), *space.defaults()])


class _Search:
    """A search on its way."""

    def __init__(self, optuna: Any, space: Space, measure: Measure, budget: int, seed: int, log: Log, bar: Any) -> None:
        self.space, self.measure, self.budget = space, measure, budget
        self.optuna, self.log, self.bar = optuna, log, bar
        sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=RANDOM)
        self.study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
        self.trials: list[Trial] = []
        self.spent = self.misses = 0
        self.skipped_for = 0
        self._known: dict[str, Trial] = {}

    def begin(self, floor: float | None) -> None:
        """The unguided samples and the defaults."""
        self.floor = floor if self.measure.keep is not None else None
        unguided = self._trial(-1, None, {})
        assert unguided is not None
        self.unguided = unguided
        if unguided.state != COMPLETE:
            raise ConfigError(f"unguided samples cannot be measured: {unguided.why}; check the metric and the model")
        if self.measure.keep is not None and self.floor is None and unguided.keep is not None:
            self.floor = unguided.keep - TENTH
        for method, settings in self.space.defaults():
            trial = self._trial(len(self.trials), method, settings)
            assert trial is not None
            self._add(trial)
            if (asked := self.space.asked(method)) is not None:
                self.study.enqueue_trial(asked)
                self._tell(self._ask()[0], trial)

    def propose(self) -> None:
        """One proposal: drawn, known already, or too dear."""
        asked, method, settings = self._ask()
        known = self._known.get(_key(method, settings))
        trial = known or self._trial(len(self.trials), method, settings)
        if trial is None:
            self.study.tell(asked, state=self.optuna.trial.TrialState.FAIL)
            self.misses += self.spent + self.skipped_for > self.budget  # of a log, it may fit a larger budget
            return
        self._tell(asked, trial)
        self.misses = 0 if known is None and trial.values else self.misses + 1
        if known is None:
            self._add(trial)

    def _ask(self) -> tuple[Any, str, Settings]:
        asked = self.study.ask()
        return asked, *self.space.suggest(asked)

    def _trial(self, number: int, method: str | None, settings: Settings) -> Trial | None:
        """The trial of a proposal, from the log or drawn now; None where the rest of the budget does not hold it."""
        known = self.log.replay(method, settings)
        if known is not None:
            trial, calls = known
            self.skipped_for = calls if trial is None else 0
            if trial is not None:
                self.bar.update(calls)
                self.spent += calls
            return trial
        try:
            most = self.measure.samples * sum(self.measure.drawer.cost(method, settings))
        except SymguideError as error:
            if number < len(self.space.methods):
                raise  # of the defaults: nothing that another setting would mend
            trial, spent = Trial(number, method, settings, FAILED, [], [], 0, 0, 0.0, str(error)), 0
        else:
            if self.spent + most > self.budget:
                self.log.skipped(method, settings, most)
                self.skipped_for = most
                return None
            first = number < len(self.space.methods)  # what all others are compared with is drawn to its end
            rivals = [] if first else front(trial for trial in self.trials if eligible(trial, self.floor))
            floor = None if first else self.floor
            trial, spent = self.measure(number, method, settings, rivals, floor, self.bar.update)
        self.spent += spent
        self.log.trial(trial, spent)
        return trial

    def _add(self, trial: Trial) -> None:
        self.trials.append(trial)
        self._known[_key(trial.method, trial.settings)] = trial
        good = [t.value for t in self.trials if eligible(t, self.floor)]
        self.bar.set_postfix_str(f"{len(self.trials)} trials" + (f", best {min(good):.4g}" if good else ""))

    def _tell(self, asked: Any, trial: Trial) -> None:
        """Tell the estimator of a trial, as the value and the calls that it has, or would have.

        One that may not be chosen is told as worse than all others in both, so that nothing is looked for near it.
        """
        below = self.floor is not None and trial.keep is not None and trial.keep < self.floor
        if trial.state != FAILED and (eligible(trial, self.floor) or not below):
            drawn = len(trial.values)
            here = sum(self.unguided.values[:drawn]) / drawn  # what the samples that were not drawn would have changed
            self.study.tell(asked, [trial.value + self.unguided.value - here, trial.calls])
            return
        others = [t for t in self.trials if t.state != FAILED]
        worst = max([t.value for t in others] + [self.unguided.value])
        missing = (self.floor or 0.0) - (trial.keep or 0.0) if math.isfinite(trial.keep or 0.0) else 1.0
        self.study.tell(asked, [worst + max(missing, 0.0), max([t.calls for t in others] + [self.unguided.calls])])


def _key(method: str | None, settings: Mapping[str, Any]) -> str:
    return json.dumps([method, settings], sort_keys=True)


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Optuna without its remarks on every study and on arguments that are new to it."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
