"""Schedulers of other kinds: EDM's levels, steps through a midpoint, noise of a Brownian tree, turned flows."""

import functools
import math

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
from gradients import Looks
from test_schedulers import Nudge, constant, path
from zoo import BETAS, bright, build, double, draw

import symguide as sg
from symguide.pipelines.decode import decoder
from symguide.pipelines.levels import levels
from symguide.pipelines.modules import networks
from symguide.pipelines.record import Recorder

DTYPE = torch.float32
EDM = {"sigma_max": 80.0, "sigma_data": 0.7}
SVD = {
    "timestep_type": "continuous",
    "prediction_type": "v_prediction",
    "use_karras_sigmas": True,
    "sigma_max": 700.0,
    "sigma_min": 0.002,
}
SCHEDULERS = {
    "kdpm2": ("KDPM2DiscreteScheduler", BETAS),
    "kdpm2 ancestral": ("KDPM2AncestralDiscreteScheduler", BETAS),
    "dpm++ sde": ("DPMSolverSDEScheduler", BETAS | {"noise_sampler_seed": 0}),
    "sa-solver": ("SASolverScheduler", BETAS),
    "edm euler": ("EDMEulerScheduler", EDM | {"prediction_type": "v_prediction"}),
    "edm dpm++ 2m sde": ("EDMDPMSolverMultistepScheduler", EDM | {"algorithm_type": "sde-dpmsolver++"}),
    "cosine dpm++": ("CosineDPMSolverMultistepScheduler", {"sigma_max": 80.0}),
    "euler of log sigma": ("EulerDiscreteScheduler", BETAS | SVD),
    "flow lcm": ("FlowMatchLCMScheduler", {"shift": 3.0}),
}
"""One of each mechanism."""
FURTHER = {
    "kdpm2 karras": ("KDPM2DiscreteScheduler", BETAS | {"use_karras_sigmas": True}),
    "kdpm2 v": ("KDPM2AncestralDiscreteScheduler", BETAS | {"prediction_type": "v_prediction"}),
    "sa-solver noise": ("SASolverScheduler", BETAS | {"algorithm_type": "noise_prediction"}),
    "sa-solver flow": (
        "SASolverScheduler",
        {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0},
    ),
    "edm euler eps": ("EDMEulerScheduler", EDM | {"prediction_type": "epsilon"}),
    "edm dpm++ 2m": ("EDMDPMSolverMultistepScheduler", EDM),
}
"""Settings of the same mechanisms."""
COARSE = {"cosine dpm++": 1e-2}
"""torchsde's trees end in a recursion in float64, so that one is drawn in float32."""


def scheduled(name, folder, steps=5):
    kind, settings = (SCHEDULERS | FURTHER)[name]
    if kind in ("DPMSolverSDEScheduler", "CosineDPMSolverMultistepScheduler"):
        pytest.importorskip("torchsde")
    pipe, call = build("sd3" if "flow" in name else "sd", folder)
    pipe.scheduler = getattr(diffusers, kind)(**settings)
    return pipe, call | {"num_inference_steps": steps}


def clean(scheduler, result, sample, model_output, timestep):
    """The scheduler's own clean estimate, in its own words."""
    if isinstance(scheduler, diffusers.FlowMatchLCMScheduler):
        return sample - timestep / 1000 * model_output
    if not getattr(scheduler, "predict_x0", True):
        alpha = scheduler.alphas_cumprod[timestep].sqrt()
        return (sample - (1 - alpha**2).sqrt() * model_output) / alpha
    return result[1] if len(result) > 1 else scheduler.model_outputs[-1]


def own_gradient(pipe, call, at):
    """Of the objective at that estimate, with respect to the scheduler's sample, through the pipeline's own code."""
    scheduler, count, recorder = pipe.scheduler, iter(range(100)), Recorder(networks(pipe))
    stock = scheduler.step

    @functools.wraps(stock)
    def step(model_output, timestep, sample, *args, **kwargs):
        index, calls = next(count), recorder.take()
        result = stock(model_output, timestep, sample, *args, **kwargs | {"return_dict": False})
        if index == at:
            estimate = clean(scheduler, result, sample, model_output, timestep)
            found.append(torch.autograd.grad(bright(decoder(pipe, calls, False)(estimate)).sum(), sample)[0])
            raise StopIteration
        return (result[0].detach().requires_grad_(index == at - 1), *result[1:])

    found = []
    scheduler.step = step
    recorder.attach()
    try:
        with torch.enable_grad(), pytest.raises(StopIteration):
            type(pipe).__call__.__wrapped__(pipe, **call, generator=torch.Generator().manual_seed(0))
    finally:
        recorder.detach()
        del scheduler.step
    return found[0]


def right(name, folder):
    """Off is off; one call's gradient is that of the scheduler's own estimate, n = 3's that of central differences."""
    pipe, call = scheduled(name, folder)
    if name not in COARSE:
        double(pipe)
    plain = drawn(pipe, call)
    recipe = Looks(bright, 1, 3, at=2)
    with sg.guide(pipe, loss=recipe):
        assert torch.equal(drawn(pipe, call), plain)
    (got, error), (_, further) = recipe.seen
    limit = COARSE.get(name, 1e-4)
    assert (error < limit).all() and (further < limit).all()
    known, calls = levels(pipe.scheduler), getattr(pipe.scheduler, "order", 1)
    torch.manual_seed(0)
    expected = own_gradient(pipe, call, 2 * calls) * known.unit(known.times(pipe.scheduler)[2 * calls])
    assert (got - expected).norm() < max(limit / 100, 1e-6) * expected.norm()
    with sg.guide(pipe, loss=sg.SAG(bright, n=1, scale=0.3)) as run:
        guided = drawn(pipe, call)
    assert bright(2 * guided - 1) < bright(2 * plain - 1)
    assert [line.loss is None for line in run.trace] == [False] * 4 + [True]


def drawn(pipe, call):
    torch.manual_seed(0)  # Stable Diffusion 3 hands its scheduler no generator
    return draw(pipe, call)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_off_is_off_and_the_gradient_is_the_schedulers_own(name, folder):
    right(name, folder)


@pytest.mark.parametrize("name", FURTHER)
def test_further_settings_are_right(name, folder):
    right(name, folder)


@pytest.mark.parametrize("name", ["kdpm2", "kdpm2 ancestral", "dpm++ sde", "sa-solver noise"])
def test_a_change_keeps_its_share_of_the_signal_where_no_noise_is_seen(name, folder):
    """With eps = 0 everywhere a change of x_s stays what it is of the signal, x_s = (alpha_s / alpha_t) x_t."""
    pipe, call = scheduled(name, folder)
    constant(pipe, 0.0)
    calls = getattr(pipe.scheduler, "order", 1)
    alpha = levels(pipe.scheduler).schedule.alpha
    for at in (1, 2):
        plain, moved = path(pipe, call), path(pipe, call, Nudge(at, 1.0))
        change = [(b - a).flatten() for a, b in zip(plain, moved, strict=True)]
        times = levels(pipe.scheduler).times(pipe.scheduler)
        first = min(calls * at + calls - 1, len(change) - 1)  # the call of `step` that the change comes with
        assert all(not c.any() for c in change[:first])
        for k in range(first, len(change)):
            share = 1 / alpha(times[first + 1]) if calls > 1 else alpha(max(times[k + 1], 1e-3)) / alpha(times[at + 1])
            assert torch.allclose(change[k], torch.tensor(share, dtype=torch.float64), rtol=2e-3)


@pytest.mark.parametrize("tau", [0.0, 1.0])
def test_a_change_fades_under_sa_solver_as_its_stochastic_steps_say(tau, folder):
    """With x_0 = c everywhere, x_s = alpha_s c + (sigma_s / sigma_t) exp(-tau^2 h) (x_t - alpha_t c) + noise."""
    pipe, call = scheduled("sa-solver", folder, steps=8)
    settings = BETAS | {"prediction_type": "sample", "tau_func": lambda timestep: tau}
    pipe.scheduler = diffusers.SASolverScheduler(**settings)
    constant(pipe, 0.3)
    for at in (2, 5):
        plain, moved = path(pipe, call), path(pipe, call, Nudge(at, 1.0))
        ratio = pipe.scheduler.sigmas.double()
        sigma = ratio / (1 + ratio**2).sqrt()
        for k, (a, b) in enumerate(zip(plain, moved, strict=True)):
            kept = sigma[k + 1] / sigma[at + 1] * (ratio[k + 1] / ratio[at + 1]) ** tau**2
            assert torch.allclose(b - a, kept if k >= at else torch.zeros(1).double(), atol=2e-3)


@pytest.mark.parametrize("name", ["edm euler", "edm dpm++ 2m"])
def test_a_change_fades_with_sigma_under_edm(name, folder):
    """With x_0 = c everywhere, x_s = c + (sigma_s / sigma_t) (x_t - c); the network says c through c_skip and c_out."""
    pipe, call = scheduled(name, folder, steps=8)
    d, sign = EDM["sigma_data"], -1.0 if pipe.scheduler.config.prediction_type == "v_prediction" else 1.0

    def network(x, timestep, *args, **kwargs):
        sigma = math.exp(4 * float(timestep))
        length = math.hypot(sigma, d)
        return ((0.3 - d**2 / length**2 * length * x) / (sign * sigma * d / length),)

    pipe.unet.forward = network
    for at in (2, 5):
        plain, moved = path(pipe, call), path(pipe, call, Nudge(at, 1.0))
        sigma = pipe.scheduler.sigmas.double()
        scale = math.hypot(float(sigma[at + 1]), d) / d  # Nudge moves the schedule's x_s, (d / |(sigma, d)|) x / d
        for k, (a, b) in enumerate(zip(plain, moved, strict=True)):
            expected = d * scale * sigma[k + 1] / sigma[at + 1] if k >= at else torch.zeros(1).double()
            assert torch.allclose(b - a, expected, atol=2e-3, rtol=2e-3)


def test_objectives_see_the_pipelines_own_units(folder):
    """EDM's schedule is of the data over their deviation; what is decoded is the data."""
    pipe, call = scheduled("edm euler", folder)
    seen = []

    def keeps(x0):
        seen.append(x0.detach())
        return bright(x0)

    with sg.guide(pipe, loss=sg.MPGD(keeps, scale=1e-9), decode=False):
        final = path(pipe, call)[-1]
    assert torch.allclose(seen[-1].double(), final, atol=1e-4)


STD = {
    "edm dpm++ 2m sde": lambda s, i: s.sigmas[i + 1] * (1 - (s.sigmas[i + 1] / s.sigmas[i]) ** 2).sqrt(),
    "cosine dpm++": lambda s, i: s.sigmas[i + 1] * (1 - (s.sigmas[i + 1] / s.sigmas[i]) ** 2).sqrt(),
    "flow lcm": lambda s, i: s.sigmas[i + 1],
    "sa-solver": lambda s, i: (
        s.sigmas[i + 1]
        / (1 + s.sigmas[i + 1] ** 2).sqrt()
        * (1 - (s.sigmas[i + 1] / s.sigmas[i]) ** (2 * (200 <= s.timesteps[i] <= 800))).sqrt()
    ),
}
"""Standard deviation of x_s in step i by each scheduler's paper, in the pipeline's units."""


@pytest.mark.parametrize("name", STD)
def test_the_sphere_has_the_schedulers_own_radius(name, folder):
    pipe, call = scheduled(name, folder)
    known, seen = levels(pipe.scheduler), []

    class Watches(sg.SAG):
        def guide(self, step):
            guided = super().guide(step)
            seen.append((step, step.std, None if guided is None else (guided.x_s - step.mean()).norm()))
            return guided

    with sg.guide(pipe, loss=Watches(bright, n=1, constraint=sg.Sphere(0.2), window=(0.4, 0.5))):
        draw(pipe, call)
    for index, (step, std, length) in enumerate(seen):
        expected = float(STD[name](pipe.scheduler, index)) / known.unit(step.s)
        assert std == pytest.approx(expected, rel=1e-3, abs=1e-6)
        if length is not None:
            assert float(length) == pytest.approx(step.x[0].numel() ** 0.5 * std, rel=1e-3)


@pytest.mark.parametrize("name", ["kdpm2 ancestral", "dpm++ sde"])
def test_what_the_midpoint_cannot_do_is_refused(name, folder):
    pipe, call = scheduled(name, folder)
    with pytest.raises(sg.GuidanceError, match="use EulerAncestralDisc"), sg.guide(pipe, loss=sg.DSG(bright)):
        draw(pipe, call)
    with pytest.raises(sg.ConfigError, match="two halves"), sg.guide(pipe, loss=sg.SAG(bright, n=1, repeats=2)):
        draw(pipe, call)


def test_a_tree_has_the_same_noise_again(folder):
    pipe, call = scheduled("cosine dpm++", folder)
    with pytest.raises(sg.ConfigError, match="same noise"), sg.guide(pipe, loss=sg.SAG(bright, n=1, repeats=2)):
        draw(pipe, call)


@pytest.mark.parametrize("name", ["kdpm2", "dpm++ sde"])
def test_rules_of_ours_hold_in_both_halves_of_a_step(name, folder):
    """CFG as ours, in place of the pipeline's own at another scale, draws what the pipeline draws at ours."""
    pipe, call = scheduled(name, folder)
    double(pipe)
    expected = draw(pipe, call | {"guidance_scale": 3.0})
    with sg.guide(pipe, prediction=sg.CFG(3.0)):
        got = draw(pipe, call)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_the_last_step_of_two_halves_is_guided(folder):
    """It is one call, to sigma = 0: a change that waited for its second half would be lost."""
    for name in ("HeunDiscreteScheduler", "KDPM2DiscreteScheduler"):
        pipe, call = build("sd", folder)
        pipe.scheduler = getattr(diffusers, name)(**BETAS)
        plain, moved = path(pipe, call), path(pipe, call, Nudge(2, 1.0))
        assert torch.allclose(moved[-1] - plain[-1], torch.ones(1).double(), atol=1e-5)


def test_levels_above_the_table_are_refused(folder):
    pipe, call = build("sd", folder)
    pipe.scheduler = diffusers.EulerDiscreteScheduler(**BETAS, use_karras_sigmas=True, sigma_max=700.0)
    with pytest.raises(sg.ConfigError, match="above all that its betas have"), sg.guide(pipe, loss=sg.SAG(bright)):
        draw(pipe, call)


@pytest.mark.parametrize("name", ["edm euler", "cosine dpm++", "euler of log sigma"])
def test_our_own_loop_refuses_networks_of_other_noise(name, folder):
    pipe, _ = scheduled(name, folder)
    with pytest.raises(sg.ConfigError, match=r"is one of EDM .* use guide\(pipe"):
        sg.from_diffusers(pipe)


def test_kinds_of_noise_that_do_not_mix():
    kinds = {
        "diffusion": diffusers.DDIMScheduler(),
        "flows": diffusers.FlowMatchEulerDiscreteScheduler(),
        "flows whose time rises": diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
        "TrigFlow": diffusers.SCMScheduler(),
        "EDM (log of the level, data of deviation 0.5)": diffusers.EDMEulerScheduler(),
    }
    assert [levels(scheduler).kind for scheduler in kinds.values()] == list(kinds)
