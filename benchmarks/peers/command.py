"""The commands of `symguide bench`."""

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import click

from benchmarks.peers import gradients as by_gradient
from benchmarks.peers import memory as by_memory
from benchmarks.peers import networks, subjects
from benchmarks.peers import quality as by_quality
from benchmarks.peers.benchmark import Results, Setup
from benchmarks.peers.way import DTYPES
from benchmarks.peers.ways import WAYS
from symguide import values
from symguide.cli.command import Device, Form, Json, Progress, command, write_json
from symguide.evaluation.tasks import TASKS
from symguide.files import locked, sweep
from symguide.values import MOST, Between, OneOf

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

Subject, Way = OneOf("subject", lambda: subjects.SUBJECTS), OneOf("way", lambda: [way.name for way in WAYS])
Numbers = Annotated[Sequence[int], Between(1, MOST), "Calls of the look-ahead (left out, 1, 2, 4, 8 and more)."]
Threads = Annotated[int, Between(1, 1024), "CPU threads."]
Noise = Annotated[int, Between(0, 2**63 - 1), "Of the samples and their noise."]
Out = Annotated[str | None, Form("FOLDER"), "Folder for the figures as JSON and HTML; out/bench/NAME where not given."]


@command(EXAMPLES)
def gradients(
    *,
    subject: Annotated[
        Sequence[str],
        Subject,
        "What is differentiated: gaussian, mixture, digits, whose costs are measured too, or scenes (left out, all; "
        "with --quick all but scenes).",
    ] = (),
    way: Annotated[Sequence[str], Way, "Way to the gradient, as the tables name it (left out, all)."] = (),
    n: Numbers = (),
    dtype: Annotated[Sequence[str], OneOf("dtype", lambda: DTYPES), "Beside float64 (left out, all)."] = (),
    quick: Annotated[bool, "Few solvers, n and samples, each measured once; rougher."] = False,
    seed: Noise = 0,
    device: Device = "cpu",
    threads: Threads = 1,
    out: Out = None,
    progress: Progress = None,
    json: Json = None,
) -> None:
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
    chosen: dict[str, Sequence[Any]] = {"subjects": subject, "ways": way, "ns": n, "dtypes": dtype}
    _measure("gradients", by_gradient.run, chosen, quick, seed, device, threads, out, progress, json)


@command(MEMORY_EXAMPLES)
def memory(
    *,
    subject: Annotated[
        Sequence[str],
        OneOf("subject", lambda: networks.SUBJECTS),
        "Whose memory: digits, scenes, small-unet, small-transformer (left out, these on a CPU), sd-1.5, sdxl, "
        "dit-xl-2 (left out, these on a GPU).",
    ] = (),
    way: Annotated[Sequence[str], Way, "Way to the gradient, as the tables name it (left out, all)."] = (),
    blocks: Annotated[
        Sequence[str],
        OneOf("blocks", lambda: by_memory.BLOCKS),
        "What a graph holds of the network's blocks: kept, or again, where only what goes in is held and each is "
        "computed again in the sweep (left out, both).",
    ] = (),
    size: Annotated[Sequence[int], Between(8, MOST), "Side of pictures in pixels (left out, the subject's own)."] = (),
    batch: Annotated[Sequence[int], Between(1, MOST), "Samples (left out, the subject's own)."] = (),
    n: Numbers = (),
    quick: Annotated[bool, "Two small subjects at one size, by the ways that have a prediction."] = False,
    seed: Noise = 0,
    device: Device = "cpu",
    threads: Threads = 1,
    out: Out = None,
    progress: Progress = None,
    json: Json = None,
) -> None:
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
    chosen: dict[str, Sequence[Any]] = {
        "subjects": subject,
        "ways": way,
        "blocks": blocks,
        "sizes": size,
        "batches": batch,
        "ns": n,
    }
    _measure("memory", by_memory.run, chosen, quick, seed, device, threads, out, progress, json)


def _guided() -> Iterable[str]:
    return [guide.way.name for guide in by_quality.guides(by_quality.Plan.n)]


@command(QUALITY_EXAMPLES)
def quality(
    *,
    task: Annotated[Sequence[str], OneOf("task", lambda: TASKS), "Of the scenes world (left out, identity)."] = (),
    way: Annotated[
        Sequence[str], OneOf("way", _guided), "To the gradient, as the table names it (left out, all)."
    ] = (),
    quick: Annotated[bool, "One strength, one seed, few steps and samples; shows no differences."] = False,
    seed: Noise = 0,
    device: Device = "cpu",
    threads: Threads = 1,
    out: Out = None,
    progress: Progress = None,
    json: Json = None,
) -> None:
    """Guided samples of the scenes model, with the gradient four network calls ahead taken by every way.

    The exact sweep, the first call's Jacobian, none at all, the vanilla adjoint of torchdiffeq in two time variables,
    torchsde's reversible Heun, EDICT, BDIA and FlowGrad; and the exact gradient one and two calls ahead, which cost
    less. Steps, noise and strengths are the same for all.

    Each is measured by scorer, judge, shapes that are still read, Frechet distance, calls and seconds, and by the
    cosine of its gradients with those of its own map and of the flow. On one CPU core a task takes about half an hour.

    The folder gets quality.json (everything, with machine and versions) and quality.html (which needs
    pip install "symguide[report]").
    """
    chosen: dict[str, Sequence[Any]] = {"tasks": task, "ways": way}
    _measure("quality", by_quality.run, chosen, quick, seed, device, threads, out, progress, json)


def _measure(
    name: str,
    run: Callable[..., Results],
    chosen: Mapping[str, Sequence[Any]],
    quick: bool,
    seed: int,
    device: str,
    threads: int,
    out: str | None,
    progress: bool | None,
    json: str | None,
) -> None:
    """Run a benchmark, write its files and show its tables; `chosen`: names by the plural of their option.

    Rows are kept as they are measured: the same command goes on from those of one that was stopped.
    """
    line = ["symguide", "bench", name, *(["--quick"] if quick else []), *_words(chosen)]
    line += ["--seed", str(seed), "--device", device, "--threads", str(threads)]
    values.device(device)
    folder = Path(out or f"out/bench/{name}")
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        sweep(folder)
        setup = Setup(folder / f"{name}.unfinished.jsonl", quick, seed, device, threads, progress)
        done = run(setup, **chosen)
        written, no_page = done.write(folder, shlex.join(line))
        setup.unfinished.unlink(missing_ok=True)
    if json is not None:
        write_json(json, done.results)
    if progress is not False:
        lines = [done.text, "", "wrote:", *(f"  {path}" for path in written)]
        lines += [f"no {name}.html: {no_page}"] if no_page else []
        click.echo("\n".join(lines), err=json == "-")


def _words(chosen: Mapping[str, Sequence[Any]]) -> list[str]:
    """What was chosen, as the words of a command."""
    singular = {"batches": "batch", "blocks": "blocks"}
    return [
        word
        for many, each in chosen.items()
        for value in each
        for word in (f"--{singular.get(many, many.removesuffix('s'))}", str(value))
    ]
