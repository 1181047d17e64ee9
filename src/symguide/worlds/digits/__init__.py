"""Handwritten digits, 8x8: real data, a denoiser by class, classifiers to guide with, a judge to measure with."""

from typing import Any

import torch
from torch import nn

from symguide.objectives import Objective
from symguide.registry import register
from symguide.worlds import WEIGHTS as _WEIGHTS
from symguide.worlds import World, scorers
from symguide.worlds.digits.data import images as images
from symguide.worlds.digits.data import labels as labels

WEIGHTS = _WEIGHTS / "digits"
DENOISER, SCORER, NOISY, JUDGE = (WEIGHTS / name for name in ("denoiser", "scorer", "noisy", "judge"))

register("world", "digits")(
    World(
        "handwritten digits, 8x8 pixels, grey; condition: label 0-9, or 10 for none",
        DENOISER,
        {"classifier": SCORER, "noisy": NOISY},
        {"classifier": JUDGE},
        shapes=((1, 8, 8),),
    )
)


def scorer(device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> nn.Module:
    """The classifier to guide with: clean images (B, 1, 8, 8) -> logits (B, 10); `.features(x)` gives (B, 64)."""
    return scorers.network("digits", "scorer", "classifier", device, dtype)


def noisy(device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> nn.Module:
    """The classifier of noisy images, for classifier guidance: (x_t (B, 1, 8, 8), timestep (B,)) -> logits (B, 10)."""
    return scorers.network("digits", "scorer", "noisy", device, dtype)


def judge(device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> nn.Module:
    """The classifier to measure with, of another build and training: logits (B, 10); `.features(x)` gives (B, 64).

    Guidance must never see it: fooling the scorer is no success, and only a judge can tell.
    """
    return scorers.network("digits", "judge", "classifier", device, dtype)


def objective(name: str, *given: Any, **settings: Any) -> Objective:
    """An objective for images of this world, (B, 1, 8, 8), by the world's own scorer.

    Args:
        name: "classifier", "noisy" (for ClassifierGuidance) or "style".
        given, settings: what the objective takes beside its network, see symguide.objectives.

    Raises:
        ConfigError: for an unknown name, and whatever the objective refuses; when called, for samples of other shapes.

    >>> objective("classifier", label=[3, 5])(images("held_out")[:2]).shape
    torch.Size([2])
    """
    return scorers.objective("digits", name, *given, **settings)
