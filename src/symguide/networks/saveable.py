"""Which networks a model folder may hold, and what they were made with."""

from collections.abc import Mapping, Sequence
from functools import wraps
from inspect import signature
from typing import Any, TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)

NETWORKS: dict[str, type[nn.Module]] = {}
"""Networks that a config.json may name. A class of yours joins with `@saveable`, or with `NETWORKS["Name"] = Name` if
its instances keep the keyword arguments they were made with in `.arguments`, as JSON-able values."""


def saveable(made: type[M]) -> type[M]:
    """Puts a class among NETWORKS; its instances keep the arguments of `__init__`, defaults too, in `.arguments`.

    >>> @saveable
    ... class Scaled(nn.Linear):
    ...     def __init__(self, sides=(2, 3), scale=1.0):
    ...         super().__init__(*sides)
    >>> Scaled((4, 5)).arguments
    {'sides': [4, 5], 'scale': 1.0}
    >>> NETWORKS.pop("Scaled").__name__
    'Scaled'
    """
    init: Any = made.__init__

    @wraps(init)
    def keeping(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        given = signature(init).bind(self, *args, **kwargs)
        given.apply_defaults()
        self.arguments = {name: _plain(value) for name, value in given.arguments.items() if value is not self}

    made.__init__ = keeping  # type: ignore[method-assign]
    NETWORKS[made.__name__] = made
    return made


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return list(map(_plain, value)) if isinstance(value, Sequence) and not isinstance(value, str) else value
