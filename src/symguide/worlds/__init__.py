"""Embedded worlds: data, denoisers, scorers to guide with and judges to measure with, in one folder each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

from symguide.denoiser import Denoiser
from symguide.errors import WeightsError
from symguide.registry import Registry, registry_of


@dataclass(frozen=True)
class World:
    """What the registry knows of a model: a line about it, its folder, and the scorers and judges of its world."""

    description: str
    denoiser: Path
    """A model folder; where others made the model, the file of its weights."""
    scorers: Mapping[str, Path] = field(default_factory=dict)
    """Networks of clean samples to guide with, by kind."""
    judges: Mapping[str, Path] = field(default_factory=dict)
    """For each kind a network of another build and training, which guidance never sees, to measure with."""
    shapes: tuple[tuple[int, ...], ...] = ()
    """Of the samples that these know: first those of their training, then larger ones, which they see averaged."""
    weight: float = 5.0
    """Of classifier-free guidance, where a prompt is given and no weight: prompts are hardly followed without."""
    scale: float | None = None
    """Of SAG on the command line, where none is given; None: that of Python."""
    reads: Callable[[Sequence[str], Callable[[str], None]], Tensor] | None = None
    """Sentences, and what hears how they were taken, to what its scorers compare pictures with; None: tokens."""
    make: Callable[..., Denoiser] | None = None
    """(device, dtype) -> the denoiser, where it is of no model folder; its docstring is the model's card."""


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
        WeightsError: if it belongs to an embedded world and is not installed, or not that of this version.
    """
    if path.is_relative_to(WEIGHTS):
        if not WEIGHTS.is_dir():
            raise WeightsError('the weights of the embedded models are not installed: pip install "symguide[worlds]"')
        if not path.exists():
            raise WeightsError(
                f"{path} is not there, the package of weights is an older one: pip install --upgrade symguide-worlds"
            )
    return path


WORLDS: Registry[World] = registry_of("world")
