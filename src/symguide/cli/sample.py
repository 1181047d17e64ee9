"""symguide sample: draw samples, guided or not, in a run that can be interrupted, continued and repeated."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from symguide.cli.help import Command, debug_option, json_option, option, progress_option
from symguide.cli.params import SAMPLES, Condition, Count, Finite, Memory, Name

BASE = "symguide.config"  # where ctx.meta has the content of --config

EXAMPLES = [
    ("sixteen handwritten digits, unguided", "symguide sample --model digits"),
    (
        "sixty-four of each class in turn, conditioned, with classifier-free guidance",
        "symguide sample --num 640 --condition label=0,1,2,3,4,5,6,7,8,9 --cfg 2 --out classes",
    ),
    (
        "steer an unconditional run toward threes with exact look-ahead gradients, and count the cost",
        "symguide sample --objective classifier:3 --method sag --n 4 --scale 0.5 --json costs.json --out threes",
    ),
    (
        "text to image, in the style of a picture",
        'symguide sample --model scenes --prompt "a red star on blue stripes" --objective style:picture.png '
        "--method freedom --scale 0.1",
    ),
    (
        "the same by a real CLIP, for a model of yours of any size",
        "symguide sample --model my_model --objective text:'a lighthouse at night' --encoder "
        "openai/clip-vit-large-patch14",
    ),
    (
        "the same inside a diffusers pipeline, from a folder or the Hugging Face hub",
        'symguide sample --pipeline ./stable-diffusion --prompt "a cat" --objective style:picture.png --encoder ./clip '
        '--n 4\nsymguide sample --pipeline ./sdxl --prompt "a cat" --objective palette:#003049,#d62828 --checkpoint '
        "--memory 0 --device cuda --dtype float16",
    ),
    (
        "keep the left half of a picture and let the model make the rest",
        "symguide sample --objective region:picture.png@left --sphere 0.1 --out rest",
    ),
    (
        "a rule of your own without gradients (rules.py: def symmetry(x0): ... one number each)",
        "symguide sample --objective rules:symmetry --best-of 8 --out symmetric",
    ),
    (
        "a large run: interrupt it as you like, the same command goes on; then draw the same samples elsewhere",
        "symguide sample --num 10000 --batch 64 --format npz --out large\n"
        "symguide sample --config large/config.yaml --out again",
    ),
]


def _solvers() -> Iterable[str]:
    from symguide.solver import SOLVERS

    return SOLVERS


def _rules() -> Iterable[str]:
    from symguide.prediction_guidance import RULES

    return RULES


def _lookahead_solvers() -> Iterable[str]:
    from symguide.solver import PRESETS, SOLVERS

    return [*PRESETS, *SOLVERS]


def _grids() -> Iterable[str]:
    from symguide.solver import GRIDS

    return GRIDS


def _schedulers() -> Iterable[str]:
    from symguide.pipelines.levels import KNOWN

    return KNOWN


def _base(ctx: click.Context, parameter: click.Parameter, path: Path | None) -> Path | None:
    """Makes the config's keys the options' defaults."""
    if path is not None and not ctx.resilient_parsing:
        from symguide.cli import config

        content = config.read(path)
        ctx.default_map = config.as_defaults(ctx, content, path)
        ctx.meta[BASE] = content
    return path


@click.command(cls=Command, examples=EXAMPLES)
@option("Samples", "--model", show_default="digits", help="An embedded model's name, or a model folder.")
@option(
    "Samples",
    "--pipeline",
    metavar="FOLDER_OR_ID",
    help="In place of a model: a diffusers pipeline that draws pictures, of a prompt or of nothing, from a folder or "
    "the Hugging Face hub; safetensors only.",
)
@option("Samples", "--num", type=Count(1, SAMPLES), default=16, show_default=True, help="How many samples.")
@option(
    "Samples",
    "--batch",
    type=Count(1, SAMPLES),
    show_default="64, or 1 with --pipeline",
    help="Samples at a time; each batch is saved when it is done.",
)
@option("Samples", "--seed", type=int, default=0, show_default=True, help="With a sample's index it decides its noise.")
@option(
    "Samples",
    "--condition",
    type=Condition(),
    multiple=True,
    help="A condition of the model, e.g. label=3; values of a list, label=0,1,2, go to the samples in turn.",
)
@option(
    "Samples",
    "--prompt",
    multiple=True,
    metavar="TEXT",
    help="What the samples show, for models that read captions, and pipelines; several go to the samples in turn.",
)
@option("Samples", "--negative-prompt", metavar="TEXT", help="What they do not show, for pipelines that heed it.")
@option(
    "Samples",
    "--size",
    type=(Count(1), Count(1)),
    metavar="HEIGHT WIDTH",
    help="Of a pipeline's pictures, in pixels; its own where not given.",
)
@option(
    "Samples",
    "--cfg",
    type=Finite(),
    metavar="SCALE",
    help="Weight of guidance toward the condition, which needs no objective; 1 is off, 2 to 6 is usual. Where not "
    "given, a pipeline's own; of models 5 with --prompt, else off.",
)
@option(
    "Samples",
    "--rule",
    type=Name("rule", _rules),
    show_default="cfg",
    help="How --cfg combines the predictions with and without the condition: cfg, cfg++ (weights from 0 to 1, 0.6 if "
    "not given) or apg (for weights where cfg saturates, 10 if not given).",
)
@option(
    "Sampler",
    "--steps",
    type=Count(1),
    show_default="50, or the pipeline's own",
    help="Steps from noise to clean.",
)
@option(
    "Sampler",
    "--solver",
    type=Name("solver", _solvers),
    show_default="ddim",
    help="ddim, midpoint, heun or dpmpp_2m.",
)
@option(
    "Sampler",
    "--grid",
    type=Name("grid", _grids),
    show_default="uniform",
    help="Where the steps lie: uniform, arctan, flow or karras.",
)
@option(
    "Sampler",
    "--eta",
    type=Finite(0, 1),
    show_default="1, or the pipeline's own",
    help="Noise put back in each step: 0 none, 1 as the ancestral sampler.",
)
@option(
    "Sampler",
    "--restart",
    type=(Finite(0), Finite(0), Count(1)),
    metavar="LOW HIGH TIMES",
    help="Go back from the noise level LOW (sigma / alpha) to HIGH and sample down again, TIMES times.",
)
@option(
    "Sampler",
    "--scheduler",
    type=Name("scheduler", _schedulers),
    help="Of diffusers, in the place of the pipeline's own, e.g. DDIMScheduler or DPMSolverMultistepScheduler.",
)
@option("Sampler", "--device", default="cpu", show_default=True, help="Where to compute, e.g. cpu, cuda, cuda:1, mps.")
@option(
    "Sampler",
    "--dtype",
    type=click.Choice(["float32", "float64", "float16", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Precision of the network and the samples.",
)
@option(
    "Sampler",
    "--on-nan",
    type=click.Choice(["raise", "skip"]),
    default="raise",
    show_default=True,
    help="A loss that is not finite stops the run, or leaves that sample unguided for the step.",
)
@option(
    "Guidance",
    "--objective",
    metavar="SPEC",
    help="What to steer toward: classifier:LABELS, classifier:shape=star, noisy:LABELS, text:WORDS, image:PICTURE, "
    "identity:PICTURE, style:PICTURE, aesthetic, segmentation:MASK, depth:PICTURE, palette:COLOURS|PICTURE, "
    "edges:SKETCH, motion:PICTURE@FLOW, region:PICTURE@left|right|top|bottom|center|MASK, a measurement "
    "(superres:PICTURE@FACTOR, deblur:PICTURE@SIGMA), blackbox:module:Name, module:Name of your own, or a weighted "
    "sum, e.g. '0.5*classifier:3 + region:a.png@left'. "
    "See symguide objectives.",
)
@option(
    "Guidance",
    "--encoder",
    multiple=True,
    metavar="FOLDER_OR_ID",
    help="A real encoder for the objective, from a folder or the Hugging Face hub: a CLIP for text, image, style and "
    "aesthetic:HEAD, a segmentation model for segmentation, a depth model for depth. Several may be given.",
)
@option(
    "Guidance",
    "--method",
    metavar="NAME",
    help="How to steer by gradients (sag where only an objective is given): sag, freedom, dps, mpgd, universal, lgd, "
    "dsg, tfg, abms, adam-dps, ecm, elucd, dreamguider, pigdm, or classifier (a classifier of noisy samples, "
    "noisy:LABELS). See symguide methods.",
)
@option(
    "Guidance",
    "--best-of",
    type=Count(1),
    metavar="N",
    help="Draw N of each sample and keep the one with the lowest loss; takes rules without gradients.",
)
@option(
    "Guidance",
    "--scale",
    type=Finite(0),
    help="Strength of the method; 0 is off. Where not given the method's own, as in Python. Models of scenes want less "
    "of sag, freedom, lgd, abms and dreamguider: 0.1.",
)
@option(
    "Guidance",
    "--window",
    type=(Finite(0, 1), Finite(0, 1)),
    metavar="START STOP",
    help="Which part of the steps is guided, as fractions.",
)
@option("Guidance", "--repeats", type=Count(1), help="How often each guided step is made, with time travel.")
@option("Guidance", "--n", type=Count(1), help="Network calls that the method looks ahead.")
@option(
    "Guidance",
    "--jacobian",
    type=click.Choice(["exact", "first", "identity"]),
    help="Exact gradients, or an approximation: through the first call only, or through none.",
)
@option(
    "Guidance",
    "--memory",
    type=Memory(),
    help="minimal, fast, auto, auto:2GB, or a number of graphs to keep; same gradients, other cost.",
)
@option(
    "Guidance",
    "--lookahead-solver",
    type=Name("look-ahead solver", _lookahead_solvers),
    help="best, paper, or a solver's name.",
)
@option(
    "Guidance",
    "--checkpoint",
    is_flag=True,
    help="Pipelines: keep less for the backward sweep and compute it again there; same gradients, less memory.",
)
@option("Guidance", "--lookahead-grid", type=Name("grid", _grids), help="Where the look-ahead's steps lie.")
@option("Guidance", "--rate", type=Finite(0, 1), help="dsg: from 0, the noise alone, to 1, the loss alone.")
@option(
    "Guidance",
    "--samples",
    type=Count(1),
    help="lgd, tfg: points of the cloud around the clean estimate; abms: draws of x_s; dreamguider: augmented copies.",
)
@option("Guidance", "--backward-steps", type=Count(0), help="universal: steps of its backward guidance.")
@option(
    "Guidance",
    "--form",
    type=click.Choice(["eps", "mean"]),
    help="classifier: shift eps (any eta), or the mean of noisy steps.",
)
@option(
    "Guidance",
    "--sphere",
    type=Finite(0, 1),
    metavar="RATE",
    help="Keep guided steps on DSG's sphere, whatever the method.",
)
@option(
    "Output",
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("out"),
    show_default=True,
    help="Folder for the samples, the config that repeats them, and the shards of the run.",
)
@option(
    "Output",
    "--format",
    type=click.Choice(["png", "npz", "safetensors"]),
    default="png",
    show_default=True,
    help="A picture for each sample, or one file with all.",
)
@option("Output", "--grid-png/--no-grid-png", default=True, show_default=True, help="grid.png of the first samples.")
@progress_option
@json_option
@option(
    "Run",
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    is_eager=True,
    callback=_base,
    help="YAML or TOML with any of these options as keys (underscores for dashes); what is typed here wins.",
)
@option("Run", "--fresh", is_flag=True, help="Start over, and drop what an earlier run left in --out.")
@debug_option
@click.pass_context
def sample(ctx: click.Context, /, **options: Any) -> None:
    """Draw samples, guided or not, and write them to a folder.

    Sample i depends on the settings, the seed and i only. Each batch is saved when it is done, so a run that was
    interrupted goes on with the same command, and ends with the same samples; a larger --num adds to it. A run whose
    other settings differ is refused.

    The folder gets config.yaml (the whole run; --config draws it again), the samples (samples/000000.png ..., or
    samples.npz, or samples.safetensors), grid.png, and shards/ (the batches, which you may delete at the end).
    """
    from symguide.cli import config, drawing, outputs, source
    from symguide.cli.files import write_json

    def say(text: str) -> None:
        if options["progress"] is not False:
            click.echo(text, err=True)

    base = ctx.meta.get(BASE, {})
    for text in (*source.settle(ctx, options, base), *_without_other_methods(ctx, options, base)):
        say(text)
    run = drawing.plan(options, say)
    for text in config.notes(base, run.settings):
        say(text)
    out: Path = options["out"]
    outputs.check(out, run.settings["format"], run.shape)
    with drawing.folder(out, run.settings, options["fresh"]) as shards:
        drawn = drawing.draw(run, shards, say, options["progress"])
        paths = drawing.assemble(run, shards, out)
        figures: dict[str, Any] = {
            "samples": run.settings["num"],
            "drawn_now": drawn,
            "shape": list(run.shape),
            "files": [str(path) for path in [*paths, out / config.NAME]],
            "cost": drawing.costs(run, shards),
            "reached": _reached(run, shards),
            "config": run.settings,
        }
    if options["json_to"] is not None:
        write_json(options["json_to"], figures)
    if options["json_to"] != "-" and options["progress"] is not False:
        click.echo(summary(figures, own=[o for o in ("scale", "rate") if o in run.method and options[o] is None]))


def _without_other_methods(ctx: click.Context, options: dict[str, Any], base: dict[str, Any]) -> Iterable[str]:
    """Drops the config's settings of its method where another method is typed; what was dropped, as sentences."""
    from symguide.cli.methods import PARAMETERS, flag

    if base.get("method") in (None, options["method"]):
        return
    dropped = [o for o in PARAMETERS if ctx.get_parameter_source(o) is ParameterSource.DEFAULT_MAP]
    for name in dropped:
        options[name] = None
    if dropped:
        yield f"the config's {', '.join(map(flag, dropped))} belonged to its method {base['method']}: left out"


def _reached(run: Any, shards: Any) -> dict[str, Any]:
    from symguide.cli.reached import reached

    if run.steering is None:
        return {}
    return reached(run.steering, run.settings["objective"], shards, run.settings["device"])


def summary(figures: dict[str, Any], own: Sequence[str] = ()) -> str:
    """A run's figures for people; `own` are options of its method that nobody gave."""
    from symguide.meter import show_bytes

    cost, reached = figures["cost"], figures["reached"]
    lines = [
        f"{figures['samples']} samples: {', '.join(figures['files'])}",
        f"cost of each: {cost['forward_calls_per_sample']} forward and {cost['backward_calls_per_sample']} backward "
        f"calls, {cost['seconds_per_sample']:.3g} s; peak {show_bytes(cost['peak_bytes'])}",
    ]
    if "method" in figures["config"]:
        taken = [f"{option} {figures['config'][option]:g}, its own (see --{option})" for option in own]
        lines.append(", ".join([f"guided by {figures['config']['method']}", *taken]))
    if reached:
        lines.append(f"objective {reached['objective']}: mean loss {_show(reached['loss'])}")
    for entry in reached.get("terms", []):
        for name in ("scorer", "judge"):
            if name in entry:
                met = entry[name]
                role = "which guided" if name == "scorer" else "which guidance never sees"
                hits = f", {met['hits']:.0%} hit" if "hits" in met else ""
                lines.append(f"  {entry['term']} by the {name}, {role}: loss {_show(met['loss'])}{hits}")
    return "\n".join(lines)


def _show(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"
