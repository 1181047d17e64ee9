"""Picture and array files of all kinds become the samples, masks and classes that a viewer would see in them."""

import struct
import zlib
from pathlib import Path

import numpy as np
import PIL
import pytest
import safetensors.torch
import torch
from packaging.version import Version
from PIL import Image

from symguide.errors import ConfigError
from symguide.specs import pictures, references

RAMP = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
"""Grey of 16 bits, which no two rows or columns share."""
COLOURS = np.stack([RAMP, RAMP[::-1], RAMP.T], axis=-1)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def png(name, rows, bits, kind, clear=b""):
    """A PNG written by hand; `clear` is the transparent colour."""

    def chunk(tag, data):
        return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))

    width = len(rows[0]) * 8 // bits // {0: 1, 2: 3, 4: 2, 6: 4}[kind]
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), bits, kind, 0, 0, 0))]
    parts += [chunk(b"tRNS", clear)] if clear else []
    parts += [chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), chunk(b"IEND", b"")]
    with open(name, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def rows(array):
    return [row.astype(">u2").tobytes() for row in array]


def levels(name, channels=3, said=None):
    """What a reference of that name shows, (H, W, C) from 0 to 255."""
    x = references.reference(name, (channels, 8, 8), (said if said is not None else []).append)
    return ((x + 1) * 127.5).permute(1, 2, 0).round().int().numpy()


DEEP = {
    "png": lambda: Image.fromarray(RAMP).save("a.png"),
    "tif": lambda: Image.fromarray(RAMP).save("a.tif"),
    "big.tif": lambda: Image.fromarray(RAMP.astype(">u2")).save("a.big.tif"),
    "pgm": lambda: Path("a.pgm").write_bytes(b"P5 8 8 65535\n" + RAMP.astype(">u2").tobytes()),
    "white.tif": lambda: Image.fromarray(65535 - RAMP).save("a.white.tif", tiffinfo={262: 0}),
}


@pytest.mark.parametrize("kind", DEEP)
def test_grey_of_16_bits_keeps_its_upper_eight(kind):
    DEEP[kind]()
    expected = np.array([[v >> 8 for v in row] for row in RAMP.tolist()])
    assert (levels(f"a.{kind}", 1)[..., 0] == expected).all()
    assert (levels(f"a.{kind}") == expected[..., None]).all()
    kept = references.mask(f"a.{kind}", (3, 8, 8), print)
    assert kept.mean() == 0.5 and torch.equal(kept[0], torch.from_numpy(expected > 127).to(kept))
    lines = references.sketch(f"a.{kind}", (3, 8, 8), print)
    assert torch.allclose(lines, torch.from_numpy(expected / 255).to(lines))
    with pytest.raises(ConfigError, match="8-bit grey or indexed"):
        references.classes(f"a.{kind}", (3, 8, 8), print)


def test_floats_are_from_0_to_1():
    share = (RAMP / 65535).astype(np.float32)
    Image.fromarray(share).save("a.tif")
    assert (levels("a.tif", 1)[..., 0] == np.rint(share * 255)).all()
    Image.fromarray(1 - share).save("white.tif", tiffinfo={262: 0})
    assert np.abs(levels("white.tif", 1)[..., 0] - np.rint(share * 255)).max() <= 1
    assert references.mask("a.tif", (1, 8, 8), print).mean() == 0.5
    for name, array in {"large": 255 * share, "negative": share - 0.5, "nan": share * np.nan}.items():
        Image.fromarray(array).save(f"{name}.tif")
        with pytest.raises(ConfigError, match="lie between 0 and 1"):
            levels(f"{name}.tif")


def test_whole_numbers_of_32_bits_do_not_say_what_is_white():
    Image.fromarray(RAMP.astype(np.int32)).save("a.tif")
    for read in (references.reference, references.mask, references.sketch, references.resized):
        with pytest.raises(ConfigError, match=r"\(I\), and does not say which of them is white"):
            read("a.tif", (3, 8, 8), print)


GREY = (RAMP >> 8).astype(np.uint8)
RGB = (COLOURS >> 8).astype(np.uint8)
OPAQUE = np.full((8, 8, 1), 255, np.uint8)


def indexed(array):
    """The colours of an indexed picture, whose palette runs backwards."""
    image = Image.fromarray(array)
    image.putpalette([255 - level for level in range(256) for _ in range(3)])
    return image


MODES = {
    "1": (lambda: Image.fromarray(GREY > 99), np.where(GREY > 99, 255, 0)[..., None].repeat(3, 2)),
    "L": (lambda: Image.fromarray(GREY), GREY[..., None].repeat(3, 2)),
    "P": (lambda: indexed(GREY), 255 - GREY[..., None].repeat(3, 2).astype(int)),
    "RGB": (lambda: Image.fromarray(RGB), RGB),
    "RGBA": (lambda: Image.fromarray(np.concatenate([RGB, OPAQUE], 2)), RGB),
    "LA": (lambda: Image.fromarray(np.concatenate([GREY[..., None], OPAQUE], 2)), GREY[..., None].repeat(3, 2)),
    "CMYK": (lambda: Image.fromarray(np.dstack([255 - RGB, 0 * GREY]), "CMYK"), RGB),
    "YCbCr": (lambda: Image.fromarray(RGB).convert("YCbCr"), RGB),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_has_its_colours(mode):
    """Told apart from one another by colours in which no channel is another's; YCbCr is rounded twice, to integers."""
    make, expected = MODES[mode]
    image = make()
    assert image.mode == mode
    image.save("a.png" if mode in ("1", "L", "P", "RGB", "RGBA", "LA") else "a.tif")
    said = []
    if mode == "YCbCr" and Version(PIL.__version__) < Version("13"):
        pytest.skip("Pillow before 13 cannot read the TIFF with YCbCr that it writes")
    made = levels("a.png" if mode not in ("CMYK", "YCbCr") else "a.tif", said=said)
    assert np.abs(made - np.asarray(expected, int)).max() <= (3 if mode == "YCbCr" else 0) and said == []


def test_colours_of_16_bits():
    png("a.png", rows(COLOURS.reshape(8, 24)), 16, 2)
    assert (levels("a.png") == COLOURS >> 8).all()


@pytest.mark.parametrize("turned", range(1, 9))
def test_pictures_are_the_way_up_that_they_were_taken(turned):
    """As the standard has it: where the first row and column of the file belong."""
    first = {1: "top left", 2: "top right", 3: "bottom right", 4: "bottom left"}
    first |= {5: "left top", 6: "right top", 7: "right bottom", 8: "left bottom"}
    row, column = first[turned].split()
    exif = Image.Exif()
    exif[0x0112] = turned
    Image.fromarray(GREY).save("a.png", exif=exif)
    Image.fromarray(RAMP).save("deep.png", exif=exif)
    expected = GREY if row in ("top", "bottom") else GREY.T
    expected = expected[::-1] if "bottom" in (row, column) else expected
    expected = expected[:, ::-1] if "right" in (row, column) else expected
    assert (levels("a.png", 1)[..., 0] == expected).all() and (levels("deep.png", 1)[..., 0] == expected).all()
    assert (
        references.classes("a.png", (1, 8, 8), print).numpy() == np.where(expected == 255, -1, expected.astype(int))
    ).all()


# Transparency


def test_what_is_transparent_is_white_and_that_is_said():
    alpha = np.linspace(0, 255, 64).round().astype(np.uint8).reshape(8, 8, 1)
    share = alpha / 255
    said = []
    Image.fromarray(np.concatenate([RGB, alpha], 2)).save("a.png")
    assert np.abs(levels("a.png", said=said) - (share * RGB + (1 - share) * 255)).max() <= 1
    Image.fromarray(np.concatenate([GREY[..., None], alpha], 2)).save("grey.png")
    assert np.abs(levels("grey.png", 1, said) - (share * GREY[..., None] + (1 - share) * 255)).max() <= 1
    assert said == [f"{name} is partly transparent: it is taken as on white" for name in ("a.png", "grey.png")]
    x = references.resized("a.png", (3, 4, 4), said.append)
    assert x.shape == (3, 4, 4) and "partly transparent" in said[2] and "resized" in said[3]


def test_one_colour_may_be_the_transparent_one():
    """Of grey and RGB, in 8 and 16 bits, and of an index."""
    said = []
    png("grey.png", [bytes(range(8))] * 8, 8, 0, struct.pack(">H", 3))
    assert levels("grey.png", 1, said)[0, :, 0].tolist() == [0, 1, 2, 255, 4, 5, 6, 7]
    png("deep.png", rows(RAMP), 16, 0, struct.pack(">H", RAMP[0, 3]))
    assert levels("deep.png", 1, said)[0, :5, 0].tolist() == [0, 4, 8, 255, 16]
    png("rgb.png", rows(COLOURS.reshape(8, 24)), 16, 2, COLOURS[0, 3].astype(">u2").tobytes())
    assert (levels("rgb.png", said=said)[0, 3] == 255).all()
    indexed(GREY).save("indexed.png", transparency=int(GREY[0, 3]))
    assert levels("indexed.png", 1, said)[0, 2:5, 0].tolist() == [247, 255, 239]
    assert len(said) == 4


def test_a_transparent_mask_is_its_alpha():
    left = np.zeros((8, 8, 4), np.uint8)
    left[:, :4, 3] = 255
    said = []
    for colour in (0, 255):
        left[..., :3] = colour
        Image.fromarray(left).save("a.png")
        assert torch.equal(references.mask("a.png", (3, 8, 8), said.append), references.mask("left", (1, 8, 8), print))
    assert said == ["a.png is partly transparent: its opaque parts are the mask"] * 2
    left[:4, :, :3] = 0
    Image.fromarray(left).save("both.png")
    with pytest.raises(ConfigError, match="says two things"):
        references.mask("both.png", (3, 8, 8), print)


def test_ink_on_nothing_is_ink_on_paper():
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[3, :, 3] = 255
    Image.fromarray(ink).save("a.png")
    lines = references.sketch("a.png", (3, 8, 8), print)
    assert (lines[3] == 1).all() and lines.sum() == 8


def test_the_first_of_several_pictures_is_taken_and_that_is_said():
    frames = [Image.new("L", (8, 8), level) for level in (10, 200, 90)]
    frames[0].save("a.gif", save_all=True, append_images=frames[1:])
    said = []
    assert (levels("a.gif", 1, said) == 10).all() and said == ["a.gif holds 3 pictures: the first is taken"]


# Broken files


def test_classes_of_fewer_bits_are_not_those_that_pillow_makes_of_them():
    """It scales grey of 4 bits by 17."""
    png("a.png", [bytes([0x01, 0x23, 0x45, 0x67])] * 8, 4, 0)
    with pytest.raises(ConfigError, match=r"a\.png is L;4: a mask of classes is 8-bit"):
        references.classes("a.png", (3, 8, 8), print)


def test_broken_pictures_are_a_sentence(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save("whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    png("whole.png", rows(COLOURS.reshape(8, 24)), 16, 2)
    data = bytearray((tmp_path / "whole.png").read_bytes())
    data[70] ^= 255
    (tmp_path / "torn.png").write_bytes(data)
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    png("bomb.png", [bytes(8)], 8, 0)
    bomb = bytearray((tmp_path / "bomb.png").read_bytes())
    bomb[16:24] = struct.pack(">II", 1 << 16, 1 << 16)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
    (tmp_path / "bomb.png").write_bytes(bomb)
    for name, why in {
        "half.jpg": "cannot read half.jpg: image file is truncated",
        "torn.png": "cannot read torn.png: ",
        "empty.png": "not a picture",
        "folder.png": "Is a directory",
        "missing.png": "No such file",
        "bomb.png": "more than 178,956,970 pixels",
    }.items():
        for read in (references.resized, references.mask, references.sketch, references.classes):
            with pytest.raises(ConfigError, match=why):
                read(name, (3, 8, 8), print)


def test_errors_of_decoders_are_a_sentence(monkeypatch):
    Image.new("L", (8, 8)).save("a.png")
    for error in (SyntaxError("broken PNG\nfile"), struct.error("unpack"), KeyError(3), Image.DecompressionBombError()):
        monkeypatch.setattr(pictures, "_read", lambda path, say, error=error: (_ for _ in ()).throw(error))
        with pytest.raises(ConfigError, match=r"a\.png (cannot be read as a picture|has more than)") as caught:
            references.mask("a.png", (1, 8, 8), print)
        assert "\n" not in str(caught.value)


# Arrays


def test_whole_numbers_of_arrays_are_0_to_255():
    np.save("bytes.npy", GREY.astype(np.int64))
    np.save("deep.npy", RAMP)
    np.save("negative.npy", GREY.astype(np.int64) - 1)
    np.save("bits.npy", GREY > 99)
    assert (levels("bytes.npy", 1)[..., 0] == GREY).all()
    lines = references.sketch("bytes.npy", (3, 8, 8), print)
    assert torch.allclose(lines, torch.from_numpy(GREY / 255).to(lines))
    for name in ("deep.npy", "negative.npy"):
        for read in (references.reference, references.sketch):
            with pytest.raises(ConfigError, match="whole numbers are 0 to 255"):
                read(name, (1, 8, 8), print)
    with pytest.raises(ConfigError, match="bool from 0 to 1"):
        references.reference("bits.npy", (1, 8, 8), print)
    assert torch.equal(references.sketch("bits.npy", (1, 8, 8), print), torch.from_numpy(GREY > 99).to(lines))


def test_masks_of_arrays():
    """Their brighter half, whatever their type; samples, which go below 0, are none."""
    half = RAMP / 65535
    for array in (RAMP, GREY, GREY.astype(np.int32), half, half > 0.5):
        np.save("a.npy", array)
        assert references.mask("a.npy", (1, 8, 8), print).mean() == 0.5
    np.save("a.npy", 2 * half - 1)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        references.mask("a.npy", (1, 8, 8), print)


def test_arrays_of_half_precision():
    safetensors.torch.save_file({"x": torch.full((1, 8, 8), 0.5, dtype=torch.bfloat16)}, "a.safetensors")
    assert (references.reference("a.safetensors", (1, 8, 8), print) == 0.5).all()


def test_arrays_that_are_none(tmp_path):
    np.save("nan.npy", np.full((2,), np.nan))
    np.save("complex.npy", np.ones(2) * 1j)
    np.save("text.npy", np.array(["a", "b"]))
    np.save("objects.npy", np.array([{}, None]), allow_pickle=True)
    np.savez("whole.npz", a=np.zeros(1000))
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    head = {"descr": "<f8", "fortran_order": False, "shape": (1 << 40, 1 << 20)}
    with open("huge.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, head)
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "torn.safetensors").write_bytes(b"\xff" * 40)
    (tmp_path / "folder.npy").mkdir()
    for name, why in {
        "nan.npy": "not finite",
        "complex.npy": "of type complex128: it must hold real numbers",
        "text.npy": "real numbers",
        "objects.npy": "no array file that can be read",
        "half.npz": "no array file that can be read",
        "huge.npy": "no array file|larger than the memory",
        "empty.npy": "no array file that can be read",
        "torn.safetensors": "no array file that can be read",
        "folder.npy": "Is a directory",
        "missing.safetensors": "missing.safetensors",
    }.items():
        for read in (references.reference, references.mask, references.classes, references.sketch):
            with pytest.raises(ConfigError, match=why) as caught:
                read(name, (2,) if read is references.reference else (1, 1, 2), print)
            assert "\n" not in str(caught.value)
