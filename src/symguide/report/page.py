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


@dataclass(frozen=True)
class Section:
    """A part of a page: a heading and what it is about, then a picture, a table and curves where given."""

    title: str
    text: str = ""
    picture: Image.Image | None = None
    alt: str = ""
    table: Table | None = None
    svg: str | None = None
    notes: Sequence[str] = ()

    @property
    def wide(self) -> bool:
        """Whether the picture is a strip, which narrow screens scroll rather than shrink."""
        return self.picture is not None and self.picture.width > 2 * self.picture.height

    @property
    def source(self) -> str:
        """The picture as a data URI."""
        return "" if self.picture is None else "data:image/png;base64," + base64.b64encode(png(self.picture)).decode()


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
