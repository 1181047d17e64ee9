"""The front of a search: quality against cost, with every trial as a dot."""

import io
from collections.abc import Sequence
from typing import Any

from symguide.extras import library
from symguide.report.curves import COLOURS, STYLE
from symguide.tuning.trial import FAILED, PRUNED, Trial, Tuned


def draw_front(tuned: Tuned, metric: str = "metric") -> bytes:
    """A PNG: value against calls for each sample, the front as a line, defaults and unguided samples marked.

    Trials that were stopped early are hollow, at the mean of the samples that they have. Trials that failed are left
    out.

    Args:
        tuned: what a search found.
        metric: what the values are, for the axis.

    Raises:
        ConfigError: without matplotlib.
    """
    matplotlib, figures = (library(name, "the picture of the front", "report") for name in _MODULES)
    grey, orange, blue, pink = COLOURS[:4]
    with matplotlib.rc_context(STYLE):
        figure = figures.Figure(figsize=(7.2, 4.6), layout="constrained", dpi=140)
        panel = figure.subplots()
        drawn = [trial for trial in tuned.trials if trial.state != FAILED]
        good = tuned.eligible
        whole = [trial for trial in drawn if trial.state != PRUNED]
        for label, trials, style in (
            ("trials", good, {"color": grey, "s": 22}),
            (
                "stopped early",
                [t for t in drawn if t.state == PRUNED],
                {"edgecolors": grey, "facecolors": "none", "s": 22},
            ),
            ("keep too little", [t for t in whole if t not in good], {"color": pink, "marker": "x", "s": 26}),
        ):
            if trials:
                panel.scatter(*_points(trials), label=label, linewidths=0.9, alpha=0.75, **style)
        if front := tuned.front:
            line = {"marker": "o", "markersize": 5.5, "linewidth": 1.8, "drawstyle": "steps-post"}
            panel.plot(*_points(front), color=blue, label="front", **line)
        marked = {"marker": "*", "s": 190, "color": orange, "edgecolors": "white", "linewidths": 0.8, "zorder": 4}
        panel.scatter(*_points(tuned.defaults), label="defaults", **marked)
        panel.scatter(*_points([tuned.unguided]), label="unguided", marker="s", s=45, color="black", zorder=4)
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter(lambda value, place: f"{value:,.0f}")
        panel.xaxis.set_minor_formatter(lambda value, place: f"{value:,.0f}" if str(int(value))[0] in "25" else "")
        panel.set_ylim(*_limits([tuned.unguided, *tuned.defaults, *good]))
        panel.set_xlabel("network calls for each sample, forward and backward")
        panel.set_ylabel(f"{metric} (lower is better)")
        panel.grid(alpha=0.2, linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False, fontsize=9)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


_MODULES = ("matplotlib", "matplotlib.figure")


def _points(trials: Sequence[Trial]) -> tuple[list[int], list[float]]:
    return [trial.calls for trial in trials], [trial.value for trial in trials]


def _limits(trials: Sequence[Trial]) -> tuple[float, float]:
    """Of the values of trials that count: what is far worse would press them together."""
    values: list[Any] = sorted(trial.value for trial in trials if trial.state != FAILED)
    room = 0.08 * (values[-1] - values[0] or abs(values[0]) or 1.0)
    return values[0] - room, values[-1] + room
