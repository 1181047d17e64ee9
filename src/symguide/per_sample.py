"""Reductions over everything but the batch, and noise that belongs to a sample and not to its batch."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
from torch import Tensor

from symguide.errors import ConfigError

PINNED = ("cuda",)
"""Kinds of devices to which a copy from pinned memory is made while they go on working: nobody waits for it."""


def norm(x: Tensor) -> Tensor:
    """Euclidean norm of every sample, (B, 1, ..., 1), at least float32 inside.

    >>> norm(torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
    tensor([[5.],
            [2.]])
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return torch.linalg.vector_norm(wide.flatten(1), dim=1).to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def rms(x: Tensor) -> Tensor:
    """Root mean square of every sample, (B, 1, ..., 1).

    >>> rms(torch.tensor([[3.0, 4.0, 0.0, 0.0]]))
    tensor([[2.5000]])
    """
    return norm(x) / math.sqrt(x[0].numel())


def direction(x: Tensor) -> Tensor:
    """x / |x| of every sample; a zero sample stays zero.

    >>> direction(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide / norm(wide).clamp_min(torch.finfo(wide.dtype).tiny)).to(x.dtype)


def expand(value: Tensor, like: Tensor) -> Tensor:
    """(B,) as (B, 1, ..., 1), or (B, F) as (B, F, 1, ..., 1), to multiply samples with."""
    return value.reshape(*value.shape, *[1] * (like.ndim - value.ndim))


def by_frame(values: Sequence[float], x: Tensor) -> Tensor:
    """One number for each frame (axis 1 of x) in all samples, (B, F), at least float32.

    >>> by_frame([0.5, 1.0], torch.zeros(1, 2, 3))
    tensor([[0.5000, 1.0000]])
    """
    if len(values) != x.shape[1]:
        raise ConfigError(f"{len(values)} times were given for samples of {x.shape[1]} frames, x of {tuple(x.shape)}")
    made = torch.tensor(values, dtype=torch.promote_types(x.dtype, torch.float32))
    return to_device(made, x.device).expand(len(x), -1)


def to_device(made: Tensor, device: torch.device | str | None) -> Tensor:
    """A tensor of the CPU on a device; nobody waits for it where that can be."""
    if torch.device(device or "cpu").type in PINNED:
        return made.pin_memory().to(device, non_blocking=True)
    return made.to(device)


def effective_sample_size(log_weights: Tensor, particles: int) -> Tensor:
    """(sum w)² / sum w² of the particles of every sample, (B,), of log-weights (B K,).

    >>> effective_sample_size(torch.tensor([0.0, 0.0, 3.0, -torch.inf]), 2)
    tensor([2., 1.])
    """
    w = torch.softmax(log_weights.reshape(-1, particles), dim=1)
    return 1 / w.square().sum(dim=1)


@contextmanager
def rows_of_samples(particles: int) -> Iterator[None]:
    """Every sample has so many rows inside, one after the other: for this thread's objectives, see `rows_for`."""
    token = _PARTICLES.set(particles)
    try:
        yield
    finally:
        _PARTICLES.reset(token)


def particles_now() -> int:
    """How many rows every sample has in the run that asks; 1 outside of one."""
    return _PARTICLES.get()


_PARTICLES: ContextVar[int] = ContextVar("particles", default=1)


class Noise:
    """Standard normal noise of a batch, where sample i depends on (seed, i) and on the draw's key only.

    A counter-based generator (Philox, Salmon et al. 2011) keyed by (seed, index) gives the same numbers for sample i
    alone, in any batch, on any shard and device, in any order of draws; so two methods that draw differently still
    share the noise of their steps. Drawn in float64 and rounded, so float32 and float64 runs see the same noise.

    Runs in a row for the same samples are told apart by `stage`.

    >>> whole = Noise(0, [0, 1, 2], (4,)).draw("step", 7)
    >>> torch.equal(whole[1:2], Noise(0, [1], (4,)).draw("step", 7))
    True
    """

    streams = (
        "start",
        "step",
        "travel",
        "smooth",
        "propose",
        "measure",
        "augment",
        "grain",
        "restart",
        "resample",
        "keep",
        "prediction",
        "ahead",
    )

    def __init__(
        self,
        seed: int,
        indices: Sequence[int],
        shape: Sequence[int],
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        particles: int = 1,
        stage: int = 0,
    ) -> None:
        self.seed, self.indices, self.shape, self.particles = seed, tuple(indices), tuple(shape), particles
        self.stage = stage
        self.dtype, self.device = dtype or torch.get_default_dtype(), device
        self._philox = np.random.Philox(0)
        self._generator = np.random.Generator(self._philox)

    def draw(
        self,
        stream: str,
        step: int = 0,
        repeat: int = 0,
        times: int | None = None,
        shape: Sequence[int] | None = None,
    ) -> Tensor:
        """N(0, I) of shape (B, ...), or (times, B, ...) where `times` is given; `shape` in place of a sample's own."""
        own = self.shape if shape is None else tuple(shape)
        shape = own if times is None else (times, *own)
        state = self._philox.state
        state["state"]["counter"][2:] = ((repeat << 32) + step, (self.stage << 32) + self.streams.index(stream))
        drawn = np.empty((len(self.indices) * self.particles, *shape))
        for row, out in enumerate(drawn):
            state["state"]["key"][:] = (self.seed % 2**64, self.indices[row // self.particles])
            state["state"]["counter"][:2] = (0, row % self.particles)
            state["buffer_pos"], state["has_uint32"] = 4, 0  # nothing is left of an earlier draw
            self._philox.state = state  # a fresh stream of numbers, at a third of the cost of a new generator
            self._generator.standard_normal(out=out)
        whole = torch.from_numpy(drawn if times is None else np.ascontiguousarray(drawn.swapaxes(0, 1)))
        return to_device(whole.to(self.dtype), self.device)
