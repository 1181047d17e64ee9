"""Conditions of a network: with a row for every sample, on its device, in its floating type."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from symguide.errors import ConfigError


def expand_condition(
    condition: Mapping[str, Any] | None, batch: int, device: torch.device, particles: int = 1, graph: bool = False
) -> dict[str, Any]:
    """Conditions with one row for every row of the batch: a number counts for all samples, a list is one for each.

    With `graph` they keep theirs; else nothing is saved for their sake.
    """
    out = {}
    for name, value in (condition or {}).items():
        rows = rows_of(value, device)
        rows = rows.detach() if isinstance(rows, Tensor) and not graph else rows
        if isinstance(rows, Tensor):
            if rows.ndim == 0:
                rows = rows.expand(batch)
            if len(rows) not in (1, batch):
                raise ConfigError(
                    f"condition {name!r} has {len(rows)} rows for a batch of {batch}: give one for each sample"
                )
            rows = rows.expand(batch, *rows.shape[1:])
        out[name] = rows
    return repeat_rows(out, particles)


def repeat_rows(condition: Mapping[str, Any], k: int) -> dict[str, Any]:
    """Conditions with k rows in the place of every row, those of a row together; what is no tensor stays."""
    return {name: v.repeat_interleave(k, dim=0) if isinstance(v, Tensor) else v for name, v in condition.items()}


def rows_of(value: Any, device: torch.device) -> Any:
    """Numbers, lists and arrays as tensors on the device, and tensors there; anything else as it is."""
    if isinstance(value, list | tuple | range | np.ndarray):
        return torch.as_tensor(value, device=device)
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, int | float):
        return scalar(value, torch.as_tensor(value).dtype, device)
    if isinstance(value, Tensor):
        return (value.clone() if value.is_inference() else value).to(device)  # of inference mode: no part of a graph
    return value


def scalar(value: float | Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A number as a tensor of its device, made there: copying it would wait for a GPU."""
    if isinstance(value, Tensor):
        return value.to(device, dtype)
    return torch.full((), value, dtype=dtype, device=device)


def as_floats_of(value: Any, dtype: torch.dtype) -> Any:
    """Conditions such as text embeddings, in the network's own floating type; labels and others as they are."""
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
