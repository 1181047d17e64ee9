"""Models, processors and tokenizers of transformers: from a folder, or from the hub."""

import os
from typing import Any

import torch

from symguide.errors import WeightsError
from symguide.extras import library

Name = str | os.PathLike[str]


def _maker(kind: str) -> Any:
    return getattr(library("transformers", "an encoder", "encoders"), kind)


@torch.inference_mode(mode=False)  # whoever loads in inference mode may guide with these weights later
def pretrained(kind: str, name: Name, local_files_only: bool = False) -> Any:
    """transformers.<kind>.from_pretrained(name), with its errors in one sentence.

    Raises:
        WeightsError: for a folder without such a thing, or a hub id that cannot be reached or does not exist.
    """
    maker = _maker(kind)
    try:
        return maker.from_pretrained(name, local_files_only=local_files_only)
    except MemoryError:
        raise
    except Exception as error:  # transformers has errors of many kinds for configs that are broken
        raise _unusable(kind, name, error) from error


@torch.inference_mode(mode=False)
def network(kind: str, name: Name, local_files_only: bool = False, spare: str = "\n") -> Any:
    """`pretrained` for a network, in eval mode, with all of its weights.

    transformers fills weights that a file lacks with random numbers and a warning, and guidance would follow those.

    Args:
        kind, name, local_files_only: as for `pretrained`.
        spare: weights whose names begin so are never used, and may be missing.

    Raises:
        WeightsError: as `pretrained`, and for missing weights.
    """
    maker = _maker(kind)
    try:
        made, info = maker.from_pretrained(name, local_files_only=local_files_only, output_loading_info=True)
    except MemoryError:
        raise
    except Exception as error:  # as above, and for weights
        raise _unusable(kind, name, error) from error
    if missing := sorted(key for key in info["missing_keys"] if not key.startswith(spare)):
        raise WeightsError(f"{name} has no weights for {missing[0]} ({len(missing)} in all): not a {kind}")
    return made.eval().requires_grad_(False)


def _unusable(kind: str, name: Name, error: Exception) -> WeightsError:
    why = " ".join(str(error).split())
    why = why if len(why) <= 200 else why[:200] + " ..."
    if os.path.isdir(name):
        return WeightsError(f"the folder {name} has no {kind} to load ({why}): give what save_pretrained wrote")
    return WeightsError(
        f"no {kind} can be had from {str(name)!r}, which is no folder here, from the hub ({why}): check the id and the "
        f"connection, or run 'hf download {name}' where there is one and give the folder"
    )
