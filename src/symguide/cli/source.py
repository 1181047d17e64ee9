"""What draws the samples of a run: a model in our own loop (cli/model.py), or a pipeline in its own (cli/pipeline.py).

Which of the two it is, and which options go with it, is settled here.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import click
from click.core import ParameterSource
from torch import Tensor

from symguide.cli.methods import flag
from symguide.errors import ConfigError
from symguide.loop import Cost
from symguide.loss_guidance import Recipe
from symguide.specs.kinds import Loss

Show = Callable[[int, int], None]
"""Told after each step: how many are done, and of how many."""

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "model": {"model": "digits", "batch": 64, "steps": 50, "solver": "ddim", "grid": "uniform", "eta": 1.0},
    "pipeline": {"batch": 1},
}
"""Of options that depend on the source; what a pipeline has defaults of its own for is left to it."""

ALIEN: Mapping[str, Mapping[str, str]] = {
    "model": dict.fromkeys(("negative_prompt", "size", "scheduler", "checkpoint"), "it is for runs with --pipeline"),
    "pipeline": {
        "solver": "a pipeline steps with its own scheduler: use --scheduler",
        "grid": "a pipeline's timesteps are its scheduler's: use --scheduler",
        "restart": "a pipeline makes each of its steps once",
        "condition": "a pipeline is told what to show by --prompt",
        "best_of": "a pipeline draws each sample once: draw more with --num, and choose",
    },
}
"""Options that have no meaning for a source, and why."""

FITTED = ("batch", "steps", "eta", "cfg", "rule")
"""Options that both sources take, with values that suit one: not taken over from a config of the other."""


class Source(Protocol):
    """What draws.

    Attributes:
        name: of the model or pipeline: an embedded one's, a folder's full path, or a hub id.
        shape: of a picture; what draws latents decodes them before anything sees them.
        settings: its part of a config file.
        made_with: what tells it from its later self.
    """

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def settings(self) -> Mapping[str, Any]: ...

    @property
    def made_with(self) -> Mapping[str, str]: ...

    def draw(
        self, indices: range, aim: Loss | None, recipe: Callable[[Loss], Recipe] | None, show: Show
    ) -> tuple[Tensor, Cost]:
        """Samples (B, *shape), and what they cost.

        Args:
            indices: sample i is the same wherever it is drawn.
            aim: the objective for pictures of these samples.
            recipe: the gradient method for an objective; None where there is none.
            show: told of each step, where the source knows of them.
        """


def settle(ctx: click.Context, options: dict[str, Any], base: Mapping[str, Any]) -> Iterator[str]:
    """Leave one source in the options, with its defaults; what was dropped of a config of the other, as sentences.

    Raises:
        ConfigError: where both are given, or an option that has no meaning for the one that is.
    """
    place = {name: ctx.get_parameter_source(name) for name in options}
    typed = {name for name, where in place.items() if where is ParameterSource.COMMANDLINE}
    given = typed | {name for name, where in place.items() if where is ParameterSource.DEFAULT_MAP}
    sources = [name for name in DEFAULTS if name in typed] or [name for name in DEFAULTS if name in given] or ["model"]
    if len(sources) > 1:
        raise ConfigError("--model and --pipeline both say what draws: give one of them")
    (mine,), (other,) = sources, [name for name in DEFAULTS if name not in sources]
    foreign = other in given  # a config of the other source: what is typed wins over it
    for name, why in ALIEN[mine].items():
        if name in typed or (name in given and not foreign):
            raise ConfigError(f"{flag(name)} has no meaning with a {mine}: {why}")
    dropped = [name for name in (*ALIEN[mine], *FITTED) if foreign and name in given - typed]
    for name in (other, *ALIEN[mine], *dropped):
        options[name] = None
    for name, value in DEFAULTS[mine].items():
        options[name] = value if options[name] is None else options[name]
    if dropped:
        yield f"the config's {', '.join(map(flag, dropped))} belonged to its {other}: left out"
