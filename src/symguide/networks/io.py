"""Model folders: config.json (class and arguments), model.safetensors (weights) and README.md (the model card)."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from symguide.errors import ConfigError, WeightsError, unknown
from symguide.files import write
from symguide.networks.saveable import NETWORKS

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"


def save(
    module: nn.Module,
    folder: str | os.PathLike[str],
    *,
    card: str | None = None,
    dtype: torch.dtype | None = None,
    **extra: Any,
) -> None:
    """Write a model folder that `load` reads.

    Args:
        module: a network of a class in NETWORKS.
        folder: made where it does not exist; its files of the same names are replaced.
        card: text of README.md; without it the card is left as it is.
        dtype: to store floating tensors in, as they are where not given; `load` gives any precision back.
        extra: further keys of config.json, JSON-able.

    Raises:
        ConfigError: if the class is not in NETWORKS, or something is not JSON-able; nothing is written then.
    """
    name = type(module).__name__
    if NETWORKS.get(name) is not type(module):
        raise ConfigError(f"{name} is not registered: add it with symguide.networks.NETWORKS[{name!r}] = {name}")
    tensors = {
        key: value.detach().to("cpu", dtype if value.is_floating_point() else None).contiguous()
        for key, value in module.state_dict().items()
    }
    weights = safetensors.torch.save(tensors, metadata={"format": "pt"})
    config = {"network": name, "arguments": module.arguments, "sha256": hashlib.sha256(weights).hexdigest()}
    if taken := sorted(config.keys() & extra.keys()):
        raise ConfigError(f"config.json has {', '.join(taken)} already: give the extra keys other names")
    try:
        text = json.dumps(config | extra, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ConfigError(f"config.json of {name} takes JSON values only: {error}") from error
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / WEIGHTS, weights)
    write(folder / CONFIG, text)
    if card is not None:
        write(folder / CARD, card)


@torch.inference_mode(mode=False)  # whoever loads in inference mode may guide with these weights later
def load(
    folder: str | os.PathLike[str], device: torch.device | str | None = None, dtype: torch.dtype | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a model folder, in eval mode and without gradients of its weights, and the folder's config.

    Args:
        folder: what `save` wrote.
        device: where the weights go; the CPU by default.
        dtype: of the weights; torch's default dtype by default.

    Raises:
        WeightsError: if a file is missing or corrupt, or if the weights are not those of the config's network.
        ConfigError: if config.json is not JSON, or names an unknown network or arguments it does not take.
    """
    folder = Path(folder)
    config = _config(folder)
    module = _empty(config, folder / CONFIG)
    tensors = _tensors(folder, config.get("sha256"))
    _check(tensors, module.state_dict(), folder / WEIGHTS)
    dtype = dtype or torch.get_default_dtype()
    moved = {k: v.to(device=device, dtype=dtype if v.is_floating_point() else None) for k, v in tensors.items()}
    module.load_state_dict(moved, assign=True, strict=False)  # what stands on weights of others has its own alone
    return module.to(device=device, dtype=dtype).eval().requires_grad_(False), config


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"cannot read {path} ({error.strerror}): give a model folder, which holds {CONFIG} and {WEIGHTS}"
        ) from error


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        config = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON ({error}): restore it or save the model again") from error
    if not isinstance(config, dict) or not isinstance(config.get("arguments"), dict) or "network" not in config:
        raise ConfigError(f'{path} is no model config: it needs {{"network": name, "arguments": {{...}}}}')
    return config


def _empty(config: dict[str, Any], path: Path) -> nn.Module:
    """The config's network without memory for its weights, so that a wrong config costs nothing."""
    name = str(config["network"])
    if name not in NETWORKS:
        raise unknown("network", name, NETWORKS)
    try:
        with torch.device("meta"):
            return NETWORKS[name](**config["arguments"])
    except WeightsError:  # of a network of others that it stands on
        raise
    except Exception as error:
        raise ConfigError(f"{path}: {name} does not take these arguments ({error}): correct them") from error


def _tensors(folder: Path, digest: str | None) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    data = _read(path)
    if digest is not None and hashlib.sha256(data).hexdigest() != digest:
        raise WeightsError(
            f"{path} is not the file that {CONFIG} belongs to (its sha256 differs): restore both together"
        )
    try:
        return safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise WeightsError(
            f"{path} is no whole safetensors file ({error}): restore it or save the model again"
        ) from error


def _check(tensors: dict[str, Tensor], expected: dict[str, Tensor], path: Path) -> None:
    wrong = [f"{k} is missing" for k in expected if k not in tensors]
    wrong += [f"{k} belongs to another network" for k in tensors if k not in expected]
    wrong += [
        f"{k} has shape {tuple(tensors[k].shape)} instead of {tuple(v.shape)}"
        for k, v in expected.items()
        if k in tensors and tensors[k].shape != v.shape
    ]
    wrong += [
        f"{k} holds {tensors[k].dtype} in place of {v.dtype}"
        for k, v in expected.items()
        if k in tensors and tensors[k].is_floating_point() != v.is_floating_point()
    ]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise WeightsError(f"{path} does not fit {CONFIG}: {wrong[0]}{more}; restore both together")
