"""What a result depends on beyond its settings."""

import json
import os
import platform
from datetime import date
from pathlib import Path
from typing import Any

import torch

from symguide.version import __version__


def environment(device: torch.device | str = "cpu") -> dict[str, str]:
    """Versions, machine and device as short strings, to print or to keep beside results.

    >>> sorted(environment())
    ['device', 'platform', 'python', 'symguide', 'torch']
    """
    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "symguide": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": name,
    }


def machine(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Where and when a result was made: the environment, the processor and the day."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return {**environment(device), "cpu": cpu, "cores": os.cpu_count(), "date": date.today().isoformat()}


def with_machine(results: Any, device: torch.device | str = "cpu") -> str:
    """Results as the text of a JSON file that says where they were made."""
    return json.dumps({"machine": machine(device), "results": results}, indent=1) + "\n"
