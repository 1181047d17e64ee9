"""Reports: quality against data, tables, pictures, curves and a page that holds them all.

Tables and pictures need nothing beyond symguide; curves and pages need `pip install "symguide[report]"`.
"""

from symguide.report.curves import draw_curves
from symguide.report.files import write
from symguide.report.front import draw_front
from symguide.report.machine import environment
from symguide.report.page import Section, render_page
from symguide.report.pictures import grid, png
from symguide.report.quality import frechet, judged, nearest, precision_recall
from symguide.report.table import Column, Table

__all__ = [
    "Column",
    "Section",
    "Table",
    "draw_curves",
    "draw_front",
    "environment",
    "frechet",
    "grid",
    "judged",
    "nearest",
    "png",
    "precision_recall",
    "render_page",
    "write",
]
