"""Ranges of parameters: where a search may look for a value. Recipes say theirs, and `symguide.tune` searches them.

A range asks an Optuna trial for its value, so nothing here imports Optuna.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from symguide.errors import ConfigError

DIGITS = 3
"""Significant digits of a number that is drawn from a range: more are noise, and long to read in a config."""


class Domain(Protocol):
    """Where the value of one parameter may lie."""

    def suggest(self, trial: Any, name: str) -> Any:
        """A value, asked of an Optuna trial under this name."""

    def asked(self, name: str, value: Any) -> dict[str, Any] | None:
        """What the trial would have been asked for this value; None where it lies outside."""

    def ends(self) -> Sequence[Any]:
        """Values at its ends, which a recipe must be able to take."""


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both among them; whole ones where both are, evenly in the logarithm with log.

    >>> Range(1, 8).whole, Range(0.1, 8.0, log=True).whole
    (True, False)
    >>> Range(0.0, 1.0, log=True)
    Traceback (most recent call last):
    symguide.errors.ConfigError: a range with log needs a low end above 0, not 0.0
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ConfigError(f"a range is two finite numbers, low < high, not {self.low} and {self.high}")
        if self.log and not self.low > 0:
            raise ConfigError(f"a range with log needs a low end above 0, not {self.low}")

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def suggest(self, trial: Any, name: str) -> float:
        if self.whole:
            return int(trial.suggest_int(name, self.low, self.high, log=self.log))
        value = float(f"{trial.suggest_float(name, self.low, self.high, log=self.log):.{DIGITS}g}")
        return min(max(value, self.low), self.high)

    def asked(self, name: str, value: Any) -> dict[str, Any] | None:
        number = isinstance(value, int if self.whole else int | float) and not isinstance(value, bool)
        return {name: value} if number and self.low <= value <= self.high else None

    def ends(self) -> Sequence[Any]:
        return self.low, self.high


@dataclass(frozen=True)
class Around:
    """From default / factor to default * factor, evenly in the logarithm: a range that goes with a default."""

    factor: float

    def of(self, default: float) -> Range:
        return Range(float(f"{default / self.factor:.{DIGITS}g}"), float(f"{default * self.factor:.{DIGITS}g}"), True)


class Choice:
    """One of some values; numbers that grow are searched as neighbours.

    >>> Choice("exact", "first").ends()
    ('exact', 'first')
    """

    def __init__(self, *values: Any) -> None:
        if not values or len(set(map(repr, values))) < len(values):
            raise ConfigError(f"a choice is among values that differ, at least one, not {', '.join(map(str, values))}")
        self.values = values
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        self._ordered = numbers and list(values) == sorted(values)

    def __repr__(self) -> str:
        return f"Choice({', '.join(map(repr, self.values))})"

    def suggest(self, trial: Any, name: str) -> Any:
        places = range(len(self.values))
        if self._ordered:
            return self.values[trial.suggest_int(name, 0, places[-1])]
        return self.values[trial.suggest_categorical(name, list(places))]

    def asked(self, name: str, value: Any) -> dict[str, Any] | None:
        return {name: self.values.index(value)} if value in self.values else None

    def ends(self) -> Sequence[Any]:
        return self.values


@dataclass(frozen=True)
class Maybe:
    """None, or a number of the range."""

    range: Range

    def suggest(self, trial: Any, name: str) -> float | None:
        # the number is asked for even where it is not used, so that every trial knows the same names
        value = self.range.suggest(trial, name)
        return value if trial.suggest_categorical(f"{name}?", [False, True]) else None

    def asked(self, name: str, value: Any) -> dict[str, Any] | None:
        number = self.range.asked(name, self.range.low if value is None else value)
        return None if number is None else {**number, f"{name}?": value is not None}

    def ends(self) -> Sequence[Any]:
        return None, *self.range.ends()


@dataclass(frozen=True)
class Window:
    """A window (start, stop), each from a range of its own."""

    start: Range
    stop: Range

    def __post_init__(self) -> None:
        if not self.start.high < self.stop.low:
            raise ConfigError(
                f"a window's start must stay before its stop, and {self.start.high} is not below {self.stop.low}"
            )

    def suggest(self, trial: Any, name: str) -> tuple[float, float]:
        return self.start.suggest(trial, f"{name}.start"), self.stop.suggest(trial, f"{name}.stop")

    def asked(self, name: str, value: Any) -> dict[str, Any] | None:
        ends = [self.start.asked(f"{name}.start", value[0]), self.stop.asked(f"{name}.stop", value[1])]
        return None if None in ends else {k: v for end in ends if end is not None for k, v in end.items()}

    def ends(self) -> Sequence[Any]:
        return (self.start.low, self.stop.high), (self.start.high, self.stop.low)


def as_domain(given: Any) -> Domain:
    """A domain, or a list or tuple of values as a choice.

    Raises:
        ConfigError: for anything else.
    """
    if isinstance(given, list | tuple | range):
        return Choice(*given)
    if not hasattr(given, "suggest"):
        raise ConfigError(f"a range is Range(low, high), with log=True or without, or a list of values, not {given!r}")
    domain: Domain = given
    return domain


Ranges = Mapping[str, Domain | Around]
