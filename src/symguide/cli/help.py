"""Help that teaches: options in groups by what they do, and worked examples at the end."""

from collections.abc import Callable, Sequence
from typing import Any

import click

from symguide.cli.params import JsonFile

Example = tuple[str, str]  # what it does, the command


class Option(click.Option):
    """An option that knows its group in the help text."""

    def __init__(self, *args: Any, group: str = "Other", **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.group = group


def write_examples(formatter: click.HelpFormatter, examples: Sequence[Example]) -> None:
    """The examples as a section, each line as it is typed."""
    if examples:
        with formatter.section("Examples"):
            for what, line in examples:
                formatter.write(f"{'':{formatter.current_indent}}# {what}\n")
                formatter.write("".join(f"{'':{formatter.current_indent}}{part}\n" for part in line.splitlines()))


class Command(click.Command):
    """A command with examples, and with options in groups."""

    def __init__(self, *args: Any, examples: Sequence[Example] = (), **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.examples = examples

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                other = "Arguments" if isinstance(parameter, click.Argument) else "Other"
                groups.setdefault(getattr(parameter, "group", other), []).append(record)
        for name, records in sorted(groups.items(), key=lambda group: group[0] == "Other"):
            with formatter.section(name):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(formatter, self.examples)


def option(group: str, *names: str, **settings: Any) -> Callable[[Any], Any]:
    """click.option in a group of the help text."""
    return click.option(*names, cls=Option, group=group, **settings)


def _debug(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    ctx.meta[DEBUG] = ctx.meta.get(DEBUG, False) or value


DEBUG = "symguide.debug"

json_option = option(
    "Output",
    "--json",
    "json_to",
    type=JsonFile(),
    metavar="FILE",
    help="Write the figures as JSON to a file, or to stdout with -.",
)
progress_option = option(
    "Output",
    "--progress/--quiet",
    default=None,
    help="Progress and results always, or errors only; by default progress is shown on a terminal.",
)
debug_option = option(
    "Other",
    "--debug",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_debug,
    help="Show tracebacks of errors.",
)
