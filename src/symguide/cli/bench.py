"""symguide bench: symguide measured beside others' ways to the same thing."""

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from symguide.cli.group import Commands
from symguide.cli.help import Command, debug_option, json_option, option, progress_option
from symguide.cli.params import Name

EXAMPLES = [
    ("the gradient of a look-ahead by every way, in less than a minute", "symguide bench gradients --quick"),
    ("all of it, on a GPU, with figures for a program", "symguide bench gradients --device cuda --json figures.json"),
    ("errors on priors whose flow is known", "symguide bench gradients --subject gaussian --subject mixture"),
]


def _subjects() -> Iterable[str]:
    from symguide.bench.subjects import SUBJECTS

    return SUBJECTS


bench = Commands(
    "bench",
    "Measure symguide beside others' ways to the same thing, in one process.\n\n"
    'Peers come with pip install "symguide[bench]"; what is not there is a row that says so.',
    {"gradients": ("symguide.cli.bench:gradients", "Gradients of a look-ahead: exactness, calls, bytes and seconds.")},
    EXAMPLES,
)
debug_option(bench)


@click.command(cls=Command, examples=EXAMPLES)
@option(
    "Run",
    "--subject",
    "subjects",
    multiple=True,
    type=Name("subject", _subjects),
    metavar="NAME",
    show_default="all",
    help="What is differentiated: gaussian, mixture or digits, whose costs are measured too; several may be given.",
)
@option("Run", "--quick", is_flag=True, help="Few solvers, n and samples, each measured once; rougher.")
@option("Run", "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the samples and their noise.")
@option("Run", "--device", default="cpu", show_default=True, help="Where to run: cpu, cuda, cuda:1.")
@option("Run", "--threads", type=click.IntRange(1), default=1, show_default=True, help="CPU threads.")
@option(
    "Output",
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("out/bench/gradients"),
    show_default=True,
    help="Folder for gradients.json and gradients.html.",
)
@progress_option
@json_option
@debug_option
def gradients(
    subjects: tuple[str, ...],
    quick: bool,
    seed: int,
    device: str,
    threads: int,
    out: Path,
    progress: bool | None,
    json_to: str | None,
) -> None:
    """The gradient of a loss at the clean sample n calls ahead, by every way there is.

    symguide's sweep under its memory plans and its named approximations; autograd and torch.utils.checkpoint through
    the sampler; the vanilla adjoint of torchdiffeq, torchsde's reversible Heun, the invertible samplers EDICT and BDIA,
    and FlowGrad. All have the same network, loss, grid and start.

    Two errors are shown: against autograd through the way's own discretisation, which is 0 for an exact gradient, and
    against the gradient of the continuous flow, which no finite n reaches. Calls are counted at the network; seconds
    are ratios to one forward call.

    The folder gets gradients.json (everything, with machine and versions) and gradients.html (which needs
    pip install "symguide[report]").
    """
    from symguide.bench import run
    from symguide.cli.device import usable
    from symguide.cli.files import locked, sweep, write_json

    given: dict[str, Any] = {"seed": seed, "device": device, "threads": threads}
    words = [*(word for name in subjects for word in ("--subject", name)), *(["--quick"] if quick else [])]
    words += [*(word for k, v in given.items() for word in (f"--{k}", str(v)))]
    usable(device)
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        sweep(out)
        done = run.gradients(subjects, quick, seed, device, threads, progress)
        written, no_page = done.write(out, shlex.join(["symguide", "bench", "gradients", *words]))
    if json_to is not None:
        write_json(json_to, done.results)
    if progress is not False:
        lines = [done.text, "", "wrote:", *(f"  {path}" for path in written)]
        lines += [f"no gradients.html: {no_page}"] if no_page else []
        click.echo("\n".join(lines), err=json_to == "-")
