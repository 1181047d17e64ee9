"""A run of a benchmark: measured under one progress bar, then written as JSON and as a page."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from symguide.bench import gradients as measure
from symguide.bench import tables
from symguide.bench.ways import WAYS
from symguide.errors import ConfigError
from symguide.report import Table, environment, with_machine, write


@dataclass(frozen=True)
class Gradients:
    """What `symguide bench gradients` found."""

    errors: list[measure.Row]
    costs: list[measure.Row]
    settings: dict[str, Any]

    @property
    def results(self) -> dict[str, Any]:
        """Everything measured, as JSON values."""
        rows = {"errors": Table([], self.errors).records(), "costs": Table([], self.costs).records()}
        return {"settings": self.settings, **rows}

    @property
    def text(self) -> str:
        """The tables for a terminal."""
        ns = sorted(self.settings["ns"])
        few = sorted({ns[0], ns[len(ns) // 2], ns[-1]})
        subjects = dict.fromkeys(row["subject"] for row in self.errors)
        parts = [f"{subject}\n\n{tables.error_table(self.errors, subject, few)}\n" for subject in subjects]
        shown = max(n for n in ns if n <= 16)
        parts += [tables.OWN, tables.FLOW]
        parts += [f"\nCost\n\n{tables.cost_table(self.costs, [shown])}\n", tables.COST] if self.costs else []
        return "\n".join([*parts, *dict.fromkeys(note for way in WAYS if (note := measure.missing(way)))])

    def write(self, out: Path, command: str) -> tuple[list[Path], str | None]:
        """Write the run's files; returns their paths, and why there is no page where there is none."""
        device = self.settings["device"]
        written = [write(out / "gradients.json", with_machine(self.results, device))]
        facts = {**environment(device), **self.settings["versions"]}
        facts |= {name: str(self.settings[name]) for name in ("seed", "threads", "batch", "fine", "repeats")}
        try:
            page = tables.page(self.errors, self.costs, command, facts)
        except ConfigError as error:
            return written, str(error)
        return [*written, write(out / "gradients.html", page)], None


def gradients(
    subjects: Sequence[str], quick: bool, seed: int, device: str, threads: int, progress: bool | None
) -> Gradients:
    """Measure all ways to the gradient of a look-ahead.

    Args:
        subjects: names of what they are compared on, none for all; costs are those of digits.
        quick: whether to take few of everything.
        seed: of samples and noise.
        device, threads: where, and with how many threads on the CPU.
        progress: whether to show a bar; on a terminal alone where None.
    """
    plan = measure.QUICK if quick else measure.Plan()
    plan = replace(plan, subjects=tuple(name for name in plan.subjects if name in (subjects or plan.subjects)))
    where = torch.device(device)
    hidden = None if progress is None else not progress
    total = measure.work(plan)
    with _threads(threads), tqdm(total=total, unit="cell", disable=hidden, leave=False, file=sys.stderr) as bar:

        def tick(what: str) -> None:
            bar.set_description(what, refresh=False)
            bar.update()

        errors = list(measure.errors(plan, seed, where, tick))
        costs = measure.costs(plan, seed, where, tick) if "digits" in plan.subjects else []
    given = {"quick": quick, "seed": seed, "device": device, "threads": threads, "versions": _versions()}
    return Gradients(errors, costs, given | asdict(plan))


def _versions() -> dict[str, str]:
    """Of the libraries that ways need; those that are not there have none."""
    there = dict.fromkeys(way.library for way in WAYS if way.library and not measure.missing(way))
    return {name: version(name) for name in there}


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """So many threads inside, as many as before outside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
