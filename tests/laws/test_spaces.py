"""Law 5: networks that represent the same model in different spaces give the same samples, guided or not."""

import pytest
import torch
from conftest import SCHEDULES, relative, squares, tiny

import symguide as sg
from symguide.denoiser import SPACES
from symguide.solver import SOLVERS


def same_model(space, schedule):
    """One nonlinear model of x_0, shown to the sampler through another prediction type."""
    inner = tiny().network

    def network(x, timestep):
        t = schedule.at_timestep(timestep[0].item())
        x0 = inner(x / schedule.ratio(t) if schedule.ratio(t) > 1 else x, timestep)
        made = sg.Prediction(x, x0, "x0", schedule.alpha(t), schedule.sigma(t), schedule.v_weights(t))
        return getattr(made, space)

    return sg.Denoiser(network, schedule, space, shape=(6,))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_samples_agree(schedule, solver):
    def draw(space):
        loss = sg.SAG(squares, n=3)
        return sg.sample(same_model(space, SCHEDULES[schedule]), batch=2, steps=5, solver=solver, loss=loss).samples

    for space in SPACES:
        if schedule == "flow" and space == "eps":
            continue  # at t = 1 a flow is pure noise, from which eps says nothing of x_0
        assert relative(draw(space), draw("x0")) < 1e-9


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("space", SPACES)
def test_conversions_close(space, schedule):
    """x = alpha x_0 + sigma eps holds for every pair of conversions, and each space gives itself back."""
    x, value = torch.randn(2, 5), torch.randn(2, 5)
    t = torch.tensor([0.2, 0.7])
    s = SCHEDULES[schedule]
    p = sg.Prediction(x, value, space, s.alpha(t), s.sigma(t), s.v_weights(t))
    assert torch.allclose(s.alpha(t)[:, None] * p.x0 + s.sigma(t)[:, None] * p.eps, x)
    again = sg.Prediction(x, p.x0, "x0", s.alpha(t), s.sigma(t), s.v_weights(t))
    assert torch.allclose(getattr(again, space), value)
    assert torch.allclose(p.flow, p.eps - p.x0)
    assert torch.allclose(p.score, -p.eps / s.sigma(t)[:, None])
