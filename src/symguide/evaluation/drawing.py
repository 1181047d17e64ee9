"""Many samples of a model to be judged, some at a time."""

from collections.abc import Mapping

import torch
from torch import Tensor
from tqdm import tqdm

from symguide.denoiser import Denoiser
from symguide.loop import sample
from symguide.prediction_guidance import CFG


class Drawing:
    """Draws samples of a model as pictures; a sample does not depend on the others.

    Args:
        denoiser: the model.
        weight: of classifier-free guidance.
        steps: sampling steps.
        solver, eta: of the sampling.
        seed: of the samples.
        batch: samples drawn at a time.
        progress: show a bar.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        weight: float,
        steps: int = 25,
        solver: str = "dpmpp_2m",
        eta: float = 0.0,
        seed: int = 0,
        batch: int = 100,
        progress: bool = False,
    ) -> None:
        self.denoiser, self.weight, self.steps, self.seed = denoiser, weight, steps, seed
        self.solver, self.eta, self.batch, self.progress = solver, eta, batch, progress

    @torch.no_grad()
    def draw(self, condition: Mapping[str, Tensor], what: str, first: int = 0) -> Tensor:
        """A picture for each row of the conditions; sample i has the noise of index first + i."""
        count = len(next(iter(condition.values())))
        parts = []
        for start in tqdm(range(0, count, self.batch), desc=what, disable=not self.progress, unit="batch"):
            stop = min(start + self.batch, count)
            drawn = sample(
                self.denoiser,
                steps=self.steps,
                seed=self.seed,
                condition={name: rows[start:stop] for name, rows in condition.items()},
                solver=self.solver,
                eta=self.eta,
                prediction=CFG(self.weight),
                indices=range(first + start, first + stop),
            )
            parts.append(self.denoiser.decode(drawn.samples))
        return torch.cat(parts)
