"""The error for a part of a library that is not there."""

from importlib import import_module
from typing import Any

from symguide.errors import ConfigError


def missing(name: str, use: str) -> ConfigError:
    """The error for what a library lacks.

    Args:
        name: of what is missing, which begins with the library's.
        use: what symguide needs it for.
    """
    library = name.split(".")[0]
    version = getattr(import_module(library), "__version__", "(of an unknown version)")
    return ConfigError(
        f"{library} {version} has no {name}, which symguide needs {use}: install a version that docs/versions.md names"
    )


def fetched(name: str, use: str) -> Any:
    """What a dotted name stands for: a module and an attribute of it.

    Raises:
        ConfigError: where it is missing.

    >>> fetched("json._pi", "for circles")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    symguide.errors.ConfigError: json 2.0.9 has no json._pi, which symguide needs for circles: install a ver...
    """
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise missing(name, use) from error


def attribute(thing: Any, name: str, of: str, use: str) -> Any:
    """An attribute of an instance; ConfigError where it is missing. `of` is the dotted name of its class."""
    try:
        return getattr(thing, name)
    except AttributeError as error:
        raise missing(f"{of}.{name}", use) from error
