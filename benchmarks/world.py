"""One guided run of a task of the scenes world, measured: what the benchmarks on scenes, and on emoji, share."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from symguide.denoiser import Denoiser
from symguide.evaluation.tasks import TASKS, shapes_read, task
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

    titles: ClassVar[Mapping[str, tuple[str, int]]] = FIGURES
    """Of the figures in tables."""
    kept: ClassVar[str] = "shape"
    """The figure that tells whether what was asked for is still there."""
    kinds: ClassVar[Mapping[str, Any]] = TASKS

    def __init__(
        self, device: str = "cpu", model: str | Denoiser = "scenes", weight: float = WEIGHT, real: int = 2048
    ) -> None:
        self.device, self.weight = torch.device(device), weight
        self.denoiser = model if isinstance(model, Denoiser) else loaded(model, self.device)
        with torch.no_grad():
            self.side = self.denoiser.decode(torch.zeros(1, *self.denoiser.shape or (), device=self.device)).shape[-1]
        self._tasks: dict[tuple[str, range], Any] = {}
        self.prepare(real)

    def prepare(self, real: int) -> None:
        """Load the judges, and look at pictures of the data."""
        network: Any = judge("scenes", "classifier")
        self.judge = network.to(self.device)
        pictures: Tensor = scenes.render(scenes.draw("held_out", range(real)), 32, torch.float32)
        with torch.no_grad():
            self.real = torch.cat([self.judge.features(part.to(self.device)) for part in torch.split(pictures, 256)])

    def task(self, name: str, indices: range) -> Any:
        """The task for some samples, in pictures of the model's size."""
        if (name, indices) not in self._tasks:
            self._tasks[name, indices] = self.made(name, indices)
        return self._tasks[name, indices]

    def made(self, name: str, indices: range) -> Any:
        """A task."""
        return task(name, indices, self.side)

    def read(self, goal: Any, samples: Tensor) -> Tensor:
        """1 where the judge still reads in a sample what was asked for, else 0."""
        return shapes_read(samples, goal.shape)

    def plain(self, name: str) -> tuple[str, ...]:
        """What a task is measured by without guidance, and so without settings."""
        return ("unguided",)

    def conditioning(self, goal: Any) -> dict[str, Any]:
        """What the model is told of a task: the captions, where it takes them."""
        if "caption" not in self.denoiser.null:
            return {}
        return {"condition": goal.condition, "prediction": CFG(self.weight) if any(goal.prompts) else None}

    def objective(self, goal: Any) -> Any:
        """What guidance follows: the scorer's objective, of the pictures that samples decode to."""
        return goal.scorer if self.denoiser.decoder is None else Decoded(goal.scorer, self.denoiser.decode)

    def without(self, name: str, method: str, seed: int, num: int, steps: int) -> dict[str, Any]:
        """Figures of one of `plain`."""
        return self.measure(name, None, seed, num, steps)

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
    def figures(self, goal: Any, samples: Tensor, cost: Any) -> dict[str, Any]:
        """Figures of samples of the model, and what they cost."""
        pictures = self.denoiser.decode(samples)
        return {
            "scorer": goal.scorer(pictures).mean().item(),
            "judge": goal.judge(pictures).mean().item(),
            "shape": self.read(goal, pictures).mean().item(),
            "frechet": frechet(self.judge.features(pictures), self.real),
            **costs(cost),
        }


def costs(cost: Any) -> dict[str, Any]:
    """What a run cost."""
    return {
        "forward": cost.forward_calls,
        "backward": cost.backward_calls,
        "seconds": cost.seconds,
        "peak": cost.peak_bytes,
    }


def loaded(model: str, device: torch.device | str) -> Denoiser:
    """The model of that name or folder of `CHECKPOINTS`, with the layout that all figures are measured in."""
    folder = CHECKPOINTS / model
    return load(str(folder) if folder.exists() else model, device=device).to(memory_format=torch.channels_last)


def over_seeds(cells: Sequence[dict[str, Any]], figures: Mapping[str, tuple[str, int]]) -> dict[str, Any]:
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
