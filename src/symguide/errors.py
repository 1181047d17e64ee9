"""Errors: each says in one sentence what is wrong and what to do."""

import operator
from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Real


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


def is_number(value: object) -> bool:
    """Whether a value is one real number: Python's or numpy's, and no truth value.

    >>> is_number(0.5), is_number(True), is_number("1")
    (True, False, False)
    """
    return isinstance(value, Real) and not isinstance(value, bool)


def whole(value: object, what: str, least: int | None = None, of: str = "") -> int:
    """A whole number as Python's own, numpy's and torch's too; ConfigError for anything else, or one below `least`.

    >>> whole(3.0, "steps")
    Traceback (most recent call last):
    symguide.errors.ConfigError: steps must be a whole number, not 3.0
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        number = None
    if number is None or (least is not None and number < least):
        bound = "" if least is None else f", at least {least}"
        raise ConfigError(f"{what} must be a whole number{of and f' of {of}'}{bound}, not {value!r}")
    return number
