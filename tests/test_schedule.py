import math
from itertools import pairwise

import pytest
import torch
from conftest import SCHEDULES
from hypothesis import given
from hypothesis import strategies as st

import symguide as sg
from symguide.schedule import from_spec, to_spec


@pytest.mark.parametrize("name", SCHEDULES)
@given(t=st.floats(1e-4, 0.994))
def test_time_inverts_the_ratio(name, t):
    schedule = SCHEDULES[name]
    assert schedule.time(schedule.ratio(t)) == pytest.approx(t, rel=1e-8)


@pytest.mark.parametrize("name", SCHEDULES)
def test_ends_floats_tensors_and_timesteps(name):
    schedule = SCHEDULES[name]
    assert (schedule.alpha(0.0), schedule.sigma(0.0)) == (1.0, 0.0)
    times = torch.linspace(0.01, 0.99, 7)
    for f in (schedule.alpha, schedule.sigma, schedule.timestep):
        assert torch.allclose(f(times), torch.tensor([f(t.item()) for t in times]))
    for t in (0.2, 0.9):
        assert schedule.at_timestep(schedule.timestep(t)) == pytest.approx(t)


@pytest.mark.parametrize("name", SCHEDULES)
def test_ratio_rises(name):
    ratios = [SCHEDULES[name].ratio(t / 100) for t in range(1, 99)]
    assert all(a < b for a, b in pairwise(ratios))


@pytest.mark.parametrize("name", SCHEDULES)
def test_specs_make_the_schedule_again(name):
    again = from_spec(to_spec(SCHEDULES[name]))
    assert type(again) is type(SCHEDULES[name])
    assert again.alpha(0.37) == pytest.approx(SCHEDULES[name].alpha(0.37), rel=1e-12)


def test_vp_formulas():
    linear = sg.VP.linear()
    integral = 0.1 * 0.6 + 0.5 * 19.9 * 0.6**2  # of beta from 0 to t
    assert linear.alpha(0.6) == pytest.approx(math.exp(-0.5 * integral))
    f = [math.cos((t + 0.008) / 1.008 * math.pi / 2) for t in (0.0, 0.4)]
    assert sg.VP.cosine().alpha(0.4) == pytest.approx(f[1] / f[0])
    betas = torch.linspace(1e-4, 0.02, 1000)
    table = sg.VP.discrete(betas=betas)
    bar = torch.cumprod(1 - betas, 0)
    for i in (0, 499, 999):
        assert table.alpha((i + 1) / 1000) ** 2 == pytest.approx(bar[i].item())
        assert table.timestep((i + 1) / 1000) == pytest.approx(i)
    assert sg.VP.discrete(bar).alpha(0.5) == pytest.approx(table.alpha(0.5))


def test_small_times_keep_their_digits():
    """sigma near t = 0 against its series: no cancellation of 1 - alpha²."""
    assert sg.VP.linear().sigma(1e-9) == pytest.approx(math.sqrt(0.1 * 1e-9), rel=1e-6)
    start = 0.008 / 1.008 * math.pi / 2
    slope = math.pi / 2 / 1.008 * 2 * math.tan(start)
    assert sg.VP.cosine().sigma(1e-9) == pytest.approx(math.sqrt(slope * 1e-9), rel=1e-4)


@pytest.mark.parametrize("spec", [{"name": "vp-liner"}, {"name": "ve", "sigma": 3}, {}])
def test_bad_specs(spec):
    with pytest.raises(sg.ConfigError):
        from_spec(spec)
