"""The output folder: folders that are whole or not there, leftovers, the lock, and figures as JSON."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from symguide.errors import ConfigError
from symguide.files import replacing, temporary

_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{32}\.tmp")


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which takes its name (and the place of an older one) when all is written."""
    draft, old = temporary(path), temporary(path)
    try:
        draft.mkdir()
        yield draft
        if path.exists():
            os.rename(path, old)
        os.rename(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            with suppress(FileNotFoundError):
                os.rename(old, path)


def sweep(folder: Path) -> None:
    """Remove what a killed process left unfinished in the folder."""
    for left in folder.iterdir():
        if _TEMPORARY.fullmatch(left.name):
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder for this process alone, where the system has such locks; ConfigError if another one holds it."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another run is writing to {folder}: wait for it, or choose another --out") from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)


def write_json(to: str, figures: Any) -> None:
    """Figures as JSON to a file, or to stdout with "-"."""
    text = json.dumps(figures, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if to == "-":
        click.echo(text, nl=False)
        return
    with replacing(Path(to)) as file:
        file.write(text.encode())
