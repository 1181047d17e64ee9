"""A run of a benchmark, under one progress bar, which goes on from the rows of one that was stopped."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from symguide.bench import gradients as measure
from symguide.bench import memory as weigh
from symguide.bench import quality as guided
from symguide.bench.found import Gradients, Memory, Quality
from symguide.bench.kept import Keep, Kept
from symguide.bench.way import Way
from symguide.bench.ways import WAYS
from symguide.report import environment


@dataclass(frozen=True)
class Setup:
    """Where and how a benchmark runs.

    Attributes:
        unfinished: the file of rows that are done, from which a run that was stopped goes on.
        quick: whether to take few of everything.
        seed: of samples and noise.
        device, threads: where, and with how many threads on the CPU.
        progress: whether to show a bar; on a terminal alone where None.
    """

    unfinished: Path
    quick: bool = False
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    progress: bool | None = None

    @property
    def where(self) -> torch.device:
        return torch.device(self.device)


def gradients(setup: Setup, **chosen: Sequence[Any]) -> Gradients:
    """Measure all ways to the gradient of a look-ahead.

    Args:
        setup: where and how.
        chosen: of the plan's subjects, dtypes (beside float64, which the tables need) and ns, and names of ways; the
            plan's, and all ways, where there are none. Costs are those of digits.
    """
    if chosen.get("dtypes"):
        chosen["dtypes"] = list(dict.fromkeys(("float64", *chosen["dtypes"])))
    ways, plan = _named(chosen.pop("ways", ())), _plan(measure.QUICK if setup.quick else measure.Plan(), chosen)
    settings = _settings(plan, setup, ways=[way.name for way in ways])
    with _measuring(settings, measure.work(plan, ways), setup) as (tick, keep):
        errors = list(measure.errors(plan, setup.seed, setup.where, tick, ways, keep))
        costs = measure.costs(plan, setup.seed, setup.where, tick, ways) if "digits" in plan.subjects else []
    return Gradients(errors, costs, settings)


def memory(setup: Setup, **chosen: Sequence[Any]) -> Memory:
    """Measure the memory of all ways to the gradient of a look-ahead.

    Args:
        setup: where and how.
        chosen: of the plan's subjects, sizes, batches and ns, and names of ways; the plan's, and all ways, where there
            are none.
    """
    ways, plan = _named(chosen.pop("ways", ())), _plan(weigh.QUICK if setup.quick else weigh.Plan(), chosen)
    settings = _settings(plan, setup, ways=[way.name for way in ways])
    with _measuring(settings, weigh.work(plan, setup.where, ways), setup) as (tick, keep):
        rows = list(weigh.rows(plan, setup.seed, setup.where, tick, ways, keep))
    return Memory(rows, settings)


def quality(setup: Setup, **chosen: Sequence[Any]) -> Quality:
    """Measure guided samples with the gradient by every way.

    Args:
        setup: where and how; its seed is that of the first run, and the next ones have the next seeds.
        chosen: of the plan's tasks, and names of ways; the plan's, and all ways, where there are none.
    """
    names, plan = chosen.pop("ways", ()), _plan(guided.QUICK if setup.quick else guided.Plan(), chosen)
    plan = replace(plan, seeds=tuple(setup.seed + k for k in plan.seeds))
    rows = guided.chosen(plan, names)
    settings = _settings(plan, setup, ways=list(names))
    with _measuring(settings, guided.work(plan, rows), setup) as (tick, keep):
        on, meter = guided.world(plan, setup.device)
        accuracy = list(guided.accuracy(plan, rows, on, tick, keep))
        samples = list(guided.samples(plan, rows, on, meter, tick, keep))
    return Quality(samples, accuracy, settings)


def _plan(plan: Any, chosen: Mapping[str, Sequence[Any]]) -> Any:
    """The plan, with what was chosen in place of its own."""
    return replace(plan, **{name: tuple(dict.fromkeys(values)) for name, values in chosen.items() if values})


def _named(names: Sequence[str]) -> tuple[Way, ...]:
    """The ways of these names, all where there are none."""
    return tuple(way for way in WAYS if not names or way.name in names)


def _settings(plan: Any, setup: Setup, ways: Iterable[str]) -> dict[str, Any]:
    """All that decides what was measured, and versions of the libraries that ways need and that are there."""
    there = dict.fromkeys(way.library for way in WAYS if way.library and not measure.missing(way))
    versions = {name: version(name) for name in there}
    given = {"quick": setup.quick, "seed": setup.seed, "device": setup.device, "threads": setup.threads}
    return {"ways": list(ways), **given, "versions": versions, **asdict(plan)}


@contextmanager
def _measuring(settings: Mapping[str, Any], total: int, setup: Setup) -> Iterator[tuple[measure.Tick, Keep]]:
    """A bar that is told what was done, and rows that are kept; with the setup's threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(setup.threads)
    hidden = None if setup.progress is None else not setup.progress
    kept = Kept(setup.unfinished, {**settings, **environment(setup.device)})
    try:
        with tqdm(total=total, unit="cell", disable=hidden, leave=False, file=sys.stderr) as bar:
            if kept.rows and not bar.disable:
                bar.write(f"going on from {len(kept.rows)} rows in {setup.unfinished}", file=sys.stderr)

            def tick(what: str) -> None:
                bar.set_description(what, refresh=False)
                bar.update()

            yield tick, kept
    finally:
        torch.set_num_threads(before)
