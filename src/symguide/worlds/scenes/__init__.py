"""Scenes: drawn pictures with their full ground truth, text-to-image models of them, scorers and judges."""

from typing import Any

from symguide.objectives import Objective
from symguide.registry import register
from symguide.worlds import WEIGHTS as _WEIGHTS
from symguide.worlds import World, scorers
from symguide.worlds.scenes.beauty import beauty as beauty
from symguide.worlds.scenes.caption import LENGTH as LENGTH
from symguide.worlds.scenes.caption import VOCABULARY as VOCABULARY
from symguide.worlds.scenes.caption import captions as captions
from symguide.worlds.scenes.caption import tokens as tokens
from symguide.worlds.scenes.picture import masks as masks
from symguide.worlds.scenes.picture import render as render
from symguide.worlds.scenes.scene import Scenes as Scenes
from symguide.worlds.scenes.scene import draw as draw

WEIGHTS = _WEIGHTS / "scenes"

_KINDS = ("classifier", "clip", "identity", "aesthetic", "segmenter")
_MODELS = {
    "denoiser": (
        "scenes",
        "one or two drawn objects, 32x32 pixels, RGB; condition: a caption such as 'a red star on blue stripes'",
    ),
    "flow": ("scenes-flow", "the same drawn by a rectified flow"),
    "latent": ("scenes-latent", "the same at 64x64 pixels, drawn as 4x16x16 latents of an autoencoder"),
    "consistency": ("scenes-consistency", "the same in one call: distilled from scenes with its guidance"),
    "generator": ("scenes-generator", "single objects by a generator: one call from 26 numbers, no captions"),
    "gan": ("scenes-gan", "single objects by a GAN: one call from 64 numbers, no captions and no encoder"),
    "weak": ("scenes-weak", "a small and barely trained relative of scenes, for autoguidance"),
}
for _folder, (_name, _about) in _MODELS.items():  # they share their scorers and judges
    _scorers, _judges = ({kind: WEIGHTS / role / kind for kind in _KINDS} for role in ("scorers", "judges"))
    register("world", _name)(World(_about, WEIGHTS / _folder, _scorers, _judges, shapes=((3, 32, 32), (3, 64, 64))))


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
