"""The page of a report: one HTML file that needs no other, readable in light and dark."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from symguide.extras import library
from symguide.report.pictures import png
from symguide.report.table import Table

TEMPLATE = Path(__file__).with_name("page.html")


def _source(picture: Image.Image) -> str:
    """A picture as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode()


@dataclass(frozen=True)
class Tile:
    """One of several pictures that stand beside each other as far as the screen is wide.

    Attributes:
        picture: what it shows.
        title: its name, below it.
        lines: what else is said there.
        alt: what it shows, in words.
        row: whether it takes a row of its own.
    """

    picture: Image.Image
    title: str
    lines: Sequence[str] = ()
    alt: str = ""
    row: bool = False

    @property
    def source(self) -> str:
        """The picture as a data URI."""
        return _source(self.picture)


@dataclass(frozen=True)
class Section:
    """A part of a page: a heading and what it is about, then a picture, tiles, a table and curves where given."""

    title: str
    text: str = ""
    picture: Image.Image | None = None
    alt: str = ""
    table: Table | None = None
    svg: str | None = None
    notes: Sequence[str] = ()
    tiles: Sequence[Tile] = ()

    @property
    def wide(self) -> bool:
        """Whether the picture is a strip, which narrow screens scroll rather than shrink."""
        return self.picture is not None and self.picture.width > 2 * self.picture.height

    @property
    def source(self) -> str:
        """The picture as a data URI."""
        return "" if self.picture is None else _source(self.picture)


def render_page(title: str, lead: str, command: str, sections: Sequence[Section], facts: Mapping[str, str]) -> str:
    """A self-contained HTML page; everything is escaped except the sections' SVG, which must be our own.

    Args:
        title: the heading.
        lead: one or two sentences on what the page shows.
        command: what was run, to run it again.
        sections: the parts, in order.
        facts: settings, versions and machine, for the last line.

    Raises:
        ConfigError: without jinja2.
    """
    jinja2 = library("jinja2", "a page", "report")
    machine = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = machine.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(title=title, lead=lead, command=command, sections=sections, facts=facts)
