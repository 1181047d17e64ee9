"""A noise level for every frame: against autograd, frames alone, a loop by hand, and one level for all."""

import math

import pytest
import torch
from conftest import SCHEDULES, Tiny, quartic, relative, tiny
from torch import nn

import symguide as sg
from symguide.errors import ConfigError
from symguide.solver import GRIDS, SOLVERS, uniform

LEVELS = (0.2, 0.0, 0.7, 0.95)  # the second frame is known


class Video(nn.Module):
    """Sees all frames and all of their times, (B, F, D) and (B, F) -> (B, F, D); counts its rows."""

    def __init__(self, frames=4, d=3):
        super().__init__()
        self.inside = Tiny(frames * (d + 1))
        self.told = []

    def forward(self, x, timestep, label=None):
        assert timestep.shape == x.shape[:2]
        self.told.append(timestep[0].tolist())
        joint = torch.cat([x, timestep[..., None] / 1000], dim=2)
        return self.inside(joint.flatten(1), timestep[:, 0], label).reshape(joint.shape)[..., :-1]


class Alone(nn.Module):
    """A network that looks at each frame alone, with that frame's time; also of samples that are one frame."""

    def __init__(self):
        super().__init__()
        self.inside = Tiny(3)

    def forward(self, x, timestep):
        return self.inside(x.flatten(0, -2), timestep.flatten()).reshape(x.shape)


def randn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def video(schedule="vp-linear", predicts="v"):
    return sg.Denoiser(Video(), SCHEDULES[schedule], predicts, null={"label": 4})


def by_autograd(denoiser, x, t, n, solver, grid=None, **settings):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(quartic(sg.lookahead(denoiser, leaf, t, n, solver, grid, **settings).x0).sum(), leaf)[0]


@pytest.mark.parametrize("memory", ["minimal", "fast", 0, 2, "auto"])
@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_gradient_is_autograds_under_every_plan(solver, n, memory):
    denoiser, x = video(), randn(3, 4, 3)
    gradient = sg.lookahead_gradient(denoiser, x, LEVELS, quartic, n, solver, memory=memory)
    assert relative(gradient.value, by_autograd(denoiser, x, LEVELS, n, solver)) <= 1e-15
    kept = {"minimal": 1, "fast": n, "auto": n}.get(memory, memory)
    assert (gradient.forward_calls, gradient.backward_calls) == (2 * n - min(kept, n), n)
    assert torch.equal(gradient.x0[:, 1], x[:, 1])
    assert relative(gradient.x0[:, 0], x[:, 0]) > 1e-3


@pytest.mark.parametrize("predicts", ["eps", "x0", "v", "flow"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_and_prediction(schedule, predicts):
    denoiser, x = video(schedule, predicts), randn(2, 4, 3)
    for solver in SOLVERS:
        for grid in GRIDS:
            gradient = sg.lookahead_gradient(denoiser, x, LEVELS, quartic, 5, solver, grid)
            assert relative(gradient.value, by_autograd(denoiser, x, LEVELS, 5, solver, grid)) <= 4e-15
            assert torch.equal(gradient.x0[:, 1], x[:, 1])
    assert all(told[1] == 0 for told in denoiser.network.told)


@pytest.mark.parametrize("predicts", ["eps", "x0", "v", "flow"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_frames_that_do_not_see_each_other_are_frames_alone(solver, predicts):
    denoiser, x = sg.Denoiser(Alone(), SCHEDULES["vp-cosine"], predicts), randn(2, 4, 3)
    made = sg.lookahead_gradient(denoiser, x, LEVELS, quartic, 4, solver)
    leaf = made.x0.clone().requires_grad_()
    cotangent = torch.autograd.grad(quartic(leaf).sum(), leaf)[0]
    for f, t in enumerate(LEVELS):
        if t > 0:
            with sg.linearise(denoiser, x[:, f], t, 4, solver) as alone:
                assert relative(made.x0[:, f], alone.x0) < 1e-14
                assert relative(made.value[:, f], alone.vjp(cotangent[:, f])) < 1e-13


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_level_for_all_frames_is_one_level_to_the_last_bit(solver):
    inside = tiny(shape=(4, 3)).network

    def network(x, timestep):
        return inside(x, timestep if timestep.ndim == 1 else timestep[:, 0])

    for schedule, predicts in (("vp-linear", "eps"), ("ve", "x0"), ("flow", "flow"), ("vp-discrete", "v")):
        denoiser, x = sg.Denoiser(network, SCHEDULES[schedule], predicts), randn(2, 4, 3)
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            inside.to(dtype)
            one = sg.lookahead_gradient(denoiser, x.to(dtype), 0.6, quartic, 5, solver)
            all_frames = sg.lookahead_gradient(denoiser, x.to(dtype), (0.6,) * 4, quartic, 5, solver)
            assert torch.equal(one.value, all_frames.value)
            assert torch.equal(one.x0, all_frames.x0)
        inside.to(torch.float64)


def test_ddim_by_hand():
    """x_s = (sigma_s / sigma_t) x_t + (alpha_s - alpha_t sigma_s / sigma_t) x_0, each frame along its own grid."""
    denoiser, x = video(), randn(2, 4, 3)
    schedule, n = denoiser.schedule, 3
    grids = [uniform(schedule, t, n) if t else [0.0] * (n + 1) for t in LEVELS]
    y = x.clone()
    for k in range(n):
        now, then = [[g[i] for g in grids] for i in (k, k + 1)]
        v = denoiser.network(y, torch.tensor(now).expand(2, -1) * 1000)
        for f, (t, s) in enumerate(zip(now, then, strict=True)):
            a, b = schedule.alpha(t), schedule.sigma(t)
            x0 = a * x[:, f] if t == 0 else a * y[:, f] - b * v[:, f]
            eps = b * y[:, f] + a * v[:, f]
            y[:, f] = x[:, f] if t == 0 else schedule.alpha(s) * x0 + schedule.sigma(s) * eps
    assert relative(sg.lookahead(denoiser, x, LEVELS, n, "ddim", "uniform").x0, y) < 1e-14


def test_through_a_rule_and_the_jacobian():
    denoiser, x, u, v = video(), randn(2, 4, 3), randn(2, 4, 3, seed=2), randn(2, 4, 3, seed=3)
    settings = {"condition": {"label": [0, 2]}, "prediction": sg.CFG(2.5)}
    made = sg.lookahead_gradient(denoiser, x, LEVELS, quartic, 4, **settings)
    assert relative(made.value, by_autograd(denoiser, x, LEVELS, 4, "best", **settings)) <= 1e-15
    assert torch.equal(made.x0[:, 1], x[:, 1])
    with sg.linearise(denoiser, x, LEVELS, 3, **settings) as ahead:
        assert math.isclose((u * ahead.jvp(v)).sum(), (ahead.vjp(u) * v).sum(), rel_tol=1e-12)


def test_samples_do_not_depend_on_their_batch():
    denoiser, x = video(), randn(3, 4, 3)
    whole = sg.lookahead_gradient(denoiser, x, LEVELS, quartic, 4).value
    alone = sg.lookahead_gradient(denoiser, x[1:2], LEVELS, quartic, 4).value
    assert relative(alone[0], whole[1]) < 1e-13


@pytest.mark.parametrize("t", [(0.5, 0.5), (0.5, 0.5, 0.5, 1.1), (0.5, -0.1, 0.5, 0.5), (0.0, 0.0, 0.0, 0.0)])
def test_times_that_are_none(t):
    with pytest.raises(ConfigError, match="a time in \\[0, 1\\] for each of 4 frames"):
        sg.lookahead(video(), randn(1, 4, 3), t)


def test_what_frames_cannot_be_says_so():
    with pytest.raises(ConfigError, match="says nothing of x_0"):
        sg.lookahead(video("flow", "eps"), randn(1, 4, 3), (1.0, 0.5, 0.5, 0.5))
    gaussian = sg.GaussianDenoiser(torch.zeros(4, 3), torch.eye(12))
    with pytest.raises(ConfigError, match="one level for all frames"):
        sg.lookahead(gaussian, randn(1, 4, 3), LEVELS)
