"""The embedded networks that guide, and those that measure, for a model's samples."""

from torch import nn

from symguide.worlds import WORLDS, load


def has_scorer(kind: str, model: str) -> bool:
    """Whether the model belongs to a world that has a scorer of that kind.

    Samples of other models may have the same shape; the world's scorers know nothing of them.
    """
    return model in WORLDS and kind in WORLDS[model].scorers


def judge_of(kind: str, model: str) -> nn.Module | None:
    """The judge beside a scorer, or None where the world has none or its weights were left out."""
    folder = WORLDS[model].judges.get(kind) if model in WORLDS else None
    return load.judge(model, kind) if folder is not None and folder.is_dir() else None
