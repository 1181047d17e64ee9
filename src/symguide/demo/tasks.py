"""The panels of the scenes world: one task each, by the same methods from the same noise."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from symguide.demo.panel import COSTS, FREEDOM, LOOKAHEAD, SPHERE, UNGUIDED, Method, Panel, Watch, four
from symguide.denoiser import Denoiser
from symguide.evaluation.tasks import TASKS, shapes_read, task
from symguide.loss_guidance import SAG, FreeDoM
from symguide.prediction_guidance import CFG
from symguide.report import Column, Section, Table, draw_curves, grid

METHODS = (UNGUIDED, FREEDOM, LOOKAHEAD, SPHERE)
WEIGHT = 3.0
"""Of classifier-free guidance, where there is a caption."""


class Strength(NamedTuple):
    """How strong each method is in a task: scales of FreeDoM and SAG, rate of DSG's sphere."""

    freedom: float
    sag: float
    sphere: float


STRENGTHS = {
    "identity": Strength(0.4, 0.4, 0.4),
    "text": Strength(0.1, 0.1, 0.05),
    "inpainting": Strength(0.4, 0.8, 0.4),
}
"""Of the tasks that are shown beside style; `symguide.evaluation.tasks` has more.

Chosen by eye, where samples are steered and still pictures: the strengths that the judges like best are up to eight
times as large, and break shapes up. On text, where no caption helps, no strength shows what is asked every time, and
stronger guidance shows what only the scorer reads so.
"""


class TaskPanel(Panel):
    """One task."""

    columns: ClassVar[tuple[Column, ...]] = (
        Column("method", "method"),
        Column("scorer", "\nscorer", "{:.3f}"),
        Column("judge", "\njudge", "{:.3f}"),
        *COSTS,
    )

    def __init__(self, name: str, denoiser: Denoiser, num: int, device: torch.device | str) -> None:
        self.kind, self.task = TASKS[name], task(name, range(num))
        self.captioned = any(self.task.prompts)
        super().__init__(denoiser, device, num, self.ways(name))

    def ways(self, name: str) -> list[Method]:
        """The methods, at the strengths of the task."""
        return four(self.task.scorer, *STRENGTHS[name], passes=1 + self.captioned)

    def settings(self) -> dict[str, Any]:
        """The caption and its guidance."""
        return {"condition": self.task.condition, "prediction": CFG(WEIGHT) if self.captioned else None}

    @torch.no_grad()
    def quality(self, samples: Tensor) -> dict[str, Any]:
        return {"scorer": self.task.scorer(samples).mean().item(), "judge": self.task.judge(samples).mean().item()}

    def others(self) -> dict[str, Tensor]:
        return {}

    def picture(self) -> Image.Image:
        """What is given, and below it what every method made of it."""
        rows: dict[str, Tensor] = {}
        if self.task.reference is not None:
            rows["reference"] = self.task.reference
        if self.task.mask is not None and self.task.reference is not None:
            rows["what is kept"] = self.task.reference * self.task.mask
        rows |= {name: result.samples for name, result in self.results.items()}
        asked = self.task.prompts if self.captioned else self.task.texts
        heads = [text.replace(" on ", "\non ") for text in asked]
        labels = [name.replace(" + ", "\n+ ").replace(", ", ",\n") for name in rows]
        marks = self.marks(rows)
        return grid(list(rows.values()), labels, heads, marks=marks, cell=128, smooth=False)

    def marks(self, rows: Mapping[str, Tensor]) -> list[list[bool]] | None:
        """Which samples get a bar."""
        return None

    def section(self) -> Section:
        """The panel as a part of a page."""
        return Section(
            self.kind.title,
            self.about(),
            picture=self.picture(),
            alt=f"{self.kind.title}: a row for what is given and for each method, a column for each sample",
            table=self.table,
            svg=draw_curves({name: result.trace for name, result in self.results.items()}),
            notes=(f"Scorer and judge: {self.kind.goal}; less is better. Guidance sees the scorer alone.",),
        )

    def about(self) -> str:
        """What the task is."""
        return self.kind.about

    @property
    def judged(self) -> dict[str, float]:
        """What the judge measures, by method."""
        return {row["method"]: row["judge"] for row in self.rows}

    def gain(self) -> str:
        """What the judge measures, unguided and by the best method."""
        best = min(METHODS[1:], key=lambda name: self.judged[name])
        return f"{self.judged[UNGUIDED]:.2f} to {self.judged[best]:.2f} ({best})"


ONE, TWO, TWICE = "one call", "two calls", "one call, twice as strong"


class PaperCell(TaskPanel):
    """Style in the cell of the SAG paper: steps without noise, the middle ones guided, one strength for one and two
    calls; and one call at twice that strength, which meets two calls by the loss that is followed.
    """

    columns = (*TaskPanel.columns[:3], Column("shapes", "shapes\nread", "{:.0%}"), *COSTS)
    window, scale = (0.3, 0.7), 0.3

    def ways(self, name: str) -> list[Method]:
        """One call and two at one strength, one call at twice that."""
        loss, window, scale = self.task.scorer, self.window, self.scale
        return [
            Method(UNGUIDED, Watch(loss), 2),
            Method(ONE, FreeDoM(loss, scale=scale, window=window), 3),
            Method(TWO, SAG(loss, n=2, scale=scale, window=window), 5),
            Method(TWICE, FreeDoM(loss, scale=2 * scale, window=window), 3),
        ]

    def settings(self) -> dict[str, Any]:
        """No noise in the steps."""
        return super().settings() | {"eta": 0.0}

    def quality(self, samples: Tensor) -> dict[str, Any]:
        return super().quality(samples) | {"shapes": shapes_read(samples, self.task.shape).mean().item()}

    def about(self) -> str:
        """What the task is, what it is guided by, and what came of it."""
        return (
            f"{self.kind.about} This is the SAG paper's own setting: no noise in the steps, the middle 40 % of them "
            "guided, the same strength for one call and two. A blue bar: the judge reads the shape of the caption. "
            f"{self.summary()} Over many samples: docs/results/9-paper-cell.md."
        )

    def summary(self) -> str:
        """What two calls bring at equal strength, and what strength brings in their place."""
        rows = {row["method"]: row for row in self.rows}
        one, two, twice = (rows[name] for name in (ONE, TWO, TWICE))
        return (
            f"At equal strength two calls have {two['scorer'] / one['scorer']:.2f} of one call's loss, which guidance "
            f"follows, and {two['judge'] / one['judge']:.2f} by the judge. What strength buys in place of a call: one "
            f"call twice as strong has {twice['scorer'] / one['scorer']:.2f} and {twice['judge'] / one['judge']:.2f}. "
            f"Shapes pay for it: {one['shapes']:.0%} are read with one call, {two['shapes']:.0%} with two, "
            f"{twice['shapes']:.0%} with one call twice as strong."
        )

    def marks(self, rows: Mapping[str, Tensor]) -> list[list[bool]] | None:
        """Whether the judge reads the shape of the caption."""
        return [
            [False] * self.num if name == "reference" else (shapes_read(x, self.task.shape) > 0).tolist()
            for name, x in rows.items()
        ]


def overview(panels: Mapping[str, TaskPanel]) -> Section:
    """Tasks of the four methods by the judge, as the last part of a page."""
    columns = [Column("task", "task"), *(Column(name, name, "{:.3f}") for name in METHODS)]
    rows = [{"task": panel.kind.title, **panel.judged} for panel in panels.values()]
    return Section(
        "The other tasks, by the judge",
        "The judge is a network of another build, trained apart; no guidance has seen it. Less is better.",
        table=Table(columns, rows),
        notes=(
            "A few samples of one seed: what the pictures show, not a comparison of methods. For that, see the docs.",
        ),
    )
