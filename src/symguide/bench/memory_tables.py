"""What `symguide bench memory` shows: tables for a terminal, and a page with all rows and plots."""

from collections.abc import Mapping, Sequence

from symguide.bench.kept import Row
from symguide.bench.memory import ratio
from symguide.bench.networks import LIVE, SAVED
from symguide.meter import show_bytes
from symguide.report import Column, Panel, Section, Table, draw_lines, render_page

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


def page(rows: Sequence[Row], command: str, facts: Mapping[str, str]) -> str:
    """The page; ConfigError without jinja2 or matplotlib."""
    sections = []
    for subject in dict.fromkeys(row["subject"] for row in rows):
        made = [row for row in rows if row["subject"] == subject and row.get("fits")]
        if made:
            sections.append(Section(subject, table=by_n(rows, subject), svg=_plot(made), notes=[NOTE]))
            sections.append(Section(f"{subject}: all measurements", table=all_rows(rows, subject)))
        else:
            sections.append(Section(subject, table=by_n(rows, subject)))
    return render_page(TITLE, LEAD, command, sections, facts)


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
