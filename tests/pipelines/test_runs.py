"""What arrives of a guided run, where it ends, and what is told of it."""

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
from zoo import BETAS, SHORT, bright, build, built, pixart, sd
from zoo_more import MORE, NEW, parts

import symguide as sg
from symguide.errors import ConfigError

DTYPE = torch.float32
LATENT = {"height": 32, "width": 32, "output_type": "latent"}


def lcm(folder):
    network = {"time_cond_proj_dim": 8}
    return parts(sd(folder, network=network), "LatentConsistencyModelPipeline", requires_safety_checker=False)


ONE_STEP = {
    "latent consistency": (lcm, "LCMScheduler", {"num_inference_steps": 2}),
    "pixart, one step": (pixart, "DDPMScheduler", {"timesteps": [400], "use_resolution_binning": False, **SHORT}),
}
"""Pipelines that take what their scheduler returns second."""


class Nudge(sg.SAG):
    """Moves the last step by a constant."""

    guides_last = True

    def guide(self, step):
        if step.index < step.run.steps - 1:
            return None
        zeros = torch.zeros(len(step.x))
        return sg.step.Guided(step.x_s() + 0.25, zeros, zeros)


@pytest.mark.parametrize("name", ONE_STEP)
def test_a_guided_last_step_arrives_whatever_the_pipeline_takes(name, folder):
    make, kind, call = ONE_STEP[name]
    pipe = built(make, folder)
    pipe.scheduler = getattr(diffusers, kind)(**BETAS)

    def draw(recipe=None):
        inputs = {"prompt": "w1", **LATENT, **call, "generator": torch.Generator().manual_seed(0)}
        if recipe is None:
            return pipe(**inputs).images
        with sg.guide(pipe, loss=recipe, decode=False):
            return pipe(**inputs).images

    plain = draw()
    assert torch.allclose(draw(Nudge(bright)), plain + 0.25, atol=1e-5)
    assert bright(draw(sg.MPGD(bright))) < bright(plain)
    assert torch.equal(draw(sg.MPGD(bright, scale=0.0)), plain)


@pytest.mark.parametrize("end, made", [(0.5, 4), (None, 8)])
def test_windows_are_of_the_steps_that_are_made(end, made, folder):
    """Stable Diffusion XL ends early where a refiner goes on; its last step then has noise left, and is guided too."""
    pipe, call = build("sdxl", folder)
    pipe.scheduler = diffusers.EulerDiscreteScheduler(**BETAS, timestep_spacing="trailing")
    call |= LATENT | {"num_inference_steps": 8, "denoising_end": end, "guidance_scale": 1.0}
    with sg.guide(pipe, loss=sg.SAG(bright, n=1, window=(0.5, 1.0)), decode=False) as run:
        pipe(**call, generator=torch.Generator().manual_seed(0))
    guided = [line.index for line in run.trace if line.loss is not None]
    assert len(run.trace) == made and guided == list(range(made // 2, made - (end is None)))
    assert (run.trace[-1].s > 0) == (end is not None)


def test_image_to_image_counts_the_steps_that_are_made(folder):
    pipe, call = build("sd-img2img", folder)
    call |= {"num_inference_steps": 8, "strength": 0.5, "output_type": "latent", "guidance_scale": 1.0}
    with sg.guide(pipe, loss=sg.SAG(bright, n=1, window=(0.5, 1.0)), decode=False) as run:
        pipe(**call, generator=torch.Generator().manual_seed(0))
    assert [line.loss is not None for line in run.trace] == [False, False, True, False]


def test_a_run_without_a_guided_step_says_so(folder):
    """At its end, or where it was interrupted before."""
    pipe = built(sd, folder)
    call = {"prompt": "w1", **LATENT, "num_inference_steps": 3}

    def never(step):
        return False

    with (
        pytest.raises(sg.GuidanceError, match="none of the 3 steps lies in the window"),
        sg.guide(pipe, loss=sg.SAG(bright, n=1, window=never), decode=False),
    ):
        pipe(**call)

    def stop(pipe, index, timestep, given):
        pipe._interrupt = index == 0
        return given

    with (
        pytest.warns(UserWarning, match="made 1 of 3 steps, and none of these lies in the window"),
        sg.guide(pipe, loss=sg.SAG(bright, n=1, window=(0.3, 1.0)), decode=False),
    ):
        pipe(**call, callback_on_step_end=stop)
    pipe._interrupt = False
    with pytest.raises(ConfigError, match="no step of 1 lies in the window"), sg.guide(pipe, loss=sg.SAG(bright)):
        pipe(**call | {"num_inference_steps": 1})


class Count:
    """Rows through a network, forward."""

    def __init__(self, network):
        self.rows = self.calls = 0
        network.register_forward_pre_hook(self.add, with_kwargs=True)

    def add(self, network, args, kwargs):
        first = args[0] if args else kwargs["hidden_states"]
        self.rows, self.calls = self.rows + len(first), self.calls + 1


def test_all_runs_of_a_call_are_told(folder):
    """FreeInit draws the video anew, from noise of which a part is kept."""
    pipe, call = build("animatediff", folder)
    pipe.enable_free_init(num_iters=2, method="gaussian")
    count = Count(pipe.unet)
    call |= LATENT | {"num_inference_steps": 2, "num_frames": 2, "guidance_scale": 1.0}
    with sg.guide(pipe, loss=sg.SAG(bright, n=2), decode=False) as run:
        pipe(**call, generator=torch.Generator().manual_seed(0))
    assert [len(one.trace) for one in run.runs] == [2, 2]
    assert [line.forward_calls for one in run.runs for line in one.trace] == [3, 1, 3, 1]
    assert run.total.forward_calls == 8 == count.calls and run.total.backward_calls == 4
    assert run.cost == run.runs[-1].cost and run.cost.forward_calls == 4 and run.trace is run.runs[-1].trace
    assert run.total.seconds == pytest.approx(sum(one.cost.seconds for one in run.runs))


LISTED = {"z-image": {"num_inference_steps": 4}}
SKIPPING = {
    "num_inference_steps": 5,
    "skip_guidance_layers": [0],
    "skip_layer_guidance_start": 0.1,
    "skip_layer_guidance_stop": 0.7,
}


@pytest.mark.parametrize("family", ["z-image", "sd3"])
def test_the_pipelines_own_calls_have_their_graphs(family, folder):
    """Where latents are a list, and where some steps make more calls than others: one step pays once more, the first."""
    if family == "z-image" and not hasattr(diffusers, NEW["z-image"]):
        pytest.skip("this diffusers has no Z-Image")
    if family == "z-image":
        make, call = MORE["z-image"]
        pipe, call = built(make, folder), dict(call) | LISTED["z-image"]
    else:
        pipe, call = build("sd3", folder)
        call |= LATENT | SKIPPING
    count = Count(pipe.transformer)

    def drawn(memory):
        count.calls = 0
        with sg.guide(pipe, loss=sg.SAG(bright, n=1, scale=0.3, memory=memory), decode=False) as run:
            out = next(iter(pipe(**call, generator=torch.Generator().manual_seed(0)).values()))
        return torch.stack(list(out)) if isinstance(out, list) else torch.as_tensor(out), count.calls, run

    count.calls = 0
    pipe(**call, generator=torch.Generator().manual_seed(0))
    own = count.calls
    kept, calls, run = drawn("minimal")
    assert calls == own + run.trace[0].forward_calls // 4
    again, more, _ = drawn(0)
    assert more > calls and torch.allclose(kept, again, atol=1e-4)
