"""The memory of a look-ahead's gradient by every way: what it holds at most, beside what was predicted."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.lines import Panel, draw_lines
from benchmarks.peers.benchmark import Results, Setup, Tick, named, planned, text
from benchmarks.peers.networks import LIVE, ON_CPU, ON_GPU, SAVED, SUBJECTS, Network, Subject
from benchmarks.peers.way import Problem, Way
from benchmarks.peers.ways import WAYS
from symguide.errors import ConfigError
from symguide.memory_plan import Forecast
from symguide.meter import SavedBytes, show_bytes
from symguide.planning.simulate import LiveBytes
from symguide.report import Column, Section, Table, render_page
from symguide.rows import Row, Rows

TITLE = "Memory of a look-ahead's gradient"
LEAD = (
    "Bytes that the gradient of a loss at the clean sample n calls ahead holds at most, by every way, beside what was "
    "predicted: same network, loss and start. Weights are left out."
)
NOTE = (
    "saved: bytes that autograd holds for backward at most (CPU). peak: bytes of all tensors as they come and go, on a "
    "GPU of its allocator; blocks that are computed again show here alone. blocks: kept, or again where each one is "
    "computed again in the sweep. measured / predicted: the farthest from 1 over all n, sizes and batches; a dash "
    "where there is no prediction."
)
KINDS = (SAVED, LIVE)

BLOCKS = ("kept", "again")
"""What graphs hold of the network's blocks: all, or what goes in, where each is computed again in the sweep."""


@dataclass(frozen=True)
class Plan:
    """What is measured of each subject: all n at its first size and batch, then its sizes and batches at `base` calls.

    Attributes:
        subjects: names; none for those that the device is for.
        ns: calls of the look-ahead.
        base: calls at other sizes and batches, the last of `ns` where it is none of them.
        everything: whether subjects are measured at all their sizes and batches and by all ways, or at the first ones
            and by the ways that have a forecast.
        sizes, batches: pixels and samples; none for the subject's own.
        blocks: of BLOCKS, what becomes of the network's blocks.
    """

    subjects: tuple[str, ...] = ()
    ns: tuple[int, ...] = (1, 2, 4, 8, 16)
    base: int = 4
    everything: bool = True
    sizes: tuple[int, ...] = ()
    batches: tuple[int, ...] = ()
    blocks: tuple[str, ...] = BLOCKS

    def named(self, device: torch.device) -> Mapping[str, Subject]:
        """The subjects on this device."""
        names = self.subjects or (ON_GPU if device.type == "cuda" else ON_CPU)
        return {name: self._asked(SUBJECTS[name] if self.everything else SUBJECTS[name].first()) for name in names}

    def _asked(self, subject: Subject) -> Subject:
        return replace(subject, sizes=self.sizes or subject.sizes, batches=self.batches or subject.batches)

    def cells(self, subject: Subject) -> list[tuple[int, int, list[int]]]:
        """(size, batch, ns), each size and batch once."""
        (size, *sizes), (batch, *batches) = subject.sizes, subject.batches
        more = [(other, batch) for other in sizes] + [(size, other) for other in batches]
        base = self.base if self.base in self.ns else self.ns[-1]
        return [(size, batch, list(self.ns)), *((*where, [base]) for where in more)]


QUICK = Plan(("digits", "small-transformer"), (1, 4), everything=False)


def work(plan: Plan, device: torch.device, ways: Sequence[Way] = WAYS) -> int:
    """How many times `rows` ticks at most."""
    calls = sum(len(ns) for subject in plan.named(device).values() for _, _, ns in plan.cells(subject))
    return len(plan.blocks) * calls * len([way for way in ways if not way.missing])


def rows(
    plan: Plan, seed: int, device: torch.device, tick: Tick, ways: Sequence[Way] = WAYS, kept: Rows | None = None
) -> Iterator[Row]:
    """A row for every subject, size, batch, way, n, with and without checkpointed blocks.

    saved: bytes that autograd holds for backward at most (on a CPU). peak: bytes of all tensors that are made, as they
    come and go; on a GPU what its allocator had given out at most. Weights and the samples at the start count in
    neither. "predicted saved" and "predicted peak" are what `Forecast` says. fits: False where the device's memory was
    too small. Ways that `Forecast` does not speak of have no prediction, and are not run with checkpointed blocks.
    """
    kept = kept or Rows()
    for name, subject in plan.named(device).items():
        try:
            network = subject.make(device)
        except ConfigError as error:
            yield {"subject": name, "missing": str(error)}
            continue
        yield from ({"subject": name, "way": way.name, "missing": way.library} for way in ways if way.missing)
        for size, batch, ns in plan.cells(subject):
            for checkpoint in (blocks == "again" for blocks in plan.blocks):
                weights = _weighed(name, network, size, batch, checkpoint)
                for way in (way for way in ways if not way.missing):
                    for n in ns:
                        problem = network.problem(size, n, way.solvers[0], checkpoint)
                        x = network.start(size, batch, seed)
                        guess = predicted(way, problem, weights, x)
                        if guess or (plan.everything and not checkpoint):
                            what = {"subject": name, "way": way.name, "n": n, "size": size, "batch": batch}
                            what["checkpoint"] = checkpoint
                            yield kept.get(what, partial(measured, way, problem, network, x, checkpoint)) | guess
                        tick(f"{name}: {way.name}")


def _weighed(name: str, network: Network, size: int, batch: int, checkpoint: bool) -> Mapping[str, Forecast]:
    try:
        return network.weigh(size, batch, checkpoint)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"{name} has no pictures of {size} pixels: choose another --size ({error})") from error


def predicted(way: Way, problem: Problem, weights: Mapping[str, Forecast], x: Tensor) -> Row:
    """What the way will hold, of both kinds of bytes; nothing where nobody can say.

    All states are tensors, and so is the clean estimate; saved for backward are those that autograd stores.
    """
    kept = way.kept(problem, replace(weights[SAVED], n=problem.n), x.device)
    if kept is None:
        return {}
    states = {SAVED: way.seen(problem) * x.nbytes, LIVE: (problem.n + 1) * x.nbytes}
    return {f"predicted {kind}": replace(w, n=problem.n, states=states[kind]).peak(kept) for kind, w in weights.items()}


def measured(way: Way, problem: Problem, network: Network, x: Tensor, checkpoint: bool) -> Row:
    """What the way held."""
    with ExitStack() as within:
        within.enter_context(network.within(checkpoint))
        within.enter_context(problem.denoiser.frozen())
        if network.device.type != "cuda":
            saved, live = within.enter_context(SavedBytes()), within.enter_context(LiveBytes())
            way.gradient(problem, x)
            return {"fits": True, SAVED: saved.peak, LIVE: live.peak}
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(network.device)
        torch.cuda.reset_peak_memory_stats(network.device)
        try:
            way.gradient(problem, x)
        except torch.OutOfMemoryError:
            return {"fits": False}
        return {"fits": True, LIVE: torch.cuda.max_memory_allocated(network.device) - before}


def ratio(row: Row, kind: str) -> float | None:
    """Measured to predicted bytes; None where one of them is not there."""
    there = row.get(kind) and row.get(f"predicted {kind}")
    return row[kind] / row[f"predicted {kind}"] if there else None


@dataclass(frozen=True)
class Memory(Results):
    """What `symguide bench memory` measured."""

    rows: list[Row]
    settings: dict[str, Any]
    name = "memory"
    shown = ("seed", "threads", "ns", "base")

    @property
    def results(self) -> dict[str, Any]:
        return {"settings": self.settings, "rows": Table([], self.rows).records()}

    @property
    def text(self) -> str:
        parts = [f"{name}\n\n{by_n(self.rows, name)}\n" for name in self.subjects]
        return text([*parts, NOTE, "", summary(self.rows)])

    def page(self, command: str, facts: Mapping[str, str]) -> str:
        sections = []
        for name in self.subjects:
            fits = [row for row in self.rows if row["subject"] == name and row.get("fits")]
            plot, notes = (_plot(fits), [NOTE]) if fits else (None, [])
            sections.append(Section(name, table=by_n(self.rows, name), svg=plot, notes=notes))
            sections += [Section(f"{name}: all measurements", table=all_rows(self.rows, name))] if fits else []
        return render_page(TITLE, LEAD, command, sections, facts)

    @property
    def subjects(self) -> list[str]:
        return list(dict.fromkeys(row["subject"] for row in self.rows))


def run(setup: Setup, **chosen: Sequence[Any]) -> Memory:
    """Measure the memory of all ways to the gradient of a look-ahead.

    Args:
        setup: where and how.
        chosen: of the plan's subjects, sizes, batches and ns, and names of ways; the plan's, and all ways, where there
            are none.
    """
    ways, plan = named(chosen.pop("ways", ())), planned(QUICK if setup.quick else Plan(), chosen)
    settings = setup.settings(plan, [way.name for way in ways])
    with setup.measuring(settings, work(plan, setup.where, ways)) as (tick, kept):
        return Memory(list(rows(plan, setup.seed, setup.where, tick, ways, kept)), settings)


def by_n(rows: Sequence[Row], subject: str) -> Table:
    """One line for every way of a subject, with and without checkpointed blocks, at its first size and batch."""
    mine = [row for row in rows if row["subject"] == subject]
    made = [row for row in mine if "missing" not in row]
    first = (made[0]["size"], made[0]["batch"]) if made else None
    at_first = [row for row in made if (row["size"], row["batch"]) == first]
    kinds = [kind for kind in KINDS if any(kind in row for row in made)]
    ns = sorted({row["n"] for row in at_first})
    ns = sorted({ns[0], ns[len(ns) // 2], ns[-1]}) if ns else []
    columns = [Column("way", "way"), Column("blocks", "blocks")]
    columns += [Column(f"{kind} {n}", f"{kind}\nn = {n}", show_bytes) for kind in kinds for n in ns]
    columns += [Column(f"ratio {kind}", f"{kind}: measured\n/ predicted", "{:.3f}") for kind in kinds]
    lines: dict[tuple[str, str], Row] = {}
    for row in mine:
        if "missing" in row:
            lines["", row["missing"]] = {"way": row.get("way", subject), "blocks": f"needs {row['missing']}"}
            continue
        blocks = "again" if row["checkpoint"] else "kept"
        line = lines.setdefault((row["way"], blocks), {"way": row["way"], "blocks": blocks})
        for kind in kinds:
            if (row["size"], row["batch"]) == first:
                line[f"{kind} {row['n']}"] = row.get(kind)
            found = ratio(row, kind)
            if found is not None:
                line[f"ratio {kind}"] = max(line.get(f"ratio {kind}", 1.0), found, key=lambda r: abs(r - 1))
    return Table(columns, list(lines.values()))


def all_rows(rows: Sequence[Row], subject: str) -> Table:
    """Every measurement of a subject."""
    made = [row for row in rows if row["subject"] == subject and "missing" not in row]
    kinds = [kind for kind in KINDS if any(kind in row for row in made)]
    columns = [Column("way", "way"), Column("blocks", "blocks")]
    columns += [Column(key, key) for key in ("size", "batch", "n")]
    for kind in kinds:
        columns += [Column(kind, kind, show_bytes), Column(f"predicted {kind}", f"predicted\n{kind}", show_bytes)]
        columns += [Column(f"ratio {kind}", "measured\n/ predicted", "{:.3f}")]
    ratios = [{f"ratio {kind}": ratio(row, kind) for kind in kinds} for row in made]
    blocks = ["again" if row["checkpoint"] else "kept" for row in made]
    return Table(columns, [{**row, **more, "blocks": b} for row, more, b in zip(made, ratios, blocks, strict=True)])


def summary(rows: Sequence[Row]) -> str:
    """How far predictions are from what was measured at most, and what the largest n costs under "minimal"."""
    lines = []
    for kind in KINDS:
        found = [r for row in rows if (r := ratio(row, kind)) is not None]
        if found:
            low, high = min(found), max(found)
            lines.append(f"measured / predicted {kind}: {low:.3f} to {high:.3f} in {len(found)} measurements")
        for subject in dict.fromkeys(row["subject"] for row in rows):
            flat = _growth(rows, subject, kind)
            lines += [f"{subject}, minimal: {flat}"] if flat else []
    return "\n".join(lines)


def _growth(rows: Sequence[Row], subject: str, kind: str) -> str:
    """Bytes at the largest n to those at the smallest under "minimal", as a sentence; "" where there are no two."""
    mine = [
        row for row in rows if row["subject"] == subject and row.get("way") == "symguide, minimal" and row.get(kind)
    ]
    first = {row["n"]: row[kind] for row in reversed(mine) if not row["checkpoint"] and _same(row, mine[0])}
    if len(first) < 2:
        return ""
    few, many = min(first), max(first)
    return f"n = {many} holds {first[many] / first[few]:.3f} times the bytes of n = {few} ({kind})"


def _same(row: Row, other: Row) -> bool:
    return bool(row["size"] == other["size"] and row["batch"] == other["batch"])


def _plot(rows: Sequence[Row]) -> str:
    """MB by n at the first size and batch, without checkpointed blocks; and measured by predicted, of all."""
    kind = SAVED if SAVED in rows[0] else LIVE
    by_n: dict[str, list[tuple[float, float]]] = {}
    against: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if _same(row, rows[0]) and not row["checkpoint"]:
            by_n.setdefault(row["way"], []).append((row["n"], row[kind] / 1e6))
        if ratio(row, LIVE) is not None:
            against.setdefault(row["way"], []).append((row[f"predicted {LIVE}"] / 1e6, row[LIVE] / 1e6))
    return draw_lines(
        [
            Panel(f"{kind}, MB", "n", by_n, floor=1e-6),
            Panel("peak, MB", "predicted, MB", {way: sorted(points) for way, points in against.items()}),
        ]
    )
