"""Objectives of your own: module:Name as a callable."""

import importlib
import inspect
import os
import sys
from collections.abc import Collection
from types import ModuleType
from typing import Any

from symguide.errors import ConfigError, unknown
from symguide.specs.grammar import Term, show


def named(term: Term) -> tuple[str, str]:
    """The module and the name in it that a term module:Name, or blackbox:module:Name, stands for.

    Raises:
        ConfigError: for a term of another form.
    """
    text = term.parts[0] if len(term.parts) == 1 else ""
    if term.name != "blackbox":
        module, name = term.name, text
    else:
        module, _, name = (part.strip() for part in text.partition(":"))
    if not module or not name:
        form = "blackbox:module:Name" if term.name == "blackbox" else "module:Name"
        raise ConfigError(f"the objective {show([term])!r} must be {form}")
    return module, name


def load(term: Term, known: Collection[str]) -> Any:
    """The callable that a term names.

    A class without arguments is made, a function without arguments is called (it is a factory), anything else that is
    callable is the objective itself.

    Args:
        term: module:Name or blackbox:module:Name.
        known: names of objectives, which the module's name may have been meant to be.

    Raises:
        ConfigError: for what cannot be imported, found or called.
    """
    thing: Any = imported(term, known)
    module, where = named(term)
    for name in where.split("."):
        if not hasattr(thing, name):
            raise unknown(f"name in {module}:", name, [n for n in dir(thing) if not n.startswith("_")])
        thing = getattr(thing, name)
    return _callable(thing, f"{module}:{where}")


def imported(term: Term, known: Collection[str]) -> ModuleType:
    """The module of a term; see `load`."""
    if not term.parts and term.name not in known:
        raise unknown("objective", term.name, known)
    module, _ = named(term)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # modules of the current folder, as `python -m` has it
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(error.name + ".")):
            raise ConfigError(
                f"{unknown('objective', term.name, known)}, and there is no module {error.name!r} to import it from"
            ) from error
        raise ConfigError(f"cannot import {module}: {error}") from error
    except ImportError as error:
        raise ConfigError(f"cannot import {module}: {error}") from error


def _callable(thing: Any, text: str) -> Any:
    if not callable(thing):
        raise ConfigError(f"{text} is {type(thing).__name__}: an objective is a callable x0 -> loss (B,)")
    try:
        needed = list(inspect.signature(thing).parameters.values())
    except (TypeError, ValueError):
        return thing
    must = [p for p in needed if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if inspect.isclass(thing) and must:
        raise ConfigError(
            f"{text} is a class that needs {', '.join(p.name for p in must)}: write a function without arguments that "
            "returns one, and give that"
        )
    if not inspect.isclass(thing) and needed:
        return thing
    made = thing()
    if not callable(made):
        raise ConfigError(f"{text}() gave {type(made).__name__}: an objective is a callable x0 -> loss (B,)")
    return made
