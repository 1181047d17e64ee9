"""What networks were made with, kept for their folders."""

from collections.abc import Mapping, Sequence
from functools import wraps
from inspect import signature
from typing import Any, TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def keeps_arguments(made: type[M]) -> type[M]:
    """A class whose instances keep the arguments of their `__init__`, defaults too, in `.arguments`, as JSON has them.

    >>> @keeps_arguments
    ... class Scaled(nn.Linear):
    ...     def __init__(self, sides=(2, 3), scale=1.0):
    ...         super().__init__(*sides)
    >>> Scaled((4, 5)).arguments
    {'sides': [4, 5], 'scale': 1.0}
    """
    init: Any = made.__init__

    @wraps(init)
    def keeping(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        given = signature(init).bind(self, *args, **kwargs)
        given.apply_defaults()
        self.arguments = {name: _plain(value) for name, value in given.arguments.items() if value is not self}

    made.__init__ = keeping  # type: ignore[method-assign]
    return made


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return list(map(_plain, value)) if isinstance(value, Sequence) and not isinstance(value, str) else value
