"""Curves of a run: loss and gradient norm over the steps, one line a method, as SVG to put into a page."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from symguide.extras import library
from symguide.loop import StepRecord

COLOURS = ("#7f7f7f", "#e08a00", "#0091d5", "#c8528f", "#009e73", "#d55e00")
"""Distinct for the colour-blind (after Okabe and Ito), and of middle lightness: they read on white and on black."""

SENTINEL = "#010203"  # becomes currentColor, so that text and axes follow the page's light or dark

STYLE = {"svg.fonttype": "none", "svg.hashsalt": "symguide", "font.family": "sans-serif", "font.size": 10}


def draw_curves(traces: Mapping[str, Sequence[StepRecord]]) -> str:
    """An inline SVG with two panels: loss, and gradient norm, over the steps.

    Lines are means over the samples, bands reach from the 10 % to the 90 % quantile. Steps that were not guided are
    left out, and so are methods that have nothing but zeros to show.

    Args:
        traces: method -> trace, as in `result.trace`; colours go by order.

    Raises:
        ConfigError: without matplotlib.
    """
    matplotlib, figures = (library(name, "curves", "report") for name in ("matplotlib", "matplotlib.figure"))
    with matplotlib.rc_context(STYLE):
        figure = figures.Figure(figsize=(9.6, 3.6), layout="constrained")
        panels = figure.subplots(1, 2)
        for panel, title, name in zip(
            panels, ("loss at the look-ahead", "gradient norm"), ("loss", "gradient_norm"), strict=True
        ):
            for order, (method, trace) in enumerate(traces.items()):
                _line(panel, method, trace, name, COLOURS[order % len(COLOURS)])
            dress(panel, title, "step")
            if panel.dataLim.y0 >= 0:  # scores to raise have negative losses
                panel.set_ylim(bottom=0)
        handles, names = panels[0].get_legend_handles_labels()
        if handles:
            figure.legend(
                handles, names, loc="outside upper center", ncols=len(names), frameon=False, labelcolor=SENTINEL
            )
        return inline(figure)


def _line(panel: Any, method: str, trace: Sequence[StepRecord], name: str, colour: str) -> None:
    values: list[tuple[int, Tensor]] = [
        (record.index, value.double().cpu().flatten())  # with particles (B, K)
        for record in trace
        if (value := getattr(record, name)) is not None and bool(torch.isfinite(value).all())
    ]
    if not values:
        return
    steps = [index for index, _ in values]
    rows = torch.stack([value for _, value in values])
    if not bool((rows != 0).any()):
        return
    low, high = torch.quantile(rows, torch.tensor([0.1, 0.9], dtype=torch.float64), dim=1)
    panel.fill_between(steps, low.numpy(), high.numpy(), color=colour, alpha=0.14, linewidth=0)
    panel.plot(steps, rows.mean(dim=1).numpy(), color=colour, linewidth=2, label=method)


def dress(panel: Any, title: str, x: str) -> None:
    """Title, axes and grid of a panel, in the page's own colour of text."""
    panel.set_title(title, loc="left", color=SENTINEL, fontsize=10.5)
    panel.set_xlabel(x, color=SENTINEL)
    panel.tick_params(which="both", colors=SENTINEL)
    panel.grid(color=SENTINEL, alpha=0.12, linewidth=0.6)
    for side, spine in panel.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(SENTINEL)


def inline(figure: Any) -> str:
    """The figure as SVG to put into a page; the same bytes for the same figure."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(SENTINEL, "currentColor")
