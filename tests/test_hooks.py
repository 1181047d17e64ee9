"""Step hooks, where a run begins and ends, and runs in stages."""

import math
from itertools import pairwise

import pytest
import torch
from conftest import SCHEDULES, relative, squares, tiny

import symguide as sg
from symguide.errors import ConfigError

MASK = torch.tensor([True, False, False, True, False, False])
VALUES = torch.tensor([[0.5, 9.0, 9.0, -0.5, 9.0, 9.0], [1.5, 9.0, 9.0, 0.25, 9.0, 9.0]])


class Corrector:
    """One Langevin step at the sampler's own noise level before every step, and what it was asked."""

    def __init__(self, size=0.1):
        self.size, self.asked = size, []

    def before(self, step, x):
        self.asked.append(("before", step.index, step.repeat))
        return x + 0.5 * self.size * step.prediction.score + math.sqrt(self.size) * step.draw("augment")

    def after(self, step, x_s):
        self.asked.append(("after", step.index, step.repeat))
        return x_s


def test_hooks_that_change_nothing_are_none():
    class Nothing:
        def before(self, step, x):
            return x

        def after(self, step, x_s):
            return x_s

    settings = {"batch": 2, "steps": 4, "loss": sg.SAG(squares, n=2), "solver": "dpmpp_2m"}
    plain, hooked = sg.sample(tiny(), **settings), sg.sample(tiny(), hooks=[Nothing()], **settings)
    assert torch.equal(plain.samples, hooked.samples)
    assert (plain.cost.forward_calls, plain.cost.backward_calls) == (
        hooked.cost.forward_calls,
        hooked.cost.backward_calls,
    )


def test_a_corrector_is_a_step_of_its_own_and_is_counted():
    """Against the same written by hand: predict, correct, predict anew, step."""
    denoiser, hook = tiny(), Corrector()
    result = sg.sample(denoiser, batch=2, steps=3, seed=4, hooks=[hook])
    assert hook.asked == [(when, i, 0) for i in range(3) for when in ("before", "after")]
    assert result.cost.forward_calls == 6

    from symguide.per_sample import Noise
    from symguide.solver import transition

    noise, schedule = Noise(4, [0, 1], (6,)), denoiser.schedule
    times = [1.0, 2 / 3, 1 / 3, 0.0]
    x = math.hypot(schedule.alpha(1.0), schedule.sigma(1.0)) * noise.draw("start")
    for i, (t, s) in enumerate(pairwise(times)):
        with torch.no_grad():
            x = x + 0.05 * denoiser(x, t).score + math.sqrt(0.1) * noise.draw("augment", i)
            made = denoiser(x, t)
        std = transition("ddim", schedule, t, s, 1.0, None).std
        down = math.sqrt(max(schedule.sigma(s) ** 2 - std**2, 0.0))
        x = schedule.alpha(s) * made.x0 + down * made.eps + std * noise.draw("step", i)
    assert relative(result.samples, x) < 1e-10


def test_hooks_act_in_every_repeat_and_samples_stay_their_own():
    hook = Corrector()
    settings = {"steps": 3, "loss": sg.SAG(squares, n=1, repeats=2), "hooks": [hook]}
    both = sg.sample(tiny(), batch=2, **settings).samples
    assert hook.asked.count(("before", 0, 1)) == 1 and hook.asked.count(("after", 0, 1)) == 1
    assert relative(sg.sample(tiny(), indices=[1], **settings).samples[0], both[1]) < 1e-10


@pytest.mark.parametrize("particles", [None, sg.BestOfN(squares, 3)], ids=["plain", "best-of"])
@pytest.mark.parametrize("noisy", [True, False])
def test_keep_holds_what_is_known(noisy, particles):
    """Known entries are exact at the end, in the network's input at the right level, and the rest is free."""
    seen = []
    denoiser = tiny()
    network = denoiser.network

    def watched(x, timestep):
        seen.append(x.clone())
        return network(x, timestep)

    model = sg.Denoiser(watched, denoiser.schedule, shape=(6,))
    keep = sg.Keep(MASK, VALUES, noisy=noisy)
    settings = {"steps": 5, "hooks": [keep], "particles": particles}
    samples = sg.sample(model, batch=2, **settings).samples
    assert torch.equal(samples[:, MASK], VALUES[:, MASK])
    assert not torch.isclose(samples[:, ~MASK], VALUES[:, ~MASK].double()).any()
    rows = VALUES.repeat_interleave(1 if particles is None else 3, dim=0)
    for i, x in enumerate(seen):
        t = 1 - i / 5
        level = denoiser.schedule.alpha(t) if noisy else 1.0
        gap = (x - level * rows)[:, MASK]
        if noisy:
            z = gap / denoiser.schedule.sigma(t)
            assert 0.05 < z.abs().mean() < 3  # noise of the level, other in every step
        else:
            assert gap.abs().max() == 0
    alone = sg.sample(model, indices=[1], **{**settings, "hooks": [sg.Keep(MASK, VALUES[1:], noisy=noisy)]}).samples
    assert relative(alone[0], samples[1]) < 1e-10


def test_keep_conditions_a_gaussian_as_the_deterministic_path_says():
    """With noisy=False, eta=0 and one step the free entries are E[x_0 | x_t] with the known ones in x_t."""
    covariance = torch.tensor([[1.0, 0.6], [0.6, 2.0]])
    model = sg.GaussianDenoiser(torch.tensor([0.5, -0.5]), covariance)
    start = torch.tensor([[3.0, 0.7]])
    keep = sg.Keep(torch.tensor([True, False]), torch.tensor([1.0, 0.0]), noisy=False)
    got = sg.sample(model, steps=1, start=start, eta=0.0, hooks=[keep]).samples
    expected = model(torch.tensor([[1.0, 0.7]]), 1.0).x0
    assert torch.equal(got[0, 0], torch.tensor(1.0)) and relative(got[0, 1], expected[0, 1]) < 1e-12


@pytest.mark.parametrize(
    ("hooks", "sentence"),
    [
        ([sg.Keep(MASK[:2], VALUES)], r"mask of Keep must be of a sample's shape \(6,\)"),
        ([sg.Keep(MASK, VALUES[:, :2])], r"values of Keep must be of a sample's shape \(6,\)"),
        ([sg.Keep(MASK, VALUES.repeat(2, 1)[:3])], "values of Keep has 3 rows, and there are 2 samples"),
        ([squares], r"hooks= takes a list of hooks with before\(step, x\)"),
        (sg.Keep(MASK, VALUES), r"hooks= takes a list of hooks with before\(step, x\)"),
    ],
)
def test_hooks_that_cannot_be_meant(hooks, sentence):
    with pytest.raises(ConfigError, match=sentence):
        sg.sample(tiny(), batch=2, steps=2, hooks=hooks)


def test_a_start_that_is_made_of_the_runs_noise():
    plain = sg.sample(tiny(), batch=2, steps=3).samples
    schedule = tiny().schedule

    def own(noise, t):
        return math.hypot(schedule.alpha(t), schedule.sigma(t)) * noise.draw("start")

    assert torch.equal(sg.sample(tiny(), batch=2, steps=3, start=own).samples, plain)
    assert sg.sample(tiny(), steps=3, start=own, particles=sg.BestOfN(squares, 2)).samples.shape == (1, 6)
    with pytest.raises(ConfigError, match=r"must return x at t, a tensor of shape \(2, 6\)"):
        sg.sample(tiny(), batch=2, steps=3, start=lambda noise, t: noise.draw("start")[:1])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_run_in_two_halves_is_the_run(schedule):
    """Down to a time, then on from there on the rest of the grid, without noise."""
    settings = {"batch": 2, "eta": 0.0, "loss": sg.SAG(squares, n=1, scale=0.1)}
    whole = sg.sample(tiny(schedule, "v"), steps=6, **settings)
    half = sg.sample(tiny(schedule, "v"), steps=6, until=0.5, **settings)
    assert half.trace[-1].s <= 0.5 < half.trace[-1].t and len(half.trace) == 3
    rest = sg.sample(
        tiny(schedule, "v"), steps=3, start=half.samples, grid=sg.starting_at(half.trace[-1].s), **settings
    )
    assert relative(rest.samples, whole.samples) < 1e-9
    with pytest.raises(ConfigError, match="until is a time below the run's first one"):
        sg.sample(tiny(schedule, "v"), steps=3, until=1.0)


class AnySize(torch.nn.Module):
    """E[x_0] of independent entries that are N(0.5, 1), whatever the size, for a VP schedule; counts its calls."""

    calls = 0

    def forward(self, x, timestep):
        type(self).calls += len(x)
        t = float(timestep[0]) / 1000
        alpha, sigma = sg.VP.linear().alpha(t), sg.VP.linear().sigma(t)
        return alpha * (x - alpha * 0.5) + 0.5 if sigma else x


def test_stages_grow_and_are_counted():
    model = sg.Denoiser(AnySize(), sg.VP.linear(), "x0")
    stages = [sg.Stage((1, 4, 4), 10, until=0.5), sg.Stage((1, 8, 8), 6)]
    AnySize.calls = 0
    result = sg.staged(model, stages, batch=3, seed=1)
    assert result.samples.shape == (3, 1, 8, 8)
    assert [round(record.t, 3) for record in result.trace] == [
        *(1.0, 0.9, 0.8, 0.7, 0.6),
        *(round(0.5 * (1 - i / 6), 3) for i in range(6)),
    ]
    assert AnySize.calls == 3 * result.cost.forward_calls == 3 * (5 + 1 + 6)
    alone = sg.staged(model, stages, indices=[2], seed=1).samples
    assert relative(alone[0], result.samples[2]) < 1e-10


def test_a_later_stage_begins_at_the_clean_estimate_made_larger():
    model, seen = sg.Denoiser(AnySize(), sg.VP.linear(), "x0"), []

    def up(x0):
        seen.append(x0)
        return torch.zeros(len(x0), 1, 64, 64)

    stages = [sg.Stage((1, 4, 4), 4, until=0.5), sg.Stage((1, 64, 64), 1, up=up)]
    result = sg.staged(model, stages, batch=2, eta=0.0)
    first = sg.sample(model, shape=(1, 4, 4), steps=4, until=0.5, batch=2, eta=0.0)
    with torch.no_grad():
        assert torch.equal(seen[0], model(first.samples, first.trace[-1].s).x0)
    # of x_t = sigma_t z the one step gives alpha_t sigma_t z + (1 - alpha_t²) / 2
    alpha, sigma = model.schedule.alpha(0.5), model.schedule.sigma(0.5)
    assert abs(result.samples.std().item() - alpha * sigma) < 0.01
    assert abs(result.samples.mean().item() - 0.5 * sigma**2) < 0.01
    small = sg.sample(model, shape=(1, 4, 4), batch=2, steps=1, until=0.0).samples
    assert not torch.allclose(small[0, 0], result.samples[0, 0, :4, :4])  # no noise in common


def test_stages_that_cannot_be_meant():
    model = sg.Denoiser(AnySize(), sg.VP.linear(), "x0")
    with pytest.raises(ConfigError, match="the last one at 0"):
        sg.staged(model, [sg.Stage((1, 4, 4), 4, until=0.5)])
    with pytest.raises(ConfigError, match="staged takes no shape"):
        sg.staged(model, [sg.Stage((1, 4, 4), 4)], shape=(1, 4, 4))
    with pytest.raises(ConfigError, match="up= made samples of shape"):
        sg.staged(model, [sg.Stage((1, 4, 4), 4, until=0.5), sg.Stage((1, 8, 8), 2, up=lambda x: x)])
    with pytest.raises(ConfigError, match="until is a time"):
        sg.Stage((1, 4, 4), 4, until=1.0)
