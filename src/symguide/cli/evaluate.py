"""symguide evaluate: how good a model is, by a judge that neither its training nor guidance has seen."""

from collections.abc import Sequence
from typing import Annotated, Any

import click

from symguide.cli.command import SAMPLES, Count, Device, Json, Samples, Seed, command, write_json
from symguide.errors import ConfigError
from symguide.values import Between

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


@command(EXAMPLES)
def evaluate(
    models: Annotated[Sequence[str], "Embedded ones of scenes, or model folders."] = (),
    *,
    samples: Annotated[int, Between(10, SAMPLES), "For every line."] = 1000,
    seed: Annotated[Seed, "Of the samples."] = 0,
    cfg: Annotated[float, "Weight of classifier-free guidance."] = 5.0,
    steps: Annotated[Count, "Steps of dpmpp_2m."] = 25,
    batch: Annotated[Samples, "Samples at a time."] = 100,
    device: Device = "cpu",
    json: Json = None,
) -> None:
    """Measure MODELs side by side: embedded ones of the scenes world, or model folders that take its captions.

    Where none is named: scenes, scenes-flow and scenes-latent.

    Shares of the samples of plain captions ("a red star on blue") that the judge reads as the shape, the colour and the
    background they ask for; the same for shapes and colours that training never showed together; captions of two
    objects; and the Frechet distance of samples of held-out captions to held-out pictures in the judge's features, with
    precision and recall, each beside what real pictures get.
    """
    from symguide import values
    from symguide.evaluation.quality import Evaluation
    from symguide.report import Column, Table
    from symguide.worlds.load import judge, load

    where, names = values.device(device), list(dict.fromkeys(models or ALL))
    denoisers = {name: load(name, device=where) for name in names}
    for name, denoiser in denoisers.items():
        if not denoiser.null or "caption" not in denoiser.null:
            raise ConfigError(f"{name} takes no captions: evaluate measures models of the scenes world")
    judges = [judge("scenes", kind, where) for kind in ("classifier", "segmenter")]
    settings: dict[str, Any] = {"weight": cfg, "steps": steps, "seed": seed, "batch": batch, "progress": True}
    figures = {name: Evaluation(each, *judges, **settings).figures(samples) for name, each in denoisers.items()}
    if json is not None:
        write_json(json, {"samples": samples, "seed": seed, "cfg": cfg, "steps": steps, "models": figures})
    if json != "-":
        rows: list[dict[str, Any]] = [
            {"what": "" if place else what, "figure": figure, **{name: figures[name][what][figure] for name in names}}
            for what, each in figures[names[0]].items()
            for place, figure in enumerate(each)
        ]
        columns = [Column("what", "what"), Column("figure", "by the judge")]
        columns += [Column(name, name, "{:.3f}") for name in names]
        click.echo(f"{samples:,} samples a line, {steps} steps of dpmpp_2m, CFG {cfg:g}, seed {seed}\n")
        click.echo(Table(columns, rows))
