"""docs/methods.md from the registries and docstrings: python docs/generate.py. A test compares the page with this."""

import inspect
import re
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import symguide as sg
from symguide import hooks
from symguide.registry import REGISTRIES
from symguide.solver import GRIDS, PRESETS, Solver

PAGE = Path(__file__).parent / "methods.md"
KINDS = {
    "loss guidance": "Loss guidance",
    "prediction guidance": "Prediction guidance",
    "particle guidance": "Particle guidance",
    "trajectory optimisation": "Whole trajectories",
}
PIECES = {"update rule": "Update rules", "constraint": "Constraints", "window": "Windows"}
INTRODUCTION = """# Methods

What each method does, its equation, what it takes and costs, where it comes from and when to use it, made of the
docstrings by `python docs/generate.py`. Symbols: [notation](notation.md). Measured: [results](results/README.md), and
from them [which method when](which-method.md). Memory plans, Jacobians and speed: [gradients](gradients.md)."""


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for kind, title in KINDS.items():
        parts += [f"## {title}", markdown(_below(import_module(REGISTRIES[kind].home))), table(kind)]
        for name, thing in REGISTRIES[kind].items():
            parts += [f"### {thing.__name__}", call(name, thing), markdown(inspect.getdoc(thing) or "")]
    parts += ["## Starts, restarts, stages and step hooks", markdown(_below(hooks))]
    for thing in (sg.Restart, sg.OptimalGaussian, sg.staged, sg.Stage, sg.Keep):
        parts += [f"### {thing.__name__}", markdown(inspect.getdoc(thing) or "")]
    for kind, title in PIECES.items():
        parts += [f"## {title}"]
        if kind == "update rule":
            parts += [markdown(_below(import_module(REGISTRIES[kind].home)))]
        for name, thing in REGISTRIES[kind].items():
            parts += [f"### {name}", call(name, thing), markdown(inspect.getdoc(thing) or "")]
    return "\n\n".join(part for part in [*parts, solvers(), grids()] if part) + "\n"


def table(kind: str) -> str:
    """The methods of a kind with their first sentences."""
    rows = [
        f"| `{name}` | [{thing.__name__}](#{thing.__name__.lower()}) | {_cell(summary(thing))} |"
        for name, thing in REGISTRIES[kind].items()
    ]
    return "\n".join(["| name | class | what it is |", "|---|---|---|", *rows])


def call(name: str, thing: Any) -> str:
    """How a method is made."""
    parameters = [p.replace(annotation=p.empty) for p in inspect.signature(thing).parameters.values()]
    made = f"{thing.__name__}{inspect.Signature(parameters)}"
    return f"`{name}`: `{made}`" if name != thing.__name__ else f"`{made}`"


def solvers() -> str:
    """The solvers, of sampling and of look-aheads, with their calls."""
    rows = [
        f"| `{name}` | {solver.stages}{'' if solver.full_at_end else ', the last step 1'} | "
        f"{_cell(inspect.getdoc(solver.step) or '')} |"
        for name, solver in REGISTRIES["solver"].items()
        if isinstance(solver, Solver)
    ]
    presets = ", ".join(f'`"{name}"` is `{solver}` on the grid `{grid}`' for name, (solver, grid) in PRESETS.items())
    return "\n".join(
        [
            "## Solvers\n",
            f"Of `sample` and of look-aheads; for these {presets}. An odd n is a one-stage step more.\n",
            *("| name | calls per step | |", "|---|---|---|"),
            *rows,
        ]
    )


def grids() -> str:
    """The time grids."""
    rows = [f"| `{name}` | {_cell(inspect.getdoc(grid) or '')} |" for name, grid in GRIDS.items()]
    own = f"| `timesteps([...])` | {_cell(inspect.getdoc(sg.timesteps) or '')} |"
    return "\n".join(["## Grids\n", "| name | times |", "|---|---|", *rows, own])


def summary(thing: Any) -> str:
    """The first sentence of a docstring."""
    return re.split(r"(?<=\.)\s", " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split()))[0]


def markdown(doc: str) -> str:
    """A docstring as Markdown: arguments and errors as lists, indented blocks and examples as code."""
    return re.sub(r"\n{3,}", "\n\n", "\n".join(_lines(doc.splitlines()))).strip()


def _lines(lines: list[str]) -> Iterator[str]:
    i = 0
    while i < len(lines):
        section = re.fullmatch(r"(Args|Raises|Returns|Attributes|Yields|Warns):", lines[i])
        end = i + 1
        if section or lines[i].startswith((" ", ">>>")):
            inside = " " if section or lines[i].startswith(" ") else ""
            while end < len(lines) and lines[end] and lines[end].startswith(inside):
                end += 1
            yield ""
            if section:
                yield f"**{section[1]}**\n"
                yield from _items(lines[i + 1 : end])
            else:
                yield from ["```", *(line.removeprefix("    ") for line in lines[i:end]), "```"]
            yield ""
        else:
            yield re.sub(r"^(Cost[^:]*:|Source:|Use it)", r"**\1**", _escaped(lines[i]))
        i = end


def _items(lines: Iterable[str]) -> Iterator[str]:
    """Entries `name: text`, each with its further lines."""
    for line in lines:
        entry = re.fullmatch(r"    (\w[\w, ]*): (.*)", line)
        if entry:
            yield f"- `{entry[1]}`: {_escaped(entry[2])}"
        else:
            yield ("  " if line.startswith("     ") else "- ") + _escaped(line.strip())


def _escaped(text: str) -> str:
    """Text in which stars and low lines are themselves, but in code."""
    return re.sub(r"`[^`]*`|([*|<])", lambda found: f"\\{found[1]}" if found[1] else found[0], text)


def _cell(text: str) -> str:
    return _escaped(" ".join(text.split()))


def _below(module: Any) -> str:
    """What a module's docstring says below its first line."""
    return (inspect.getdoc(module) or "").partition("\n\n")[2]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
