"""Guider, our guider for Modular Diffusers: it does what `guide` does in the ordinary pipeline, and leaves nothing."""

import copy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from cases import RECIPES

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
from packaging.version import Version
from zoo import BETAS, NEGATIVE, PROMPT, bright, build, double, draw, picture

import symguide as sg
from symguide.errors import ConfigError
from symguide.pipelines import Guider
from symguide.pipelines.decode import decoder

if Version(diffusers.__version__) < Version("0.36"):
    pytest.skip("Modular Diffusers of 0.35 refuses components that it has not loaded itself", allow_module_level=True)

DTYPE = torch.float32
FAMILIES = {
    "sdxl": ("StableDiffusionXLAutoBlocks", "images", 1e-9),
    "sd3": ("StableDiffusion3AutoBlocks", "images", 1e-9),
    "ltx": ("LTXAutoBlocks", "videos", 1e-5),
    "wan": ("WanBlocks", "videos", 1e-5),
    "wan-two": ("Wan22Blocks", "videos", 1e-5),
}
"""Blocks and output by family, and how far round-off may carry two runs apart: the last three have float32 inside."""
EVERY = pytest.mark.parametrize("family", FAMILIES)


class Modular:
    """A modular pipeline of an ordinary one's components, and the arguments of a short run of it."""

    def __init__(self, family, folder, in_double=False, **given):
        self.ordinary, self.call = build(family, folder)
        self.call |= {"negative_prompt": NEGATIVE} | given
        if in_double:
            double(self.ordinary)
        name, self.output, self.close = FAMILIES[family]
        blocks = getattr(diffusers, name)()
        arguments = dict(self.call)
        if family.startswith("wan"):  # its text encoder's block wants ftfy
            texts = self.call["prompt"], self.call["negative_prompt"]
            embedded = self.ordinary.encode_prompt(*texts, max_sequence_length=self.call["max_sequence_length"])
            arguments |= dict(zip(("prompt_embeds", "negative_prompt_embeds"), embedded, strict=True))
            blocks.sub_blocks.pop("text_encoder")
        self.pipe = blocks.init_pipeline()
        for block in self._all(self.pipe._blocks):
            if hasattr(block, "set_progress_bar_config"):
                block.set_progress_bar_config(disable=True)
        own = {name: part for name, part in self.ordinary.components.items() if part is not None}
        self.pipe.update_components(**{name: part for name, part in own.items() if name in self.pipe._component_specs})
        if family == "wan-two":
            self.pipe.update_components(boundary_ratio=self.ordinary.config.boundary_ratio)
        self.arguments = {k: v for k, v in arguments.items() if k in self.pipe.default_call_parameters}
        self.cfg()

    def _all(self, block):
        yield block
        for inner in getattr(block, "sub_blocks", {}).values():
            yield from self._all(inner)

    def cfg(self, guidance_scale=5.0, **settings):
        """diffusers' own guider."""
        plain = diffusers.ClassifierFreeGuidance
        self.pipe.update_components(guider=plain(guidance_scale, **settings))
        if hasattr(self.pipe, "guider_2"):
            self.pipe.update_components(guider_2=plain(3.0, **settings))

    def guider(self, **settings):
        """Ours."""
        guider = Guider(self.pipe, **settings)
        self.pipe.update_components(guider=guider)
        if hasattr(self.pipe, "guider_2"):
            self.pipe.update_components(guider_2=guider.new(guidance_scale=3.0))
        return guider

    def draw(self, seed=0, **more):
        more = {"generator": torch.Generator().manual_seed(seed)} | more
        out = self.pipe(**self.arguments | more, output=self.output)
        return torch.stack(list(out)) if isinstance(out, list) else torch.as_tensor(out)

    def ordinarily(self, seed=0, **more):
        """What the ordinary pipeline draws."""
        more = {"generator": torch.Generator().manual_seed(seed)} | more
        out = next(iter(self.ordinary(**self.call | more).values()))
        return torch.stack(list(out)) if isinstance(out, list) else torch.as_tensor(out)

    def untouched(self):
        """Whether nothing of ours is on the pipeline."""
        scheduler = vars(self.pipe.scheduler)
        modules = [part for part in self.pipe.components.values() if isinstance(part, torch.nn.Module)]
        return (
            "step" not in scheduler
            and "set_timesteps" not in scheduler
            and not any(m._forward_hooks or "forward" in vars(m) for m in modules)
            and all(p.requires_grad for m in modules for p in m.parameters())
        )


def recipe(scale=0.3, objective=bright):
    return sg.SAG(objective, n=2, scale=scale)


def lines(record):
    """Losses and gradient norms of a run."""
    return [float(x) for line in record.trace if line.loss is not None for x in (line.loss, line.gradient_norm)]


@EVERY
def test_a_guided_run_is_that_of_the_ordinary_pipeline(family, folder):
    """guide, on the ordinary pipeline of the same components, finds its calls and their guidance in another way."""
    both = Modular(family, folder, in_double=True)
    more = {"guidance_scale_2": 3.0} if family == "wan-two" else {}
    with sg.guide(both.ordinary, loss=recipe(30.0)) as run:
        expected = both.ordinarily(**more)
    guider = both.guider(loss=recipe(30.0))
    got = both.draw()
    assert torch.allclose(got, expected, rtol=0, atol=both.close)
    assert lines(guider.record) == pytest.approx(lines(run), rel=max(both.close, 1e-9))
    assert len(lines(run)) == 4 and guider.record.cost.forward_calls == run.cost.forward_calls
    assert guider.record.cost.backward_calls == run.cost.backward_calls > 0
    both.cfg()
    assert not torch.allclose(both.draw(), got, rtol=0, atol=1e-2)


@EVERY
def test_scale_0_is_bit_identical_to_diffusers_guider(family, folder):
    made = Modular(family, folder)
    plain = made.draw()
    guider = made.guider(loss=recipe(0.0))
    assert torch.equal(made.draw(), plain) and guider.record.cost.backward_calls == 0
    assert len(guider.record.trace) == 3 and made.untouched()
    guider = made.guider(loss=recipe())
    guided = made.draw()
    assert not torch.equal(guided, plain) and guider.record.cost.backward_calls > 0
    assert torch.equal(made.draw(), guided) and made.untouched()
    made.cfg()
    assert torch.equal(made.draw(), plain)


@pytest.mark.parametrize("family", ["sdxl", "ltx", "wan-two"])
def test_guide_works_too_and_does_the_same(family, folder):
    made = Modular(family, folder)
    plain = made.draw()
    with sg.guide(made.pipe, loss=recipe()) as run:
        expected = made.draw()
    assert torch.equal(made.draw(), plain)
    guider = made.guider(loss=recipe())
    assert torch.equal(made.draw(), expected) and lines(guider.record) == lines(run)


@pytest.mark.parametrize("name", ["sag-sphere", "sag-repeats", "universal", "lgd", "dsg"])
def test_recipes_do_in_it_what_they_do_in_guide(name, folder):
    """Those that keep state from step to step, ask for the step's noise, go back in time or draw noise themselves."""
    made = Modular("sdxl", folder)
    made.pipe.update_components(scheduler=diffusers.EulerAncestralDiscreteScheduler(**BETAS))
    with sg.guide(made.pipe, loss=RECIPES[name](bright), seed=3):
        expected = made.draw()
    made.guider(loss=RECIPES[name](bright), seed=3)
    assert torch.equal(made.draw(), expected)


@pytest.mark.parametrize("kind", ["DPMSolverMultistep", "HeunDiscrete", "UniPCMultistep", "PNDM"])
def test_schedulers_with_a_history(kind, folder):
    """Of more than one call of step for a step, too: the run goes on from call to call."""
    made = Modular("sdxl", folder, num_inference_steps=5)
    settings = BETAS | ({"skip_prk_steps": True} if kind == "PNDM" else {})
    made.pipe.update_components(scheduler=getattr(diffusers, f"{kind}Scheduler")(**settings))
    with sg.guide(made.pipe, loss=recipe()) as run:
        expected = made.draw()
    guider = made.guider(loss=recipe())
    assert torch.equal(made.draw(), expected)
    assert lines(guider.record) == lines(run) and lines(run)
    assert made.untouched() and guider.guided.bridge is None


@pytest.mark.parametrize("settings", [{"guidance_rescale": 0.7}, {"guidance_scale": 1.0}, {"guidance_scale": 1.5}])
def test_settings_of_classifier_free_guidance(settings, folder):
    both = Modular("sdxl", folder, in_double=True, **settings)
    with sg.guide(both.ordinary, loss=recipe(3.0)):
        expected = both.ordinarily()
    guider = both.guider(loss=recipe(3.0), **settings)
    assert torch.allclose(both.draw(), expected, rtol=0, atol=1e-9)
    assert settings.items() <= dict(guider.config).items()


def test_the_original_formulation_of_a_scale_one_less(folder):
    made = Modular("sdxl", folder, in_double=True)
    for rescale in (0.0, 0.7):
        made.guider(loss=recipe(3.0), guidance_rescale=rescale)
        expected = made.draw()
        made.guider(loss=recipe(3.0), guidance_scale=4.0, use_original_formulation=True, guidance_rescale=rescale)
        assert torch.allclose(made.draw(), expected, rtol=0, atol=1e-9)


def test_classifier_free_guidance_for_a_while(folder):
    """start and stop are of it alone; the recipe has a window of its own."""
    made = Modular("sdxl", folder, num_inference_steps=4)
    made.cfg(start=0.25, stop=0.75)
    plain = made.draw()
    guider = made.guider(loss=recipe(0.0))  # start and stop are those of the present guider
    assert torch.equal(made.draw(), plain)
    assert [line.forward_calls for line in guider.record.trace] == [1, 2, 2, 1]
    guider = made.guider(loss=recipe())
    made.draw()
    assert len(lines(guider.record)) == 6


def test_a_rule_of_ours_in_place_of_classifier_free_guidance(folder):
    both = Modular("sdxl", folder, in_double=True)
    for rule in (sg.CFGPlusPlus(0.6), sg.APG(10.0)):
        with sg.guide(both.ordinary, prediction=rule, loss=recipe(3.0)):
            expected = both.ordinarily()
        both.guider(prediction=rule, loss=recipe(3.0))
        assert torch.allclose(both.draw(), expected, rtol=0, atol=1e-9)


def test_the_docs_example_runs_as_printed(folder):
    made = Modular("sdxl", folder)
    text = (Path(__file__).parents[2] / "docs" / "pipelines.md").read_text()
    code = text.split("## Modular Diffusers")[1].split("```python\n")[1].split("```")[0]
    parts = {name: part for name, part in made.ordinary.components.items() if part is not None}
    exec(code, parts | {"sg": sg, "diffusers": diffusers, "objective": bright}, given := {})
    assert len(given["images"]) == 1 and given["pipe"].guider.record.cost.backward_calls > 0


def test_image_to_image(folder):
    made = Modular("sdxl", folder)
    given = {"image": picture(), "strength": 0.8, "num_inference_steps": 4}
    plain = made.draw(**given)
    guider = made.guider(loss=recipe(0.0))
    assert torch.equal(made.draw(**given), plain) and len(guider.record.trace) == 3
    made.guider(loss=recipe())
    guided = made.draw(**given)
    assert (bright(2 * guided.float() - 1) < bright(2 * plain.float() - 1)).all()


def test_a_sample_is_the_same_alone_and_in_a_batch(folder):
    made = Modular("sdxl", folder, in_double=True)
    prompts = [PROMPT, "w3 a dog"]

    def drawn(which):
        made.guider(loss=sg.LGD(bright, samples=2, scale=3.0), seed=1, indices=which)
        texts = {"prompt": [prompts[i] for i in which], "negative_prompt": [NEGATIVE] * len(which)}
        return made.draw(**texts, generator=[torch.Generator().manual_seed(i) for i in which])

    together = drawn([0, 1])
    for i in range(2):
        assert torch.allclose(drawn([i])[0], together[i], rtol=0, atol=1e-9)


def failing(after, error):
    """An objective that fails at its last of so many calls."""
    calls = iter(range(after))

    def objective(x0):
        if next(calls) == after - 1:
            raise error
        return bright(x0)

    return objective


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_after_an_error_in_the_objective(error, folder):
    made = Modular("sdxl", folder)
    plain = made.draw()
    made.guider(loss=recipe(objective=failing(2, error("mine"))), checkpoint=True)
    with pytest.raises(error, match="mine"):
        made.draw()
    assert made.untouched() and not made.pipe.unet.is_gradient_checkpointing
    made.cfg()
    assert torch.equal(made.draw(), plain)


@pytest.mark.parametrize("at, error", [(1, ValueError), (1, KeyboardInterrupt), (3, ValueError)])
def test_nothing_is_left_after_an_error_in_the_network_and_the_next_run_is_whole(at, error, folder, monkeypatch):
    """In the second of the calls that the pipeline makes for a step, and in a look-ahead."""
    made = Modular("sdxl", folder)
    guider = made.guider(loss=recipe())
    expected = made.draw()
    block = made.pipe.unet.mid_block or made.pipe.unet.down_blocks[0]
    calls, stock = iter(range(100)), block.forward

    def forward(*args, **kwargs):
        if next(calls) == at:
            raise error("its own")
        return stock(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(block, "forward", forward)
        with pytest.raises(error, match="its own"):
            made.draw()
    assert made.untouched() and guider.guided.bridge is None
    assert torch.equal(made.draw(), expected) and len(guider.record.trace) == 3


def test_what_an_error_between_network_and_scheduler_leaves_is_gone_in_the_next_run(folder, monkeypatch):
    made = Modular("sdxl", folder)
    plain = made.draw()
    ours = made.guider(loss=recipe())
    with monkeypatch.context() as patch:
        patch.setattr(ours, "forward", lambda **predictions: failing(1, ValueError("another's"))(predictions))
        with pytest.raises(ValueError, match="another's"):
            made.draw()
    assert not made.untouched()
    made.cfg()
    assert torch.equal(made.draw(), plain) and made.untouched()


def test_pipelines_are_saved_without_it_and_it_is_not_saved(folder, tmp_path):
    made = Modular("sdxl", folder)
    guider = made.guider(loss=recipe(), guidance_scale=3.0)
    made.pipe.save_pretrained(str(tmp_path / "pipe"), overwrite_modular_index=True)
    loaded = diffusers.ModularPipeline.from_pretrained(str(tmp_path / "pipe"), local_files_only=True)
    assert type(loaded.guider) is diffusers.ClassifierFreeGuidance
    loaded.guider.save_pretrained(tmp_path / "plain")
    for refused in (
        lambda: guider.save_pretrained(tmp_path / "guider"),
        lambda: Guider.from_pretrained(tmp_path / "plain"),
        lambda: Guider.from_config(guider.config),
        lambda: made.pipe.get_component_spec("guider").create(),
    ):
        with pytest.raises(ConfigError, match="a Guider"):
            refused()
    assert dict(guider.config)["guidance_scale"] == 3.0 and "guidance_scale" in repr(guider)


def test_a_copied_pipeline_is_guided_on_its_own(folder):
    made = Modular("sdxl", folder)
    guider = made.guider(loss=recipe())
    expected = made.draw()
    other = copy.copy(made)
    other.pipe = copy.deepcopy(made.pipe)
    made.pipe.guider.record.trace.clear()
    assert torch.equal(other.draw(), expected)
    assert len(other.pipe.guider.record.trace) == 3 and not guider.record.trace


def test_what_is_refused(folder):
    made = Modular("sdxl", folder)
    with pytest.raises(ConfigError, match="not a bare objective"):
        made.guider(loss=bright)
    with pytest.raises(ConfigError, match="StableDiffusionXLPipeline has none: guide it with"):
        Guider(made.ordinary, loss=recipe())
    elsewhere = Modular("sdxl", folder)
    made.pipe.update_components(guider=Guider(elsewhere.pipe, loss=recipe()))
    with pytest.raises(ConfigError, match="all guiders of a guided run must be made for it"):
        made.draw()
    elsewhere.pipe.update_components(guider=made.guider(loss=recipe()))
    with pytest.raises(ConfigError, match="make a Guider for every pipeline"):
        elsewhere.draw()
    assert made.untouched()
    with pytest.raises(ConfigError, match="take one of"), sg.guide(made.pipe, loss=recipe()):
        made.draw()
    assert made.untouched()


def test_both_guiders_of_two_networks_must_be_ours(folder):
    made = Modular("wan-two", folder)
    made.pipe.update_components(guider=Guider(made.pipe, loss=recipe()))
    with pytest.raises(ConfigError, match=r"guider_2=guider\.new"):
        made.draw()
    assert made.untouched()


def test_guiders_of_diffusers_that_cannot_be_made_again(folder):
    """Those that change the network for one of their calls, and those that weigh by the predictions."""
    made = Modular("sdxl", folder)
    layers = "up_blocks.0.attentions.0.transformer_blocks"
    config = diffusers.LayerSkipConfig(
        indices=[0], fqn=layers, skip_attention=False, skip_attention_scores=True, skip_ff=False
    )
    perturbed = diffusers.PerturbedAttentionGuidance(5.0, stop=1.0, perturbed_guidance_config=config)
    made.pipe.update_components(guider=perturbed)
    with (
        pytest.raises(ConfigError, match="PerturbedAttentionGuidance changes the network"),
        sg.guide(made.pipe, loss=recipe()),
    ):
        made.draw()
    made.pipe.update_components(guider=diffusers.AdaptiveProjectedGuidance(5.0, eta=0.0))
    with pytest.raises(ConfigError, match="no fixed weighted sum of its passes"), sg.guide(made.pipe, loss=recipe()):
        made.draw()
    with sg.guide(made.pipe, loss=recipe(), prediction=sg.APG(5.0)) as run:  # in its place
        made.draw()
    assert run.trace[0].loss is not None


def test_a_modular_pipeline_without_a_guider_is_guided_as_the_ordinary_one_is(folder):
    """Flux', whose own blocks unpack its latents."""
    ordinary, call = build("flux", folder)
    pipe = diffusers.FluxAutoBlocks().init_pipeline()
    pipe.update_components(
        **{k: v for k, v in ordinary.components.items() if k in pipe._component_specs and v is not None}
    )
    call = {k: v for k, v in call.items() if k in pipe.default_call_parameters} | {"output_type": "latent"}
    with pytest.raises(ConfigError, match="FluxModularPipeline has none"):
        Guider(pipe, loss=recipe())
    with sg.guide(ordinary, loss=recipe()) as expected:
        draw(ordinary, call)
    with sg.guide(pipe, loss=recipe()) as run:
        pipe(**call, generator=torch.Generator().manual_seed(0), output="latents")
    assert len(lines(run)) == 4 and lines(run) == pytest.approx(lines(expected), rel=1e-4)


def test_an_autoencoder_that_overflows_in_float16_decodes_in_float32(folder):
    made = Modular("sdxl", folder)
    z = torch.randn(1, 4, 16, 16)
    calls = [SimpleNamespace(kwargs={})]
    expected = decoder(made.pipe, calls, False)(z)
    made.pipe.vae.half()
    made.pipe.vae.register_to_config(force_upcast=True)
    assert (decoder(made.pipe, calls, False)(z) - expected).abs().max() < 2e-3
    assert made.pipe.vae.dtype == torch.float16


def test_diffusers_is_imported_when_it_is_needed():
    code = """
import sys, symguide
from symguide import pipelines
assert "diffusers" not in sys.modules
sys.modules["diffusers"] = None
try:
    pipelines.Guider
except symguide.ConfigError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Guider needs diffusers" in done.stdout and 'pip install "symguide[pipelines]"' in done.stdout
