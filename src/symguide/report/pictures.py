"""Pictures: grids of samples with names for their rows and columns, drawn with Pillow alone."""

import io
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from symguide.errors import ConfigError

PAPER, TEXT, MARK, GAP = (255, 255, 255), (40, 40, 40), (0, 114, 178), 4


def grid(
    rows: Sequence[Tensor] | Tensor,
    labels: Sequence[str] = (),
    heads: Sequence[str] = (),
    *,
    marks: Sequence[Sequence[bool]] | None = None,
    columns: int | None = None,
    cell: int = 64,
    ink: bool = False,
    smooth: bool = True,
) -> Image.Image:
    """Samples in rows and columns, enlarged so that small ones can be read.

    Args:
        rows: one (B, C, H, W) tensor a row, C = 1 or 3, values in [-1, 1] (what lies outside is cut off);
            or a single tensor, whose samples fill rows of `columns`.
        labels: a name for every row, to its left.
        heads: a name for every column, above it. Names may have several lines; heads are written as small as they must
            be to fit.
        marks: per row, which samples get a blue bar below them.
        columns: with a single tensor, samples in a row; all in one where not given.
        cell: pixels of the longer side of a sample, at least; small samples are enlarged to it.
        ink: draw 1 black and -1 white, as ink on paper.
        smooth: enlarge with a smooth filter, which small digits need to be read; otherwise show every pixel.

    Raises:
        ConfigError: for shapes that cannot be drawn, or labels, heads or marks that do not fit.

    >>> grid(torch.zeros(6, 1, 8, 8), columns=3, cell=16).size
    (72, 52)
    """
    lines = _lines(rows, columns)
    wide = max(len(line) for line in lines)
    for what, names, count in (("labels", labels, len(lines)), ("heads", heads, wide), ("marks", marks, len(lines))):
        if names and len(names) != count:
            raise ConfigError(f"a grid of {len(lines)} rows and {wide} columns does not fit {len(names)} {what}")
    pictures = [[_picture(x, cell, ink, smooth) for x in line] for line in lines]
    width, height = pictures[0][0].size
    size = max(13, round(cell / 6))
    font = ImageFont.load_default(size)
    left = 2 * GAP + (2 * GAP + max(round(font.getlength(x)) for x in _split(labels)) if labels else 0)
    small = _fitting(heads, size, width)
    head_font = ImageFont.load_default(small)
    top = 2 * GAP + (round(1.3 * small) * max(head.count("\n") + 1 for head in heads) if heads else 0)
    pitch = (width + GAP, height + GAP + (2 * GAP if marks else 0))
    sheet = Image.new("RGB", (left + wide * pitch[0] + GAP, top + len(lines) * pitch[1] + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, head in enumerate(heads):
        middle = (left + column * pitch[0] + width / 2, top / 2)
        draw.multiline_text(middle, head, TEXT, head_font, anchor="mm", align="center", spacing=0.15 * small)
    for row, line_of in enumerate(pictures):
        y = top + row * pitch[1]
        if labels:
            middle = (left - 2 * GAP, y + height / 2)
            draw.multiline_text(middle, labels[row], TEXT, font, anchor="rm", align="right", spacing=0.15 * size)
        for column, picture in enumerate(line_of):
            x = left + column * pitch[0]
            sheet.paste(picture, (x, y))
            if marks and marks[row][column]:
                draw.rectangle((x, y + height + 2, x + width - 1, y + height + GAP + 1), MARK)
    return sheet


def _fitting(heads: Sequence[str], size: int, width: int) -> int:
    """The largest size of font up to `size` in which every line of the heads fits into the width, but at least 9."""
    while size > 9 and any(ImageFont.load_default(size).getlength(line) > width for line in _split(heads)):
        size -= 1
    return size


def _split(names: Sequence[str]) -> list[str]:
    """The lines of all names."""
    return [line for name in names for line in name.split("\n")]


def picture(x: Tensor) -> Image.Image:
    """A sample (1 or 3, H, W) in [-1, 1] as a picture of its own size."""
    return _picture(x, 1, ink=False, smooth=False)


def png(picture: Image.Image) -> bytes:
    """The picture as a PNG file's bytes."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _lines(rows: Sequence[Tensor] | Tensor, columns: int | None) -> list[Tensor]:
    lines = list(torch.split(rows, columns or max(len(rows), 1))) if isinstance(rows, Tensor) else list(rows)
    if not lines or any(line.ndim != 4 or not len(line) or line.shape[1] not in (1, 3) for line in lines):
        raise ConfigError(f"a grid shows (B, 1 or 3, H, W) samples, not {[tuple(line.shape) for line in lines]}")
    if len({line.shape[-2:] for line in lines}) > 1:
        raise ConfigError("a grid shows samples of one size")
    return lines


def _picture(x: Tensor, cell: int, ink: bool, smooth: bool) -> Image.Image:
    """One sample (C, H, W) as an RGB picture whose longer side is at least `cell`."""
    level = (x.detach().float().cpu().nan_to_num().clamp(-1, 1) * (-1 if ink else 1) + 1) / 2
    pixels = (level.expand(3, -1, -1).permute(1, 2, 0) * 255).round().to(torch.uint8).contiguous()
    picture = Image.fromarray(pixels.numpy())
    factor = -(-cell // max(picture.size))
    if factor <= 1:
        return picture
    size = (picture.width * factor, picture.height * factor)
    return picture.resize(size, Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST)
