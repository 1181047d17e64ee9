"""What a run's samples are conditioned on: name=values, and prompts as the tokens of captions."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from symguide.denoiser import Denoiser
from symguide.errors import ConfigError, unknown
from symguide.worlds.scenes import LENGTH, VOCABULARY, tokens

CAPTION = "caption"


def given(denoiser: Denoiser, pairs: Sequence[tuple[str, Sequence[Any]]]) -> dict[str, Any]:
    """Conditions by name, one value or a list.

    Raises:
        ConfigError: for a name that the network does not take, or one given twice.
    """
    names, anything = _taken(denoiser)
    out: dict[str, Any] = {}
    for name, values in pairs:
        if not anything and name not in names:
            raise unknown("condition", name, names)
        if name in out:
            raise ConfigError(f"condition {name!r} is given twice: give several values as {name}=0,1,2")
        out[name] = values[0] if len(values) == 1 else list(values)
    return out


def rows(denoiser: Denoiser, condition: Mapping[str, Any], prompts: Sequence[str]) -> dict[str, list[Any]]:
    """The values of every condition, which go to the samples in turn; of prompts, their tokens.

    Raises:
        ConfigError: for prompts that the model does not take or understand.
    """
    out = {name: value if isinstance(value, list) else [value] for name, value in condition.items()}
    if prompts:
        _check_captions(denoiser)
        if CAPTION in out:
            raise ConfigError(f"--prompt gives the condition {CAPTION!r}: leave out --condition {CAPTION}=...")
        out[CAPTION] = tokens(prompts).tolist()
    return out


def _check_captions(denoiser: Denoiser) -> None:
    """ConfigError unless the model reads captions in the scenes world's words."""
    null = denoiser.null.get(CAPTION)
    if CAPTION not in _taken(denoiser)[0] or null is None:
        raise ConfigError(
            "this model takes no prompt: use --model scenes, or a condition of its own, e.g. --condition label=3"
        )
    words = getattr(denoiser.network, "words", len(VOCABULARY))
    if torch.as_tensor(null).shape[-1] != LENGTH or words < len(VOCABULARY):
        raise ConfigError(
            f"--prompt speaks the scenes world's language, {LENGTH} tokens of {len(VOCABULARY)} words, and this model "
            "another: sample it from Python with condition={'caption': tokens}"
        )


def _taken(denoiser: Denoiser) -> tuple[list[str], bool]:
    """The conditions that a network names, and whether it takes any others too."""
    network = getattr(denoiser.network, "forward", denoiser.network)
    parameters = list(inspect.signature(network).parameters.values())[2:]
    names = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return names, any(p.kind is p.VAR_KEYWORD for p in parameters)
