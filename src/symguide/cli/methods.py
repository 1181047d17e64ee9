"""What the registered methods take: their parameters, which options of the command line set them, and their docs."""

import inspect
import re
from collections.abc import Mapping
from typing import Any

from symguide.errors import ConfigError, unknown
from symguide.loss_guidance import RECIPES, Recipe, Sphere
from symguide.particle_guidance import METHODS
from symguide.prediction_guidance import RULES, TwoBranches
from symguide.solver import choose
from symguide.trajectory import TRAJECTORIES

KINDS: dict[str, Mapping[str, Any]] = {
    "loss guidance": RECIPES,
    "prediction guidance": RULES,
    "particle guidance": METHODS,
    "trajectory optimisation": TRAJECTORIES,
}

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
    "form": "form",
}
"""Options of the command line and the parameters of recipes that they set."""


def flag(option: str) -> str:
    """An option as it is typed."""
    return "--" + option.replace("_", "-")


def parameters(method: type) -> dict[str, Any]:
    """Parameters of a method with their defaults.

    >>> parameters(RECIPES["dsg"])["rate"], "scale" in parameters(RECIPES["dsg"])
    (0.1, False)
    """
    signature = inspect.signature(method).parameters.values()
    return {p.name: p.default for p in signature if p.default is not p.empty}


def make_rule(name: str | None, scale: float | None) -> TwoBranches | None:
    """The rule of that name (cfg where only a scale is given) and weight; None where neither is given.

    Raises ConfigError for a weight that the rule does not take.
    """
    if name is None and scale is None:
        return None
    kind = RULES[name or "cfg"]
    return kind(parameters(kind)["scale"] if scale is None else scale)


def get_recipe(name: str) -> type[Recipe]:
    """The loss-guidance recipe of that name.

    Raises ConfigError for an unknown name, and for other kinds of guidance, which have options of their own.
    """
    if name in RULES:
        how = "--cfg SCALE" if name == "cfg" else f"--rule {name}, and --cfg SCALE"
        raise ConfigError(f"{name} makes the prediction and is no gradient method: use {how}")
    if name in METHODS:
        raise ConfigError(f"{name} chooses among particles and is no gradient method: use --best-of N")
    if name in TRAJECTORIES:
        raise ConfigError(f"{name} optimises whole trajectories and guides no step: call sg.optimise from Python")
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
