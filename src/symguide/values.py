"""Values as they are typed: text is read by the type hint of what it is for, and nothing is evaluated.

    window: tuple[float, float] | Callable     0.2,0.7
    update: Rule | None                        none, or rho(0.2), or chain(clip(1.0), normalise())

`plain` gives what YAML can hold, and `build` makes of that what Python code would be given.
"""

import math
import re
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from symguide.errors import ConfigError, unknown
from symguide.registry import from_plain, read

MOST = 100_000
"""Most steps, calls and other repetitions of one thing; far more than any run has, and few enough to plan."""

_CALL = re.compile(r"\s*[A-Za-z_][\w.]*\s*\(.*\)\s*", re.DOTALL)
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class Between(NamedTuple):
    """In an annotation: the ends of a number's range."""

    least: float
    most: float = math.inf


class OneOf(NamedTuple):
    """In an annotation: a name of a registry, "module:NAMES" or what gives the names, looked up when one is given."""

    kind: str
    where: str | Callable[[], Iterable[str]]

    def names(self) -> Iterable[str]:
        if not isinstance(self.where, str):
            return self.where()
        module, _, name = self.where.partition(":")
        names: Iterable[str] = getattr(import_module(module), name)
        return names


class Pairs(dict[str, Any]):
    """In an annotation: values by name, label=3 or style=a,b; those of a list go to the samples in turn."""


class _Other(Exception):
    """The text is none of the kind."""


def plain(text: str, kind: Any, what: str) -> Any:
    """The value of a text as YAML holds it: None, a truth value, a number, text, or a list of these.

    Args:
        text: as it was typed.
        kind: the type hint.
        what: its name, for errors.

    Raises:
        ConfigError: for text that is no value of the kind.

    >>> plain("0.2,0.7", tuple[float, float] | None, "window"), plain("none", float | None, "scale")
    ([0.2, 0.7], None)
    """
    try:
        return _read(text, kind)
    except _Other:
        shown = text if len(text) <= 80 else text[:77] + "..."
        raise ConfigError(f"{what} takes {describe(kind)}, not {shown!r}") from None


def _read(text: str, kind: Any) -> Any:
    text, origin, inner = text.strip() if kind is not str else text, get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _bounded(_read(text, inner[0]), inner[1:]) if inner[0] is not int else _whole(text, *inner[1:])
    if origin in (Union, types.UnionType):
        return _first(text, sorted(inner, key=_looseness))
    if origin is Literal:
        return _one(text, {str(value): value for value in inner})
    if kind is None or kind is type(None):
        return _one(text.lower(), {"none": None, "null": None})
    if kind is bool:
        return _one(text.lower(), _WORDS)
    if kind is int:
        return _whole(text, Between(-MOST, MOST))
    if kind is float:
        return _number(text)
    if kind is str or kind is Any:
        return text
    if kind is Pairs:
        return _pairs(text, words=True)
    if origin in (tuple, list) or origin is Sequence:
        parts = text.strip("()[]").split(",")
        each = list(inner) if origin is tuple and inner[-1] is not ... else [inner[0]] * len(parts)
        if len(parts) != len(each):
            raise _Other
        return [_read(part.strip(), one) for part, one in zip(parts, each, strict=True)]
    if origin is Mapping:
        name, numbers = _pairs(text)
        return {name: numbers[0] if len(numbers) == 1 else numbers}
    if _CALL.fullmatch(text):
        read(text)
        return text
    if kind is _constraint():
        return _number(text)  # the rate of a sphere
    if kind is _denoiser():
        return text  # the name of a model
    raise _Other


def _looseness(kind: Any) -> int:
    """Types that take more texts are tried later."""
    order = [type(None), bool, int, float]
    return order.index(kind) if kind in order else 9 if kind is str else 5


def _first(text: str, kinds: Sequence[Any]) -> Any:
    for kind in kinds:
        with suppress(_Other):
            return _read(text, kind)
    raise _Other


def _one(text: str, values: Mapping[str, Any]) -> Any:
    if text not in values:
        raise _Other
    return values[text]


def _whole(text: str, bounds: Any = None, *_: Any) -> int:
    if not re.fullmatch(r"[+-]?\d{1,40}", text):
        raise _Other
    value: int = _bounded(int(text), [bounds])
    return value


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise _Other from None
    if not math.isfinite(value):
        raise _Other
    return value


def _bounded(value: Any, extra: Sequence[Any]) -> Any:
    for each in extra:
        if isinstance(each, Between) and not each.least <= value <= each.most:
            raise _Other
        if isinstance(each, OneOf) and value not in (names := list(each.names())):
            raise unknown(each.kind, value, names)
    return value


def _pairs(text: str, words: bool = False) -> tuple[str, Any]:
    """A name and its numbers, or with `words` its numbers and words; "#ff0000" is a word."""
    name, equals, rest = text.partition("=")
    if not equals or not name.strip():
        raise _Other
    values = [_value(part.strip(), words) for part in rest.split(",")]
    if any(isinstance(value, float) for value in values):
        values = [float(value) if isinstance(value, int) else value for value in values]
    return name.strip(), values


def _value(text: str, words: bool) -> int | float | str:
    if re.fullmatch(r"[+-]?\d+", text):
        return _whole(text, Between(-(2**63), 2**63 - 1))
    if words and re.fullmatch(r"#[0-9a-fA-F]+|[A-Za-z][\w-]*", text) and text.lower() not in ("nan", "inf", "infinity"):
        return text
    return _number(text)


def describe(kind: Any) -> str:
    """What values a type hint takes, in words.

    >>> describe(Annotated[int, Between(1, 100_000)] | None), describe(Literal["exact", "first"])
    ('a whole number from 1 to 100,000 or none', 'exact or first')
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        names = [each.kind for each in inner[1:] if isinstance(each, OneOf)]
        return f"the name of a {names[0]}" if names else describe(inner[0]) + _range(inner[1:])
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(describe(each) for each in sorted(inner, key=lambda k: k is type(None))))
    if origin is Literal:
        return " or ".join(map(str, inner))
    if origin is tuple and inner[-1] is not ...:
        return f"{len(inner)} values with commas between ({', '.join(map(describe, inner))})"
    if origin in (tuple, list, Sequence):
        return f"values with commas between ({describe(inner[0])})"
    words = {type(None): "none", bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}
    if kind in words:
        return words[kind]
    if kind is Pairs or origin is Mapping:
        return "name=VALUE or name=VALUE,VALUE" if kind is Pairs else "name=NUMBER or name=NUMBER,NUMBER"
    return "a rule such as rho(0.2)"


def _range(extra: Sequence[Any]) -> str:
    for each in extra:
        if isinstance(each, Between):
            ends = f"{each.least:,} to {each.most:,}"
            return f" from {ends}" if each.most < math.inf else f" of at least {each.least:,}"
    return ""


def metavar(kind: Any) -> str:
    """A type in one word, for --help.

    >>> metavar(Annotated[int, Between(1)]), metavar(Literal["raise", "skip"])
    ('N', 'raise|skip')
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return "NAME" if any(isinstance(each, OneOf) for each in inner[1:]) else metavar(inner[0])
    if origin in (Union, types.UnionType):
        return "|".join(dict.fromkeys(metavar(each) for each in inner if each is not type(None)))
    if origin is Literal:
        return "|".join(map(str, inner))
    if origin is tuple:
        return ",".join(map(metavar, inner))
    return {int: "N", float: "NUMBER", str: "TEXT", bool: "true|false"}.get(kind, "RULE")


def words(kind: Any) -> int:
    """How many words of the command line a value takes as an option of its own: none for a flag, two for a window."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return words(inner[0])
    if origin in (Union, types.UnionType):
        return max((words(each) for each in inner if each is not type(None)), default=1)
    return 0 if kind is bool else len(inner) if origin is tuple and inner[-1] is not ... else 1


def is_mapping(kind: Any) -> bool:
    """Whether a value has names with values."""
    return kind is Pairs or any(get_origin(arm) is Mapping for arm in _arms(kind))


def _arms(kind: Any) -> Collection[Any]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else [kind]


def _constraint() -> Any:
    from symguide.loss_guidance.recipe import Constraint

    return Constraint


def _denoiser() -> Any:
    from symguide.denoiser import Denoiser

    return Denoiser


def build(value: Any, kind: Any) -> Any:
    """What Python is given for a plain value: `from_plain`; for a constraint's number a sphere, for a name a model."""
    if kind is _denoiser():
        from symguide.worlds.load import load

        return load(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and _constraint() in _arms(kind):
        return read(f"Sphere({value!r})")
    return from_plain(value)


def device(name: str) -> Any:
    """The device of that name; ConfigError where there is none such, or it does not work here."""
    import torch

    try:
        found = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"{name!r} is no device: use cpu, cuda, cuda:0, mps or the like") from None
    try:
        torch.zeros(1, device=found).cpu()
    except (RuntimeError, AssertionError, NotImplementedError, ValueError) as error:
        first = str(error).strip().splitlines()[0].rstrip(".")
        raise ConfigError(f"device {name!r} cannot be used here ({first}): use --device cpu") from error
    return found
