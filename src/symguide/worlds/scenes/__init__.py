"""Scenes: drawn pictures with their full ground truth, text-to-image models of them, scorers and judges."""

from typing import Any

from symguide.objectives import Objective
from symguide.worlds import WEIGHTS as _WEIGHTS
from symguide.worlds import scorers
from symguide.worlds.scenes.beauty import beauty
from symguide.worlds.scenes.caption import LENGTH, VOCABULARY, captions, tokens
from symguide.worlds.scenes.picture import masks, render
from symguide.worlds.scenes.scene import Scenes, draw

WEIGHTS = _WEIGHTS / "scenes"

__all__ = [
    "LENGTH",
    "VOCABULARY",
    "WEIGHTS",
    "Scenes",
    "beauty",
    "captions",
    "draw",
    "masks",
    "objective",
    "render",
    "tokens",
]


def objective(name: str, *given: Any, **settings: Any) -> Objective:
    """An objective for pictures of this world, (B, 3, 32, 32) or (B, 3, 64, 64), by the world's own scorer.

    Larger pictures are averaged over blocks to 32x32 first; what only a network for others would know is refused.

    Args:
        name: "classifier" (with head=), "text", "image", "identity", "style", "aesthetic" or "segmentation" (classes
            0 for the background and 1 + the index in SHAPES for an object).
        given, settings: what the objective takes beside its network, see symguide.objectives.

    Raises:
        ConfigError: for an unknown name, and whatever the objective refuses; when called, for pictures of other shapes.

    >>> objective("style", render(draw("held_out", [2])))(render(draw("held_out", [2]))).item() < 1e-6
    True
    """
    if name == "text":
        settings = {"tokenize": tokens, **settings}
    return scorers.objective("scenes", name, *given, **settings)
