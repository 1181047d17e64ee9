"""A run as one file: read YAML or TOML as the base of the options, write the resolved run as YAML, compare two runs."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from symguide import values
from symguide.cli import registered
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


def words(content: Mapping[str, Any], path: Path, table: Mapping[str, Setting]) -> Iterator[Word]:
    """The keys of a config as settings that are typed; so 5.5 is no more a number of steps here than there.

    Raises:
        ConfigError: for an unknown key, or a value of another form than its setting's.
    """
    for key, value in content.items():
        if key == MADE_WITH:
            continue
        setting = table.get(key)
        kind = setting.kind if setting is not None else registered.kind_of_setting(key)
        if key in NOT_KEYS or kind is None:
            raise unknown(f"key in {path}:", key, {*table, *registered.settings()} - set(NOT_KEYS))
        if value is None:
            continue
        for text in _texts(value, kind, setting is not None and setting.many, f"{path}: {key}"):
            yield Word(key, text, f"{path}: {key}")


def _texts(value: Any, kind: Any, many: bool, where: str) -> Iterator[str]:
    """A config's value as it would be typed; ConfigError for one of a form that nobody can type."""
    pairs = isinstance(value, Mapping) and values.is_mapping(kind)
    each = list(value.items()) if pairs else value if many and isinstance(value, list) else [value]
    for one in each:
        name, inner = one if pairs else (None, one)
        parts = inner if isinstance(inner, list) and (pairs or not many) else [inner]
        if isinstance(value, Mapping) and not pairs:
            raise ConfigError(f"{where} takes {'values' if many else 'one value'}, not names with values")
        if any(isinstance(part, list | dict) for part in parts):
            raise ConfigError(f"{where} is nested too deep: {_short(value)}")
        if values.words(kind) and any(part is None or isinstance(part, bool) for part in parts):
            raise ConfigError(
                f"{where} takes text or numbers, not {_short(value)}: put words such as yes, no or null in quotes"
            )
        if len(parts) > 1 and kind is str:
            raise ConfigError(f"{where} takes one value, not {_short(value)}")
        text = ",".join(map(str, parts))
        yield text if name is None else f"{name}={text}"


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
    sentences = {
        "scorers": "the weights of the scorer {} are",
        "files": "{} is",
        "sentences": "what {!r} is taken for is",
    }
    for kind, sentence in sentences.items():
        told = before.get(kind)
        told = told if isinstance(told, Mapping) else {}
        out += [
            sentence.format(name) for name, digest in (now.get(kind) or {}).items() if told.get(name, digest) != digest
        ]
    return out


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 200 else text[:197] + "..."
