"""Handwritten digits, 8x8: real data, a denoiser by class, classifiers to guide with, a judge to measure with."""

from pathlib import Path

import torch
from torch import nn

from symguide.networks import load
from symguide.worlds.digits.data import images, labels

FOLDER = Path(__file__).parent
WEIGHTS = FOLDER / "weights"
DENOISER, SCORER, NOISY, JUDGE = (WEIGHTS / name for name in ("denoiser", "scorer", "noisy", "judge"))

__all__ = ["DENOISER", "FOLDER", "JUDGE", "NOISY", "SCORER", "WEIGHTS", "images", "judge", "labels", "noisy", "scorer"]


def scorer(device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> nn.Module:
    """The classifier to guide with: clean images (B, 1, 8, 8) -> logits (B, 10); `.features(x)` gives (B, 64)."""
    return load(SCORER, device, dtype)[0]


def noisy(device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> nn.Module:
    """The classifier of noisy images, for classifier guidance: (x_t (B, 1, 8, 8), timestep (B,)) -> logits (B, 10)."""
    return load(NOISY, device, dtype)[0]


def judge(device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> nn.Module:
    """The classifier to measure with, of another build and training: logits (B, 10); `.features(x)` gives (B, 64).

    Guidance must never see it: fooling the scorer is no success, and only a judge can tell.
    """
    return load(JUDGE, device, dtype)[0]
