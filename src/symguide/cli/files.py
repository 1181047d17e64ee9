"""The output folder: folders that are whole or not there, leftovers, the lock, and figures as JSON."""

import json
import os
import re
import shutil
import time
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
def locked(path: Path, what: object = None, wait: float = 0.0) -> Iterator[None]:
    """A folder, or a file that is made for it, for this process alone, where the system has such locks.

    Args:
        path: of the folder or file.
        what: it is, for the error; the path itself where not given.
        wait: seconds to wait for another process that has it.

    Raises:
        ConfigError: if another process has it.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT)
    try:
        until = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise ConfigError(
                        f"another run is writing to {what or path}: wait for it, or choose another --out"
                    ) from None
                time.sleep(0.05)
                continue
            except OSError:
                pass  # a file system without locks
            break
        yield
    finally:
        os.close(handle)


def in_use(path: Path) -> bool:
    """Whether another process holds the lock of a file."""
    try:
        with locked(path):
            return False
    except ConfigError:
        return True


def write_json(to: str, figures: Any) -> None:
    """Figures as JSON to a file, or to stdout with "-"."""
    text = json.dumps(figures, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if to == "-":
        click.echo(text, nl=False)
        return
    with replacing(Path(to)) as file:
        file.write(text.encode())
