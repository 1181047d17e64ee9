"""Galaxies: a real pretrained model of single galaxies that others made, read from the user's own install of it.

    pip install --no-deps galaxygrad==0.1.9

Nothing of that package ships here: no licence is stated. It is not imported either, which would need JAX; its files are
read as numpy records, without pickle, and only where their sha256 is the known one.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from symguide.denoiser import Denoiser
from symguide.errors import ConfigError, WeightsError, whole
from symguide.registry import register
from symguide.schedule import VP
from symguide.worlds import World
from symguide.worlds.galaxies.network import ScoreMixer as ScoreMixer

PACKAGE, VERSION = "galaxygrad", "0.1.9"
INSTALL = f"pip install --no-deps {PACKAGE}=={VERSION}"
STRETCH = 0.1
"""Of the model's pixels: x = log(1 + f) / STRETCH, f the light in a pixel."""


def light(x: Tensor) -> Tensor:
    """f = exp(0.1 x) - 1, the light in every pixel of the model's samples x, as the package stretches its own.

    It states no unit of f. Almost all galaxies that it makes have the same brightest pixel, 0.9 in `galaxies` and 1.3
    in `galaxies-64`: f is light in units of the peak, but for that factor, and no magnitude can be read off.

    >>> light(torch.tensor([0.0, 6.4])).round(decimals=2)
    tensor([0.0000, 0.9000])
    """
    return torch.expm1(STRETCH * x)


def pixels(f: Tensor) -> Tensor:
    """x = 10 log(1 + f), the model's pixels of the light f > -1."""
    return torch.log1p(f) / STRETCH


class Picture(nn.Module):
    """x -> 2 f / peak - 1, as symguide has pictures: -1 where there is no light, 1 at the peak; linear in the light."""

    def __init__(self, peak: float) -> None:
        super().__init__()
        self.peak = peak

    def forward(self, x: Tensor) -> Tensor:
        return 2 / self.peak * light(x) - 1


@dataclass(frozen=True)
class Weights:
    """A file of the package, the side of its pictures, what their brightest pixels have, and the digest of the file."""

    file: str
    side: int
    peak: float
    sha256: str

    @property
    def path(self) -> Path:
        """Where it is installed; it need not exist. The package is found, not imported."""
        found = find_spec(PACKAGE)
        return Path(PACKAGE if found is None or found.origin is None else Path(found.origin).parent) / self.file

    def denoiser(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Denoiser:
        """Single galaxies as Subaru's Hyper Suprime-Cam (HSC) sees them: VP with log alpha = -t / 2, t from 0 to 10.

        Samples are x = 10 log(1 + f), (1, side, side), one band, f the light in a pixel: see `light`. `decode` makes
        pictures of them, 2 f / peak - 1: -1 is no light, 1 the brightest pixel, linear in between. No condition.

        The score network of galaxygrad 0.1.9 (Sampson et al., "Score-matching neural networks for improved multi-band
        source separation", 2401.07313), trained on galaxies that scarlet cut out of HSC images. Install it with
        pip install --no-deps galaxygrad==0.1.9; it states no licence, and nothing of it ships with symguide.

        Raises:
            WeightsError: where the package is not installed, or its file is another one than that of version 0.1.9.
        """
        network = ScoreMixer(self.side)
        fill(network, records(self._read(), str(self.path)), str(self.path))
        network = network.to(device=device, dtype=dtype or torch.get_default_dtype()).eval().requires_grad_(False)
        schedule = VP.linear(beta_min=network.t_max, beta_max=network.t_max, timesteps=network.t_max)
        return Denoiser(network, schedule, "eps", shape=(1, self.side, self.side), decoder=Picture(self.peak))

    def _read(self) -> bytes:
        try:
            data = self.path.read_bytes()
        except OSError:
            raise WeightsError(f"the galaxies need a package of others, which is not installed: {INSTALL}") from None
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise WeightsError(
                f"{self.path} is not the file of {PACKAGE} {VERSION} (its sha256 differs; installed: {_installed()}): "
                f"{INSTALL}"
            )
        return data


def _installed() -> str:
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return "no version known"


def records(data: bytes, where: str = "the file") -> list[np.ndarray]:
    """The arrays of a file that np.save wrote one after the other; nothing is unpickled.

    Raises:
        WeightsError: for anything else in it, objects too.
    """
    file, found = io.BytesIO(data), []
    try:
        while file.tell() < len(data):
            found.append(np.lib.format.read_array(file, allow_pickle=False))
    except (ValueError, EOFError) as error:
        raise WeightsError(f"{where} is no sequence of numpy records ({error}): {INSTALL}") from None
    return found


def fill(network: ScoreMixer, found: Sequence[np.ndarray], where: str = "the file") -> None:
    """Puts the records of an equinox file into the network; the last one is t_max.

    Equinox has a transposed convolution's kernel as that of the convolution it is, (out, in, h, w) and turned by half
    a turn; torch has (in, out, h, w). Biases of convolutions have two sides more there.

    Raises:
        WeightsError: where they are not those of such a network.
    """
    parameters = dict(network.named_parameters())
    if len(found) != len(parameters) + 1 or any(record.dtype.kind != "f" for record in found):
        raise WeightsError(f"{where} holds {len(found)} records, not {len(parameters) + 1} of floats: {INSTALL}")
    for (name, parameter), record in zip(parameters.items(), found, strict=False):
        value = torch.from_numpy(np.array(record, dtype=record.dtype.newbyteorder("=")))
        if name == "out.weight" and value.ndim == 4:
            value = value.transpose(0, 1).flip(2, 3)
        if value.numel() != parameter.numel() or (value.ndim > 3 and value.shape != parameter.shape):
            raise WeightsError(
                f"{where}: {name} has shape {record.shape} in place of {tuple(parameter.shape)}: {INSTALL}"
            )
        parameter.data = value.reshape(parameter.shape).to(parameter.dtype)
    network.t_max = float(found[-1])


class Several(nn.Module):
    """The network of K independent samples, (B, K, ...) as K channels, each a sample of one channel of its own."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, timestep: Tensor) -> Tensor:
        count = x.shape[1]
        each = self.network(x.reshape(-1, 1, *x.shape[2:]), timestep.repeat_interleave(count))
        return each.reshape(x.shape)


def several(denoiser: Denoiser, count: int) -> Denoiser:
    """The model of `count` galaxies that know nothing of one another, samples (count, side, side): for deblending.

    A sample is a whole scene's sources, so that one objective speaks of all of them: see `Blend`.

    Cost: `count` calls of the network are one of this one.

    Raises:
        ConfigError: for a model of more than one channel, or less than one galaxy.
    """
    count = whole(count, "the number of galaxies", least=1)
    if denoiser.shape is None or denoiser.shape[0] != 1 or not isinstance(denoiser.network, nn.Module):
        raise ConfigError("several samples stand side by side as channels, and this model has not one channel")
    shape = (count, *denoiser.shape[1:])
    return Denoiser(Several(denoiser.network), denoiser.schedule, denoiser.predicts, shape=shape)


class Blend:
    """The scene of K sources: their light, each moved by whole pixels to where it was detected, summed.

        y[p] = sum_k f_k[p - d_k],    f_k = light(x_k)

    What leaves the scene is lost. With objectives.Measurement it is deblending, as scarlet has it: positions are known,
    and every source is a galaxy of the prior.

    Args:
        moves: d_k, (down, right) for every source, in pixels.

    Raises:
        ConfigError: when called with another number of sources.

    >>> Blend([(0, 0), (0, 1)])(pixels(torch.eye(2).expand(1, 2, 2, 2)))
    tensor([[[[1., 1.],
              [0., 1.]]]])
    """

    def __init__(self, moves: Sequence[tuple[int, int]]) -> None:
        self.moves = [(whole(down, "a move"), whole(right, "a move")) for down, right in moves]

    def __call__(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != len(self.moves):
            raise ConfigError(f"a blend of {len(self.moves)} sources is not made of {tuple(x.shape[1:])}")
        moved = [_moved(f, move) for f, move in zip(light(x).unbind(dim=1), self.moves, strict=True)]
        return torch.stack(moved).sum(dim=0)[:, None]


def _moved(f: Tensor, move: tuple[int, int]) -> Tensor:
    """(B, H, W) moved, zeros where nothing comes from."""
    for axis, by in zip((1, 2), move, strict=True):
        side = f.shape[axis]
        kept = f.narrow(axis, max(-by, 0), max(side - abs(by), 0))
        empty = f.new_zeros([min(abs(by), side) if at == axis else n for at, n in enumerate(f.shape)])
        f = torch.cat([empty, kept] if by > 0 else [kept, empty], dim=axis)
    return f


FILES = {
    "galaxies": Weights(
        "eqx_hsc_ScoreNet32.eqx", 32, 0.9, "cb926562fcdfcbd33952fea8b2394074e75cb652fb7824c4c809a5f89a0a6532"
    ),
    "galaxies-64": Weights(
        "eqx_hsc_ScoreNet64.eqx", 64, 1.3, "4758114b1b77e4640ca7b834a976202aeb126fd7332ec07842af46d72c6b2e01"
    ),
}
"""The models of this world by name."""

for _name, _weights in FILES.items():
    _about = f"real galaxies, {_weights.side}x{_weights.side} pixels, one band; no condition; {INSTALL}"
    register("world", _name)(World(_about, _weights.path, make=_weights.denoiser))
