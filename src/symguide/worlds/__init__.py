"""Embedded worlds: data, a denoiser, scorers to guide with and judges to measure with, in one folder each."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class World:
    """What the registry knows of a world: a line about it and the model folder of its denoiser."""

    description: str
    denoiser: Path


WORLDS: dict[str, World] = {
    "digits": World(
        "handwritten digits, 8x8 pixels, grey; condition: label 0-9, or 10 for none",
        Path(__file__).parent / "digits" / "weights" / "denoiser",
    ),
}
