"""A run of a benchmark: measured under one progress bar, then written as JSON and as a page."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from symguide.bench import gradients as measure
from symguide.bench import memory as weigh
from symguide.bench import memory_tables, quality_tables, tables
from symguide.bench import quality as guided
from symguide.bench.kept import Keep, Kept, Row
from symguide.bench.ways import WAYS
from symguide.errors import ConfigError
from symguide.report import Table, environment, with_machine, write


class Found(ABC):
    """What a benchmark found.

    Attributes:
        name: of its files.
        settings: all that decides what was measured, with versions.
        shown: the settings that the page names.
    """

    name: str
    settings: dict[str, Any]
    shown: tuple[str, ...]

    @property
    @abstractmethod
    def results(self) -> dict[str, Any]:
        """Everything measured, as JSON values."""

    @property
    @abstractmethod
    def text(self) -> str:
        """The tables for a terminal."""

    @abstractmethod
    def page(self, command: str, facts: Mapping[str, str]) -> str:
        """The page; ConfigError without the libraries that it needs."""

    def write(self, out: Path, command: str) -> tuple[list[Path], str | None]:
        """Write the run's files; returns their paths, and why there is no page where there is none."""
        device = self.settings["device"]
        written = [write(out / f"{self.name}.json", with_machine(self.results, device))]
        facts = {**environment(device), **self.settings["versions"]}
        facts |= {name: str(self.settings[name]) for name in self.shown}
        try:
            page = self.page(command, facts)
        except ConfigError as error:
            return written, str(error)
        return [*written, write(out / f"{self.name}.html", page)], None


@dataclass(frozen=True)
class Gradients(Found):
    """What `symguide bench gradients` found."""

    errors: list[Row]
    costs: list[Row]
    settings: dict[str, Any]
    name = "gradients"
    shown = ("seed", "threads", "batch", "fine", "repeats")

    @property
    def results(self) -> dict[str, Any]:
        rows = {"errors": Table([], self.errors).records(), "costs": Table([], self.costs).records()}
        return {"settings": self.settings, **rows}

    @property
    def text(self) -> str:
        ns = sorted(self.settings["ns"])
        few = sorted({ns[0], ns[len(ns) // 2], ns[-1]})
        subjects = dict.fromkeys(row["subject"] for row in self.errors)
        parts = [f"{subject}\n\n{tables.error_table(self.errors, subject, few)}\n" for subject in subjects]
        shown = max(n for n in ns if n <= 16)
        parts += [tables.OWN, tables.FLOW]
        parts += [f"\nCost\n\n{tables.cost_table(self.costs, [shown])}\n", tables.COST] if self.costs else []
        return "\n".join([*parts, *_notes()])

    def page(self, command: str, facts: Mapping[str, str]) -> str:
        return tables.page(self.errors, self.costs, command, facts)


@dataclass(frozen=True)
class Memory(Found):
    """What `symguide bench memory` found."""

    rows: list[Row]
    settings: dict[str, Any]
    name = "memory"
    shown = ("seed", "threads", "ns", "base")

    @property
    def results(self) -> dict[str, Any]:
        return {"settings": self.settings, "rows": Table([], self.rows).records()}

    @property
    def text(self) -> str:
        subjects = dict.fromkeys(row["subject"] for row in self.rows)
        parts = [f"{subject}\n\n{memory_tables.by_n(self.rows, subject)}\n" for subject in subjects]
        return "\n".join([*parts, memory_tables.NOTE, "", memory_tables.summary(self.rows), *_notes()])

    def page(self, command: str, facts: Mapping[str, str]) -> str:
        return memory_tables.page(self.rows, command, facts)


@dataclass(frozen=True)
class Quality(Found):
    """What `symguide bench quality` found."""

    samples: list[Row]
    accuracy: list[Row]
    settings: dict[str, Any]
    name = "quality"
    shown = ("threads", "n", "steps", "seeds", "num", "looked", "times", "fine", "real")

    @property
    def results(self) -> dict[str, Any]:
        rows = {"samples": Table([], self.samples).records(), "accuracy": Table([], self.accuracy).records()}
        return {"settings": self.settings, **rows}

    @property
    def text(self) -> str:
        tasks = dict.fromkeys(row["task"] for row in self.samples)
        parts = [f"{task}\n\n{quality_tables.table(self.samples, self.accuracy, task)}\n" for task in tasks]
        return "\n".join([*parts, quality_tables.FIGURES, quality_tables.COSINES, *_notes()])

    def page(self, command: str, facts: Mapping[str, str]) -> str:
        return quality_tables.page(self.samples, self.accuracy, command, facts)


def gradients(
    subjects: Sequence[str],
    dtypes: Sequence[str],
    quick: bool,
    seed: int,
    device: str,
    threads: int,
    unfinished: Path,
    progress: bool | None,
) -> Gradients:
    """Measure all ways to the gradient of a look-ahead.

    Args:
        subjects: names of what they are compared on; the plan's where there are none; costs are those of digits.
        dtypes: precisions of errors beside float64, which the tables need; the plan's where there are none.
        quick: whether to take few of everything.
        seed: of samples and noise.
        device, threads: where, and with how many threads on the CPU.
        unfinished: the file of rows that are done, from which a run that was stopped goes on.
        progress: whether to show a bar; on a terminal alone where None.
    """
    plan = measure.QUICK if quick else measure.Plan()
    plan = replace(plan, subjects=tuple(subjects) or plan.subjects, dtypes=_with_float64(dtypes) or plan.dtypes)
    where = torch.device(device)
    settings = _settings(plan, quick, seed, device, threads)
    with _measuring(settings, measure.work(plan), unfinished, progress) as (tick, keep):
        errors = list(measure.errors(plan, seed, where, tick, keep=keep))
        costs = measure.costs(plan, seed, where, tick) if "digits" in plan.subjects else []
    return Gradients(errors, costs, settings)


def _with_float64(dtypes: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(("float64", *dtypes))) if dtypes else ()


def memory(
    subjects: Sequence[str],
    quick: bool,
    seed: int,
    device: str,
    threads: int,
    unfinished: Path,
    progress: bool | None,
) -> Memory:
    """Measure the memory of all ways to the gradient of a look-ahead; arguments as for `gradients`."""
    plan = weigh.QUICK if quick else weigh.Plan()
    plan = replace(plan, subjects=tuple(subjects) or plan.subjects)
    where = torch.device(device)
    settings = _settings(plan, quick, seed, device, threads)
    with _measuring(settings, weigh.work(plan, where), unfinished, progress) as (tick, keep):
        rows = list(weigh.rows(plan, seed, where, tick, keep=keep))
    return Memory(rows, settings)


def quality(
    tasks: Sequence[str],
    ways: Sequence[str],
    quick: bool,
    seed: int,
    device: str,
    threads: int,
    unfinished: Path,
    progress: bool | None,
) -> Quality:
    """Measure guided samples with the gradient by every way.

    Args:
        tasks: of the scenes world; the plan's where there are none.
        ways: names of ways; all where there are none.
        quick: whether to take few steps and samples.
        seed: of the first run; the next ones have the next seeds.
        device, threads, unfinished, progress: as for `gradients`.
    """
    plan = guided.QUICK if quick else guided.Plan()
    plan = replace(plan, tasks=tuple(tasks) or plan.tasks, seeds=tuple(seed + k for k in plan.seeds))
    rows = guided.chosen(plan, ways)
    settings = {"ways": list(ways), **_settings(plan, quick, seed, device, threads)}
    with _measuring(settings, guided.work(plan, rows), unfinished, progress) as (tick, keep):
        on, meter = guided.world(plan, device)
        accuracy = list(guided.accuracy(plan, rows, on, tick, keep))
        samples = list(guided.samples(plan, rows, on, meter, tick, keep))
    return Quality(samples, accuracy, settings)


def _settings(plan: Any, quick: bool, seed: int, device: str, threads: int) -> dict[str, Any]:
    """All that decides what was measured, and versions of the libraries that ways need and that are there."""
    there = dict.fromkeys(way.library for way in WAYS if way.library and not measure.missing(way))
    versions = {name: version(name) for name in there}
    given = {"quick": quick, "seed": seed, "device": device, "threads": threads, "versions": versions}
    return given | asdict(plan)


def _notes() -> list[str]:
    """What is said of ways whose library is not there."""
    return list(dict.fromkeys(note for way in WAYS if (note := measure.missing(way))))


@contextmanager
def _measuring(
    settings: Mapping[str, Any], total: int, unfinished: Path, progress: bool | None
) -> Iterator[tuple[measure.Tick, Keep]]:
    """A bar that is told what was done, and rows that are kept; with the settings' threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(settings["threads"])
    hidden = None if progress is None else not progress
    kept = Kept(unfinished, {**settings, **environment(settings["device"])})
    try:
        with tqdm(total=total, unit="cell", disable=hidden, leave=False, file=sys.stderr) as bar:
            if kept.rows and not bar.disable:
                bar.write(f"going on from {len(kept.rows)} rows in {unfinished}", file=sys.stderr)

            def tick(what: str) -> None:
                bar.set_description(what, refresh=False)
                bar.update()

            yield tick, kept
    finally:
        torch.set_num_threads(before)
