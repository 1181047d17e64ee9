"""symguide models | methods | objectives: what is registered, straight from the registries and docstrings."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from symguide.cli.files import write_json
from symguide.cli.help import Command, debug_option, json_option
from symguide.errors import unknown


def _output(rows: Sequence[Mapping[str, Any]], text: str, json_to: str | None) -> None:
    """Text for people, JSON where it is asked for."""
    if json_to is not None:
        write_json(json_to, list(rows))
    if json_to != "-":
        click.echo(text)


def _blocks(rows: Sequence[Mapping[str, Any]], title: str, keys: Sequence[str]) -> str:
    """Every row as its title line and its keys below, in aligned columns."""
    width = max(len(row["name"]) for row in rows) + 2
    indent = max(map(len, keys), default=0) + 2
    blocks = []
    for row in rows:
        lines = [f"{row['name']:{width}}{row[title]}"]
        for key in keys:
            if row.get(key):
                wrapped = click.wrap_text(str(row[key]), width=100 - width - indent).splitlines()
                heads = [key] + [""] * (len(wrapped) - 1)
                lines += [f"{'':{width}}{head:{indent}}{line}" for head, line in zip(heads, wrapped, strict=True)]
        blocks.append("\n".join(lines))
    return ("\n\n" if keys else "\n").join(blocks)


@click.command(
    cls=Command,
    examples=[
        ("what ships with the package", "symguide models"),
        ("the model card of one: data, training, measured quality", "symguide models digits"),
        ("the same for a program", "symguide models --json -"),
    ],
)
@click.argument("name", required=False)
@json_option
@debug_option
def models(name: str | None, json_to: str | None) -> None:
    """The models that ship with the package; with NAME, that model's card.

    A folder with config.json and model.safetensors, as symguide.save writes it, is a model too: give its path to
    --model.
    """
    from symguide.worlds import WORLDS

    if name is not None and name not in WORLDS:
        raise unknown("model", name, WORLDS)
    rows = []
    for each in [name] if name is not None else WORLDS:
        folder = Path(WORLDS[each].denoiser)
        row: dict[str, Any] = {"name": each, "about": WORLDS[each].description, "folder": str(folder)}
        row["weights"] = _size(folder / "model.safetensors")
        row["scorers"] = ", ".join(WORLDS[each].scorers)
        if name is not None:
            row["card"] = (folder / "README.md").read_text(encoding="utf-8") if folder.is_dir() else ""
        rows.append(row)
    text = _blocks(rows, "about", ["folder", "weights", "scorers"])
    _output(rows, f"{text}\n\n{rows[0]['card']}" if name is not None else text, json_to)


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB" if path.exists() else 'missing: pip install "symguide[worlds]"'


@click.command(
    cls=Command,
    examples=[
        ("all methods: what they do, take and cost", "symguide methods"),
        ("everything about one: equation, arguments, cost, source", "symguide methods sag"),
        ("as data, e.g. to compare defaults", "symguide methods --json methods.json"),
    ],
)
@click.argument("name", required=False)
@json_option
@debug_option
def methods(name: str | None, json_to: str | None) -> None:
    """The guidance methods: what they do, take and cost; with NAME, all about that one.

    Of the first three kinds one each can act in the same run: --method NAME, with --set NAME=VALUE for what it takes.
    Trajectory optimisation is called from Python only.
    """
    from symguide.cli import methods as known
    from symguide.registry import parameters as signature
    from symguide.registry import registry_of
    from symguide.solver import GRIDS
    from symguide.values import describe

    every = {each: kind for kind in known.KINDS for each in registry_of(kind)}
    if name is not None and name not in every:
        raise unknown("method", name, every)
    rows: list[dict[str, Any]] = []
    for each in [name] if name is not None else every:
        method = registry_of(every[each])[each]
        taken = signature(method)
        rows.append(
            {
                "name": each,
                "kind": every[each],
                "about": known.first_line(method),
                "parameters": {k: _plain(p.default) for k, p in taken.items() if not p.required},
                "required": [k for k, p in taken.items() if p.required],
                "types": {k: describe(p.kind) for k, p in taken.items() if k != "objective"},
                "ranges": {k: repr(p.domain) for k, p in taken.items() if p.domain is not None},
                "cost": known.paragraph(method, "Cost"),
                "source": known.paragraph(method, "Source"),
                **({} if name is None else {"doc": inspect.getdoc(method) or ""}),
            }
        )
    if name is None:
        for row in rows:
            row["takes"] = ", ".join([*row["required"], *map(_given, row["parameters"].items())])
        text = _blocks(rows, "about", ["kind", "takes", "cost", "source"])
        text += f"\n\nsolvers: {', '.join(registry_of('solver'))}\ngrids: {', '.join(GRIDS)}"
    else:
        (row,) = rows
        takes = [
            f"  {_given((k, row['parameters'][k])) if k in row['parameters'] else k}: {row['types'][k]}"
            + (f"; tune looks in {row['ranges'][k]}" if k in row["ranges"] else "")
            for k in row["types"]
        ]
        text = "\n".join([f"{name}: {row['kind']}, which takes", *takes, "", row["doc"]])
    _output(rows, text, json_to)


def _given(parameter: tuple[str, Any]) -> str:
    return "=".join(map(str, parameter))


def _plain(value: Any) -> Any:
    """A default as JSON has it."""
    if isinstance(value, tuple):
        return list(value)
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


MORE = {
    "classifier": "sample i goes toward the label whose turn it is in a comma list, 0,1,2 or shape=star,disk",
    "noisy": "labels as in classifier, for --method classifier, which asks it about noisy samples",
    "text": "a comma list of texts goes to the samples in turn",
    "segmentation": "a grey or indexed picture of classes, 255 being any, or an array, -1 being any",
    "aesthetic": "HEAD is a safetensors file, on a CLIP given by --encoder",
    "depth": "the depth that a model given by --encoder sees in the picture",
    "palette": "NUMBER colours of the picture, 5 by default",
    "edges": "lines that are bright on dark, or dark on bright",
    "motion": "an array (2, H, W) of pixels to the right and down",
    "region": "MASK is left, right, top, bottom, center (the part kept) or a file",
    "measurement": "others from Python: give a function of yours that returns one as module:Name",
}
OTHERS = {"measurement": "superres:PICTURE@FACTOR or deblur:PICTURE@SIGMA", "blackbox": "blackbox:module:Name"}


@click.command(
    cls=Command,
    examples=[
        ("all objectives, and how --objective takes them", "symguide objectives"),
        ("everything about one", "symguide objectives region"),
        (
            "one in use, doubled and added to another",
            "symguide sample --objective '2*region:a.png@left + classifier:3'",
        ),
        ("one of your own: a callable, class or factory in rules.py", "symguide sample --objective rules:symmetry"),
    ],
)
@click.argument("name", required=False)
@json_option
@debug_option
def objectives(name: str | None, json_to: str | None) -> None:
    """What samples can be steered toward, and how --objective takes it; with NAME, all about that one.

    Objectives add up and take factors: 0.5*classifier:3 + 2*region:ref.png@mask.png. Any callable x0 (B, ...) -> loss
    (B,) is one: module:Name, where Name is the callable, a class, or a function without arguments that returns it.
    """
    from symguide.cli.methods import first_line
    from symguide.objectives import OBJECTIVES
    from symguide.specs.kinds import KINDS

    if name is not None and name not in OBJECTIVES:
        raise unknown("objective", name, OBJECTIVES)
    rows: list[dict[str, Any]] = []
    for each in [name] if name is not None else OBJECTIVES:
        thing = OBJECTIVES[each]
        spec = " or ".join(KINDS[each].forms) if each in KINDS else OTHERS.get(each, "from Python: module:Name")
        spec += f" ({MORE[each]})" if each in MORE else ""
        rows.append(
            {
                "name": each,
                "about": first_line(thing),
                "spec": spec,
                "asks": _asks(each),
                "gradients": thing.differentiable is not False,
            }
        )
        if name is not None:
            rows[0]["doc"] = inspect.getdoc(thing) or ""
    text = _blocks(rows, "about", ["spec", "asks"])
    if name is not None:
        text = f"{name}: {rows[0]['spec']}\n\n{rows[0]['doc']}"
    _output(rows, text, json_to)


def _asks(name: str) -> str:
    """Which networks an objective asks on the command line."""
    from symguide.specs.kinds import KINDS
    from symguide.worlds.scorers import ASKS

    parts = [f"the {ASKS[name]} of the model's world"] if name in ASKS else []
    if name in KINDS and (encoder := KINDS[name].encoder) is not None:
        parts.append(f"a {encoder.__name__} given by --encoder")
    return ", or ".join(parts)
