"""Rows that are on disk as soon as they are made, so that what was stopped goes on where it was."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from symguide import files

Row = dict[str, Any]


class Rows:
    """JSON lines: a header that says what decides all rows, then one row a line.

    What a process left half written when it ended is skipped, and so is what is no row; rows under another header are
    not read, and the first row that is added takes their place.

    Args:
        path: the file, made with its first row; None keeps rows in memory alone.
        header: all that decides the rows, as JSON values.

    Attributes:
        found: the header in the file: None where there is no file, "" where its first line is no JSON.
        rows: in the order that they were added.
    """

    def __init__(self, path: Path | None = None, header: Mapping[str, Any] | None = None) -> None:
        self.path, self.header = path, _as_json(header or {})
        self.found: Any = None
        self.rows: list[Row] = []
        self._whole = False
        if path is not None and path.exists():
            text = path.read_text(encoding="utf-8", errors="replace")
            self.found, *lines = [_parsed(line) for line in text.splitlines()] or [""]
            if self.found == self.header:
                self.rows = [line for line in lines if isinstance(line, dict)]
                self._whole = text.endswith("\n") and len(self.rows) == len(lines)
        kept = (row for row in self.rows if row.keys() == {"key", "found"} and isinstance(row["found"], dict))
        self._measured = {_key(row["key"]): row["found"] for row in kept}

    def add(self, row: Mapping[str, Any]) -> Row:
        """Keep a row; returns it as it will be read again."""
        self.rows.append(_as_json(row))
        if self.path is not None and self._whole:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        elif self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            files.write(self.path, "".join(json.dumps(line) + "\n" for line in [self.header, *self.rows]).encode())
            self._whole = True
        return self.rows[-1]

    def get(self, key: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]) -> Row:
        """What was measured under this key, measured now where it was not yet; the row holds the key, too."""
        if _key(key) not in self._measured:
            self._measured[_key(key)] = self.add({"key": key, "found": measure()})["found"]
        return {**key, **self._measured[_key(key)]}


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return ""


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _key(key: Any) -> str:
    return json.dumps(key, sort_keys=True)
