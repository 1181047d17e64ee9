"""Tables: the same rows aligned for a terminal, as cells for a page, and as records for programs."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MISSING = "-"


@dataclass(frozen=True)
class Column:
    """A column: the rows' key, its heading (a line break makes a second line), and how a value is shown.

    >>> Column("loss", "loss", "{:.2f}").cell({"loss": 0.1234})
    '0.12'
    """

    key: str
    title: str
    show: str | Callable[[Any], str] = "{}"

    def cell(self, row: Mapping[str, Any]) -> str:
        value = row.get(self.key)
        if value is None:
            return MISSING
        return self.show.format(value) if isinstance(self.show, str) else self.show(value)


@dataclass(frozen=True)
class Table:
    """Rows under columns; what a row lacks is shown as a dash. The first column is text, the others stand to the right.

    >>> columns = [Column("who", "method"), Column("n", "forward\\ncalls")]
    >>> print(Table(columns, [{"who": "SAG", "n": 7}, {"who": "DPS"}]))
            forward
    method    calls
    ------  -------
    SAG           7
    DPS           -
    """

    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]

    def cells(self) -> list[list[str]]:
        """The rows as shown, without headings."""
        return [[column.cell(row) for column in self.columns] for row in self.rows]

    def __str__(self) -> str:
        titles = [column.title.split("\n") for column in self.columns]
        height = max(len(title) for title in titles)
        head = list(zip(*[[""] * (height - len(title)) + title for title in titles], strict=True))
        body = self.cells()
        widths = [max(len(line[i]) for line in [*head, *body]) for i in range(len(self.columns))]
        rule = ["-" * width for width in widths]
        return "\n".join(_line(line, widths) for line in [*head, rule, *body])

    def records(self) -> list[dict[str, Any]]:
        """The rows with their full values, ready for JSON: numbers that are not finite become None."""
        return [{key: _finite(value) for key, value in row.items()} for row in self.rows]


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0].ljust(widths[0])
    rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return "  ".join([first, *rest]).rstrip()
