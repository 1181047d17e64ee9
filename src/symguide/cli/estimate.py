"""symguide estimate-memory: what a guided pipeline will hold, by memory plan, before it runs."""

from typing import Annotated, Any, Literal

import click

from symguide.cli.command import Count, Form, Json, Samples, command, write_json
from symguide.errors import ConfigError

EXAMPLES = [
    ("Stable Diffusion XL at 1024 pixels in half precision, by plan", "symguide estimate-memory sdxl"),
    (
        "which of the plans fit a 16 GB card, and which is the fastest",
        "symguide estimate-memory sdxl --card 16GB",
    ),
    (
        "a pipeline of your own, from its folder: two samples of 768 x 512 pixels, eight calls ahead",
        "symguide estimate-memory ./my-pipeline --size 768x512 --batch 2 --n 8",
    ),
]


@command(EXAMPLES, "estimate-memory")
def estimate_memory(
    pipeline: Annotated[str, "Name, folder or hub id."],
    *,
    size: Annotated[str | None, Form("HEIGHTxWIDTH"), "Pixels; what the model was trained for where not given."] = None,
    batch: Annotated[Samples, "Samples at a time."] = 1,
    n: Annotated[Count, "Network calls of the look-ahead."] = 4,
    cfg: Annotated[bool | None, "Classifier-free guidance, which doubles every call; on, but for Flux."] = None,
    dtype: Annotated[Literal["float16", "bfloat16", "float32"], "Of networks and autoencoder."] = "float16",
    text_encoders: Annotated[bool, "Whether they stay on the device after the prompt is encoded."] = True,
    card: Annotated[str | None, Form("SIZE"), "Memory of the card, such as 16GB: says which plans fit."] = None,
    json: Json = None,
) -> None:
    """Predict the peak memory of a guided diffusers PIPELINE, for every memory plan, without a GPU and without weights.

    PIPELINE is sd-1.5, sdxl, dit-xl-2, sd3-medium or flux.1-dev, a pipeline's folder, or its name on the Hugging Face
    hub. Only configs are read.

    Plain autograd keeps the graphs of all n calls and of the decoder at once; the plans of symguide give the same
    gradient. Times are floating point operations of a guided step, in units of one network call. What the objective's
    own networks and the driver (0.3 to 0.6 GB) need comes on top. A card's GB are counted as 10^9 bytes: the 7% that
    cards have beyond that are left to the driver.
    """
    from symguide import planning
    from symguide.report import Column, Table

    (height, width), card_bytes = (None, None) if size is None else pixels(size), _bytes(card)
    settings: dict[str, Any] = {"batch": batch, "dtype": dtype, "n": n, "guidance": cfg}
    guess = planning.estimate_memory(pipeline, height, width, text_encoders=text_encoders, **settings)
    if json is not None:
        write_json(json, {**guess.record(), "card": card_bytes, "smallest_card": guess.smallest_card()})
    if json == "-":
        return
    columns = [Column("name", "plan")]
    columns += [Column(key, title, _gigabytes) for key, title in HELD]
    columns += [Column("forward_calls", "forward\ncalls"), Column("backward_calls", "backward\ncalls")]
    columns += [Column("time", "time", "{:.1f}")]
    rows = [{"name": plan.name, **vars(plan)} for plan in guess.plans]
    if card_bytes is not None:
        columns.append(Column("fits", "fits"))
        rows = [{**row, "fits": "yes" if row["peak"] <= card_bytes else "no"} for row in rows]
    what = f"{guess.batch} x {guess.height} x {guess.width} pixels, {guess.dtype}, n = {n}"
    guided = "with" if guess.guidance else "without"
    click.echo(f"{guess.pipeline}: {what}, {guided} classifier-free guidance")
    click.echo(f"Memory in GB (10^9 bytes), time in network calls\n\n{Table(columns, rows)}\n")
    if guess.upcast:
        click.echo("The decoder runs in float32, as this pipeline has it with float16; --dtype bfloat16 halves that.")
    click.echo(_advice(guess, card_bytes))


HELD = (
    ("weights", "weights"),
    ("decoder", "decoder\npeak"),
    ("network", "network\npeak"),
    ("graphs", "kept\ngraphs"),
    ("states", "stored\nstates"),
    ("peak", "total\npeak"),
)
"""The columns that are bytes."""


def pixels(text: str) -> tuple[int, int]:
    """Height and width: 768x512, or one number for both.

    >>> pixels("768x512"), pixels("512")
    ((768, 512), (512, 512))
    """
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(len(part) < 10 and part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"--size takes one such as 512 or 768x512, not {text[:40]!r}")
    return int(parts[0]), int(parts[-1])


def _bytes(text: str | None) -> int | None:
    from symguide.meter import parse_bytes

    count = None if text is None else parse_bytes(text)
    if text is not None and not count:
        raise ConfigError(f"--card takes a size such as 16GB, not {text!r}")
    return count


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f}" if count >= 1e7 else f"{count / 1e9:.4f}"


def _advice(guess: Any, card: int | None) -> str:
    """Which plan to take, or which card."""
    smallest = guess.smallest_card()
    needed = "more than any card has" if smallest is None else f"a card of {smallest} GB is the smallest that would do"
    if card is None:
        return f"{needed[0].upper()}{needed[1:]}."
    fitting = guess.fitting(card)
    if not fitting:
        return f"No plan fits into {card / 1e9:g} GB: {needed}."
    best = fitting[0]
    checkpoint = ", checkpoint=True" if best.checkpoint else ""
    memory = f'"{best.memory}"' if isinstance(best.memory, str) else best.memory
    return (
        f"{len(fitting)} of symguide's {len(guess.plans) - 2} plans fit into {card / 1e9:g} GB. The fastest of them:\n"
        f"    guide(pipe, loss=SAG(objective, n={guess.n}, memory={memory}){checkpoint})"
    )
