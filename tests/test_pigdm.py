"""PiGDM where everything is Gaussian: its guidance, the posterior mean and the posterior are closed forms."""

from typing import ClassVar

import pytest
import torch
from conftest import SCHEDULES, relative, tiny

import symguide as sg
from symguide.errors import ConfigError
from symguide.objectives import CompressedSensing, Downsample, LinearOperator, Mask, Measurement

SHAPE, D, NOISE = (1, 4, 4), 16, 0.3


class Matrix(LinearOperator):
    """An operator of a user's: no closed form of anything."""

    def __init__(self, matrix):
        self.matrix = matrix

    def __call__(self, x):
        return x.flatten(1) @ self.matrix.to(x).T

    def adjoint(self, y):
        return (y @ self.matrix.to(y)).reshape(-1, *SHAPE)


def randn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


OPERATORS = {
    "matrix": Matrix(randn(5, D)),
    "mask": Mask((randn(4, 4) > 0).double()),
    "downsample": Downsample(2),
    "sensing": CompressedSensing(SHAPE, 0.4),
}


def dense(a):
    return a(torch.eye(D).reshape(D, *SHAPE)).flatten(1).T


class Watched(sg.PiGDM):
    """Notes what it pushes, where."""

    seen: ClassVar = []

    def push(self, step):
        made = super().push(step)
        self.seen.append((step.t, step.x, step.prediction.x0, made))
        return made


def watched(denoiser, task, **settings):
    Watched.seen = []
    sg.sample(denoiser, batch=3, shape=SHAPE, steps=4, loss=Watched(task), **settings)
    return Watched.seen


@pytest.mark.parametrize("schedule", ["vp-linear", "ve", "flow"])
@pytest.mark.parametrize("name", OPERATORS)
def test_the_guidance_is_its_closed_form(name, schedule):
    """J = alpha S (alpha² S + sigma² I)^-1 of a Gaussian prior of covariance S."""
    a, root = OPERATORS[name], randn(D, D, seed=3) / 4
    matrix, covariance = dense(a), root @ root.T
    denoiser = sg.GaussianDenoiser(torch.zeros(SHAPE), covariance, SCHEDULES[schedule])
    y = a.measure(randn(1, *SHAPE, seed=4), NOISE)
    seen = watched(denoiser, Measurement(a, y, NOISE))
    assert len(seen) == (3 if schedule == "flow" else 4)
    for t, _, x0, push in seen:
        alpha, sigma = denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)
        variance = sigma**2 / (alpha**2 + sigma**2)
        j = alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * torch.eye(D))
        whole = variance * matrix @ matrix.T + NOISE**2 * torch.eye(len(matrix))
        residual = y.flatten(1) - x0.flatten(1) @ matrix.T
        g = residual @ torch.linalg.inv(whole) @ matrix @ j
        assert relative(push.x0.flatten(1), sigma**2 / alpha * g) < 1e-9
        assert relative(-push.gradient.flatten(1), g) < 1e-9


@pytest.mark.parametrize("name", OPERATORS)
def test_for_unit_gaussian_data_the_moved_estimate_is_the_posterior_mean(name):
    """E[x_0 | x_t, y] by the normal equations of both observations."""
    a, denoiser = OPERATORS[name], sg.GaussianDenoiser(torch.zeros(SHAPE), torch.eye(D))
    matrix, y = dense(a), a.measure(randn(1, *SHAPE, seed=4), NOISE)
    for t, x, x0, push in watched(denoiser, Measurement(a, y, NOISE)):
        alpha, sigma = denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)
        precision = torch.eye(D) * (1 + (alpha / sigma) ** 2) + matrix.T @ matrix / NOISE**2
        right = alpha / sigma**2 * x.flatten(1) + y.flatten(1) @ matrix / NOISE**2
        assert relative((x0 + push.x0).flatten(1), torch.linalg.solve(precision, right.T).T) < 1e-9


def test_a_run_draws_from_the_posterior():
    """Its map from the start is affine: zero and unit vectors give it whole, and the starting noise is known."""
    a, steps = OPERATORS["sensing"], 300
    denoiser = sg.GaussianDenoiser(torch.zeros(SHAPE), torch.eye(D))
    matrix, y = dense(a), a.measure(randn(1, *SHAPE, seed=4), NOISE)
    start = torch.cat([torch.zeros(1, D), torch.eye(D)]).reshape(-1, *SHAPE)
    made = sg.sample(denoiser, start=start, steps=steps, eta=0, grid="flow", loss=sg.PiGDM(Measurement(a, y, NOISE)))
    moves = made.samples.flatten(1)
    mean, factor = moves[0], moves[1:] - moves[0]
    covariance = torch.linalg.inv(torch.eye(D) + matrix.T @ matrix / NOISE**2)
    assert relative(mean, covariance @ matrix.T @ y[0] / NOISE**2) < 0.02
    assert relative(factor.T @ factor, covariance) < 0.02


def test_what_it_costs_and_that_samples_are_their_own():
    a = Downsample(2)
    network = tiny("vp-linear", "v", SHAPE)
    y = a.measure(randn(3, *SHAPE, seed=4), NOISE)
    settings = {"steps": 5, "seed": 2}
    whole = sg.sample(network, batch=3, loss=sg.PiGDM(Measurement(a, y, NOISE)), **settings)
    assert [(line.forward_calls, line.backward_calls) for line in whole.trace] == [(1, 1)] * 5
    assert (network.network.forward_rows, network.network.backward_rows) == (15, 15)
    alone = sg.sample(network, indices=[1], loss=sg.PiGDM(Measurement(a, y[1:2], NOISE)), **settings)
    assert relative(alone.samples[0], whole.samples[1]) < 1e-11
    off = sg.sample(network, batch=3, loss=sg.PiGDM(Measurement(a, y, NOISE), scale=0), **settings)
    assert torch.equal(off.samples, sg.sample(network, batch=3, **settings).samples)
    assert off.cost.backward_calls == 0


def test_what_it_does_not_take():
    y, denoiser = torch.zeros(1, 1, 2, 2), tiny(shape=SHAPE)
    with pytest.raises(ConfigError, match="needs objectives.Measurement"):  # noqa: RUF043
        sg.sample(denoiser, steps=2, loss=sg.PiGDM(lambda x0: x0.sum(dim=1)))
    with pytest.raises(ConfigError, match="adjoint and inverse"):
        sg.sample(denoiser, steps=2, loss=sg.PiGDM(Measurement(lambda x: x[..., ::2, ::2], y)))
    region = sg.PiGDM(sg.objectives.Region(torch.zeros(SHAPE), torch.ones(4, 4), 0.01))
    gaussian = sg.GaussianDenoiser(torch.zeros(SHAPE), torch.eye(D))
    assert sg.sample(gaussian, steps=20, loss=region).samples.abs().max() < 0.1
