"""Restart sampling: where it goes, what it costs, and what it does on priors in closed form."""

import pytest
import torch
from cases import RECIPES
from conftest import relative, squares, tiny
from moments import moments

import symguide as sg
from symguide.per_sample import Noise

EDGES = [sg.VE().time(sigma) for sigma in (8.0, 4.0, 2.0, 1.0, 0.5)]


def ve(network=None):
    denoiser = tiny("ve")
    denoiser.schedule = sg.VE()
    return denoiser


def grid(schedule, t, steps):
    return [*EDGES, 0.0]


def test_the_steps_that_are_made():
    run = sg.sample(ve(), steps=5, grid=grid, restart=sg.Restart(0.9, 4.1, 2), return_trajectory=True)
    assert [r.index for r in run.trace] == [0, 1, 2, 1, 2, 1, 2, 3, 4]
    assert run.cost.forward_calls == 5 + 2 * 2
    assert len(run.trajectory) == 10
    assert [r.index for r in sg.sample(ve(), steps=5, grid=grid, restart=sg.Restart(0, 0.6)).trace] == [*range(5), 4]


def test_a_restart_by_hand():
    """eta = 0: x + sqrt(high² - low²) z, and the same Euler steps again, with noise of the sample's own."""
    denoiser = ve()
    got = sg.sample(denoiser, batch=2, seed=4, steps=5, grid=grid, eta=0.0, restart=sg.Restart(0.9, 4.1, 2)).samples
    noise = Noise(4, [0, 1], (6,))

    def down(x, steps):
        for i in steps:
            sigma, after = (denoiser.schedule.sigma(t) for t in grid(None, 0, 0)[i : i + 2])
            x = x + (after - sigma) * denoiser.network(x, torch.full((2,), sigma))
        return x

    x = down(65**0.5 * noise.draw("start"), (0, 1, 2))
    for visit in (1, 2):
        x = down(x + 15**0.5 * noise.draw("restart", 1, visit), (1, 2))
    assert relative(got, down(x, (3, 4))) < 1e-9


@pytest.mark.parametrize("name", ["sag", "dsg", "lgd", "classifier", "sag-repeats"])
@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m"])
def test_samples_do_not_depend_on_their_batch(solver, name):
    def draw(indices):
        settings = {"steps": 6, "solver": solver, "restart": sg.Restart(0.3, 5.0, 2), "loss": RECIPES[name](squares)}
        return sg.sample(tiny(), indices=indices, **settings).samples

    assert relative(draw([3, 1])[1], draw([0, 1])[1]) < 1e-9


def test_calls_of_guided_restarts():
    denoiser = tiny()
    plain = sg.sample(denoiser, batch=2, steps=6, loss=sg.SAG(squares, n=2, memory="fast"))
    times = [record.t for record in plain.trace]
    levels = [denoiser.schedule.ratio(t) for t in times]
    denoiser.network.forward_rows = denoiser.network.backward_rows = 0
    restart = sg.Restart(levels[4], levels[2], 3)
    again = sg.sample(denoiser, batch=2, steps=6, loss=sg.SAG(squares, n=2, memory="fast"), restart=restart)
    assert again.cost.forward_calls == plain.cost.forward_calls + 3 * 2 * 2
    assert (denoiser.network.forward_rows, denoiser.network.backward_rows) == (
        2 * again.cost.forward_calls,
        2 * again.cost.backward_calls,
    )


def test_a_multistep_solver_begins_without_history():
    """The step after each jump is of first order, so it is the DDIM step from there."""
    settings = {"steps": 5, "grid": grid, "eta": 0.0, "restart": sg.Restart(0.9, 4.1, 1), "return_trajectory": True}
    path = sg.sample(ve(), solver="dpmpp_2m", **settings).trajectory
    denoiser, z = ve(), Noise(0, [0], (6,)).draw("restart", 1, 1)
    top = path[3] + (denoiser.schedule.sigma(EDGES[1]) ** 2 - denoiser.schedule.sigma(EDGES[3]) ** 2) ** 0.5 * z
    expected = top - 2.0 * denoiser.network(top, torch.full((1,), 4.0))
    assert relative(path[4], expected) < 1e-9


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_every_visit_has_noise_of_its_own(eta):
    """Else a restart at eta = 1 would add the same noise twice."""
    seen = []

    class Probe(sg.FreeDoM):
        def guide(self, step):
            seen.append((step.noise, step.draw("smooth")))
            return super().guide(step)

    sg.sample(ve(), steps=5, grid=grid, eta=eta, loss=Probe(squares), restart=sg.Restart(0.9, 4.1, 2))
    drawn = torch.stack([z for pair in seen for z in pair])
    assert len(drawn.unique(dim=0)) == 2 * 9


def test_restarts_keep_the_distribution_and_mend_a_bad_start():
    """Of an exact model: what a start without spread lost comes back, and a right one stays right."""
    denoiser = sg.GaussianDenoiser(torch.ones(2), torch.diag(torch.tensor([0.5, 2.0])), sg.VE(sigma_max=20.0))
    settings = {"steps": 60, "eta": 0.0, "grid": "karras", "solver": "heun"}
    restart, truth = sg.Restart(0.1, 10.0, 2), torch.diag(torch.tensor([0.5, 2.0]))
    assert sg.sample(denoiser, start=torch.zeros(8, 2), **settings).samples.var(dim=0).max() < 1e-20
    mended = moments(lambda n: sg.sample(denoiser, start=torch.zeros(n, 2), restart=restart, **settings).samples)
    right = moments(lambda n: sg.sample(denoiser, batch=n, restart=restart, **settings).samples)
    for mean, covariance in (mended, right):
        assert (mean - 1).abs().max() < 0.02 and (covariance - truth).abs().max() < 0.06
