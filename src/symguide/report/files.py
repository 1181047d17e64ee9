"""Writing what a report consists of: whole files or none, with folders made on the way."""

import os
from pathlib import Path

from symguide import files


def write(path: str | os.PathLike[str], data: str | bytes) -> Path:
    """Write a file whole or not at all, make its folder where it does not exist, and return its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return files.write(path, data)
