"""Draws the results that are there: docs/images/*.svg of benchmarks/results/*.json, without measuring anything.

    python benchmarks/plots.py [--results FOLDER] [--out FOLDER]

gradients.svg: errors, bytes and time of a look-ahead's gradient by n, a line for each way.
estimate.svg: error of the clean estimate by time, a line for each n.
lookahead.svg: judge and shape against network calls, a panel for each task of the study of n.
methods.svg: judge against calls, tuned methods of the paper's four tasks.
sphere.svg: how long x_t is, to how long it should be.
textures.svg: what looking ahead brings on textures, a panel for each eta and window.
theory.svg: cosine and length of look-aheads beside the exact guidance, by time.
theory-samples.svg: how fresh look-aheads approach the exact guidance.
galaxies.svg: how many galaxies meet what is asked against their light, a line for each look-ahead.
papercell.svg: judge and scorer against shapes along the strengths in the paper's cell, a line for each n.
quality-of-model.svg: two calls to one against the error of the one-call estimate, a point for each model and seed.
equal-calls.svg: scorer and judge against calls, and their fronts.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from benchmarks import equal_calls as calls_study
from benchmarks import papercell as cell_study
from benchmarks import quality_of_model as model_study
from benchmarks.common import RESULTS
from symguide.files import replacing
from symguide.report.curves import COLOURS, STYLE

Results = Callable[[str], Any]
"""What a file of results holds by its name, None where there is none."""


def dress(panel: Any, title: str = "", x: str = "", y: str = "") -> None:
    panel.set_title(title, fontsize=10)
    panel.set_xlabel(x)
    panel.set_ylabel(y)
    panel.grid(alpha=0.2, linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)


def estimate(results: Results) -> Figure | None:
    """Error of the estimate by time."""
    if (rows := results("nstudy-estimate")) is None:
        return None
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    for panel, (solver, grid) in zip(
        figure.subplots(1, 2, sharey=True), (("ddim", "uniform"), ("dpmpp_2m", "flow")), strict=True
    ):
        mine = [row for row in rows if (row["solver"], row["grid"]) == (solver, grid)]
        heads = [head for head in mine[0] if head.startswith("n=")]
        shades = matplotlib.colormaps["viridis"]
        for order, head in enumerate(heads):
            colour = shades(order / len(heads))
            panel.plot([r["t"] for r in mine], [r[head] for r in mine], color=colour, label=head, marker="o", ms=3)
        panel.set_yscale("log")
        dress(panel, f"{solver}, {grid} grid", "t", "relative error of the estimate" if solver == "ddim" else "")
    panel.legend(frameon=False, fontsize=9, ncols=2)
    return figure


WAYS = {
    "symguide, minimal": ("symguide, minimal", 1, "-"),
    "symguide, fast": ("symguide, fast", 1, "--"),
    "symguide, minimal; midpoint": ("symguide, midpoint", 1, ":"),
    "autograd": ("autograd", 0, "-"),
    "torch checkpoint": ("torch checkpoint around each call", 0, "--"),
    "odeint_adjoint": ("vanilla adjoint", 2, "-"),
    "odeint_adjoint, dy/ds = eps": ("vanilla adjoint, AdjointDPM's time", 2, "--"),
    "sdeint_adjoint": ("reversible Heun", 3, "-"),
    "EDICT, inverted": ("EDICT", 4, "-"),
    "BDIA, inverted": ("BDIA", 4, "--"),
    "FlowGrad": ("FlowGrad", 5, "-"),
    "first call alone": ("first call alone", 6, "-"),
    "identity (MPGD, ECM, FlowChef)": ("identity", 6, "--"),
}
"""Label, colour and line of each way to a gradient that is drawn, with its first solver unless one is named."""


def gradients(results: Results) -> Figure | None:
    """What the gradient of a look-ahead by every way is worth, and what it costs."""
    given, scenes = results("gradients"), results("gradients-scenes")
    if given is None or scenes is None:
        return None
    errors = [row for row in scenes["errors"] if row.get("dtype") == "float64"]
    panels = {
        "off its own map (scenes)": (errors, "own", "relative error"),
        "off the flow (scenes)": (errors, "flow", ""),
        "saved for backward (digits)": (given["costs"], "saved", "bytes"),
        "time (digits)": (given["costs"], "time", "forward calls"),
    }
    figure = Figure(figsize=(12.8, 4.4), layout="constrained")
    for panel, (title, (rows, key, unit)) in zip(figure.subplots(1, 4), panels.items(), strict=True):
        for name, (label, colour, line) in WAYS.items():
            way, _, solver = name.partition("; ")
            mine = [row for row in rows if row["way"] == way and key in row]
            if not mine:  # its library was missing
                continue
            mine = [row for row in mine if row["solver"] == (solver or mine[0]["solver"])]
            values = [max(row[key], 1e-17) for row in mine]
            ours = {"linewidth": 2.5, "zorder": 3} if name.startswith("symguide") else {}
            style = {"color": (*COLOURS, "#6a51a3")[colour], "marker": "o", "ms": 3, **ours}
            panel.plot([row["n"] for row in mine], values, line, label=label, **style)
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.xaxis.set_major_locator(FixedLocator([1, 2, 4, 8, 16, 50]))
        panel.xaxis.set_major_formatter("{x:.0f}")
        dress(panel, title, "n", unit)
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=7, frameon=False, fontsize=9)
    return figure


def in_calls(panel: Any) -> None:
    """Network calls on a logarithmic axis, in plain numbers."""
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(FixedLocator([25, 50, 100, 200, 400, 800]))
    panel.xaxis.set_major_formatter("{x:.0f}")
    panel.xaxis.set_minor_locator(NullLocator())


def by_cells(cells: list[dict[str, Any]], keys: tuple[str, ...]) -> dict[tuple, list[dict[str, Any]]]:
    """Cells of all seeds by what tells settings apart."""
    found: dict[tuple, list[dict[str, Any]]] = {}
    for cell in cells:
        found.setdefault(tuple(cell[key] for key in keys), []).append(cell)
    return found


def point(panel: Any, cells: list[dict[str, Any]], key: str, **style: Any) -> None:
    """Mean over seeds with its standard deviation, against network calls."""
    values = [cell[key] for cell in cells]
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    calls = cells[0]["forward"] + cells[0]["backward"]
    panel.errorbar(calls, statistics.fmean(values), spread, ms=5, elinewidth=0.8, capsize=0, **style)


LOOKS = {"exact": "o", "first": "^"}


def lookahead(results: Results) -> Figure | None:
    """Judge and shape against calls."""
    tasks = ("identity", "text", "inpainting", "style", "aesthetics")
    found = {}
    for name in tasks:
        for (eta,), cells in by_cells((results(f"nstudy-{name}") or {"cells": []})["cells"], ("eta",)).items():
            found[name if eta else f"{name}, no noise"] = cells
    if not found:
        return None
    figure = Figure(figsize=(3.2 * len(found) + 0.6, 5.8), layout="constrained")
    panels = figure.subplots(2, len(found), squeeze=False, sharex="col")
    for column, (name, mine) in enumerate(found.items()):
        groups = by_cells(mine, ("n", "solver", "jacobian", "scale"))
        scales = sorted({scale for *_, scale in groups if scale})
        for (n, solver, jacobian, scale), cells in groups.items():
            colour = COLOURS[1 + scales.index(scale)] if scale else COLOURS[0]
            mark = "s" if not n else "D" if isinstance(n, str) else LOOKS[jacobian]
            fill = "none" if solver == "ddim" else colour
            for row, key in enumerate(("judge", "shape")):
                point(panels[row, column], cells, key, marker=mark, color=colour, markerfacecolor=fill)
        for row, key in enumerate(("judge (lower is better)", "shape is read")):
            dress(
                panels[row, column], name if not row else "", "" if not row else "network calls", "" if column else key
            )
            in_calls(panels[row, column])
    for order, scale in enumerate(scales):
        panels[0, 0].plot([], [], color=COLOURS[1 + order], label=f"scale {scale}")
    for mark, label in (("o", "exact"), ("^", "first call"), ("D", "n falls with t"), ("s", "unguided")):
        panels[0, 0].plot([], [], marker=mark, color="grey", linestyle="", label=label)
    panels[0, 0].plot([], [], marker="o", color="grey", markerfacecolor="none", linestyle="", label="ddim")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=1 + 2 * len(found), frameon=False)
    return figure


def methods(results: Results) -> Figure | None:
    """The tuned methods: judge against calls."""
    tasks = ("style", "aesthetics", "personalisation", "identity")
    found = {name: given for name in tasks if (given := results(f"paper-{name}")) is not None}
    if not found:
        return None
    figure = Figure(figsize=(3.4 * len(found) + 0.6, 4.4), layout="constrained")
    names = list(dict.fromkeys(cell["method"] for given in found.values() for cell in given["cells"]))
    shades = matplotlib.colormaps["tab20"]
    for panel, (name, given) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        for (method,), cells in by_cells(given["cells"], ("method",)).items():
            order = names.index(method)
            style = {"color": shades(order / 20), "marker": "os^Dv"[order % 5], "linestyle": "", "label": method}
            point(panel, cells, "judge", **style)
        dress(panel, name, "network calls", "judge (lower is better)" if panel.get_subplotspec().is_first_col() else "")
        in_calls(panel)
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=max(2, len(found) + 1), frameon=False)
    return figure


def sphere(results: Results) -> Figure | None:
    """Lengths on the way."""
    given = results("dsg")
    if given is None or "norm" not in given:
        return None
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    panel = figure.subplots()
    for order, row in enumerate(given["norm"]):
        times = [head for head in row if head.startswith("t=")]
        line = "--" if "DSG" in row["run"] else "-"
        x, y = [float(t[2:]) for t in times], [float(row[t]) for t in times]
        panel.plot(x, y, line, color=COLOURS[order % len(COLOURS)], marker="o", ms=3, label=row["run"])
    panel.invert_xaxis()
    dress(panel, "", "t", "|x_t| to what it should be")
    panel.legend(frameon=False, fontsize=9)
    return figure


LINES = {
    "one": ("one call", 1, "-"),
    "ode 2": ("2, no noise", 2, ":"),
    "ode 4": ("4, no noise", 2, "-"),
    "ode 32": ("32, no noise", 2, "--"),
    "own 2": ("2, own noise", 4, ":"),
    "own 4": ("4, own noise", 4, "-"),
    "own all": ("all, own noise", 4, "--"),
    "fresh 4, K = 1": ("4, fresh noise", 3, "-"),
    "fresh all, K = 16": ("all, fresh noise, K = 16", 3, "--"),
    "weights, K = 256": ("256 weighed", 5, "-"),
}
"""Ways to look ahead: label, colour, line."""


def way_line(panel: Any, way: str, x: list[float], y: list[float]) -> None:
    label, colour, line = LINES[way]
    panel.plot(x, y, line, color=COLOURS[colour], label=label, marker="o", ms=3)


def shared_legend(figure: Figure, panel: Any, columns: int) -> None:
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)


def textures(results: Results) -> Figure | None:
    """Loss over one call's by strength."""
    given = results("textures")
    if given is None:
        return None
    found = by_cells(given["gram"]["cells"], ("eta", "window", "way", "scale"))
    etas, windows = (list(dict.fromkeys(key[i] for key in found)) for i in (0, 1))
    ways = ["ode 2", "ode 4", "own 2", "own 4", "own all", "fresh 4, K = 1"]
    figure = Figure(figsize=(9.6, 6.4), layout="constrained")
    for row, eta in zip(figure.subplots(len(etas), len(windows), sharex=True, sharey="row"), etas, strict=True):
        for panel, window in zip(row, windows, strict=True):
            scales = sorted({key[3] for key in found if key[3]})
            for way in ways:
                ratios = []
                for scale in scales:
                    mine, one = (found[eta, window, name, scale] for name in (way, "one"))
                    pairs = zip(mine, one, strict=True)
                    ratios.append(statistics.fmean(a["loss at the end"] / b["loss at the end"] for a, b in pairs))
                way_line(panel, way, scales, ratios)
            panel.axhline(1.0, color="grey", linewidth=0.8)
            panel.set_xscale("log")
            panel.set_yscale("log")
            panel.xaxis.set_major_locator(FixedLocator(scales))
            panel.xaxis.set_minor_locator(NullLocator())
            panel.xaxis.set_major_formatter("{x:g}")
            title = f"eta {eta:g}, steps {window}"
            dress(panel, title, "scale" if eta == etas[-1] else "", "loss / one call's" if window == windows[0] else "")
    shared_legend(figure, panel, 4)
    return figure


def theory(results: Results) -> Figure | None:
    """Cosine and length beside the exact guidance, by time."""
    rows = results("theory-cosines")
    if rows is None:
        return None
    cases = list(dict.fromkeys((row["prior"], row["loss"]) for row in rows))
    ways = ["one", "ode 2", "ode 4", "ode 32", "fresh all, K = 16", "weights, K = 256"]
    figure = Figure(figsize=(2.4 * len(cases), 5.2), layout="constrained")
    panels = figure.subplots(2, len(cases), sharex=True, sharey="row")
    for column, (prior, loss) in enumerate(cases):
        for way in ways:
            mine = [row for row in rows if (row["prior"], row["loss"], row["way"]) == (prior, loss, way)]
            for line, key in enumerate(("cosine, exact", "length, exact")):
                way_line(panels[line, column], way, [row["t"] for row in mine], [row[key] for row in mine])
        panels[1, column].set_yscale("log")
        panels[1, column].axhline(1.0, color="grey", linewidth=0.8)
        dress(panels[0, column], f"{prior}: {loss}", "", "" if column else "cosine with the exact one")
        dress(panels[1, column], "", "t", "" if column else "length / the exact one's")
    shared_legend(figure, panels[0, 0], 7)
    return figure


def theory_samples(results: Results) -> Figure | None:
    """Distance to the exact guidance by the number of fresh look-aheads."""
    rows = results("theory-samples")
    if rows is None:
        return None
    cases = list(dict.fromkeys((row["prior"], row["loss"]) for row in rows))
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    for panel, case in zip(figure.subplots(1, len(cases), sharey=True), cases, strict=True):
        lines = by_cells([row for row in rows if (row["prior"], row["loss"]) == case], ("way", "steps"))
        for (way, steps), mine in lines.items():
            style = {"color": COLOURS[3 if way == "path" else 4], "linestyle": "-" if steps > 4 else ":"}
            label = f"{'differentiated' if way == 'path' else 'weighed'}, {steps} steps"
            panel.plot([r["K"] for r in mine], [r["off exact"] for r in mine], marker="o", ms=3, label=label, **style)
        counts, first = [row["K"] for row in mine], mine[0]["off exact"]
        panel.plot(counts, [first * (k / counts[0]) ** -0.5 for k in counts], "--", color="grey", label="1 / sqrt(K)")
        panel.axhline(1.0, color="grey", linewidth=0.8)
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.xaxis.set_major_formatter("{x:.0f}")
        dress(panel, f"{case[0]}: {case[1]}", "K", "off the exact guidance" if case == cases[0] else "")
    shared_legend(figure, panel, 5)
    return figure


def papercell(results: Results) -> Figure | None:
    """What one strength after the other gives, by n and eta."""
    if (given := results("papercell")) is None:
        return None
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    panels = figure.subplots(1, 4, sharex=True)
    for at, (eta, key) in enumerate((eta, key) for eta in (0.0, 1.0) for key in ("scorer", "judge")):
        for n in (1, 2, 4):
            scales = (0.3,) if n == 4 else cell_study.CURVE
            line = [cell_study.of(given["cells"], cell_study.Plan("style", n, eta=eta, scale=s)) for s in scales]
            x, y = ([statistics.fmean(c[k] for c in cells) for cells in line if cells] for k in ("shape", key))
            panels[at].plot(x, y, "-o", ms=4, color=COLOURS[n], label=f"n = {n}")
            if cells := line[scales.index(0.3)]:  # the paper compares at equal strength
                middle = (statistics.fmean(c[k] for c in cells) for k in ("shape", key))
                panels[at].plot(*middle, "s", ms=9, markerfacecolor="none", color=COLOURS[n])
        dress(panels[at], f"style, eta = {eta:g}", "shape is read", f"{key} (lower is better)")
    panels[0].legend(frameon=False, fontsize=9)
    return figure


def quality_of_model(results: Results) -> Figure | None:
    """Ratios of each seed against the model's error."""
    if (given := results("quality_of_model")) is None:
        return None
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    for panel, task in zip(figure.subplots(1, 2, sharex=True), model_study.TASKS, strict=True):
        for order, key in enumerate(("scorer", "judge")):
            x, y, middle = [], [], []
            for (model,), mine in by_cells(given["cells"], ("model",)).items():
                looked = [cell["rows"] for cell in mine if cell["task"] == "estimate"]
                each = model_study.ratios(mine, task, key)
                if looked and each:
                    error = model_study.error(looked[0], 1)
                    x, y = [*x, *[error] * len(each)], [*y, *each]
                    middle.append((error, statistics.fmean(each), model))
            middle.sort()
            panel.plot(x, y, "o", ms=3, alpha=0.5, color=COLOURS[1 + order])
            panel.plot([m[0] for m in middle], [m[1] for m in middle], color=COLOURS[1 + order], label=key)
        panel.axhline(1, color="grey", linewidth=0.6)
        dress(panel, task, "error of the one-call estimate", "two calls : one call")
    panel.legend(frameon=False, fontsize=9)
    return figure


def equal_calls(results: Results) -> Figure | None:
    """Every way at its calls, with the line of those that nothing cheaper beats."""
    if (given := results("equal_calls")) is None:
        return None
    tasks = [task for task in calls_study.TASKS if any(cell["task"] == task for cell in given["cells"])]
    figure = Figure(figsize=(4.2 * len(tasks) + 1.5, 6.2), layout="constrained")
    panels = figure.subplots(2, len(tasks), squeeze=False, sharex="col")
    names = list(dict.fromkeys(cell["way"] for cell in given["cells"]))
    shades = matplotlib.colormaps["tab20"]
    for column, task in enumerate(tasks):
        rows = calls_study.rows(given["cells"], task)
        groups = by_cells([cell for cell in given["cells"] if cell["task"] == task], ("way", "scale"))
        seeds = set.intersection(*({cell["seed"] for cell in cells} for cells in groups.values()))
        groups = {key: [cell for cell in cells if cell["seed"] in seeds] for key, cells in groups.items()}
        for row, key in enumerate(("scorer", "judge")):
            panel = panels[row, column]
            for (way, _), cells in groups.items():
                point(panel, cells, key, color=shades(names.index(way) % 20), marker="o")
            front = [(each["calls"], float(each[key].split()[0])) for each in rows if each[f"front, {key}"]]
            panel.plot(*zip(*front, strict=True), color="grey", linewidth=0.8, drawstyle="steps-post", zorder=0)
            dress(panel, "" if row else task, "network calls" if row else "", f"{key} (lower is better)")
            in_calls(panel)
    for order, name in enumerate(names):
        panels[0, 0].plot([], [], "o", color=shades(order % 20), label=name)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)
    return figure


def galaxies(results: Results) -> Figure | None:
    """How many galaxies meet what is asked, against the light that they are given for it."""
    found = {asked: given["rows"] for asked in ("ellipticity", "size") if (given := results(f"galaxies-{asked}"))}
    if not found:
        return None
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    for panel, (asked, rows) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        mine = [row for row in rows if row["eta"] == 1 and row["window"] == [0.0, 0.4]]
        answer = next(row for row in rows if row["eta"] == 1 and row["way"] == "unguided, those that meet it")
        for order, way in enumerate(("one call", "ODE, 4", "own noise, 2", "own noise, 4", "fresh noise, 4")):
            points = sorted((row for row in mine if row["way"] == way), key=lambda row: row["scale"])
            shares = [100 * row["within 0.1"] for row in points]
            sides = [[100 * abs(row["within 0.1, 95 %"][k] - row["within 0.1"]) for row in points] for k in (0, 1)]
            style = {"color": COLOURS[order % len(COLOURS)], "marker": "o", "ms": 4, "elinewidth": 0.8}
            panel.errorbar([row["light"] for row in points], shares, sides, label=way, **style)
        panel.axvline(answer["light"], color="grey", linewidth=0.8, linestyle=":", label="light of the model's answer")
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(FixedLocator([10, 20, 50, 100, 200]))
        panel.xaxis.set_major_formatter("{x:.0f}")
        panel.xaxis.set_minor_locator(NullLocator())
        dress(panel, asked, "median light", "% within 0.1 of what was asked" if asked == "ellipticity" else "")
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    return figure


STUDIES = (papercell, quality_of_model, equal_calls)
DRAWN = (gradients, estimate, lookahead, methods, sphere, textures, theory, theory_samples, galaxies, *STUDIES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the results are")
    parser.add_argument("--out", type=Path, default=RESULTS.parents[1] / "docs" / "images", help="where they are drawn")
    given = parser.parse_args()

    def results(name: str) -> Any:
        path = given.results / f"{name}.json"
        return json.loads(path.read_text())["results"] if path.exists() else None

    with matplotlib.rc_context({**STYLE, "svg.fonttype": "path"}):
        for draw in DRAWN:
            if (figure := draw(results)) is not None:
                path = given.out / f"{draw.__name__.replace('_', '-')}.svg"
                with replacing(path) as file:
                    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
                print("written:", path)


if __name__ == "__main__":
    main()
