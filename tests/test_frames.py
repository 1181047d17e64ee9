"""A noise level for every frame: against autograd, frames alone, a loop by hand, and one level for all."""

import itertools
import math

import pytest
import torch
from conftest import SCHEDULES, Tiny, quartic, relative, tiny
from torch import nn

import symguide as sg
from symguide.errors import ConfigError
from symguide.lookahead import run
from symguide.per_sample import Noise
from symguide.solver import GRIDS, SOLVERS, transition, uniform

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
    assert torch.equal(denoiser(x, LEVELS).x0[:, 1], x[:, 1])


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


# runs


def pyramid(schedule, t, steps, frames=4, lag=2):
    """Each frame begins `lag` steps after the one before it."""
    own = steps - lag * (frames - 1)
    return [tuple(t * min(max(1 - (i - lag * f) / own, 0.0), 1.0) for f in range(frames)) for i in range(steps + 1)]


def continued(schedule, t, steps):
    """Two frames are known, two are made."""
    return [(0.0, 0.0, *[t * (1 - i / steps)] * 2) for i in range(steps + 1)]


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("schedule", ["vp-linear", "ve", "flow"])
def test_frames_that_do_not_see_each_other_are_runs_alone(schedule, solver, eta):
    """A frame that waits and then falls is a run of its own steps, with its own part of the noise."""
    denoiser, steps, lag = sg.Denoiser(Alone(), SCHEDULES[schedule], "v"), 9, 2
    settings = {"steps": steps, "solver": solver, "eta": eta, "seed": 3}
    whole = sg.sample(denoiser, batch=2, shape=(4, 3), grid=pyramid, return_trajectory=True, **settings)
    for f in range(4):
        times = [t[f] for t in pyramid(None, denoiser.schedule.t_max, steps)][lag * f : lag * f + 4]
        draws = Noise(3, range(2), (4, 3))
        x = whole.trajectory[0][:, f]
        past = None
        for i, (t, s) in enumerate(itertools.pairwise(times)):
            made = transition(solver, denoiser.schedule, t, s, eta, None if past is None else past[0])
            seen = []

            def call(state, r, seen=seen):
                seen.append(denoiser(state, r).x0.detach())
                return seen[-1]

            with torch.no_grad():
                mean = run(made.program, [x] if past is None else [x, past[1]], call)
            if solver == "dpmpp_2m":
                past = t, seen[0]
            x = mean + made.std * draws.draw("step", lag * f + i)[:, f]
        assert relative(whole.samples[:, f], x) < 1e-11
        assert torch.equal(whole.trajectory[lag * f][:, f], whole.trajectory[0][:, f])  # it waited
        assert torch.equal(whole.trajectory[lag * f + 3][:, f], whole.samples[:, f])  # and stays


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_level_for_all_frames_is_the_plain_sampler(solver):
    inside = tiny(shape=(4, 3)).network

    def network(x, timestep):
        return inside(x, timestep if timestep.ndim == 1 else timestep[:, 0])

    denoiser = sg.Denoiser(network, SCHEDULES["vp-linear"], "eps", shape=(4, 3))
    settings = {"batch": 2, "steps": 6, "solver": solver, "loss": sg.SAG(quartic, n=2)}
    plain = sg.sample(denoiser, **settings)

    def grid(schedule, t, steps):
        return [(r,) * 4 for r in uniform(schedule, t, steps)]

    framed = sg.sample(denoiser, grid=grid, **settings)
    assert relative(framed.samples, plain.samples) < 1e-12
    assert [line.t for line in framed.trace] == [line.t for line in plain.trace]


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("guided", [None, sg.SAG(quartic, n=3), sg.FreeDoM(quartic, repeats=2)])
def test_known_frames_stay_to_the_last_bit(guided, solver):
    denoiser, start = video(), randn(3, 4, 3)
    settings = {"steps": 5, "grid": continued, "solver": solver, "return_trajectory": True}
    result = sg.sample(denoiser, start=start, loss=guided, **settings)
    assert all(torch.equal(x[:, :2], start[:, :2]) for x in result.trajectory)
    assert relative(result.samples[:, 2:], start[:, 2:]) > 0.1
    alone = sg.sample(denoiser, start=start[1:2], indices=[1], loss=guided, **settings)
    assert relative(alone.samples[0], result.samples[1]) < 1e-11
    if guided is not None:
        assert relative(result.samples, sg.sample(denoiser, start=start, **settings).samples) > 1e-3


def test_guidance_of_a_step_by_hand():
    """x_s = mean + std z - scale r g / |g|, with r of each frame and g exact and 0 where a frame stays."""
    denoiser, start = video(), randn(2, 4, 3)
    plain, guided = (
        sg.sample(denoiser, start=start, steps=5, grid=continued, loss=loss, return_trajectory=True)
        for loss in (None, sg.SAG(quartic, n=3, scale=0.7))
    )
    t, s = continued(None, 1.0, 5)[:2]
    g = by_autograd(denoiser, start, t, 3, "best")
    g[:, :2] = 0
    schedule = denoiser.schedule
    a = [(schedule.alpha(r), schedule.sigma(r)) for r in (t[2], s[2])]
    std = a[1][1] / a[0][1] * math.sqrt(a[0][1] ** 2 - (a[0][0] / a[1][0] * a[1][1]) ** 2)
    step = 0.7 * math.sqrt(12) * std * g / g.flatten(1).norm(dim=1)[:, None, None]
    assert relative(guided.trajectory[1], plain.trajectory[1] - step) < 1e-12


def test_through_a_rule_of_the_prediction():
    denoiser = video()
    settings = {"batch": 2, "shape": (4, 3), "steps": 9, "grid": pyramid, "condition": {"label": [0, 2]}}
    one = sg.sample(denoiser, prediction=sg.CFG(1.0), **settings)
    assert torch.equal(one.samples, sg.sample(denoiser, **settings).samples)
    assert relative(sg.sample(denoiser, prediction=sg.CFG(3.0), **settings).samples, one.samples) > 1e-3


@pytest.mark.parametrize(
    "grid",
    [
        lambda schedule, t, steps: [(t, t)] * steps + [(0.0, 0.0)],
        lambda schedule, t, steps: [*pyramid(schedule, t, steps)[:-1], (0.0, 0.0, 0.0, 0.1)],
        lambda schedule, t, steps: pyramid(schedule, t, steps)[1:],
        lambda schedule, t, steps: [*reversed(pyramid(schedule, t, steps))],
        lambda schedule, t, steps: [pyramid(schedule, t, steps)[0], *pyramid(schedule, t, steps)[:-2], (0.0,) * 4],
    ],
)
def test_grids_of_frames_that_are_none(grid):
    with pytest.raises(ConfigError, match="must give 10 tuples of 4 times"):
        sg.sample(video(), shape=(4, 3), steps=9, grid=grid)


def test_what_runs_of_frames_do_not_take():
    settings = {"shape": (4, 3), "steps": 9, "grid": pyramid}
    for more in ({"particles": sg.BestOfN(quartic, 2)}, {"restart": sg.Restart(0.1, 0.5, 1)}):
        with pytest.raises(ConfigError, match="without restart=, particles= and hooks="):
            sg.sample(video(), **settings, **more)
    with pytest.raises(ConfigError, match="MPGD guides one noise level for all frames"):
        sg.sample(video(), loss=sg.MPGD(quartic), **settings)
    with pytest.raises(ConfigError, match="one noise level for all frames"):
        sg.sample(video(), loss=sg.SAG(quartic, constraint=sg.Sphere(0.1)), **settings)
    with pytest.raises(ConfigError, match="frames at t = 0 are known: give start="):
        sg.sample(video(), shape=(4, 3), steps=5, grid=continued)
