"""Errors: each says in one sentence what is wrong and what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


class SymguideError(Exception):
    """Base of all errors that symguide raises on purpose; the command line prints it and exits with 2."""


class ConfigError(SymguideError, ValueError):
    """An argument, a name or a setting that cannot be used."""


class GuidanceError(SymguideError, RuntimeError):
    """A loss, a gradient or a step that cannot be used for guidance."""


class WeightsError(SymguideError, RuntimeError):
    """A weight file or model folder that is missing, corrupt or of another kind."""


def unknown(kind: str, name: object, known: Iterable[str]) -> ConfigError:
    """The error for a name that is in no registry, with the nearest ones suggested.

    >>> str(unknown("solver", "dddim", ["ddim", "heun"]))
    "unknown solver 'dddim': did you mean 'ddim'? (known: ddim, heun)"
    """
    names = sorted(known)
    close = get_close_matches(str(name), names, n=2, cutoff=0.5)
    hint = "did you mean " + " or ".join(repr(c) for c in close) + "? " if close else ""
    return ConfigError(f"unknown {kind} {str(name)!r}: {hint}(known: {', '.join(names)})")
