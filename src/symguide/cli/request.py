"""What a command line and its config ask for: one source, its settings, and the methods with theirs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from symguide import configs
from symguide.cli import config, methods, registered
from symguide.cli.command import Setting, Word, flag, read
from symguide.cli.methods import Method
from symguide.cli.registered import LOSS, PARTICLES
from symguide.errors import ConfigError

if TYPE_CHECKING:
    from symguide.worlds import World

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "model": {"model": "digits", "batch": 64, "steps": 50, "solver": "ddim", "grid": "uniform"},
    "pipeline": {"batch": 1},
}
"""Of settings that depend on the source; what a pipeline has defaults of its own for is left to it."""

FITTED = ("batch", "steps", "eta", "cfg", "rule")
"""Settings of both sources with values that suit one: not taken over from a config of the other."""


@dataclass
class Request:
    """What is asked for.

    Attributes:
        settings: of the run by name, those of the table, None where nobody gave one and it has no default.
        words: settings of methods as they were given, those of the config first.
        names: of the methods that were named.
        typed: those of them that the command line has.
        base: the content of the config.
        said: the remarks that were made.
    """

    settings: dict[str, Any]
    words: list[Word]
    names: list[str]
    typed: list[Word]
    base: Mapping[str, Any]
    said: set[str] = field(default_factory=set)

    def __getitem__(self, name: str) -> Any:
        return self.settings.get(name)

    def say(self, text: str) -> None:
        """A remark for people, on stderr and once; nothing with --quiet."""
        if self["progress"] is not False and text not in self.said:
            click.echo(text, err=True)
        self.said.add(text)

    def methods(self) -> list[Method]:
        """The methods of the run, each with all of its settings.

        Raises:
            ConfigError: for two of a kind, settings that none of them takes, and methods without an objective.
        """
        names, cfg, kinds = self.names, self["cfg"], [registered.kind_of(name) for name in self.names]
        implied = [] if self["best_of"] is None or PARTICLES in kinds else ["best_of_n"]
        guided = LOSS in kinds or PARTICLES in kinds or bool(implied)
        default = ["sag"] if self["objective"] is not None and not guided else []
        if self["rule"] is not None and self["rule"] not in names:
            implied.append(self["rule"])
        if self["pipeline"] is None and not any(map(registered.weighs_condition, [*names, *implied])):
            cfg = _world(self["model"]).weight if cfg is None and self["prompt"] else cfg
            implied += [] if cfg is None else ["cfg"]
        for alike in (
            [name for name in names if registered.kind_of(name) == LOSS],
            [name for name in names if registered.kind_of(name) == PARTICLES],
            [name for name in [*names, *implied] if registered.weighs_condition(name)],
        ):
            if len(alike) > 1:
                raise ConfigError(f"{' and '.join(alike)} are both {registered.kind_of(alike[0])}: give one of them")
        given = methods.belong(self.words, names, default, implied)
        own = None if self["pipeline"] is not None else _world(self["model"]).scale
        if own is not None and "sag" in given:
            given["sag"] = {"scale": own} | given["sag"]
        for name, words in given.items():
            if cfg is not None and registered.weighs_condition(name):
                words["scale"] = cfg
            if self["best_of"] is not None and name == "best_of_n":
                words["n"] = self["best_of"]
        found = [methods.whole(name, words) for name, words in given.items()]
        for each in found if self["objective"] is None else []:
            if each.kind in (LOSS, PARTICLES):
                how = "--best-of" if each.name == "best_of_n" and each.name in implied else f"--method {each.name}"
                raise ConfigError(
                    f"{how} needs something to steer toward: give --objective, e.g. classifier:3 or my_module:rule"
                )
        return found


def _world(model: str) -> "World":
    """What the registry knows of a model, of one's own what all worlds have."""
    from symguide.worlds import WORLDS, World

    return WORLDS[model] if model in WORLDS else World("", Path(model))


def request(words: Sequence[Word], table: Mapping[str, Setting]) -> Request:
    """What the words of a command line ask for, on the base of the config that they name.

    Raises:
        ConfigError: for values that a setting does not take, and settings that do not go together.
    """
    typed, own = read(words, table)
    path = typed.get("config")
    content = configs.read(Path(path)) if path else {}
    base, others = read(config.words(content, Path(path), table) if path else [], table)
    settings, dropped = _source(typed, base, table)
    then = base.get("method", [])
    asked = Request(settings, [], typed.get("method", then), own, content)
    if dropped:
        belonged = "model" if asked["pipeline"] is not None else "pipeline"
        asked.say(f"the config's {', '.join(map(flag, dropped))} belonged to its {belonged}: left out")
    asked.words = [*_of_its_method(asked, others, then), *own]
    return asked


def _source(
    typed: dict[str, Any], base: dict[str, Any], table: Mapping[str, Setting]
) -> tuple[dict[str, Any], list[str]]:
    """The settings of one source, with its defaults; and those that are dropped of a config of the other.

    Raises:
        ConfigError: where both are given, or a setting that has no meaning for the one that is.
    """
    given = {**base, **typed}
    sources = [s for s in DEFAULTS if s in typed] or [s for s in DEFAULTS if s in given] or ["model"]
    if len(sources) > 1:
        raise ConfigError("--model and --pipeline both say what draws: give one of them")
    (mine,), (other,) = sources, [name for name in DEFAULTS if name not in sources]
    foreign = other in given  # a config of the other source: what is typed wins over it
    alien = {name: s.alien[mine] for name, s in table.items() if s.alien is not None and mine in s.alien}
    for name, why in alien.items():
        if name in typed or (name in given and not foreign):
            raise ConfigError(f"{flag(name)} has no meaning with a {mine}: {why}")
    dropped = [name for name in (*alien, *FITTED) if foreign and name in base and name not in typed]
    left = {name: value for name, value in given.items() if name not in (other, *dropped)}
    kept = {**DEFAULTS[mine], **left}
    return {name: kept.get(name, s.default) for name, s in table.items() if not s.method}, dropped


def _of_its_method(asked: Request, words: Sequence[Word], then: Sequence[str]) -> list[Word]:
    """The config's settings of methods that are still asked for; which others there were is said."""
    gone = {name: registered.kind_of(name) for name in then if name not in asked.names}
    owners = {*gone, ""} if LOSS in gone.values() else {*gone}  # those of a loss method stand without its name
    dropped = [word for word in words if word.name.rpartition(".")[0] in owners]
    if dropped:
        names = ", ".join(flag(word.name) for word in dropped)
        asked.say(f"the config's {names} belonged to its method {next(iter(gone))}: left out")
    return [word for word in words if word not in dropped]
