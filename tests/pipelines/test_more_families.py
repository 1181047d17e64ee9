"""guide on further kinds of diffusers pipelines: off is off and the gradient exact, or they are refused."""

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
from gradients import Looks, own_gradient
from zoo import (
    FAMILIES,
    TEXT,
    animatediff,
    autoencoder,
    bright,
    build,
    built,
    control,
    double,
    draw,
    picture,
    pixels,
    sd,
)
from zoo_more import EMBEDDED, MORE, NEW, WORDS, ltx2, parts

import symguide as sg
from symguide.pipelines.calls import RecordedCall
from symguide.pipelines.decode import decoder
from symguide.pipelines.earlier import Earlier, clocks
from symguide.pipelines.layout import layout
from symguide.pipelines.replay import Replay
from symguide.pipelines.slots import told_in

DTYPE = torch.float32
KINDS = {
    "sd-controlnet-guess": "a network that is shown half of the rows",
    "sd-pix2pix": "three branches",
    "sd-t2i-adapter": "lists that the network empties",
    "sd-upscale": "labels and channels beside the latents",
    "sd-pag": "two branches and an altered one",
    "lumina2": "a clock that runs backwards, norms along the last axis",
    "cogview4": "timesteps that are not shifted as the noise levels are",
    "qwenimage": "norms along the last axis of tokens",
    "flux2-klein": "tokens that the autoencoder keeps means of",
    "z-image": "latents in a list, with the sign turned",
    "flux-fill": "channels beside packed latents",
    "flux-kontext": "tokens of a reference behind the latents",
}
"""One family of each kind, and what is its own; all classes are in `every/` (make test-pipelines)."""
COARSE = 1e-2
"""Of central differences: many of these transformers compute in float32 inside."""


@pytest.mark.parametrize("family", KINDS)
def test_the_gradient_is_exact_and_looking_changes_nothing(family, folder):
    if not hasattr(diffusers, NEW.get(family, "DiffusionPipeline")):
        pytest.skip(f"this diffusers has no {NEW[family]}")
    make, call = MORE[family]
    pipe = built(make, folder)
    double(pipe)
    call = {key: doubled(value) for key, value in call.items()}
    plain = drawn(pipe, call)
    recipe = Looks(bright, 1, 2)
    with sg.guide(pipe, loss=recipe):
        assert torch.equal(drawn(pipe, call), plain)
    (got, error), (_, further) = recipe.seen
    assert (error < COARSE).all() and (further < COARSE).all()
    torch.manual_seed(0)
    expected = own_gradient(pipe, call)
    assert (got - expected).norm() < 1e-6 * expected.norm()


def drawn(pipe, call):
    torch.manual_seed(0)  # some encode their pictures at random, and ask no generator
    return draw(pipe, call)


def doubled(value):
    if isinstance(value, list):
        return [doubled(one) for one in value]
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def learned_variance(folder):
    pipe = pixels(folder, "DDPM")
    pipe.register_modules(
        unet=diffusers.UNet2DModel(**{**pipe.unet.config, "out_channels": 6}).eval(),
        scheduler=diffusers.DDPMScheduler(variance_type="learned_range", clip_sample=False),
    )
    return pipe


def dropout(folder):
    pipe = sd(folder, network={"dropout": 0.5})
    pipe.unet.train()
    return pipe


def doubled_control(folder):
    """What the ControlNet returns is changed on its way to the U-Net."""

    def double(unet, args, kwargs):
        kwargs["mid_block_additional_residual"] = 2 * kwargs["mid_block_additional_residual"]
        return args, kwargs

    pipe = sd(folder, "StableDiffusionControlNetPipeline", controlnet=control())
    pipe.unet.register_forward_pre_hook(double, with_kwargs=True)
    return pipe


def animated_control(folder):
    return parts(animatediff(folder), "AnimateDiffControlNetPipeline", controlnet=control())


REFUSED = {
    "learned variance": (
        learned_variance,
        FAMILIES["ddpm"][1],
        "networks that also predict variances for their scheduler cannot be guided",
    ),
    "dropout": (dropout, TEXT, "called again with what the pipeline gave it, said something else: it is random"),
    "changed control": (
        doubled_control,
        {**TEXT, "image": picture()},
        "what ControlNetModel returned was changed before UNet2DConditionModel was given it",
    ),
    "control of frames": (
        animated_control,
        {**TEXT, "num_frames": 4, "conditioning_frames": [picture()] * 4},
        "ControlNetModel was not called with the latents that the scheduler is given and a timestep",
    ),
}
"""Pipelines that cannot be guided, and what guide says of them."""


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_guided_is_refused_in_a_sentence(name, folder):
    make, call, why = REFUSED[name]
    pipe = built(make, folder)
    with pytest.raises((sg.ConfigError, sg.GuidanceError), match=why), sg.guide(pipe, loss=sg.SAG(bright, n=2)):
        draw(pipe, call)


def test_latents_that_do_not_come_out_as_the_autoencoders_are_refused():
    pipe, vae = SimpleNamespace(components={}), autoencoder()
    plain = SimpleNamespace(kwargs={})
    assert layout(pipe, vae, plain)(torch.zeros(1, 4, 8, 8)).shape == (1, 4, 8, 8)
    ids = torch.cartesian_prod(torch.zeros(1), torch.arange(4.0), torch.arange(2.0))
    assert layout(pipe, vae, SimpleNamespace(kwargs={"img_ids": ids}))(torch.zeros(1, 8, 16)).shape == (1, 4, 8, 4)
    for shape, given in [((1, 16, 8, 8), {}), ((1, 8, 16), {}), ((1, 7, 16), {"img_ids": ids}), ((1, 8, 4, 8, 8), {})]:
        with pytest.raises(sg.ConfigError, match="does not know how SimpleNamespace lays out its latents"):
            layout(pipe, vae, SimpleNamespace(kwargs=given))(torch.zeros(shape))
    with pytest.raises(sg.ConfigError, match="does not know how SimpleNamespace decodes with its AutoencoderKL"):
        decoder(SimpleNamespace(components={"vqgan": vae}), [], False)


def test_timesteps_that_networks_are_told():
    """Zeros are places without noise; at t = 500 two clocks agree, which matters where another time is asked for."""
    assert told_in(torch.tensor([[0.0, 0.9], [0.9, 0.9]])) == pytest.approx(0.9)
    with pytest.raises(sg.GuidanceError, match="different timesteps for parts of a sample"):
        told_in(torch.tensor([0.5, 0.9]))

    def replay(told, known=None, timestep=500.0, **more):
        network, x = torch.nn.Identity(), torch.randn(1, 2)
        given = told if isinstance(told, torch.Tensor) else torch.tensor([told])
        return Replay([RecordedCall(network, (x, given), more, x)], x, timestep, Earlier(known or clocks(1000.0)))

    def told(replayed, timestep):
        return replayed._clocked(replayed.calls[0], replayed.slots[0], timestep).tolist()

    assert replay(500.0).clocks == ((0.0, 1.0),) and replay(0.5, ((1.0, -1e-3),)).clocks == ((1.0, -1e-3),)
    assert told(replay(999.0, timestep=1000.0), 500.0) == [499.0]  # GLM-Image's, which a tolerance took for t
    both = replay(0.5)
    assert both.clocks == ((0.0, 1e-3), (1.0, -1e-3)) and told(both, 500.0) == [0.5]  # either is right here
    with pytest.raises(sg.GuidanceError, match="begin at another one"):
        told(both, 300.0)
    with pytest.raises(sg.GuidanceError, match=r"was told 0\.3 for the scheduler's timestep 500"):
        replay(0.3)
    with pytest.raises(sg.GuidanceError, match=r"was told 0\.3 for the scheduler's timestep 500"):
        replay(0.3, ((0.0, 1e-3),))
    assert told(replay(torch.tensor([1.0], dtype=torch.bfloat16), clocks(1.0), 1.0), 0.5) == [0.5]  # AceStep's
    assert replay(torch.tensor([0]), timestep=0.0).clocks == ((0.0, 1.0),)  # thousandths are no integers
    later = Earlier(clocks(1000.0))
    assert len(later.tell(torch.tensor([0.5]), 500.0)) == 2 and later.tell(torch.tensor([0.4]), 400.0) == ((0.0, 1e-3),)
    replayed = replay(0.9, timestep=900.0)
    assert told(replayed, 300.0) == pytest.approx([0.3])


def test_calls_of_before_a_run_do_not_count(folder):
    pipe, call = build("sd", folder)
    with sg.guide(pipe, loss=sg.SAG(bright, n=2, scale=0.3)):
        expected = draw(pipe, call)
        pipe.unet(torch.randn(1, 4, 16, 16), 3, torch.randn(1, 77, 32))  # of a run that was broken off, say
        assert torch.equal(draw(pipe, call), expected)


def test_sight_with_sound_is_guided_by_its_own_defaults_one_call_ahead(folder):
    """LTX-2 sums four passes as clean estimates and rescales them; further ahead, its sound is not known."""
    if not hasattr(diffusers, "LTX2Pipeline"):
        pytest.skip("this diffusers has no LTX2Pipeline")
    pipe, recipe = built(ltx2, folder), Looks(bright, 1)
    double(pipe)
    call = EMBEDDED | WORDS | {"num_frames": 5, "num_inference_steps": 2, "spatio_temporal_guidance_blocks": [0]}
    with sg.guide(pipe, loss=recipe):
        draw(pipe, {key: doubled(value) for key, value in call.items()})
    assert (recipe.seen[0][1] < COARSE).all()
    with (
        pytest.raises(sg.GuidanceError, match="also given audio_hidden_states, which changes with time"),
        sg.guide(pipe, loss=sg.SAG(bright, n=2)),
    ):
        draw(pipe, {key: doubled(value) for key, value in call.items()})
