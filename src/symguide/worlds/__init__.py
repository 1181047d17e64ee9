"""Embedded worlds: data, denoisers, scorers to guide with and judges to measure with, in one folder each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from symguide.errors import WeightsError


@dataclass(frozen=True)
class World:
    """What the registry knows of a model: a line about it, its folder, and the scorers and judges of its world."""

    description: str
    denoiser: Path
    scorers: Mapping[str, Path] = field(default_factory=dict)
    """Networks of clean samples to guide with, by kind."""
    judges: Mapping[str, Path] = field(default_factory=dict)
    """For each kind a network of another build and training, which guidance never sees, to measure with."""
    shapes: tuple[tuple[int, ...], ...] = ()
    """Of the samples that these know: first those of their training, then larger ones, which they see averaged."""


def _weights() -> Path:
    """The folder of the package symguide_worlds: in a checkout the one beside the source tree, else the installed."""
    beside = Path(__file__).parents[3] / "packages" / "symguide-worlds" / "src" / "symguide_worlds"
    found = None if beside.is_dir() else find_spec("symguide_worlds")
    return beside if found is None or found.origin is None else Path(found.origin).parent


WEIGHTS = _weights()
"""Where the files of all embedded worlds are, a folder for each world; it may not exist."""


def installed(path: Path) -> Path:
    """The path itself.

    Raises:
        WeightsError: if it belongs to an embedded world and these are not installed.
    """
    if path.is_relative_to(WEIGHTS) and not WEIGHTS.is_dir():
        raise WeightsError('the weights of the embedded models are not installed: pip install "symguide[worlds]"')
    return path


_DIGITS, _SCENES = WEIGHTS / "digits", WEIGHTS / "scenes"
_KINDS = ("classifier", "clip", "identity", "aesthetic", "segmenter")


def _scenes(folder: str, description: str) -> World:
    """A model of the scenes world, whose models share their scorers and judges."""
    scorers, judges = ({kind: _SCENES / role / kind for kind in _KINDS} for role in ("scorers", "judges"))
    return World(description, _SCENES / folder, scorers, judges, shapes=((3, 32, 32), (3, 64, 64)))


WORLDS: dict[str, World] = {
    "digits": World(
        "handwritten digits, 8x8 pixels, grey; condition: label 0-9, or 10 for none",
        _DIGITS / "denoiser",
        {"classifier": _DIGITS / "scorer", "noisy": _DIGITS / "noisy"},
        {"classifier": _DIGITS / "judge"},
        shapes=((1, 8, 8),),
    ),
    "scenes": _scenes(
        "denoiser",
        "one or two drawn objects, 32x32 pixels, RGB; condition: a caption such as 'a red star on blue stripes'",
    ),
    "scenes-flow": _scenes("flow", "the same drawn by a rectified flow"),
    "scenes-latent": _scenes("latent", "the same at 64x64 pixels, drawn as 4x16x16 latents of an autoencoder"),
    "scenes-consistency": _scenes("consistency", "the same in one call: distilled from scenes with its guidance"),
    "scenes-generator": _scenes("generator", "single objects by a generator: one call from 26 numbers, no captions"),
    "scenes-gan": _scenes("gan", "single objects by a GAN: one call from 64 numbers, no captions and no encoder"),
    "scenes-weak": _scenes("weak", "a small and barely trained relative of scenes, for autoguidance"),
}
