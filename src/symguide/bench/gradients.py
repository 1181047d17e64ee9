"""The gradient of a look-ahead by every way: how exact it is, how near to the flow's, and what it costs."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from symguide.bench.kept import Keep, Row, unkept
from symguide.bench.subjects import SUBJECTS, Subject, T
from symguide.bench.way import DTYPES, Task, Way, by_autograd
from symguide.bench.ways import WAYS
from symguide.errors import ConfigError
from symguide.extras import library
from symguide.meter import SavedBytes
from symguide.solver import SOLVERS

Tick = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        subjects, solvers, ns, dtypes: of errors; ways with a sampler of their own have that one.
        batch: samples of errors.
        fine: calls of the grid that stands for the flow where it has no closed form.
        cost_batch, repeats: of bytes and seconds, which are the digits model's in float32.
    """

    subjects: tuple[str, ...] = tuple(SUBJECTS)
    solvers: tuple[str, ...] = tuple(SOLVERS)
    ns: tuple[int, ...] = (1, 2, 4, 8, 16, 50)
    dtypes: tuple[str, ...] = tuple(DTYPES)
    batch: int = 4
    fine: int = 400
    cost_batch: int = 16
    repeats: int = 5


QUICK = Plan(
    subjects=("gaussian", "mixture", "digits"),
    solvers=("ddim", "heun"),
    ns=(1, 4),
    dtypes=("float64", "float32"),
    batch=2,
    fine=64,
    cost_batch=4,
    repeats=1,
)


def work(plan: Plan, ways: Sequence[Way] = WAYS) -> int:
    """How many times `errors` and `costs` tick."""
    there = [way for way in ways if not missing(way)]
    cells = sum(len(_solvers(way, plan)) for way in there) * len(plan.ns) * len(plan.subjects)
    return cells + (len(there) * len(plan.ns) + plan.repeats if "digits" in plan.subjects else 0)


def missing(way: Way) -> str:
    """The sentence that says how to get the way's library, "" where it is there or none is needed."""
    try:
        if way.library:
            library(way.library, way.name, "bench")
    except ConfigError as error:
        return str(error)
    return ""


def errors(
    plan: Plan, seed: int, device: torch.device, tick: Tick, ways: Sequence[Way] = WAYS, keep: Keep = unkept
) -> Iterator[Row]:
    """A row for every subject, way, solver, n and precision; all against gradients in float64.

    own: the relative error against autograd through the way's own discretisation.
    flow, cosine: relative error and cosine similarity against the gradient of the continuous flow.
    """
    for name in plan.subjects:
        compared = _Compared(SUBJECTS[name](plan.batch, seed, device), plan.fine)
        for way in ways:
            if missing(way):
                yield {"subject": name, "way": way.name, "missing": way.library}
                continue
            for solver in _solvers(way, plan):
                for n in plan.ns:
                    for dtype in plan.dtypes:
                        what = {"subject": name, "way": way.name, "solver": solver, "n": n, "dtype": dtype}
                        yield keep(what, partial(compared.errors, way, solver, n, dtype))
                    tick(f"{name}: {way.name}")


class _Compared:
    """Gradients of a subject beside their references, each of which is made once, where it is first asked for."""

    def __init__(self, subject: Subject, fine: int) -> None:
        self.subject, self.fine = subject, fine
        self.exact: dict[tuple[str, str, int], Tensor] = {}

    @cached_property
    def flow(self) -> Tensor:
        return self.subject.flow(self.fine)

    def errors(self, way: Way, solver: str, n: int, dtype: str) -> Row:
        key = way.map, solver, n
        if key not in self.exact:
            self.exact[key] = _reference(way, self.subject, n, solver)
        made = _gradient(way, self.subject, n, solver, dtype)
        errors = {"own": relative(made, self.exact[key]), "flow": relative(made, self.flow)}
        return {**errors, "cosine": _cosine(made, self.flow)}


def costs(plan: Plan, seed: int, device: torch.device, tick: Tick, ways: Sequence[Way] = WAYS) -> list[Row]:
    """A row for every way and n, with the digits model in float32 and the way's first solver.

    forward, backward: calls of a sample, counted at the network. saved: bytes that autograd holds for backward at most.
    states: samples stored beside those. time: seconds to those of one forward call, the median of some repetitions.
    """
    subject = SUBJECTS["digits"](plan.cost_batch, seed, device)
    x = subject.x.float()
    one = subject.task(1, "ddim", "float32")
    tasks: dict[tuple[str, int], Callable[[], object]] = {}
    rows: list[Row] = []
    for way in ways:
        if missing(way):
            rows.append({"way": way.name, "missing": way.library})
            continue
        for n in plan.ns:
            task = subject.task(n, way.solvers[0], "float32")
            counted, passes = task.metered()
            with task.denoiser.frozen(), SavedBytes() as saved:
                way.gradient(counted, x)
            calls = {"forward": passes.forward / len(x), "backward": passes.backward / len(x)}
            held = {"saved": saved.peak, "states": way.states(task)}
            rows.append({"way": way.name, "solver": task.solver, "n": n, **calls, **held})
            tasks[way.name, n] = _timed(way, task, x)
            tick(f"costs: {way.name}")
    ratios = in_turn(lambda: _forward(one, x), tasks, plan.repeats, device, tick)
    return [row if "missing" in row else {**row, "time": ratios[row["way"], row["n"]]} for row in rows]


def relative(a: Tensor, b: Tensor) -> float:
    """|a - b| / |b| over the whole batch, in float64."""
    return ((a.double() - b).norm() / b.norm()).item()


def _cosine(a: Tensor, b: Tensor) -> float:
    return torch.nn.functional.cosine_similarity(a.double().flatten(), b.flatten(), dim=0).item()


def _solvers(way: Way, plan: Plan) -> list[str]:
    """The plan's solvers that the way has, or its own sampler."""
    return [solver for solver in way.solvers if solver in plan.solvers or solver not in SOLVERS]


def _reference(way: Way, subject: Subject, n: int, solver: str) -> Tensor:
    task = subject.task(n, solver, "float64")
    with task.denoiser.frozen():
        return by_autograd(way, task, subject.x)


def _gradient(way: Way, subject: Subject, n: int, solver: str, dtype: str) -> Tensor:
    task = subject.task(n, solver, dtype)
    with task.denoiser.frozen():
        return way.gradient(task, subject.x.to(DTYPES[dtype]))


@torch.no_grad()
def _forward(task: Task, x: Tensor) -> Tensor:
    return task.denoiser(x, T).x0


def _timed(way: Way, task: Task, x: Tensor) -> Callable[[], object]:
    def run() -> Tensor:
        with task.denoiser.frozen():
            return way.gradient(task, x)

    return run


def in_turn(
    unit: Callable[[], object],
    tasks: dict[tuple[str, int], Callable[[], object]],
    repeats: int,
    device: torch.device,
    tick: Tick,
) -> dict[tuple[str, int], float]:
    """Median seconds of every task to the unit's, which runs before each of them.

    All are run in turn, so that a slow moment of the machine hits all alike.
    """
    units: list[float] = []
    seconds: dict[tuple[str, int], list[float]] = {name: [] for name in tasks}
    for _ in range(repeats):
        for name, task in tasks.items():
            units.append(_seconds(unit, device))
            seconds[name].append(_seconds(task, device))
        tick("costs: seconds")
    return {name: statistics.median(values) / statistics.median(units) for name, values in seconds.items()}


def _seconds(task: Callable[[], object], device: torch.device) -> float:
    begun = time.perf_counter()
    task()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begun
