"""What is searched: methods, the ranges of their parameters, and what is held fixed."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from symguide import registry
from symguide.errors import ConfigError, unknown
from symguide.loss_guidance import RECIPES, Sphere
from symguide.ranges import Domain, as_domain
from symguide.step import LossHook

Make = Callable[..., LossHook]
"""(objective, **settings) -> recipe: a recipe's class, or a function of yours."""

Settings = dict[str, Any]


@dataclass(frozen=True)
class Method:
    """A method with the ranges of the parameters that are searched, where they begin, and the others that are given."""

    name: str
    make: Make
    domains: Mapping[str, Domain]
    defaults: Mapping[str, Any]
    fixed: Mapping[str, Any]

    def settings(self, chosen: Mapping[str, Any]) -> Settings:
        """What a recipe is made with, as JSON has it; what was chosen and has no effect is left out."""
        whole = {**self.fixed, **chosen}
        if whole.get("constraint") is not None and "scale" in chosen:
            del whole["scale"]  # a sphere asks for a direction alone
        if whole.get("n") == 1 and chosen.get("jacobian") in ("exact", "first"):
            del whole["jacobian"]  # one call is the first and the last
        return {k: registry.to_plain(v, f"{k} of {self.name}") for k, v in whole.items() if v is not None}

    def recipe(self, settings: Mapping[str, Any], objective: Any) -> LossHook:
        """The recipe with these settings."""
        chosen = {key: registry.from_plain(value) for key, value in settings.items()}
        if isinstance(chosen.get("constraint"), int | float):
            chosen["constraint"] = Sphere(chosen["constraint"])
        return self.make(objective, **chosen)


@dataclass(frozen=True)
class Space:
    """The methods that are searched side by side."""

    methods: Mapping[str, Method]

    def defaults(self) -> list[tuple[str, Settings]]:
        """Every method as it is where nobody tunes it."""
        return [(name, method.settings(method.defaults)) for name, method in self.methods.items()]

    def suggest(self, trial: Any) -> tuple[str, Settings]:
        """A method and its settings, asked of an Optuna trial."""
        names = list(self.methods)
        method = self.methods[names[0] if len(names) == 1 else trial.suggest_categorical("method", names)]
        chosen = {key: domain.suggest(trial, f"{method.name}.{key}") for key, domain in method.domains.items()}
        return method.name, method.settings(chosen)

    def asked(self, name: str) -> dict[str, Any] | None:
        """What a trial would have been asked for a method's defaults; None where they lie outside the ranges."""
        out: dict[str, Any] = {} if len(self.methods) == 1 else {"method": name}
        for key, domain in self.methods[name].domains.items():
            asked = domain.asked(f"{name}.{key}", self.methods[name].defaults[key])
            if asked is None:
                return None
            out |= asked
        return out

    def about(self) -> dict[str, Any]:
        """The space as JSON has it, to tell searches apart."""
        return {
            name: {"ranges": {k: repr(d) for k, d in m.domains.items()}, "begin": m.settings(m.defaults)}
            for name, m in self.methods.items()
        }


def build(
    methods: Any,
    space: Mapping[str, Any] | None,
    fixed: Mapping[str, Any] | None,
    defaults: Mapping[str, Mapping[str, Any]] | None = None,
) -> Space:
    """The space of some methods.

    Args:
        methods: recipes' names or classes, functions (objective, **settings) -> recipe, or a list of such.
        space: parameter -> range or values, in place of the recipes' own ranges; None is the recipe's own.
        fixed: parameters that are given.
        defaults: by method, where its own defaults are not those to begin at.

    Raises:
        ConfigError: for names that no method takes, ranges that a method cannot take, and nothing to search.
    """
    given = list(methods) if isinstance(methods, list | tuple) else [methods]
    if not given:
        raise ConfigError("nothing to tune: name a method")
    made = [_method(one, space, dict(fixed or {}), defaults or {}) for one in given]
    for name in [*(space or {}), *(key for key, value in (fixed or {}).items() if value is not None)]:
        if not any(name in method.domains or name in method.fixed for method in made):
            if any(_takes(_parameters(method.make), name) for method in made):
                raise ConfigError(f"{name} has no range of its own here: give one, such as Range(1, 4) or a list")
            known = set().union(*(_parameters(method.make) for method in made)) - {"**"}
            raise unknown(f"parameter of {', '.join(method.name for method in made)}:", name, known)
    named = {method.name: method for method in made}
    if len(named) < len(made):
        raise ConfigError("a method is named twice: once is enough")
    for method in named.values():
        if not method.domains:
            raise ConfigError(f"nothing of {method.name} is left to search: give a range, or fix less")
        _check(method)
    return Space(named)


def _method(
    given: Any, space: Mapping[str, Any] | None, fixed: Settings, defaults: Mapping[str, Mapping[str, Any]]
) -> Method:
    make = _make(given)
    name = str(RECIPES.name_of(make) or getattr(make, "__name__", "method"))
    parameters = _parameters(make)
    told = registry.parameters(make, **defaults.get(name, {}))
    own = {key: p.domain for key, p in told.items() if p.domain is not None}
    if space is None and not own:
        raise ConfigError(f"{name} says no ranges of its own: give space={{...}}, parameter -> Range(low, high)")
    asked = own if space is None else _asked(space, own, parameters)
    domains = {key: domain for key, domain in asked.items() if key not in fixed}
    begin = {**parameters, **defaults.get(name, {})}
    start = {k: _middle(d) if begin.get(k) is None and k != "constraint" else begin[k] for k, d in domains.items()}
    held = {key: value for key, value in fixed.items() if _takes(parameters, key)}
    rest = {key: value for key, value in defaults.get(name, {}).items() if key not in domains and key not in held}
    return Method(name, make, domains, start, {**rest, **held})


def _asked(space: Mapping[str, Any], own: Mapping[str, Domain], parameters: Mapping[str, Any]) -> dict[str, Domain]:
    """The domains of a space that a method takes; its own where none is given."""
    mine = {name: own.get(name) if given is None else as_domain(given) for name, given in space.items()}
    return {name: domain for name, domain in mine.items() if domain is not None and _takes(parameters, name)}


def _make(given: Any) -> Any:
    if isinstance(given, str):
        if given not in RECIPES:
            raise unknown("method", given, RECIPES)
        return RECIPES[given]
    if not callable(given):
        raise ConfigError(f"tune takes a recipe's class, such as SAG, or a function that makes one, not {given!r}")
    return given


def _parameters(make: Any) -> dict[str, Any]:
    """Parameters beside the objective with their defaults; "**" where any others are taken."""
    found = list(inspect.signature(make).parameters.values())[1:]
    return {
        "**" if p.kind is p.VAR_KEYWORD else p.name: None if p.default is p.empty else p.default
        for p in found
        if p.kind is not p.VAR_POSITIONAL
    }


def _takes(parameters: Mapping[str, Any], name: str) -> bool:
    return name in parameters or "**" in parameters


def _middle(domain: Domain) -> Any:
    """Where to begin without a default."""
    ends: Sequence[Any] = domain.ends()
    low, high = ends[0], ends[-1]
    if not hasattr(domain, "log"):
        return low
    middle = math.sqrt(low * high) if domain.log else (low + high) / 2
    return round(middle) if isinstance(low, int) and isinstance(high, int) else middle


class Probe:
    """An objective that every recipe takes, for trying settings: its loss and its slopes are never 0 or large."""

    differentiable = True

    def __call__(self, x0: Tensor) -> Tensor:
        return (1 + x0.square()).sqrt().flatten(1).sum(dim=1)

    def noisy(self, x: Tensor, t: float, schedule: Any) -> Tensor:
        return self(x)


def _check(method: Method) -> None:
    """ConfigError for ranges with an end that the method does not take."""
    for name, domain in method.domains.items():
        for end in domain.ends():
            _try(method, name, end)


def _try(method: Method, name: str, value: Any) -> None:
    try:
        method.recipe(method.settings({**method.defaults, name: value}), Probe())
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"{method.name} cannot be searched with {name} = {value}: {error}") from error
