"""The command line: symguide sample | tune | evaluate | estimate-memory | models | methods | objectives | bench |
demo.

Importing this module is cheap: commands are imported when they are called, and torch when they run.
"""

from symguide.cli.group import Group

COMMANDS: dict[str, tuple[str, str]] = {
    "sample": ("symguide.cli.sample:sample", "Draw samples, guided or not, and write them to a folder."),
    "tune": ("symguide.cli.tune:tune", "Find settings of guidance within a budget of network calls."),
    "evaluate": ("symguide.cli.evaluate:evaluate", "How good a model is, by a judge it has not seen."),
    "estimate-memory": (
        "symguide.cli.estimate:estimate_memory",
        "What a guided diffusers pipeline will hold in memory, before it runs.",
    ),
    "models": ("symguide.cli.listing:models", "The models that ship with the package."),
    "methods": ("symguide.cli.listing:methods", "The guidance methods: what they do, take and cost."),
    "objectives": ("symguide.cli.listing:objectives", "What samples can be steered toward, and how to write it."),
    "bench": ("symguide.cli.bench:bench", "Measure symguide beside others' ways to the same thing."),
    "demo": ("symguide.cli.demo:demo", "See guidance work in a minute, offline, on a CPU."),
}
"""Where every command is (module:function) and its line in the group's help."""

main = Group(COMMANDS)

__all__ = ["COMMANDS", "main"]
