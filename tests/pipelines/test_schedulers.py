"""guide under every scheduler: off is off, and what a scheduler stores of its path goes along with a guided sample."""

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
from zoo import BETAS, bright, build, draw

import symguide as sg
from symguide.errors import ConfigError

DTYPE = torch.float32
FLOW = {"num_train_timesteps": 1000, "shift": 3.0}
SCHEDULERS = {
    "ddim": ("DDIMScheduler", BETAS | {"clip_sample": False}),
    "ddpm": ("DDPMScheduler", BETAS | {"clip_sample": False}),
    "euler": ("EulerDiscreteScheduler", BETAS),
    "euler-karras": ("EulerDiscreteScheduler", BETAS | {"use_karras_sigmas": True}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", BETAS),
    "heun": ("HeunDiscreteScheduler", BETAS),
    "dpm++ 2m": ("DPMSolverMultistepScheduler", BETAS),
    "dpm++ 2m karras": ("DPMSolverMultistepScheduler", BETAS | {"use_karras_sigmas": True}),
    "dpm++ 2m sde": ("DPMSolverMultistepScheduler", BETAS | {"algorithm_type": "sde-dpmsolver++"}),
    "dpm++ single": ("DPMSolverSinglestepScheduler", BETAS),
    "unipc": ("UniPCMultistepScheduler", BETAS),
    "pndm": ("PNDMScheduler", BETAS | {"skip_prk_steps": True}),
    "deis": ("DEISMultistepScheduler", BETAS),
    "lms": ("LMSDiscreteScheduler", BETAS),
    "lcm": ("LCMScheduler", BETAS),
    "tcd": ("TCDScheduler", BETAS),
    "flow euler": ("FlowMatchEulerDiscreteScheduler", FLOW),
    "flow heun": ("FlowMatchHeunDiscreteScheduler", FLOW),
    "flow unipc": (
        "UniPCMultistepScheduler",
        {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0},
    ),
}
EVERY = pytest.mark.parametrize("name", SCHEDULERS)
STOCHASTIC = ("ddpm", "euler-ancestral", "dpm++ 2m sde", "lcm", "tcd")


def scheduled(name, folder, steps=6):
    kind, settings = SCHEDULERS[name]
    pipe, call = build("sd3" if kind.startswith("FlowMatch") else "sd", folder)
    pipe.scheduler = getattr(diffusers, kind)(**settings)
    return pipe, call | {"num_inference_steps": steps}


@EVERY
def test_scale_0_is_bit_identical_and_guidance_lowers_the_loss(name, folder):
    pipe, call = scheduled(name, folder)
    plain = draw(pipe, call)
    with sg.guide(pipe, loss=sg.SAG(bright, n=2, scale=0.0)):
        assert torch.equal(draw(pipe, call), plain)
    with sg.guide(pipe, loss=sg.SAG(bright, n=2, scale=0.3)) as run:
        guided = draw(pipe, call)
        again = draw(pipe, call)
    assert torch.equal(guided, again) and torch.equal(draw(pipe, call), plain)
    assert bright(2 * guided - 1) < bright(2 * plain - 1)
    losses = [line.loss.item() for line in run.trace if line.loss is not None]
    assert len(run.trace) == 6 and losses[-1] < losses[0]


class Nudge:
    """Moves the sample of one step by a constant, as a recipe would."""

    objective = staticmethod(bright)

    def __init__(self, at, change):
        self.at, self.change = at, change

    def prepare(self, run):
        pass

    def repeats_at(self, step):
        return 1

    def guide(self, step):
        if step.index != self.at:
            return None
        zeros = torch.zeros(len(step.x))
        return sg.step.Guided(step.x_s() + self.change, zeros, zeros)


def path(pipe, call, loss=None):
    """The latents after every step."""
    seen = []

    def note(pipe, index, timestep, given):
        seen.append(given["latents"].double())
        return given

    call = call | {"callback_on_step_end": note, "output_type": "latent"}
    if loss is None:
        draw(pipe, call)
    else:
        with sg.guide(pipe, loss=loss):
            draw(pipe, call)
    return seen


def constant(pipe, value):
    """The network says the same everywhere."""
    pipe.unet.forward = lambda x, *args, **kwargs: (torch.full_like(x, value),)


@pytest.mark.parametrize("name", ["ddim", "dpm++ 2m", "dpm++ 2m karras", "dpm++ single", "unipc"])
def test_a_change_fades_with_sigma_where_the_clean_estimate_is_a_constant(name, folder):
    """With x_0 = c everywhere, x_s = alpha_s c + (sigma_s / sigma_t) (x_t - alpha_t c): whatever a scheduler stores."""
    kind, settings = SCHEDULERS[name]
    pipe, call = build("sd", folder)
    pipe.scheduler = getattr(diffusers, kind)(**settings | {"prediction_type": "sample"})
    constant(pipe, 0.3)
    call["num_inference_steps"] = 8
    for at in range(6):
        plain, moved = path(pipe, call), path(pipe, call, Nudge(at, 1.0))
        times = sg.pipelines.levels.levels(pipe.scheduler).times(pipe.scheduler)
        sigma = [sg.pipelines.levels.levels(pipe.scheduler).schedule.sigma(t) for t in times]
        for k, (a, b) in enumerate(zip(plain, moved, strict=True)):
            expected = sigma[k + 1] / sigma[at + 1] if k >= at else 0.0
            assert torch.allclose(b - a, torch.tensor(expected, dtype=torch.float64), atol=2e-3)


@pytest.mark.parametrize("name", ["ddim", "euler", "heun", "lms", "pndm", "deis"])
def test_a_change_keeps_its_share_of_the_signal_where_no_noise_is_seen(name, folder):
    """With eps = 0 everywhere, x_s = (alpha_s / alpha_t) x_t: whatever a scheduler stores."""
    pipe, call = scheduled(name, folder)
    constant(pipe, 0.0)
    known = sg.pipelines.levels.levels(pipe.scheduler)
    for at in range(4):
        plain, moved = path(pipe, call), path(pipe, call, Nudge(at, 1.0))
        change = [b - a for a, b in zip(plain, moved, strict=True)]
        steps = len(plain)
        assert max(c.abs().max() for c in change[: steps * at // 6]) == 0 if at else True
        last = change[-1]
        assert torch.allclose(last, last.flatten()[0].expand_as(last), atol=1e-3) and last.abs().min() > 0.5
        assert known.exploded or last.mean() >= 1.0 - 1e-3


@pytest.mark.parametrize("name", STOCHASTIC)
def test_the_sphere_has_the_schedulers_own_radius(name, folder):
    pipe, call = scheduled(name, folder)
    call["eta"] = 0.3  # the pipeline's default for TCD is none
    lengths = []

    class Watches(sg.SAG):
        def guide(self, step):
            guided = super().guide(step)
            if guided is not None and step.std > 0:
                d = step.x[0].numel()
                lengths.append((guided.x_s - step.mean()).norm() / (d**0.5 * step.std))
            return guided

    with sg.guide(pipe, loss=Watches(bright, n=1, constraint=sg.Sphere(0.2))):
        draw(pipe, call)
    assert len(lengths) == 5 and all(abs(length - 1) < 1e-3 for length in lengths)


def test_a_sphere_needs_a_noisy_scheduler(folder):
    pipe, call = scheduled("dpm++ 2m", folder)
    with pytest.raises(sg.GuidanceError, match="stochastic step"), sg.guide(pipe, loss=sg.DSG(bright)):
        draw(pipe, call)


@pytest.mark.parametrize("name", ["ddim", "unipc", "dpm++ 2m", "euler-ancestral"])
def test_time_travel_leaves_the_histories_in_order(name, folder):
    pipe, call = scheduled(name, folder)
    with sg.guide(pipe, loss=sg.SAG(bright, n=2, scale=0.1, repeats=2)) as run:
        guided = draw(pipe, call)
    assert torch.isfinite(guided).all() and len(run.trace) == 6
    index = getattr(pipe.scheduler, "step_index", None)
    assert index in (None, 6)


def test_what_cannot_be_guided_says_so(folder):
    pipe, _ = build("sd", folder)
    pipe.scheduler = diffusers.UnCLIPScheduler()
    with pytest.raises(ConfigError, match="UnCLIPScheduler"), sg.guide(pipe, loss=sg.SAG(bright)):
        pass
    pipe.scheduler = diffusers.PNDMScheduler(**BETAS)
    with pytest.raises(ConfigError, match="skip_prk_steps=True"), sg.guide(pipe, loss=sg.SAG(bright)):
        pass
    with pytest.raises(ConfigError, match="takes a recipe"), sg.guide(pipe, loss=bright):
        pass
    with pytest.raises(ConfigError, match="has none"), sg.guide(object(), loss=sg.SAG(bright)):
        pass


def test_everything_is_put_back_after_an_error(folder):
    pipe, call = build("sd", folder)
    plain = draw(pipe, call)
    before = [p.requires_grad for p in pipe.unet.parameters()]

    def broken(x0):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"), sg.guide(pipe, loss=sg.SAG(broken)):
        draw(pipe, call)
    assert "step" not in vars(pipe.scheduler) and "set_timesteps" not in vars(pipe.scheduler)
    assert not pipe.unet._forward_hooks and [p.requires_grad for p in pipe.unet.parameters()] == before
    assert torch.equal(draw(pipe, call), plain)


class Estimates(sg.SAG):
    """Remembers the clean estimates of all steps."""

    def __init__(self):
        super().__init__(bright, n=1, scale=0.3)
        self.seen = []

    def guide(self, step):
        self.seen.append(step.prediction.x0)
        return super().guide(step)


@pytest.mark.parametrize("predicts", ["epsilon", "sample", "flow_prediction"])
@pytest.mark.parametrize("kind", ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler"])
def test_flow_sigmas_are_of_what_the_network_predicts(kind, predicts, folder):
    """diffusers' default is epsilon. The clean estimate is the scheduler's own."""
    pipe, call = build("sd", folder)
    pipe.scheduler = getattr(diffusers, kind)(use_flow_sigmas=True, prediction_type=predicts, flow_shift=3.0)
    stock, theirs, recipe = pipe.scheduler.convert_model_output, [], Estimates()

    def convert(*args, **kwargs):
        theirs.append(stock(*args, **kwargs))
        return theirs[-1]

    pipe.scheduler.convert_model_output = convert
    with sg.guide(pipe, loss=recipe):
        draw(pipe, call)
    for ours, expected in zip(recipe.seen, theirs, strict=True):
        assert (ours - expected).norm() < 1e-3 * expected.norm()


def test_velocities_on_flow_sigmas_are_refused(folder):
    pipe, _ = build("sd", folder)
    pipe.scheduler = diffusers.UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="v_prediction")
    with pytest.raises(ConfigError, match="flows are of prediction_type"), sg.guide(pipe, loss=sg.SAG(bright)):
        pass


def test_one_step_at_timestep_0(folder):
    """All clocks agree there, and all are right."""
    pipe, call = build("sd", folder)
    pipe.scheduler = diffusers.DDIMScheduler(**BETAS, clip_sample=False, timestep_spacing="leading", steps_offset=0)
    plain = draw(pipe, call | {"num_inference_steps": 1})
    with sg.guide(pipe, loss=sg.DPS(bright, scale=0.3)):
        assert not torch.equal(draw(pipe, call | {"num_inference_steps": 1}), plain)
    with (
        pytest.raises(ConfigError, match="or a recipe that guides the last one, such as MPGD or DPS"),
        sg.guide(pipe, loss=sg.DSG(bright)),
    ):
        draw(pipe, call | {"num_inference_steps": 1})
