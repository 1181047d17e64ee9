"""Law 6: closed forms: flow maps, posterior means, spreads, guided variances."""

import math
from itertools import pairwise

import pytest
import torch
from cases import every
from conftest import SCHEDULES, relative
from moments import moments

import symguide as sg
from symguide.lookahead import run
from symguide.solver import SOLVERS, Builder, get_solver, karras, transition


def gaussian(schedule, d=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    root = torch.randn(d, d, generator=g) / math.sqrt(d)
    return sg.GaussianDenoiser(torch.randn(d, generator=g), root @ root.T + 0.05 * torch.eye(d), SCHEDULES[schedule])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_gaussian_denoiser_is_the_conditional_mean(schedule):
    """E[x_0 | x_t] by the regression formula, with a solve in place of the eigenbasis."""
    denoiser, t = gaussian(schedule), 0.6
    alpha, sigma = denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)
    s = denoiser.basis @ torch.diag(denoiser.variances) @ denoiser.basis.T
    x = torch.randn(3, 5)
    gain = alpha * s @ torch.linalg.inv(alpha**2 * s + sigma**2 * torch.eye(5))
    assert torch.allclose(denoiser(x, t).x0, denoiser.mean + (x - alpha * denoiser.mean) @ gain.T)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_transport_solves_the_probability_flow(schedule):
    """Along the closed-form map, dy/du = flow(y) in the flow frame, by central differences in u."""
    denoiser = gaussian(schedule)
    s, t, h = denoiser.schedule, 0.5, 1e-5
    x = torch.randn(2, 5)
    a, b = t + h, t - h

    def scaled(r):
        return denoiser.transport(x, t, r) / (s.alpha(r) + s.sigma(r))

    u = [s.sigma(r) / (s.alpha(r) + s.sigma(r)) for r in (a, b)]
    slope = (scaled(a) - scaled(b)) / (u[0] - u[1])
    assert relative(slope, denoiser(x, t).flow) < 1e-6


@pytest.mark.parametrize("schedule", SCHEDULES)
@every("solver")
def test_solvers_reach_the_flow_map_at_their_order(case, schedule):
    """Halving the step divides the error by 2^order or more (midpoint on a Gaussian: by 2^3)."""
    denoiser = gaussian(schedule)
    x, t = torch.randn(4, 5), 0.7
    times = {n: [t - (t - 0.2) * i / n for i in range(n + 1)] for n in (40, 80)}

    def error(n):
        program, node, past = Builder(1), 0, []
        method = get_solver(case.make())
        for a, b in pairwise(times[n]):
            node = method.step(program, denoiser.schedule, node, a, b, past, method.stages)
        out = run(program.program(), [x], lambda y, r: denoiser(y, r).x0)
        return relative(out, denoiser.transport(x, t, 0.2))

    assert math.log2(error(40) / error(80)) > case.order - 0.2


@pytest.mark.parametrize("solver", SOLVERS)
def test_look_ahead_converges_to_the_flow_map(solver):
    denoiser = gaussian("vp-linear")
    x = torch.randn(4, 5)
    errors = [relative(sg.lookahead(denoiser, x, 0.6, n, solver).x0, denoiser.transport(x, 0.6)) for n in (1, 8, 64)]
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 0.02


def test_one_call_is_the_posterior_mean():
    denoiser, x = gaussian("flow"), torch.randn(3, 5)
    for solver in SOLVERS:
        assert torch.allclose(sg.lookahead(denoiser, x, 0.4, 1, solver).x0, denoiser(x, 0.4).x0)


def test_four_calls_of_the_default_beat_seven_of_the_papers():
    """On Gaussian priors (variances 0.01 to 2) 4 calls of the default are better than 7 of DDIM uniform in t."""
    variances = torch.logspace(-2, math.log10(2), 32)
    for schedule in ("vp-linear", "vp-cosine", "flow"):
        denoiser = sg.GaussianDenoiser(torch.zeros(32), torch.diag(variances), SCHEDULES[schedule])
        s, t = denoiser.schedule, 0.6
        x = (s.alpha(t) ** 2 * variances + s.sigma(t) ** 2).sqrt() * torch.randn(64, 32)
        truth = denoiser.transport(x, t)
        best = relative(sg.lookahead(denoiser, x, t, 4).x0, truth)
        assert best < relative(sg.lookahead(denoiser, x, t, 7, "paper").x0, truth)


def errors_of_moments(denoiser, steps, **settings):
    """How far mean and covariance of the samples are from the prior's, for each number of steps; exactly."""
    covariance = denoiser.basis @ torch.diag(denoiser.variances) @ denoiser.basis.T
    found = [moments(lambda n, k=k: sg.sample(denoiser, batch=n, steps=k, **settings).samples) for k in steps]
    return [((m - denoiser.mean).abs().max().item(), (c - covariance).abs().max().item()) for m, c in found]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_samples_have_the_priors_mean_and_spread(eta, schedule):
    """At first order: half the step, half the error of the covariance, or less."""
    coarse, fine = errors_of_moments(gaussian(schedule, d=2), (50, 100), eta=eta, grid="flow")
    assert max(fine) < 0.13 and fine[1] < 0.6 * coarse[1]


@pytest.mark.parametrize("solver", ["midpoint", "heun", "dpmpp_2m"])
def test_ancestral_steps_of_higher_order_keep_the_spread(solver):
    coarse, fine = errors_of_moments(gaussian("vp-cosine", d=2), (25, 50), eta=1.0, solver=solver)
    assert max(fine) < 0.008 and fine[1] < 0.6 * coarse[1]


def test_moments_are_those_that_many_samples_have():
    denoiser = gaussian("vp-linear", d=2)

    def draw(n):
        return sg.sample(denoiser, batch=n, steps=4, seed=5).samples

    (mean, covariance), samples = moments(draw), draw(4000)
    assert torch.allclose(samples.mean(dim=0), mean, atol=0.06)
    assert torch.allclose(samples.T.cov(), covariance, atol=0.08)


def test_ddpm_is_the_exact_posterior_of_a_point():
    """Data that are one point: the DDPM step is q(x_s | x_t, x_0) in closed form."""
    denoiser = sg.GaussianDenoiser(torch.ones(3), torch.zeros(3, 3))
    s, t = 0.4, 0.5
    alpha, sigma = denoiser.schedule.alpha, denoiser.schedule.sigma
    step = transition("ddim", denoiser.schedule, t, s, 1.0, None)
    r = alpha(t) / alpha(s)
    beta = 1 - r**2
    variance = beta * sigma(s) ** 2 / sigma(t) ** 2
    assert step.std**2 == pytest.approx(variance, rel=1e-12)
    x = torch.randn(2, 3)
    mean = alpha(s) * beta / sigma(t) ** 2 * torch.ones(3) + r * sigma(s) ** 2 / sigma(t) ** 2 * x
    assert torch.allclose(run(step.program, [x], lambda y, q: denoiser(y, q).x0), mean)


def test_mixture_denoiser_is_the_responsibility_weighted_mean():
    """Against the score of log p_t by autograd: x_0 = (x + sigma² score) / alpha."""
    means = torch.tensor([[-1.0, 0.5], [2.0, 0.0], [0.0, -1.5]])
    covariances = torch.stack([torch.diag(torch.tensor(v)) for v in ([0.2, 0.5], [0.1, 0.1], [1.0, 0.3])])
    weights = torch.tensor([0.2, 0.5, 0.3])
    denoiser = sg.MixtureDenoiser(means, covariances, weights)
    alpha, sigma = denoiser.schedule.alpha(0.4), denoiser.schedule.sigma(0.4)
    x = torch.randn(4, 2).requires_grad_()
    parts = [
        w.log() + torch.distributions.MultivariateNormal(alpha * m, alpha**2 * c + sigma**2 * torch.eye(2)).log_prob(x)
        for w, m, c in zip(weights, means, covariances, strict=True)
    ]
    score = torch.autograd.grad(torch.logsumexp(torch.stack(parts), dim=0).sum(), x)[0]
    assert torch.allclose(denoiser(x.detach(), 0.4).x0, (x + sigma**2 * score).detach() / alpha)
    one = denoiser(x.detach(), 0.4, label=torch.tensor([0, 1, 2, 3]))
    alone = [sg.GaussianDenoiser(m, c)(x.detach(), 0.4).x0 for m, c in zip(means, covariances, strict=True)]
    assert torch.allclose(one.x0[:3], torch.stack([alone[k][k] for k in range(3)]))
    assert torch.allclose(one.x0[3], denoiser(x.detach(), 0.4).x0[3])


def test_a_mixture_of_one_covariance_is_the_mixture_of_as_many_that_are_equal():
    root = torch.randn(3, 3)
    means, covariance = torch.randn(4, 3), root @ root.T / 3 + 0.1 * torch.eye(3)
    one, many = (sg.MixtureDenoiser(means, c) for c in (covariance, covariance.expand(4, 3, 3)))
    x = torch.randn(5, 3, requires_grad=True)
    for t in (0.4, torch.linspace(0.1, 0.9, 5)):
        a, b = one(x, t).x0, many(x, t).x0
        assert relative(a, b) < 1e-12
        assert relative(*(torch.autograd.grad(y.square().sum(), x)[0] for y in (a, b))) < 1e-12
        assert torch.allclose(one.log_posterior(x, t), many.log_posterior(x, t))


@pytest.mark.parametrize("shared", [True, False])
def test_the_posterior_of_a_mixture_has_the_moments_of_bayes_rule(shared):
    """Mean and covariance of p(x_0 | x_t) against self-normalised weights of many draws of the prior."""
    means = torch.tensor([[-1.0, 0.5], [1.0, 0.0], [0.0, -1.0]])
    covariances = torch.stack([torch.diag(torch.tensor(v)) for v in ([0.2, 0.5], [0.1, 0.1], [0.6, 0.3])])
    covariances = covariances[0] if shared else covariances
    denoiser, t, x = sg.MixtureDenoiser(means, covariances), 0.6, torch.tensor([[0.3, -0.2]])
    g = torch.Generator().manual_seed(0)
    k = torch.randint(3, (400_000,), generator=g)
    spread = covariances.expand(3, 2, 2)[k].diagonal(dim1=1, dim2=2).sqrt()
    x0 = means[k] + spread * torch.randn(len(k), 2, generator=g)
    alpha, sigma = denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)
    w = (-0.5 * ((x - alpha * x0) / sigma).square().sum(dim=1)).softmax(dim=0)
    mean = w @ x0
    log_r, each, roots = denoiser.posterior(x, t)
    found = log_r[0].exp() @ each[0]
    assert relative(found, mean) < 0.02 and relative(found, denoiser(x, t).x0[0]) < 1e-12
    inside = torch.einsum("k,kde,kfe->df", log_r[0].exp(), roots, roots)
    between = torch.einsum("k,kd,ke->de", log_r[0].exp(), each[0] - found, each[0] - found)
    assert relative(inside + between, torch.einsum("b,bd,be->de", w, x0 - mean, x0 - mean)) < 0.02


def test_mixture_samples_fall_into_the_modes_by_weight():
    denoiser = sg.MixtureDenoiser(torch.tensor([[-2.0], [2.0]]), 0.01 * torch.eye(1), torch.tensor([0.3, 0.7]))
    samples = sg.sample(denoiser, batch=2000, steps=60).samples
    assert (samples > 0).double().mean() == pytest.approx(0.7, abs=0.04)
    assert (samples.abs() - 2).abs().max() < 0.6


@pytest.mark.parametrize("scale", [2.0, 3.0])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_cfg_has_the_closed_form_variances(scale, eta):
    """p(x|c) = N(0, 1), p(x) = N(0, 2), VE: variance 2^(1-w) with the ODE, (2 - 2^(2-2w)) / (2w - 1) with the SDE.

    Every step is linear in x here, so the variance follows exactly from where x = 1 goes.
    """

    class Pair(sg.Denoiser):
        def _evaluate(self, x, t, condition):
            s = self.schedule.sigma(t) ** 2
            v = torch.where(condition["label"] == 0, 1.0, 2.0)[:, None]
            return x * v / (v + s)

    schedule = sg.VE(sigma_max=500.0, sigma_min=0.01)
    denoiser, cfg = Pair(lambda: None, schedule, "x0", shape=(1,), null={"label": 1}), sg.CFG(scale)
    times = karras(schedule, 1.0, 2000)
    variance, label, one = schedule.sigma(1.0) ** 2, torch.zeros(1, dtype=torch.long), torch.ones(1, 1)
    for t, s in pairwise(times):
        step = transition("ddim", schedule, t, s, eta, None)
        factor = run(step.program, [one], lambda x, r: cfg(denoiser, x, r, {"label": label}).x0).item()
        variance = factor**2 * variance + step.std**2
    exact = 2 ** (1 - scale) if eta == 0 else (2 - 2 ** (2 - 2 * scale)) / (2 * scale - 1)
    assert variance == pytest.approx(exact, rel=0.01)


def test_gradients_of_a_linear_look_ahead_are_its_matrix():
    """For a Gaussian the n-call map is affine: gradient of c . x_0 is its transpose applied to c, whatever x is."""
    denoiser, c = gaussian("vp-linear"), torch.randn(5)

    def linear(x0):
        return x0 @ c

    grads = [sg.lookahead_gradient(denoiser, torch.randn(1, 5), 0.6, linear, 4).value for _ in range(2)]
    assert torch.allclose(grads[0], grads[1])
    basis = sg.lookahead(denoiser, torch.eye(5), 0.6, 4).x0 - sg.lookahead(denoiser, torch.zeros(5, 5), 0.6, 4).x0
    assert torch.allclose(grads[0][0], basis @ c)


def test_gradient_of_the_continuous_flow_is_approached():
    """Exact for the discrete map; the continuous flow's gradient on a Gaussian is met as n grows."""
    denoiser, x, c = gaussian("vp-linear"), torch.randn(1, 5), torch.randn(5)
    leaf = x.clone().requires_grad_()
    truth = torch.autograd.grad((denoiser.transport(leaf, 0.6) @ c).sum(), leaf)[0]
    errors = [relative(sg.lookahead_gradient(denoiser, x, 0.6, lambda x0: x0 @ c, n).value, truth) for n in (2, 8, 32)]
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 1e-2


def test_dsg_lands_on_its_sphere():
    denoiser = gaussian("vp-cosine", d=4)
    seen = []

    class Watch(sg.Sphere):
        def __call__(self, step, change):
            x_s = super().__call__(step, change)
            seen.append(((x_s - step.mean()).norm(dim=1) - math.sqrt(4) * step.std).abs().max())
            return x_s

    recipe = sg.SAG(lambda x0: x0.square().sum(dim=1), n=2, constraint=Watch(0.3))
    sg.sample(denoiser, batch=5, steps=8, loss=recipe)
    assert len(seen) == 7
    assert max(seen) < 1e-12


def test_guided_steps_lower_the_loss():
    """Each recipe moves samples of a mixture toward the objective's mode."""
    denoiser = sg.MixtureDenoiser(torch.tensor([[-2.0, 0.0], [2.0, 0.0]]), 0.05 * torch.eye(2))

    def right(x0):
        return (x0 - torch.tensor([2.0, 0.0])).square().sum(dim=1)

    plain = right(sg.sample(denoiser, batch=50, steps=30).samples).mean()
    for loss in (
        sg.SAG(right, n=3),
        sg.FreeDoM(right),
        sg.DPS(right, scale=0.5),
        sg.MPGD(right, scale=0.5),
        sg.UniversalGuidance(right, scale=1.0, backward_steps=5),
        sg.LGD(right),
        sg.DSG(right, rate=0.5),
        sg.TFG(right),
        sg.TFG.paper(right, rho=0.05, mu=0.02),
        sg.ABMS(right),
        sg.AdamDPS(right, scale=0.1),
        sg.ECM(right, scale=0.05),
        sg.EluCD(right),
        sg.Dreamguider(right),
    ):
        guided = right(sg.sample(denoiser, batch=50, steps=30, loss=loss).samples).mean()
        assert guided < 0.6 * plain, type(loss).__name__
