"""symguide sample: draw samples, guided or not, in a run that can be interrupted, continued and repeated."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from symguide.cli.command import Command, Word
from symguide.cli.settings import SAMPLE
from symguide.errors import ConfigError

OPTIONS = (
    "model", "pipeline", "prompt", "cfg", "num", "seed", "steps", "objective", "method", "scale", "n", "window",
    "out", "json", "config",
)  # fmt: skip
"""What is typed every day; --set has all others."""

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
        "emoji of a sentence, as one set of them draws, on a ground of its own; then in the style of a picture",
        'symguide sample --model emoji --prompt "a happy cat" --condition style=twemoji --condition ground=skyblue\n'
        'symguide sample --model emoji --prompt "a happy cat" --objective style:openmoji.png',
    ),
    (
        "text by a real CLIP, for a model of yours of any size",
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
        "keep the left half of a picture and let the model make the rest; another update rule",
        "symguide sample --objective region:picture.png@left --sphere 0.1 --out rest\n"
        "symguide sample --objective region:picture.png@left --set 'update=chain(clip(1.0), normalise())' --out rule",
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
    (
        "the same by two processes, on two machines with one disk",
        "symguide sample --num 10000 --out large --shard 1/2\nsymguide sample --num 10000 --out large --shard 2/2",
    ),
]


@click.command(cls=Command, table=SAMPLE, options=OPTIONS, examples=EXAMPLES)
def sample(words: Sequence[Word]) -> None:
    """Draw samples, guided or not, and write them to a folder.

    Sample i depends on the settings, the seed and i only. Each batch is saved when it is done, so a run that was
    interrupted goes on with the same command, and ends with the same samples; a larger --num adds to it. A run whose
    other settings differ is refused.

    The folder gets config.yaml (the whole run; --config draws it again), the samples (samples/000000.png ..., or
    samples.npz, or samples.safetensors), grid.png, and shards/ (the batches, which you may delete at the end).
    """
    from symguide.cli import config, run
    from symguide.cli.command import write_json
    from symguide.cli.request import request
    from symguide.files import locked
    from symguide.store import outputs
    from symguide.store.shards import Part

    asked = request(words, SAMPLE)
    out, part = Path(asked["out"]), Part.parse(asked["shard"])
    if asked["fresh"] and not part.whole:
        raise ConfigError("--fresh starts the whole run over: leave it out with --shard, or choose another --out")
    plan = run.plan(asked, asked.methods())
    for text in config.notes(asked.base, plan.settings):
        asked.say(text)
    outputs.check(out, plan.settings["format"], plan.shape)
    with run.folder(out, plan.settings, bool(asked["fresh"]), part) as shards:
        figures: dict[str, Any] = {"samples": plan.settings["num"], "shape": list(plan.shape), "config": plan.settings}
        figures["drawn_now"] = run.draw(plan, shards, part, asked)
        with nullcontext() if part.whole else locked(out, wait=math.inf):
            missing = plan.settings["num"] - sum(map(len, shards.found()))
            if not missing:
                paths = run.assemble(plan, shards, out)
                figures["files"] = [str(path) for path in [*paths, out / config.NAME]]
                figures["cost"] = run.costs(plan, shards)
                figures["reached"] = run.reached(plan, shards)
    figures["missing"] = missing
    if asked["json"] is not None:
        write_json(asked["json"], figures)
    if asked["json"] != "-" and asked["progress"] is not False:
        click.echo(summary(figures, plan.loss, asked.words))


def summary(figures: dict[str, Any], loss: Any, given: Sequence[Word]) -> str:
    """A run's figures for people, with the strength of its method where nobody gave one."""
    from symguide.meter import show_bytes

    if figures["missing"]:
        return (
            f"{figures['drawn_now']} samples drawn; {figures['missing']} of {figures['samples']} are missing, and "
            "their parts write the samples"
        )
    cost, reached = figures["cost"], figures["reached"]
    lines = [
        f"{figures['samples']} samples: {', '.join(figures['files'])}",
        f"cost of each: {cost['forward_calls_per_sample']} forward and {cost['backward_calls_per_sample']} backward "
        f"calls, {cost['seconds_per_sample']:.3g} s; peak {show_bytes(cost['peak_bytes'])}",
    ]
    if loss is not None:
        own = [name for name in ("scale", "rate") if name in loss.settings and name not in {w.name for w in given}]
        taken = [f"{name} {loss.settings[name]:g}, its own (see --{name})" for name in own]
        lines.append(", ".join([f"guided by {loss.name}", *taken]))
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
