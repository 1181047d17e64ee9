"""Finished samples as files: pictures with a sheet of the first ones, or one array file. All whole or not there."""

import json
import math
import re
import zipfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from symguide import files as disk
from symguide.errors import ConfigError
from symguide.files import replacing_folder

SHEET, TILE, GAP = 64, 64, 2  # samples on grid.png, least pixels of a sample's side there, and between samples
_PICTURE = re.compile(r"\d{6,}\.png")
_DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def drawable(shape: tuple[int, ...]) -> bool:
    """Whether samples are grey or RGB pictures."""
    return len(shape) == 3 and shape[0] in (1, 3)


def check(out: Path, form: str, shape: tuple[int, ...]) -> None:
    """ConfigError if the format cannot hold the samples, or would replace files that are not ours."""
    if form != "png":
        return
    if not drawable(shape):
        raise ConfigError(f"samples of shape {shape} are no pictures: use --format npz or --format safetensors")
    folder = out / "samples"
    if folder.exists() and not (folder.is_dir() and all(_PICTURE.fullmatch(p.name) for p in folder.iterdir())):
        raise ConfigError(f"{folder} has files that are not samples of a run: choose another --out")


def write(out: Path, form: str, num: int, shape: tuple[int, ...], chunks: Iterable[tuple[range, Tensor]]) -> Path:
    """Write the samples in chunks, in order of their index; the file or folder that holds them."""
    if form == "png":
        with replacing_folder(out / "samples") as folder:
            for indices, samples in chunks:
                for index, pixels in zip(indices, _pixels(samples), strict=True):
                    (folder / f"{index:06d}.png").write_bytes(_png(pixels))
        return out / "samples"
    path = out / f"samples.{form}"
    _write_npz(path, num, shape, chunks) if form == "npz" else _write_safetensors(path, num, shape, chunks)
    return path


def sheet(samples: Tensor) -> bytes:
    """A PNG of the samples side by side, enlarged where they are small."""
    pixels = np.stack(list(_pixels(samples)))
    factor = max(1, math.ceil(TILE / max(pixels.shape[1:3])))
    pixels = pixels.repeat(factor, axis=1).repeat(factor, axis=2)
    count, height, width = pixels.shape[:3]
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    page = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, *pixels.shape[3:]), 127, np.uint8)
    for i, tile in enumerate(pixels):
        top, left = GAP + i // columns * (height + GAP), GAP + i % columns * (width + GAP)
        page[top : top + height, left : left + width] = tile
    return _png(page)


def write_sheet(out: Path, samples: Tensor) -> Path:
    """grid.png of the first samples."""
    return disk.write(out / "grid.png", sheet(samples[:SHEET]))


def _pixels(samples: Tensor) -> Iterable[np.ndarray]:
    """(H, W) or (H, W, 3) of 0 to 255 for every sample."""
    levels = ((samples.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return levels[..., 0] if levels.shape[-1] == 1 else levels


def _png(pixels: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG")
    return buffer.getvalue()


def _array(samples: Tensor) -> np.ndarray:
    """As numpy has it, which knows no bfloat16."""
    return (samples.float() if samples.dtype == torch.bfloat16 else samples).contiguous().numpy()


def _write_npz(path: Path, num: int, shape: tuple[int, ...], chunks: Iterable[tuple[range, Tensor]]) -> None:
    with (
        disk.replacing(path) as file,
        zipfile.ZipFile(file, "w") as archive,
        archive.open(zipfile.ZipInfo("samples.npy"), "w", force_zip64=True) as member,
    ):
        for indices, samples in chunks:
            array = _array(samples)
            if indices.start == 0:
                descr = np.lib.format.dtype_to_descr(array.dtype)
                header = {"descr": descr, "fortran_order": False, "shape": (num, *shape)}
                np.lib.format.write_array_header_1_0(member, header)
            member.write(array.tobytes())


def _write_safetensors(path: Path, num: int, shape: tuple[int, ...], chunks: Iterable[tuple[range, Tensor]]) -> None:
    with disk.replacing(path) as file:
        for indices, samples in chunks:
            data = samples.contiguous()
            if indices.start == 0:
                size = num * math.prod(shape) * data.element_size()
                entry = {"dtype": _DTYPES[data.dtype], "shape": [num, *shape], "data_offsets": [0, size]}
                head = json.dumps({"samples": entry}).encode()
                head += b" " * (-len(head) % 8)
                file.write(len(head).to_bytes(8, "little") + head)
            file.write(data.view(torch.uint8).numpy().tobytes())
