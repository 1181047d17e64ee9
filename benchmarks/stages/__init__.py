"""What benchmarks/gpu.py measures: a file for each stage, with its cells in order of worth."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """Where a stage is measured, and whether in its quick form, which a CPU can do."""

    device: torch.device
    quick: bool

    @property
    def gpu(self) -> bool:
        """Whether the device has an allocator, streams and graphs to be asked."""
        return self.device.type == "cuda"

    def wait(self) -> None:
        """Until the device has done all that was asked of it."""
        if self.gpu:
            torch.cuda.synchronize(self.device)

    def peak(self) -> int | None:
        """The most bytes allocated since `forget`; None on a CPU."""
        return torch.cuda.max_memory_allocated(self.device) if self.gpu else None

    def forget(self) -> None:
        """Freed memory is given back, and the peak begins anew."""
        if self.gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)


@dataclass(frozen=True)
class Cell:
    """One measurement: what it is of, and how it is made; a row is both together."""

    key: Row
    measure: Callable[[], Row]


@dataclass(frozen=True)
class Stage:
    """Cells in order of worth.

    Attributes:
        about: one line.
        seconds: what all of them are expected to take on an H100.
        cap: seconds after which no cell is begun; the process ends 30 s later, whatever it does.
        cells: makes them, lazily.
    """

    about: str
    seconds: int
    cap: int
    cells: Callable[[Setting], Iterator[Cell]]
