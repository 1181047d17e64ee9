"""One guided run of a task of the scenes world, measured: what the benchmarks on scenes share."""

from collections.abc import Callable
from typing import Any

import torch

import symguide as sg
from symguide.models import judge
from symguide.report import frechet
from symguide.worlds import scenes
from symguide.worlds.scenes.tasks import task

STEPS, WEIGHT = 25, 3.0
FIGURES = {"scorer": ("scorer", 3), "judge": ("judge", 3), "shape": ("shape", 2), "Frechet": ("frechet", 1)}
"""Titles, keys and digits of what is measured."""

Make = Callable[[Any], Any]


class World:
    """The text-to-image model and the judge, loaded once.

    Args:
        device: where samples are drawn and judged.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.denoiser = sg.load("scenes", device=self.device)
        self.denoiser.network.to(memory_format=torch.channels_last)  # a quarter of a guided run's seconds on a CPU
        self.judge = judge("scenes", "classifier").to(self.device)
        real = scenes.render(scenes.draw("held_out", range(2048)), 32, torch.float32)
        with torch.no_grad():
            self.real = torch.cat([self.judge.features(part.to(self.device)) for part in real.split(256)])

    def measure(self, name: str, make: Make | None, seed: int, num: int, steps: int = STEPS) -> dict[str, Any]:
        """Figures of one run: by scorer and judge, what became of the pictures, and what it cost.

        Args:
            name: of the task.
            make: from the task's objective to a recipe; None draws unguided samples.
            seed, num, steps: as for `sample`.
        """
        goal = task(name, range(num))
        result = sg.sample(
            self.denoiser,
            batch=num,
            steps=steps,
            seed=seed,
            condition=goal.condition,
            prediction=sg.CFG(WEIGHT) if any(goal.prompts) else None,
            loss=None if make is None else make(goal.scorer),
        )
        with torch.no_grad():
            features = self.judge.features(result.samples)
            reached, judged = goal.scorer(result.samples), goal.judge(result.samples)
        return {
            "scorer": reached.mean().item(),
            "judge": judged.mean().item(),
            "shape": goal.shape_read(result.samples),
            "frechet": frechet(features, self.real),
            "forward": result.cost.forward_calls,
            "backward": result.cost.backward_calls,
            "seconds": result.cost.seconds,
            "peak": result.cost.peak_bytes,
        }
