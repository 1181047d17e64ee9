"""The gradient of a look-ahead by every way: how exact it is, how near to the flow's, and what it costs."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.lines import Panel, draw_lines
from benchmarks.peers.benchmark import Results, Setup, Tick, named, planned, text
from benchmarks.peers.programs import Sweep
from benchmarks.peers.subjects import SUBJECTS, Subject, T
from benchmarks.peers.way import DTYPES, Problem, Way, by_autograd
from benchmarks.peers.ways import WAYS
from symguide.meter import SavedBytes, show_bytes
from symguide.report import Column, Section, Table, render_page
from symguide.rows import Row, Rows
from symguide.solver import SOLVERS

TITLE = "Gradients of a look-ahead"
LEAD = (
    "The gradient of a loss at the clean sample n calls ahead, by every way: same network, loss, grid and start. "
    "Exact for the discrete map is not exact for the flow, so there are two errors."
)
OWN = (
    "own map: relative error against autograd through the way's own discretisation in float64; of gradients in float32 "
    "and bfloat16, the worst over n. It holds what round-off does, and what the way leaves out."
)
FLOW = (
    "flow: relative error in float64 against the gradient of the continuous flow, which shrinks with finer grids; "
    "cosine: of the angle between the two."
)
COST = (
    "Calls of one sample, counted at the network. saved: bytes that autograd holds for backward at most. states: "
    "samples stored beside those. time: in forward calls."
)
PLANS = {way.name: "symguide, all plans" for way in WAYS if isinstance(way, Sweep)}
TINY = 1e-17  # where an error of 0 is drawn


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
    there = [way for way in ways if not way.missing]
    cells = sum(len(_solvers(way, plan)) for way in there) * len(plan.ns) * len(plan.subjects)
    return cells + (len(there) * len(plan.ns) + plan.repeats if "digits" in plan.subjects else 0)


def errors(
    plan: Plan, seed: int, device: torch.device, tick: Tick, ways: Sequence[Way] = WAYS, rows: Rows | None = None
) -> Iterator[Row]:
    """A row for every subject, way, solver, n and precision; all against gradients in float64.

    own: the relative error against autograd through the way's own discretisation.
    flow, cosine: relative error and cosine similarity against the gradient of the continuous flow.
    """
    rows = rows or Rows()
    for name in plan.subjects:
        compared = _Compared(SUBJECTS[name](plan.batch, seed, device), plan.fine)
        for way in ways:
            if way.missing:
                yield {"subject": name, "way": way.name, "missing": way.library}
                continue
            for solver in _solvers(way, plan):
                for n in plan.ns:
                    for dtype in plan.dtypes:
                        what = {"subject": name, "way": way.name, "solver": solver, "n": n, "dtype": dtype}
                        yield rows.get(what, partial(compared.errors, way, solver, n, dtype))
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
    one = subject.problem(1, "ddim", "float32")
    tasks: dict[tuple[str, int], Callable[[], object]] = {}
    rows: list[Row] = []
    for way in ways:
        if way.missing:
            rows.append({"way": way.name, "missing": way.library})
            continue
        for n in plan.ns:
            problem = subject.problem(n, way.solvers[0], "float32")
            counted, passes = problem.metered()
            with problem.denoiser.frozen(), SavedBytes() as saved:
                way.gradient(counted, x)
            calls = {"forward": passes.forward / len(x), "backward": passes.backward / len(x)}
            held = {"saved": saved.peak, "states": way.states(problem)}
            rows.append({"way": way.name, "solver": problem.solver, "n": n, **calls, **held})
            tasks[way.name, n] = _timed(way, problem, x)
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
    problem = subject.problem(n, solver, "float64")
    with problem.denoiser.frozen():
        return by_autograd(way, problem, subject.x)


def _gradient(way: Way, subject: Subject, n: int, solver: str, dtype: str) -> Tensor:
    problem = subject.problem(n, solver, dtype)
    with problem.denoiser.frozen():
        return way.gradient(problem, subject.x.to(DTYPES[dtype]))


@torch.no_grad()
def _forward(problem: Problem, x: Tensor) -> Tensor:
    return problem.denoiser(x, T).x0


def _timed(way: Way, problem: Problem, x: Tensor) -> Callable[[], object]:
    def run() -> Tensor:
        with problem.denoiser.frozen():
            return way.gradient(problem, x)

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


@dataclass(frozen=True)
class Gradients(Results):
    """What `symguide bench gradients` measured."""

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
        parts = [f"{name}\n\n{error_table(self.errors, name, few)}\n" for name in self.subjects]
        shown = max((n for n in ns if n <= 16), default=ns[0])
        parts += [OWN, FLOW]
        parts += [f"\nCost\n\n{cost_table(self.costs, [shown])}\n", COST] if self.costs else []
        return text(parts)

    def page(self, command: str, facts: Mapping[str, str]) -> str:
        ns = sorted({row["n"] for row in self.errors if "n" in row})
        sections = [
            Section(
                name,
                table=error_table(self.errors, name, ns),
                svg=_error_plot(self.errors, name),
                notes=[OWN, FLOW],
            )
            for name in self.subjects
        ]
        if self.costs:
            sections.append(Section("Cost", table=cost_table(self.costs, ns), svg=_cost_plot(self.costs), notes=[COST]))
        return render_page(TITLE, LEAD, command, sections, facts)

    @property
    def subjects(self) -> list[str]:
        return list(dict.fromkeys(row["subject"] for row in self.errors))


def run(setup: Setup, **chosen: Sequence[Any]) -> Gradients:
    """Measure all ways to the gradient of a look-ahead.

    Args:
        setup: where and how.
        chosen: of the plan's subjects, dtypes (beside float64, which the tables need) and ns, and names of ways; the
            plan's, and all ways, where there are none. Costs are those of digits.
    """
    if chosen.get("dtypes"):
        chosen["dtypes"] = list(dict.fromkeys(("float64", *chosen["dtypes"])))
    ways, plan = named(chosen.pop("ways", ())), planned(QUICK if setup.quick else Plan(), chosen)
    settings = setup.settings(plan, [way.name for way in ways])
    with setup.measuring(settings, work(plan, ways)) as (tick, rows):
        found = list(errors(plan, setup.seed, setup.where, tick, ways, rows))
        cost = costs(plan, setup.seed, setup.where, tick, ways) if "digits" in plan.subjects else []
    return Gradients(found, cost, settings)


def error_table(rows: Sequence[Row], subject: str, ns: Sequence[int]) -> Table:
    """One line for every way and solver of a subject, the memory plans in one; errors of the worst plan."""
    mine = [row for row in rows if row["subject"] == subject]
    dtypes = [dtype for dtype in DTYPES if any(row.get("dtype") == dtype for row in mine)]
    columns = [Column("way", "way"), Column("solver", "solver")]
    columns += [Column(f"own {n}", f"own map\nn = {n}", "{:.1e}") for n in ns]
    columns += [Column(dtype, f"own map\n{dtype}", "{:.1e}") for dtype in dtypes if dtype != "float64"]
    columns += [Column(f"flow {n}", f"flow\nn = {n}", "{:.1e}") for n in ns]
    columns += [Column(f"cosine {n}", f"cosine\nn = {n}", "{:.3f}") for n in ns]
    lines: dict[tuple[str, str], Row] = {}
    for row in mine:
        way = str(PLANS.get(row["way"], row["way"]))
        line = lines.setdefault((way, row.get("solver", "")), {"way": way, "solver": _solver(row)})
        if row.get("dtype") == "float64":
            key = f"own {row['n']}"
            line |= {key: max(line.get(key, 0.0), row["own"])}
            line |= {f"flow {row['n']}": row["flow"], f"cosine {row['n']}": row["cosine"]}
        elif "missing" not in row:
            line[row["dtype"]] = max(line.get(row["dtype"], 0.0), row["own"])
    return Table(columns, list(lines.values()))


def cost_table(rows: Sequence[Row], ns: Sequence[int]) -> Table:
    """One line for every way and every one of these n."""
    columns = [
        Column("way", "way"),
        Column("solver", "solver"),
        Column("n", "n"),
        Column("forward", "forward\ncalls", "{:.0f}"),
        Column("backward", "backward\ncalls", "{:.0f}"),
        Column("saved", "saved", show_bytes),
        Column("states", "states"),
        Column("time", "time", "{:.1f}"),
    ]
    return Table(columns, [{**row, "solver": _solver(row)} for row in rows if "missing" in row or row["n"] in ns])


def _solver(row: Row) -> str:
    return f"needs {row['missing']}" if "missing" in row else str(row["solver"])


def _error_plot(rows: Sequence[Row], subject: str) -> str:
    """Both errors by n, of each way's first solver; all memory plans are one line, which is the last one's."""
    first = {way.name: way.solvers[0] for way in WAYS}
    last = [row["way"] for row in rows if row["way"] in PLANS][-1:]
    mine = [
        {**row, "way": "symguide" if row["way"] in PLANS else row["way"]}
        for row in rows
        if row["subject"] == subject and row.get("dtype") == "float64" and row["solver"] == first[row["way"]]
        if row["way"] not in PLANS or row["way"] in last
    ]
    return draw_lines(
        [
            Panel("against its own map, float64", "n", _lines(mine, "own"), floor=TINY),
            Panel("against the flow, float64", "n", _lines(mine, "flow"), floor=TINY),
        ]
    )


def _cost_plot(rows: Sequence[Row]) -> str:
    made = [row for row in rows if "missing" not in row]
    return draw_lines(
        [
            Panel("bytes saved for backward", "n", _lines(made, "saved"), floor=1.0),
            Panel("time in forward calls", "n", _lines(made, "time")),
        ]
    )


def _lines(rows: Sequence[Row], key: str) -> dict[str, list[tuple[float, float]]]:
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        lines.setdefault(row["way"], []).append((row["n"], row[key]))
    return lines
