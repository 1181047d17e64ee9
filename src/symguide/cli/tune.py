"""symguide tune: find settings of guidance, and write them as configs that symguide sample takes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import click

from symguide.cli.command import Command, Seed, Setting, Word
from symguide.cli.settings import SAMPLE, grouped
from symguide.values import Between

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

LEFT = ("pipeline", "negative_prompt", "size", "scheduler", "checkpoint", "best_of", "shard")
"""Settings of symguide sample that there are none of here."""

TABLE = {
    **{name: setting for name, setting in SAMPLE.items() if name not in LEFT},
    "method": replace(SAMPLE["method"], about="The method to tune; several are tuned side by side.", shown="sag"),
    "out": replace(SAMPLE["out"], about="Folder of configs, picture, figures and trials.", default="out/tune"),
    **grouped(
        Search={
            "budget": Setting(
                "Network calls in all, forward and backward, each sample counted; never exceeded.",
                Annotated[int, Between(1)],
                shown="30 times what the defaults take",
            ),
            "search": Setting(
                "What is searched, in place of all that the method has ranges for: scale=0.1:3:log, n=1:8, n=1,2,4, "
                "sphere=none,0.05:0.5, window=0:0.4,0.6:1, or a name alone for the method's own range. What is typed "
                "as a setting of its own, such as --n 4, is not searched.",
                form="NAME=RANGE",
                many=True,
            ),
            "metric": Setting(
                "What is minimised: judge, the objective by a network that guidance never sees; scorer, the objective "
                "itself; or an objective's spec, such as my_module:score.",
                shown="judge, where the objective has one",
            ),
            "keep": Setting(
                "What must not be lost: shape, the share of samples whose shape the judge still reads as the prompt "
                "says (pictures of scenes); or my_module:Name, higher is better."
            ),
            "floor": Setting(
                "Settings whose samples keep less cannot be chosen.",
                float,
                shown="what unguided samples have, less 0.1",
            ),
            "num": replace(SAMPLE["num"], about="Samples of each seed."),
            "seeds": Setting("Noise that all settings are tried on.", Sequence[Seed], [1000, 1001], "1000,1001"),
            "seed": replace(SAMPLE["seed"], about="Of what is proposed, and of the configs written."),
        }
    ),
}
"""Settings of symguide tune by name."""

OPTIONS = (
    "model", "prompt", "cfg", "steps", "objective", "method", "n", "budget", "search", "metric", "keep", "num", "seed",
    "out", "config",
)  # fmt: skip


@click.command(cls=Command, table=TABLE, options=OPTIONS, examples=EXAMPLES)
def tune(words: Sequence[Word]) -> None:
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
    from symguide.cli import config, tuning
    from symguide.cli.command import write_json
    from symguide.cli.request import request

    asked = request(words, TABLE)
    task = tuning.prepare(asked)
    for text in config.notes(asked.base, task.run.settings):
        asked.say(text)
    out = Path(asked["out"])
    found = tuning.search(task, out)
    figures = tuning.figures(task, found)
    if asked["json"] is not None:
        write_json(asked["json"], figures)
    written = tuning.write(task, found, figures, out)
    if asked["json"] != "-" and asked["progress"] is not False:
        click.echo(tuning.summary(task, found, written))
    _ = found.best  # a sentence where no setting can be chosen
