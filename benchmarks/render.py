"""The tables of docs/results and docs/theory, made from results/*.json and written between the marks of the pages.

    python benchmarks/render.py            # write them; says which pages it changed
    python benchmarks/render.py --check    # change nothing, and fail where a table is not what the results say

A table stands between <!-- table: NAME --> and <!-- end -->, NAME being one of TABLES.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks import emoji, equal_calls, own_digits, papercell, quality_of_model, rule
from benchmarks.common import RESULTS, table
from benchmarks.nstudy import by_scale
from benchmarks.world import over_seeds
from symguide.meter import show_bytes

DOCS = RESULTS.parents[1] / "docs"
PAGES = [DOCS / "results", DOCS / "theory", DOCS]
MARKED = re.compile(r"(<!-- table: (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
Row = dict[str, Any]

TABLES: dict[str, Callable[[], list[Row]]] = {}
"""Name of a table -> its rows, of strings and numbers."""


def named(*names: str) -> Callable[[Callable[[str], list[Row]]], Callable[[str], list[Row]]]:
    """Register a function that makes the rows of the tables of these names."""

    def register(make: Callable[[str], list[Row]]) -> Callable[[str], list[Row]]:
        TABLES.update({name: lambda name=name: make(name) for name in names})
        return make

    return register


@cache
def results(name: str) -> Any:
    """What results/NAME.json holds."""
    return json.loads((RESULTS / f"{name}.json").read_text())["results"]


def columns(rows: Iterable[Row], names: Sequence[str]) -> list[Row]:
    """These columns of rows, the seconds of methods that were measured on a busy machine left out."""
    busy = {"seconds": "-"}
    return [{k: (row | busy if row.get("method") == "MPGD" else row)[k] for k in names} for row in rows]


# 1. digits

FIGURES = ("judge", "judge's accuracy", "Frechet", "forward", "backward", "seconds")


@named("class-equal-steps", "class-front", "class-equal-calls", "inpaint-equal-steps", "inpaint-equal-calls")
def digits(name: str) -> list[Row]:
    task, _, part = name.partition("-")
    return columns(results(f"digits-{task}")[part.replace("-", "_")], ("method", "scale", *FIGURES))


# 2. gradients

SWEEPS = [f"symguide, {memory}" for memory in ("0", "minimal", "2", "fast", "auto")]
WAYS = {
    **{(f"symguide, all plans, {solver}", "n to 2n", "n"): (SWEEPS, solver) for solver in ("ddim", "midpoint", "heun")},
    ("symguide, all plans, dpmpp_2m", "n to 2n", "n"): (SWEEPS, "dpmpp_2m"),
    ("first call alone, ddim", "n", "1"): (["first call alone"], "ddim"),
    ("identity, ddim", "n", "0"): (["identity (MPGD, ECM, FlowChef)"], "ddim"),
    ("autograd, ddim", "n", "n"): (["autograd"], "ddim"),
    ("torch checkpoint, ddim", "2n", "n"): (["torch checkpoint"], "ddim"),
    ("`odeint`, autograd, ddim", "n", "n"): (["odeint"], "ddim"),
    ("`odeint_adjoint`, ddim", "2n", "n"): (["odeint_adjoint"], "ddim"),
    ("`odeint_adjoint`, midpoint", "2n", "n"): (["odeint_adjoint"], "midpoint"),
    ("`odeint_adjoint`, heun", "2n", "n"): (["odeint_adjoint"], "heun"),
    ("`odeint_adjoint` of dy/ds = eps, ddim", "2n", "n"): (["odeint_adjoint, dy/ds = eps"], "ddim"),
    ("`sdeint_adjoint`, reversible Heun", "3n + 2", "n + 1"): (["sdeint_adjoint"], "reversible Heun"),
    ("EDICT, inverted", "4n", "2n"): (["EDICT, inverted"], "EDICT"),
    ("BDIA, inverted", "2n", "n"): (["BDIA, inverted"], "BDIA"),
    ("FlowGrad, ddim", "n + merged", "merged"): (["FlowGrad"], "ddim"),
}
"""(way, forward and backward calls of n steps): (its names in the rows, its solver)."""


def errors(ways: Sequence[str], solver: str, **where: Any) -> list[Row]:
    """Rows of the comparison of gradients."""
    every = results("gradients")["errors"] + results("gradients-scenes")["errors"]
    mine = (row for row in every if row["way"] in ways and row["solver"] == solver)
    return [row for row in mine if all(row[k] == v for k, v in where.items())]


def small(value: float) -> str:
    return f"{value:.1e}" if value else "0"


@named("gradient-own-map")
def own_map(name: str) -> list[Row]:
    """The worst subject and plan; of narrow precisions the worst n, too."""
    rows = []
    for (way, forward, backward), mine in WAYS.items():
        row: Row = {"way": way, "forward": forward, "backward": backward}
        for n in (1, 4, 16, 50):
            row[f"n = {n}"] = small(max(each["own"] for each in errors(*mine, dtype="float64", n=n)))
        for dtype in ("float32", "bfloat16"):
            row[dtype] = small(max(each["own"] for each in errors(*mine, dtype=dtype)))
        rows.append(row)
    return rows


@named("gradient-flow")
def flow(name: str) -> list[Row]:
    subjects = {"gaussian": "Gaussian", "mixture": "mixture", "digits": "digits", "scenes": "scenes"}
    rows = []
    for (way, *_), mine in WAYS.items():
        if way.startswith(("torch", "`odeint`")):
            continue  # the same map and gradient as autograd's
        row: Row = {"way": way}
        for subject, title in subjects.items():
            for n in (4, 50):
                row[f"{title}, n = {n}"] = small(errors(*mine, dtype="float64", n=n, subject=subject)[0]["flow"])
        for subject in ("digits", "scenes"):
            cosine = errors(*mine, dtype="float64", n=4, subject=subject)[0]["cosine"]
            row[f"cosine, {subject}, n = 4"] = f"{cosine:.2f}"
        rows.append(row)
    return rows


COSTS = {
    **{way: way for way in SWEEPS},
    "first call alone": "first call alone",
    "identity (MPGD, ECM, FlowChef)": "identity",
    "autograd": "autograd",
    "torch checkpoint": "torch checkpoint around each call",
    "odeint": "`odeint`, autograd",
    "odeint_adjoint": "vanilla adjoint (`odeint_adjoint`)",
    "odeint_adjoint, dy/ds = eps": "the same of dy/ds = eps",
    "sdeint_adjoint": "reversible Heun (`sdeint_adjoint`)",
    "EDICT, inverted": "EDICT, inverted",
    "BDIA, inverted": "BDIA, inverted",
    "FlowGrad": "FlowGrad",
}


@named("gradient-cost")
def cost(name: str) -> list[Row]:
    measured = {(row["way"], row["n"]): row for row in results("gradients")["costs"]}
    rows = []
    for way, title in COSTS.items():
        row: Row = {"way": title}
        for n in (1, 4, 16):
            mine = measured[way, n]
            row[f"calls, n = {n}"] = f"{mine['forward']:.0f} + {mine['backward']:.0f}"
            row |= {f"saved, n = {n}": show_bytes(mine["saved"]), f"states, n = {n}": mine["states"]}
            row[f"time, n = {n}"] = f"{mine['time']:.1f}"
        rows.append(row)
    return rows


HELD = {
    **{way: (way, (False, True)) for way in ("symguide, 0", "symguide, minimal")},
    "symguide, 2": ("symguide, 2", (False,)),
    "symguide, fast": ("symguide, fast (and auto, which had room)", (False, True)),
    "autograd": ("autograd", (False, True)),
    "torch checkpoint": ("torch checkpoint around each call", (False, True)),
    **{way: (COSTS[way], (False,)) for way in ("first call alone", "identity (MPGD, ECM, FlowChef)")},
    "odeint": ("`odeint` with autograd", (False,)),
    "odeint_adjoint": ("`odeint_adjoint`", (False,)),
    "sdeint_adjoint": ("`sdeint_adjoint`, reversible Heun", (False,)),
    **{way: (way, (False,)) for way in ("EDICT, inverted", "BDIA, inverted", "FlowGrad")},
}
"""Way: (its title, with blocks of the network kept or computed again)."""


@named("memory")
def memory(name: str) -> list[Row]:
    measured = {
        (row["way"], row["checkpoint"], row["subject"], row["n"]): row
        for row in reversed(results("memory")["rows"])  # the first size and batch of each is left
        if "missing" not in row
    }
    shown = [("digits", "saved", (1, 4, 16)), ("scenes", "saved", (1, 4, 16)), ("scenes", "peak", (1, 16))]
    rows = []
    for again in (False, True):
        for way, (title, blocks) in HELD.items():
            if again not in blocks:
                continue
            row: Row = {"way": title.partition(" (and")[0] if again else title, "blocks": "again" if again else "kept"}
            for subject, kind, ns in (*shown, ("small-unet", "peak", (16,))):
                called = {"small-unet": "small U-Net"}.get(subject, subject)
                for n in ns:
                    row[f"{called}, {kind}, n = {n}"] = show_bytes(measured[way, again, subject, n][kind])
            rows.append(row)
    return rows


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.3f} GB" if count >= 1e9 else show_bytes(count)


@named("memory-architectures")
def architectures(name: str) -> list[Row]:
    rows = []
    for file, network in (
        ("memory-sd-1.5", "Stable Diffusion 1.5, n to 16"),
        ("memory-sdxl", "SDXL, n to 2"),
        ("memory-sdxl-1024", "SDXL, n = 1"),
    ):
        every = results(file)["rows"]
        for again in dict.fromkeys(row["checkpoint"] for row in every):
            mine = [row for row in every if row["checkpoint"] == again]
            few, many = mine[0], mine[-1]
            row: Row = {"network": network, "plan": f"`{few['way'].rpartition(' ')[2]}`", "pixels": few["size"]}
            row["blocks"] = "again" if again else "kept"
            for kind in ("saved", "peak"):
                row[f"{kind}, n = 1"] = gigabytes(few[kind])
                row[f"{kind}, largest n"] = gigabytes(many[kind]) if len(mine) > 1 else ""
            for kind in ("saved", "peak"):
                ratios = [each[kind] / each[f"predicted {kind}"] for each in mine]
                row[f"measured / predicted, {kind}"] = f"{max(ratios, key=lambda r: abs(r - 1)):.3f}"
            rows.append(row)
    return rows


@named("step")
def step(name: str) -> list[Row]:
    return results("step")["steps"]


@named("step-network")
def network(name: str) -> list[Row]:
    return results("step")["network"]


GUIDED = {
    "exact": "exact, {solver}",
    "odeint_adjoint": "vanilla adjoint (`odeint_adjoint`)",
    "odeint_adjoint, dy/ds = eps": "the same in AdjointDPM's time",
    "sdeint_adjoint": "reversible Heun (`sdeint_adjoint`)",
}


@named("quality", "quality-inpainting")
def quality(name: str) -> list[Row]:
    """Samples guided by each gradient, in the order of their network calls."""
    every, looked = results(name)["samples"], results(name)["accuracy"]
    rows: dict[tuple[str, str, int], Row] = {}
    for way, solver, n in dict.fromkeys((row["way"], row["solver"], row["n"]) for row in every):
        mine = [row for row in every if (row["way"], row["solver"], row["n"]) == (way, solver, n)]
        seen = [row for row in looked if (row["way"], row["solver"], row["n"]) == (way, solver, n)]
        row: Row = {"gradient": GUIDED.get(way, way).format(solver=solver), "n": n}
        for key, title in (("own", "own map"), ("flow", "flow")):
            row[f"cosine, {title}"] = f"{fmean(each[key] for each in seen):.2f}" if seen else ""
        for title, key, digits in (("judge", "judge", 3), ("shape", "shape", 2), ("Frechet", "frechet", 1)):
            for strength in (0.3, 0.9):
                cells = [each for each in mine if each["strength"] in (0.0, strength)]
                row |= {f"{title}, {strength}": over_seeds(cells, {"": (key, digits)})[""]}
        calls = {key: f"{mine[0][key]:.0f}" for key in ("forward", "backward")}  # FlowGrad's depend on the samples
        rows[way, solver, n] = row | calls
    return sorted(rows.values(), key=lambda row: int(row["forward"]) + int(row["backward"]))


# 3. look-aheads

PRIORS = [("Gaussian, VP linear", (0.6, 0.9)), ("Gaussian, flow", (0.6,)), ("digits", (0.3, 0.6, 0.9))]
LOOKS = (
    *(("ddim", "uniform"), ("ddim", "flow"), ("midpoint", "flow"), ("heun", "flow")),
    *(("dpmpp_2m", grid) for grid in ("uniform", "arctan", "flow", "karras")),
)


@named("lookahead")
def lookahead(name: str) -> list[Row]:
    found = {(row["prior"], row["t"], row["solver"], row["grid"]): row for row in results("lookahead")}
    return [found[prior, t, solver, grid] for prior, times in PRIORS for t in times for solver, grid in LOOKS]


# 4. trajectories


@named("trajectory")
def trajectory(name: str) -> list[Row]:
    return results("trajectory")["gradients"]


@named("trajectory-doodl")
def doodl(name: str) -> list[Row]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in results("trajectory")["doodl"]]


# 5. the number of calls


@named("estimate")
def estimate(name: str) -> list[Row]:
    rows = []
    for solver, grid in (("ddim", "uniform"), ("dpmpp_2m", "flow")):
        mine = [row for row in results("nstudy-estimate") if (row["solver"], row["grid"]) == (solver, grid)]
        for t in (0.99, 0.9, 0.8, 0.6, 0.4, 0.2):
            row = next(row for row in mine if row["t"] == t)
            errors = {key: f"{value:.3f}" for key, value in row.items() if key.startswith("n=")}
            rows.append({"solver": solver, "grid": grid, "t": f"{t:.2f}"} | errors)
    return rows


@named("n-identity", "n-text", "n-inpainting", "n-style", "n-aesthetics", "n-identity-eta-0")
def by_calls(name: str) -> list[Row]:
    """A row for each plan, judge and shape side by side for all strengths."""
    task, eta = name.removesuffix("-eta-0").removeprefix("n-"), 0.0 if name.endswith("-eta-0") else 1.0
    rows = by_scale([row for row in results(f"nstudy-{task}")["rows"] if row["eta"] == eta])
    return [{key: value for key, value in row.items() if key != "eta"} for row in rows]


@named("reuse-estimate")
def history(name: str) -> list[Row]:
    return results("reuse")["estimate"]


@named("reuse")
def reuse(name: str) -> list[Row]:
    """What was guided with, then what was only compared."""
    cosines = {row["way"]: row for row in results("reuse")["gradient, identity"]}
    guided = {row["way"]: row for row in results("reuse")["guided, identity"]["rows"]}
    figures = ("judge, 0.3", "judge, 0.9", "Frechet, 0.3", "Frechet, 0.9", "forward", "backward")
    unseen = [way for way in cosines if way not in guided and way not in ("SAG n = 4",)]
    return [
        {"way": way}
        | {f"cosine, {part}": cosines.get(way, {}).get(part, "") for part in ("early", "middle", "late")}
        | {key: guided.get(way, {}).get(key, "") for key in figures}
        for way in (*guided, *unseen)
    ]


# 6. beyond diffusion

PARTS = ("consistency", "decoder", "generator", "gan", "flow", "latent")
LAST_GRADIENT = ("decoder", "generator")
"""Measured when a descent took one gradient more than it used: their backward calls are counted without it."""


@named(*(f"{part}-{task}" for part in PARTS for task in ("style", "identity")))
def beyond(name: str) -> list[Row]:
    part, _, task = name.partition("-")
    names = ("way", "strength", "scorer", "judge", "shape", "Frechet", "forward", "backward")
    rows = columns(results(f"beyond-{part}")[task]["rows"], names)
    unused = [row for row in rows if part in LAST_GRADIENT and not row["way"].startswith(("SAG", "best"))]
    for row in unused:
        row["backward"] -= 1
    return rows


# 7. the sphere


@named("sphere-text", "sphere-inpainting")
def sphere(name: str) -> list[Row]:
    figures = ("scorer", "judge", "shape", "Frechet", "forward", "backward")
    names = ("recipe", "best strength", "largest good one", *figures)
    return columns(results("dsg")[name.partition("-")[2]]["recipes"], names)


@named("sphere-steps-text", "sphere-steps-inpainting")
def steps(name: str) -> list[Row]:
    figures = ("scorer", "judge", "shape", "Frechet", "forward", "backward")
    return columns(results("dsg")[name.rpartition("-")[2]]["steps"], ("recipe", "strength", "steps", *figures))


@named("sphere-length")
def length(name: str) -> list[Row]:
    return results("dsg")["norm"]


@named("sphere-overhead")
def overhead(name: str) -> list[Row]:
    return results("dsg")["overhead"]


# 8. every method tuned


@named("tuned-identity", "tuned-style", "tuned-personalisation", "tuned-aesthetics")
def tuned(name: str) -> list[Row]:
    names = ("method", "settings", "judge", "shape", "Frechet", "forward", "backward", "seconds")
    return columns(results(f"paper-{name.partition('-')[2]}")["rows"], names)


# 9. where a look-ahead pays

PLANS = {
    "cell": ("cell", "four", "noise", "own", "four-noise"),
    "strength": ("strength", "strength-noise"),
    "sides": ("sides", "sides-noise", "first", "own-deterministic"),
    "others": ("aesthetics", "choices", "choices-noise", "strength-personalisation", "strength-aesthetics"),
    "fifty": ("strength-fifty",),
    "eps": ("eps",),
}
"""Parts of the study in each table."""
SETTINGS: dict[str, tuple[str, ...]] = {
    "cell": (),
    "strength": ("scale",),
    "sides": ("window", "form", "steps", "CFG"),
    "others": ("task", "scale"),
    "fifty": ("scale",),
    "eps": ("model", "scale"),
}
COMPARED = ("scorer", "scorer : one call", "judge", "judge : one call", "shape", "Frechet", "calls", "runs")


@named(*(f"papercell-{name}" for name in PLANS))
def papers_cell(name: str) -> list[Row]:
    which = name.partition("-")[2]
    every = dict.fromkeys(plan for part in PLANS[which] for plan in papercell.PARTS[part][0])
    in_order = sorted(
        every,
        key=lambda p: (p.model, p.task, p.eta, p.window, p.form, p.steps, p.weight, p.scale, p.n),
    )
    made = papercell.rows(results("papercell")["cells"], in_order)
    return columns(made, (*SETTINGS[which], "eta", "n", "path", *COMPARED))


@named("papercell-shapes")
def papers_curve(name: str) -> list[Row]:
    return papercell.equal_shapes(results("papercell")["cells"])


@named("quality-of-model")
def models(name: str) -> list[Row]:
    return quality_of_model.rows(results("quality_of_model")["cells"])


@named("calls-style", "calls-identity")
def equal(name: str) -> list[Row]:
    return equal_calls.rows(results("equal_calls")["cells"], name.partition("-")[2])


# 10. along the run's own noise


@named(*(f"textures-{loss}-{eta}" for loss in ("gram", "pixels") for eta in (0, 1)))
def textures(name: str) -> list[Row]:
    _, loss, eta = name.split("-")
    rows = [row for row in results("textures")[loss]["rows"] if row["eta"] == float(eta)]
    return [{key: value for key, value in row.items() if key != "eta"} for row in rows]


@named("textures-typical")
def typical(name: str) -> list[Row]:
    """Of the loss on powers, mean over seeds."""
    found: dict[tuple, Row] = {}
    for (eta, window, scale, way), cells in _by(results("textures")["gram"]["cells"], "eta", "window", "scale", "way"):
        row = found.setdefault((eta, window, scale), {"eta": eta, "window": window, "scale": scale})
        row["unguided" if way == "none" else way] = f"{fmean(cell['typical'] for cell in cells):.2f}"
    return list(found.values())


@named("own-digits")
def trained_digits(name: str) -> list[Row]:
    return own_digits.rows(results("own-digits")["cells"])


# 11. emoji


@named(*(f"emoji-{task}" for task in emoji.TASKS))
def emoji_task(name: str) -> list[Row]:
    names = ("method", "settings", *emoji.FIGURES, "forward", "backward", "seconds")
    return [{key: row[key] for key in names} for row in results(name)["rows"]]


@named("emoji-cell")
def emoji_cell(name: str) -> list[Row]:
    return emoji.cell_rows(results("emoji-cell")["cells"])


@named("emoji-names")
def emoji_names(name: str) -> list[Row]:
    return emoji.at_equal_names(results("emoji-cell")["cells"])


@named("emoji-model")
def emoji_model(name: str) -> list[Row]:
    found = results("emoji-model")
    return emoji.model_rows(found["model"], found["drawings"])


@named("emoji-styles")
def emoji_styles(name: str) -> list[Row]:
    return results("emoji-model")["styles"]


def _by(cells: Iterable[Row], *keys: str) -> list[tuple[tuple, list[Row]]]:
    found: dict[tuple, list[Row]] = {}
    for cell in cells:
        found.setdefault(tuple(cell[key] for key in keys), []).append(cell)
    return list(found.items())


# theory


@named("theory-of-what")
def of_what(name: str) -> list[Row]:
    """Mean cosine of each way with each of the three gradients, over priors, losses and times."""
    rows = []
    for (way,), cells in _by(results("theory-cosines"), "way"):
        means = {truth: fmean(cell[f"cosine, {truth}"] for cell in cells) for truth in ("exact", "value", "end")}
        rows.append({"look-ahead": way} | {f"with {truth}": f"{value:.2f}" for truth, value in means.items()})
    return rows


@named("theory-cosines")
def cosines(name: str) -> list[Row]:
    """Cosine with the exact guidance, and how much longer one call's gradient is."""
    rows = []
    for (prior, loss, t), cells in _by(results("theory-cosines"), "prior", "loss", "t"):
        if t in (0.9, 0.6, 0.3):
            row: Row = {"prior": prior, "loss": loss, "t": t}
            row |= {cell["way"]: f"{cell['cosine, exact']:.2f}" for cell in cells}
            row["length, one"] = next(f"{cell['length, exact']:.1f}" for cell in cells if cell["way"] == "one")
            rows.append(row | {"error": f"{cells[0]['error']:.3f}"})
    return rows


@named("theory-samples")
def samples(name: str) -> list[Row]:
    """Median distance to the exact guidance by K."""
    rows = []
    for (prior, loss, way, steps), cells in _by(results("theory-samples"), "prior", "loss", "way", "steps"):
        row: Row = {"prior": prior, "loss": loss, "K look-aheads": way, "steps": steps}
        by_count = {cell["K"]: f"{cell['off exact']:.2f}" for cell in cells}
        rows.append(row | {f"K = {k}": by_count.get(k, "") for k in (1, 4, 16, 64, 256, 1024)})
    return rows


# which method


@named("rule-counts")
def rule_counts(name: str) -> list[Row]:
    return [{"": part, **rule.counts(results(f"rule-{part}"))} for part in rule.PARTS]


@named("rule-held-out", "rule-unseen")
def rule_cells(name: str) -> list[Row]:
    return [{key: value for key, value in row.items() if key != "good"} for row in results(name)]


# galaxies

EARLY, ALL, MIDDLE = [0.0, 0.4], [0.0, 1.0], [0.3, 0.7]
WHERE = {
    f"galaxies-{asked}-{when}": (asked, window, eta)
    for asked in ("ellipticity", "size")
    for when, window, eta in (
        ("noise", EARLY, 1.0),
        ("ode", EARLY, 0.0),
        ("all-noise", ALL, 1.0),
        ("all-ode", ALL, 0.0),
        ("middle-noise", MIDDLE, 1.0),
    )
}


@named(*WHERE)
def galaxies(name: str) -> list[Row]:
    asked, window, eta = WHERE[name]
    rows = [row for row in results(f"galaxies-{asked}")["rows"] if row["eta"] == eta]
    rows = [row for row in rows if row["window"] == window or (not row["window"] and window == EARLY)]
    return [of_galaxies(row) for row in sorted(rows, key=lambda row: row["scale"])]


@named(*(f"galaxies-{asked}-{by}" for asked in ("ellipticity", "size") for by in ("matched", "typical")))
def galaxies_matched(name: str) -> list[Row]:
    _, asked, by = name.split("-")
    return [{"eta": f"{row['eta']:g}"} | of_galaxies(row, loss=False) for row in results(f"galaxies-{asked}")[by]]


def of_galaxies(row: Row, loss: bool = True) -> Row:
    """One way at one strength, with 95 % intervals."""
    low, high = row.get("ratio, 95 %", (0, 0))
    ratio = f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})" if "ratio" in row and row["way"] != "one call" else ""
    met, (least, most) = row["within 0.1"], row["within 0.1, 95 %"]
    return {
        "strength": f"{row['scale']:g}" if row["scale"] else "",
        "way": row["way"],
        **({"loss": f"{row['loss']:.4f}", "to one call's": ratio} if loss else {}),
        "within 0.1": f"{100 * met:.0f} % ({100 * least:.0f} to {100 * most:.0f})",
        "within 0.02": f"{100 * row['within 0.02']:.0f} %",
        "light": f"{row['light']:.0f}",
        "residual": f"{row['residual']:.4f}",
        "Frechet": f"{row['Frechet']:.1f}",
        "calls": f"{row['forward']} + {row['backward']}",
    }


@named("galaxies-tasks")
def galaxies_tasks(name: str) -> list[Row]:
    return [row for task in ("psf", "missing", "blend") for row in results(f"galaxies-{task}")]


def rendered(text: str) -> str:
    """A page with all of its tables made anew."""
    return MARKED.sub(lambda found: f"{found[1]}\n{table(TABLES[found[2]]())}\n\n{found[4]}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, and fail where a table is another one")
    parser.add_argument("--pages", type=Path, nargs="+", default=PAGES, help="folders of pages")
    given = parser.parse_args()
    other = []
    for page in sorted(page for folder in given.pages for page in folder.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if (made := rendered(text)) != text:
            other.append(page.name)
            if not given.check:
                page.write_text(made, encoding="utf-8")
    print(f"{'not what the results say' if given.check else 'written'}: {', '.join(other) or 'none'}")
    sys.exit(bool(other and given.check))


if __name__ == "__main__":
    main()
