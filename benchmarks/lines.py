"""Lines on two logarithmic axes, as SVG to put into a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from symguide.extras import library
from symguide.report.curves import COLOURS, SENTINEL, STYLE, dress, inline


@dataclass(frozen=True)
class Panel:
    """One plot: its title, what runs along x, and points by the name of their line; none is drawn below `floor`."""

    title: str
    x: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    floor: float = 0.0


def draw_lines(panels: Sequence[Panel]) -> str:
    """An inline SVG with panels side by side and one legend below; a name has one colour and dash in all of them.

    Raises ConfigError without matplotlib.
    """
    matplotlib, figures = (library(name, "plots", "report") for name in ("matplotlib", "matplotlib.figure"))
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    styles = dict(zip(names, product(("-", "--", ":"), (*COLOURS[2:], *COLOURS[:2])), strict=False))
    with matplotlib.rc_context(STYLE):
        figure = figures.Figure(figsize=(9.6, 4.2), layout="constrained")
        drawn = {}
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            for name, points in panel.lines.items():
                dash, colour = styles[name]
                x, y = [p[0] for p in points], [max(p[1], panel.floor) for p in points]
                look = {"color": colour, "linewidth": 1.6, "marker": "o", "markersize": 3.5}
                drawn[name] = axes.plot(x, y, dash, **look, zorder=3 - 0.01 * names.index(name))[0]  # the first on top
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            dress(axes, panel.title, panel.x)
        place = {"loc": "outside lower center", "frameon": False, "labelcolor": SENTINEL, "fontsize": 9}
        figure.legend(list(drawn.values()), list(drawn), ncols=4, **place)
        return inline(figure)
