"""Commands made of settings: typed by a signature or a table, read from the command line by name, told in --help.

    symguide sample --steps 20 --set eta=0 --set sag.scale=0.5

--eta 0, --eta=0 and --set eta=0 are the same. A command declares the options that are typed every day; any further
setting of its table, and any parameter of a method, is understood alike.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import click

from symguide import files as disk
from symguide import values
from symguide.cli import registered
from symguide.errors import ConfigError, unknown
from symguide.values import MOST, Between

DEBUG = "symguide.debug"
"""Where ctx.meta says that --debug was given, which is understood anywhere."""

SAMPLES = 2**32
"""Most samples of a run: a pipeline's generators tell so many apart."""

Example = tuple[str, str]  # what it does, the command


class Form(NamedTuple):
    """In an annotation: the form of a value in --help."""

    text: str


Count = Annotated[int, Between(1, MOST)]
Samples = Annotated[int, Between(1, SAMPLES)]
Seed = Annotated[int, Between(-(2**63), 2**63 - 1)]
Json = Annotated[str | None, Form("FILE"), "Write the figures as JSON to a file, or to stdout with -."]
Progress = Annotated[bool | None, "Progress and results always (--progress), or errors only (--quiet)."]
Device = Annotated[str, Form("NAME"), "Where to compute, e.g. cpu, cuda, cuda:1, mps."]


@dataclass(frozen=True)
class Setting:
    """One setting of a command.

    Attributes:
        about: what it does, for --help.
        kind: the type of its value; of one that may be given several times, of each.
        default: where nobody gives it; None where that depends.
        shown: what --help says of a default that depends.
        form: of its value in --help.
        many: whether it may be given several times.
        alien: the sources that have no such setting, with the reason.
        method: whether it is a parameter of methods, whose signatures have its type.
        group: in --help.
    """

    about: str
    kind: Any = str
    default: Any = None
    shown: str = ""
    form: str = ""
    many: bool = False
    alien: Mapping[str, str] | None = None
    method: bool = False
    group: str = "Options"

    @property
    def help(self) -> str:
        default = self.shown or ("" if self.default is None or self.flag else str(self.default))
        return f"{self.about}  [default: {default}]" if default else self.about

    @property
    def flag(self) -> bool:
        return values.words(self.kind) == 0

    @property
    def metavar(self) -> str:
        return self.form or ("" if self.flag else values.metavar(self.kind))


class Word(NamedTuple):
    """A setting as it was given: its name, its text, and how an error calls it."""

    name: str
    text: str
    where: str


class Command(click.Command):
    """A command whose function is given what was typed, as `words`.

    Args:
        table: its settings by name.
        options: those that are declared; with others than these, --set gives any.
        arguments: those that are typed without their name; the last takes what is left where it may have several.
        examples: what they do, and how they are typed.
    """

    def __init__(
        self,
        *args: Any,
        table: Mapping[str, Setting],
        options: Sequence[str],
        arguments: Sequence[str] = (),
        examples: Sequence[Example] = (),
        **settings: Any,
    ) -> None:
        super().__init__(*args, **settings)
        self.table, self.options, self.arguments, self.examples = dict(table), options, arguments, examples
        self.open = set(table) - {*options, *arguments}
        if self.open:
            about = "Any setting of the run or of a method, e.g. eta=0, sag.scale=0.5; --eta 0 is the same."
            self.table["set"] = Setting(about, form="NAME=VALUE", many=True, group="Settings")
        for name in [*options, *(["set"] if self.open else [])]:
            about = self.table[name].help
            self.params.append(click.Option([flag(name)], help=about, multiple=True, expose_value=False))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        words = list(self._words(ctx, args))
        if words and words[-1].name in ctx.help_option_names:
            return super().parse_args(ctx, ["--help"])
        ctx.params = {"words": words}
        return []

    def _words(self, ctx: click.Context, args: Sequence[str]) -> Iterator[Word]:
        """What is typed, one setting after the other; ends at --help."""
        left, places = list(args), list(self.arguments)
        while left:
            typed = left.pop(0)
            head, equals, text = typed.partition("=")
            if head in ctx.help_option_names:
                yield Word(head, "", head)
                return
            if head == "--debug":
                ctx.meta[DEBUG] = True
            elif not head.startswith("--"):
                if not places:
                    raise ConfigError(f"{ctx.command_path} takes no further argument, and {typed!r} is one")
                yield Word(places[0], typed, places[0].upper())
                places = places if self.table[places[0]].many else places[1:]
            elif head == "--set" and self.open:
                name, equals, text = (text if equals else _next(left, head, "NAME=VALUE")).partition("=")
                name = plain_name(name.strip())
                if not equals and values.words(self._kind(name, f"--set {name}")):
                    raise ConfigError(f"--set takes NAME=VALUE, such as eta=0, not {name!r}")
                yield Word(name, text if equals else "true", f"--set {name}")
            else:
                name, off = self._off(plain_name(head[2:]))
                count = values.words(self._kind(name, head))
                if off or not (equals or count):
                    yield Word(name, "false" if off else "true", head)
                    continue
                texts = [text if equals else _next(left, head, f"{count} values" if count > 1 else "a value")]
                while len(texts) < count and not set(texts[0]) & set(",("):
                    texts.append(_next(left, head, f"{count} values"))
                yield Word(name, ",".join(texts) if count > 1 else texts[0], head)

    def _off(self, name: str) -> tuple[str, bool]:
        """The setting of a flag and whether it switches that off: --no-grid-png, and --quiet, which is no progress."""
        if name == "quiet" and "progress" in self.table:
            return "progress", True
        positive = name.removeprefix("no_")
        return (positive, True) if positive != name and positive in self.table else (name, False)

    def _kind(self, name: str, typed: str) -> Any:
        """The type of a setting, of the run or of a method."""
        if name in self.table:
            return self.table[name].kind
        known = [name for name in self.table if name not in self.arguments]
        if self.open:
            if (kind := registered.kind_of_setting(name)) is not None:
                return kind
            known += registered.settings()
        if typed.startswith("--set"):
            raise unknown("setting", name, dict.fromkeys(known))
        raise unknown("option", typed, dict.fromkeys(map(flag, known)))

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        places = [f"[{name.upper()}]" + ("..." if self.table[name].many else "") for name in self.arguments]
        return [*super().collect_usage_pieces(ctx), *places]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for name, setting in self.table.items():
            if name in (*self.options, "set", *self.arguments):
                shown = name.upper() if name in self.arguments else f"{_shown(name, setting)} {setting.metavar}"
                group = "Arguments" if name in self.arguments else setting.group
                groups.setdefault(group, []).append((shown.strip(), setting.help))
        for title, rows in groups.items():
            with formatter.section(title):
                formatter.write_dl(rows)
        if self.open:
            with formatter.section("Further settings, --set NAME=VALUE or --NAME VALUE"):
                rest = [(name, setting) for name, setting in self.table.items() if name in self.open]
                formatter.write_dl([(f"{name} {setting.metavar}".strip(), setting.help) for name, setting in rest])
            formatter.write("  Those of methods, with types, defaults and ranges: symguide methods NAME\n")

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(formatter, self.examples)


def _shown(name: str, setting: Setting) -> str:
    """A setting as it is typed, with how a flag that is on is switched off."""
    off = "/--quiet" if name == "progress" else f"/--no-{flag(name)[2:]}"
    return flag(name) + (off if setting.flag and setting.default is not False else "")


def write_examples(formatter: click.HelpFormatter, examples: Sequence[Example]) -> None:
    """The examples as a section, each line as it is typed."""
    if examples:
        with formatter.section("Examples"):
            for what, line in examples:
                formatter.write(f"{'':{formatter.current_indent}}# {what}\n")
                formatter.write("".join(f"{'':{formatter.current_indent}}{part}\n" for part in line.splitlines()))


def command(examples: Sequence[Example], name: str | None = None) -> Callable[[Callable[..., None]], Command]:
    """A command of a function: its settings are its parameters, with Annotated types that end in what they do.

    Parameters before the * are arguments, and Sequence[X] may be given several times.
    """

    def make(function: Callable[..., None]) -> Command:
        hints, signature = get_type_hints(function, include_extras=True), inspect.signature(function).parameters
        table = {key: _setting(hints[key], parameter.default) for key, parameter in signature.items()}

        def run(words: Sequence[Word]) -> None:
            found, _ = read(words, table)
            if missing := [key for key, p in signature.items() if p.default is p.empty and key not in found]:
                raise ConfigError(f"{missing[0].upper()} is missing: see symguide {made.name} --help")
            function(**{key: found.get(key, parameter.default) for key, parameter in signature.items()})

        places = [key for key, parameter in signature.items() if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
        made = Command(
            name or function.__name__,
            callback=run,
            help=function.__doc__,
            table=table,
            options=[key for key in table if key not in places],
            arguments=places,
            examples=examples,
        )
        return made

    return make


def _setting(hint: Any, default: Any) -> Setting:
    """The setting of a parameter: Annotated[type, ..., what it does], or of another such type."""
    if get_origin(hint) is not Annotated:  # Python 3.10 takes a default of None for an Optional around it
        hint = get_args(hint)[0]
    kind, *extra = get_args(hint)
    kinds = [each for each in get_args(kind) if each is not NoneType]
    kind = kinds[0] if NoneType in get_args(kind) else kind
    many = get_origin(kind) is Sequence
    kind = get_args(kind)[0] if many else kind
    about = next(each for each in extra if isinstance(each, str))
    form = next((each.text for each in extra if isinstance(each, Form)), "")
    for bound in extra:
        kind = Annotated[kind, bound] if isinstance(bound, Between | values.OneOf) else kind
    default = None if default is inspect.Parameter.empty or default == () else default
    return Setting(about, kind, default, form=form, many=many)


def _next(left: list[str], head: str, what: str) -> str:
    if not left:
        raise ConfigError(f"{head} takes {what}: give it after {head}")
    return left.pop(0)


def plain_name(name: str) -> str:
    """A setting's name with underscores; that of its method is left as it is.

    >>> plain_name("adam-dps.backward-steps"), plain_name("grid-png")
    ('adam-dps.backward_steps', 'grid_png')
    """
    method, dot, own = name.rpartition(".")
    return method + dot + own.replace("-", "_")


def flag(name: str) -> str:
    """A setting as it is typed."""
    return "--" + name.replace("_", "-")


def read(words: Iterable[Word], table: Mapping[str, Setting]) -> tuple[dict[str, Any], list[Word]]:
    """The settings of the run that were given, as plain values by name, and the words of methods.

    Raises:
        ConfigError: for a value that its setting does not take, and a JSON file that cannot be written.
    """
    found: dict[str, Any] = {}
    others: list[Word] = []
    for word in words:
        setting = table.get(word.name)
        if setting is None or setting.method:
            others.append(word)
        elif setting.many:
            found.setdefault(word.name, []).append(values.plain(word.text, setting.kind, word.where))
        else:
            found[word.name] = values.plain(word.text, setting.kind, word.where)
    to = found.get("json")
    if to not in (None, "-") and (not Path(to).name or Path(to).is_dir() or not Path(to).parent.is_dir()):
        raise ConfigError(f"--json: {to!r} is no file in a folder that exists; - is stdout")
    return found, others


def write_json(to: str, figures: Any) -> None:
    """Figures as JSON to a file, or to stdout with "-"."""
    text = dumps(figures, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if to == "-":
        click.echo(text, nl=False)
        return
    disk.write(Path(to), text.encode())
