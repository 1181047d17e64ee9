"""Reports: quality against data, tables, pictures, curves and a page that holds them all.

Tables and pictures need nothing beyond symguide; curves and pages need `pip install "symguide[report]"`.
"""

from symguide.report.curves import draw_curves as draw_curves
from symguide.report.files import write as write
from symguide.report.front import draw_front as draw_front
from symguide.report.machine import environment as environment
from symguide.report.page import Section as Section
from symguide.report.page import Tile as Tile
from symguide.report.page import render_page as render_page
from symguide.report.pictures import grid as grid
from symguide.report.pictures import picture as picture
from symguide.report.pictures import png as png
from symguide.report.quality import frechet as frechet
from symguide.report.quality import judged as judged
from symguide.report.quality import nearest as nearest
from symguide.report.quality import precision_recall as precision_recall
from symguide.report.table import Column as Column
from symguide.report.table import Table as Table
