"""The embedded networks that guide, and those that measure, for a model's samples."""

from torch import nn

from symguide import models
from symguide.worlds import WORLDS

SCENES = ((3, 32, 32), (3, 64, 64))
"""Shapes of the pictures that the scenes world's networks know, whichever model made them."""


def world_of(kind: str, model: str, shape: tuple[int, ...]) -> str | None:
    """The world whose scorer of that kind fits the model's samples: its own, or the scenes world by their shape."""
    if model in WORLDS and kind in WORLDS[model].scorers:
        return model
    return "scenes" if tuple(shape) in SCENES else None


def judge_of(kind: str, world: str) -> nn.Module | None:
    """The judge beside a scorer, or None where the world has none or its weights were left out."""
    folder = WORLDS[world].judges.get(kind)
    return models.judge(world, kind) if folder is not None and folder.is_dir() else None
