"""A recipe inside a pipeline does what it does in our loop, step by step, and costs what it costs there."""

import pytest
import torch
from cases import RECIPES

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
from zoo import BETAS, NEGATIVE, PROMPT, bright, build, draw

import symguide as sg
from symguide.integrations import text_condition
from symguide.pipelines.levels import levels

DTYPE = torch.float32
NOISY = [name for name in RECIPES if "sphere" in name or name in ("dsg", "classifier-mean")]
GRAPH_OF_FIRST = (
    *("sag-first", "sag-n-of-t", "freedom", "dps", "universal", "lgd", "tfg"),
    *("adam-dps", "adam-dps-repeats"),
)
"""Recipes that need the graph of the first call: a pipeline makes its first call without one."""
SCALED = ("sag", "sag-repeats", "freedom", "mpgd", "universal", "tfg", "abms", "classifier")
"""Recipes that are run in a scheduler with states of another scale too: one for each way that a step is changed."""
CASES = [(name, "DDIM") for name in RECIPES if name not in NOISY] + [(name, "EulerDiscrete") for name in SCALED]


@pytest.mark.parametrize("name, kind", CASES)
def test_deterministic_steps_are_those_of_our_loop(name, kind, folder):
    pipe, call = build("sd", folder)
    pipe.scheduler = getattr(diffusers, f"{kind}Scheduler")(**BETAS)
    if kind == "DDIM":
        pipe.scheduler.register_to_config(clip_sample=False)
    start = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    call |= {"prompt": [PROMPT] * 2, "negative_prompt": [NEGATIVE] * 2, "latents": start, "output_type": "latent"}
    with sg.guide(pipe, loss=RECIPES[name](bright), decode=False) as run:
        got = draw(pipe, call | {"num_inference_steps": 5})
    denoiser = sg.from_diffusers(pipe, null=text_condition(pipe, NEGATIVE))
    known = levels(pipe.scheduler)
    times = known.times(pipe.scheduler)
    expected = sg.sample(
        denoiser,
        start=known.ours(start * pipe.scheduler.init_noise_sigma, times[0]),
        steps=len(times) - 1,
        eta=0.0,
        grid=lambda schedule, t, steps: times,
        condition=text_condition(pipe, [PROMPT] * 2),
        prediction=sg.CFG(5.0),
        loss=RECIPES[name](bright),
    )
    torch.testing.assert_close(got, expected.samples, rtol=5e-3, atol=5e-3)
    again = (
        5 if name == "pigdm" else int(name in GRAPH_OF_FIRST)
    )  # a Jacobian's graph is read again, and made each time
    assert run.cost.forward_calls == expected.cost.forward_calls + 2 * again
    assert run.cost.backward_calls == expected.cost.backward_calls
    for mine, theirs in zip(run.trace, expected.trace, strict=True):
        assert (mine.loss is None) == (theirs.loss is None)
        assert mine.loss is None or torch.allclose(mine.loss, theirs.loss, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("name", NOISY)
def test_recipes_on_the_sphere_lower_the_loss(name, folder):
    pipe, call = build("sd", folder)
    call |= {"eta": 1.0, "num_inference_steps": 6, "output_type": "latent"}
    plain = draw(pipe, call)
    with sg.guide(pipe, loss=RECIPES[name](bright), decode=False) as run:
        guided = draw(pipe, call)
    assert bright(guided) < bright(plain) and run.trace[-1].loss is None


@pytest.mark.parametrize("kind, eta", [("DDIM", 1.0), ("DPMSolverMultistep", None)])
def test_alpha_s_of_a_moved_estimate_arrives(kind, eta, folder):
    """Whatever a scheduler makes of x_0, eps and the steps before: the latents after the one guided step say so."""
    pipe, call = build("sd", folder)
    pipe.scheduler = getattr(diffusers, f"{kind}Scheduler")(**BETAS)

    class Moves(sg.MPGD):
        def push(self, step):
            return super().push(step)._replace(x0=torch.full_like(step.x, 0.5))

    def third(loss):
        seen = []

        def look(pipe, i, t, kept):
            seen.append(kept["latents"].clone())
            return {}

        told = call | {"num_inference_steps": 5, "output_type": "latent", "callback_on_step_end": look}
        with sg.guide(pipe, loss=loss, decode=False):
            draw(pipe, told if eta is None else told | {"eta": eta})
        return seen[2]

    change = third(Moves(bright, window=(0.4, 0.5))) - third(Moves(bright, scale=0))
    alpha_s = pipe.scheduler.alphas_cumprod[pipe.scheduler.timesteps[3]].sqrt()
    torch.testing.assert_close(change, (0.5 * alpha_s).expand_as(change), rtol=1e-4, atol=1e-5)
