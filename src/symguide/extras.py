"""Packages of the optional extras, imported when they are needed and not before."""

from importlib import import_module
from typing import Any

from symguide.errors import ConfigError


def library(module: str, what: str, extra: str) -> Any:
    """The module, or a ConfigError that says how to get it.

    Args:
        module: its name; of what it imports itself the one that is missing is named too.
        what: needs it.
        extra: of symguide that brings it.

    >>> library("no_such_module", "a page", "report")
    Traceback (most recent call last):
    symguide.errors.ConfigError: a page needs no_such_module: pip install "symguide[report]"
    """
    try:
        return import_module(module)
    except ImportError as error:
        package, missing = module.split(".")[0], (error.name or module).split(".")[0]
        needs = package if missing == package else f"{package} and {missing}"
        raise ConfigError(f'{what} needs {needs}: pip install "symguide[{extra}]"') from error
