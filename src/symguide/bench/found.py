"""What a benchmark found: its results as JSON, its tables for a terminal, its page."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from symguide.bench import memory_tables, quality_tables, tables
from symguide.bench.gradients import missing
from symguide.bench.kept import Row
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
        shown = max((n for n in ns if n <= 16), default=ns[0])
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


def _notes() -> list[str]:
    """What is said of ways whose library is not there."""
    return list(dict.fromkeys(note for way in WAYS if (note := missing(way))))
