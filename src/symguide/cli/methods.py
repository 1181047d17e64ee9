"""What the registered methods take: their parameters, which options of the command line set them, and their docs."""

import inspect
import re
from collections.abc import Mapping
from typing import Any

from symguide.errors import ConfigError, unknown
from symguide.loss_guidance import RECIPES, Recipe, Sphere
from symguide.particle_guidance import METHODS
from symguide.prediction_guidance import RULES
from symguide.solver import choose

KINDS: dict[str, Mapping[str, Any]] = {"loss": RECIPES, "prediction": RULES, "particle": METHODS}

PARAMETERS = {
    "scale": "scale",
    "window": "window",
    "repeats": "repeats",
    "n": "n",
    "memory": "memory",
    "jacobian": "jacobian",
    "lookahead_solver": "solver",
    "lookahead_grid": "grid",
    "rate": "rate",
    "samples": "samples",
    "backward_steps": "backward_steps",
    "sphere": "constraint",
}
"""Options of the command line and the parameters of recipes that they set."""


def flag(option: str) -> str:
    """An option as it is typed."""
    return "--" + option.replace("_", "-")


def parameters(method: type) -> dict[str, Any]:
    """Parameters of a method with their defaults, those that it hands on to its base classes included.

    >>> parameters(RECIPES["dsg"])["rate"], "scale" in parameters(RECIPES["dsg"])
    (0.1, False)
    """
    found: dict[str, Any] = {}
    for base in method.__mro__:
        if "__init__" not in vars(base) or base is object:
            continue
        signature = inspect.signature(base.__init__).parameters  # type: ignore[misc]
        for name, parameter in list(signature.items())[1:]:
            if name in found or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                continue
            if base is method or _takes(method, name, parameter.default):
                found[name] = parameter.default
        if not any(p.kind is p.VAR_KEYWORD for p in signature.values()):
            break
    return {name: default for name, default in found.items() if default is not inspect.Parameter.empty}


def _takes(method: type, name: str, default: Any) -> bool:
    """Whether a parameter of a base class can be given: a method that sets it itself cannot take it twice."""
    try:
        method(lambda x0: x0, **{name: default})
    except TypeError:
        return False
    except Exception:
        return True
    return True


def get_recipe(name: str) -> type[Recipe]:
    """The loss-guidance recipe of that name.

    Raises ConfigError for an unknown name, and for other kinds of guidance, which have options of their own.
    """
    if name in RULES:
        raise ConfigError(f"{name} makes the prediction and is no gradient method: use --{name} SCALE")
    if name in METHODS:
        raise ConfigError(f"{name} chooses among particles and is no gradient method: use --best-of N")
    if name not in RECIPES:
        raise unknown("method", name, RECIPES)
    return RECIPES[name]


def resolve(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a recipe: the given ones, and its defaults for the rest.

    Raises ConfigError for options that it does not take, naming the methods that do.
    """
    defaults = parameters(get_recipe(name))
    taken = {option: defaults[p] for option, p in PARAMETERS.items() if p in defaults}
    for option in given:
        if option not in taken:
            others = [other for other, recipe in RECIPES.items() if PARAMETERS[option] in parameters(recipe)]
            own = ", ".join(map(flag, taken))
            raise ConfigError(
                f"{name} does not take {flag(option)}, which belongs to {', '.join(others)}; {name} takes {own}"
            )
    settings = {**taken, **given}
    if "lookahead_solver" in settings:
        solver, grid = choose(settings["lookahead_solver"], settings.get("lookahead_grid"))
        settings |= {"lookahead_solver": solver, "lookahead_grid": grid}
    return {option: list(v) if isinstance(v, tuple) else v for option, v in settings.items() if v is not None}


def make(name: str, objective: Any, settings: Mapping[str, Any]) -> Recipe:
    """The recipe with resolved options."""
    chosen = {PARAMETERS[option]: value for option, value in settings.items()}
    if "window" in chosen:
        chosen["window"] = tuple(chosen["window"])
    if "constraint" in chosen:
        chosen["constraint"] = Sphere(chosen["constraint"])
    return get_recipe(name)(objective, **chosen)


def first_line(thing: Any) -> str:
    """The first line of a docstring."""
    lines = (inspect.getdoc(thing) or "").splitlines()
    return lines[0] if lines else ""


def cost(thing: Any) -> str:
    """What a docstring says of the cost, as one line.

    >>> cost(RECIPES["mpgd"])
    'of a guided step: 1 forward and no backward call.'
    """
    found = re.search(r"\bCost\b.*?(?=\n\s*\n|\Z)", inspect.getdoc(thing) or "", re.DOTALL)
    return re.sub(r"^Cost:? ", "", " ".join(found[0].split())) if found else ""
