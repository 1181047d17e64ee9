"""The command group: lazy commands, and errors as one sentence with an exit code that scripts can tell apart."""

import errno
import importlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click

from symguide.cli.command import DEBUG, Example, write_examples
from symguide.errors import SymguideError, unknown

BAD_INPUT, BAD_DISK, BUG, INTERRUPTED = 2, 3, 1, 130

EXAMPLES = [
    ("see it work", "symguide demo"),
    (
        "sixteen handwritten threes, by guidance with a classifier",
        "symguide sample --model digits --objective classifier:3 --out threes",
    ),
    ("what methods there are, and all about one", "symguide methods\nsymguide methods sag"),
]
CODES = [
    ("0", "all is well"),
    ("1", "an unexpected error"),
    ("2", "something in the command cannot be used"),
    ("3", "the disk or the device's memory is full, or files may not be written"),
    ("130", "interrupted"),
]


def _quiet_libraries() -> None:
    """transformers warns of what it does without (torchvision, above all), which is nobody's concern here."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


class Commands(click.Group):
    """Commands given as name: (module:function, line of help), imported when they are called."""

    def __init__(
        self,
        name: str,
        about: str,
        commands: Mapping[str, tuple[str, str]],
        examples: Sequence[Example],
        **settings: Any,
    ) -> None:
        super().__init__(name, help=about, **settings)
        self._lazy, self._examples = dict(commands), examples
        self.params.append(_flag("--debug", _debug, "Show tracebacks of errors; also after the command."))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._lazy)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self._lazy:
            return None
        module, attribute = self._lazy[name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self._lazy and not args[0].startswith("-"):
            raise unknown("command", args[0], self._lazy)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section(f"Commands ({ctx.command_path} COMMAND --help tells more)"):
            formatter.write_dl([(name, line) for name, (_, line) in self._lazy.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(formatter, self._examples)


class Group(Commands):
    """The group of all commands.

    A SymguideError becomes one sentence on stderr and exit code 2, a disk or memory that is full 3, Ctrl-C 130, and
    what nobody expected 1. --debug shows tracebacks.
    """

    def __init__(self, commands: Mapping[str, tuple[str, str]]) -> None:
        super().__init__(
            "symguide",
            "Steer pretrained diffusion and flow models at sampling time, without training.",
            commands,
            EXAMPLES,
            callback=_quiet_libraries,
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
        )
        self.params.insert(0, _flag("--version", _version, "Show the version."))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        with formatter.section("Exit codes"):
            formatter.write_dl(CODES)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with _one_sentence(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with _one_sentence(ctx):
            return super().invoke(ctx)


@contextmanager
def _one_sentence(ctx: click.Context) -> Iterator[None]:
    """Errors inside become a sentence on stderr and an exit code."""
    try:
        yield
    except (click.exceptions.Exit, click.Abort):
        raise
    except BaseException as error:
        broken_pipe = isinstance(error, OSError) and error.errno == errno.EPIPE
        if ctx.meta.get(DEBUG) or broken_pipe or type(error).__name__ == "NoArgsIsHelpError":
            raise
        code, sentence = _explain(error)
        click.echo(sentence if code == INTERRUPTED else f"error: {sentence}", err=True)
        ctx.exit(code)


def _explain(error: BaseException) -> tuple[int, str]:
    """Exit code and sentence for an error."""
    if isinstance(error, SymguideError):
        return BAD_INPUT, str(error)
    if isinstance(error, click.ClickException):
        message = error.format_message().rstrip(".")
        command = getattr(getattr(error, "ctx", None), "command_path", "symguide")
        return BAD_INPUT, f"{message} (see {command} --help)"
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, str(error) or "interrupted"
    if isinstance(error, OSError) and error.errno is not None:
        return BAD_DISK, _disk(error)
    if _is_out_of_memory(error):
        return BAD_DISK, "out of memory: use a smaller --batch (and --memory minimal), then run the same command again"
    if isinstance(error, Exception):
        first = (str(error).strip() or "no message").splitlines()[0]
        return BUG, f"{type(error).__name__}: {first} (--debug shows where)"
    raise error


def _is_out_of_memory(error: BaseException) -> bool:
    """torch has an error of its own for GPUs, and none for the CPU."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error))
    )


def _disk(error: OSError) -> str:
    name = re.sub(r"\.([^/\\]+)\.[0-9a-f]{32}\.tmp", r"\1", str(error.filename))  # of a file that was not finished
    where = f" at {name}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full{where}: free some space and run the same command again; what is finished is kept"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission{where}: choose a folder that you may write to with --out"
    return f"{error.strerror}{where}"


def _flag(name: str, callback: Any, about: str) -> click.Option:
    return click.Option([name], is_flag=True, is_eager=True, expose_value=False, callback=callback, help=about)


def _debug(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    ctx.meta[DEBUG] = ctx.meta.get(DEBUG, False) or value


def _version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from symguide import __version__

        click.echo(f"symguide {__version__}")
        ctx.exit()
