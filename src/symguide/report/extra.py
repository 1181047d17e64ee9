"""The packages of the optional extra `report`, imported when they are needed and not before."""

from importlib import import_module
from typing import Any

from symguide.errors import ConfigError


def extra(module: str, what: str) -> Any:
    """The module, or a ConfigError that says how to get it.

    >>> extra("no_such_module", "a page")
    Traceback (most recent call last):
    symguide.errors.ConfigError: a page needs no_such_module: pip install "symguide[report]"
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(f'{what} needs {module.split(".")[0]}: pip install "symguide[report]"') from error
