"""The settings of `symguide sample` and `symguide tune` by name, which are the keys of their config files too."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from symguide.cli.command import Count, Samples, Seed, Setting
from symguide.values import Between, OneOf, Pairs

Share = Annotated[float, Between(0, 1)]
Level = Annotated[float, Between(0)]

PIPELINES = {"model": "it is for runs with --pipeline"}


def only_models(why: str, about: str, *given: Any, **settings: Any) -> Setting:
    """A setting that pipelines have none of, and why."""
    return replace(Setting(about, *given, **settings), alien={"pipeline": why})


def grouped(**groups: Mapping[str, Setting]) -> dict[str, Setting]:
    """The settings of all groups by name, each told its group."""
    return {n: replace(s, group=group) for group, settings in groups.items() for n, s in settings.items()}


SAMPLE: Mapping[str, Setting] = grouped(
    Samples={
        "model": Setting("An embedded model's name, or a model folder.", shown="digits", form="NAME"),
        "pipeline": Setting(
            "In place of a model: a diffusers pipeline that draws pictures, of a prompt or of nothing, from a folder "
            "or the Hugging Face hub; safetensors only.",
            form="FOLDER_OR_ID",
        ),
        "prompt": Setting(
            "What the samples show, for pipelines and models that read captions (scenes) or sentences (emoji); several "
            "go to the samples in turn.",
            many=True,
        ),
        "negative_prompt": Setting("What they do not show, for pipelines that heed it.", alien=PIPELINES),
        "condition": only_models(
            "a pipeline is told what to show by --prompt",
            "A condition of the model, label=3; values of a list, label=0,1,2, go to the samples in turn. Of emoji: "
            "style=twemoji, ground=skyblue, zoom=1.2, turn=20 (degrees), right=0.1, down=0.1 (of a side), ink=1, "
            "pale=0.4, gray=1, hue=120 (degrees), free=1 (in any look).",
            Pairs,
            form="NAME=VALUES",
            many=True,
        ),
        "cfg": Setting(
            "Weight of guidance toward the condition, which needs no objective; 1 is off, 2 to 6 is usual.",
            float,
            shown="a pipeline's own; with --prompt 5, or 3 for emoji, else off",
        ),
        "num": Setting("How many samples.", Samples, 16),
        "batch": Setting("Samples at a time; each batch is saved.", Samples, shown="64, or 1 with --pipeline"),
        "seed": Setting("With a sample's index it decides its noise.", Seed, 0),
        "size": Setting("Of a pipeline's pictures.", tuple[Count, Count], form="HEIGHT WIDTH", alien=PIPELINES),
    },
    Sampler={
        "steps": Setting("Steps from noise to clean.", Count, shown="50, or the pipeline's own"),
        "solver": only_models(
            "a pipeline steps with its own scheduler: use --scheduler",
            "Of the steps.",
            Annotated[str, OneOf("solver", "symguide.solver:SOLVERS")],
            shown="ddim",
        ),
        "grid": only_models(
            "a pipeline's timesteps are its scheduler's: use --scheduler",
            "Where the steps lie.",
            Annotated[str, OneOf("grid", "symguide.solver:GRIDS")],
            shown="uniform",
        ),
        "eta": Setting(
            "Noise of a step: 0 none, 1 the ancestral sampler's.", Share, shown="1, or the method's or pipeline's own"
        ),
        "restart": only_models(
            "a pipeline makes each of its steps once",
            "Go back from the noise level LOW (sigma / alpha) to HIGH and sample down again, TIMES times.",
            tuple[Level, Level, Count],
            form="LOW HIGH TIMES",
        ),
        "scheduler": Setting(
            "Of diffusers, in the place of the pipeline's own, e.g. DDIMScheduler.",
            Annotated[str, OneOf("scheduler", "symguide.pipelines.levels:KNOWN")],
            alien=PIPELINES,
        ),
        "device": Setting("Where to compute, e.g. cpu, cuda, cuda:1, mps.", str, "cpu", form="NAME"),
        "dtype": Setting("Of all numbers.", Literal["float32", "float64", "float16", "bfloat16"], "float32"),
        "on_nan": Setting(
            "A loss that is not finite stops the run, or leaves that sample unguided for the step.",
            Literal["raise", "skip"],
            "raise",
        ),
    },
    Guidance={
        "objective": Setting(
            "What to steer toward: classifier:3, style:PICTURE, text:WORDS, module:Name of your own, or a weighted "
            "sum, e.g. '0.5*classifier:3 + region:a.png@left'. See symguide objectives.",
            form="SPEC",
        ),
        "encoder": Setting(
            "A real encoder for the objective, from a folder or the Hugging Face hub: a CLIP for text, image, style "
            "and aesthetic:HEAD, a segmentation model for segmentation, a depth model for depth.",
            form="FOLDER_OR_ID",
            many=True,
        ),
        "method": Setting(
            "How to steer; one of each kind may be given. See symguide methods.",
            shown="sag where only an objective is given",
            form="NAME",
            many=True,
        ),
        "scale": Setting("Strength of the method.", float, shown="the method's own, or the model's", method=True),
        "n": Setting("Network calls that the method looks ahead.", int, shown="the method's own", method=True),
        "window": Setting("The guided part of the steps.", tuple[float, float], form="START STOP", method=True),
        "sphere": Setting("The method's constraint: DSG's sphere.", float, form="RATE", method=True),
        "lookahead_solver": Setting("The method's solver: best, paper, or a solver.", form="NAME", method=True),
        "lookahead_grid": Setting("The method's grid.", form="NAME", method=True),
        "rule": Setting("A --method for the prediction whose scale is --cfg, such as apg.", form="NAME"),
        "best_of": only_models(
            "a pipeline draws each sample once: draw more with --num, and choose",
            "Draw so many of each sample and keep the one with the lowest loss; takes rules without gradients.",
            Count,
        ),
        "checkpoint": Setting(
            "Keep less of a pipeline for the backward sweep: same gradients, less memory.", bool, alien=PIPELINES
        ),
    },
    Output={
        "out": Setting("Folder of the samples, the config that repeats them, and shards.", str, "out", form="FOLDER"),
        "format": Setting("Pictures, or one file with all.", Literal["png", "npz", "safetensors"], "png"),
        "grid_png": Setting("Write grid.png of the first samples; --no-grid-png does not.", bool, True),
        "json": Setting("Write the figures as JSON to a file, or to stdout with -.", form="FILE"),
        "progress": Setting("Progress and results always (--progress), or errors only (--quiet).", bool),
    },
    Run={
        "config": Setting("YAML or TOML with any of these names as keys; what is typed wins.", form="FILE"),
        "shard": Setting("Draw the I-th of N parts, beside other processes; the last writes the samples.", form="I/N"),
        "fresh": Setting("Start over, and drop what an earlier run left in --out.", bool),
    },
)
"""Settings of symguide sample; those of `Guidance` that are methods' have their types from the methods."""
