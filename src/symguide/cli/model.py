"""An embedded model or a model folder on the command line."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import symguide as sg
from symguide.cli import conditions, digests, methods
from symguide.cli.device import DTYPES, usable
from symguide.cli.source import Show
from symguide.errors import ConfigError
from symguide.loss_guidance import Recipe
from symguide.specs.kinds import Loss, cycle
from symguide.tuning.tune import calls
from symguide.worlds import WORLDS

PROMPTED = 5.0
"""Weight of classifier-free guidance where a prompt is given and no weight: captions are hardly followed without."""

COPIED = (
    "num",
    "batch",
    "steps",
    "seed",
    "solver",
    "grid",
    "eta",
    "restart",
    "cfg",
    "rule",
    "best_of",
    "device",
    "dtype",
    "on_nan",
)


@dataclass(frozen=True)
class Model:
    """A denoiser, drawn from in our own loop: see `symguide.cli.source.Source`."""

    name: str
    denoiser: sg.Denoiser
    shape: tuple[int, ...]
    settings: Mapping[str, Any]
    made_with: Mapping[str, str]
    condition: Mapping[str, list[Any]]
    """Values by name, which go to the samples in turn."""

    def draw(
        self, indices: range, aim: Loss | None, recipe: Callable[[Loss], Recipe] | None, show: Show
    ) -> tuple[Tensor, sg.Cost]:
        s = self.settings
        if aim is not None and self.denoiser.decoder is not None:
            aim = sg.objectives.Decoded(aim, self.denoiser.decode)
        result = sg.sample(
            self.denoiser,
            **self._sampler,
            indices=indices,
            seed=s["seed"],
            condition=self._condition(indices),
            loss=None if aim is None or recipe is None else recipe(aim),
            particles=sg.BestOfN(aim, s["best_of"]) if s.get("best_of", 1) > 1 else None,
            dtype=DTYPES[s["dtype"]],
            device=s["device"],
            on_nan=s["on_nan"],
            callback=lambda record, x: show(record.index + 1, s["steps"]),
        )
        with torch.no_grad():
            return self.denoiser.decode(result.samples), result.cost

    def calls(self, recipe: Callable[[Any], Recipe] | None) -> tuple[int, int]:
        """Forward and backward calls for each sample, at most, without a call of the network."""
        return calls(self.denoiser, self._sampler, self._condition(range(1)), recipe)

    @property
    def _sampler(self) -> dict[str, Any]:
        s = self.settings
        return {
            "steps": s["steps"],
            "solver": s["solver"],
            "grid": s["grid"],
            "eta": s["eta"],
            "restart": sg.Restart(*s["restart"]) if s.get("restart") else None,
            "prediction": methods.make_rule(s.get("rule"), s.get("cfg")),
        }

    def _condition(self, indices: range) -> dict[str, list[Any]]:
        return {name: cycle(values, indices) for name, values in self.condition.items()}


def source(options: Mapping[str, Any]) -> Model:
    """The model of the options, looked up and checked.

    Raises:
        ConfigError: for conditions that it does not take, and where it does not say its shape. WeightsError: as `load`.
    """
    embedded = options["model"] in WORLDS
    name = options["model"] if embedded else str(Path(options["model"]).resolve())
    device, dtype = usable(options["device"]), DTYPES[options["dtype"]]
    denoiser = sg.load(options["model"], dtype=torch.float32).to(device, dtype)
    if denoiser.shape is None:
        raise ConfigError(f"{options['model']}/config.json does not say the shape of a sample: add it to 'denoiser'")
    with torch.no_grad():
        shape = tuple(denoiser.decode(torch.zeros(1, *denoiser.shape, device=device)).shape[1:])
    condition, prompts = conditions.given(denoiser, options["condition"] or ()), list(options["prompt"])
    values = conditions.rows(denoiser, condition, prompts)
    rule = methods.make_rule(options["rule"], options["cfg"])
    if rule is not None and rule.scale != rule.off and not values:
        raise ConfigError("--cfg strengthens a condition, and none is given: add --prompt or e.g. --condition label=3")
    settings = {"model": name} | {key: options[key] for key in COPIED if options[key] is not None}
    if "restart" in settings:
        settings["restart"] = list(settings["restart"])
    if prompts:
        settings = {"cfg": PROMPTED if rule is None else rule.scale} | settings | {"prompt": prompts}
    if condition:
        settings["condition"] = condition
    made_with = {"weights": digests.of_network(WORLDS[name].denoiser if embedded else name)}
    return Model(name, denoiser, shape, settings, made_with, values)
