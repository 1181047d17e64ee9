"""The aesthetic predictors of LAION: a linear head on CLIP embeddings."""

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch.nn.functional as F
from torch import Tensor, nn

from symguide.errors import ConfigError, WeightsError

DROPOUTS = (0, 2, 4, 6, 7)
"""Where the layers of LAION's deep head stand; between them are dropouts, which do nothing here."""


class AestheticPredictor(nn.Module):
    """head(e / |e|), e the image embedding of a sample: how much people like it, for LAION's heads from 1 to 10.

    Args:
        encoder: has image(x) -> (B, w): a `CLIP`. LAION's heads belong to ViT-L/14, a few of them to others.
        head: (B, w) -> (B, 1).

    Raises:
        ConfigError: for an encoder without image, or a head for embeddings of another width.

    Cost: one evaluation of the encoder.

    Source: Schuhmann et al., "LAION-5B", 2210.08402.
    """

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        if not callable(getattr(encoder, "image", None)):
            kind = type(encoder).__name__
            raise ConfigError(f"an aesthetic predictor needs an encoder with image(x), and {kind} has none")
        made = getattr(encoder, "width", None)
        taken = next((layer.in_features for layer in head.modules() if isinstance(layer, nn.Linear)), made)
        if made is not None and made != taken:
            raise ConfigError(f"the head takes embeddings of {taken} numbers and the encoder makes {made}: {_FITS}")
        self.encoder, self.head = encoder, head

    @classmethod
    def from_safetensors(cls, encoder: nn.Module, path: str | os.PathLike[str]) -> "AestheticPredictor":
        """A predictor with a head of LAION's: one linear layer, or five without activations.

        Args:
            encoder: as above.
            path: a safetensors file with weight and bias, or with layers.0.weight, layers.0.bias, layers.2.weight, ...

        Raises:
            WeightsError: for a file that is missing, corrupt, of another kind or of another head. A pickle (.pth) is
                never opened, since that runs what it says; the error tells how to convert it.
        """
        return cls(encoder, _head(Path(path)))

    def forward(self, x: Tensor) -> Tensor:
        """Samples (B, 3, H, W) in [-1, 1] -> scores (B, 1)."""
        embedding: Any = self.encoder.image(x)  # type: ignore[operator]
        score: Tensor = self.head(F.normalize(embedding, dim=1))
        return score


_FITS = "LAION's heads with 768 belong to openai/clip-vit-large-patch14"


def _head(path: Path) -> nn.Module:
    try:
        tensors = safetensors.torch.load_file(path)
    except OSError as error:
        raise WeightsError(f"cannot read {path} ({error.strerror or error}): give the file of a head") from error
    except safetensors.SafetensorError as error:
        raise WeightsError(
            f"{path} is no safetensors file ({error}); pickles such as .pth are not opened: if you trust it, "
            f"convert it with safetensors.torch.save_file(torch.load(PATH, weights_only=True), 'head.safetensors')"
        ) from error
    names = [f"layers.{at}." for at in DROPOUTS] if "layers.0.weight" in tensors else [""]
    if tensors.keys() != {name + part for name in names for part in ("weight", "bias")}:
        raise WeightsError(
            f"{path} holds {', '.join(sorted(tensors)[:4])}: a head has weight and bias, or five layers without "
            "activations; give any other as a module of yours, AestheticPredictor(encoder, head)"
        )
    shapes = [tuple(tensors[name + "weight"].shape) for name in names]
    chained = all(len(shape) == 2 for shape in shapes) and all(a[0] == b[1] for a, b in pairwise(shapes))
    biased = all(tensors[name + "bias"].shape == shape[:1] for name, shape in zip(names, shapes, strict=True))
    if not chained or not biased or shapes[-1][0] != 1:
        raise WeightsError(f"the layers of {path} do not follow on each other, or end in more than one number")
    layers = [nn.Linear(shape[1], shape[0], device="meta") for shape in shapes]
    for name, layer in zip(names, layers, strict=True):
        layer.load_state_dict({part: tensors[name + part] for part in ("weight", "bias")}, assign=True)
    return nn.Sequential(*layers).eval().requires_grad_(False)
