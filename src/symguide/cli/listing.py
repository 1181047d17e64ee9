"""symguide models | methods | objectives: what is registered, straight from the registries and docstrings."""

import inspect
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import click

from symguide.cli import registered
from symguide.cli.command import Json, command, write_json
from symguide.errors import unknown
from symguide.registry import registry_of

Name = Annotated[str | None, "All about this one."]


def _chosen(kind: str, name: str | None, known: Collection[str]) -> Collection[str]:
    """The names that a listing is of; ConfigError for an unknown one."""
    if name is not None and name not in known:
        raise unknown(kind, name, known)
    return known if name is None else [name]


def _output(rows: Sequence[Mapping[str, Any]], text: str, json: str | None) -> None:
    """Text for people, JSON where it is asked for."""
    if json is not None:
        write_json(json, list(rows))
    if json != "-":
        click.echo(text)


def _blocks(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> str:
    """Every row as its name with what it is about, and its keys below, in aligned columns."""
    width = max(len(row["name"]) for row in rows) + 2
    indent = max(map(len, keys), default=0) + 2
    blocks = []
    for row in rows:
        lines = [f"{row['name']:{width}}{row['about']}"]
        for key in keys:
            if row.get(key):
                wrapped = click.wrap_text(str(row[key]), width=100 - width - indent).splitlines()
                heads = [key] + [""] * (len(wrapped) - 1)
                lines += [f"{'':{width}}{head:{indent}}{line}" for head, line in zip(heads, wrapped, strict=True)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


@command(
    [
        ("what ships with the package", "symguide models"),
        ("the model card of one: data, training, measured quality", "symguide models digits"),
        ("the same for a program", "symguide models --json -"),
    ]
)
def models(name: Name = None, *, json: Json = None) -> None:
    """The models that ship with the package; with NAME, that model's card.

    A folder with config.json and model.safetensors, as symguide.save writes it, is a model too: give its path to
    --model.
    """
    from symguide.worlds import WORLDS

    rows = []
    for each in _chosen("model", name, WORLDS):
        world = WORLDS[each]
        folder = Path(world.denoiser)
        row: dict[str, Any] = {"name": each, "about": world.description, "folder": str(folder)}
        row["weights"] = _size(folder / "model.safetensors" if world.make is None else folder)
        row["scorers"] = ", ".join(world.scorers)
        if name is not None:
            card = (folder / "README.md").read_text(encoding="utf-8") if folder.is_dir() else ""
            row["card"] = card if world.make is None else inspect.getdoc(world.make) or ""
        rows.append(row)
    text = _blocks(rows, ["folder", "weights", "scorers"])
    _output(rows, f"{text}\n\n{rows[0]['card']}" if name is not None else text, json)


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB" if path.exists() else "missing"


@command(
    [
        ("all methods: what they do, take and cost", "symguide methods"),
        ("everything about one: equation, arguments with types and ranges, cost, source", "symguide methods sag"),
        ("as data, e.g. to compare defaults", "symguide methods --json methods.json"),
    ]
)
def methods(name: Name = None, *, json: Json = None) -> None:
    """The guidance methods: what they do, take and cost; with NAME, all about that one.

    Of the first three kinds one each can act in the same run: --method NAME, with --set NAME=VALUE for what it takes.
    Trajectory optimisation is called from Python only.
    """
    from symguide.registry import VALUES
    from symguide.solver import GRIDS

    every = {each: kind for kind in registered.KINDS for each in registry_of(kind)}
    rows = [_method(each, every[each]) for each in _chosen("method", name, every)]
    if name is None:
        shown = [row | {"takes": ", ".join(map(_given, row["parameters"].items()))} for row in rows]
        text = _blocks(shown, ["kind", "takes", "cost", "source"])
        named = {f"{kind}s": registry_of(kind) for kind in ("solver", *VALUES)} | {"grids": GRIDS}
        text += "\n\n" + "\n".join(f"{kind}: {', '.join(names)}" for kind, names in named.items())
    else:
        (row,), (kind,) = rows, [every[name]]
        takes = [
            f"  {_given((key, row['parameters'].get(key, '')))}: {what}"
            + (f"; tune looks in {row['ranges'][key]}" if key in row["ranges"] else "")
            for key, what in row["types"].items()
        ]
        text = "\n".join([f"{name}: {kind}, which takes", *takes, "", inspect.getdoc(registry_of(kind)[name]) or ""])
    _output(rows, text, json)


def _method(name: str, kind: str) -> dict[str, Any]:
    """A method as a row of JSON."""
    from symguide.registry import parameters
    from symguide.values import describe

    method = registry_of(kind)[name]
    taken = {key: parameter for key, parameter in parameters(method).items() if key != "objective"}
    return {
        "name": name,
        "kind": kind,
        "about": _first_line(method),
        "parameters": {key: _plain(parameter.default) for key, parameter in taken.items() if not parameter.required},
        "types": {key: describe(parameter.kind) for key, parameter in taken.items()},
        "ranges": {key: repr(parameter.domain) for key, parameter in taken.items() if parameter.domain is not None},
        "cost": _paragraph(method, "Cost"),
        "source": _paragraph(method, "Source"),
    }


def _given(parameter: tuple[str, Any]) -> str:
    return "=".join(map(str, parameter))


def _plain(value: Any) -> Any:
    """A default as JSON has it."""
    if isinstance(value, tuple):
        return list(value)
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


@command(
    [
        ("all objectives, and how --objective takes them", "symguide objectives"),
        ("everything about one", "symguide objectives region"),
        (
            "one in use, doubled and added to another",
            "symguide sample --objective '2*region:a.png@left + classifier:3'",
        ),
        ("one of your own: a callable, class or factory in rules.py", "symguide sample --objective rules:symmetry"),
    ]
)
def objectives(name: Name = None, *, json: Json = None) -> None:
    """What samples can be steered toward, and how --objective takes it; with NAME, all about that one.

    Objectives add up and take factors: 0.5*classifier:3 + 2*region:ref.png@mask.png. Any callable x0 (B, ...) -> loss
    (B,) is one: module:Name, where Name is the callable, a class, or a function without arguments that returns it.
    """
    from symguide.objectives import OBJECTIVES
    from symguide.specs.kinds import written

    rows = [
        {
            "name": each,
            "about": _first_line(OBJECTIVES[each]),
            "spec": written(each),
            "asks": _asks(each),
            "gradients": OBJECTIVES[each].differentiable is not False,
        }
        for each in _chosen("objective", name, OBJECTIVES)
    ]
    text = _blocks(rows, ["spec", "asks"])
    if name is not None:
        text = f"{name}: {rows[0]['spec']}\n\n{inspect.getdoc(OBJECTIVES[name])}"
    _output(rows, text, json)


def _asks(name: str) -> str:
    """Which networks an objective asks on the command line."""
    from symguide.specs.kinds import KINDS
    from symguide.worlds.scorers import ASKS

    parts = [f"the {ASKS[name]} of the model's world"] if name in ASKS else []
    if name in KINDS and (encoder := KINDS[name].encoder) is not None:
        parts.append(f"a {encoder.__name__} given by --encoder")
    return ", or ".join(parts)


def _first_line(thing: Any) -> str:
    """The first line of a docstring."""
    lines = (inspect.getdoc(thing) or "").splitlines()
    return lines[0] if lines else ""


def _paragraph(thing: Any, what: str) -> str:
    """A docstring's paragraph of the cost or the source, as one line.

    >>> _paragraph(registry_of(registered.LOSS)["mpgd"], "Cost")
    'of a guided step: 1 forward and no backward call.'
    """
    found = re.search(rf"\b{what}\b.*?(?=\n\s*\n|\Z)", inspect.getdoc(thing) or "", re.DOTALL)
    return re.sub(rf"^{what}:? ", "", " ".join(found[0].split())) if found else ""
