"""One benchmark of `symguide bench`: where it runs, the rows that it goes on from, and the files that it writes."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.common import with_machine
from benchmarks.peers.way import Way
from benchmarks.peers.ways import WAYS
from symguide.errors import ConfigError
from symguide.report import environment, write
from symguide.rows import Rows

Tick = Callable[[str], None]
"""Says that a cell was measured, and of what."""


@dataclass(frozen=True)
class Setup:
    """Where and how a benchmark runs.

    Attributes:
        unfinished: the file of rows that are measured, from which a run that was stopped goes on.
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

    def settings(self, plan: Any, ways: Iterable[str]) -> dict[str, Any]:
        """All that decides what is measured, and versions of the libraries that ways need and that are installed."""
        versions = {
            name: version(name) for name in dict.fromkeys(w.library for w in WAYS if w.library and not w.missing)
        }
        given = {"quick": self.quick, "seed": self.seed, "device": self.device, "threads": self.threads}
        return {"ways": list(ways), **given, "versions": versions, **asdict(plan)}

    @contextmanager
    def measuring(self, settings: Mapping[str, Any], total: int) -> Iterator[tuple[Tick, Rows]]:
        """A bar that is told what was measured, and the rows so far; with the setup's threads inside."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        rows = Rows(self.unfinished, {**settings, **environment(self.device)})
        hidden = None if self.progress is None else not self.progress
        try:
            with tqdm(total=total, unit="cell", disable=hidden, leave=False, file=sys.stderr) as bar:
                if rows.rows and not bar.disable:
                    bar.write(f"going on from {len(rows.rows)} rows in {self.unfinished}", file=sys.stderr)

                def tick(what: str) -> None:
                    bar.set_description(what, refresh=False)
                    bar.update()

                yield tick, rows
        finally:
            torch.set_num_threads(before)


class Results(ABC):
    """What a benchmark measured: as JSON, as tables for a terminal, as a page.

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


def planned(plan: Any, chosen: Mapping[str, Sequence[Any]]) -> Any:
    """The plan, with what was chosen in place of its own."""
    return replace(plan, **{name: tuple(dict.fromkeys(values)) for name, values in chosen.items() if values})


def named(names: Sequence[str]) -> tuple[Way, ...]:
    """The ways of these names, all where there are none."""
    return tuple(way for way in WAYS if not names or way.name in names)


def text(parts: Iterable[str]) -> str:
    """Parts of a text one after the other, and what is said of ways whose library is not installed."""
    return "\n".join([*parts, *dict.fromkeys(way.missing for way in WAYS if way.missing)])
