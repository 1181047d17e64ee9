"""symguide bench: symguide measured beside others' ways to the same thing, by the benchmarks of a checkout."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import click

import symguide
from symguide.cli.group import Commands
from symguide.errors import ConfigError

EXAMPLES = [
    ("the gradient of a look-ahead by every way, in less than a minute", "symguide bench gradients --quick"),
    ("what a gradient holds by every memory plan, and what was predicted", "symguide bench memory --quick"),
    ("what an exact gradient buys, roughly, in less than a minute", "symguide bench quality --quick"),
]


class Bench(Commands):
    """Commands of the package `benchmarks`, which stands beside the source tree and is no part of the wheel."""

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if "benchmarks" not in sys.modules:
            _load(Path(symguide.__file__).parents[2] / "benchmarks" / "__init__.py")
        return super().get_command(ctx, name)


def _load(path: Path) -> None:
    """Import the package `benchmarks` from this file; ConfigError where it is not there."""
    spec = spec_from_file_location("benchmarks", path)
    if not path.exists() or spec is None or spec.loader is None:
        raise ConfigError(
            "the benchmarks come with the source, not with the installed package: clone the repository, run "
            'pip install -e ".[bench]" in it, and then this command again'
        )
    sys.modules["benchmarks"] = module = module_from_spec(spec)
    spec.loader.exec_module(module)


bench = Bench(
    "bench",
    "Measure symguide beside others' ways to the same thing, in one process.\n\n"
    "What is done is kept: the same command again goes on from a run that was stopped.\n\n"
    "Needs a checkout, whose benchmarks/ it runs. "
    'Peers come with pip install -e ".[bench]"; what is not there is a row that says so.',
    {
        "gradients": (
            "benchmarks.peers.command:gradients",
            "Gradients of a look-ahead: exactness, calls, bytes and seconds.",
        ),
        "memory": ("benchmarks.peers.command:memory", "Memory of a look-ahead's gradient, measured and predicted."),
        "quality": ("benchmarks.peers.command:quality", "What a gradient's accuracy buys: guided samples, judged."),
    },
    EXAMPLES,
)
