"""The panels of the scenes world: one task each, by four methods from the same noise."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from symguide.demo.panel import COSTS, FREEDOM, LOOKAHEAD, SPHERE, UNGUIDED, Panel, four
from symguide.denoiser import Denoiser
from symguide.evaluation.tasks import TASKS, task
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
    "style": Strength(0.4, 0.4, 0.2),
    "aesthetics": Strength(0.2, 0.2, 0.1),
    "personalisation": Strength(0.2, 0.2, 0.2),
    "identity": Strength(0.4, 0.4, 0.4),
    "text": Strength(0.1, 0.1, 0.05),
    "inpainting": Strength(0.4, 0.8, 0.4),
}
"""Chosen by eye, where samples are steered and still pictures: the strengths that the judges like best are up to eight
times as large, and break shapes up. On text, where no caption helps, no strength shows what is asked every time, and
stronger guidance shows what only the scorer reads so."""


class TaskPanel(Panel):
    """One task."""

    columns = (
        Column("method", "method"),
        Column("scorer", "\nscorer", "{:.3f}"),
        Column("judge", "\njudge", "{:.3f}"),
        *COSTS,
    )

    def __init__(self, name: str, denoiser: Denoiser, num: int, device: torch.device | str) -> None:
        self.kind, self.task = TASKS[name], task(name, range(num))
        self.captioned = any(self.task.prompts)
        methods = four(self.task.scorer, *STRENGTHS[name], passes=1 + self.captioned)
        super().__init__(denoiser, device, num, methods)

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
        labels = [name.replace(" + ", "\n+ ") for name in rows]
        return grid(list(rows.values()), labels, heads, cell=128, smooth=False)

    def section(self) -> Section:
        """The panel as a part of a page."""
        return Section(
            self.kind.title,
            self.kind.about,
            picture=self.picture(),
            alt=f"{self.kind.title}: a row for what is given and for each method, a column for each sample",
            table=self.table,
            svg=draw_curves({name: result.trace for name, result in self.results.items()}),
            notes=(f"Scorer and judge: {self.kind.goal}; less is better. Guidance sees the scorer alone.",),
        )

    @property
    def judged(self) -> dict[str, float]:
        """What the judge measures, by method."""
        return {row["method"]: row["judge"] for row in self.rows}

    def gain(self) -> str:
        """What the judge measures, unguided and by the best method."""
        best = min(METHODS[1:], key=lambda name: self.judged[name])
        return f"{self.judged[UNGUIDED]:.2f} to {self.judged[best]:.2f} ({best})"


def overview(panels: Mapping[str, TaskPanel]) -> Section:
    """All tasks by the judge, as the last part of a page."""
    columns = [Column("task", "task"), *(Column(name, name, "{:.3f}") for name in METHODS)]
    rows = [{"task": panel.kind.title, **panel.judged} for panel in panels.values()]
    return Section(
        "All tasks, by the judge",
        "The judge is a network of another build, trained apart; no guidance has seen it. Less is better.",
        table=Table(columns, rows),
        notes=(
            "A few samples of one seed: what the pictures show, not a comparison of methods. For that, see the docs.",
        ),
    )
