"""Picture files of all kinds, as viewers show them: the way up that they were taken, in 8 bits, grey or RGB."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from symguide.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image

Say = Callable[[str], None]

SIXTEEN = ("PNG", "PPM", "JPEG2000")
"""Formats whose deep grey pictures come from Pillow with values up to 65535, whatever their own depth."""

ANIMATED = ("GIF", "PNG", "WEBP", "TIFF")
"""Formats whose further pictures are no thumbnails or layers of the first."""

_BITS, _WHITE_IS_ZERO = 258, 262  # tags of TIFF: bits of each sample, and photometric interpretation, 0 there


@dataclass(frozen=True)
class Picture:
    """A picture file, the way up that it was taken.

    Attributes:
        path: where it is.
        mode: of the file in Pillow's words, such as "P", "I;16", or "L;4" for grey of 4 bits.
        image: as Pillow has it, of 8 bits a channel or fewer.
        alpha: (H, W) of 0 to 255; None where every pixel is opaque.
    """

    path: str
    mode: str
    image: "Image"
    alpha: np.ndarray | None

    def shown(self, channels: int, say: Say) -> "Image":
        """Grey (channels = 1) or RGB; what is transparent is white, as on a page, and that is said."""
        return _reading(self.path, lambda: self._shown("L" if channels == 1 else "RGB", say))

    def _shown(self, mode: str, say: Say) -> "Image":
        from PIL import Image

        if self.alpha is None:
            return self.image.convert(mode)
        say(f"{self.path} is partly transparent: it is taken as on white")
        white = Image.new("RGBA", self.image.size, "white")
        return Image.alpha_composite(white, self.image.convert("RGBA")).convert(mode)


def read(path: str, say: Say) -> Picture:
    """A picture file that Pillow knows, of any mode.

    Grey of 16 bits keeps its upper 8, and floats are 0 to 1. Of several pictures in a file the first is taken, and that
    is said. Colour profiles are not applied.

    Raises:
        ConfigError: for what cannot be read, is broken or too large, or does not say what is white.
    """
    return _reading(path, lambda: _read(path, say))


def _reading(path: str, work: Callable[[], Any]) -> Any:
    """What Pillow makes, with its errors in one sentence."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large, but not too large
            return work()
    except (ConfigError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise ConfigError(f"{path} is not a picture that can be read: use png or jpg, or an array file") from None
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ConfigError(f"{path} has more than {most:,} pixels: make it smaller first") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # Pillow's decoders have errors of many kinds for files that are broken
        why = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{path} cannot be read as a picture ({why}): save it again, as an 8-bit png") from error


def _read(path: str, say: Say) -> Picture:
    from PIL import Image, ImageOps

    with Image.open(path) as file:
        if file.format in ANIMATED and (count := getattr(file, "n_frames", 1)) > 1:
            say(f"{path} holds {count} pictures: the first is taken")
        mode, tags = _mode(file), getattr(file, "tag_v2", {})
        image = ImageOps.exif_transpose(file)
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            image = _eight_bits(image, str(file.format), tags, path)
    clear = image.info.get("transparency")
    if isinstance(clear, tuple) and max(clear) > 255:  # of a picture of 16 bits, of which Pillow keeps the upper 8
        image.info["transparency"] = tuple(level >> 8 for level in clear)
    alpha = np.asarray(image.convert("RGBA"))[..., 3] if image.has_transparency_data else None
    return Picture(path, mode, image, None if alpha is None or alpha.min() == 255 else alpha)


def _mode(file: Any) -> str:
    """Of a file; grey of fewer than 8 bits, which Pillow scales to 8, is not "L"."""
    raw = file.tile[0][3] if file.tile else ""
    raw = raw[0] if isinstance(raw, tuple) and raw else raw
    return raw if raw in ("L;2", "L;4") else str(file.mode)


def _eight_bits(image: "Image", form: str, tags: Any, path: str) -> "Image":
    """Grey of 8 bits from grey of 12 or 16 bits, or of floats from 0 to 1."""
    from PIL import Image

    values = np.asarray(image)
    if image.mode == "F":
        if not (values.min() >= -1e-6 and values.max() <= 1 + 1e-6):  # nor NaN
            raise ConfigError(
                f"{path} has floats from {values.min():.4g} to {values.max():.4g}: those of pictures lie between 0 and "
                "1, so scale them, or save it with 8 bits"
            )
        levels = np.rint(255 * values.clip(0, 1))
    else:
        bits = 16 if form in SIXTEEN else tags.get(_BITS, (0,))[0] if image.mode != "I" else 0
        if not 8 <= bits <= 16:
            raise ConfigError(
                f"{path} has whole numbers of more than 8 bits ({image.mode}), and does not say which of them is "
                "white: save it with 8 or 16 bits, unsigned, or as an array of floats from -1 to 1"
            )
        levels = values.astype(np.int64) >> (bits - 8)
    if tags.get(_WHITE_IS_ZERO) == 0:
        levels = 255 - levels
    grey = Image.fromarray(levels.astype(np.uint8))
    if isinstance(clear := image.info.get("transparency"), int):
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey
