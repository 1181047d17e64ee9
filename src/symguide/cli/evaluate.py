"""symguide evaluate: how good a model is, by a judge that neither its training nor guidance has seen."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import click

from symguide.cli.command import SAMPLES, Count, Device, Json, Samples, Seed, command, write_json
from symguide.errors import ConfigError
from symguide.values import Between

if TYPE_CHECKING:  # --help imports no torch
    from symguide.denoiser import Denoiser

ALL = ("scenes", "scenes-flow", "scenes-latent")
DRAWN = "drawings"
"""The column of the true drawings."""

EXAMPLES = [
    (
        "the text-to-image models: do they draw what captions say, and how far are their pictures from data",
        "symguide evaluate",
    ),
    (
        "one of them without classifier-free guidance, in fewer samples",
        "symguide evaluate scenes --cfg 1 --samples 200",
    ),
    (
        "emoji: names and styles read beside those of the true drawings, Frechet distance, copies of training drawings",
        "symguide evaluate emoji",
    ),
]


@command(EXAMPLES)
def evaluate(
    models: Annotated[Sequence[str], "Embedded ones of scenes or of emoji, or model folders."] = (),
    *,
    samples: Annotated[int, Between(10, SAMPLES), "For every line."] = 1000,
    seed: Annotated[Seed, "Of the samples."] = 0,
    cfg: Annotated[float | None, "Weight of classifier-free guidance; 5 for scenes, 3 for emoji."] = None,
    steps: Annotated[Count, "Steps of dpmpp_2m."] = 25,
    batch: Annotated[Samples, "Samples at a time."] = 100,
    device: Device = "cpu",
    json: Json = None,
) -> None:
    """Measure MODELs side by side: embedded ones of one world, or model folders that take its conditions.

    Where none is named: scenes, scenes-flow and scenes-latent.

    Scenes: shares of the samples of plain captions ("a red star on blue") that the judge reads as the shape, the colour
    and the background they ask for; the same for shapes and colours that training never showed together; captions of
    two objects; and the Frechet distance of samples of held-out captions to held-out pictures in the judge's features,
    with precision and recall, each beside what real pictures get.

    Emoji: shares of the samples whose name and style the judges read as those asked for, of drawings that training saw
    and of those that it never did; Frechet distance, precision and recall in the judge's features; whether samples are
    copies of training drawings; and whether they are nearer to the true drawing, where training never saw it, than the
    same thing in another style. The column "drawings" is what the true drawings get. What needs a package that is not
    there is left out, and it is said which.
    """
    from symguide import values
    from symguide.worlds import WORLDS
    from symguide.worlds.load import load

    where, names = values.device(device), list(dict.fromkeys(models or ALL))
    denoisers = {name: load(name, device=where) for name in names}
    worlds = {_world(name, denoiser) for name, denoiser in denoisers.items()}
    if len(worlds) > 1:
        raise ConfigError(f"{' and '.join(names)} are of different worlds: evaluate each by itself")
    (world,) = worlds
    weight = WORLDS[world].weight if cfg is None else cfg
    settings: dict[str, Any] = {"weight": weight, "steps": steps, "seed": seed, "batch": batch, "progress": True}
    found = (_emoji if world == "emoji" else _scenes)(denoisers, samples, where, settings)
    if json is not None:
        write_json(json, {"samples": samples, "seed": seed, "cfg": weight, "steps": steps, **found})
    if json != "-":
        click.echo(f"{samples:,} samples a line, {steps} steps of dpmpp_2m, CFG {weight:g}, seed {seed}\n")
        click.echo(_table(found["models"], found.get(DRAWN)))
        for what, why in found.get("missing", {}).items():
            click.echo(f"\nleft out, for want of {what}: {why}")


def _world(name: str, denoiser: "Denoiser") -> str:
    """Of a model, by what it is told."""
    told = set(denoiser.null or {})
    if "caption" in told:
        return "scenes"
    if {"text", "style"} <= told:
        return "emoji"
    raise ConfigError(f"{name} takes no captions: evaluate measures models of the scenes world, and of emoji")


def _scenes(denoisers: Mapping[str, "Denoiser"], samples: int, where: Any, settings: Any) -> dict[str, Any]:
    from symguide.evaluation.quality import Evaluation
    from symguide.worlds.load import judge

    judges = [judge("scenes", kind, where) for kind in ("classifier", "segmenter")]
    return {
        "models": {name: Evaluation(each, *judges, **settings).figures(samples) for name, each in denoisers.items()}
    }


def _emoji(denoisers: Mapping[str, "Denoiser"], samples: int, where: Any, settings: Any) -> dict[str, Any]:
    from symguide.evaluation import emoji

    figures, drawings, missing = emoji.evaluate(denoisers, samples, device=where, **settings)
    return {"models": figures, DRAWN: drawings, "missing": missing}


def _table(models: Mapping[str, Any], drawings: Mapping[str, Any] | None) -> Any:
    """A row for each figure and a column for each model; of emoji one for the true drawings, too."""
    from symguide.report import Column, Table

    every = {**models, **({} if not drawings else {DRAWN: drawings})}
    first = next(iter(models.values()))
    rows: list[dict[str, Any]] = [
        {
            "what": "" if place else what,
            "figure": figure,
            **{name: found.get(what, {}).get(figure) for name, found in every.items()},
        }
        for what, each in first.items()
        for place, figure in enumerate(each)
    ]
    columns = [Column("what", "what"), Column("figure", "by the judge")]
    return Table(columns + [Column(name, name, "{:.3f}") for name in every], rows)
