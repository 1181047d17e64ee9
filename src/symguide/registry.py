"""Names: `@register(kind, name)` makes a class or function known to Python, the command line, tune and the docs.

    @register("prediction guidance", "pag")
    class PAG: ...

One line is all that a new method needs beside its file. Each kind has a folder here, whose files are imported when one
of its names is first looked up; packages of others add to it by an entry point of the group "symguide.plugins".
"""

import ast
import inspect
import math
import pkgutil
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache, partial, wraps
from importlib import import_module
from importlib.metadata import entry_points
from typing import Annotated, Any, Generic, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

from symguide.errors import ConfigError, unknown
from symguide.ranges import Around, Domain

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")
Q = ParamSpec("Q")

PLUGINS = "symguide.plugins"
"""The group of entry points whose modules register methods of other packages."""


class Registry(Mapping[str, T], Generic[T]):
    """What is registered of one kind, by name, in the order of the alphabet.

    Args:
        kind: what its entries are, e.g. "loss guidance".
        home: the package or module whose files register those that ship.

    Raises:
        ConfigError: when asked for a name that is not registered, with the nearest ones.

    >>> registry_of("solver")["dddim"]
    Traceback (most recent call last):
    symguide.errors.ConfigError: unknown solver 'dddim': did you mean 'ddim'? (known: ddim, dpmpp_2m, heun, midpoint)
    """

    def __init__(self, kind: str, home: str) -> None:
        self.kind, self.home = kind, home
        self.things: dict[str, T] = {}
        """What has been registered so far."""

    def add(self, name: str, thing: T) -> None:
        """ConfigError where another thing has that name."""
        if self.things.get(name, thing) is not thing:
            raise ConfigError(f"{self.kind} {name!r} is registered twice: {self.things[name]!r} and {thing!r}")
        self.things[name] = thing

    def __getitem__(self, name: str) -> T:
        if name not in self:
            raise unknown(self.kind, name, self.things)
        return self.things[name]

    def __contains__(self, name: object) -> bool:
        if name not in self.things:
            import_modules(self.home)
        if name not in self.things:
            plug_in()
        return name in self.things

    def __iter__(self) -> Iterator[str]:
        import_modules(self.home)
        plug_in()
        return iter(sorted(self.things))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __repr__(self) -> str:
        return f"Registry({self.kind!r}: {', '.join(sorted(self.things))})"

    def name_of(self, thing: object) -> str | None:
        """The name that a thing is registered under."""
        return next((name for name, known in self.things.items() if known is thing), None)


REGISTRIES: dict[str, Registry[Any]] = {
    kind: Registry(kind, home)
    for kind, home in {
        "loss guidance": "symguide.loss_guidance",
        "prediction guidance": "symguide.prediction_guidance",
        "particle guidance": "symguide.particle_guidance",
        "trajectory optimisation": "symguide.trajectory",
        "solver": "symguide.solver",
        "objective": "symguide.objectives",
        "world": "symguide.worlds",
        "update rule": "symguide.loss_guidance.rules",
        "constraint": "symguide.loss_guidance.dsg",
        "window": "symguide.loss_guidance.recipe",
    }.items()
}


def register(kind: str, name: str) -> Callable[[T], T]:
    """A decorator that registers a class, a function or a value under a name of that kind.

    Raises:
        ConfigError: for an unknown kind, and where another thing has the name.
    """
    registry = registry_of(kind)

    def add(thing: T) -> T:
        registry.add(name, thing)
        return thing

    return add


def registry_of(kind: str) -> Registry[Any]:
    """The registry of a kind; ConfigError for an unknown one."""
    if kind not in REGISTRIES:
        raise unknown("kind", kind, REGISTRIES)
    return REGISTRIES[kind]


def methods() -> Iterator[Any]:
    """All methods of guidance and of optimisation, whatever their kind."""
    return (
        thing
        for kind in REGISTRIES
        if kind.endswith(("guidance", "optimisation"))
        for thing in REGISTRIES[kind].values()
    )


@dataclass(frozen=True)
class NamedFunction(Generic[P, R]):
    """A function that remembers how it was made: equal to others that were made alike, and shown as it is called."""

    name: str
    arguments: tuple[Any, ...]
    settings: tuple[tuple[str, Any], ...]
    function: Callable[P, R] = field(compare=False)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        given = [*map(repr, self.arguments), *(f"{name}={value!r}" for name, value in self.settings)]
        return f"{self.name}({', '.join(given)})"


def named(kind: str) -> Callable[[Callable[Q, Callable[P, R]]], Callable[Q, NamedFunction[P, R]]]:
    """A decorator that registers a function which makes functions, such that what it makes are values.

    >>> from symguide import rules
    >>> rules.rho(0.2) == rules.rho(factor=0.2), rules.chain(rules.normalise(), rules.clip(1.0))
    (True, chain(normalise(), clip(1.0)))
    """

    def add(make: Callable[Q, Callable[P, R]]) -> Callable[Q, NamedFunction[P, R]]:
        signature = inspect.signature(make)

        @wraps(make)
        def call(*args: Q.args, **kwargs: Q.kwargs) -> NamedFunction[P, R]:
            function, given = make(*args, **kwargs), signature.bind(*args, **kwargs)
            given.apply_defaults()
            return NamedFunction(make.__name__, given.args, tuple(given.kwargs.items()), function)

        return register(kind, make.__name__)(call)

    return add


@cache
def import_modules(home: str) -> None:
    """Imports a package with the modules in its folder, so that what they register is known."""
    package = import_module(home)
    for module in pkgutil.iter_modules(getattr(package, "__path__", ())):
        import_module(f"{home}.{module.name}")


@cache
def plug_in() -> None:
    """Imports the modules that other packages register methods in; one that fails is named, and stops nothing else."""
    for point in entry_points(group=PLUGINS):
        try:
            point.load()
        except Exception as error:  # noqa: PERF203
            warnings.warn(f"the plug-in {point.name} ({point.value}) cannot be imported: {error}", stacklevel=2)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a registered thing: its default, its type, and where a search may look for its value."""

    name: str
    default: Any
    kind: Any
    domain: Domain | None

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


def parameters(thing: Any, **defaults: Any) -> dict[str, Parameter]:
    """The parameters of a registered class or function by name, from its signature; `defaults` in place of its own.

    Ranges stand in the annotation, `scale: Annotated[float, Around(8.0)] = 0.5`; `Around` is one around the default.

    >>> def rule(x: float, scale: Annotated[float, Around(2.0)] = 0.5) -> None: ...
    >>> parameters(rule)["scale"].domain
    Range(low=0.25, high=1.0, log=True)
    """
    hints = _hints(thing)
    found = {}
    for p in inspect.signature(thing).parameters.values():
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        hint = hints.get(p.name, Any)
        if get_origin(hint) is not Annotated and get_origin(next(iter(get_args(hint)), None)) is Annotated:
            hint = get_args(hint)[0]  # Python 3.10 takes a default of None for an Optional around it
        kind, *extra = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        domain = next((each for each in extra if hasattr(each, "suggest") or isinstance(each, Around)), None)
        default = defaults.get(p.name, p.default)
        domain = domain.of(default) if isinstance(domain, Around) else domain
        found[p.name] = Parameter(p.name, default, kind, domain)
    return found


def _hints(thing: Any) -> Mapping[str, Any]:
    """Annotations of the parameters; of a dataclass those of its fields, whose `__init__` has none of its own."""
    if inspect.isclass(thing):
        return get_type_hints(thing, include_extras=True) | get_type_hints(thing.__init__, include_extras=True)
    if isinstance(thing, partial):
        return _hints(thing.func)
    return get_type_hints(thing if inspect.isroutine(thing) else type(thing).__call__, include_extras=True)


# Methods and what they are made with as files have them

VALUES = ("update rule", "constraint", "window")
"""Kinds of what settings may be beside numbers and text; in files and commands they are written as calls."""

_CALL = re.compile(r"\s*\w+\s*\(.*\)\s*", re.DOTALL)


def to_settings(method: Any) -> dict[str, Any]:
    """The name of a registered method and all that it was made with but the objective, as YAML and JSON hold it.

    Raises:
        ConfigError: for a method that is not registered, and for settings that no file can hold, such as a lambda.

    >>> from symguide import FreeDoM, rules
    >>> recipe = FreeDoM(abs, update=rules.rho(0.2), window=(0.2, 0.8))
    >>> settings = to_settings(recipe)
    >>> settings["method"], settings["update"], settings["window"]
    ('freedom', 'rho(0.2)', [0.2, 0.8])
    >>> from_settings("loss guidance", abs, settings) == recipe
    True
    """
    name = _name_of(method)
    if name is None:
        raise ConfigError(f"{type(method).__name__} is not registered, so that no file can name it: see @register")
    asked = [each for each in parameters(type(method)) if each != "objective"]
    return {"method": name} | {each: to_plain(getattr(method, each), f"{each} of {name}") for each in asked}


def from_settings(kind: str, objective: Any, settings: Mapping[str, Any]) -> Any:
    """The method of a kind that `to_settings` wrote, for an objective if it takes one.

    Raises:
        ConfigError: for unknown names, and whatever the method refuses.
    """
    if "method" not in settings:
        raise ConfigError(f"settings of a method name it, method: {next(iter(registry_of(kind)))}")
    name, given = settings["method"], {key: value for key, value in settings.items() if key != "method"}
    method = registry_of(kind)[name]
    known = parameters(method)
    if strange := [key for key in given if key not in known or key == "objective"]:
        raise unknown(f"parameter of {name}:", strange[0], known.keys() - {"objective"})
    aim = {"objective": objective} if "objective" in known else {}
    return method(**aim, **{key: from_plain(value) for key, value in given.items()})


def from_plain(value: Any) -> Any:
    """A setting as Python has it: a call such as "rho(0.2)" is read, see `read`, lists are tuples, methods are made."""
    if isinstance(value, list):
        return tuple(map(from_plain, value))
    if isinstance(value, Mapping) and "method" in value:
        kind = next((kind for kind, known in REGISTRIES.items() if value["method"] in known), "prediction guidance")
        return from_settings(kind, None, value)
    return read(value) if isinstance(value, str) and _CALL.fullmatch(value) else value


def read(text: str) -> Any:
    """The rule, constraint or window that a text such as "chain(clip(1.0), rho(0.2))" makes. No other code is run.

    Raises:
        ConfigError: for unknown names, for arguments that are no numbers, texts or such calls, and what these refuse.

    >>> read("chain(clip(1.0), normalise())"), read("Sphere(0.1)")
    (chain(clip(1.0), normalise()), Sphere(rate=0.1))
    """
    try:
        tree = ast.parse(text.strip(), mode="eval") if len(text) <= 1000 else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        tree = None
    if tree is None:
        raise ConfigError(f"{text[:80]!r} is no call such as rho(0.2) or chain(clip(1.0), normalise())")
    return _evaluated(tree.body, text)


def _evaluated(node: ast.expr, text: str) -> Any:
    if isinstance(node, ast.Tuple | ast.List):
        return tuple(_evaluated(each, text) for each in node.elts)
    if not isinstance(node, ast.Call):
        try:
            return ast.literal_eval(node)
        except ValueError:
            raise ConfigError(f"{text!r} has more in it than calls, numbers and text: write it in Python") from None
    callables = {name: thing for kind in VALUES for name, thing in registry_of(kind).items()}
    name = ast.unparse(node.func)
    if name not in callables:
        raise unknown("rule, constraint or window", name, callables)
    arguments = [_evaluated(each, text) for each in node.args]
    named = {str(each.arg): _evaluated(each.value, text) for each in node.keywords}
    try:
        inspect.signature(callables[name]).bind(*arguments, **named)
    except TypeError as error:
        raise ConfigError(f"{name} in {text!r}: {error}") from None
    return callables[name](*arguments, **named)


def _name_of(thing: Any) -> str | None:
    """The name that the class of a thing is registered under, of whatever kind."""
    return next((name for registry in REGISTRIES.values() if (name := registry.name_of(type(thing)))), None)


def to_plain(value: Any, what: str) -> Any:
    """A setting as a file holds it: numbers and text as they are, tuples as lists, what `named` makes as a call.

    Raises:
        ConfigError: for what no file can hold, such as a lambda; `what` says which setting it is.
    """
    if isinstance(value, tuple | list):
        return [to_plain(each, what) for each in value]
    if isinstance(value, Mapping):
        return {key: to_plain(each, what) for key, each in value.items()}
    if _name_of(value) is not None and not any(registry_of(kind).name_of(type(value)) for kind in VALUES):
        return to_settings(value)
    return value if value is None or isinstance(value, bool | int | float | str) else _text(value, what)


def _text(value: Any, what: str) -> str:
    """How a setting is called, such that `read` makes it again; ConfigError for others, such as lambdas."""
    if isinstance(value, NamedFunction):
        name, arguments, named = value.name, value.arguments, dict(value.settings)
    elif is_dataclass(value) and (known := [n for kind in VALUES if (n := registry_of(kind).name_of(type(value)))]):
        name, arguments, named = known[0], (), {f.name: getattr(value, f.name) for f in fields(value)}
    elif isinstance(value, tuple | list):
        return f"({', '.join(_text(each, what) for each in value)},)"
    elif isinstance(value, float) and math.isinf(value):
        return "1e999" if value > 0 else "-1e999"
    elif value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    else:
        raise ConfigError(f"{what} is {value!r}, which no file can hold: give numbers, text, or calls such as rho(0.2)")
    parts = [*(_text(each, what) for each in arguments), *(f"{k}={_text(v, what)}" for k, v in named.items())]
    return f"{name}({', '.join(parts)})"
