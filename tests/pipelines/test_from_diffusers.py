"""Denoisers made of diffusers' networks: our loop draws what the pipeline draws."""

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
from zoo import BETAS, NEGATIVE, PROMPT, SHORT, bright, build, draw

import symguide as sg
from symguide.errors import ConfigError
from symguide.integrations import text_condition
from symguide.pipelines.levels import levels

DTYPE = torch.float32


def drawn_by_us(pipe, denoiser, start, **settings):
    """Deterministic steps at the scheduler's own times, from its own first state."""
    known = levels(pipe.scheduler)
    times = known.times(pipe.scheduler)
    start = known.ours(start, times[0])
    grid = lambda schedule, t, steps: times  # noqa: E731
    return sg.sample(denoiser, start=start, steps=len(times) - 1, eta=0.0, grid=grid, **settings).samples


@pytest.mark.parametrize("family", ["sd", "sd-v", "sdxl", "sd3"])
def test_our_loop_draws_what_the_pipeline_draws(family, folder):
    """DDIM with eta 0 and Euler's method are one step of ours in other coordinates."""
    pipe, call = build(family.removesuffix("-v"), folder)
    if family == "sd-v":
        pipe.scheduler = diffusers.DDIMScheduler(**BETAS, prediction_type="v_prediction", clip_sample=False)
    short = SHORT if family == "sd3" else {}
    start = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    call |= {"prompt": [PROMPT] * 2, "negative_prompt": [NEGATIVE] * 2, "latents": start, "output_type": "latent"}
    expected = draw(pipe, call)
    denoiser = sg.from_diffusers(pipe, null=text_condition(pipe, NEGATIVE, (32, 32), **short))
    condition = text_condition(pipe, [PROMPT] * 2, (32, 32), **short)
    first = start * pipe.scheduler.init_noise_sigma if hasattr(pipe.scheduler, "init_noise_sigma") else start
    got = drawn_by_us(pipe, denoiser, first, condition=condition, prediction=sg.CFG(5.0))
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)
    assert denoiser.shape == (4, 16, 16)
    pictures = pipe.image_processor.postprocess(denoiser.decode(got), output_type="pt")
    assert torch.allclose(pictures, draw(pipe, call | {"output_type": "pt"}), atol=1e-3)


def test_a_network_alone_and_guidance(folder):
    pipe, _ = build("ddim", folder)
    denoiser = sg.from_diffusers(pipe.unet, pipe.scheduler)
    plain = sg.sample(denoiser, batch=2, steps=4).samples
    result = sg.sample(denoiser, batch=2, steps=4, loss=sg.SAG(bright, n=2, scale=0.3))
    assert denoiser.decoder is None and (bright(result.samples) < bright(plain)).all()
    assert result.cost.forward_calls == 3 * 3 + 1 and denoiser.shape == (3, 16, 16)


def test_flux_is_told_thousandths_and_constants(folder):
    pipe, call = build("flux", folder)
    told = []
    pipe.transformer.register_forward_pre_hook(
        lambda m, args, kwargs: told.append(kwargs["timestep"]), with_kwargs=True
    )
    start = torch.randn(1, 64, 16, generator=torch.Generator().manual_seed(0))
    expected = draw(pipe, call | {"latents": start, "output_type": "latent"})
    embeddings, pooled, text_ids = pipe.encode_prompt(PROMPT, PROMPT, max_sequence_length=16)
    ids = pipe._prepare_latent_image_ids(1, 8, 8, "cpu", torch.float32)
    denoiser = sg.from_diffusers(pipe, constant={"img_ids": ids, "txt_ids": text_ids, "guidance": None})
    condition = {"encoder_hidden_states": embeddings, "pooled_projections": pooled}
    first = list(told)
    told.clear()
    got = drawn_by_us(pipe, denoiser, start, condition=condition)
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(torch.stack(told).flatten(), torch.stack(first).flatten())
    assert denoiser.decode(got).shape == (1, 3, 32, 32)


def test_what_does_not_fit_says_so(folder):
    pipe, _ = build("sd-controlnet", folder)
    with pytest.raises(ConfigError, match="UNet2DConditionModel, ControlNetModel"):
        sg.from_diffusers(pipe)
    with pytest.raises(ConfigError, match="scheduler"):
        sg.from_diffusers(pipe.unet)
    with pytest.raises(ConfigError, match="no timestep"):
        sg.from_diffusers(pipe.vae, pipe.scheduler)
    with pytest.raises(ConfigError, match="encode_prompt"):
        text_condition(build("pixart", folder)[0], "a cat")
    unet = build("ddim", folder)[0].unet
    with pytest.raises(ConfigError, match="takes no caption"):
        sg.sample(sg.from_diffusers(unet, pipe.scheduler), condition={"caption": 1}, steps=2)
