"""Optimisation of whole trajectories: exact gradients of all controls, closed-form optima, and the laws."""

import weakref
from itertools import pairwise

import pytest
import torch
from cases import every, of
from conftest import SCHEDULES, quartic, relative, squares, tiny

import symguide as sg
from symguide.call import GuidedPredictor
from symguide.errors import ConfigError, GuidanceError
from symguide.kept_graphs import KeptGraphs
from symguide.lookahead import read_backwards, record, run
from symguide.loss import value_and_gradient
from symguide.meter import SavedBytes
from symguide.per_sample import Noise
from symguide.solver import SOLVERS, get_solver, through
from symguide.trajectory.lbfgs import lbfgs

METHODS = {case.name: case.make for case in of("trajectory optimisation")}


def model(**settings):
    """A flow: there a rate means the same from the first step to the last."""
    return tiny("flow", "flow", **settings)


def skewed(schedule="flow"):
    """A Gaussian whose ODE map over few steps is affine and far from the identity."""
    root = torch.tensor([[1.0, 0.3, 0.0], [0.0, 0.7, -0.4], [0.2, 0.0, 0.5]])
    return sg.GaussianDenoiser(torch.tensor([0.5, -0.2, 0.1]), root @ root.T, SCHEDULES[schedule])


def target(x0):
    return (x0 - torch.tensor([1.0, 0.5, -1.0])).square().sum(dim=1)


def optimise(denoiser, method, objective=squares, **settings):
    return sg.optimise(denoiser, objective, method, **{"batch": 2, "steps": 4, **settings})


# the gradient


def controlled(solver, schedule="vp-linear", steps=3):
    denoiser = tiny(schedule)
    times = [0.9 * (1 - i / steps) for i in range(steps)] + [0.0]
    stages = get_solver(solver).of_steps(steps)
    program = through(solver, denoiser.schedule, times, stages, controlled=True)
    generator = torch.Generator().manual_seed(3)
    inputs = [torch.randn(2, 6, generator=generator) for _ in range(1 + steps)]
    return denoiser, program, inputs


@pytest.mark.parametrize("memory", ["minimal", "fast", 2])
@pytest.mark.parametrize("solver", SOLVERS)
def test_one_sweep_gives_the_gradient_of_the_start_and_of_every_control(solver, memory):
    denoiser, program, inputs = controlled(solver)

    def loss(values):
        return quartic(run(program, values, lambda x, t: denoiser(x, t).x0)).sum()

    x0, calls = record(KeptGraphs(memory, GuidedPredictor(denoiser), program, inputs[0]), inputs, program)
    before = denoiser.network.backward_rows
    bars = read_backwards(program, calls, value_and_gradient(quartic, x0)[1])
    assert denoiser.network.backward_rows - before == 2 * program.calls  # of the start alone it would be as many
    leaves = [v.clone().requires_grad_() for v in inputs]
    for bar, reference in zip(bars, torch.autograd.grad(loss(leaves), leaves), strict=True):
        assert relative(bar, reference) < 1e-12
    along = [torch.randn_like(v) for v in inputs]
    h = 1e-4
    with torch.no_grad():
        f = [loss([v + c * h * e for v, e in zip(inputs, along, strict=True)]) for c in (-2, -1, 1, 2)]
    slope = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h)
    mine = sum((bar * e).sum() for bar, e in zip(bars, along, strict=True))
    assert abs(mine - slope) < 1e-7 * abs(slope)


def test_a_constant_control_is_a_constant_velocity():
    """In a rectified flow whose network stands still, x_0 = x_T + the sum of h_j c_j."""
    still = sg.Denoiser(lambda x, timestep: 0 * x, sg.RectifiedFlow(), "flow")
    program = through("ddim", still.schedule, [1.0, 0.6, 0.1, 0.0], (1, 1, 1), controlled=True)
    controls = [torch.full((1, 2), c) for c in (1.0, -2.0, 3.0)]
    x0 = run(program, [torch.ones(1, 2), *controls], lambda x, t: still(x, t).x0)
    assert torch.allclose(x0, torch.full((1, 2), 1 + 0.4 * 1 - 0.5 * 2 + 0.1 * 3))


# closed-form optima


@pytest.mark.parametrize("solver", ["ddim", "heun", "midpoint", "dpmpp_2m"])
@pytest.mark.parametrize("schedule", ["flow", "vp-cosine", "ve"])
def test_dflow_finds_the_start_that_leads_to_the_target(schedule, solver):
    """The map of a Gaussian is affine, x_0 = A x_T + b: the optimum is A^-1 (y - b)."""
    denoiser = skewed(schedule)
    result = optimise(denoiser, sg.DFlow(40), target, solver=solver, grid="flow")

    def carried(x):
        return sg.sample(denoiser, start=x, steps=4, solver=solver, grid="flow", eta=0).samples

    offset = carried(torch.zeros(1, 3))
    matrix = carried(torch.eye(3)) - offset
    optimum = (torch.tensor([[1.0, 0.5, -1.0]]) - offset) @ torch.linalg.inv(matrix)
    assert result.loss.max() < 1e-10
    assert relative(result.start, optimum.expand(2, -1)) < 1e-4


def test_dflow_with_its_regulariser_ends_where_the_whole_gradient_is_zero():
    denoiser, weight = skewed(), 0.3
    result = optimise(denoiser, sg.DFlow(30, regularisation=weight), target)
    z = result.start.clone().requires_grad_()

    def carried(x):
        return sg.lookahead(denoiser, x, 1.0, 4, "ddim", "uniform").x0

    length = z.norm(dim=1)
    total = target(carried(z)) + weight * (0.5 * length**2 - 2 * length.log())
    assert torch.autograd.grad(total.sum(), z)[0].abs().max() < 1e-5
    assert (target(carried(z)) > 1e-2).all()


def test_doodl_without_its_guards_is_momentum_descent_to_the_target():
    method = sg.DOODL(200, scale=0.1, clip=None, perturbation=0.0, renormalise=False)
    assert optimise(skewed(), method, target).loss.max() < 1e-6


def test_doodl_by_hand():
    denoiser = tiny()
    result = optimise(denoiser, sg.DOODL(2, scale=3.0, clip=0.05, perturbation=0.01), quartic, seed=4)
    noise = Noise(4, [0, 1], (6,))
    x = noise.draw("start")
    radius, b = x.norm(dim=1, keepdim=True), 0
    for k in range(2):
        leaf = x.clone().requires_grad_()
        x0 = sg.lookahead(denoiser, leaf, 1.0, 4, "ddim", "uniform").x0
        g = (3 * torch.autograd.grad(quartic(x0).sum(), leaf)[0]).clamp(-0.05, 0.05)
        b = 0.9 * b + g
        x = x - b + 0.01 * noise.draw("step", k)
        x = radius * x / x.norm(dim=1, keepdim=True)
    assert relative(result.start, x) < 1e-9
    assert torch.allclose(result.start.norm(dim=1, keepdim=True), radius)


@pytest.mark.parametrize("schedule", ["flow", "vp-linear", "ve"])
def test_ocflow_ends_at_the_optimum_with_quadratic_running_cost(schedule):
    """Gaussian prior, squared error: min |x_0(c) - y|² + (1 - decay) / (2 rate) sum h |c|² is a linear system."""
    denoiser, rate, decay, steps = skewed(schedule), 0.1, 0.8, 4
    result = optimise(denoiser, sg.OCFlow(80, rate, decay), target, grid="flow")
    alpha, sigma = denoiser.schedule.alpha(1.0), denoiser.schedule.sigma(1.0)
    h = torch.full((steps,), sigma / (alpha + sigma) / steps)  # the flow grid is uniform in u
    grid = sg.solver.flow(denoiser.schedule, 1.0, steps)
    program = through("ddim", denoiser.schedule, grid, (1,) * steps, controlled=True)

    def carried(x, c):  # (steps, 3) -> (3,)
        return run(program, [x[None], *c[:, None]], lambda y, t: denoiser(y, t).x0)[0]

    for i in range(2):
        zero = torch.zeros(steps, 3)
        offset = carried(result.start[i], zero)
        jacobian = torch.autograd.functional.jacobian(lambda c, i=i: carried(result.start[i], c), zero).reshape(3, -1)
        cost = (1 - decay) / rate * h.repeat_interleave(3)
        y = torch.tensor([1.0, 0.5, -1.0])
        optimum = torch.linalg.solve(2 * jacobian.T @ jacobian + torch.diag(cost), 2 * jacobian.T @ (y - offset))
        assert relative(result.controls[:, i].flatten(), optimum) < 1e-5


def test_dflow_begins_between_the_data_and_the_noise():
    """blend=1 on a Gaussian: the start is where the ODE carries the data to, and leads back to it."""
    denoiser, data = skewed("vp-cosine"), torch.tensor([[1.0, 0.2, -0.3], [0.1, -1.0, 0.4]])
    errors = []
    for steps in (50, 200):
        method = sg.DFlow(0, data=data, blend=1.0)
        errors.append(relative(optimise(denoiser, method, target, steps=steps, grid="flow").samples, data))
    assert errors[1] < 0.5 * errors[0] < 0.2
    plain = optimise(denoiser, sg.DFlow(0), target).start
    half = optimise(denoiser, sg.DFlow(0, data=data[:1], blend=0.5), target).start
    all_data = optimise(denoiser, sg.DFlow(0, data=data[:1], blend=1.0), target).start
    assert torch.allclose(half, 0.5**0.5 * all_data + 0.5**0.5 * plain)


# the laws


@pytest.mark.parametrize("solver", ["ddim", "heun", "dpmpp_2m"])
@pytest.mark.parametrize("name", METHODS)
def test_a_sample_does_not_know_its_batch(name, solver):
    def draw(indices):
        return sg.optimise(model(), quartic, METHODS[name](), indices=indices, steps=4, solver=solver, seed=3)

    batch, alone, shuffled = draw([0, 1, 2]), draw([1]), draw([2, 0])
    assert relative(alone.samples[0], batch.samples[1]) < 1e-9
    assert relative(shuffled.samples, batch.samples[[2, 0]]) < 1e-9
    assert relative(alone.loss[0], batch.loss[1]) < 1e-9


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_falls_and_the_trace_says_so(name):
    seen = []
    result = optimise(model(), METHODS[name](), callback=lambda r, x0: seen.append((r.index, squares(x0))))
    first = squares(sg.sample(model(), batch=2, steps=4, eta=0).samples)
    losses = [r.loss for r in result.trace] + [result.loss]
    assert torch.allclose(losses[0], first)
    assert (result.loss < first).all()
    assert torch.allclose(result.loss, squares(result.samples))
    assert [i for i, _ in seen] == [0, 1, 2, 3]
    assert all(torch.allclose(a, b) for (_, a), b in zip(seen, losses[1:], strict=True))
    assert all(r.gradient_norm.shape == (2,) and (r.gradient_norm > 0).all() for r in result.trace)


@every("trajectory optimisation")
@pytest.mark.parametrize("solver", ["ddim", "heun", "midpoint", "dpmpp_2m"])
def test_off_is_the_plain_sampler(solver, case):
    settings = {"batch": 3, "steps": 5, "solver": solver, "condition": {"label": 1}, "seed": 2}
    plain = sg.sample(model(), eta=0, **settings)
    off = sg.optimise(model(), squares, case.make(**case.off), **settings)
    assert torch.equal(off.samples, plain.samples)
    assert (off.cost.forward_calls, off.cost.backward_calls) == (plain.cost.forward_calls, 0)
    assert off.trace == []


@pytest.mark.parametrize("name", ["doodl", "dflow"])
def test_the_plain_sampler_makes_the_samples_again_from_their_start(name):
    result = optimise(model(), METHODS[name]())
    assert torch.equal(sg.sample(model(), start=result.start, steps=4, eta=0).samples, result.samples)


@every("trajectory optimisation")
def test_counts_are_true(case):
    n, k = 4, 3
    for memory, kept in {"minimal": 1, "fast": n, 0: 0}.items():
        denoiser = model()
        result = optimise(denoiser, case.make(iterations=k), memory=memory, condition={"label": 0})
        assert result.cost.forward_calls * 2 == denoiser.network.forward_rows
        assert result.cost.backward_calls * 2 == denoiser.network.backward_rows
        assert sum(r.forward_calls for r in result.trace) == result.cost.forward_calls
        assert sum(r.backward_calls for r in result.trace) == result.cost.backward_calls
        assert result.cost.backward_calls == k * n
        if case.cost is not None:  # a line search takes what it needs
            assert result.cost.forward_calls == case.cost(n, k, kept)


class Counting(torch.autograd.Function):
    """The identity, counting how often it is read backwards."""

    times = 0

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, bar):
        Counting.times += 1
        return bar


@pytest.mark.parametrize("name", METHODS)
def test_the_objective_is_read_backwards_once_an_iteration_whatever_the_callers_mode(name):
    Counting.times = 0
    with torch.no_grad():
        result = optimise(model(), METHODS[name](), lambda x0: squares(Counting.apply(x0)))
    assert Counting.times == len(result.trace) > 1


@pytest.mark.parametrize("name", METHODS)
def test_memory_plans_give_the_same_samples(name):
    plans = [optimise(model(), METHODS[name](), memory=m).samples for m in ("minimal", "fast", 2, 0, "auto")]
    assert all(torch.equal(samples, plans[0]) for samples in plans)


@pytest.mark.parametrize("name", METHODS)
def test_memory_does_not_grow_with_the_steps(name):
    def peak(steps, memory="minimal"):
        with SavedBytes() as saved:
            result = optimise(model(shape=(64,)), METHODS[name](iterations=1), steps=steps, memory=memory)
        assert saved.live == 0
        return result.cost.peak_bytes

    assert peak(16) < 1.15 * peak(2)
    assert peak(16, "fast") > 3 * peak(2)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_with_conditions_and_cfg(schedule, name):
    settings = {"condition": {"label": [0, 2]}, "prediction": sg.CFG(1.5)}
    predicts = "flow" if schedule == "flow" else "eps"  # where alpha is 0, eps says nothing of x_0
    denoiser = tiny(schedule, predicts)
    # in units of a flow's start the loss of a VE model is as steep as its noise is high
    plain = squares(sg.sample(denoiser, batch=2, steps=4, eta=0, **settings).samples)
    method = sg.OCFlow(4, rate=0.01) if name == "ocflow" else METHODS[name]()
    assert (optimise(denoiser, method, **settings).loss < plain).all()


@pytest.mark.parametrize("name", METHODS)
def test_bad_numbers(name):
    def objective(x0):
        calls.append(1)
        return squares(x0) + torch.tensor([0.0, float("nan") if len(calls) > 1 else 0.0])

    calls = []
    method = sg.DFlow(3) if name == "dflow" else METHODS[name]()
    if name != "dflow":  # whose line search steps back from what is not finite
        with pytest.raises(GuidanceError, match=r"iteration 1 of 4: the loss is not finite for samples \[1\]"):
            optimise(model(), method, objective)
    calls = []
    skipped = optimise(model(), method, objective, on_nan="skip")
    assert relative(skipped.samples[0], optimise(model(), method, batch=1).samples[0]) < 1e-9


def test_bad_settings():
    for make, sentence in (
        (lambda: sg.DOODL(-1), "iterations must be a whole number, at least 0"),
        (lambda: sg.DOODL(momentum=1.0), "momentum must be at least 0 and below 1"),
        (lambda: sg.DOODL(clip=0.0), "clip must be positive, or None"),
        (lambda: sg.DFlow(blend=2.0), "blend must be between 0 and 1"),
        (lambda: sg.OCFlow(decay=0.0), "decay must be above 0"),
        (lambda: optimise(tiny(), sg.DOODL), "method takes DOODL"),
        (lambda: optimise(tiny(), sg.DOODL(), "loss"), "an objective is a callable"),
        (lambda: optimise(tiny(), sg.DOODL(), on_nan="keep"), "on_nan is 'raise' or 'skip'"),
        (lambda: optimise(tiny(), sg.DOODL(), memory="some"), "memory is 'minimal'"),
        (lambda: optimise(tiny(), sg.DFlow(data=torch.zeros(2, 5))), "data must be clean samples of shape"),
        (lambda: optimise(tiny(), sg.DOODL(), steps=0), "steps must be a whole number"),
        (lambda: sg.starting_at(1.5), "t must be in"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            make()
    with pytest.raises(GuidanceError, match="must return one loss per sample"):
        optimise(tiny(), sg.DOODL(), lambda x0: x0.sum())
    with pytest.raises(GuidanceError, match=r"samples \[0, 1\] are not finite"):
        optimise(sg.Denoiser(lambda x, timestep: x / 0, shape=(6,)), sg.DOODL(0))


# L-BFGS


class Function:
    """f and its gradient by autograd, counting the gradients asked for."""

    def __init__(self, f, x):
        self.f, self.x, self.value = f, x, f(x)

    def slope(self):
        leaf = self.x.clone().requires_grad_()
        return torch.autograd.grad(self.f(leaf).sum(), leaf)[0]


def minimise(f, x, iterations=200):
    *_, (x, _) = lbfgs(lambda at: Function(f, at), x, iterations)
    return x


def bowl(x):
    return 0.5 * ((x - 1) ** 2 * torch.logspace(0, 3, x.shape[1])).sum(dim=1)


def rosenbrock(x):
    return (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(dim=1)


@pytest.mark.parametrize("f", [bowl, rosenbrock])
def test_lbfgs_finds_the_optimum_that_torch_finds_for_single_rows(f):
    x = torch.tensor([[-1.2, 1.0], [0.0, 0.0], [2.0, 3.0]])
    mine = minimise(f, x)
    for row, found in zip(x, mine, strict=True):
        leaf = row[None].clone().requires_grad_()
        torchs = torch.optim.LBFGS(
            [leaf], max_iter=300, tolerance_grad=1e-10, tolerance_change=0, line_search_fn="strong_wolfe"
        )

        def closure(leaf=leaf, torchs=torchs):
            torchs.zero_grad()
            loss = f(leaf).sum()
            loss.backward()
            return loss

        torchs.step(closure)
        assert torch.allclose(found, leaf.detach()[0], atol=1e-5)
        assert torch.allclose(found, torch.ones(2), atol=1e-5)


def test_lbfgs_rows_do_not_know_each_other_and_never_get_worse():
    x = torch.tensor([[-1.2, 1.0], [1.0, 1.0], [30.0, -7.0]])
    for iterations in (1, 5, 30):
        mine = minimise(rosenbrock, x, iterations)
        for row, found in zip(x, mine, strict=True):
            assert torch.allclose(found, minimise(rosenbrock, row[None], iterations)[0], rtol=1e-9)
    values = [at.value for _, at in lbfgs(lambda at: Function(rosenbrock, at), x, 30)]
    assert all((b <= a).all() for a, b in pairwise(values))


def test_a_rejected_trial_of_the_line_search_leaves_nothing_behind():
    """What it keeps for its gradient is a network graph or many: gone before the next one is made."""
    held, alive = weakref.WeakSet(), []

    def evaluate(x):
        alive.append(len(held))
        made = Function(rosenbrock, x)
        held.add(made)
        return made

    visited = sum(1 for _ in lbfgs(evaluate, torch.tensor([[-1.2, 1.0], [30.0, -7.0]]), 20))
    assert len(alive) > visited + 3
    assert max(alive) <= 1


def test_lbfgs_ends_where_nothing_can_be_improved():
    visited = list(lbfgs(lambda at: Function(bowl, at), torch.ones(2, 3), 50))
    assert len(visited) == 1
    assert len(list(lbfgs(lambda at: Function(bowl, at), torch.zeros(2, 3), 500))) < 100


# OGD


def mixture():
    means, weights = torch.tensor([[-1.0, 0.5], [2.0, 0.0], [0.0, -1.5]]), torch.tensor([0.2, 0.5, 0.3])
    covariances = torch.stack([torch.diag(torch.tensor(v)) for v in ([0.2, 0.5], [0.1, 0.1], [1.0, 0.3])])
    mean = weights @ means
    second = torch.einsum("k,kij->ij", weights, covariances + means[:, :, None] * means[:, None])
    return sg.MixtureDenoiser(means, covariances, weights), mean, second - torch.outer(mean, mean)


@pytest.mark.parametrize("schedule", ["vp-linear", "ve", "flow"])
@pytest.mark.parametrize("kind", ["full", "diagonal", "rank"])
def test_the_optimal_start_has_the_moments_of_x_t(kind, schedule):
    _, mean, covariance = mixture()
    schedule, t = SCHEDULES[schedule], 0.4
    if kind == "rank":  # rank 1 of data that have rank 1 and an even rest
        axis = torch.tensor([[0.6, 0.8, 0.0]])
        data = torch.cat([2 * axis, -2 * axis, torch.eye(3), -torch.eye(3)])
        covariance = data.T @ data / 7
        near, mean = sg.OptimalGaussian.fit(data, 1), torch.zeros(3)
        assert torch.allclose(near.covariance, covariance)
    else:
        near = sg.OptimalGaussian(mean, covariance if kind == "full" else covariance.diagonal())
        covariance = covariance if kind == "full" else torch.diag(covariance.diagonal())
    d = len(mean)
    offset = near.carry(torch.zeros(1, d), schedule, t)
    root = near.carry(torch.eye(d), schedule, t) - offset
    assert torch.allclose(offset[0], schedule.alpha(t) * mean)
    assert torch.allclose(root.T @ root, schedule.alpha(t) ** 2 * covariance + schedule.sigma(t) ** 2 * torch.eye(d))


def test_no_other_gaussian_is_nearer_to_x_t():
    """KL(x_t | N) up to the entropy of x_t is E[-log N(x_t)], by quadrature-free Monte Carlo over exact x_t."""
    denoiser, mean, covariance = mixture()
    schedule, t = denoiser.schedule, 0.4
    picked = torch.multinomial(torch.tensor([0.2, 0.5, 0.3]), 40_000, True, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(2, 40_000, 2, generator=torch.Generator().manual_seed(1))
    spread = torch.tensor([[0.2, 0.5], [0.1, 0.1], [1.0, 0.3]]).sqrt()
    x = schedule.alpha(t) * (denoiser.means[picked] + spread[picked] * noise[0]) + schedule.sigma(t) * noise[1]

    def cross_entropy(mean, covariance):
        return -torch.distributions.MultivariateNormal(mean, covariance).log_prob(x).mean()

    exact = schedule.alpha(t) ** 2 * covariance + schedule.sigma(t) ** 2 * torch.eye(2)
    best = cross_entropy(schedule.alpha(t) * mean, exact)
    assert best + 0.05 < cross_entropy(torch.zeros(2), torch.eye(2))
    for mean_off, scale in ((0.1, 1.0), (-0.1, 1.0), (0.0, 1.2), (0.0, 0.8)):
        assert best < cross_entropy(schedule.alpha(t) * mean + mean_off, scale * exact)


def test_fitted_moments_and_draws():
    data = torch.randn(50, 2, 3, generator=torch.Generator().manual_seed(0)) * 2 + 1
    flat = data.flatten(1)
    assert torch.allclose(sg.OptimalGaussian.fit(data, "full").covariance, flat.T.cov())
    assert torch.allclose(sg.OptimalGaussian.fit(data).covariance, torch.diag(flat.var(dim=0)))
    low = sg.OptimalGaussian.fit(data, 2)
    assert torch.linalg.eigvalsh(low.covariance)[-2:].allclose(torch.linalg.eigvalsh(flat.T.cov())[-2:])
    assert low.covariance.trace() == pytest.approx(flat.var(dim=0).sum().item())
    drawn = low.draw(tiny(), 0.4, batch=3, seed=5)
    assert drawn.shape == (3, 2, 3)
    assert torch.equal(drawn[1:2], low.draw(tiny(), 0.4, indices=[1], seed=5))
    for bad in (lambda: sg.OptimalGaussian.fit(data, 6), lambda: sg.OptimalGaussian.fit(data[:1])):
        with pytest.raises(ConfigError):
            bad()
    with pytest.raises(ConfigError, match="covariance must be symmetric"):
        sg.OptimalGaussian(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.0, 1.0]]))
    with pytest.raises(ConfigError, match="positive semi-definite"):
        sg.OptimalGaussian(torch.zeros(2), torch.tensor([1.0, -1.0]))


def test_sampling_from_the_optimal_start_keeps_a_gaussian_prior_and_from_pure_noise_does_not():
    denoiser, t = skewed("vp-linear"), 0.3
    covariance = denoiser.basis @ torch.diag(denoiser.variances) @ denoiser.basis.T
    near = sg.OptimalGaussian(denoiser.mean, covariance)
    grid = sg.starting_at(t, "flow")

    def distance(start):
        samples = sg.sample(denoiser, start=start, steps=30, grid=grid, eta=0).samples
        return (samples.mean(dim=0) - denoiser.mean).norm() + (samples.T.cov() - covariance).norm()

    start = near.draw(denoiser, t, batch=4000)
    assert distance(start) < 0.15
    assert distance(near.carry(start * 0 + Noise(0, range(4000), (3,)).draw("start"), denoiser.schedule, t)) < 0.15
    assert distance(Noise(0, range(4000), (3,)).draw("start")) > 0.5


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_run_with_noise_is_optimised_as_it_is(solver):
    """Without iterations it is the sampler's run; what is found makes the same samples again, and the loss falls."""
    run = {"steps": 6, "solver": solver, "eta": 0.7, "seed": 4}
    plain = sg.optimise(tiny(), squares, sg.DFlow(iterations=0), batch=2, **run)
    assert torch.equal(plain.samples, sg.sample(tiny(), batch=2, **run).samples)
    found = sg.optimise(tiny(), squares, sg.DFlow(iterations=3), batch=2, **run)
    assert torch.equal(found.samples, sg.sample(tiny(), start=found.start, **run).samples)
    assert bool((found.loss < plain.loss).all())
    with pytest.raises(sg.ConfigError, match="eta=0"):
        sg.optimise(tiny(), squares, sg.OCFlow(), batch=2, **run)
