"""Samples on disk as they are drawn: one file for every batch, whole or not there, checked when read again."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from symguide import files as disk
from symguide.errors import ConfigError, WeightsError
from symguide.files import in_use
from symguide.loop import Cost

_NAME = re.compile(r"\d{6,}-\d{6,}\.safetensors")


@dataclass(frozen=True)
class Part:
    """The i-th of n parts of a run, beside other processes: every n-th shard, from the i-th; 1 of 1 is the whole."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str | None) -> "Part":
        """The part that --shard I/N names.

        >>> str(Part.parse("2/8"))
        '2/8'
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", "1/1" if text is None else text.strip())
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise ConfigError(f"--shard takes I/N with 1 <= I <= N, such as 2/8, not {text!r}")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def whole(self) -> bool:
        return self.count == 1

    def of(self, ranges: Iterator[range]) -> Iterator[range]:
        """Its share of all shards' indices."""
        return islice(ranges, self.index - 1, None, self.count)

    def lock(self, folder: Path) -> Path:
        """The file that is locked while it is drawn."""
        return folder / f"part-{self.index}-of-{self.count}.lock"

    def others(self, folder: Path) -> bool:
        """Whether other parts are being drawn into the folder now."""
        return any(in_use(path) for path in folder.glob("part-*.lock") if path != self.lock(folder))


class Shards:
    """The shards of a run of `num` samples in batches.

    Args:
        folder: where they are.
        num, batch: how many samples, and how many to a shard.
        identity: digest of what decides the samples; a shard of another run counts as corrupt.
    """

    def __init__(self, folder: Path, num: int, batch: int, identity: str) -> None:
        self.folder, self.num, self.batch, self.identity = folder, num, batch, identity

    @property
    def ranges(self) -> Iterator[range]:
        """The indices of every shard, one after the other: a large run has too many for a list."""
        return (range(first, min(first + self.batch, self.num)) for first in range(0, self.num, self.batch))

    def path(self, indices: range) -> Path:
        """File of the samples of these indices, e.g. 000000-000063.safetensors."""
        return self.folder / f"{indices.start:06d}-{indices.stop - 1:06d}.safetensors"

    def save(self, indices: range, samples: Tensor, cost: Cost) -> None:
        """Write a shard and what it cost, whole or not at all."""
        samples = samples.detach().cpu().contiguous()
        metadata = {"run": self.identity, "sha256": _digest(samples), "record": json.dumps(asdict(cost))}
        disk.write(self.path(indices), safetensors.torch.save({"samples": samples}, metadata=metadata))

    def drop_shorter(self) -> None:
        """Remove shards of a last, smaller batch that a longer run has drawn again."""
        lasts = {indices.start: indices.stop - 1 for indices in self.found()}
        for path in self.files():
            first, last = map(int, path.stem.split("-"))
            if last < lasts.get(first, 0):
                path.unlink()

    def read(self, indices: range) -> tuple[Tensor, Cost]:
        """A shard's samples and their cost.

        Raises:
            FileNotFoundError: if there is none. WeightsError: if it is corrupt or of another run.
        """
        path = self.path(indices)
        if not path.exists():
            raise FileNotFoundError(path)
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                metadata, samples = file.metadata() or {}, file.get_tensor("samples")
            cost = Cost(**json.loads(metadata["record"]))
        except (safetensors.SafetensorError, OSError, KeyError, ValueError, TypeError, RecursionError) as error:
            raise WeightsError(f"{path} is corrupt") from error
        told = all(isinstance(figure, int | float) for figure in asdict(cost).values())
        if not told or len(samples) != len(indices) or metadata.get("sha256") != _digest(samples):
            raise WeightsError(f"{path} is corrupt")
        if metadata.get("run") != self.identity:
            raise WeightsError(f"{path} is of another run")
        return samples, cost

    def __iter__(self) -> Iterator[tuple[range, Tensor, Cost]]:
        """All shards in order."""
        for indices in self.ranges:
            yield indices, *self.read(indices)

    def found(self) -> list[range]:
        """The indices of the shards of this run that are there, in order."""
        firsts = sorted(int(path.stem.split("-")[0]) for path in self.files())
        whole = (range(a, min(a + self.batch, self.num)) for a in firsts if a < self.num and a % self.batch == 0)
        return [indices for indices in dict.fromkeys(whole) if self.path(indices).exists()]

    def files(self) -> list[Path]:
        """The shards that are there, of this run or an earlier one."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if _NAME.fullmatch(path.name))


def _digest(samples: Tensor) -> str:
    return hashlib.sha256(samples.contiguous().view(torch.uint8).numpy().data).hexdigest()
