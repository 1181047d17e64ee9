"""Reading what an objective refers to: pictures and arrays as samples, masks, classes of pixels, sketches, flows."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from symguide.errors import ConfigError
from symguide.specs import pictures
from symguide.specs.pictures import Picture, Say

if TYPE_CHECKING:
    from PIL.Image import Image

ARRAYS = (".npy", ".npz", ".safetensors")
PARTS = ("left", "right", "top", "bottom", "center")
VOID = 255
"""In classes of 8 bits: any class, as in the PASCAL VOC data."""


def reference(path: str, shape: tuple[int, ...], say: Say) -> Tensor:
    """A sample from a picture or array file, with values in [-1, 1] and the shape of the model's samples.

    Pictures and whole numbers are 0 to 255; other arrays are taken as they are.

    Raises:
        ConfigError: for a file that cannot be read, another shape, or values outside of [-1, 1].
    """
    if not _is_array(path):
        return _sample(_picture(path, shape, say).shown(shape[0], say), shape, path)
    array = _fit(_array(path), shape, path)
    if array.dtype.kind in "uib":
        return _tensor(_levels(array, path) / 127.5 - 1)
    if len(shape) == 3 and not np.abs(array).max(initial=0) <= 1 + 1e-6:
        raise ConfigError(f"{path} has values up to {np.abs(array).max():.4g}: samples lie between -1 and 1")
    return _tensor(array)


def resized(path: str, shape: tuple[int, ...], say: Say) -> Tensor:
    """`reference`, where a picture may have any size: it is cut to the samples' proportions and resized to theirs.

    Raises:
        ConfigError: as `reference`.
    """
    if _is_array(path):
        return reference(path, shape, say)
    from PIL import Image, ImageOps

    picture = _picture(path, shape, say).shown(shape[0], say)
    height, width = shape[1:]
    if picture.size != (width, height):
        say(f"{path} has {picture.width}x{picture.height} pixels: its middle is resized to {width}x{height}")
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    return _sample(picture, shape, path)


def classes(path: str, shape: tuple[int, ...], say: Say) -> Tensor:
    """The class of every pixel, (H, W) integers, -1 for any (255 in 8 bits), of a grey or indexed picture or an array.

    Raises:
        ConfigError: for a file that cannot be read, another size, or values that are no classes.
    """
    if _is_array(path):
        array = _array(path)
    else:
        picture = pictures.read(path, say)
        if picture.mode not in ("L", "P", "1"):
            raise ConfigError(f"{path} is {picture.mode}: a mask of classes is 8-bit grey or indexed, or an array")
        array = np.asarray(picture.image)
    if array.dtype.kind not in "uib":
        raise ConfigError(f"{path} has values of type {array.dtype}: classes are whole numbers, -1 for any")
    array = np.where(array == VOID, -1, array.astype(np.int64)) if array.dtype == np.uint8 else array
    array = array[None] if array.ndim == 2 else array
    return torch.from_numpy(_fit(array.astype(np.int64), (1, *shape[-2:]), path)[0].copy())


def sketch(path: str, shape: tuple[int, ...], say: Say) -> Tensor:
    """Lines as (H, W) from 0 to 1; of a picture that is mostly bright, as ink on paper is, the dark parts.

    Raises:
        ConfigError: for a file that cannot be read or does not fit, or values that are none of lines.
    """
    grey = (1, *shape[-2:])
    if _is_array(path):
        array = _fit(_array(path), grey, path)[0]
        return _tensor(_levels(array, path) / 255 if array.dtype.kind in "ui" else _shares(array, path))
    lines = (_sample(_picture(path, grey, say).shown(1, say), grey, path)[0] + 1) / 2
    if lines.mean() > 0.5:
        say(f"{path} is mostly bright: its dark parts are taken as the lines")
        lines = 1 - lines
    return lines


def flow(path: str, shape: tuple[int, ...]) -> Tensor:
    """Displacements (2, H, W) in pixels, to the right and down, from an array file.

    Raises:
        ConfigError: for a file that cannot be read or does not fit.
    """
    if not _is_array(path):
        raise ConfigError(f"{path}: a flow is an array (2, H, W) of pixels to the right and down: {', '.join(ARRAYS)}")
    return _tensor(_fit(_array(path), (2, *shape[-2:]), path))


def mask(name: str, shape: tuple[int, ...], say: Say) -> Tensor:
    """A mask, 1 where the reference counts: left, right, top, bottom or center, or a file that is bright there.

    A picture that is partly transparent is a mask by its alpha channel: what is opaque counts.

    Raises:
        ConfigError: for a file that cannot be read or does not fit, or a mask that selects nothing, or two things.

    >>> mask("left", (1, 2, 4), print)[0]
    tensor([[1., 1., 0., 0.],
            [1., 1., 0., 0.]])
    """
    if len(shape) < 2:
        raise ConfigError(f"a region needs samples with rows and columns, and these have shape {shape}")
    if name in PARTS:
        return _part(name, shape)
    grey = (1, *shape[-2:])
    if _is_array(name):
        array = _array(name)
        array = array if array.shape == shape else _fit(array, grey, name)
        kept = array > array.max() / 2 if array.dtype.kind in "ui" else _shares(array, name) > 0.5
    else:
        kept = _fit(_bright(_picture(name, grey, say), say), grey, name)
    if not kept.any():
        raise ConfigError(f"the mask {name} selects nothing: it must be bright (or 1) where the reference counts")
    return _tensor(kept)


def _bright(picture: Picture, say: Say) -> np.ndarray:
    """Where a picture is bright, or opaque where it is partly transparent."""
    bright = np.asarray(picture.image.convert("L")) > 127
    if picture.alpha is None:
        return bright
    opaque = picture.alpha > 127
    if bright[opaque].any() and not bright[opaque].all():
        raise ConfigError(
            f"the mask {picture.path} is bright and dark in its opaque parts, and transparent in others, so it says "
            "two things: leave out its alpha channel, or its colours"
        )
    say(f"{picture.path} is partly transparent: its opaque parts are the mask")
    return opaque


def _part(name: str, shape: tuple[int, ...]) -> Tensor:
    height, width = shape[-2:]
    rows = {"top": (0, height // 2), "bottom": (height // 2, height), "center": (height // 4, height - height // 4)}
    columns = {"left": (0, width // 2), "right": (width // 2, width), "center": (width // 4, width - width // 4)}
    out = torch.zeros(shape)
    out[..., slice(*rows.get(name, (0, height))), slice(*columns.get(name, (0, width)))] = 1
    return out


def _is_array(path: str) -> bool:
    return Path(path).suffix.lower() in ARRAYS


def _picture(path: str, shape: tuple[int, ...], say: Say) -> Picture:
    """A picture, where samples of the shape are pictures."""
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ConfigError(
            f"{path}: a picture cannot stand for samples of shape {shape}: give an array, {', '.join(ARRAYS)}"
        )
    return pictures.read(path, say)


def _sample(image: "Image", shape: tuple[int, ...], path: str) -> Tensor:
    """A grey or RGB picture of 8 bits as a sample."""
    pixels = np.asarray(image)
    return _tensor(_fit(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1), shape, path) / 127.5 - 1)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float64)).to(torch.get_default_dtype())


def _levels(array: np.ndarray, path: str) -> np.ndarray:
    """Whole numbers, where they are brightnesses of 8 bits."""
    if array.dtype.kind == "b" or array.min(initial=0) < 0 or array.max(initial=0) > 255:
        raise ConfigError(
            f"{path} has {array.dtype} from {int(array.min())} to {int(array.max())}: whole numbers are 0 to 255, so "
            "scale it to floats"
        )
    return array


def _shares(array: np.ndarray, path: str) -> np.ndarray:
    """Floats or booleans, where they lie between 0 and 1."""
    if array.min(initial=0) < 0 or array.max(initial=0) > 1 + 1e-6:
        raise ConfigError(f"{path} has values from {array.min():.4g} to {array.max():.4g}: they lie between 0 and 1")
    return array


def _array(path: str) -> np.ndarray:
    """The one array of a file: real, finite numbers.

    Raises:
        ConfigError: for a file that cannot be read or holds anything else.
    """
    try:
        if path.lower().endswith(".npy"):
            array = np.asarray(np.load(path, allow_pickle=False))
        elif path.lower().endswith(".npz"):
            with np.load(path, allow_pickle=False) as archive:
                array = np.asarray(archive[_only(path, archive.files)])
        else:
            with safetensors.safe_open(path, framework="pt") as file:
                tensor = file.get_tensor(_only(path, list(file.keys())))
            array = (tensor.double() if tensor.is_floating_point() else tensor).numpy()
    except ConfigError:
        raise
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except MemoryError as error:
        raise ConfigError(f"the array in {path} is larger than the memory: it is none of a sample") from error
    except Exception as error:  # broken headers, archives and compressed data have errors of many kinds
        why = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{path} is no array file that can be read: {why}") from error
    if array.dtype.kind not in "biuf":
        raise ConfigError(f"{path} has values of type {array.dtype}: it must hold real numbers")
    if not np.isfinite(array).all():
        raise ConfigError(f"{path} has values that are not finite")
    return array


def _only(path: str, names: Sequence[str]) -> str:
    if len(names) != 1:
        raise ConfigError(f"{path} must hold one array, and holds {len(names)}: {', '.join(sorted(names)) or 'none'}")
    return names[0]


def _fit(array: np.ndarray, shape: tuple[int, ...], path: str) -> np.ndarray:
    """The array in a sample's shape, where only dimensions of 1 differ."""
    squeezed = tuple(n for n in array.shape if n != 1)
    if squeezed != tuple(n for n in shape if n != 1) or array.size == 0:
        if array.ndim == 3 and len(shape) == 3:
            raise ConfigError(
                f"{path} has {array.shape[2]}x{array.shape[1]} pixels in {array.shape[0]} channels, and the model's "
                f"samples {shape[2]}x{shape[1]} in {shape[0]}: bring it to that size first"
            )
        raise ConfigError(f"{path} has shape {tuple(array.shape)}, and the model's samples {shape}: bring it to that")
    return array.reshape(shape)
