"""A run as one file: read YAML or TOML as the base of the options, write the resolved run as YAML, compare two runs."""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import yaml

from symguide.errors import ConfigError, unknown

NAME = "config.yaml"
MADE_WITH = "made_with"
NOT_KEYS = ("config", "fresh", "help")
"""Options that a config file cannot hold."""

SOURCES = ("model", "pipeline")
SAME_SAMPLES = ("num", "format", "grid_png", "memory")
"""Keys that leave the samples as they are, bit for bit: which of them are drawn, how they are written, how gradients
are kept."""

SAME_SAMPLES_MADE_WITH = ("symguide", "torch", "diffusers", "transformers")
"""Versions may change the last bits; that is said, not refused."""


def read(path: Path) -> dict[str, Any]:
    """The keys of a YAML file, or of a TOML file by its ending.

    Raises ConfigError if it cannot be read or holds no keys.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = _toml(text) if path.suffix.lower() == ".toml" else yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:
        first = " ".join(str(error).split())
        raise ConfigError(
            f"the config {path} is not {'TOML' if path.suffix == '.toml' else 'YAML'}: {first}"
        ) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"the config {path} must be keys with values, such as 'steps: 50'")
    return {str(key).replace("-", "_"): value for key, value in content.items()}


def _toml(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)


def as_defaults(ctx: click.Context, content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The keys of a config as the options' defaults, each checked as the option itself checks what is typed.

    Raises ConfigError for an unknown key, or a value that its option does not take.
    """
    options = {"json" if p.name == "json_to" else str(p.name): p for p in ctx.command.params if p.expose_value}
    options = {key: option for key, option in options.items() if key not in NOT_KEYS}
    defaults = {}
    for key, value in content.items():
        if key == MADE_WITH or value is None:
            continue
        if key not in options:
            raise unknown(f"key in {path}:", key, options)
        option = options[key]
        if isinstance(value, list | dict) and option.nargs == 1 and not option.multiple:
            raise ConfigError(f"{path}: {key} takes one value, not {value}")
        plain = _typed(option, value)
        try:
            option.type_cast_value(ctx, plain)
        except click.BadParameter as error:
            raise ConfigError(f"{path}: {key}: {error.message.rstrip('.')}") from error
        defaults[str(option.name)] = plain
    return defaults


def _typed(option: click.Parameter, value: Any) -> Any:
    """A config's value as it would be typed; so 5.5 or true is no more a number of steps here than there."""
    if isinstance(value, Mapping):
        return [f"{name}={_comma(inner)}" for name, inner in value.items()]
    if getattr(option, "is_flag", False):
        return value
    if option.multiple and not isinstance(value, list):
        return [str(value)]
    return [str(inner) for inner in value] if isinstance(value, list) else str(value)


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
    before, now = old.get(MADE_WITH) or {}, new[MADE_WITH]
    drawn_by = "pipeline" if "pipeline" in new else "model"
    out = [f"the weights of the {drawn_by} are"] if before.get("weights") != now["weights"] else []
    for kind, sentence in (("scorers", "the weights of the scorer {} are"), ("files", "{} is")):
        then = before.get(kind) or {}
        out += [
            sentence.format(name) for name, digest in (now.get(kind) or {}).items() if then.get(name, digest) != digest
        ]
    return out


def _short(value: Any) -> str:
    return "none" if value is None else str(value)
