"""A run as one file: read YAML or TOML as the base of the options, write the resolved run as YAML, compare two runs."""

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from symguide import values
from symguide.cli.command import Setting, Word
from symguide.errors import ConfigError, unknown

NAME = "config.yaml"
MADE_WITH = "made_with"
NOT_KEYS = ("config", "fresh", "shard")
"""Settings that a config file cannot hold."""

SOURCES = ("model", "pipeline")
SAME_SAMPLES = ("num", "format", "grid_png", "memory")
"""Keys that leave the samples as they are, bit for bit: which of them are drawn, how they are written, how gradients
are kept."""

SAME_SAMPLES_MADE_WITH = ("symguide", "torch", "diffusers", "transformers")
"""Versions may change the last bits; that is said, not refused."""


def read(path: Path) -> dict[str, Any]:
    """The keys of a YAML file, or of a TOML file by its ending: text, numbers, lists and mappings of them.

    Raises ConfigError if it cannot be read, holds no keys or a key twice, or is larger or deeper than any run.
    """
    is_toml = path.suffix.lower() == ".toml"
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}") from error
    if len(data) > LARGEST:
        raise ConfigError(f"the config {path} has more than {LARGEST:,} bytes: no run has so much to say")
    try:
        text = data.decode("utf-8")
        content = _toml(text) if is_toml else yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        first = " ".join(str(error).split())
        raise ConfigError(f"the config {path} is not {'TOML' if is_toml else 'YAML'}: {first}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"the config {path} must be keys with values, such as 'steps: 50'")
    out: dict[str, Any] = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name in out:
            raise ConfigError(f"{path}: {name} is there twice")
        out[name] = value
    left = MOST
    for name, value in out.items():
        left -= _count(value, f"{path}: {name}", 2, left)
    return out


LARGEST, MOST, DEEPEST = 1 << 20, 100_000, 20
"""Bytes of a config; values in it, each counted as often as it is referred to; and how deep its text may be nested."""


class _Loader(yaml.SafeLoader):
    """YAML without keys given twice, of which all but the last would be lost, and without depths that stop Python."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.depth == DEEPEST:
            raise yaml.YAMLError(f"it is nested more than {DEEPEST} deep")
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        if twice := [name for name, times in names.items() if times > 1]:
            raise yaml.YAMLError(f"{twice[0]} is there twice")
        return super().construct_mapping(node, deep)


def _count(value: Any, where: str, depth: int, most: int) -> int:
    """How many values there are in one, with those that YAML's aliases repeat.

    Raises:
        ConfigError: for more than `most`, which aliases make of a few lines, and for values that no option has.
    """
    if isinstance(value, list | dict):
        if depth == 0:
            raise ConfigError(f"{where} is nested too deep: it takes a value, a list of values or names with values")
        count = 0
        for inner in value.values() if isinstance(value, dict) else value:
            count += _count(inner, where, depth - 1, most - count)
        return count
    if most <= 0:
        raise ConfigError(f"{where} holds more than {MOST:,} values: no run has so much to say")
    if not isinstance(value, str | int | float | None):
        raise ConfigError(f"{where} holds a {type(value).__name__}: put it in quotes, or give a number")
    if isinstance(value, int) and value.bit_length() > 128:
        raise ConfigError(f"{where} holds a number of {value.bit_length()} bits: that is too large")
    if isinstance(value, str) and "\0" in value:
        raise ConfigError(f"{where} holds text with a zero byte: leave that out")
    return 1


def _toml(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)


def words(content: Mapping[str, Any], path: Path, table: Mapping[str, Setting]) -> Iterator[Word]:
    """The keys of a config as settings that are typed; so 5.5 is no more a number of steps here than there.

    Raises:
        ConfigError: for an unknown key, or a value of another form than its setting's.
    """
    from symguide.cli import methods

    for key, value in content.items():
        if key == MADE_WITH:
            continue
        setting = table.get(key)
        kind = setting.kind if setting is not None else methods.kind_of_setting(key)
        if key in NOT_KEYS or kind is None:
            raise unknown(f"key in {path}:", key, {*table, *methods.settings()} - set(NOT_KEYS))
        if value is None:
            continue
        many = setting is not None and setting.many
        if wrong := _wrong(value, kind, many):
            raise ConfigError(f"{path}: {key} {wrong}")
        if isinstance(value, Mapping):
            texts = [f"{name}={_comma(inner)}" for name, inner in value.items()]
        else:
            texts = list(map(str, value)) if many and isinstance(value, list) else [_comma(value)]
        for text in texts:
            yield Word(key, text, f"{path}: {key}")


def _wrong(value: Any, kind: Any, many: bool) -> str | None:
    """What is wrong with the form of a value."""
    parts, length = value if isinstance(value, list) else [value], values.words(kind)
    if length == 0:
        return None if isinstance(value, bool) else f"is true or false, not {_short(value)}"
    if isinstance(value, Mapping):
        if kind is not values.Pairs:
            return f"takes {'values' if many else 'one value'}, not names with values"
        parts = [inner for each in value.values() for inner in (each if isinstance(each, list) else [each])]
    elif length > 1 and kind is not None and not isinstance(value, list) and not str(value).count("("):
        return f"takes a list of {length} values, not {_short(value)}"
    elif isinstance(value, list) and length == 1 and not many and not values.is_sequence(kind):
        return f"takes one value, not {_short(value)}"
    if any(isinstance(part, list | dict) for part in parts):
        return f"is nested too deep: {_short(value)}"
    if any(part is None or isinstance(part, bool) for part in parts):
        return f"takes text or numbers, not {_short(value)}: put words such as yes, no or null in quotes"
    return None


def _comma(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def notes(base: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    """What has changed since the base of a run was written, as sentences; nothing for a config written by hand."""
    then, now = base.get(MADE_WITH), settings[MADE_WITH]
    if not isinstance(then, Mapping):
        return
    for key in SAME_SAMPLES_MADE_WITH:
        if key in now and then.get(key, now[key]) != now[key]:
            yield f"the config was made with {key} {then[key]}, and this is {now[key]}: the last bits may differ"
    same = all(base.get(key) == settings.get(key) for key in SOURCES)
    for name in _changed(base, settings) if same else []:
        yield f"{name} not as it was when the config was made: samples will differ"


def dump(settings: Mapping[str, Any], about: str = "draws the same samples again") -> bytes:
    """The text of a config that `symguide sample --config` reads, with what that does in its first line."""
    head = f"# symguide sample --config THIS_FILE --out FOLDER   {about}\n"
    return (head + yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)).encode()


def matters(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that decide the samples, as plain values."""
    kept = {key: value for key, value in settings.items() if key not in SAME_SAMPLES}
    made_with = kept.get(MADE_WITH)
    if isinstance(made_with, Mapping):
        kept[MADE_WITH] = {key: value for key, value in made_with.items() if key not in SAME_SAMPLES_MADE_WITH}
    plain: dict[str, Any] = json.loads(json.dumps(kept, default=str))
    return plain


def identity(settings: Mapping[str, Any]) -> str:
    """A digest of all that decides the samples."""
    return hashlib.sha256(json.dumps(matters(settings), sort_keys=True).encode()).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What decides the samples and differs, as 'steps (50 there, 20 here)'."""
    before, now = matters(old), matters(new)
    keys = [key for key in [*now, *(k for k in before if k not in now)] if key != MADE_WITH]
    out = [
        f"{k} ({_short(before.get(k))} there, {_short(now.get(k))} here)" for k in keys if before.get(k) != now.get(k)
    ]
    return out or [f"{name} not as it was" for name in _changed(before, now)]


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The weights and files that are not what they were, as 'the weights are'."""
    then, now = old.get(MADE_WITH), new[MADE_WITH]
    before = then if isinstance(then, Mapping) else {}
    drawn_by = "pipeline" if "pipeline" in new else "model"
    out = [f"the weights of the {drawn_by} are"] if before.get("weights") != now["weights"] else []
    for kind, sentence in (("scorers", "the weights of the scorer {} are"), ("files", "{} is")):
        told = before.get(kind)
        told = told if isinstance(told, Mapping) else {}
        out += [
            sentence.format(name) for name, digest in (now.get(kind) or {}).items() if told.get(name, digest) != digest
        ]
    return out


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 200 else text[:197] + "..."
