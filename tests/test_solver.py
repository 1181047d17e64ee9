from itertools import pairwise

import pytest
from conftest import SCHEDULES

import symguide as sg
from symguide.solver import GRIDS, PRESETS, SOLVERS, choose, timesteps, trajectory


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_grids_fall_from_t_to_zero(grid, name):
    for steps in (1, 2, 7):
        times = GRIDS[grid](SCHEDULES[name], 0.9, steps)
        assert len(times) == steps + 1
        assert times[0] == 0.9
        assert times[-1] == 0.0
        assert all(a > b for a, b in pairwise(times))


@pytest.mark.parametrize("n", range(1, 9))
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_program_of_n_calls_makes_n_calls(solver, n):
    assert sum(SOLVERS[solver].calls(n)) == n
    assert trajectory(solver, sg.VP.linear(), "flow", 0.7, n).calls == n


def test_presets():
    assert choose("paper", None) == ("ddim", "uniform")
    assert choose("best", None) == PRESETS["best"]
    assert choose("best", "karras") == ("dpmpp_2m", "karras")


def test_a_models_own_timesteps():
    schedule = SCHEDULES["vp-discrete"]
    grid = timesteps(range(981, 0, -20))
    times = grid(schedule, 1.0, 50)
    assert [round(schedule.timestep(t)) for t in times[:3]] == [981, 961, 941]
    assert len(times) == 51
    ahead = grid(schedule, schedule.at_timestep(501), 4)
    assert [round(schedule.timestep(t)) for t in ahead[:-1]] == [501, 381, 241, 121]
    assert ahead[-1] == 0
    with pytest.raises(sg.ConfigError, match="only 50 of the model's timesteps are left"):
        grid(schedule, 1.0, 51)
    result = sg.sample(sg.Denoiser(lambda x, timestep: x, schedule, shape=(2,)), steps=10, grid=grid)
    assert round(schedule.timestep(result.trace[0].t)) == 981
