"""First panel: where a look-ahead pays, and what strength buys in its place."""

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from symguide.demo.panel import UNGUIDED, Method, Panel, Watch
from symguide.denoiser import Denoiser
from symguide.loss_guidance import SAG
from symguide.objectives import Ellipticity
from symguide.report import Column, Section, frechet, grid
from symguide.worlds import digits

ASKED, NEAR, SHOWN = 0.75, 0.05, 12
WINDOW = (0.0, 0.4)
CALLS = {"one call": 1, "two calls": 2, "four calls": 4, "one call, weaker": 1, "one call, stronger": 1}
SCALES = dict(zip(CALLS, (0.2, 0.2, 0.2, 0.05, 1.6), strict=True))
ONE, TWO, FOUR, WEAKER, STRONGER = CALLS
REAL = "real digits"

NOTES = (
    "Loss: (elongation - 0.75)², which guidance follows. Most frequent digit: as read by a judge that guidance never "
    "sees. Frechet distance: to training digits of this elongation, in the judge's features; so few samples never "
    "reach 0, see the real digits. Calls are for one sample.",
    "The case was chosen because the theory says that a look-ahead pays here: the loss is on second moments, there is "
    "much noise where it is guided, and no noise follows, so the look-ahead goes where the sample will go. Where late "
    "steps are guided too, one call corrects itself; where steps add noise, the way ahead is not the way that is gone, "
    "unless the look-ahead takes the noise that the run will draw. docs/which-method.md says when to look how far, "
    "docs/results what was measured.",
)


class Elongated(Panel):
    """Elongated digits, steps without noise, guided early: by one, two and four calls at one strength, and by one call
    at two others.

    The theory's own case for a look-ahead: a loss on second moments, at high noise, where no noise will follow. From a
    sweep on another seed (1; 40 samples, 20 steps) of strengths 0.05, 0.1, 0.2, 0.4, 0.8, 1.6: one call stayed nearest
    to the data at the first and met what is asked most often at the last. The others have the one in the middle.
    """

    columns = (
        Column("method", "method"),
        Column("scale", "\nscale", "{:g}"),
        Column("loss", "\nloss", "{:.4f}"),
        Column("elongation", "mean\nelongation", "{:.2f}"),
        Column("met", "within\n0.05", "{:.0%}"),
        Column("alike", "most frequent\ndigit", "{:.0%}"),
        Column("frechet", "Frechet\ndistance", "{:.0f}"),
        Column("forward_calls", "forward\ncalls"),
        Column("backward_calls", "backward\ncalls"),
        Column("seconds", "\nseconds", "{:.1f}"),
    )

    def __init__(self, denoiser: Denoiser, num: int, device: torch.device | str) -> None:
        self.objective = Ellipticity(ASKED)
        self.judge: Any = digits.judge(device)
        methods = [Method(UNGUIDED, Watch(self.objective), 1)]
        for name, n in CALLS.items():
            loss = SAG(self.objective, n=n, scale=SCALES[name], window=WINDOW)
            methods.append(Method(name, loss, 1 + round(WINDOW[1] * (3 * n - 2))))
        super().__init__(denoiser, device, num, methods)

    def settings(self) -> dict[str, Any]:
        """No noise in the steps."""
        return {"eta": 0.0}

    def run(self, tick: Callable[[str, int], None], steps: int, seed: int) -> None:
        super().run(tick, steps, seed)
        for row in self.rows:
            row["scale"] = SCALES.get(row["method"])

    def has(self, samples: Tensor) -> Tensor:
        """Whether samples have the elongation that is asked, (B,)."""
        return (self.objective.measured(samples) - ASKED).abs() < NEAR

    def real(self, split: str) -> Tensor:
        """Digits of the data that have the elongation."""
        images = digits.images(split).to(self.device)
        return images[self.has(images)]

    @torch.no_grad()
    def quality(self, samples: Tensor) -> dict[str, Any]:
        read = self.judge(samples).argmax(1).bincount()
        few, features = len(samples) < 2, self.judge.features
        return {
            "loss": self.objective(samples).mean().item(),
            "elongation": self.objective.measured(samples).mean().item(),
            "met": self.has(samples).double().mean().item(),
            "alike": (read.max() / read.sum()).item(),
            "frechet": None if few else frechet(features(samples), features(self.real("train").to(samples))),
        }

    def others(self) -> dict[str, Tensor]:
        return {REAL: self.real("held_out")}

    def picture(self) -> Image.Image:
        """The first samples of every method, with a bar where the elongation is met, below real digits that have it."""
        shown = {REAL: self.real("held_out")}
        shown |= {name: result.samples for name, result in self.results.items()}
        wide = min(SHOWN, *(len(x) for x in shown.values()))
        marks = [self.has(x[:wide]).tolist() for x in shown.values()]
        labels = [name.replace(", ", ",\n") for name in shown]
        return grid([x[:wide] for x in shown.values()], labels, marks=marks, cell=72, ink=True)

    def section(self) -> Section:
        """The panel as a part of a page."""
        return Section(
            "Where looking ahead pays: slim digits",
            f"Asked: an elongation of {ASKED}, (a² - b²) / (a² + b²) of the ink's half-axes: 0 is round, 1 a line. "
            "Steps are without noise, and only the first 40 % of them are guided, when a digit is still a blur and the "
            "blur is rounder than what will come of it. A blue bar: within 0.05 of what is asked. Each column starts "
            f"from the same noise. {self.summary()}",
            picture=self.picture(),
            alt="Handwritten digits: a row of real ones and one for each method, with bars where the elongation is met",
            table=self.table,
            notes=NOTES,
        )

    def summary(self) -> str:
        """What to see, in a sentence."""
        rows = {row["method"]: row for row in self.rows}
        met = {name: f"{row['met']:.0%}" for name, row in rows.items()}
        alike = {name: f"{row['alike']:.0%}" for name, row in rows.items()}
        return (
            f"At equal strength one call ahead meets it in {met[ONE]} of the samples, two calls in {met[TWO]}, four in "
            f"{met[FOUR]}. What strength buys in place of calls: eight times as strong, one call has {met[STRONGER]}, "
            f"and {alike[STRONGER]} of its samples are one and the same digit (with two calls {alike[TWO]}); a quarter "
            f"as strong, it has {met[WEAKER]}."
        )
