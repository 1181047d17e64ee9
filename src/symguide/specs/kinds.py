"""The kinds of objectives on the command line: how each is written, and how its arguments become an objective."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from symguide.encoders import CLIP, AestheticPredictor, DepthEstimator, Segmenter
from symguide.errors import ConfigError, unknown
from symguide.objectives import (
    Aesthetic,
    Classifier,
    Depth,
    Downsample,
    Edges,
    Ellipticity,
    Flux,
    GaussianBlur,
    Identity,
    ImageSimilarity,
    Measurement,
    MotionField,
    NoisyClassifier,
    Palette,
    Region,
    Segmentation,
    Size,
    Style,
    TextSimilarity,
)
from symguide.specs import references
from symguide.specs.pictures import Say
from symguide.worlds.scenes import scene, tokens

Loss = Callable[[Tensor], Tensor]
"""Clean samples (B, ...) -> (B,)."""
Maker = Callable[[Any, Sequence[int]], Loss]
"""From a network, of a kind that has one, and the indices of samples to their objective."""

PALETTE = 5  # colours taken from a picture
FILES = ("PICTURE", "MASK", "SKETCH", "FLOW", "HEAD")
_COLOURS = re.compile(r"\s*#[0-9a-fA-F]{6}\s*(,\s*#[0-9a-fA-F]{6}\s*)*")

LABELS: dict[str, Sequence[str]] = {
    "shape": scene.SHAPES,
    "colour": scene.COLOURS,
    "texture": scene.TEXTURES,
    "size": scene.SIZES,
    "position": scene.POSITIONS,
    "count": ("1", "2"),
    "background": scene.BACKGROUNDS,
}
"""Attributes of the scenes classifier whose labels exclude each other, and the labels' names in order."""


@dataclass(frozen=True)
class Context:
    """What objectives are read for: the shape of a sample, where remarks go, and what its world makes of sentences."""

    shape: tuple[int, ...]
    say: Say
    read: Callable[[Sequence[str]], Tensor] = tokens


@dataclass(frozen=True)
class Kind:
    """A kind of objective."""

    forms: tuple[str, ...]
    """How it is written, arguments in capitals: those of FILES are files."""
    read: Callable[[tuple[str, ...], Context], Maker]
    encoder: type[nn.Module] | None = None
    """The kind of encoder that it asks, in place of the scorer of the model's world where there is one."""
    more: str = ""
    """What its forms do not say by themselves."""

    @property
    def counts(self) -> set[int]:
        """How many arguments it takes."""
        return {len(_arguments(form)) for form in self.forms}

    def files(self, parts: Sequence[str]) -> list[int]:
        """Which of its arguments are files, and no colours or names of parts."""
        forms = [words for form in self.forms if len(words := _arguments(form)) == len(parts)]
        named = [at for at in range(len(parts)) if any(words[at] in FILES for words in forms)]
        return [at for at in named if not _COLOURS.fullmatch(parts[at]) and not (at and parts[at] in references.PARTS)]


def _arguments(form: str) -> list[str]:
    """The words of a form after its name."""
    return form.partition(":")[2].split("@") if ":" in form else []


def cycle(values: Sequence[Any], indices: Iterable[int]) -> list[Any]:
    """The value of every index, over and over: sample i has values[i % len(values)] in any batch.

    >>> cycle([3, 5, 7], range(2, 6))
    [7, 3, 5, 7]
    """
    return [values[i % len(values)] for i in indices]


def _same(objective: Loss) -> Maker:
    """One objective for all samples."""
    return lambda network, indices: objective


def _classifier(parts: tuple[str, ...], context: Context) -> Maker:
    head, equals, values = (part.strip() for part in parts[0].rpartition("="))
    labels = [_label(head if equals else None, value.strip(), parts[0]) for value in values.split(",")]

    def make(network: nn.Module, indices: Sequence[int]) -> Loss:
        if not equals and getattr(network, "heads", None):
            raise ConfigError(
                f"classifier:{parts[0]} must say what it labels, such as classifier:shape=star: {', '.join(LABELS)}"
            )
        return Classifier(network, cycle(labels, indices), head if equals else None)

    return make


def _noisy(parts: tuple[str, ...], context: Context) -> Maker:
    labels = [_label(None, value.strip(), parts[0]) for value in parts[0].split(",")]
    return lambda network, indices: NoisyClassifier(network, cycle(labels, indices))


def _label(head: str | None, text: str, whole: str) -> int:
    """The number of a label, given as its name or the number itself."""
    if head is not None:
        if head not in LABELS:
            raise unknown("attribute in classifier:", head, LABELS)
        if text in LABELS[head]:
            return LABELS[head].index(text)
        if not text.lstrip("-").isdecimal():
            raise unknown(head, text, LABELS[head])
    try:
        label = int(text)
    except ValueError:
        raise ConfigError(
            f"classifier:{whole} must have a label or a comma list of labels, such as 3 or 0,1,2"
        ) from None
    if not 0 <= label < 2**31:
        raise ConfigError(f"classifier:{whole} has a label that is negative or huge: labels count from 0")
    return label


def _text(parts: tuple[str, ...], context: Context) -> Maker:
    texts = [text.strip() for text in parts[0].split(",")]
    read = cache(lambda: context.read(texts))  # not before it is known who is asked, and once

    def make(network: Any, indices: Sequence[int]) -> Loss:
        numbers = network.tokenize(texts) if isinstance(network, CLIP) else read()
        return TextSimilarity(numbers[cycle(range(len(texts)), indices)], network)

    return make


def _like(make: Callable[..., Loss]) -> Callable[[tuple[str, ...], Context], Maker]:
    """Of an objective that takes a picture of any size and a network."""

    def read(parts: tuple[str, ...], context: Context) -> Maker:
        picture = references.resized(parts[0], context.shape, context.say)
        return lambda network, indices: make(picture, network)

    return read


def _aesthetic(parts: tuple[str, ...], context: Context) -> Maker:
    def make(network: nn.Module, indices: Sequence[int]) -> Loss:
        if isinstance(network, CLIP) != bool(parts):
            raise ConfigError(
                "the objective must be aesthetic, by the embedded predictor, or aesthetic:HEAD.safetensors with a CLIP "
                "given by --encoder"
            )
        return Aesthetic(AestheticPredictor.from_safetensors(network, parts[0]) if parts else network)

    return make


def _depth(parts: tuple[str, ...], context: Context) -> Maker:
    picture = references.resized(parts[0], context.shape, context.say)
    return lambda network, indices: Depth.of(picture, network)


def _segmentation(parts: tuple[str, ...], context: Context) -> Maker:
    mask = references.classes(parts[0], context.shape, context.say)
    return lambda network, indices: Segmentation(mask, network)


def _palette(parts: tuple[str, ...], context: Context) -> Maker:
    if not _COLOURS.fullmatch(parts[0]):
        count = _whole(parts[1], "colours of a palette") if len(parts) > 1 else PALETTE
        return _same(Palette.of(references.resized(parts[0], context.shape, context.say), count))
    if len(parts) > 1:
        raise ConfigError(f"palette:{parts[0]} has its colours already: leave out @{parts[1]}")
    if len(context.shape) != 3 or context.shape[0] != 3:
        raise ConfigError(f"a palette needs RGB samples, (3, H, W), and these have shape {context.shape}")
    numbers = [list(bytes.fromhex(colour.strip().lstrip("#"))) for colour in parts[0].split(",")]
    return _same(Palette(torch.tensor(numbers) / 127.5 - 1))


def _edges(parts: tuple[str, ...], context: Context) -> Maker:
    return _same(Edges(references.sketch(parts[0], context.shape, context.say)))


def _photometry(make: Callable[[Tensor], Loss]) -> Callable[[tuple[str, ...], Context], Maker]:
    """Of an objective that takes a number for each sample."""

    def read(parts: tuple[str, ...], context: Context) -> Maker:
        try:
            targets = [float(part) for part in parts[0].split(",")]
        except ValueError:
            raise ConfigError(f"a target is a number, or a comma list of numbers, not {parts[0]!r}") from None
        return lambda network, indices: make(torch.tensor(cycle(targets, indices), dtype=torch.float64))

    return read


def _motion(parts: tuple[str, ...], context: Context) -> Maker:
    picture = references.reference(parts[0], context.shape, context.say)
    return _same(MotionField(picture, references.flow(parts[1], context.shape)))


def _region(parts: tuple[str, ...], context: Context) -> Maker:
    reference = references.reference(parts[0], context.shape, context.say)
    return _same(Region(reference, references.mask(parts[1], context.shape, context.say)))


def _superres(parts: tuple[str, ...], context: Context) -> Maker:
    factor = _whole(parts[1], "factor of super-resolution")
    channels, *sides = _sides(context)
    if any(side % factor for side in sides):
        raise ConfigError(f"samples of {sides[1]}x{sides[0]} pixels have no whole blocks of {factor}")
    low = (channels, *(side // factor for side in sides))
    return _same(Measurement(Downsample(factor), references.reference(parts[0], low, context.say)))


def _deblur(parts: tuple[str, ...], context: Context) -> Maker:
    try:
        sigma = float(parts[1])
    except ValueError:
        sigma = 0.0
    if not sigma > 0 or not isfinite(sigma):
        raise ConfigError(f"the sigma of a blur is a positive number of pixels, not {parts[1]!r}")
    return _same(Measurement(GaussianBlur(sigma), references.reference(parts[0], _sides(context), context.say)))


def _sides(context: Context) -> tuple[int, int, int]:
    if len(context.shape) != 3:
        raise ConfigError(f"a picture's measurement needs samples (C, H, W), and these have shape {context.shape}")
    channels, height, width = context.shape
    return channels, height, width


def _whole(text: str, what: str) -> int:
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise ConfigError(f"the {what} is a positive whole number, not {text!r}")
    return int(text)


KINDS: Mapping[str, Kind] = {
    "classifier": Kind(
        ("classifier:LABELS", "classifier:ATTRIBUTE=LABELS"),
        _classifier,
        more="sample i goes toward the label whose turn it is in a comma list, 0,1,2 or shape=star,disk",
    ),
    "noisy": Kind(
        ("noisy:LABELS",),
        _noisy,
        more="labels as in classifier, for --method classifier, which asks it about noisy samples",
    ),
    "text": Kind(('text:"WORDS"',), _text, encoder=CLIP, more="a comma list of texts goes to the samples in turn"),
    "image": Kind(("image:PICTURE",), _like(ImageSimilarity), encoder=CLIP),
    "identity": Kind(("identity:PICTURE",), _like(Identity)),
    "style": Kind(("style:PICTURE",), _like(Style), encoder=CLIP),
    "aesthetic": Kind(
        ("aesthetic", "aesthetic:HEAD"),
        _aesthetic,
        encoder=CLIP,
        more="HEAD is a safetensors file, on a CLIP given by --encoder",
    ),
    "segmentation": Kind(
        ("segmentation:MASK",),
        _segmentation,
        encoder=Segmenter,
        more="a grey or indexed picture of classes, 255 being any, or an array, -1 being any",
    ),
    "depth": Kind(
        ("depth:PICTURE",),
        _depth,
        encoder=DepthEstimator,
        more="the depth that a model given by --encoder sees in the picture",
    ),
    "palette": Kind(
        ("palette:#RRGGBB,#RRGGBB", "palette:PICTURE", "palette:PICTURE@NUMBER"),
        _palette,
        more="NUMBER colours of the picture, 5 by default",
    ),
    "edges": Kind(("edges:SKETCH",), _edges, more="lines that are bright on dark, or dark on bright"),
    "flux": Kind(("flux:NUMBERS",), _photometry(Flux), more="light, in pixels of full brightness"),
    "size": Kind(("size:NUMBERS",), _photometry(Size), more="the r.m.s. radius of the light, in pixels"),
    "ellipticity": Kind(
        ("ellipticity:NUMBERS",), _photometry(Ellipticity), more="of the light's second moments, 0 is round"
    ),
    "motion": Kind(("motion:PICTURE@FLOW",), _motion, more="an array (2, H, W) of pixels to the right and down"),
    "region": Kind(
        ("region:PICTURE@MASK",), _region, more="MASK is left, right, top, bottom, center (the part kept) or a file"
    ),
    "superres": Kind(("superres:PICTURE@FACTOR",), _superres),
    "deblur": Kind(("deblur:PICTURE@SIGMA",), _deblur),
}
"""By the name that a spec gives; blackbox:module:Name and module:Name are those of your own."""


def written(name: str) -> str:
    """How an objective of that name is written, with what the form does not say."""
    own = "blackbox:module:Name" if name == "blackbox" else "from Python: module:Name"
    if name == "measurement":
        return f"{' or '.join(form for each in ('superres', 'deblur') for form in KINDS[each].forms)}; others {own}"
    if name not in KINDS:
        return own
    return " or ".join(KINDS[name].forms) + (f" ({KINDS[name].more})" if KINDS[name].more else "")
