"""Methods by name with what they are given: which of them a setting belongs to, and what it is in a config.

--method sag --method apg --set n=4 --set apg.scale=10 --best-of 4
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from symguide import values
from symguide.cli.command import Word, flag
from symguide.cli.registered import (
    ALIASES,
    LOSS,
    PREDICTION,
    every,
    kind_of,
    of_a_rule,
    parameter_of,
    parameters,
    settings,
    weighs_condition,
)
from symguide.cli.settings import SAMPLE
from symguide.errors import ConfigError, unknown
from symguide.registry import registry_of
from symguide.solver import choose

_NAMES = {parameter: alias for alias, parameter in ALIASES.items()}


@dataclass(frozen=True)
class Method:
    """A registered method and its settings, as YAML has them, by parameter."""

    kind: str
    name: str
    settings: Mapping[str, Any]

    def make(self, *given: Any, **others: Any) -> Any:
        """The method itself, after what it is given first (an objective)."""
        own = parameters(self.name)
        made = {name: values.build(value, own[name].kind) for name, value in self.settings.items()}
        return registry_of(self.kind)[self.name](*given, **made, **others)


def key(method: str, parameter: str) -> str:
    """The name of a parameter's setting: with its method's before it, where it would be another's.

    >>> key("sag", "n"), key("sag", "solver"), key("apg", "scale"), key("apg", "threshold")
    ('n', 'lookahead_solver', 'cfg', 'apg.threshold')
    """
    if parameter == "scale" and weighs_condition(method):
        return "cfg"
    if (method, parameter) == ("best_of_n", "n"):
        return "best_of"
    name = _NAMES.get(parameter, parameter)
    own = kind_of(method) == LOSS and (name not in SAMPLE or SAMPLE[name].method)
    return name if own else f"{method}.{parameter}"


def record(found: Sequence[Method]) -> dict[str, Any]:
    """Methods and their settings by the names that a config has."""
    out: dict[str, Any] = {}
    named = [each.name for each in found if each.name != "best_of_n" and not weighs_condition(each.name)]
    if named:
        out["method"] = named[0] if len(named) == 1 else named
    for each in found:
        if weighs_condition(each.name) and each.name != "cfg":
            out["rule"] = each.name
        out |= {key(each.name, parameter): value for parameter, value in each.settings.items()}
    return out


def one(found: Sequence[Method], kind: str) -> Method | None:
    """The method of a kind, where there is one."""
    return next((each for each in found if each.kind == kind), None)


def prediction(found: Sequence[Method]) -> Any:
    """The rules for the prediction as one, in a chain, and in what takes a rule itself; None where there is none."""
    rules = [each for each in found if each.kind == PREDICTION]
    made: list[Any] = [each.make() for each in rules if not of_a_rule(each.name)]
    if len(made) > 1:
        from symguide.prediction_guidance import chain

        made = [chain(*made)]
    for each in rules:
        for parameter in of_a_rule(each.name):
            if not made:
                raise ConfigError(f"{each.name} is of another rule for the prediction: add --cfg SCALE or --method")
            made = [each.make(**{parameter: made[0]})]
    return made[0] if made else None


def belong(
    words: Iterable[Word], names: Sequence[str], default: Sequence[str] = (), implied: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """What each method is given, as plain values by parameter.

    A setting belongs to those of the named methods that take it, else to the one that an objective brings, else to
    those that --cfg, --rule and --best-of bring; sag.scale belongs to sag.

    Raises:
        ConfigError: for a setting that none of the methods takes, naming those that do.
    """
    given: dict[str, dict[str, Any]] = {name: {} for name in (*names, *default, *implied)}
    for word in sorted(words, key=lambda word: "." in word.name):  # what names its method wins
        method, _, own = word.name.rpartition(".")
        parameter = parameter_of(word.name)
        if method and parameter not in parameters(method):
            raise unknown(f"setting of {method}:", own, parameters(method))
        if method and method not in given:
            raise ConfigError(f"{word.where} is a setting of {method}, which is not asked for: add --method {method}")
        free = [each for each in implied if "." in key(each, parameter)]  # the others' have options of their own
        tiers = [[method]] if method else [names, default, free]
        takers = [[each for each in tier if parameter in parameters(each)] for tier in tiers]
        if not any(takers):
            raise _not_taken(word, parameter, [method] if method else [*names, *default])
        for name in next(filter(None, takers)):
            given[name][parameter] = values.plain(word.text, parameters(name)[parameter].kind, word.where)
    return given


def _not_taken(word: Word, parameter: str, names: Sequence[str]) -> ConfigError:
    others = [name for name in every() if parameter in parameters(name)]
    if not others:
        return unknown("setting", word.name, [*SAMPLE, *settings()])
    if not names:
        return ConfigError(
            f"{word.where} must go with a method: add --method, e.g. --method {others[0]}, and --objective"
        )
    own = ", ".join(flag(key(names[0], each)) for each in parameters(names[0]))
    return ConfigError(
        f"{' and '.join(names)} does not take {word.where}, which belongs to {', '.join(others)}; "
        f"{names[0]} takes {own}"
    )


def whole(name: str, given: Mapping[str, Any]) -> Method:
    """A method with all of its settings: those that are given, and its own for the rest.

    Raises:
        ConfigError: for solvers and grids that there are none of, and settings that must be given and are not.
    """
    kind = kind_of(name)
    found: dict[str, Any] = {}
    for parameter, own in parameters(name).items():
        if parameter in given:
            found[parameter] = given[parameter]
        elif own.required:
            raise ConfigError(f"{name} needs {parameter}: add --set {parameter}=...")
        elif isinstance(own.default, bool | int | float | str):
            found[parameter] = own.default
        elif isinstance(own.default, tuple):
            found[parameter] = list(own.default)
    if kind == LOSS and isinstance(found.get("solver"), str) and found.get("path", "ode") == "ode":
        found["solver"], found["grid"] = choose(found["solver"], found.get("grid"))
    order = [each for each in parameters(name) if found.get(each) is not None]
    return Method(kind, name, {each: found[each] for each in order})
