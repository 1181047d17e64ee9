"""What a result depends on beyond its settings."""

import platform

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
