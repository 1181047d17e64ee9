"""Why look ahead: what the clean estimate of one network call sees on the way, and what that of four calls sees."""

import torch
from PIL import Image
from torch import Tensor

from symguide.denoiser import Denoiser
from symguide.lookahead import lookahead
from symguide.loop import sample
from symguide.prediction_guidance import CFG
from symguide.report import Column, Section, Table, grid
from symguide.worlds.scenes import tokens

CALLS = (1, 2, 4)
PROMPT = "a red star on blue and white stripes"
SHARES = (0.0, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9)
"""Of the steps that are done when the estimate is made."""


class Misaligned:
    """Clean estimates along one unguided, deterministic trajectory, beside the sample that it ends in."""

    def __init__(self, denoiser: Denoiser, weight: float) -> None:
        self.denoiser, self.prediction = denoiser, CFG(weight)
        self.condition = {"caption": tokens(PROMPT)}
        self.estimates: dict[int, Tensor] = {}
        self.times: list[float] = []

    @property
    def work(self) -> int:
        """Network calls of the estimates."""
        return 2 * sum(CALLS) * len(SHARES)

    @torch.no_grad()
    def run(self, steps: int, seed: int) -> None:
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
        places = [min(round(share * steps), steps - 1) for share in SHARES]
        self.times = [result.trace[place].t for place in places]
        for n in CALLS:
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

    @property
    def rows(self) -> list[dict[str, object]]:
        """Root mean square distance of every estimate to the final sample."""
        gaps = {n: (x - self.final).square().flatten(1).mean(1).sqrt().tolist() for n, x in self.estimates.items()}
        return [
            {
                "calls": f"{n} call{'s' if n > 1 else ''}",
                **{f"{t:.2f}": gap for t, gap in zip(self.times, gaps[n], strict=True)},
            }
            for n in CALLS
        ]

    def picture(self) -> Image.Image:
        """A row for each number of calls, noise on the left, and the sample itself at the end."""
        rows = [torch.cat([x, self.final]) for x in self.estimates.values()]
        heads = [f"t = {t:.2f}" for t in self.times] + ["the sample"]
        return grid(rows, [row["calls"] for row in self.rows], heads, cell=96, smooth=False)  # type: ignore[misc]

    def section(self) -> Section:
        """The estimates as the first part of a page."""
        columns = [Column("calls", "estimate of")]
        columns += [Column(f"{t:.2f}", f"t = {t:.2f}", "{:.2f}") for t in self.times]
        return Section(
            "What guidance sees on the way",
            f'The caption is "{PROMPT}". A loss on the clean sample needs an estimate of it while the sample is still '
            "noise. One network call gives a blur, and what is measured of a blur, a shape or a style, is not what is "
            "measured of the sample to come. A few calls more give something close to the sample, where no noise is "
            "added on the way, as here; symguide differentiates them exactly, at the memory of one.",
            picture=self.picture(),
            alt="Clean estimates from noise on the left to the finished sample on the right, by 1, 2 and 4 calls",
            table=Table(columns, self.rows),
            notes=(
                "The table: root mean square distance to the sample that this trajectory ends in; pixels are -1 to 1.",
            ),
        )
