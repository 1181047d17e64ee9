"""Names: `@register(kind, name)` makes a class or function known to Python, the command line, tune and the docs.

    @register("prediction guidance", "pag")
    class PAG: ...

One line is all that a new method needs beside its file. Each kind has a folder here, whose files are imported when one
of its names is first looked up; packages of others add to it by an entry point of the group "symguide.plugins".
"""

import inspect
import pkgutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Annotated, Any, Generic, TypeVar, get_args, get_origin, get_type_hints

from symguide.errors import ConfigError, unknown
from symguide.ranges import Around, Domain

T = TypeVar("T")

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


def parameters(thing: Any) -> dict[str, Parameter]:
    """The parameters of a registered class or function by name, from its signature.

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
        kind, *extra = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        domain = next((each for each in extra if hasattr(each, "suggest") or isinstance(each, Around)), None)
        found[p.name] = Parameter(
            p.name, p.default, kind, domain.of(p.default) if isinstance(domain, Around) else domain
        )
    return found


def _hints(thing: Any) -> Mapping[str, Any]:
    """Annotations of the parameters; of a dataclass those of its fields, whose `__init__` has none of its own."""
    hints: dict[str, Any] = {}
    if inspect.isclass(thing):
        hints |= get_type_hints(thing, include_extras=True)
    return hints | get_type_hints(thing.__init__ if inspect.isclass(thing) else thing, include_extras=True)
