"""Devices and precisions by name."""

import torch

from symguide.errors import ConfigError

DTYPES = {"float64": torch.float64, "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def usable(name: str) -> torch.device:
    """The device of that name; ConfigError where there is none such, or it does not work here."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"{name!r} is no device: use cpu, cuda, cuda:0, mps or the like") from None
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError, ValueError) as error:
        first = str(error).strip().splitlines()[0].rstrip(".")
        raise ConfigError(f"device {name!r} cannot be used here ({first}): use --device cpu") from error
    return device
