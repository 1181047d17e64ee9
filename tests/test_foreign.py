"""Denoisers of other libraries' making: azula's, and callables in the style of k-diffusion."""

import pytest
import torch
from conftest import quartic, relative

import symguide as sg
from symguide.errors import ConfigError

VARIANCE = torch.tensor([0.25, 1.0, 2.0])


def test_a_callable_in_the_style_of_k_diffusion():
    """The clean estimate of a Gaussian prior, given x = x_0 + sigma eps and sigma (B,), as k-diffusion's models are."""

    def model(x, sigma, **extra):
        assert sigma.shape == (len(x),)
        return VARIANCE / (VARIANCE + sigma[:, None] ** 2) * x

    denoiser = sg.Denoiser(model, sg.VE(sigma_max=80.0), "x0", shape=(3,))
    exact = sg.GaussianDenoiser(torch.zeros(3), torch.diag(VARIANCE), schedule=sg.VE(sigma_max=80.0))
    settings = {"batch": 2, "steps": 12, "loss": sg.SAG(quartic, n=3)}
    assert relative(sg.sample(denoiser, **settings).samples, sg.sample(exact, **settings).samples) < 1e-9


@pytest.mark.parametrize("kind", ["VPSchedule", "CosineSchedule", "VESchedule", "RectifiedSchedule"])
def test_azulas_denoisers_take_azulas_own_steps(kind):
    azula = pytest.importorskip("azula")
    backbone = torch.nn.Linear(3, 3).double()

    class Backbone(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = backbone

        def forward(self, x, t):
            return torch.tanh(self.inner(x)) + t[:, None].cos() if t.ndim else torch.tanh(self.inner(x)) + t.cos()

    theirs = azula.denoise.KarrasDenoiser(Backbone(), getattr(azula.noise, kind)())
    denoiser = sg.from_azula(theirs, shape=(3,))
    start = torch.randn(2, 3)
    ours = sg.sample(denoiser, start=start, steps=8, eta=0.0, return_trajectory=True)
    sampler, x = azula.sample.DDIMSampler(theirs, steps=8), start
    times = [line.t for line in ours.trace]
    for k in range(7):  # the last one ends at azula's smallest noise, and ours at none
        x = sampler.step(x, torch.tensor(times[k]), torch.tensor(times[k + 1]))
        assert relative(ours.trajectory[k + 1], x) < 1e-6
    t = 0.37
    assert abs(denoiser.schedule.time(denoiser.schedule.ratio(t)) - t) < 1e-9
    gradient = sg.lookahead_gradient(denoiser, start, 0.5, quartic, n=3).value
    leaf = start.clone().requires_grad_()
    expected = torch.autograd.grad(quartic(sg.lookahead(denoiser, leaf, 0.5, n=3).x0).sum(), leaf)[0]
    assert relative(gradient, expected) < 1e-12


def test_what_is_no_denoiser_of_azulas():
    with pytest.raises(ConfigError, match="denoiser of azula"):
        sg.from_azula(torch.nn.Linear(3, 3))
