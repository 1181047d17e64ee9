"""diffusers pipelines from a folder or from the hub: safetensors only, and no code but that of the library."""

import re
import warnings
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from symguide.errors import ConfigError, WeightsError
from symguide.extras import library

INDEX = "model_index.json"


def diffusers() -> Any:
    """diffusers, imported when it is needed and not before."""
    return library("diffusers", "--pipeline", "pipelines")


def load_pipeline(name: str, dtype: torch.dtype) -> tuple[str, Any, Path]:
    """A pipeline on the CPU.

    Args:
        name: a folder that `save_pretrained` wrote, or a hub id.
        dtype: of its networks.

    Returns:
        Its name in any folder, the pipeline, and the folder that it is in; those of the hub are named after a commit.

    Raises:
        ConfigError: without diffusers, and for folders with code of their own. WeightsError: where it cannot be had.
    """
    loader = diffusers()
    local = Path(name).is_dir()
    folder = Path(name).resolve() if local else _downloaded(loader, name)
    if not (folder / INDEX).is_file():
        raise WeightsError(f"the folder {name} has no {INDEX}: give what a pipeline's save_pretrained wrote")
    if own := next(folder.rglob("*.py"), None):
        raise ConfigError(
            f"{name} has code of its own ({own.relative_to(folder)}), which is not run: guide it in Python"
        )
    for quiet in (loader, import_module("transformers")) if installed("transformers") else (loader,):
        quiet.utils.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # newer versions call torch_dtype dtype
            pipe = loader.DiffusionPipeline.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, torch_dtype=dtype, variant=_variant(folder)
            )
    except MemoryError:
        raise
    except Exception as error:  # diffusers has errors of many kinds for folders that are broken
        raise WeightsError(
            f"the pipeline in {name} cannot be loaded ({_short(error)}): give what save_pretrained wrote, with "
            "safetensors files"
        ) from error
    pipe.set_progress_bar_config(disable=True)
    return str(folder) if local else name, pipe, folder


def _downloaded(loader: Any, name: str) -> Path:
    """The folder of a hub id's newest commit, or of the one that is here already where there is no connection."""
    try:
        return Path(loader.DiffusionPipeline.download(name, use_safetensors=True))
    except Exception as error:  # the hub's clients have errors of many kinds
        raise WeightsError(
            f"no pipeline can be had from {name!r}, which is no folder here, from the hub ({_short(error)}): check the "
            f"id and the connection, or run 'hf download {name}' where there is one and give the folder"
        ) from error


def _variant(folder: Path) -> str | None:
    """What all weights of some network are named after (model.fp16.safetensors), if none have a plain name."""
    named: dict[Path, set[str | None]] = {}
    for file in folder.glob("*/*.safetensors"):
        found = re.search(r"\.(\w+)(-\d+-of-\d+)?\.safetensors$", file.name)
        named.setdefault(file.parent, set()).add(found and found[1])
    return next((min(filter(None, names)) for names in named.values() if None not in names), None)


def installed(package: str) -> bool:
    """Whether there is a package of that name."""
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:200] + " ..."
