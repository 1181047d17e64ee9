"""Scenes: drawn pictures with their full ground truth, text-to-image models of them, scorers and judges."""

from pathlib import Path

from symguide.worlds.scenes.beauty import beauty
from symguide.worlds.scenes.caption import LENGTH, VOCABULARY, captions, tokens
from symguide.worlds.scenes.picture import masks, render
from symguide.worlds.scenes.scene import Scenes, draw

FOLDER = Path(__file__).parent
WEIGHTS = FOLDER / "weights"

__all__ = [
    "FOLDER",
    "LENGTH",
    "VOCABULARY",
    "WEIGHTS",
    "Scenes",
    "beauty",
    "captions",
    "draw",
    "masks",
    "render",
    "tokens",
]
