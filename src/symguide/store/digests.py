"""What tells the things that a run is made of from their later selves: digests of files, folders and hub commits."""

import hashlib
from pathlib import Path

from symguide.errors import ConfigError
from symguide.networks import io


def of_file(path: Path) -> str:
    """Of all that is in a file.

    Raises:
        ConfigError: if it cannot be read.
    """
    digest = hashlib.sha256()
    if path.exists() and not path.is_file():
        raise ConfigError(f"cannot read {path}: it is no file")
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    return digest.hexdigest()


def of_network(folder: str | Path) -> str:
    """Of a network's config and weights; where it is one file, of that."""
    if Path(folder).is_file():
        return of_file(Path(folder))
    return hashlib.sha256(
        "".join(of_file(Path(folder) / name) for name in (io.CONFIG, io.WEIGHTS)).encode()
    ).hexdigest()


def of_encoder(name: str) -> dict[str, str]:
    """Of the files of its folder, by their path; its commit by its id, where it was loaded from the hub."""
    if not Path(name).is_dir():
        from huggingface_hub import try_to_load_from_cache

        return {name: Path(str(try_to_load_from_cache(name, "config.json"))).parent.name}
    return {str(path): of_file(path) for path in sorted(Path(name).iterdir()) if path.is_file()}


def of_pipeline(folder: Path) -> str:
    """Of a pipeline's configs, and of the names and sizes of its other files: its weights may be many gigabytes."""
    lines = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in inside.parts):  # caches of downloads
            told = of_file(path) if path.suffix == ".json" else path.stat().st_size
            lines.append(f"{inside.as_posix()} {told}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()
