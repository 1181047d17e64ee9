"""What a run's samples are conditioned on: name=values, and prompts, in the words of the world that a model is of."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from symguide.denoiser import Denoiser
from symguide.errors import ConfigError, unknown
from symguide.specs.pictures import Say
from symguide.worlds import emoji, scenes

CAPTION, TEXT, STYLE = "caption", "text", "style"
MADE: dict[str, tuple[Callable[..., list[float]], str]] = {
    "view": (emoji.view, "ground=skyblue"),
    "look": (emoji.look, "ink=1"),
}
"""View and look of the emoji world, which are given by their parts: what makes them, and an example."""
PARTS = {
    name: {part: p.default for part, p in inspect.signature(make).parameters.items()}
    for name, (make, _) in MADE.items()
}
"""These parts, with what each is where only others are given."""


def given(denoiser: Denoiser, pairs: Sequence[tuple[str, Sequence[Any]]]) -> dict[str, Any]:
    """Conditions by name, one value or a list, as they were typed.

    Raises:
        ConfigError: for a name that the model does not take, or one given twice, and for words where it has none.
    """
    (names, anything), of_emoji = _taken(denoiser), is_of_emoji(denoiser)
    parts = [part for name, each in PARTS.items() if name in names for part in each]
    known = [*(name for name in names if name not in (TEXT, *PARTS)), *parts] if of_emoji else names
    out: dict[str, Any] = {}
    for name, values in pairs:
        if of_emoji and name == TEXT:
            raise ConfigError("what this model shows is said by --prompt, such as --prompt 'a happy octopus'")
        if of_emoji and name in PARTS:
            example, own = MADE[name][1], ", ".join(PARTS[name])
            raise ConfigError(f"a {name} is given by its parts, e.g. --condition {example}: {own}")
        if not anything and name not in known:
            raise unknown("condition", name, known)
        if name in out:
            raise ConfigError(f"condition {name!r} is given twice: give several values as {name}=0,1,2")
        strange = [value for value in values if isinstance(value, str)]
        if strange and not (of_emoji and name in (STYLE, "ground")):
            raise ConfigError(f"condition {name!r} takes numbers, not {strange[0]!r}")
        out[name] = values[0] if len(values) == 1 else list(values)
    return out


def rows(
    denoiser: Denoiser,
    condition: Mapping[str, Any],
    prompts: Sequence[str],
    say: Say = lambda text: None,
    steered: bool = False,
) -> dict[str, list[Any]]:
    """The values of every condition as the network takes them, which go to the samples in turn.

    Args:
        denoiser: the model.
        condition: as `given` has it.
        prompts: what the samples show.
        say: told what a sentence is taken for, where that is not itself.
        steered: whether an objective steers: where neither style nor look is told, it may choose the look.

    Raises:
        ConfigError: for prompts that the model does not take or understand, styles that it has none of, and views
            and looks that are none.
    """
    out = {name: value if isinstance(value, list) else [value] for name, value in condition.items()}
    if is_of_emoji(denoiser):
        out = _of_emoji(out)
        if steered and "look" in _taken(denoiser)[0] and not out.keys() & {STYLE, "look"}:
            out["look"] = [emoji.look(free=True)]
            say("no style is told, so the objective may choose any look; drawn as the sets do: --condition free=0")
    if prompts:
        name, read = _reader(denoiser, say)
        if name in out:
            raise ConfigError(f"--prompt gives the condition {name!r}: leave out --condition {name}=...")
        out[name] = read(prompts).tolist()
    return out


def readings(sentences: Sequence[str]) -> dict[str, str]:
    """What the emoji world takes sentences for, which depends on what is installed: a name, or itself by MiniLM."""
    found = {sentence: emoji.taken_for(sentence) for sentence in sentences}
    return {sentence: "itself, by MiniLM" if one is None else one.name for sentence, one in found.items()}


def is_of_emoji(denoiser: Denoiser) -> bool:
    """Whether a model takes sentences, styles and views as those of the emoji world do."""
    text, style = denoiser.null.get(TEXT), denoiser.null.get(STYLE)
    if not {TEXT, STYLE, "view"} <= set(_taken(denoiser)[0]) or text is None or style is None:
        return False
    return torch.as_tensor(text).shape[-1] == emoji.WIDTH and int(style) == len(emoji.STYLES)


def _of_emoji(condition: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Styles as numbers, and the parts of views and of looks as these."""
    out = {name: values for name, values in condition.items() if not any(name in parts for parts in PARTS.values())}
    if STYLE in out:
        out[STYLE] = [emoji.style(value) if isinstance(value, str) else value for value in out[STYLE]]
    for name, (make, _) in MADE.items():
        if PARTS[name].keys() & condition.keys():
            parts = {part: condition.get(part, [default]) for part, default in PARTS[name].items()}
            count = math.lcm(*map(len, parts.values()))
            out[name] = [make(**{part: each[i % len(each)] for part, each in parts.items()}) for i in range(count)]
    if STYLE in out and any(row[-1] for row in out.get("look", ())):
        raise ConfigError("a look is free where no style is told: leave out free=1, or style=...")
    return out


def _reader(denoiser: Denoiser, say: Say) -> tuple[str, Callable[[Sequence[str]], Tensor]]:
    """The condition that prompts are, and what makes it of them; ConfigError for a model that reads none."""
    if is_of_emoji(denoiser):
        return TEXT, partial(emoji.text, say=say)
    null = denoiser.null.get(CAPTION)
    if CAPTION not in _taken(denoiser)[0] or null is None:
        raise ConfigError(
            "this model takes no prompt: use --model scenes or emoji, or a condition of its own, e.g. --condition "
            "label=3"
        )
    words = getattr(denoiser.network, "words", len(scenes.VOCABULARY))
    if torch.as_tensor(null).shape[-1] != scenes.LENGTH or words < len(scenes.VOCABULARY):
        raise ConfigError(
            f"--prompt speaks the scenes world's language, {scenes.LENGTH} tokens of {len(scenes.VOCABULARY)} words, "
            "and this model another: sample it from Python with condition={'caption': tokens}"
        )
    return CAPTION, scenes.tokens


def _taken(denoiser: Denoiser) -> tuple[list[str], bool]:
    """The conditions that a network names, and whether it takes any others too."""
    network = getattr(denoiser.network, "forward", denoiser.network)
    parameters = list(inspect.signature(network).parameters.values())[2:]
    names = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return names, any(p.kind is p.VAR_KEYWORD for p in parameters)
