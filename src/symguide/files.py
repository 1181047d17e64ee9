"""Files and folders that are whole or not there, written under a temporary name, then renamed; and locks on them."""

import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from symguide.errors import ConfigError

_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{32}\.tmp")


def temporary(path: Path) -> Path:
    """A name beside the path, for what is not finished."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write in pieces, which takes its name when all is written; otherwise nothing is left of it."""
    draft = temporary(path)
    try:
        with open(draft, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write(path: Path, data: str | bytes) -> Path:
    """Write a file whole or not at all, and return its path."""
    with replacing(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)
    return path


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
