"""An embedded model or a model folder on the command line."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import symguide as sg
from symguide import values
from symguide.cli import methods
from symguide.cli.methods import Method
from symguide.cli.registered import LOSS, PARTICLES, weighs_condition
from symguide.cli.request import Request
from symguide.cli.source import Show
from symguide.errors import ConfigError
from symguide.specs import conditions
from symguide.specs.kinds import Loss, cycle
from symguide.store import digests
from symguide.tuning.tune import calls
from symguide.worlds import WORLDS

COPIED = ("num", "batch", "steps", "seed", "solver", "grid", "eta", "restart", "device", "dtype", "on_nan")


@dataclass(frozen=True)
class Model:
    """A denoiser, drawn from in our own loop: see `symguide.cli.source.Source`."""

    name: str
    denoiser: sg.Denoiser
    shape: tuple[int, ...]
    settings: Mapping[str, Any]
    made_with: Mapping[str, Any]
    condition: Mapping[str, list[Any]]
    """Values by name, which go to the samples in turn."""
    methods: Sequence[Method]
    """All of the run; those of gradients are given when it draws."""

    def draw(
        self, indices: range, objective: Loss | None, loss: Callable[[Loss], Any] | None, show: Show
    ) -> tuple[Tensor, sg.Cost]:
        s, particles = self.settings, methods.one(self.methods, PARTICLES)
        if objective is not None and self.denoiser.decoder is not None:
            objective = sg.objectives.Decoded(objective, self.denoiser.decode)
        result = sg.sample(
            self.denoiser,
            **self._sampler,
            indices=indices,
            seed=s["seed"],
            condition=self._condition(indices),
            loss=None if objective is None or loss is None else loss(objective),
            particles=None if objective is None or particles is None else particles.make(objective),
            dtype=getattr(torch, s["dtype"]),
            device=s["device"],
            on_nan=s["on_nan"],
            callback=lambda record, x: show(record.index + 1, s["steps"]),
        )
        with torch.no_grad():
            return self.denoiser.decode(result.samples), result.cost

    def calls(self, loss: Callable[[Any], Any] | None) -> tuple[int, int]:
        """Forward and backward calls for each sample, at most, without a call of the network."""
        return calls(self.denoiser, self._sampler, self._condition(range(1)), loss)

    @property
    def _sampler(self) -> dict[str, Any]:
        s = self.settings
        return {
            "steps": s["steps"],
            "solver": s["solver"],
            "grid": s["grid"],
            "eta": s["eta"],
            "restart": sg.Restart(*s["restart"]) if s.get("restart") else None,
            "prediction": methods.prediction(self.methods),
        }

    def _condition(self, indices: range) -> dict[str, list[Any]]:
        return {name: cycle(values, indices) for name, values in self.condition.items()}


def source(asked: Request, found: Sequence[Method]) -> Model:
    """The model that is asked for, looked up and checked.

    Raises:
        ConfigError: for conditions that it does not take, and where it does not say its shape. WeightsError: as `load`.
    """
    embedded = asked["model"] in WORLDS
    name = asked["model"] if embedded else str(Path(asked["model"]).resolve())
    device, dtype = values.device(asked["device"]), getattr(torch, asked["dtype"])
    denoiser = sg.load(asked["model"], dtype=torch.float32).to(device, dtype)
    if denoiser.shape is None:
        raise ConfigError(f"{asked['model']}/config.json does not say the shape of a sample: add it to 'denoiser'")
    with torch.no_grad():
        shape = tuple(denoiser.decode(torch.zeros(1, *denoiser.shape, device=device)).shape[1:])
    condition, prompts = conditions.given(denoiser, asked["condition"] or ()), asked["prompt"] or []
    rows = conditions.rows(denoiser, condition, prompts, asked.say, steered=asked["objective"] is not None)
    for each in found:
        if weighs_condition(each.name) and each.settings["scale"] != 1 and not (condition or prompts):
            raise ConfigError(
                "--cfg strengthens a condition, and none is given: add --prompt or e.g. --condition label=3"
            )
    copied = {key: asked[key] for key in COPIED}
    if copied["eta"] is None:  # a config says what was drawn with
        loss = methods.one(found, LOSS)
        own = None if loss is None else loss.settings.get("eta")
        copied["eta"] = 1.0 if own is None else own
    settings = {"model": name} | {key: value for key, value in copied.items() if value is not None}
    settings |= ({"prompt": prompts} if prompts else {}) | ({"condition": condition} if condition else {})
    made_with: dict[str, Any] = {"weights": digests.of_network(WORLDS[name].denoiser if embedded else name)}
    if prompts and conditions.is_of_emoji(denoiser):
        made_with["sentences"] = conditions.readings(prompts)
    return Model(name, denoiser, shape, settings, made_with, rows, found)
