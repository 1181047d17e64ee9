"""What a diffusers pipeline is made of, as configs: read from a folder, the hub, a pipeline or a preset."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from symguide.errors import ConfigError, WeightsError, unknown
from symguide.extras import library
from symguide.pipelines.modules import NETWORKS

PRESETS: Mapping[str, Any] = json.loads(Path(__file__).with_name("presets.json").read_text())
"""Published pipelines by name, {"pipeline": class, "networks": {name: a Component}}, as their config.json files are."""


@dataclass(frozen=True)
class Component:
    """One network of a pipeline: the library and class that make it, and its config."""

    library: str
    name: str
    config: Mapping[str, Any]

    def build(self, dtype: torch.dtype, device: str = "meta") -> nn.Module:
        """The network with frozen random weights; on the meta device it takes no memory.

        Raises:
            ConfigError: if the library is not installed or knows no such class.
        """
        kind = getattr(_library(self.library), self.name, None)
        if kind is None:
            raise ConfigError(f"this version of {self.library} has no {self.name}: upgrade it")
        with torch.device(device):
            if self.library == "diffusers":
                module: nn.Module = kind.from_config(dict(self.config))
            else:
                module = kind(kind.config_class.from_dict(dict(self.config)))
        return nn.Module.to(module, dtype).eval().requires_grad_(False)  # diffusers' own `to` has warnings for this


@dataclass(frozen=True)
class Architecture:
    """A pipeline as configs.

    Attributes:
        pipeline: its class.
        components: its networks by name, as the pipeline has them.
    """

    pipeline: str
    components: Mapping[str, Component]

    @property
    def network(self) -> Component:
        """The one that sees the latents.

        Raises:
            ConfigError: if there is none.
        """
        for name in NETWORKS:
            if name in self.components:
                return self.components[name]
        raise ConfigError(f"{self.pipeline} has none of the networks that can be guided: {', '.join(NETWORKS)}")

    @property
    def vae(self) -> Component:
        """The autoencoder.

        Raises:
            ConfigError: if there is none.
        """
        if "vae" not in self.components:
            raise ConfigError(f"{self.pipeline} has no autoencoder: estimate_memory knows pipelines that have one")
        return self.components["vae"]

    @property
    def upcasts(self) -> bool:
        """Whether the pipeline decodes in float32 where it is float16: the autoencoder of SDXL overflows otherwise."""
        kind = getattr(_library("diffusers"), self.pipeline, None)
        return hasattr(kind, "upcast_vae") and bool(self.vae.config.get("force_upcast", True))


def architecture(model: Any) -> Architecture:
    """The architecture of a preset's name, a pipeline's folder, a name on the Hugging Face hub, a pipeline, or itself.

    Only configs are read, no weights.

    Raises:
        ConfigError: for a name that is none of these, or a hub that cannot be reached.
        WeightsError: for a folder that is no pipeline's.
    """
    if isinstance(model, Architecture):
        return model
    if not isinstance(model, str | Path):
        return _of_pipeline(model)
    if str(model) in PRESETS:
        preset = PRESETS[str(model)]
        return Architecture(preset["pipeline"], {name: Component(**made) for name, made in preset["networks"].items()})
    if Path(model).is_dir():
        return _of_folder(Path(model))
    if str(model).count("/") != 1 or str(model).startswith((".", "/", "~")):
        raise unknown("pipeline", model, [*PRESETS, "a folder with model_index.json", "owner/name on the hub"])
    return _of_folder(_configs_from_the_hub(str(model)))


def _of_pipeline(pipe: Any) -> Architecture:
    parts = {name: part for name, part in getattr(pipe, "components", {}).items() if isinstance(part, nn.Module)}
    if not parts:
        raise ConfigError(f"estimate_memory takes a diffusers pipeline or a name, and {type(pipe).__name__} is neither")
    configs: dict[str, Any] = {name: part.config for name, part in parts.items()}
    return Architecture(
        type(pipe).__name__,
        {
            name: Component(
                type(part).__module__.split(".")[0],
                type(part).__name__,
                configs[name].to_dict() if hasattr(configs[name], "to_dict") else dict(configs[name]),
            )
            for name, part in parts.items()
        },
    )


def _of_folder(folder: Path) -> Architecture:
    try:
        index = json.loads((folder / "model_index.json").read_text())
        listed = {name: entry for name, entry in index.items() if isinstance(entry, list) and None not in entry}
        components = {
            name: Component(origin, kind, json.loads((folder / name / "config.json").read_text()))
            for name, (origin, kind) in listed.items()
            if (folder / name / "config.json").exists()
        }
        return Architecture(index["_class_name"], components)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{folder} is not the folder of a diffusers pipeline (model_index.json, and config.json of every "
            f"network in a folder of its own): {error}"
        ) from None


def _configs_from_the_hub(name: str) -> Path:
    hub = _library("huggingface_hub")
    try:
        return Path(hub.snapshot_download(name, allow_patterns=["model_index.json", "*/config.json"]))
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"{name} is no folder here, and its configs cannot be had from the Hugging Face hub ({first}): "
            f"give a pipeline's folder, or one of {', '.join(PRESETS)}"
        ) from None


def _library(name: str) -> Any:
    """A library, or a folder of diffusers' pipelines, which is where safety checkers say that they are from."""
    whole = name in ("diffusers", "transformers", "huggingface_hub")
    return library(name if whole else f"diffusers.pipelines.{name}", "estimating a pipeline's memory", "pipelines")
