"""The memory of a look-ahead's gradient by every way: what it holds at most, beside what was predicted."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from symguide.bench.gradients import Tick, missing
from symguide.bench.kept import Keep, Row, unkept
from symguide.bench.networks import LIVE, ON_CPU, ON_GPU, SAVED, SUBJECTS, Network, Subject
from symguide.bench.way import Task, Way
from symguide.bench.ways import WAYS
from symguide.errors import ConfigError
from symguide.memory_plan import Forecast
from symguide.meter import SavedBytes
from symguide.planning.simulate import LiveBytes

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
    return len(plan.blocks) * calls * len([way for way in ways if not missing(way)])


def rows(
    plan: Plan, seed: int, device: torch.device, tick: Tick, ways: Sequence[Way] = WAYS, keep: Keep = unkept
) -> Iterator[Row]:
    """A row for every subject, size, batch, way, n, with and without checkpointed blocks.

    saved: bytes that autograd holds for backward at most (on a CPU). peak: bytes of all tensors that are made, as they
    come and go; on a GPU what its allocator had given out at most. Weights and the samples at the start count in
    neither. "predicted saved" and "predicted peak" are what `Forecast` says. fits: False where the device's memory was
    too small. Ways that `Forecast` does not speak of have no prediction, and are not run with checkpointed blocks.
    """
    for name, subject in plan.named(device).items():
        try:
            network = subject.make(device)
        except ConfigError as error:
            yield {"subject": name, "missing": str(error)}
            continue
        yield from ({"subject": name, "way": way.name, "missing": way.library} for way in ways if missing(way))
        for size, batch, ns in plan.cells(subject):
            for checkpoint in (blocks == "again" for blocks in plan.blocks):
                weights = _weighed(name, network, size, batch, checkpoint)
                for way in (way for way in ways if not missing(way)):
                    for n in ns:
                        task = network.task(size, n, way.solvers[0], checkpoint)
                        x = network.start(size, batch, seed)
                        guess = predicted(way, task, weights, x)
                        if guess or (plan.everything and not checkpoint):
                            what = {"subject": name, "way": way.name, "n": n, "size": size, "batch": batch}
                            what["checkpoint"] = checkpoint
                            yield keep(what, partial(measured, way, task, network, x, checkpoint)) | guess
                        tick(f"{name}: {way.name}")


def _weighed(name: str, network: Network, size: int, batch: int, checkpoint: bool) -> Mapping[str, Forecast]:
    try:
        return network.weigh(size, batch, checkpoint)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"{name} has no pictures of {size} pixels: choose another --size ({error})") from error


def predicted(way: Way, task: Task, weights: Mapping[str, Forecast], x: Tensor) -> Row:
    """What the way will hold, of both kinds of bytes; nothing where nobody can say.

    All states are tensors, and so is the clean estimate; saved for backward are those that autograd stores.
    """
    kept = way.kept(task, replace(weights[SAVED], n=task.n), x.device)
    if kept is None:
        return {}
    states = {SAVED: way.seen(task) * x.nbytes, LIVE: (task.n + 1) * x.nbytes}
    return {f"predicted {kind}": replace(w, n=task.n, states=states[kind]).peak(kept) for kind, w in weights.items()}


def measured(way: Way, task: Task, network: Network, x: Tensor, checkpoint: bool) -> Row:
    """What the way held."""
    with ExitStack() as within:
        within.enter_context(network.within(checkpoint))
        within.enter_context(task.denoiser.frozen())
        if network.device.type != "cuda":
            saved, live = within.enter_context(SavedBytes()), within.enter_context(LiveBytes())
            way.gradient(task, x)
            return {"fits": True, SAVED: saved.peak, LIVE: live.peak}
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated(network.device)
        torch.cuda.reset_peak_memory_stats(network.device)
        try:
            way.gradient(task, x)
        except torch.OutOfMemoryError:
            return {"fits": False}
        return {"fits": True, LIVE: torch.cuda.max_memory_allocated(network.device) - before}


def ratio(row: Row, kind: str) -> float | None:
    """Measured to predicted bytes; None where one of them is not there."""
    there = row.get(kind) and row.get(f"predicted {kind}")
    return row[kind] / row[f"predicted {kind}"] if there else None
