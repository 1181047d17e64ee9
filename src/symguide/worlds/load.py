"""Models by name or folder: load("digits"), load("path/to/folder"), save(denoiser, folder).

A model folder is a network's folder (symguide.networks) whose config.json also says how to sample from it:

    "denoiser": {"schedule": {"name": "vp-cosine"}, "predicts": "v", "shape": [1, 8, 8], "null": {"label": 10}}

Where samples are latents, "decoder" there names the folder of an autoencoder beside the model's. A generator of one
call says {"prior": "normal", "shape": [64]} in place of a schedule: see `from_generator`.
"""

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from symguide import networks
from symguide.denoiser import Denoiser
from symguide.errors import ConfigError, WeightsError, unknown
from symguide.integrations.generator import from_generator
from symguide.schedule import from_spec, to_spec
from symguide.worlds import WORLDS, installed, scorers


def load(
    name: str | os.PathLike[str], device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> Denoiser:
    """The denoiser of an embedded world, or of a model folder.

    Args:
        name: "digits", or another of `symguide models`, or a folder with config.json and model.safetensors.
        device: where its weights go, the CPU where not given.
        dtype: of its weights, torch's default where not given.

    Raises:
        ConfigError: for an unknown name or settings. WeightsError: for missing, corrupt or foreign files, and
            where the weights of the embedded worlds, or the package that a world is read from, are not installed.

    >>> load("digits", dtype=torch.float32).shape
    (1, 8, 8)
    """
    folder = Path(name)
    if str(name) in WORLDS:
        world = WORLDS[str(name)]
        if world.make is not None:
            return world.make(device, dtype)
        folder = installed(world.denoiser)
    elif not folder.exists() and len(folder.parts) == 1:
        raise unknown("model", name, WORLDS)
    try:
        network, config = networks.load(folder, device=device, dtype=dtype)
    except ConfigError as error:
        if str(name) not in WORLDS:
            raise
        said = "the package of weights is of another version: pip install --upgrade symguide-worlds"
        raise WeightsError(f"{error}; {said}") from error
    settings = config.get("denoiser")
    if isinstance(settings, dict):
        _check(settings, f"{folder}/config.json")
    if isinstance(settings, dict) and settings.get("prior") == "normal" and settings.get("shape"):
        return from_generator(network, settings["shape"])
    if not isinstance(settings, dict) or not isinstance(settings.get("schedule"), dict) or "predicts" not in settings:
        raise ConfigError(
            f"{folder}/config.json has no 'denoiser' with a schedule and what it predicts: not a model to sample from"
        )
    return Denoiser(
        network,
        from_spec(settings["schedule"]),
        settings["predicts"],
        shape=settings.get("shape"),
        null=settings.get("null"),
        decoder=_decoder(folder, settings.get("decoder"), device, dtype),
    )


def _check(settings: dict[str, Any], where: str) -> None:
    """ConfigError unless the settings of a denoiser are of the kinds that it takes."""
    shape, null, schedule = settings.get("shape"), settings.get("null"), settings.get("schedule")
    sides = shape if isinstance(shape, list) else []
    if shape is not None and not (sides and all(type(side) is int and 0 < side < 2**31 for side in sides)):
        raise ConfigError(f"{where}: the shape of a sample is a list of positive whole numbers, not {shape}")
    if null is not None and not (isinstance(null, dict) and all(map(_numbers, null.values()))):
        raise ConfigError(f"{where}: null is the numbers of each condition that mean none, by its name, not {null}")
    if isinstance(schedule, dict) and not all(_numbers(value) for key, value in schedule.items() if key != "name"):
        raise ConfigError(f"{where}: a schedule is its name with numbers, not {schedule}")


def _numbers(value: Any) -> bool:
    """Whether a value of JSON is a number that fits into 64 bits, or a list of such."""
    if isinstance(value, list):
        return all(map(_numbers, value))
    return isinstance(value, int | float) and abs(value) < 2**63


class _Decoder(nn.Module):
    """The decoding half of an autoencoder as a module of its own."""

    def __init__(self, autoencoder: nn.Module) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.autoencoder.decode(z)  # type: ignore[operator]


def _decoder(folder: Path, name: Any, device: torch.device | str | None, dtype: torch.dtype | None) -> nn.Module | None:
    """The decoder of the autoencoder that a config names, a folder beside the model's; None where it names none."""
    if name is None:
        return None
    if not isinstance(name, str) or Path(name).name != name:
        raise ConfigError(f"{folder}/config.json: decoder is the name of a folder beside the model's, not {name!r}")
    network, _ = networks.load(folder.parent / name, device=device, dtype=dtype)
    if not hasattr(network, "decode"):
        raise ConfigError(f"{folder.parent / name} holds {type(network).__name__}, which decodes nothing")
    return _Decoder(network)


def scorer(
    model: str, kind: str, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> nn.Module:
    """A network of clean samples to guide with, of the world that an embedded model belongs to.

    Args:
        model: "digits", one of the "scenes", or "emoji". Those of scenes also take 64x64 pixels, averaged over blocks
            to 32x32, and refuse other shapes; those of emoji take pictures of any size.
        kind: "classifier"; in the scenes world also "clip", "identity", "aesthetic" and "segmenter"; in that of emoji
            also "clip", whose text(vectors) takes vectors of MiniLM, and for judges "style" and "name".
        device: where its weights go, the CPU where not given.
        dtype: of its weights, torch's default where not given.

    Raises:
        ConfigError: for an unknown model or kind. WeightsError: for missing weights, and where the package with a
            pretrained network that a scorer of emoji stands on is not installed.

    >>> scorer("digits", "classifier", dtype=torch.float32)(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    return scorers.network(model, "scorer", kind, device, dtype)


def judge(
    model: str, kind: str, device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> nn.Module:
    """The network that measures what the scorer of the same kind guides toward; see `scorer`.

    Guidance must never see it: fooling the scorer is no success, and only a judge can tell.
    """
    return scorers.network(model, "judge", kind, device, dtype)


def save(denoiser: Denoiser, folder: str | os.PathLike[str], *, card: str | None = None, **extra: Any) -> None:
    """Write a denoiser whose network is of a registered class as a model folder that `load` reads.

    Raises ConfigError for networks and schedules that have no name to save them under, and for latent models, whose
    decoder has a folder of its own; nothing is written then.
    """
    if denoiser.decoder is not None:
        raise ConfigError("a latent model is saved by hand: networks.save for its network and for its autoencoder")
    if not isinstance(denoiser.network, nn.Module):
        raise ConfigError(f"only networks of a registered class can be saved, not {type(denoiser.network).__name__}")
    settings = {
        "schedule": to_spec(denoiser.schedule),
        "predicts": denoiser.predicts,
        "shape": None if denoiser.shape is None else list(denoiser.shape),
        "null": denoiser.null,
    }
    networks.save(denoiser.network, folder, card=card, denoiser=settings, **extra)
