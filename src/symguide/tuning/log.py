"""What a search has done, on disk: a row for each trial, read again to go on."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from symguide.errors import ConfigError
from symguide.rows import Rows
from symguide.tuning.trial import Trial

SKIPPED = "skipped"
"""The state of a proposal that the rest of the budget did not hold."""


class Log:
    """The records of a search, in order: the first line says which search, every other one is a trial.

    A search that goes on makes the same proposals again, so each finds its record in its place.

    Args:
        path: the file, made where it does not exist; None keeps nothing.
        search: what tells this search from another.

    Raises:
        ConfigError: if the file is of another search, or no such file.
    """

    def __init__(self, path: Path | None, search: Mapping[str, Any]) -> None:
        try:
            self._rows, self._next = Rows(path, {"search": search}), 0
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: choose another file") from error
        if self._rows.found is None:
            return
        here = self._rows.header["search"]
        there = self._rows.found.get("search") if isinstance(self._rows.found, dict) else None
        if not isinstance(there, dict):
            raise ConfigError(f"{path} is no record of a search: choose another file")
        if there != here:
            differ = [k for k in here if there.get(k) != here[k]]
            both = ", ".join(f"{k} ({_short(there.get(k))} there, {_short(here[k])} here)" for k in differ)
            raise ConfigError(f"{path} has the trials of another search: {both}; choose another place, or remove it")
        if not all(map(_is_record, self._rows.rows)):
            raise ConfigError(f"{path} has lines that no search wrote: choose another file, or remove it")

    def replay(self, method: str | None, settings: Mapping[str, Any]) -> tuple[Trial | None, int] | None:
        """The record of the next proposal: (trial, calls spent), or (None, calls needed) of one that was too dear.

        None where there is no further record.

        Raises:
            ConfigError: if the record is of another proposal.
        """
        if self._next == len(self._rows.rows):
            return None
        line = dict(self._rows.rows[self._next])
        if (line["method"], line["settings"]) != (method, json.loads(json.dumps(settings))):
            raise ConfigError(
                f"line {self._next + 2} of {self._rows.path} is not what the search proposes there: it was made on "
                "another machine, or edited; remove it to start over"
            )
        self._next += 1
        calls = line.pop("calls")
        return (None, calls) if line["state"] == SKIPPED else (Trial(**line), calls)

    def trial(self, trial: Trial, calls: int) -> None:
        """Keep a trial."""
        self._keep({**vars(trial), "calls": calls})

    def skipped(self, method: str | None, settings: Mapping[str, Any], calls: int) -> None:
        """Keep a proposal that was too dear, and what it needed.

        So a search with more budget takes the same way up to here.
        """
        self._keep({"method": method, "settings": settings, "state": SKIPPED, "calls": calls})

    def _keep(self, line: dict[str, Any]) -> None:
        self._rows.add(line)
        self._next = len(self._rows.rows)


def _is_record(line: dict[str, Any]) -> bool:
    """Whether a line is of a trial, or of a proposal that was too dear."""
    if not isinstance(line.get("settings"), dict) or type(line.get("calls")) is not int:
        return False
    if line.get("state") == SKIPPED:
        return line.keys() == {"method", "settings", "state", "calls"}
    if line.keys() != {"calls", *(field.name for field in fields(Trial))}:
        return False
    figures = [*line["values"], *line["kept"], line["forward_calls"], line["backward_calls"], line["seconds"]]
    return all(isinstance(figure, int | float) for figure in figures)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
