"""What gradients are compared on: priors in closed form and trained networks, with the gradient of the flow itself."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from benchmarks.peers.way import DTYPES, Problem
from symguide.closed_form import GaussianDenoiser, MixtureDenoiser
from symguide.denoiser import Denoiser
from symguide.evaluation.tasks import task
from symguide.lookahead import lookahead_gradient
from symguide.loss import Objective
from symguide.objectives import Classifier
from symguide.per_sample import Noise
from symguide.schedule import VP
from symguide.worlds import digits, scenes
from symguide.worlds.load import load

WIDTH = 8  # of the closed forms
T = 0.6  # where all look-aheads start


@dataclass(frozen=True)
class Subject:
    """A model in float64, an objective, and noisy samples x at time T.

    `flow` is the gradient of objective(x_0) where the probability-flow ODE carries x to x_0, up to what `fine` says.
    """

    name: str
    denoiser: Denoiser
    objective: Objective
    x: Tensor
    flow: Callable[[int], Tensor]

    def problem(self, n: int, solver: str, dtype: str) -> Problem:
        """The problem with the model in a precision."""
        return Problem(self._denoisers[dtype], self.objective, T, n, solver)

    @cached_property
    def _denoisers(self) -> dict[str, Denoiser]:
        return {name: self.denoiser.to(dtype=kind) for name, kind in DTYPES.items()}


def gaussian(batch: int, seed: int, device: torch.device) -> Subject:
    """A Gaussian with standard deviations from 0.1 to 1.6: its flow is known in closed form."""
    draw = Noise(seed, [0], (WIDTH, WIDTH), torch.float64)
    basis = torch.linalg.qr(draw.draw("propose")[0]).Q
    scales = torch.logspace(-1, 0.2, WIDTH, dtype=torch.float64)
    mean = draw.draw("start")[0, 0]
    denoiser = GaussianDenoiser(mean, (basis * scales.square()) @ basis.T, VP.linear())
    clean = mean + _noise(seed, batch, (WIDTH,), "start") * scales @ basis.T
    x = _noised(denoiser, clean, seed, device)
    objective = _distance((mean + 1).to(device))

    def flow(fine: int) -> Tensor:
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(objective(denoiser.transport(leaf, T)).sum(), leaf)[0]

    return Subject("gaussian", denoiser, objective, x, flow)


def mixture(batch: int, seed: int, device: torch.device) -> Subject:
    """Three narrow Gaussians: a flow that bends."""
    means = 1.5 * Noise(seed, range(3), (WIDTH,), torch.float64).draw("propose")
    denoiser = MixtureDenoiser(means, 0.04 * torch.eye(WIDTH, dtype=torch.float64), schedule=VP.linear())
    clean = means[torch.arange(batch) % 3] + 0.2 * _noise(seed, batch, (WIDTH,), "start")
    x = _noised(denoiser, clean, seed, device)
    objective = _distance(means.mean(dim=0).to(device))
    return Subject("mixture", denoiser, objective, x, _along_fine_grid(denoiser, objective, x))


def handwritten(batch: int, seed: int, device: torch.device) -> Subject:
    """The digits model on held-out digits, and the classifier that asks each for the next class."""
    denoiser = load("digits", device, torch.float64)
    x = _noised(denoiser, digits.images("held_out")[:batch].double(), seed, device)
    labels = ((digits.labels("held_out")[:batch] + 1) % 10).to(device)

    objective = Classifier(digits.scorer(device), labels)
    return Subject("digits", denoiser, objective, x, _along_fine_grid(denoiser, objective, x))


def drawn(batch: int, seed: int, device: torch.device) -> Subject:
    """The scenes model without captions on held-out pictures, and the objects of others, which each should show."""
    denoiser = load("scenes", device, torch.float64)
    x = _noised(denoiser, scenes.render(scenes.draw("held_out", range(batch)), 32, torch.float64), seed, device)
    objective = task("identity", range(batch)).scorer
    return Subject("scenes", denoiser, objective, x, _along_fine_grid(denoiser, objective, x))


SUBJECTS: dict[str, Callable[[int, int, torch.device], Subject]] = {
    "gaussian": gaussian,
    "mixture": mixture,
    "digits": handwritten,
    "scenes": drawn,
}


def _along_fine_grid(denoiser: Denoiser, objective: Objective, x: Tensor) -> Callable[[int], Tensor]:
    """The gradient along a grid of so many calls of Heun's rule, in float64, in place of the flow's."""
    return lambda fine: lookahead_gradient(denoiser, x, T, objective, fine, "heun").value


def _noise(seed: int, batch: int, shape: tuple[int, ...], stream: str) -> Tensor:
    return Noise(seed, range(batch), shape, torch.float64).draw(stream)


def _noised(denoiser: Denoiser, clean: Tensor, seed: int, device: torch.device) -> Tensor:
    """x_t of clean samples."""
    noise = _noise(seed, len(clean), tuple(clean.shape[1:]), "step")
    return (denoiser.schedule.alpha(T) * clean + denoiser.schedule.sigma(T) * noise).to(device)


def _distance(target: Tensor) -> Objective:
    """Squared distance to a target."""
    return lambda x0: (x0 - target.to(x0)).square().flatten(1).sum(dim=1)
