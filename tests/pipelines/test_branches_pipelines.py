"""Rules that ask pipelines for branches: perturbed attention against diffusers' own pipelines of it, and the rest."""

import copy
import threading
from contextlib import nullcontext

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
from zoo import FAMILIES, NEGATIVE, PROMPT, bright, build, built, double, draw
from zoo_more import MORE

import symguide as sg
from symguide.branch import Branch, Rule
from symguide.edits import Edit, skipped
from symguide.errors import ConfigError
from symguide.integrations import text_condition
from symguide.pipelines.levels import levels
from symguide.pipelines.modules import networks

DTYPE = torch.float32
ATTENTIONS = "mid_block.attentions.*.transformer_blocks.*.attn1"
PEERS = {"sd": "StableDiffusionPAGPipeline", "sdxl": "StableDiffusionXLPAGPipeline"}


@pytest.fixture
def counted():
    """The rows that a network is called with, and a hook that counts them."""
    rows = []

    def count(network):
        return network.register_forward_pre_hook(lambda m, args, kwargs: rows.append(len(args[0])), with_kwargs=True)

    return rows, count


@pytest.mark.parametrize("scale", [0.0, 5.0], ids=["pag", "cfg and pag"])
@pytest.mark.parametrize("family", PEERS)
def test_perturbed_attention_is_diffusers_own(family, scale, folder, counted):
    """On the same weights and noise, and for as many calls; in a batch of two passes one more looks at them apart."""
    rows, count = counted
    pipe, call = build(family, folder)
    call |= {"guidance_scale": scale, "num_inference_steps": 4, "output_type": "latent"}
    peer = getattr(diffusers, PEERS[family])(**pipe.components, pag_applied_layers=["mid"])
    handle = count(pipe.unet)
    expected = draw(peer, call | {"pag_scale": 2.5})
    theirs, rows[:] = sum(rows), []
    peer.unet.set_attn_processor(diffusers.models.attention_processor.AttnProcessor2_0())
    rule = sg.PAG(ATTENTIONS, 2.5) if scale == 0 else sg.chain(sg.CFG(scale), sg.PAG(ATTENTIONS, 2.5))
    before = dict(pipe.unet.attn_processors)
    with sg.guide(pipe, prediction=rule) as run:
        got = draw(pipe, call)
    handle.remove()
    assert torch.allclose(got, expected, rtol=1e-3, atol=1e-3)
    plain = draw(pipe, call)
    assert (plain - expected).norm() > 30 * (got - expected).norm()
    assert sum(rows) == run.cost.forward_calls == theirs + (scale > 0)
    assert before == pipe.unet.attn_processors and not any(m._forward_hooks for m in pipe.unet.modules())


def peers_estimate(pipe, scale):
    """The clean estimate of PAG alone at (x, t) by a copy of the network with diffusers' own processors."""
    peer = diffusers.StableDiffusionPAGPipeline(
        **{**pipe.components, "unet": copy.deepcopy(pipe.unet)},
        pag_applied_layers=["mid"],
        requires_safety_checker=False,
    )
    peer._set_pag_attn_processor(["mid"], do_classifier_free_guidance=False)
    text = pipe.encode_prompt(PROMPT, "cpu", 1, False)[0].detach()

    def estimate(x, t):
        alpha = pipe.scheduler.alphas_cumprod[t].to(x)
        c, k = peer.unet(torch.cat([x, x]), t, encoder_hidden_states=torch.cat([text, text])).sample.chunk(2)
        return (x - (1 - alpha).sqrt() * (c + scale * (c - k))) / alpha.sqrt()

    return estimate


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("memory", ["minimal", "fast", 0])
def test_the_gradient_is_exact(memory, checkpoint, folder):
    pipe, call = build("sd", folder)
    double(pipe)
    estimate, errors = peers_estimate(pipe, 2.0), []

    class Compares(sg.SAG):
        def guide(self, step):
            t = int(pipe.scheduler.timesteps[step.index])
            with torch.enable_grad():
                leaf = step.x.clone().requires_grad_()
                expected = torch.autograd.grad(bright(estimate(leaf, t)).sum(), leaf)[0]
            got = step.lookahead_gradient(bright, 1, memory=memory)[0]
            errors.append(((got - expected).norm() / expected.norm()).item())
            return super().guide(step)

    call |= {"guidance_scale": 1.0, "output_type": "latent"}
    recipe = Compares(bright, n=2, memory=memory, scale=0.1)
    with sg.guide(pipe, prediction=sg.PAG(ATTENTIONS, 2.0), loss=recipe, decode=False, checkpoint=checkpoint):
        draw(pipe, call)
    assert len(errors) == 3 and max(errors) < 1e-7  # x_t is float64, and what the scheduler knows of alpha float32
    assert not any(m._forward_hooks for m in pipe.unet.modules())


@pytest.mark.parametrize("memory", ["minimal", "fast"])
def test_what_it_costs_with_loss_guidance(memory, folder, counted):
    """The pipeline's own passes are not made again, but where the gradient needs them."""
    rows, count = counted
    pipe, call = build("sd", folder)
    handle = count(pipe.unet)
    rule = sg.chain(sg.CFG(4.0), sg.PAG(ATTENTIONS, 2.0))
    with sg.guide(pipe, prediction=rule, loss=sg.SAG(bright, n=2, memory=memory, scale=0.1), decode=False) as run:
        draw(pipe, call)
    handle.remove()
    assert sum(rows) == run.cost.forward_calls
    guided, first = 2, 2 * 3 if memory == "minimal" else 3 + 1  # where the pipeline made a graph, k is made again alone
    assert run.cost.forward_calls == 3 * 3 + 1 + guided * 3 + first and run.cost.backward_calls == guided * 2 * 3


def test_our_loop_draws_the_same_with_any_rule(folder):
    """Momentum, a weaker network, an interval and a rule that asks twice, against `sample` with the same network."""
    pipe, call = build("sd", folder)
    torch.manual_seed(5)
    weak = copy.deepcopy(pipe.unet)
    with torch.no_grad():
        for weight in weak.parameters():
            weight += 0.02 * torch.randn_like(weight)
    start = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    call |= {"prompt": [PROMPT] * 2, "negative_prompt": [NEGATIVE] * 2, "latents": start, "output_type": "latent"}
    denoiser = sg.from_diffusers(pipe, null=text_condition(pipe, NEGATIVE))
    known = levels(pipe.scheduler)
    pipe.scheduler.set_timesteps(3)
    times = known.times(pipe.scheduler)
    told = {"start": known.ours(start, times[0]), "steps": 3, "eta": 0.0, "grid": lambda schedule, t, steps: times}
    told["condition"] = text_condition(pipe, [PROMPT] * 2)
    auto = sg.Autoguidance(sg.from_diffusers(weak, pipe.scheduler), 2.0)
    level = denoiser.schedule.ratio(times[1])
    for rule in (
        sg.APG(8.0, momentum=-0.5),
        auto,
        sg.Interval(sg.CFG(5.0), 0.0, level),
        Twice(),
        sg.chain(sg.CFG(3.0), auto),
    ):
        expected = sg.sample(denoiser, prediction=rule, **told).samples
        with sg.guide(pipe, prediction=rule) as run:
            got = draw(pipe, call)
        torch.testing.assert_close(got, expected, rtol=2e-3, atol=2e-3)
        assert run.trace[0].forward_calls >= 2
    assert not any(weight.grad is not None for weight in weak.parameters())


class Twice(Rule):
    def calls(self, at):
        c = (yield {"c": Branch()})["c"]
        schedule = at.denoiser.schedule
        blurred = torch.nn.functional.avg_pool2d(c.x0, 3, 1, 1)
        k = (yield {"k": Branch(x=schedule.alpha(at.t) * blurred + schedule.sigma(at.t) * c.eps)})["k"]
        return c.with_value(c.value + 0.5 * (c.value - k.value))


class Asks(Rule):
    def __init__(self, branch):
        self.branch = branch

    def calls(self, at):
        return (yield {"c": Branch(), "k": self.branch})["k"]


@pytest.mark.parametrize(
    "branch, why",
    [
        (Branch({"label": 3}), "a negative prompt is an argument of its call"),
        (Branch(timestep=3.0), "which is not known how in a pipeline"),
        (Branch(model=sg.GaussianDenoiser(torch.zeros(2), torch.eye(2))), "take one of the same schedule"),
        (Branch(edit=skipped("no.such")), "names no module of UNet2DConditionModel, which has"),
        (Branch(edit=skipped("down_blocks.0")), "gives a tuple for a batch of"),
    ],
)
def test_what_pipelines_have_no_place_for(branch, why, folder):
    pipe, call = build("sd", folder)
    with pytest.raises((ConfigError, sg.GuidanceError), match=why), sg.guide(pipe, prediction=Asks(branch)):
        draw(pipe, call)
    assert not any(m._forward_hooks for m in pipe.unet.modules())


def test_attentions_that_are_not_known_are_refused(folder):
    pipe, call = build("sd3", folder)
    rule = sg.PAG("transformer_blocks.0.attn")
    with pytest.raises(sg.GuidanceError, match="attn"), sg.guide(pipe, prediction=rule):
        draw(pipe, call)
    pipe, call = build("sd", folder)
    rule = sg.PAG(ATTENTIONS[:-1] + "2")
    with pytest.raises(sg.GuidanceError, match="tokens attend to others in"), sg.guide(pipe, prediction=rule):
        draw(pipe, call)


def test_a_pass_of_a_batch_that_says_something_else_alone_is_found_out(folder):
    """Here the network subtracts the batch's mean."""
    pipe, call = build("sd", folder)
    pipe.unet.conv_out.register_forward_hook(lambda m, given, made: made - made.mean(dim=0, keepdim=True))
    rule = sg.chain(sg.CFG(4.0), sg.PAG(ATTENTIONS, 2.0))
    with pytest.raises(sg.GuidanceError, match="said something else"), sg.guide(pipe, prediction=rule):
        draw(pipe, call)


def test_diffusers_own_checkpoints_are_refused_where_they_would_forget_an_edit(folder):
    pipe, call = build("sd", folder)
    pipe.unet.enable_gradient_checkpointing()
    pipe.unet.train()
    told = {"prediction": sg.PAG(ATTENTIONS), "loss": sg.SAG(bright, n=2, scale=0.1), "decode": False}
    with pytest.raises(sg.GuidanceError, match=r"use symguide\.checkpointed or guide"), sg.guide(pipe, **told):
        draw(pipe, call)


@pytest.mark.parametrize("family", ["dit", "sd-controlnet", "wan", "flux-cfg"])
def test_an_edit_in_other_families(family, folder):
    """Passes in one batch with and without helpers, and in calls of their own: what is edited away changes the rest."""
    make, call = (FAMILIES | MORE)[family]
    pipe = built(make, folder)
    network = networks(pipe)[0]
    last = [
        name for name, m in network.named_modules() if type(m).__name__ in ("BasicTransformerBlock", "FeedForward")
    ][-1]

    class Changed(Rule):
        def __init__(self, by):
            self.edit = Edit(last, lambda made, part: made * by)

        def calls(self, at):
            return (yield {"c": Branch(), "k": Branch(edit=self.edit)})["k"]

    with sg.guide(pipe, prediction=sg.chain(sg.CFG(1.0))):
        plain = draw(pipe, call)
    with sg.guide(pipe, prediction=Changed(1.0)):
        same = draw(pipe, call)
    with sg.guide(pipe, prediction=Changed(-5.0)):
        other = draw(pipe, call)
    gap = (same.double() - plain.double()).norm()
    assert gap < 1e-3 * plain.double().norm() and (other.double() - plain.double()).norm() > 20 * gap


def test_threads_of_one_network_do_not_see_each_others_edits(folder):
    """One draws with perturbed attention, one with the same and loss guidance, one without anything."""
    first, call = build("sd", folder)
    seen = first.encode_prompt(PROMPT, "cpu", 1, False)[0].detach()
    call = {"prompt_embeds": seen, "guidance_scale": 1.0, "num_inference_steps": 3, "height": 32, "width": 32}
    jobs = {
        "plain": None,
        "pag": {"prediction": sg.PAG(ATTENTIONS, 3.0)},
        "both": {"prediction": sg.PAG(ATTENTIONS, 3.0), "loss": sg.SAG(bright, n=2, scale=0.1)},
    }
    pipes = {}
    for name in jobs:
        scheduler = diffusers.DDIMScheduler.from_config(first.scheduler.config)
        parts = {**first.components, "scheduler": scheduler}
        pipes[name] = diffusers.StableDiffusionPipeline(**parts, requires_safety_checker=False)
        pipes[name].set_progress_bar_config(disable=True)

    def drawn(name):
        told = jobs[name]
        with nullcontext() if told is None else sg.guide(pipes[name], decode=False, **told):
            return draw(pipes[name], call | {"output_type": "latent"})

    alone, wrong = {name: drawn(name) for name in jobs}, []

    def job(name):
        wrong.extend(name for _ in range(3) if not torch.allclose(drawn(name), alone[name], atol=1e-5))

    threads = [threading.Thread(target=job, args=(name,)) for name in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and not any(m._forward_hooks for m in first.unet.modules())
    assert not torch.allclose(alone["plain"], alone["pag"], atol=1e-2)
