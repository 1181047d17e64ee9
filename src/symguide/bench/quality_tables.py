"""What `symguide bench quality` shows: a table of each task for a terminal, and a page with them and plots."""

import statistics
from collections.abc import Mapping, Sequence

from symguide.bench import world
from symguide.bench.kept import Row
from symguide.report import Column, Panel, Section, Table, draw_lines, render_page

TITLE = "What a gradient's accuracy buys"
LEAD = (
    "Guided samples of the scenes model with the gradient of the look-ahead taken by every way: same steps, noise and "
    "strengths for all, nothing chosen. Rows stand in the order of their network calls."
)
FIGURES = (
    "Mean and standard deviation over seeds; scorer: the loss that guidance follows; judge: the same by a network that "
    "guidance never saw, lower is better; shape: how often the judge reads the shape that was asked for; Frechet: "
    "distance to held-out pictures in the judge's features. Calls of one sample, counted at the network."
)
COSINES = (
    "cosine: between the way's gradient and that of autograd through its own discretisation (own map), and that along "
    "a fine grid (flow); mean over samples and times on the way of unguided samples."
)

Key = tuple[float, str, str, int]


def table(samples: Sequence[Row], accuracy: Sequence[Row], task: str) -> Table:
    """One line for every strength, way and n of a task, by strength and calls."""
    columns = [Column("strength", "strength"), Column("way", "way"), Column("solver", "solver"), Column("n", "n")]
    columns += [Column("forward", "forward\ncalls", "{:.0f}"), Column("backward", "backward\ncalls", "{:.0f}")]
    columns += [Column(title, title) for title in (*world.FIGURES, "seconds")]
    columns += [Column("own", "cosine\nown map", "{:.3f}"), Column("flow", "cosine\nflow", "{:.3f}")]
    lines = []
    for (strength, *names), cells in _cells(samples, task).items():
        what = {"strength": strength or None, **dict(zip(("way", "solver", "n"), names, strict=True))}
        looked = [row for row in accuracy if row["task"] == task and [row["way"], row["solver"], row["n"]] == names]
        cosines = {key: statistics.mean(row[key] for row in looked) for key in ("own", "flow") if looked}
        calls = {key: statistics.mean(cell[key] for cell in cells) for key in ("forward", "backward")}
        lines.append({**what, **world.over_seeds(cells, world.FIGURES), **calls, **cosines})
    lines.sort(key=lambda line: (line["strength"] or 0, line["forward"] + line["backward"]))
    absent = [row for row in samples if row["task"] == task and "missing" in row]
    return Table(columns, [*lines, *({"way": row["way"], "solver": f"needs {row['missing']}"} for row in absent)])


def page(samples: Sequence[Row], accuracy: Sequence[Row], command: str, facts: Mapping[str, str]) -> str:
    """The page; ConfigError without jinja2 or matplotlib."""
    sections = []
    for task in dict.fromkeys(row["task"] for row in samples):
        notes = [FIGURES, COSINES]
        sections.append(Section(task, table=table(samples, accuracy, task), svg=_plot(samples, task, "judge")))
        sections.append(Section(f"{task}: Frechet distance", svg=_plot(samples, task, "frechet"), notes=notes))
    return render_page(TITLE, LEAD, command, sections, facts)


def _cells(samples: Sequence[Row], task: str) -> dict[Key, list[Row]]:
    """The rows of all seeds together, by strength, way, solver and n."""
    cells: dict[Key, list[Row]] = {}
    for row in samples:
        if row["task"] == task and "missing" not in row:
            cells.setdefault((row["strength"], row["way"], row["solver"], row["n"]), []).append(row)
    return cells


def _plot(samples: Sequence[Row], task: str, figure: str) -> str:
    """A figure against network calls, a panel for each strength, a line through the n of a way."""
    panels: dict[float, dict[str, list[tuple[float, float]]]] = {}
    for (strength, way, solver, _), cells in _cells(samples, task).items():
        if strength:
            name = f"{way}, {solver}" if way == "exact" else way
            mean = {key: statistics.mean(cell[key] for cell in cells) for key in ("forward", "backward", figure)}
            lines = panels.setdefault(strength, {})
            lines.setdefault(name, []).append((mean["forward"] + mean["backward"], mean[figure]))
    return draw_lines(
        [Panel(f"{figure}, strength {strength}", "network calls", lines) for strength, lines in panels.items()]
    )
