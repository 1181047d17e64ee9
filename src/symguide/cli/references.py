"""Reading what an objective refers to: pictures and arrays as samples, masks, classes of pixels, sketches, flows."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import safetensors
import safetensors.numpy
import torch
from torch import Tensor

from symguide.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image

Say = Callable[[str], None]

ARRAYS = (".npy", ".npz", ".safetensors")
PARTS = ("left", "right", "top", "bottom", "center")
VOID = 255
"""In classes of 8 bits: any class, as in the PASCAL VOC data."""


def reference(path: str, shape: tuple[int, ...]) -> Tensor:
    """A sample from a picture or array file, with values in [-1, 1] and the shape of the model's samples.

    Pictures and whole numbers are 0 to 255; other arrays are taken as they are.

    Raises:
        ConfigError: for a file that cannot be read, another shape, or values outside of [-1, 1].
    """
    if Path(path).suffix.lower() in ARRAYS:
        array = _fit(_array(path), shape, path)
        if array.dtype.kind in "ui":
            array = array / 127.5 - 1
        elif len(shape) == 3 and not np.abs(array).max(initial=0) <= 1 + 1e-6:
            raise ConfigError(f"{path} has values up to {np.abs(array).max():.4g}: samples lie between -1 and 1")
    else:
        array = _fit(_picture(path, shape), shape, path) / 127.5 - 1
    return _tensor(array)


def resized(path: str, shape: tuple[int, ...], say: Say) -> Tensor:
    """`reference`, where a picture may have any size: it is cut to the samples' proportions and resized to theirs.

    Raises:
        ConfigError: as `reference`.
    """
    if Path(path).suffix.lower() in ARRAYS:
        return reference(path, shape)
    from PIL import Image, ImageOps

    picture = _open(path, shape)
    height, width = shape[1:]
    if picture.size != (width, height):
        say(f"{path} has {picture.width}x{picture.height} pixels: its middle is resized to {width}x{height}")
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    return _tensor(_fit(_pixels(picture), shape, path) / 127.5 - 1)


def classes(path: str, shape: tuple[int, ...]) -> Tensor:
    """The class of every pixel, (H, W) integers, -1 for any (255 in 8 bits), of a grey or indexed picture or an array.

    Raises:
        ConfigError: for a file that cannot be read, another size, or values that are no classes.
    """
    if Path(path).suffix.lower() in ARRAYS:
        array = _array(path)
    else:
        with _opened(path) as picture:
            if picture.mode not in ("L", "P", "1"):
                raise ConfigError(f"{path} is {picture.mode}: a mask of classes is 8-bit grey or indexed, or an array")
            array = np.asarray(picture)
    if array.dtype.kind not in "uib":
        raise ConfigError(f"{path} has values of type {array.dtype}: classes are whole numbers, -1 for any")
    array = np.where(array == VOID, -1, array.astype(np.int64)) if array.dtype == np.uint8 else array
    array = array[None] if array.ndim == 2 else array
    return torch.from_numpy(_fit(array.astype(np.int64), (1, *shape[-2:]), path)[0].copy())


def sketch(path: str, shape: tuple[int, ...], say: Say) -> Tensor:
    """Lines as (H, W) from 0 to 1; of a picture that is mostly bright, as ink on paper is, the dark parts.

    Raises:
        ConfigError: for a file that cannot be read or does not fit.
    """
    if Path(path).suffix.lower() in ARRAYS:
        array = _fit(_array(path), (1, *shape[-2:]), path)
        return _tensor(array[0] / 255 if array.dtype.kind == "u" else array[0])
    lines = _fit(_picture(path, (1, *shape[-2:])), (1, *shape[-2:]), path)[0] / 255
    if lines.mean() > 0.5:
        say(f"{path} is mostly bright: its dark parts are taken as the lines")
        lines = 1 - lines
    return _tensor(lines)


def flow(path: str, shape: tuple[int, ...]) -> Tensor:
    """Displacements (2, H, W) in pixels, to the right and down, from an array file.

    Raises:
        ConfigError: for a file that cannot be read or does not fit.
    """
    if Path(path).suffix.lower() not in ARRAYS:
        raise ConfigError(f"{path}: a flow is an array (2, H, W) of pixels to the right and down: {', '.join(ARRAYS)}")
    return _tensor(_fit(_array(path), (2, *shape[-2:]), path))


def mask(name: str, shape: tuple[int, ...]) -> Tensor:
    """A mask, 1 where the reference counts: left, right, top, bottom or center, or a file that is bright there.

    Raises:
        ConfigError: for a file that cannot be read or does not fit, or a mask that selects nothing.

    >>> mask("left", (1, 2, 4))[0]
    tensor([[1., 1., 0., 0.],
            [1., 1., 0., 0.]])
    """
    if len(shape) < 2:
        raise ConfigError(f"a region needs samples with rows and columns, and these have shape {shape}")
    if name in PARTS:
        return _part(name, shape)
    if Path(name).suffix.lower() in ARRAYS:
        array = _array(name)
        array = array if array.shape == shape else _fit(array, (1, *shape[-2:]), name)
        kept = array > array.max() / 2 if array.dtype.kind == "u" else array != 0
    else:
        kept = _fit(_picture(name, (1, *shape[-2:])), (1, *shape[-2:]), name) > 127
    if not kept.any():
        raise ConfigError(f"the mask {name} selects nothing: it must be bright (or 1) where the reference counts")
    return _tensor(kept)


def _part(name: str, shape: tuple[int, ...]) -> Tensor:
    height, width = shape[-2:]
    rows = {"top": (0, height // 2), "bottom": (height // 2, height), "center": (height // 4, height - height // 4)}
    columns = {"left": (0, width // 2), "right": (width // 2, width), "center": (width // 4, width - width // 4)}
    out = torch.zeros(shape)
    out[..., slice(*rows.get(name, (0, height))), slice(*columns.get(name, (0, width)))] = 1
    return out


def _picture(path: str, shape: tuple[int, ...]) -> np.ndarray:
    """A picture as (C, H, W) of 0 to 255, grey or RGB as the shape's channels say."""
    return _pixels(_open(path, shape))


def _open(path: str, shape: tuple[int, ...]) -> "Image":
    """A picture the way up that it was taken, grey or RGB as the shape's channels say."""
    from PIL import ImageOps

    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ConfigError(
            f"{path}: a picture cannot stand for samples of shape {shape}: give an array, {', '.join(ARRAYS)}"
        )
    with _opened(path) as picture:
        return ImageOps.exif_transpose(picture).convert("L" if shape[0] == 1 else "RGB")


@contextmanager
def _opened(path: str) -> Iterator["Image"]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            yield picture
    except UnidentifiedImageError:
        raise ConfigError(f"{path} is not a picture that can be read: use png or jpg, or {', '.join(ARRAYS)}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error


def _pixels(picture: "Image") -> np.ndarray:
    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float64)).to(torch.get_default_dtype())


def _array(path: str) -> np.ndarray:
    try:
        if path.lower().endswith(".npy"):
            return np.asarray(np.load(path, allow_pickle=False))
        if path.lower().endswith(".npz"):
            with np.load(path, allow_pickle=False) as archive:
                return np.asarray(_only(path, dict(archive)))
        return np.asarray(_only(path, safetensors.numpy.load_file(path)))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except ConfigError:
        raise
    except (ValueError, EOFError, KeyError, BadZipFile, safetensors.SafetensorError) as error:
        raise ConfigError(f"{path} is no array file that can be read: {error}") from error


def _only(path: str, arrays: dict[str, Any]) -> Any:
    if len(arrays) != 1:
        raise ConfigError(f"{path} must hold one array, and holds {len(arrays)}: {', '.join(sorted(arrays)) or 'none'}")
    return next(iter(arrays.values()))


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
