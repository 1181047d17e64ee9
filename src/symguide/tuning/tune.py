"""tune(): settings of guidance for a model and an objective, within a budget of network calls."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from symguide.denoiser import Denoiser
from symguide.errors import ConfigError, unknown
from symguide.loop import Cost, sample
from symguide.loss_guidance.descent import LookAhead
from symguide.step import PredictionHook
from symguide.tuning.measure import At, Measure
from symguide.tuning.search import search
from symguide.tuning.space import Probe, Space, build
from symguide.tuning.trial import Tuned

SEEDS = (1000, 1001)
"""Noise that is tuned on, apart from the seeds that people draw with."""

SAMPLER = ("solver", "grid", "eta", "shape", "restart", "dtype", "device", "on_nan")
"""Settings of `sample` that are handed on to it."""


@dataclass(frozen=True)
class ByIndex:
    """What depends on the samples' indices: an objective, a metric or what is kept, made for each part.

    ByIndex(lambda indices: sg.objectives.Classifier(scorer, label=[i % 10 for i in indices]))
    """

    make: Callable[[range], Callable[[Tensor], Any]]


def tune(
    denoiser: Denoiser,
    methods: Any,
    *,
    objective: Any,
    metric: Any = None,
    keep: Any = None,
    floor: float | None = None,
    budget: int | None = None,
    num: int = 16,
    seeds: Sequence[int] = SEEDS,
    batch: int | None = None,
    steps: int = 50,
    condition: Mapping[str, Any] | None = None,
    prediction: PredictionHook | None = None,
    space: Mapping[str, Any] | None = None,
    fixed: Mapping[str, Any] | None = None,
    seed: int = 0,
    log: str | Path | None = None,
    progress: bool | None = False,
    **sampler: Any,
) -> Tuned:
    """Find settings of guidance: the front of quality against cost, for a model and an objective.

        minimise over settings:  (mean metric of num * len(seeds) samples,  network calls for each sample)

    All trials draw the same samples (seed, index), so that they are compared pair by pair. The methods' defaults are
    the first trials. The others are proposed by a tree-structured Parzen estimator for two objectives. A trial is drawn
    in parts, and stops where a paired test says that one of no more calls is better, or where it keeps too little.

    A search that sees what guidance sees fools the scorer: give a `metric` that guidance never sees (a judge), and say
    with `keep` what must not be lost, as the strength that a judge likes best may break pictures up.

    Args:
        denoiser: the model.
        methods: recipes to tune side by side: classes such as SAG, names such as "sag", or functions
            (objective, **settings) -> recipe; one or a list.
        objective: what guidance follows, clean samples (B, ...) -> loss (B,).
        metric: what is minimised, samples as `sample` returns them -> (B,), lower is better; if not given, objective.
        keep: samples -> (B,), higher is better: trials whose mean is below the floor cannot be chosen.
        floor: of keep; what unguided samples have, less 0.1, if not given.
        budget: network calls in all, forward and backward, each sample counted. Never exceeded. 30 times what unguided
            samples and the defaults take, if not given.
        num: samples of each seed.
        seeds: what the samples' noise is drawn from. Held-out seeds tell how good the result is.
        batch: samples of a part; num if not given. Objectives and metrics see a part at a time: where they depend on
            the sample, give `ByIndex(make)`, or leave batch out.
        steps: of sampling.
        condition: as for `sample`: one row for all, or num rows.
        prediction: as for `sample`, e.g. CFG(3.0).
        space: parameter -> Range(low, high, log), list of values, or None for the recipe's own range: what is searched,
            in place of all of the recipes' own ranges (`SAG.search_space()`). `constraint` is a rate of Sphere.
        fixed: parameters that are given, e.g. {"memory": "fast"}.
        seed: of the proposals. The same search finds the same.
        log: a file, JSON lines: trials that are in it are not drawn again, so an interrupted search goes on, and one
            with more budget adds to it. What the functions given here compute is not in it: use a file for each.
        progress: show a progress bar; None does on a terminal.
        sampler: more settings of `sample`: solver, grid, eta, shape, restart, dtype, device, on_nan.

    Returns:
        Tuned: `.best`, `.front`, `.trials`, `.recipe(objective)`.

    Raises:
        ConfigError: settings that cannot be used, a metric of another shape, a budget that does not hold the defaults,
        or without Optuna: pip install "symguide[tune]". Trials that diverge fail, and the search goes on.

    Cost: at most the budget. A trial's calls are known before it begins, from the same run of a network of one number.

    Source: Ozaki et al., "Multiobjective Tree-Structured Parzen Estimator", JAIR 2022, as in Optuna (1907.10902).
    """
    for name in sampler:
        if name not in SAMPLER:
            raise unknown("setting of tune", name, SAMPLER)
    parts = in_parts(num, seeds, batch)
    found = build(methods, space, _no_sphere_without_noise(methods, space, fixed, sampler))
    drawer = _Drawer(denoiser, found, objective, num, condition, {"steps": steps, "prediction": prediction, **sampler})
    about = {"steps": steps, "sampler": {key: repr(value) for key, value in sorted(sampler.items())}}
    measure = Measure(drawer, _at(objective if metric is None else metric), None if keep is None else _at(keep), parts)
    return search(
        found,
        measure,
        budget=budget,
        seed=seed,
        floor=floor,
        about=about,
        log=None if log is None else Path(log),
        progress=progress,
    )


def in_parts(num: int, seeds: Sequence[int], batch: int | None) -> list[tuple[int, range]]:
    """(seed, indices) of the parts of every trial.

    Raises:
        ConfigError: for numbers below 1, no seeds, or one twice.

    >>> in_parts(3, (7, 8), 2)
    [(7, range(0, 2)), (7, range(2, 3)), (8, range(0, 2)), (8, range(2, 3))]
    """
    for name, value in (("num", num), ("batch", batch)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | Integral) or value < 1):
            raise ConfigError(f"{name} is a number of samples, at least 1, not {value!r}")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"tuning needs seeds that differ, at least one, not {list(seeds)}")
    each = [range(a, min(a + (batch or num), num)) for a in range(0, num, batch or num)]
    return [(seed, indices) for seed in seeds for indices in each]


def calls(
    denoiser: Denoiser, settings: Mapping[str, Any], condition: Mapping[str, Any], recipe: Callable[[Any], Any] | None
) -> tuple[int, int]:
    """Forward and backward calls of a run for each sample, at most, without a call of the network.

    The run is made with a network of one number, on the same schedule, steps and prediction: what is called when
    depends on nothing else.

    Args:
        denoiser: whose schedule it is.
        settings: of `sample`.
        condition: of one sample.
        recipe: from an objective to loss guidance; None is unguided.
    """
    small = Denoiser(lambda x, t, **c: 0.5 * x, denoiser.schedule, denoiser.predicts, shape=(1,), null=denoiser.null)
    loss = None if recipe is None else recipe(Probe())
    if isinstance(loss, LookAhead) and str(loss.memory).startswith("auto"):
        loss = replace(loss, memory="minimal")  # the most that it may come to
    kept = {key: value for key, value in settings.items() if key not in ("shape", "dtype", "device", "on_nan")}
    cost = sample(small, **kept, condition=condition, loss=loss, dtype=torch.float64, device="cpu", on_nan="skip").cost
    return cost.forward_calls, cost.backward_calls


def rows(condition: Mapping[str, Any] | None, num: int, indices: range) -> dict[str, Any]:
    """Conditions of some of num samples."""
    return {
        name: value[indices.start : indices.stop] if hasattr(value, "__len__") and len(value) == num else value
        for name, value in (condition or {}).items()
    }


@dataclass(frozen=True)
class _Drawer:
    """Draws with `sample`; see `symguide.tuning.measure.Drawer`."""

    denoiser: Denoiser
    space: Space
    objective: Any
    num: int
    condition: Mapping[str, Any] | None
    settings: Mapping[str, Any]

    def cost(self, method: str | None, settings: Mapping[str, Any]) -> tuple[int, int]:
        recipe = None if method is None else lambda aim: self.space.methods[method].recipe(settings, aim)
        return calls(self.denoiser, self.settings, rows(self.condition, self.num, range(1)), recipe)

    def draw(self, method: str | None, settings: Mapping[str, Any], seed: int, indices: range) -> tuple[Tensor, Cost]:
        loss = None
        if method is not None:
            loss = self.space.methods[method].recipe(settings, _at(self.objective)(indices))
        told = rows(self.condition, self.num, indices)
        result = sample(self.denoiser, indices=indices, seed=seed, condition=told, loss=loss, **self.settings)
        return result.samples, result.cost


def _at(asked: Any) -> At:
    return asked.make if isinstance(asked, ByIndex) else lambda indices: asked


def _no_sphere_without_noise(
    methods: Any, space: Mapping[str, Any] | None, fixed: Mapping[str, Any] | None, sampler: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Where eta is 0 a step has no sphere, so the recipes' own ranges of it are left out."""
    given = dict(fixed or {})
    if space is None and sampler.get("eta") == 0:
        given.setdefault("constraint", None)
    return given
