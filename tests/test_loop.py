import pytest
import torch
from conftest import quartic, relative, squares, tiny

import symguide as sg
from symguide.per_sample import Noise
from symguide.solver import transition


def test_ddim_by_hand():
    """eta = 0 and eta = 0.5 of DDIM's equation 12, written out, with the loop's own noise."""
    denoiser, schedule = tiny(), sg.VP.linear()
    noise = Noise(5, [0, 1], (6,))
    for eta in (0.0, 0.5, 1.0):
        x, steps = noise.draw("start"), 5
        for i in range(steps):
            t, s = 1 - i / steps, 1 - (i + 1) / steps
            a, b = schedule.alpha(t) ** 2, schedule.alpha(max(s, 0.0)) ** 2
            eps = denoiser.network(x, torch.full((2,), 1000 * t))
            x0 = (x - (1 - a) ** 0.5 * eps) / a**0.5
            std = eta * ((1 - b) / (1 - a)) ** 0.5 * (1 - a / b) ** 0.5
            x = b**0.5 * x0 + max(1 - b - std**2, 0) ** 0.5 * eps + std * noise.draw("step", i)
        assert relative(sg.sample(denoiser, batch=2, steps=steps, seed=5, eta=eta).samples, x) < 1e-9


def test_a_guided_step_by_hand():
    """FreeDoM's step from autograd alone: x_s - scale * r * g / |g|."""
    denoiser = tiny()
    settings = {"batch": 2, "steps": 4, "seed": 1, "return_trajectory": True}
    guided = sg.sample(denoiser, loss=sg.FreeDoM(quartic, scale=0.3), **settings).trajectory
    plain = sg.sample(denoiser, start=guided[0], **settings).trajectory
    leaf = guided[0].clone().requires_grad_()
    g = torch.autograd.grad(quartic(denoiser(leaf, 1.0).x0).sum(), leaf)[0]
    a, b = (denoiser.schedule.alpha(t) ** 2 for t in (1.0, 0.75))
    radius = 6**0.5 * ((1 - b) / (1 - a)) ** 0.5 * (1 - a / b) ** 0.5
    assert relative(guided[1], plain[1] - 0.3 * radius * g / g.norm(dim=1, keepdim=True)) < 1e-12


def test_dps_mpgd_and_universal_by_hand():
    denoiser, scale = tiny(), 0.2
    settings = {"batch": 2, "steps": 4, "eta": 0.0, "return_trajectory": True}
    plain = sg.sample(denoiser, **settings).trajectory
    leaf = plain[0].clone().requires_grad_()
    x0 = denoiser(leaf, 1.0).x0
    g = torch.autograd.grad(squares(x0).sqrt().sum(), leaf)[0]
    dps = sg.sample(denoiser, loss=sg.DPS(squares, scale=scale), **settings).trajectory
    assert relative(dps[1], plain[1] - scale * g) < 1e-9

    (a, s), (b, u) = ((denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)) for t in (1.0, 0.75))
    x0 = x0.detach()
    d = 2 * (x0 - 0.5)
    moved = x0 - scale * 6**0.5 * s * d / d.norm(dim=1, keepdim=True)
    mpgd = sg.sample(denoiser, loss=sg.MPGD(squares, scale=scale), **settings).trajectory
    assert relative(mpgd[1], b * moved + u * denoiser(plain[0], 1.0).eps) < 1e-9
    anew = sg.sample(denoiser, loss=sg.MPGD(squares, scale=scale, eps="anew"), **settings).trajectory
    assert relative(anew[1], b * moved + u * (plain[0] - a * moved) / s) < 1e-9

    g = torch.autograd.grad(squares(denoiser(leaf, 1.0).x0).sum(), leaf)[0]
    eps = denoiser(plain[0], 1.0).eps + 1e-4 * s * g
    forward = sg.UniversalGuidance(squares, scale=1e-4, update=sg.rules.forward_weight())
    universal = sg.sample(denoiser, loss=forward, **settings).trajectory
    assert relative(universal[1], b * (plain[0] - s * eps) / a + u * eps) < 1e-9


def test_lgd_by_hand():
    """The gradient of -log mean exp(-objective) over the cloud, with the step's own draws."""
    denoiser = tiny()

    def soft(x0):
        return (x0**2).sum(dim=1) ** 2 / 1e12

    settings = {"batch": 2, "steps": 4, "eta": 0.0, "return_trajectory": True}
    x = sg.sample(denoiser, loss=sg.LGD(soft, samples=3, scale=0.1), **settings).trajectory
    plain = sg.sample(denoiser, **settings).trajectory
    cloud = denoiser.schedule.sigma(1.0) * Noise(0, [0, 1], (6,)).draw("smooth", 0, times=3)
    leaf = x[0].clone().requires_grad_()
    x0 = denoiser(leaf, 1.0).x0
    loss = -torch.stack([-soft(x0 + z) for z in cloud]).exp().mean(dim=0).log()
    g = torch.autograd.grad(loss.sum(), leaf)[0]
    a, b = (denoiser.schedule.alpha(t) ** 2 for t in (1.0, 0.75))
    radius = 6**0.5 * ((1 - b) / (1 - a)) ** 0.5 * (1 - a / b) ** 0.5
    assert relative(x[1], plain[1] - 0.1 * radius * g / g.norm(dim=1, keepdim=True)) < 1e-9


def test_the_papers_rho_rule():
    """|change of x_s| = 0.2 * rms(w (eps_c - eps_u)) * sqrt(d), per sample."""
    denoiser, w = tiny(), 3.0
    settings = {"batch": 2, "steps": 10, "condition": {"label": [0, 1]}, "prediction": sg.CFG(w)}
    watch = []

    class Watched(sg.SAG):
        def push(self, step):
            made = super().push(step)
            label = torch.tensor([0, 1])
            c = denoiser(step.x, step.t, label=label).eps - denoiser(step.x, step.t, label=torch.tensor([4, 4])).eps
            watch.append(relative(made.x_s.norm(dim=1), 0.2 * w * c.norm(dim=1)))
            return made

    sg.sample(denoiser, loss=Watched.paper(squares), **settings)
    assert len(watch) == 8  # steps 3 to 6, twice
    assert max(watch) < 1e-9


def test_time_travel_draws_from_the_forward_process():
    """x_t given x_s has mean (alpha_t / alpha_s) x_s and variance sigma_t² - (alpha_t / alpha_s)² sigma_s²."""
    drawn = []

    class Probe(sg.FreeDoM):
        def guide(self, step):
            drawn.append((step.t, step.s, step.back_in_time(torch.full_like(step.x, 2.0))))
            return super().guide(step)

    sg.sample(tiny(), batch=1500, steps=3, loss=Probe(squares))
    for t, s, x in drawn[:-1]:
        (a, u), (b, v) = ((sg.VP.linear().alpha(r), sg.VP.linear().sigma(r)) for r in (t, s))
        assert x.mean().item() == pytest.approx(2 * a / b, abs=0.05)
        assert x.var().item() == pytest.approx(u**2 - (a / b * v) ** 2, rel=0.05)


def test_a_multistep_solvers_history_is_not_polluted_by_repeats():
    """dpmpp_2m with a guidance of no strength and repeats at eta = 0: every step's history is the step before."""
    seen = []

    class Watch(sg.SAG):
        def push(self, step):
            seen.append((step.index, step.repeat, None if step.state.past is None else step.state.past[0]))
            return super().push(step)

    sg.sample(tiny(), steps=4, solver="dpmpp_2m", loss=Watch(squares, n=1, repeats=2))
    assert seen == [(0, 0, None), (0, 1, None), (1, 0, 1.0), (1, 1, 1.0), (2, 0, 0.75), (2, 1, 0.75)]


@pytest.mark.parametrize("shape", [(6,), (2, 4, 4), (2, 3, 4, 4), (10, 3)])
def test_samples_of_any_shape(shape):
    for loss in (sg.SAG(squares, n=2), sg.DSG(squares), sg.MPGD(squares), sg.LGD(squares, samples=2)):
        result = sg.sample(tiny(shape=shape), batch=2, steps=3, loss=loss)
        assert result.samples.shape == (2, *shape)
        assert result.trace[0].loss.shape == result.trace[0].gradient_norm.shape == (2,)


def test_dtypes():
    torch.set_default_dtype(torch.float32)
    denoiser = tiny()  # a float64 network
    assert sg.sample(denoiser, steps=2).samples.dtype == torch.float32
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        result = sg.sample(denoiser, batch=2, steps=4, dtype=dtype, loss=sg.SAG(squares, n=2))
        assert result.samples.dtype == dtype
        assert result.samples.isfinite().all()
    assert denoiser.dtype == torch.float64
    low = sg.sample(denoiser.to(dtype=torch.bfloat16), batch=2, steps=4)  # bf16 network, float32 states
    assert low.samples.dtype == torch.float32
    exact = sg.sample(denoiser, batch=2, steps=4, dtype=torch.float64).samples
    assert relative(sg.sample(denoiser, batch=2, steps=4).samples.double(), exact) < 1e-5


def test_one_network_float_that_differs_from_the_run_is_copied_only_where_dtype_says_so():
    seen = []
    denoiser = tiny()
    denoiser.network.register_forward_hook(lambda m, i, o: seen.append(i[0].dtype))
    torch.set_default_dtype(torch.float32)
    sg.sample(denoiser, steps=1)
    sg.sample(denoiser, steps=1, dtype=torch.float32)
    assert seen == [torch.float64, torch.float32]


def test_trace_callback_trajectory_and_cost():
    seen = []
    result = sg.sample(
        tiny(),
        batch=2,
        steps=5,
        loss=sg.SAG(squares, n=2),
        return_trajectory=True,
        callback=lambda record, x: seen.append((record.index, x)),
    )
    assert [i for i, _ in seen] == [r.index for r in result.trace] == list(range(5))
    assert torch.equal(torch.stack([x for _, x in seen]), result.trajectory[1:])
    assert torch.equal(result.trajectory[-1], result.samples)
    assert [r.s for r in result.trace] == [r.t for r in result.trace[1:]] + [0.0]
    assert sum(r.seconds for r in result.trace) <= result.cost.seconds
    assert result.cost.peak_bytes > 0
    assert all(not r.loss.requires_grad for r in result.trace[:-1])


def test_inside_inference_mode():
    """Callers often wrap sampling in no_grad or inference_mode; guidance needs gradients all the same."""
    denoiser = tiny()
    settings = {"batch": 2, "steps": 3, "loss": sg.SAG(squares, n=2)}
    plain, x = sg.sample(denoiser, **settings).samples, torch.randn(2, 6)
    gradient = sg.lookahead_gradient(denoiser, x, 0.5, squares).value
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            assert torch.equal(sg.sample(denoiser, **settings).samples, plain)
            assert torch.equal(sg.sample(denoiser, start=x.clone(), **settings).samples.isfinite(), x.isfinite())
            assert torch.equal(sg.lookahead_gradient(denoiser, x.clone(), 0.5, squares).value, gradient)


def test_seeds():
    a, b, c = (sg.sample(tiny(), batch=2, steps=3, seed=s).samples for s in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    state = torch.random.get_rng_state()
    sg.sample(tiny(), batch=2, steps=3)
    assert torch.equal(state, torch.random.get_rng_state())


def test_constraint_of_a_recipe_that_moves_the_estimate():
    """MPGD on the sphere points where MPGD points."""
    settings = {"batch": 2, "steps": 4, "return_trajectory": True}
    plain = sg.sample(tiny(), **settings).trajectory[1]
    moved = sg.sample(tiny(), loss=sg.MPGD(squares), **settings).trajectory[1]
    deterministic = sg.sample(tiny(), loss=sg.MPGD(squares, constraint=sg.Sphere(1.0)), **settings).trajectory
    noise = Noise(0, [0, 1], (6,)).draw("step", 0)
    mean = plain - transition("ddim", sg.VP.linear(), 1.0, 0.75, 1.0, None).std * noise
    assert torch.cosine_similarity(deterministic[1] - mean, moved - plain).min() > 1 - 1e-9


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_equals_cpu():
    settings = {"batch": 2, "steps": 4, "loss": sg.SAG(squares, n=3)}
    cpu = sg.sample(tiny(), **settings).samples
    gpu = sg.sample(tiny(), device="cuda", **settings)
    assert relative(gpu.samples.cpu(), cpu) < 1e-9
    assert gpu.cost.peak_bytes > 0
