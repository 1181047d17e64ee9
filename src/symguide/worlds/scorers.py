"""What the worlds hand out for guidance: their networks of clean samples, and objectives that ask those."""

import inspect
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from symguide import networks
from symguide.errors import unknown
from symguide.objectives import OBJECTIVES, Objective
from symguide.worlds import WORLDS, installed
from symguide.worlds.heads import Standing

ASKS: Mapping[str, str] = {
    "classifier": "classifier",
    "noisy": "noisy",
    "text": "clip",
    "image": "clip",
    "identity": "identity",
    "style": "classifier",
    "aesthetic": "aesthetic",
    "segmentation": "segmenter",
}
"""The kind of scorer that an objective asks, by the objective's name."""


def network(
    model: str,
    role: Literal["scorer", "judge"],
    kind: str,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Module:
    """A scorer or a judge of a model's world, which refuses samples of other shapes than its world's.

    Those that stand on a pretrained network of others (`symguide.worlds.heads`) see pictures of any size.

    Raises:
        ConfigError: for an unknown model or kind. WeightsError: for missing weights, and where a package that the
            network stands on is not installed.
    """
    if model not in WORLDS:
        raise unknown("model", model, WORLDS)
    world = WORLDS[model]
    folders = world.scorers if role == "scorer" else world.judges
    if kind not in folders:
        raise unknown(f"{role} of {model}", kind, folders)
    found = networks.load(installed(folders[kind]), device, dtype)[0]
    if not world.shapes or isinstance(found, Standing):  # what stands on a network of others sees any pictures
        return found
    return networks.Averaged(found, world.shapes[0][-1], world.shapes)


def objective(model: str, name: str, *given: Any, **settings: Any) -> Objective:
    """An objective that asks the scorer of a model's world.

    Args:
        model: "digits", or one of the "scenes".
        name: of the objective, such as "classifier" or "style"; see `ASKS`.
        given, settings: what the objective takes beside its network.

    Raises:
        ConfigError: for an unknown model, an objective that its world has no scorer for, and whatever the objective
            refuses; when called, for samples of other shapes than the world's.
    """
    if model not in WORLDS:
        raise unknown("model", model, WORLDS)
    known = [each for each, kind in ASKS.items() if kind in WORLDS[model].scorers]
    if name not in known:
        raise unknown(f"objective of {model}", name, known)
    made = OBJECTIVES[name]
    taken = [parameter for parameter in inspect.signature(made).parameters if parameter != "network"]
    if len(given) > len(taken):
        raise TypeError(f"{made.__name__} takes {', '.join(taken)} beside its network, and {len(given)} were given")
    ask = network(model, "scorer", ASKS[name], dtype=torch.float32)
    settings = {**settings, "network": ask}
    return made(**dict(zip(taken, given, strict=False)), **settings)
