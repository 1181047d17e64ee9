"""What the registries say of methods and their settings, by name: kinds, types, and where a search looks."""

import inspect
from collections.abc import Collection, Mapping
from typing import Any

from symguide.errors import ConfigError, unknown
from symguide.registry import Parameter, registry_of
from symguide.registry import parameters as signature

LOSS, PREDICTION, PARTICLES, TRAJECTORY = KINDS = (
    "loss guidance",
    "prediction guidance",
    "particle guidance",
    "trajectory optimisation",
)

ALIASES = {"lookahead_solver": "solver", "lookahead_grid": "grid", "sphere": "constraint"}
"""Settings and the methods' parameters that they are: the run has a solver and a grid of its own."""


def of_a_rule(name: str) -> list[str]:
    """The parameters of a method that take a rule for the prediction, which is the run's."""
    taken = signature(registry_of(kind_of(name))[name])
    return [key for key, each in taken.items() if inspect.isclass(each.kind) and hasattr(each.kind, "calls")]


def every() -> list[str]:
    """The names of all methods that guide steps."""
    return [name for kind in (LOSS, PREDICTION, PARTICLES) for name in registry_of(kind)]


def kind_of(name: str) -> str:
    """The kind of guidance that a method is; ConfigError for those that guide no step, and unknown names."""
    if name in registry_of(TRAJECTORY):
        raise ConfigError(f"{name} optimises whole trajectories and guides no step: call sg.optimise from Python")
    for kind in (LOSS, PREDICTION, PARTICLES):
        if name in registry_of(kind):
            return kind
    raise unknown("method", name, every())


def parameters(name: str) -> dict[str, Parameter]:
    """What a method takes beside what the run gives it: an objective, and another rule.

    >>> parameters("dsg")["rate"].default, "scale" in parameters("dsg")
    (0.1, False)
    """
    found = signature(registry_of(kind_of(name))[name])
    return {key: parameter for key, parameter in found.items() if key not in ("objective", *of_a_rule(name))}


def ranges(name: str) -> Mapping[str, Any]:
    """Where a search looks for the values of a method's parameters."""
    return {key: p.domain for key, p in parameters(name).items() if p.domain is not None}


def parameter_of(setting: str) -> str:
    """The parameter that a setting of methods is."""
    own = setting.rpartition(".")[2]
    return ALIASES.get(own, own)


def settings() -> Collection[str]:
    """The names of all settings of all methods."""
    return dict.fromkeys([*ALIASES, *(key for name in every() for key in parameters(name))])


def kind_of_setting(name: str) -> Any:
    """The type of a method's setting, plain or with its method before it; None where no method has it."""
    method = name.rpartition(".")[0]
    found = [parameters(each).get(parameter_of(name)) for each in ([method] if method else every())]
    return next((parameter.kind for parameter in found if parameter is not None), None)


def weighs_condition(name: str) -> bool:
    """Whether a method's scale weighs the prediction with the condition against one without: --cfg."""
    return kind_of(name) == PREDICTION and "negative" in parameters(name)
