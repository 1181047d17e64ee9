"""Measuring a run: bytes held for gradients, and free memory.

On a GPU the allocator knows the peak. On a CPU nothing does, so the bytes that autograd saves for backward are counted
where they are saved, by saved-tensor hooks, each storage once and parameters not at all.
"""

import os
from contextvars import ContextVar
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class SavedBytes(torch.autograd.graph.saved_tensors_hooks):
    """Context manager that counts the bytes saved for backward inside it: `.live` now, `.peak` at most so far.

    One inside another counts for both (autograd itself asks only the innermost hooks).

    >>> x = torch.ones(8, dtype=torch.float32, requires_grad=True)
    >>> with SavedBytes() as saved:
    ...     y = x.sin().cos()
    >>> saved.peak  # x for sin, sin(x) for cos
    64
    """

    _open: ClassVar[ContextVar[tuple["SavedBytes", ...]]] = ContextVar("open meters", default=())

    def __init__(self) -> None:
        self.live = self.peak = 0
        self._uses: dict[int, int] = {}
        super().__init__(self._pack, _unpack)

    def __enter__(self) -> "SavedBytes":  # type: ignore[override]
        super().__enter__()
        self._open.set((*self._open.get(), self))
        return self

    def __exit__(self, *failure: Any) -> None:
        self._open.set(self._open.get()[:-1])
        super().__exit__(*failure)

    def _pack(self, tensor: Tensor) -> Any:
        owner = tensor._base if tensor._base is not None else tensor
        if isinstance(owner, nn.Parameter):
            return tensor
        return _Held(self._open.get(), tensor)

    def _hold(self, key: int, size: int) -> None:
        self._uses[key] = self._uses.get(key, 0) + 1
        if self._uses[key] == 1:
            self.live += size
            self.peak = max(self.peak, self.live)

    def _drop(self, key: int, size: int) -> None:
        self._uses[key] -= 1
        if self._uses[key] == 0:
            del self._uses[key]
            self.live -= size


class _Held:
    """A saved tensor that is counted while autograd holds it."""

    __slots__ = ("key", "meters", "size", "tensor")

    def __init__(self, meters: tuple[SavedBytes, ...], tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self.meters, self.key, self.size = meters, storage.data_ptr(), storage.nbytes()
        self.tensor = tensor.detach()  # a saved output would hold its own graph, and never be freed
        for meter in meters:
            meter._hold(self.key, self.size)

    def __del__(self) -> None:
        for meter in self.meters:
            meter._drop(self.key, self.size)


def _unpack(held: Any) -> Tensor:
    return held.tensor if isinstance(held, _Held) else held


def free_bytes(device: torch.device) -> int:
    """Memory that is free on the device now."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def parse_bytes(text: str) -> int | None:
    """'512MB' or '2GiB' in bytes; None if it is no size.

    >>> parse_bytes("2GB"), parse_bytes("much")
    (2000000000, None)
    """
    units = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
    text = text.strip().lower()
    for unit in sorted(units, key=len, reverse=True):
        if text.endswith(unit):
            try:
                return int(float(text[: -len(unit)]) * units[unit])
            except ValueError:
                return None
    return None


def show_bytes(count: float) -> str:
    """Bytes for people.

    >>> show_bytes(1536), show_bytes(2_500_000)
    ('1.5 kB', '2.5 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
