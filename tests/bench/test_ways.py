"""Every way to a gradient against what it did not write itself: our programs, plain autograd, its own inverse."""

import importlib.util

import pytest
import torch
from benchmarks.peers.flowgrad import FlowGrad
from benchmarks.peers.gradients import Plan
from benchmarks.peers.invertible import Bdia, BdiaWay, Edict, EdictWay
from benchmarks.peers.ode import RATIO, Odeint, OdeintAdjoint, OdeintAdjointRatio
from benchmarks.peers.programs import Approximation, Autograd, Checkpoint, Sweep
from benchmarks.peers.sde import ReversibleHeun
from benchmarks.peers.way import Problem, by_autograd
from benchmarks.peers.ways import WAYS
from conftest import SCHEDULES, quartic, relative, tiny

import symguide as sg
from symguide.solver import SOLVERS

T = 0.6
ODE = pytest.mark.skipif(not importlib.util.find_spec("torchdiffeq"), reason="needs torchdiffeq")
SDE = pytest.mark.skipif(not importlib.util.find_spec("torchsde"), reason="needs torchsde")


def start(batch=3, seed=1):
    return torch.randn(batch, 6, generator=torch.Generator().manual_seed(seed))


def task(n, solver, schedule="vp-linear", predicts="eps"):
    return Problem(tiny(schedule, predicts), quartic, T, n, solver)


def differences(way, given, x, h=1e-5):
    """Fourth-order central differences of the way's own forward map, one coordinate at a time."""
    out = torch.zeros_like(x)
    for k in range(x.shape[1]):
        e = torch.zeros_like(x)
        e[:, k] = h
        f = [quartic(way.sample(given, x + c * e)) for c in (-2, -1, 1, 2)]
        out[:, k] = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h)
    return out


@ODE
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("solver", Odeint.solvers)
@pytest.mark.parametrize("n", [1, 4, 7])
def test_the_integrator_makes_our_solvers_steps(schedule, solver, n):
    given = task(n, solver, schedule)
    ours = sg.lookahead(given.denoiser, start(), T, n, solver).x0
    assert relative(Odeint().sample(given, start()), ours) < 1e-12
    if solver == "ddim":
        assert relative(OdeintAdjointRatio().sample(given, start()), ours) < 1e-12


@ODE
@pytest.mark.parametrize(
    "way, solver", [(OdeintAdjoint(), s) for s in Odeint.solvers] + [(OdeintAdjointRatio(), "ddim")]
)
def test_the_vanilla_adjoint_is_not_exact_and_comes_nearer_with_n(way, solver):
    errors = []
    for n in (4, 16, 64):
        given = task(n, solver)
        errors.append(relative(way.gradient(given, start()), by_autograd(way, given, start())))
    assert errors[0] > 1.5 * errors[1] > 3 * errors[2] > 3e-4


@ODE
@pytest.mark.parametrize("way", [OdeintAdjoint(), OdeintAdjointRatio()])
def test_the_vanilla_adjoint_begins_at_no_noise_without_dividing_by_it(way):
    prior = sg.GaussianDenoiser(torch.zeros(6), torch.diag(torch.linspace(0.2, 2.0, 6)))
    given = Problem(prior, quartic, T, 256, "ddim")
    leaf = start().requires_grad_()
    flow = torch.autograd.grad(quartic(prior.transport(leaf, T)).sum(), leaf)[0]
    assert relative(way.gradient(given, start()), flow) < 0.05


@SDE
@pytest.mark.parametrize("predicts", ["eps", "v"])
def test_reversible_heun_gives_the_gradient_of_its_own_map(predicts):
    way, given = ReversibleHeun(), task(8, "reversible Heun", predicts=predicts)
    assert relative(way.gradient(given, start()), by_autograd(way, given, start())) < 1e-12
    assert relative(way.gradient(given, start()), differences(way, given, start())) < 1e-7
    fine = sg.lookahead(given.denoiser, start(), T, 400, "heun").x0
    assert relative(way.sample(task(64, "reversible Heun", predicts=predicts), start()), fine) < 1e-2


@pytest.mark.parametrize("way", [EdictWay(), BdiaWay()])
@pytest.mark.parametrize("n", [1, 2, 9])
def test_invertible_samplers_give_the_gradient_of_their_own_map(way, n):
    given = task(n, way.solvers[0])
    value = way.gradient(given, start())
    assert relative(value, by_autograd(way, given, start())) < 1e-12
    assert relative(value, differences(way, given, start())) < 1e-7


@pytest.mark.parametrize("n", [1, 2, 9])
def test_edict_inverts_to_round_off(n):
    given, x, y = task(n, "EDICT"), start(seed=1), start(seed=2)
    sampler = Edict(given.denoiser, given.times)
    with torch.no_grad():
        ends = sampler.forward(x, y)
    (back, other), _ = sampler.backward(ends, (torch.zeros_like(x), torch.zeros_like(y)))
    assert relative(back, x) < 1e-13 and relative(other, y) < 1e-13 and relative(ends[0], x) > 0.1


@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("n", [1, 2, 9])
def test_bdia_inverts_to_round_off(n, gamma):
    given, x = task(n, "BDIA"), start()
    sampler = Bdia(given.denoiser, given.times, gamma)
    with torch.no_grad():
        ends = sampler.forward(x)
    assert relative(sampler.backward(ends, torch.zeros_like(x))[0], x) < 1e-13 and relative(ends[1], x) > 0.1


@pytest.mark.parametrize("sampler", [EdictWay(), BdiaWay()])
def test_invertible_samplers_follow_the_flow(sampler):
    prior = sg.GaussianDenoiser(torch.zeros(6), torch.diag(torch.linspace(0.5, 2.0, 6)), sg.RectifiedFlow())
    errors = []
    for n in (8, 32, 128):
        made = sampler.sample(Problem(prior, quartic, T, n, sampler.solvers[0]), start())
        errors.append(relative(made, prior.transport(start(), T)))
    assert errors[0] > 2 * errors[1] > 4 * errors[2] and errors[2] < 0.02


def test_bdia_with_gamma_zero_is_ddim():
    given = task(5, "BDIA")
    ours = sg.lookahead(given.denoiser, start(), T, 5, "ddim").x0
    assert relative(Bdia(given.denoiser, given.times, 0.0).forward(start())[1], ours) < 1e-13


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_flowgrad_that_merges_nothing_is_exact(schedule):
    given = task(6, "ddim", schedule)
    exact = sg.lookahead_gradient(given.denoiser, start(), T, quartic, 6, "ddim").value
    assert relative(FlowGrad(0.0).gradient(given, start()), exact) < 1e-12


def test_flowgrad_merges_straight_steps_and_pays_with_an_error():
    given = task(16, "ddim")
    exact = by_autograd(Autograd(), given, start())
    found = []
    for threshold in (0.0, 1e-3, 1e9):
        counted, passes = given.metered()
        error = relative(FlowGrad(threshold).gradient(counted, start()), exact)
        found.append((passes.backward // 3, error))
    (all_, none), (some, small), (one, large) = found
    assert all_ == 16 > some > one == 1 and none < 1e-12 < small < large


def test_flowgrad_does_not_divide_by_steps_that_are_one_straight_line():
    """A field that is constant is straight for ever, and one product with it is exact."""
    prior = sg.Denoiser(lambda x, timestep: torch.ones_like(x) + 0 * x, sg.RectifiedFlow(), "flow")
    counted, passes = Problem(prior, quartic, T, 8, "ddim").metered()
    value = FlowGrad().gradient(counted, start())
    assert relative(value, by_autograd(Autograd(), Problem(prior, quartic, T, 8, "ddim"), start())) < 1e-12
    assert passes.backward == 3


@pytest.mark.parametrize("n", Plan().ns)
@pytest.mark.parametrize("solver", SOLVERS)
def test_ours_are_exact_in_every_precision_solver_and_n(solver, n):
    given, x = task(n, solver), start()
    exact = by_autograd(Autograd(), given, x)
    for way in (*(way for way in WAYS if isinstance(way, Sweep)), Checkpoint()):
        assert relative(way.gradient(given, x), exact) < 1e-12
    narrow = Problem(given.denoiser.to(dtype=torch.float32), quartic, T, n, solver)
    assert relative(Sweep("minimal").gradient(narrow, x.float()).double(), exact) < 1e-5


@pytest.mark.parametrize("jacobian", ["first", "identity"])
def test_approximations_are_of_the_same_sample_and_not_exact(jacobian):
    way, given = Approximation(jacobian, jacobian), task(4, "heun")
    assert 0.01 < relative(way.gradient(given, start()), by_autograd(way, given, start())) < 1


CALLS = {
    "symguide, 0": lambda n: (2 * n, n),
    "symguide, minimal": lambda n: (2 * n - 1, n),
    "symguide, 2": lambda n: (2 * n - 2, n),
    "symguide, fast": lambda n: (n, n),
    "symguide, auto": lambda n: (n, n),
    "first call alone": lambda n: (n, 1),
    "identity (MPGD, ECM, FlowChef)": lambda n: (n, 0),
    "autograd": lambda n: (n, n),
    "torch checkpoint": lambda n: (2 * n, n),
    "odeint": lambda n: (n, n),
    "odeint_adjoint": lambda n: (2 * n, n),
    "odeint_adjoint, dy/ds = eps": lambda n: (2 * n, n),
    "sdeint_adjoint": lambda n: (3 * n + 2, n + 1),
    "EDICT, inverted": lambda n: (4 * n, 2 * n),
    "BDIA, inverted": lambda n: (2 * n, n),
}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_calls_are_what_the_network_counts_itself(way):
    if way.library:
        pytest.importorskip(way.library)
    for n in (2, 5):
        given = task(n, way.solvers[0])
        network = given.denoiser.network
        counted, passes = given.metered()
        with given.denoiser.frozen():
            way.gradient(counted, start())
        assert (passes.forward, passes.backward) == (network.forward_rows, network.backward_rows)
        if way.name in CALLS:
            assert (passes.forward / 3, passes.backward / 3) == CALLS[way.name](n)
        else:
            assert isinstance(way, FlowGrad) and passes.forward - passes.backward == 3 * n


def test_the_ratio_frame_is_the_ddim_ode():
    schedule = sg.VP.linear()
    assert RATIO.time(schedule.ratio(T)) == schedule.sigma(T) / schedule.alpha(T)
    assert RATIO.scale(schedule, T) == schedule.alpha(T)
