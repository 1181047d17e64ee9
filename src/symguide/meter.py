"""Measuring a run: bytes held for gradients, and free memory.

On a GPU the allocator knows the peak. On a CPU nothing does, so the bytes that autograd saves for backward are counted
where they are saved, by saved-tensor hooks, each storage once and parameters not at all.
"""

import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from symguide.errors import ConfigError
from symguide.private.torch import Hooks, base, saved_tensor_hooks, storage_id

T = TypeVar("T")

_ENTERED = threading.local()
"""The hooks of the meters of a thread: those around one where torch does not say which are in force."""


class SavedBytes(torch.autograd.graph.saved_tensors_hooks):
    """Context manager that counts the bytes saved for backward inside it: `.live` now, `.peak` at most so far.

    Hooks that are in force around it (another meter, or torch's save_on_cpu) go on working: autograd asks only the
    innermost ones, so these hand on what they are given. `grown` is called with `live` whenever that has grown.

    >>> x = torch.ones(8, dtype=torch.float32, requires_grad=True)
    >>> with SavedBytes() as saved:
    ...     y = x.sin().cos()
    >>> saved.peak  # x for sin, sin(x) for cos
    64
    """

    def __init__(self, grown: Callable[[int], None] | None = None) -> None:
        self.live = self.peak = 0
        self._grown = grown
        self._uses: dict[int, int] = {}
        self._around: Hooks | None = None
        self._weighed: tuple[Any, int] = (None, 0)
        super().__init__(self._pack, self._unpack)

    def __enter__(self) -> "SavedBytes":  # type: ignore[override]
        entered = _ENTERED.__dict__.setdefault("meters", [])
        self._around = saved_tensor_hooks(unknown=entered[-1] if entered else None)
        entered.append((self._pack, self._unpack))
        super().__enter__()
        return self

    def __exit__(self, *failure: Any) -> None:
        super().__exit__(*failure)
        _ENTERED.meters.remove((self._pack, self._unpack))

    @property
    def innermost(self) -> bool:
        """Whether autograd asks this meter, and no hooks inside it."""
        return saved_tensor_hooks() == (self._pack, self._unpack)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is counted inside, and nothing slowed down: for graphs of known weight, see `hold`.

        To be asked for only where it is the `innermost` one.
        """
        super().__exit__()
        try:
            yield
        finally:
            super().__enter__()

    def hold(self, size: int) -> "_SavedTensor":
        """Counts so many bytes for as long as what it returns lives."""
        return _SavedTensor(None, self, None, size)

    def once(self, kind: Any, call: Callable[[], T]) -> T:
        """call(), whose peak is measured where `kind` is not that of the last time, and else taken to be the same."""
        if not self.innermost:
            return call()
        if self._weighed[0] == kind:
            held = self.hold(self._weighed[1])
            with self.paused():
                made = call()
            del held
            return made
        peak, live, self.peak = self.peak, self.live, self.live
        try:
            made = call()
            self._weighed = (kind, self.peak - live)
        finally:
            self.peak = max(peak, self.peak)
        return made

    def _pack(self, tensor: Tensor) -> "_SavedTensor":
        # detach: a saved output would hold its own graph, and never be freed
        packed = tensor.detach() if self._around is None else self._around[0](tensor)
        viewed = base(tensor)
        owner = tensor if viewed is None else viewed
        if owner.is_leaf and isinstance(owner, nn.Parameter):
            return _SavedTensor(packed)
        storage = tensor.untyped_storage()
        return _SavedTensor(packed, self, storage_id(storage), storage.nbytes())

    def _unpack(self, held: "_SavedTensor") -> Tensor:
        return held.packed if self._around is None else self._around[1](held.packed)

    def _hold(self, key: int | None, size: int) -> None:
        if key is not None:
            self._uses[key] = self._uses.get(key, 0) + 1
        if key is None or self._uses[key] == 1:
            self.live += size
            self.peak = max(self.peak, self.live)
            if self._grown is not None:
                self._grown(self.live)

    def _drop(self, key: int | None, size: int) -> None:
        if key is not None:
            self._uses[key] -= 1
            if self._uses[key]:
                return
            del self._uses[key]
        self.live -= size


class Peak:
    """Context manager whose call gives the peak bytes of what ran inside: allocated on a GPU, saved on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.saved = SavedBytes() if device.type != "cuda" else None

    def __enter__(self) -> Callable[[], int]:
        if self.saved is not None:
            self.saved.__enter__()
        else:
            torch.cuda.reset_peak_memory_stats(self.device)
        return self._value

    def __exit__(self, *failure: Any) -> None:
        if self.saved is not None:
            self.saved.__exit__(*failure)

    def _value(self) -> int:
        return self.saved.peak if self.saved is not None else torch.cuda.max_memory_allocated(self.device)


class _SavedTensor:
    """A saved tensor, counted by its meter (if it has one) while autograd holds it; without a key counted anyway."""

    __slots__ = ("key", "meter", "packed", "size")

    def __init__(self, packed: Any, meter: SavedBytes | None = None, key: int | None = 0, size: int = 0) -> None:
        self.packed, self.meter, self.key, self.size = packed, meter, key, size
        if meter is not None:
            meter._hold(key, size)

    def __del__(self) -> None:
        if self.meter is not None:
            self.meter._drop(self.key, self.size)


def free_bytes(device: torch.device) -> int:
    """Memory that is free on the device now; on a GPU also what torch holds of it and does not use."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf, macOS does not say
        raise ConfigError(
            f"this system does not say how much memory is free ({device.type}): name a budget, memory='auto:2GB'"
        ) from None


def parse_bytes(text: str) -> int | None:
    """'512MB' or '2GiB' in bytes; None if it is no size.

    >>> parse_bytes("2GB"), parse_bytes("much"), parse_bytes("-1GB"), parse_bytes("infGB")
    (2000000000, None, None, None)
    """
    units = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
    text = text.strip().lower()
    for unit in sorted(units, key=len, reverse=True):
        if text.endswith(unit):
            try:
                size = float(text[: -len(unit)]) * units[unit]
            except ValueError:
                return None
            return int(size) if 0 <= size < math.inf else None
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
