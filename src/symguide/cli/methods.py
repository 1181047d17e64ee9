"""Methods by name with what they are given: which of them a setting belongs to, and its type, are read from registries.

--method sag --method apg --set n=4 --set apg.scale=10 --best-of 4
"""

import inspect
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from symguide import values
from symguide.cli.command import Word, flag
from symguide.cli.settings import SAMPLE
from symguide.errors import ConfigError, unknown
from symguide.registry import Parameter, registry_of
from symguide.registry import parameters as signature
from symguide.solver import choose

LOSS, PREDICTION, PARTICLES, TRAJECTORY = KINDS = (
    "loss guidance",
    "prediction guidance",
    "particle guidance",
    "trajectory optimisation",
)

ALIASES = {"lookahead_solver": "solver", "lookahead_grid": "grid", "sphere": "constraint"}
"""Settings and the methods' parameters that they are: the run has a solver and a grid of its own."""

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


def weighs_condition(name: str) -> bool:
    """Whether a method's scale weighs the prediction with the condition against one without: --cfg."""
    return kind_of(name) == PREDICTION and "negative" in parameters(name)


def one(found: Sequence[Method], kind: str) -> Method | None:
    """The method of a kind, where there is one."""
    return next((each for each in found if each.kind == kind), None)


def prediction(found: Sequence[Method]) -> Any:
    """The rules for the prediction as one, in a chain, and in what takes a rule itself; None where there is none."""
    rules = [each for each in found if each.kind == PREDICTION]
    made: list[Any] = [each.make() for each in rules if not _of_a_rule(each.name)]
    if len(made) > 1:
        from symguide.prediction_guidance import chain

        made = [chain(*made)]
    for each in rules:
        for parameter in _of_a_rule(each.name):
            if not made:
                raise ConfigError(f"{each.name} is of another rule for the prediction: add --cfg SCALE or --method")
            made = [each.make(**{parameter: made[0]})]
    return made[0] if made else None


def _of_a_rule(name: str) -> list[str]:
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
    return {key: parameter for key, parameter in found.items() if key not in ("objective", *_of_a_rule(name))}


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
    method, _, own = name.rpartition(".")
    found = [parameters(each).get(ALIASES.get(own, own)) for each in ([method] if method else every())]
    return next((parameter.kind for parameter in found if parameter is not None), None)


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
        parameter = ALIASES.get(own, own)
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
    if kind == LOSS and isinstance(found.get("solver"), str):
        found["solver"], found["grid"] = choose(found["solver"], found.get("grid"))
    order = [each for each in parameters(name) if found.get(each) is not None]
    return Method(kind, name, {each: found[each] for each in order})


# What docstrings say


def first_line(thing: Any) -> str:
    """The first line of a docstring."""
    lines = (inspect.getdoc(thing) or "").splitlines()
    return lines[0] if lines else ""


def paragraph(thing: Any, what: str) -> str:
    """A docstring's paragraph of the cost or the source, as one line.

    >>> paragraph(registry_of(LOSS)["mpgd"], "Cost")
    'of a guided step: 1 forward and no backward call.'
    """
    found = re.search(rf"\b{what}\b.*?(?=\n\s*\n|\Z)", inspect.getdoc(thing) or "", re.DOTALL)
    return re.sub(rf"^{what}:? ", "", " ".join(found[0].split())) if found else ""
