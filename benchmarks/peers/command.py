"""The commands of `symguide bench`."""

import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.peers import gradients as by_gradient
from benchmarks.peers import memory as by_memory
from benchmarks.peers import networks, subjects
from benchmarks.peers import quality as by_quality
from benchmarks.peers.benchmark import Results, Setup
from benchmarks.peers.way import DTYPES
from benchmarks.peers.ways import WAYS
from symguide.cli.device import usable
from symguide.cli.files import locked, sweep, write_json
from symguide.cli.help import Command, debug_option, json_option, option, progress_option
from symguide.cli.params import Count, Name
from symguide.evaluation.tasks import TASKS

EXAMPLES = [
    ("the gradient of a look-ahead by every way, in less than a minute", "symguide bench gradients --quick"),
    ("all of it, on a GPU, with figures for a program", "symguide bench gradients --device cuda --json figures.json"),
    ("errors on priors whose flow is known", "symguide bench gradients --subject gaussian --subject mixture"),
    ("how exact gradients are, without bfloat16, slow on most CPUs", "symguide bench gradients --dtype float32"),
]
MEMORY_EXAMPLES = [
    ("what a gradient holds by every memory plan, and what was predicted", "symguide bench memory --quick"),
    (
        "Stable Diffusion XL's architecture with random weights, on a GPU",
        "symguide bench memory --subject sdxl --device cuda",
    ),
]
QUALITY_EXAMPLES = [
    ("what an exact gradient buys, roughly, in less than a minute", "symguide bench quality --quick"),
    ("all of it on another task", "symguide bench quality --task inpainting"),
    ("two ways alone", 'symguide bench quality --way exact --way "first call alone"'),
]

WORDS = {
    "subjects": "subject",
    "tasks": "task",
    "ways": "way",
    "dtypes": "dtype",
    "sizes": "size",
    "batches": "batch",
    "ns": "n",
    "blocks": "blocks",
}
"""The option of everything that a benchmark can be asked for."""


def _choice(many: str, names: Iterable[str], what: str) -> Callable[[Any], Any]:
    """An option that may be given several times, with one of these names each; `what` those are."""
    settings = {"multiple": True, "type": Name(WORDS[many], lambda: names), "metavar": "NAME"}
    return option("Run", f"--{WORDS[many]}", many, help=f"{what}; several may be given.", **settings)


def _number(many: str, least: int, what: str) -> Callable[[Any], Any]:
    """An option that may be given several times, with a number each; `what` those are."""
    settings = {"multiple": True, "type": Count(least), "metavar": "N"}
    return option("Run", f"--{WORDS[many]}", many, help=f"{what}; several may be given.", **settings)


def _options(name: str, quick: str, *choices: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The options of every benchmark.

    Args:
        name: of its files.
        quick: what --quick does.
        choices: what it can be asked for.
    """
    options = [
        *choices,
        option("Run", "--quick", is_flag=True, help=quick),
        option(
            "Run",
            "--seed",
            type=Count(0, 2**63 - 1),
            default=0,
            show_default=True,
            help="Of the samples and their noise.",
        ),
        option("Run", "--device", default="cpu", show_default=True, help="Where to run: cpu, cuda, cuda:1."),
        option("Run", "--threads", type=Count(1, 1024), default=1, show_default=True, help="CPU threads."),
        option(
            "Output",
            "--out",
            type=click.Path(file_okay=False, path_type=Path),
            default=Path(f"out/bench/{name}"),
            show_default=True,
            help=f"Folder for {name}.json and {name}.html.",
        ),
        progress_option,
        json_option,
        debug_option,
    ]

    def add(command: Any) -> Any:
        for each in reversed(options):
            command = each(command)
        return command

    return add


@click.command(cls=Command, examples=EXAMPLES)
@_options(
    "gradients",
    "Few solvers, n and samples, each measured once; rougher.",
    _choice(
        "subjects",
        subjects.SUBJECTS,
        "What is differentiated: gaussian, mixture, digits, whose costs are measured too, or scenes (left out, all; "
        "with --quick all but scenes)",
    ),
    _choice("ways", [way.name for way in WAYS], "Way to the gradient, as the tables name it (left out, all)"),
    _number("ns", 1, "Calls of the look-ahead (left out, 1, 2, 4, 8, 16 and 50)"),
    _choice("dtypes", DTYPES, "Precision of gradients beside float64: float32 or bfloat16 (left out, both)"),
)
def gradients(**given: Any) -> None:
    """The gradient of a loss at the clean sample n calls ahead, by every way there is.

    symguide's sweep under its memory plans and its named approximations; autograd and torch.utils.checkpoint through
    the sampler; the vanilla adjoint of torchdiffeq, torchsde's reversible Heun, the invertible samplers EDICT and BDIA,
    and FlowGrad. All have the same network, loss, grid and start.

    Two errors are shown: against autograd through the way's own discretisation, which is 0 for an exact gradient, and
    against the gradient of the continuous flow, which no finite n reaches. Calls are counted at the network; seconds
    are ratios to one forward call.

    All of it takes hours on a CPU, most of them scenes in bfloat16; --subject, --dtype and --n ask for less.

    The folder gets gradients.json (everything, with machine and versions) and gradients.html (which needs
    pip install "symguide[report]").
    """
    _measure("gradients", by_gradient.run, **given)


@click.command(cls=Command, examples=MEMORY_EXAMPLES)
@_options(
    "memory",
    "Two small subjects at one size, by the ways that have a prediction.",
    _choice(
        "subjects",
        networks.SUBJECTS,
        "Whose memory: digits, scenes, small-unet, small-transformer (left out, these on a CPU), sd-1.5, sdxl, "
        "dit-xl-2 (left out, these on a GPU)",
    ),
    _choice("ways", [way.name for way in WAYS], "Way to the gradient, as the tables name it (left out, all)"),
    _choice(
        "blocks",
        by_memory.BLOCKS,
        "What a graph holds of the network's blocks: kept, or again, where only what goes in is held "
        "and each is computed again in the sweep (left out, both)",
    ),
    _number("sizes", 8, "Side of pictures in pixels (left out, the subject's own)"),
    _number("batches", 1, "Samples (left out, the subject's own)"),
    _number("ns", 1, "Calls of the look-ahead (left out, 1, 2, 4, 8 and 16)"),
)
def memory(**given: Any) -> None:
    """What the gradient of a loss n calls ahead holds at most, by every way, measured and predicted.

    symguide's sweep under its memory plans, with and without checkpointed blocks of the network, beside plain autograd,
    torch.utils.checkpoint around every call, and the other ways of `symguide bench gradients`. A subject is measured at
    all n with one size and batch, then at other sizes and batches with n = 4.

    On a CPU bytes are those that autograd saves for backward, and those of all tensors as they come and go; on a GPU
    those of its allocator. Weights are left out. What does not fit is a row that says so. Predictions are those that
    memory="auto" decides by and that `symguide estimate-memory` shows.

    Embedded models have their own weights, published architectures random ones: nothing is downloaded.

    The folder gets memory.json (everything, with machine and versions) and memory.html (which needs
    pip install "symguide[report]").
    """
    _measure("memory", by_memory.run, **given)


@click.command(cls=Command, examples=QUALITY_EXAMPLES)
@_options(
    "quality",
    "One strength, one seed, few steps and samples; shows no differences.",
    _choice("tasks", TASKS, "Task of the scenes world, such as text or inpainting (left out, identity)"),
    _choice(
        "ways",
        dict.fromkeys(guide.way.name for guide in by_quality.guides(by_quality.Plan.n)),
        "Way to the gradient, as the table names it (left out, all)",
    ),
)
def quality(**given: Any) -> None:
    """Guided samples of the scenes model, with the gradient four network calls ahead taken by every way.

    The exact sweep, the first call's Jacobian, none at all, the vanilla adjoint of torchdiffeq in two time variables,
    torchsde's reversible Heun, EDICT, BDIA and FlowGrad; and the exact gradient one and two calls ahead, which cost
    less. Steps, noise and strengths are the same for all.

    Each is measured by scorer, judge, shapes that are still read, Frechet distance, calls and seconds, and by the
    cosine of its gradients with those of its own map and of the flow. On one CPU core a task takes about half an hour.

    The folder gets quality.json (everything, with machine and versions) and quality.html (which needs
    pip install "symguide[report]").
    """
    _measure("quality", by_quality.run, **given)


def _measure(
    name: str,
    run: Callable[..., Results],
    quick: bool,
    seed: int,
    device: str,
    threads: int,
    out: Path,
    progress: bool | None,
    json_to: str | None,
    **chosen: Sequence[Any],
) -> None:
    """Run a benchmark, write its files and show its tables; `chosen`: names by the plural of their option.

    Rows are kept as they are measured: the same command goes on from those of one that was stopped.
    """
    command = ["symguide", "bench", name, *(["--quick"] if quick else []), *_words(chosen)]
    command += ["--seed", str(seed), "--device", device, "--threads", str(threads)]
    usable(device)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        sweep(out)
        setup = Setup(out / f"{name}.unfinished.jsonl", quick, seed, device, threads, progress)
        done = run(setup, **chosen)
        written, no_page = done.write(out, shlex.join(command))
        setup.unfinished.unlink(missing_ok=True)
    if json_to is not None:
        write_json(json_to, done.results)
    if progress is not False:
        lines = [done.text, "", "wrote:", *(f"  {path}" for path in written)]
        lines += [f"no {name}.html: {no_page}"] if no_page else []
        click.echo("\n".join(lines), err=json_to == "-")


def _words(chosen: dict[str, Sequence[Any]]) -> list[str]:
    """What was chosen, as the words of a command."""
    return [word for many, values in chosen.items() for value in values for word in (f"--{WORDS[many]}", str(value))]
