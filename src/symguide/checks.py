"""Numbers that users give: taken where they are such (numpy's too), refused in a sentence where not."""

import math
from numbers import Real
from typing import Any

from torch import Tensor

from symguide.errors import ConfigError


def number(
    what: str, value: Any, *, least: float | None = None, above: float | None = None, most: float | None = None
) -> float:
    """A finite number within these bounds, as a float.

    >>> number("scale", "0.5")
    Traceback (most recent call last):
    symguide.errors.ConfigError: scale must be a finite number, not '0.5'
    >>> number("rate", 1.5, least=0, most=1)
    Traceback (most recent call last):
    symguide.errors.ConfigError: rate must be between 0 and 1, not 1.5
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ConfigError(f"{what} must be a finite number, not {shown(value)}")
    value = float(value)
    if least is not None and most is not None and not least <= value <= most:
        raise ConfigError(f"{what} must be between {least:g} and {most:g}, not {value:g}")
    if least is not None and value < least:
        raise ConfigError(f"{what} must not be {f'below {least:g}' if least else 'negative'}, and is {value:g}")
    if above is not None and not value > above:
        raise ConfigError(f"{what} must be {f'above {above:g}' if above else 'positive'}, not {value:g}")
    return value


def whole(what: str, value: Any, least: int = 1) -> int:
    """A whole number, at least this.

    >>> whole("repeats", float("inf"))
    Traceback (most recent call last):
    symguide.errors.ConfigError: repeats must be a whole number, at least 1, not inf
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not float(value).is_integer() or value < least:
        raise ConfigError(f"{what} must be a whole number, at least {least}, not {shown(value)}")
    return int(float(value))


def shown(value: Any) -> str:
    """A value in a sentence; a tensor by its shape."""
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)[:80]
