"""Errors: each says in one sentence what is wrong and what to do."""

import math
import operator
from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Real
from typing import Any


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
    names = sorted(set(known))
    close = get_close_matches(str(name), names, n=2, cutoff=0.5)
    hint = ": did you mean " + " or ".join(repr(c) for c in close) + "?" if close else ""
    return ConfigError(f"unknown {kind} {str(name)!r}{hint} (known: {', '.join(names)})")


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


def number(
    value: Any, what: str, *, least: float | None = None, above: float | None = None, most: float | None = None
) -> float:
    """A finite number within these bounds as Python's own, numpy's too; ConfigError for anything else.

    >>> number("0.5", "scale")
    Traceback (most recent call last):
    symguide.errors.ConfigError: scale must be a finite number, not '0.5'
    """
    if not is_number(value) or not math.isfinite(value):
        raise ConfigError(f"{what} must be a finite number, not {value!r}")
    value = float(value)
    if least is not None and most is not None and not least <= value <= most:
        raise ConfigError(f"{what} must be between {least:g} and {most:g}, not {value:g}")
    if least is not None and value < least:
        raise ConfigError(f"{what} must not be {f'below {least:g}' if least else 'negative'}, and is {value:g}")
    if above is not None and not value > above:
        raise ConfigError(f"{what} must be {f'above {above:g}' if above else 'positive'}, not {value:g}")
    return value


def settle(value: object, **fields: Any) -> None:
    """Sets fields of a frozen dataclass, in its `__post_init__` alone, to what was checked or follows from others."""
    for name, field in fields.items():
        object.__setattr__(value, name, field)
