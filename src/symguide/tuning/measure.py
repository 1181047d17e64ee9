"""Measuring one setting on the samples that all settings share, in parts, and stopping where there is no hope."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from symguide.errors import ConfigError, GuidanceError
from symguide.loop import Cost
from symguide.tuning.trial import COMPLETE, FAILED, PRUNED, Trial

P_VALUE = 0.05
"""A trial stops where a paired test is this sure that a rival, which costs no more, is better."""

At = Callable[[range], Callable[[Tensor], Any]]
"""From the indices of samples to what is asked of these samples, one number each."""


class Drawer(Protocol):
    """What draws the samples of a setting."""

    def cost(self, method: str | None, settings: Mapping[str, Any]) -> tuple[int, int]:
        """Forward and backward calls for each sample, at most, without a call of the network."""

    def draw(self, method: str | None, settings: Mapping[str, Any], seed: int, indices: range) -> tuple[Tensor, Cost]:
        """Samples (B, ...), each a function of the settings, the seed and its index, and what they cost."""


@dataclass(frozen=True)
class Measure:
    """The samples that every trial draws, and what is asked of them.

    Attributes:
        drawer: what draws.
        metric, keep: by the indices of samples; lower is better, and higher is better.
        parts: (seed, indices), one after the other.
    """

    drawer: Drawer
    metric: At
    keep: At | None
    parts: Sequence[tuple[int, range]]

    @property
    def samples(self) -> int:
        """Of a trial."""
        return sum(len(indices) for _, indices in self.parts)

    def __call__(
        self,
        number: int,
        method: str | None,
        settings: Mapping[str, Any],
        rivals: Sequence[Trial],
        floor: float | None,
        show: Callable[[int], None],
    ) -> tuple[Trial, int]:
        """The trial of a setting, and the calls that it spent.

        Args:
            number: of the trial.
            method, settings: as the drawer takes them; None is unguided.
            rivals: trials that were drawn to their end.
            floor: what `keep` must reach.
            show: told of calls as they are spent.
        """
        forward, backward = self.drawer.cost(method, settings)
        close = [rival for rival in rivals if rival.calls <= forward + backward]
        values: list[float] = []
        kept: list[float] = []
        state, why, spent, seconds = COMPLETE, "", 0, 0.0
        for seed, indices in self.parts:
            before = spent
            try:
                samples, cost = self.drawer.draw(method, settings, seed, indices)
            except GuidanceError as error:
                spent += (forward + backward) * len(indices)  # at most: it stopped on the way
                show(spent - before)
                state, why = FAILED, str(error)
                break
            forward, backward = cost.forward_calls, cost.backward_calls
            spent, seconds = spent + (forward + backward) * len(indices), seconds + cost.seconds
            show(spent - before)
            values += _numbers("metric", self.metric(indices), samples)
            kept += [] if self.keep is None else _numbers("keep", self.keep(indices), samples)
            if not all(map(math.isfinite, [*values, *kept])):
                state, why = FAILED, "the metric of some samples is not finite"
                break
            if len(values) < self.samples and (why := hopeless(values, kept, close, floor)):
                state = PRUNED
                break
        per_sample = seconds / max(len(values), 1)
        return Trial(number, method, settings, state, values, kept, forward, backward, per_sample, why), spent


def hopeless(values: Sequence[float], kept: Sequence[float], rivals: Sequence[Trial], floor: float | None) -> str:
    """Why a trial that has these values so far needs no more samples; empty where it may still be on the front.

    Its values are compared with those of the same samples of every rival by Wilcoxon's signed-rank test, and what is
    kept with the floor by two standard errors. Rivals are trials that cost no more: one that is better and dearer
    leaves a cheap trial its place on the front.
    """
    for rival in rivals:
        worse = [value - other for value, other in zip(values, rival.values, strict=False)]
        if statistics.fmean(worse) > 0 and signed_rank(worse) < P_VALUE:
            return f"worse than trial {rival.number} after {len(values)} samples, for no fewer calls"
    if floor is not None and len(kept) > 1:
        most = statistics.fmean(kept) + 2 * statistics.stdev(kept) / math.sqrt(len(kept))
        if most < floor:
            return f"keeps {statistics.fmean(kept):.2g} after {len(kept)} samples, less than {floor:.2g}"
    return ""


def signed_rank(differences: Sequence[float]) -> float:
    """Wilcoxon's signed-rank test that differences of pairs tend to be above 0: its one-sided p-value.

    Exact, with ties too: the distribution of the sum of positive ranks over all signs, each as likely, is built up rank
    by rank. Pairs without a difference are left out.

    Source: Wilcoxon, "Individual comparisons by ranking methods", 1945.

    >>> signed_rank([1.0, 2.0, 3.0]), signed_rank([0.0]), signed_rank([2.0, 2.0, -2.0])
    (0.125, 1.0, 0.5)
    """
    values = np.asarray([value for value in differences if value], dtype=np.float64)
    _, inverse, counts = np.unique(abs(values), return_inverse=True, return_counts=True)
    ranks = (2 * counts.cumsum() - counts + 1)[inverse]  # twice the mean rank of equal ones, so that it is whole
    chances = np.zeros(int(ranks.sum()) + 1)
    chances[0] = 1.0
    for rank in ranks:
        chances[rank:] = chances[rank:] + chances[:-rank]  # the right side is made before it is written
        chances /= 2
    return float(chances[int(ranks[values > 0].sum()) :].sum())


@torch.no_grad()
def _numbers(name: str, ask: Callable[[Tensor], Any], samples: Tensor) -> list[float]:
    """One number for every sample.

    Raises:
        ConfigError: for anything else.
    """
    given = ask(samples)
    answer = torch.as_tensor(given).detach().double().cpu()
    if answer.shape != (len(samples),):
        raise ConfigError(
            f"{name} gave shape {tuple(answer.shape)} for {len(samples)} samples: it gives one number for each, (B,)"
        )
    numbers: list[float] = answer.tolist()
    return numbers
