"""What `symguide bench gradients` shows: tables for a terminal, and a page with all of them and plots."""

from collections.abc import Mapping, Sequence

from symguide.bench.kept import Row
from symguide.bench.programs import Sweep
from symguide.bench.way import DTYPES
from symguide.bench.ways import WAYS
from symguide.meter import show_bytes
from symguide.report import Column, Panel, Section, Table, draw_lines, render_page

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


def page(errors: Sequence[Row], costs: Sequence[Row], command: str, facts: Mapping[str, str]) -> str:
    """The page; ConfigError without jinja2 or matplotlib."""
    ns = sorted({row["n"] for row in errors if "n" in row})
    sections = [
        Section(subject, table=error_table(errors, subject, ns), svg=_error_plot(errors, subject), notes=[OWN, FLOW])
        for subject in dict.fromkeys(row["subject"] for row in errors)
    ]
    if costs:
        sections.append(Section("Cost", table=cost_table(costs, ns), svg=_cost_plot(costs), notes=[COST]))
    return render_page(TITLE, LEAD, command, sections, facts)


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
