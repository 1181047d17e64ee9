"""symguide evaluate: how good a model is, by a judge that neither its training nor guidance has seen."""

from collections.abc import Sequence
from typing import Any

import click

from symguide.cli.files import write_json
from symguide.cli.help import Command, debug_option, json_option, option
from symguide.cli.params import SAMPLES, Count, Finite
from symguide.errors import ConfigError

ALL = ("scenes", "scenes-flow", "scenes-latent")

EXAMPLES = [
    (
        "the text-to-image models: do they draw what captions say, and how far are their pictures from data",
        "symguide evaluate",
    ),
    (
        "one of them without classifier-free guidance, in fewer samples",
        "symguide evaluate scenes --cfg 1 --samples 200",
    ),
]


@click.command(cls=Command, examples=EXAMPLES)
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@option("Samples", "--samples", type=Count(10, SAMPLES), default=1000, show_default=True, help="For every line.")
@option("Samples", "--seed", type=int, default=0, show_default=True, help="Of the samples.")
@option("Samples", "--cfg", type=Finite(), default=5.0, show_default=True, help="Weight of classifier-free guidance.")
@option("Sampler", "--steps", type=Count(1), default=25, show_default=True, help="Steps of dpmpp_2m.")
@option("Computation", "--batch", type=Count(1, SAMPLES), default=100, show_default=True, help="Samples at a time.")
@option("Computation", "--device", default="cpu", show_default=True, help="Where the networks run.")
@json_option
@debug_option
def evaluate(
    models: Sequence[str],
    samples: int,
    seed: int,
    cfg: float,
    steps: int,
    batch: int,
    device: str,
    json_to: str | None,
) -> None:
    """Measure MODELs side by side: embedded ones of the scenes world, or model folders that take its captions.

    Where none is named: scenes, scenes-flow and scenes-latent.

    Shares of the samples of plain captions ("a red star on blue") that the judge reads as the shape, the colour and the
    background they ask for; the same for shapes and colours that training never showed together; captions of two
    objects; and the Frechet distance of samples of held-out captions to held-out pictures in the judge's features, with
    precision and recall, each beside what real pictures get.
    """
    from symguide.cli.device import usable
    from symguide.evaluation.quality import Evaluation
    from symguide.report import Column, Table
    from symguide.worlds.load import judge, load

    where, names = usable(device), list(dict.fromkeys(models or ALL))
    denoisers = {name: load(name, device=where) for name in names}
    for name, denoiser in denoisers.items():
        if not denoiser.null or "caption" not in denoiser.null:
            raise ConfigError(f"{name} takes no captions: evaluate measures models of the scenes world")
    judges = [judge("scenes", kind, where) for kind in ("classifier", "segmenter")]
    settings: dict[str, Any] = {"weight": cfg, "steps": steps, "seed": seed, "batch": batch, "progress": True}
    figures = {name: Evaluation(each, *judges, **settings).figures(samples) for name, each in denoisers.items()}
    if json_to is not None:
        write_json(json_to, {"samples": samples, "seed": seed, "cfg": cfg, "steps": steps, "models": figures})
    if json_to != "-":
        rows: list[dict[str, Any]] = [
            {"what": "" if place else what, "figure": figure, **{name: figures[name][what][figure] for name in names}}
            for what, each in figures[names[0]].items()
            for place, figure in enumerate(each)
        ]
        columns = [Column("what", "what"), Column("figure", "by the judge")]
        columns += [Column(name, name, "{:.3f}") for name in names]
        click.echo(f"{samples:,} samples a line, {steps} steps of dpmpp_2m, CFG {cfg:g}, seed {seed}\n")
        click.echo(Table(columns, rows))
