"""symguide tune: find settings of guidance, and write them as configs that symguide sample takes."""

from pathlib import Path
from typing import Any

import click

from symguide.cli.help import Command, option
from symguide.cli.params import SAMPLES, Count, Finite, Seeds
from symguide.cli.sample import BASE, sample

EXAMPLES = [
    (
        "settings of SAG for threes, within a budget of network calls; then draw with them",
        "symguide tune --objective classifier:3 --steps 20 --num 8 --budget 60000 --out tuned\n"
        "symguide sample --config tuned/config.yaml --out threes",
    ),
    (
        "two methods side by side, in ranges of your own, with a fixed look-ahead",
        "symguide tune --objective classifier:3 --method sag --method freedom --search scale=0.1:3:log --n 2",
    ),
    (
        "a style, as long as the judge still reads the shapes that the prompt asks for",
        'symguide tune --model scenes --prompt "a red star" --objective style:picture.png --metric judge --keep shape',
    ),
    (
        "by a measure of your own (rules.py: def score(x0): ... one number each, lower is better)",
        "symguide tune --objective classifier:3 --metric rules:score --search scale --search n=1,2,4",
    ),
    ("begin at the settings of a run", "symguide tune --config threes/config.yaml --out tuned"),
]

OWN = ("num", "method", "seed", "out")
"""Options of symguide sample that mean something else here."""

LEFT = ("pipeline", "negative_prompt", "size", "scheduler", "checkpoint", "best_of")
"""Options of symguide sample that there are none of here."""

SHARED = [parameter for parameter in sample.params if parameter.name not in (*OWN, *LEFT)]


@click.command(cls=Command, examples=EXAMPLES, params=SHARED)
@option(
    "Search",
    "--budget",
    type=click.IntRange(1),
    metavar="CALLS",
    show_default="30 times what the defaults take",
    help="Network calls in all, forward and backward, each sample counted; never exceeded.",
)
@option(
    "Guidance",
    "--method",
    multiple=True,
    metavar="NAME",
    show_default="sag",
    help="The method to tune; several are tuned side by side.",
)
@option(
    "Search",
    "--search",
    multiple=True,
    metavar="NAME=RANGE",
    help="What is searched, in place of all that the method has ranges for: scale=0.1:3:log, n=1:8, n=1,2,4, "
    "sphere=none,0.05:0.5, window=0:0.4,0.6:1, or a name alone for the method's own range. What is typed as an option "
    "of its own, such as --n 4, is not searched.",
)
@option(
    "Search",
    "--metric",
    metavar="WHAT",
    show_default="judge, where the objective has one",
    help="What is minimised: judge, the objective by a network that guidance never sees; scorer, the objective itself; "
    "or an objective's spec, such as my_module:score.",
)
@option(
    "Search",
    "--keep",
    metavar="WHAT",
    help="What must not be lost: shape, the share of samples whose shape the judge still reads as the prompt says "
    "(pictures of scenes); or my_module:Name, higher is better.",
)
@option(
    "Search",
    "--floor",
    type=Finite(),
    show_default="what unguided samples have, less 0.1",
    help="Settings whose samples keep less cannot be chosen.",
)
@option("Search", "--num", type=Count(1, SAMPLES), default=16, show_default=True, help="Samples of each seed.")
@option(
    "Search",
    "--seeds",
    type=Seeds(),
    default="1000,1001",
    show_default=True,
    help="Noise that all settings are tried on, apart from the --seed that the config draws with.",
)
@option(
    "Search", "--seed", type=int, default=0, show_default=True, help="Of what is proposed, and of the configs written."
)
@option(
    "Output",
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("out/tune"),
    show_default=True,
    help="Folder for the configs, the picture of the front, the figures and the trials.",
)
@click.pass_context
def tune(ctx: click.Context, /, **options: Any) -> None:
    """Find settings of guidance for a model and an objective, within a budget of network calls.

    All settings are tried on the same few samples. The methods' defaults come first; the others are proposed by Optuna
    (which needs pip install "symguide[tune]"), and a trial that one of no more calls beats is stopped early. The result
    is the front: the settings that no other beats in both quality and calls.

    Tuning on what guidance follows fools the scorer, so a judge is asked where there is one; and what a judge likes
    best may break pictures up, so say with --keep what must not be lost.

    The folder gets config.yaml (the best; symguide sample --config takes it), front/ (a config for each point of the
    front), front.png, results.json and trials.jsonl. A search that was interrupted goes on with the same command, and
    one with a larger --budget adds to it.
    """
    from symguide.cli import config, source, tuning
    from symguide.cli.files import write_json

    def say(text: str) -> None:
        if options["progress"] is not False:
            click.echo(text, err=True)

    base = ctx.meta.get(BASE, {})
    options |= dict.fromkeys(LEFT)
    for text in source.settle(ctx, options, base):
        say(text)
    task = tuning.prepare(ctx, options, say)
    for text in config.notes(base, task.run.settings):
        say(text)
    found = tuning.search(task, options["out"], options)
    figures = tuning.figures(task, found, options)
    if options["json_to"] is not None:
        write_json(options["json_to"], figures)
    written = tuning.write(task, found, figures, options["out"], say)
    if options["json_to"] != "-" and options["progress"] is not False:
        click.echo(tuning.summary(task, found, written))
    _ = found.best  # a sentence where no setting can be chosen
