"""Rules of ours in place of a pipeline's own classifier-free guidance."""

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
from zoo import BETAS, FAMILIES, NEGATIVE, PROMPT, bright, build, built, draw
from zoo_more import MORE, NEW

import symguide as sg
from symguide.errors import ConfigError
from symguide.integrations import text_condition
from symguide.pipelines.levels import levels

DTYPE = torch.float32
CONDITIONAL = [
    "sd",
    "sd-controlnet",
    "sdxl",
    "sd3",
    "flux-cfg",
    "dit",
    "pixart",
    "animatediff",
    "cogvideox",
    "ltx",
    "wan",
    "lumina2-plain",
    "z-image",
]


@pytest.mark.parametrize("family", CONDITIONAL)
def test_our_cfg_is_the_pipelines_own(family, folder):
    """Of the same scale; which of the passes has the condition is found; in the last two, they are negative."""
    if family in NEW and not hasattr(diffusers, NEW[family]):
        pytest.skip(f"this diffusers has no {NEW[family]}")
    make, call = (FAMILIES | MORE)[family]
    pipe = built(make, folder)
    scale = call.get("true_cfg_scale", call.get("guidance_scale")) + (family == "z-image")  # c + w (c - u)
    expected = draw(pipe, call)
    with sg.guide(pipe, prediction=sg.CFG(scale)) as run:
        got = draw(pipe, call)
    assert torch.allclose(got, expected, atol=2e-3 if expected.is_floating_point() else 1)
    assert run.cost.forward_calls == 2 * len(run.trace) and run.cost.backward_calls == 0


@pytest.mark.parametrize("scheduler", ["ddim", "euler", "flow"])
@pytest.mark.parametrize("rule", [sg.CFGPlusPlus(0.6), sg.APG(8.0), sg.CFG(3.0)], ids=["cfg++", "apg", "cfg"])
def test_a_pipeline_draws_what_our_loop_draws(rule, scheduler, folder):
    pipe, call = build("sd3" if scheduler == "flow" else "sd", folder)
    if scheduler == "euler":
        pipe.scheduler = diffusers.EulerDiscreteScheduler(**BETAS)
    start = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    call |= {"prompt": [PROMPT] * 2, "negative_prompt": [NEGATIVE] * 2, "latents": start, "output_type": "latent"}
    with sg.guide(pipe, prediction=rule):
        got = draw(pipe, call)
    short = {"max_sequence_length": 16} if scheduler == "flow" else {}
    denoiser = sg.from_diffusers(pipe, null=text_condition(pipe, NEGATIVE, **short))
    known = levels(pipe.scheduler)
    times = known.times(pipe.scheduler)
    expected = sg.sample(
        denoiser,
        start=known.ours(start * getattr(pipe.scheduler, "init_noise_sigma", 1.0), times[0]),
        steps=len(times) - 1,
        eta=0.0,
        grid=lambda schedule, t, steps: times,
        condition=text_condition(pipe, [PROMPT] * 2, **short),
        prediction=rule,
    ).samples
    torch.testing.assert_close(got, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    "scheduler", ["HeunDiscreteScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"]
)
def test_our_cfg_under_other_schedulers(scheduler, folder):
    pipe, call = build("sd", folder)
    pipe.scheduler = getattr(diffusers, scheduler)(**BETAS)
    expected = draw(pipe, call | {"num_inference_steps": 5})
    with sg.guide(pipe, prediction=sg.CFG(5.0)):
        assert torch.allclose(draw(pipe, call | {"num_inference_steps": 5}), expected, atol=2e-3)


def test_with_loss_guidance(folder):
    pipe, call = build("sd", folder)
    with sg.guide(pipe, prediction=sg.APG(8.0)):
        plain = draw(pipe, call)
    with sg.guide(pipe, prediction=sg.APG(8.0), loss=sg.SAG(bright, n=2, scale=0.3)) as run:
        guided = draw(pipe, call)
    assert bright(2 * guided - 1) < bright(2 * plain - 1)
    assert run.cost.forward_calls == 2 * (2 * 3 + 1) and run.cost.backward_calls == 2 * 2 * 2


def test_what_a_rule_needs(folder):
    pipe, call = build("sd-unguided", folder)
    with pytest.raises(sg.GuidanceError, match="guidance_scale above 1"), sg.guide(pipe, prediction=sg.CFG(5.0)):
        draw(pipe, call)
    with pytest.raises(ConfigError, match="takes a rule"), sg.guide(pipe, prediction=7.5):
        pass
    with pytest.raises(ConfigError, match="guide takes loss="), sg.guide(pipe):
        pass


@pytest.mark.parametrize("rows", [1, 2])
def test_a_norm_that_acts_now_and_then_is_refused_in_the_first_step(rows, folder):
    """Z-Image's cfg_normalization, for any batch; a rule of ours takes its place."""
    if not hasattr(diffusers, NEW["z-image"]):
        pytest.skip("this diffusers has no ZImagePipeline")
    make, call = MORE["z-image"]
    pipe, steps = built(make, folder), []
    call = call | {name: rows * call[name] for name in ("prompt_embeds", "negative_prompt_embeds")}
    call |= {"cfg_normalization": True, "callback_on_step_end": lambda *given: steps.append(given) or {}}
    with (
        pytest.raises(sg.GuidanceError, match="call it with cfg_normalization=False, or give guide a rule"),
        sg.guide(pipe, loss=sg.SAG(bright, n=2)),
    ):
        draw(pipe, call)
    assert not steps
    with sg.guide(pipe, prediction=sg.CFG(3.0)) as run:
        draw(pipe, call)
    assert run.trace[0].forward_calls == 2
