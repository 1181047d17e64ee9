"""Why look ahead: what the clean estimate of one network call sees on the way, and what that of four calls sees."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from symguide.demo.panel import Tick
from symguide.denoiser import Denoiser
from symguide.lookahead import lookahead
from symguide.loop import sample
from symguide.prediction_guidance import CFG
from symguide.report import Column, Section, Table, grid

CALLS = (1, 2, 4)
PROMPT = "a red star on blue and white stripes"
SHARES = (0.0, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9)
"""Of the steps that are done when the estimate is made."""


class Misaligned:
    """Clean estimates along one unguided, deterministic trajectory, beside the sample that it ends in.

    Args:
        denoiser: the model.
        condition: what it is told, of one sample.
        weight: of classifier-free guidance.
        calls: of the network for an estimate, one or several numbers.
        shares: of the steps that are done when the estimates are made.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        condition: Mapping[str, Any],
        weight: float,
        calls: Sequence[int] = CALLS,
        shares: Sequence[float] = SHARES,
    ) -> None:
        self.denoiser, self.condition, self.prediction = denoiser, condition, CFG(weight)
        self.calls, self.shares = calls, shares
        self.estimates: dict[int, Tensor] = {}
        self.times: list[float] = []

    def work(self, steps: int) -> int:
        """Network calls of the estimates and of the trajectory."""
        return (1 if self.prediction.scale == 1 else 2) * (sum(self.calls) * len(self.shares) + steps)

    @torch.no_grad()
    def run(self, tick: Tick, steps: int, seed: int) -> None:
        """Draw the trajectory and look ahead from its points."""
        result = sample(
            self.denoiser,
            steps=steps,
            seed=seed,
            eta=0.0,
            condition=self.condition,
            prediction=self.prediction,
            return_trajectory=True,
        )
        assert result.trajectory is not None
        self.final = result.samples
        places = [min(round(share * steps), steps - 1) for share in self.shares]
        self.times = [result.trace[place].t for place in places]
        for n in self.calls:
            self.estimates[n] = torch.cat(
                [
                    lookahead(
                        self.denoiser,
                        result.trajectory[place],
                        t,
                        n,
                        condition=self.condition,
                        prediction=self.prediction,
                    ).x0
                    for place, t in zip(places, self.times, strict=True)
                ]
            )
        tick("estimates", self.work(steps))

    @property
    def gaps(self) -> dict[str, list[float]]:
        """Root mean square distance of every estimate to the final sample, by the number of calls, in words."""
        gaps = {n: (x - self.final).square().flatten(1).mean(1).sqrt().tolist() for n, x in self.estimates.items()}
        return {f"{n} call{'s' if n > 1 else ''}": gap for n, gap in gaps.items()}

    @property
    def table(self) -> Table:
        """These distances."""
        rows = [
            {"calls": calls, **{f"{t:.2f}": gap for t, gap in zip(self.times, gaps, strict=True)}}
            for calls, gaps in self.gaps.items()
        ]
        columns = [Column("calls", "estimate of")]
        return Table(columns + [Column(f"{t:.2f}", f"t = {t:.2f}", "{:.2f}") for t in self.times], rows)

    def picture(self) -> Image.Image:
        """A row for each number of calls, noise on the left, and the sample itself at the end."""
        rows = [torch.cat([x, self.final]) for x in self.estimates.values()]
        heads = [f"t = {t:.2f}" for t in self.times] + ["the sample"]
        return grid(rows, list(self.gaps), heads, cell=96, smooth=False)

    def section(self) -> Section:
        """The estimates as the first part of a page."""
        return Section(
            "What guidance sees on the way",
            f'The caption is "{PROMPT}". A loss on the clean sample needs an estimate of it while the sample is still '
            "noise. One network call gives a blur, and what is measured of a blur, a shape or a style, is not what is "
            "measured of the sample to come. A few calls more give something close to the sample, where no noise is "
            "added on the way, as here; symguide differentiates them exactly, at the memory of one.",
            picture=self.picture(),
            alt="Clean estimates from noise on the left to the finished sample on the right, by 1, 2 and 4 calls",
            table=self.table,
            notes=(
                "The table: root mean square distance to the sample that this trajectory ends in; pixels are -1 to 1.",
            ),
        )
