"""Rows that are kept as soon as they are measured, so that a run that was stopped goes on where it was."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Keep = Callable[[Row, Callable[[], Row]], Row]
"""From what is measured, and how, to the row with both."""


def unkept(what: Row, measure: Callable[[], Row]) -> Row:
    """The row, measured now."""
    return {**what, **measure()}


class Kept:
    """Rows in a file of JSON lines, the first of which says by which settings they were measured.

    Args:
        path: the file; what it holds is forgotten where the settings are others.
        settings: all that decides what is measured, and where.
    """

    def __init__(self, path: Path, settings: Row) -> None:
        self.path = path
        self.rows: dict[str, Row] = {}
        first = json.dumps(settings, sort_keys=True)
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        if lines[:1] != [first]:
            path.write_text(first + "\n")
            return
        for line in lines[1:]:
            try:
                what, found = json.loads(line)
            except (ValueError, TypeError, RecursionError):
                continue  # cut off when the run was stopped
            if isinstance(what, dict) and isinstance(found, dict):
                self.rows[_key(what)] = {**what, **found}

    def __call__(self, what: Row, measure: Callable[[], Row]) -> Row:
        """The row of what is measured, measured now where it was not yet."""
        if _key(what) not in self.rows:
            found = measure()
            with self.path.open("a") as file:
                file.write(f"\n{json.dumps([what, found])}")
            self.rows[_key(what)] = {**what, **found}
        return self.rows[_key(what)]


def _key(what: Row) -> str:
    return json.dumps(what, sort_keys=True)
