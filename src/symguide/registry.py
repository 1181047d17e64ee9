"""Names: `@register(kind, name)` makes a class or function known to Python, the command line, tune and the docs.

    @register("prediction guidance", "pag")
    class PAG: ...

One line is all that a new method needs beside its file. Registries are mappings of names; packages of others add to
them by an entry point of the group "symguide.plugins", whose module is imported when names are first looked up.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from symguide.errors import ConfigError, unknown
from symguide.ranges import Around, Domain

T = TypeVar("T")

PLUGINS = "symguide.plugins"
"""The group of entry points whose modules register methods of other packages."""


class Registry(Mapping[str, Any]):
    """What is registered of one kind, by name, in the order of registration.

    >>> solvers = Registry("solver")
    >>> solvers["euler"]
    Traceback (most recent call last):
    symguide.errors.ConfigError: no solver is registered: install a package that brings one
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._known: dict[str, Any] = {}

    def add(self, name: str, thing: Any) -> None:
        """ConfigError where another thing has that name."""
        if self._known.get(name, thing) is not thing:
            raise ConfigError(f"{self.kind} {name!r} is registered twice: {self._known[name]!r} and {thing!r}")
        self._known[name] = thing

    def __getitem__(self, name: str) -> Any:
        if name not in self._known:
            plug_in()
        if name not in self._known:
            if not self._known:
                raise ConfigError(f"no {self.kind} is registered: install a package that brings one")
            raise unknown(self.kind, name, self._known)
        return self._known[name]

    def __contains__(self, name: object) -> bool:
        if name not in self._known:
            plug_in()
        return name in self._known

    def __iter__(self) -> Iterator[str]:
        plug_in()
        return iter(self._known)

    def __len__(self) -> int:
        plug_in()
        return len(self._known)

    def __repr__(self) -> str:
        return f"Registry({self.kind!r}: {', '.join(self._known)})"

    def name_of(self, thing: Any) -> str | None:
        """The name that a thing is registered under."""
        return next((name for name, known in self._known.items() if known is thing), None)


REGISTRIES: dict[str, Registry] = {
    kind: Registry(kind)
    for kind in (
        "loss guidance",
        "prediction guidance",
        "particle guidance",
        "trajectory optimisation",
        "solver",
        "objective",
        "world",
    )
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


def registry_of(kind: str) -> Registry:
    """The registry of a kind; ConfigError for an unknown one."""
    if kind not in REGISTRIES:
        raise unknown("kind", kind, REGISTRIES)
    return REGISTRIES[kind]


@cache
def plug_in() -> None:
    """Imports the modules that other packages register methods in; one that fails is named, and stops nothing else."""
    import warnings

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
