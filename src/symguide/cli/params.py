"""Types of options beyond click's own: finite numbers, names of a registry, memory plans, name=value conditions."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from symguide.errors import unknown

Numbers = list[int] | list[float]


class Finite(click.FloatRange):
    """A finite number within a range."""

    name = "number"

    def _describe_range(self) -> str:
        return super()._describe_range() if self.min is not None or self.max is not None else ""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


SAMPLES = 2**32
"""Most samples of a run: a pipeline's generators tell so many apart."""
REPETITIONS = 100_000
"""Most steps, calls and other repetitions of one thing; far more than any run has, and few enough to plan."""


class Count(click.IntRange):
    """A whole number of at least `least`; one beyond `most` is a slip of the pen, and would be planned for hours.

    >>> Count(1).convert("16", None, None)
    16
    """

    def __init__(self, least: int, most: int = REPETITIONS) -> None:
        super().__init__(least)
        self.most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        number: int = super().convert(value, param, ctx)
        if number > self.most:
            self.fail(f"{str(value)[:40]} is more than {self.most:,}.", param, ctx)
        return number


class JsonFile(click.ParamType):
    """A file that can be written, or - for stdout; what cannot be is said before anything is computed."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        path = Path(value)
        if value != "-" and (not path.name or path.is_dir() or not path.parent.is_dir()):
            self.fail(f"{value!r} is no file in a folder that exists; - is stdout.", param, ctx)
        return str(value)


class Name(click.ParamType):
    """A name of a registry, which is imported only when there is a name to look up."""

    name = "name"

    def __init__(self, kind: str, known: Callable[[], Iterable[str]]) -> None:
        self.kind, self.known = kind, known

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        known = list(self.known())
        if value not in known:
            raise unknown(self.kind, value, known)
        return str(value)


class Memory(click.ParamType):
    """A memory plan: a word, auto:SIZE, or a number of graphs to keep."""

    name = "plan"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        from symguide.errors import ConfigError
        from symguide.memory_plan import check_memory

        try:
            return check_memory(int(value) if len(str(value)) < 10 and str(value).isdecimal() else value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


class Bytes(click.ParamType):
    """A size of memory in bytes: 16GB, 500MB, 2GiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from symguide.meter import parse_bytes

        count = value if isinstance(value, int) else parse_bytes(value)
        if count is None or count <= 0:
            self.fail(f"{value!r} is not a size such as 16GB.", param, ctx)
        return count


class Size(click.ParamType):
    """Pixels: 768x512 is height x width, 512 is both.

    >>> Size().convert("768x512", None, None), Size().convert("512", None, None)
    ((768, 512), (512, 512))
    """

    name = "pixels"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        parts = str(value).lower().split("x")
        if len(parts) > 2 or not all(len(part) < 10 and part.strip().isdecimal() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} is not a size such as 512 or 768x512.", param, ctx)
        return int(parts[0]), int(parts[-1])


class Condition(click.ParamType):
    """name=value, where value is a number or a comma list of numbers.

    >>> Condition().convert("label=0,1,2", None, None)
    ('label', [0, 1, 2])
    """

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Numbers]:
        if isinstance(value, tuple):
            return value
        name, equals, rest = str(value).partition("=")
        if not equals or not name.strip():
            self.fail(f"{value!r} is not name=value, such as label=3 or label=0,1,2.", param, ctx)
        parts = [part.strip() for part in rest.split(",")]
        try:
            whole = [int(part) for part in parts]
        except ValueError:
            pass
        else:
            if max(map(abs, whole)) >= 2**63:
                self.fail(f"the value of {name.strip()} has more than 64 bits.", param, ctx)
            return name.strip(), whole
        try:
            numbers = [float(part) for part in parts]
        except ValueError:
            self.fail(f"the value of {name.strip()} is a number or a comma list of numbers, not {rest!r}.", param, ctx)
        if not all(map(math.isfinite, numbers)):
            self.fail(f"the value of {name.strip()} must be finite, not {rest!r}.", param, ctx)
        return name.strip(), numbers


class Seeds(click.ParamType):
    """Seeds as a comma list.

    >>> Seeds().convert("7,8", None, None)
    (7, 8)
    """

    name = "seeds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a comma list of whole numbers, such as 1000,1001.", param, ctx)
