"""The command `symguide demo`: its options, the progress bar, the files it writes and what it says at the end."""

import shlex
from pathlib import Path

import click

from symguide.cli.files import locked, sweep, write_json
from symguide.cli.help import Command, debug_option, json_option, option

EXAMPLES = [
    ("about a minute on a laptop; then open out/demo/index.html", "symguide demo"),
    ("a few seconds, to see that it runs", "symguide demo --quick"),
    ("other noise, more samples, figures for a program", "symguide demo --seed 7 --num 500 --json figures.json"),
]


@click.command(cls=Command, examples=EXAMPLES)
@option("Size", "--num", type=click.IntRange(1), help="Samples of every method; 100, with --quick 20.")
@option("Size", "--steps", type=click.IntRange(1), help="Sampling steps; 30, with --quick 12.")
@option("Size", "--quick", is_flag=True, help="Fewer samples and steps: rougher, in a few seconds.")
@option("Size", "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of all noise.")
@option("Size", "--device", default="cpu", show_default=True, help="Where to run: cpu, cuda, cuda:1, mps.")
@option(
    "Output",
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("out/demo"),
    show_default=True,
    help="Folder for the pictures, the page and results.json.",
)
@json_option
@debug_option
def demo(
    num: int | None, steps: int | None, quick: bool, seed: int, device: str, out: Path, json_to: str | None
) -> None:
    """See guidance work: a small model of handwritten digits, which ships with the package, is steered by losses.

    The model draws digits and is not told which. The loss of a classifier asks for 0, 1, ... 9, and four methods start
    from the same noise: unguided; FreeDoM, which looks 1 call ahead; SAG, which looks 4 calls ahead with the exact
    gradient; and SAG kept on DSG's sphere. A judge that guidance never sees says how often the digit came out. Then
    half of a digit is kept and the rest is made anew.

    Writes steer.png, inpaint.png, results.json, and index.html with pictures, figures and curves (which needs
    pip install "symguide[report]").
    """
    from symguide.cli.demo.run import run

    num = num or (20 if quick else 100)
    steps = steps or (12 if quick else 30)
    given = {"num": num, "steps": steps, "seed": seed, "device": device}
    command = shlex.join(["symguide", "demo", *(word for k, v in given.items() for word in (f"--{k}", str(v)))])
    out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        sweep(out)
        done = run(num, steps, seed, device, command)
        written, no_page = done.write(out)
    if json_to is not None:
        write_json(json_to, done.results)
    lines = [str(done.steer.table), "", str(done.inpaint.table), "", "wrote:", *(f"  {path}" for path in written)]
    lines += [f"no index.html: {no_page}"] if no_page else []
    for line in [*lines, "", done.steer.summary()]:
        click.echo(line, err=json_to == "-")
