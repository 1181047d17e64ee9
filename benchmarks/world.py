"""One guided run of a task of the scenes world, measured: what the benchmarks on scenes share."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from symguide.denoiser import Denoiser
from symguide.evaluation.tasks import Task, shapes_read, task
from symguide.loop import sample
from symguide.objectives import Decoded
from symguide.prediction_guidance import CFG
from symguide.report import frechet
from symguide.worlds import scenes
from symguide.worlds.load import judge, load

STEPS, WEIGHT = 25, 3.0
CHECKPOINTS = Path(__file__).parents[1] / "training" / "checkpoints"
"""Where training/scenes.py leaves the models that are for a study alone."""
FIGURES = {"scorer": ("scorer", 3), "judge": ("judge", 3), "shape": ("shape", 2), "Frechet": ("frechet", 1)}
"""Titles, keys and digits of what is measured."""

Make = Callable[[Any], Any]


class World:
    """A model of the scenes world and the judge, loaded once.

    Args:
        device: where samples are drawn and judged.
        model: its name, or the model itself.
        weight: of classifier-free guidance where there is a caption; 1 is off.
        real: held-out pictures that the Frechet distance is taken to.
    """

    def __init__(
        self, device: str = "cpu", model: str | Denoiser = "scenes", weight: float = WEIGHT, real: int = 2048
    ) -> None:
        self.device, self.weight = torch.device(device), weight
        self.denoiser = model if isinstance(model, Denoiser) else loaded(model, self.device)
        with torch.no_grad():
            self.side = self.denoiser.decode(torch.zeros(1, *self.denoiser.shape or (), device=self.device)).shape[-1]
        network: Any = judge("scenes", "classifier")
        self.judge = network.to(self.device)
        self._tasks: dict[tuple[str, range], Task] = {}
        pictures: Tensor = scenes.render(scenes.draw("held_out", range(real)), 32, torch.float32)
        with torch.no_grad():
            self.real = torch.cat([self.judge.features(part.to(self.device)) for part in torch.split(pictures, 256)])

    def task(self, name: str, indices: range) -> Task:
        """The task for some samples, in pictures of the model's size."""
        if (name, indices) not in self._tasks:
            self._tasks[name, indices] = task(name, indices, self.side)
        return self._tasks[name, indices]

    def conditioning(self, goal: Task) -> dict[str, Any]:
        """What the model is told of a task: the captions, where it takes them."""
        if "caption" not in self.denoiser.null:
            return {}
        return {"condition": goal.condition, "prediction": CFG(self.weight) if any(goal.prompts) else None}

    def objective(self, goal: Task) -> Any:
        """What guidance follows: the scorer's objective, of the pictures that samples decode to."""
        return goal.scorer if self.denoiser.decoder is None else Decoded(goal.scorer, self.denoiser.decode)

    def measure(
        self, name: str, make: Make | None, seed: int, num: int, steps: int = STEPS, **settings: Any
    ) -> dict[str, Any]:
        """Figures of one run: by scorer and judge, what became of the pictures, and what it cost.

        Args:
            name: of the task.
            make: from the objective to a recipe; None draws unguided samples.
            seed, num, steps, settings: as for `sample`.
        """
        goal = self.task(name, range(num))
        loss = None if make is None else make(self.objective(goal))
        result = sample(
            self.denoiser, batch=num, steps=steps, seed=seed, **self.conditioning(goal), loss=loss, **settings
        )
        return self.figures(goal, result.samples, result.cost)

    @torch.no_grad()
    def figures(self, goal: Task, samples: Tensor, cost: Any) -> dict[str, Any]:
        """Figures of samples of the model, and what they cost."""
        pictures = self.denoiser.decode(samples)
        return {
            "scorer": goal.scorer(pictures).mean().item(),
            "judge": goal.judge(pictures).mean().item(),
            "shape": shapes_read(pictures, goal.shape).mean().item(),
            "frechet": frechet(self.judge.features(pictures), self.real),
            "forward": cost.forward_calls,
            "backward": cost.backward_calls,
            "seconds": cost.seconds,
            "peak": cost.peak_bytes,
        }


def loaded(model: str, device: torch.device | str) -> Denoiser:
    """The model of that name or folder of `CHECKPOINTS`, with the layout that all figures are measured in."""
    folder = CHECKPOINTS / model
    return load(str(folder) if folder.exists() else model, device=device).to(memory_format=torch.channels_last)


def over_seeds(cells: Sequence[dict[str, Any]], figures: dict[str, tuple[str, int]]) -> dict[str, Any]:
    """A row of one method's cells: mean ± standard deviation of figures by title: (key, digits); then its costs."""

    def spread(key: str, digits: int) -> str:
        values = [cell[key] for cell in cells]
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"

    return {
        **{title: spread(key, digits) for title, (key, digits) in figures.items()},
        "forward": cells[0]["forward"],
        "backward": cells[0]["backward"],
        "seconds": f"{statistics.mean(c['seconds'] for c in cells):.0f}",
    }
