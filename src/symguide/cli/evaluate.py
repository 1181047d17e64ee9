"""symguide evaluate: how good a model is, by a judge that neither its training nor guidance has seen."""

from typing import Any

import click

from symguide.cli.files import write_json
from symguide.cli.help import Command, debug_option, json_option, option
from symguide.cli.params import Finite
from symguide.errors import ConfigError

EXAMPLES = [
    (
        "the text-to-image model: does it draw what captions say, and how far are its pictures from data",
        "symguide evaluate scenes",
    ),
    ("the same without classifier-free guidance, in fewer samples", "symguide evaluate scenes --cfg 1 --samples 200"),
]


@click.command(cls=Command, examples=EXAMPLES)
@click.argument("model")
@option("Samples", "--samples", type=click.IntRange(10), default=1000, show_default=True, help="For every line.")
@option("Samples", "--seed", type=int, default=0, show_default=True, help="Of the samples.")
@option("Samples", "--cfg", type=Finite(), default=3.0, show_default=True, help="Weight of classifier-free guidance.")
@option("Sampler", "--steps", type=click.IntRange(1), default=25, show_default=True, help="Steps of dpmpp_2m.")
@option("Computation", "--batch", type=click.IntRange(1), default=100, show_default=True, help="Samples at a time.")
@option("Computation", "--device", default="cpu", show_default=True, help="Where the networks run.")
@json_option
@debug_option
def evaluate(
    model: str, samples: int, seed: int, cfg: float, steps: int, batch: int, device: str, json_to: str | None
) -> None:
    """Measure MODEL, an embedded model of the scenes world or a model folder that takes its captions.

    Shares of the samples of plain captions ("a red star on blue") that the judge reads as the shape, the colour and the
    background they ask for; the same for shapes and colours that training never showed together; captions of two
    objects; and the Frechet distance of samples of held-out captions to held-out pictures in the judge's features, with
    precision and recall, each beside what real pictures get.
    """
    from symguide.cli.device import usable
    from symguide.models import judge, load
    from symguide.report import Column, Table
    from symguide.worlds.scenes.quality import Evaluation

    where = usable(device)
    denoiser = load(model, device=where)
    if not denoiser.null or "caption" not in denoiser.null:
        raise ConfigError(f"{model} takes no captions: evaluate measures models of the scenes world")
    evaluation = Evaluation(
        denoiser,
        judge("scenes", "classifier", where),
        judge("scenes", "segmenter", where),
        weight=cfg,
        steps=steps,
        seed=seed,
        batch=batch,
        progress=True,
    )
    figures: dict[str, dict[str, float]] = {
        "plain captions": evaluation.plain(samples),
        "pairs that training never showed": evaluation.plain(samples, unseen=True),
        "captions of two objects": evaluation.pairs(samples),
        "held-out captions against held-out pictures": evaluation.distance(samples),
    }
    rows: list[dict[str, Any]] = [
        {"what": what, "figure": name, "value": value} for what, each in figures.items() for name, value in each.items()
    ]
    for row, before in zip(rows[:0:-1], rows[-2::-1], strict=True):
        row["what"] = "" if row["what"] == before["what"] else row["what"]
    if json_to is not None:
        write_json(json_to, {"model": model, "samples": samples, "seed": seed, "cfg": cfg, "steps": steps, **figures})
    if json_to != "-":
        head = f"{model}: {samples:,} samples a line, {steps} steps of dpmpp_2m, CFG {cfg:g}, seed {seed}"
        columns = [Column("what", "what"), Column("figure", "by the judge"), Column("value", "", "{:.3f}")]
        click.echo(f"{head}\n\n{Table(columns, rows)}")
