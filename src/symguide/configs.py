"""YAML and TOML files of settings, read with care: no key twice, nothing large or deep, and only what settings are."""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from symguide.errors import ConfigError


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
