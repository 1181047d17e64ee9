"""Inside guide a pipeline is still a pipeline: it can be copied, saved, given a LoRA and run in inference mode."""

import copy
import pickle

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
from zoo import bright, build, draw

import symguide as sg
from symguide.errors import ConfigError
from symguide.private.torch import saved_tensor_hooks

DTYPE = torch.float32


def recipe():
    return sg.SAG(bright, n=2, scale=0.3)


def guided(pipe, call):
    with sg.guide(pipe, loss=recipe()):
        return draw(pipe, call)


def test_copies_made_inside_are_unguided_pipelines_of_their_own(folder, tmp_path):
    pipe, call = build("sd", folder)
    plain, wanted = draw(pipe, call), guided(pipe, call)
    with sg.guide(pipe, loss=recipe()):
        draw(pipe, call)  # so that there is something recorded
        copied, pickled = copy.deepcopy(pipe), pickle.loads(pickle.dumps(pipe))
        pipe.save_pretrained(tmp_path)
        assert torch.equal(draw(pipe, call), wanted)
    loaded = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path, local_files_only=True)
    for other in (copied, pickled, loaded):
        other.set_progress_bar_config(disable=True)
        assert torch.equal(draw(other, call), plain)


def test_a_lora_loaded_inside_counts(folder):
    pipe, call = build("sd", folder)
    with sg.guide(pipe, loss=recipe()) as run:
        before = draw(pipe, call)
        keys = [name for name, _ in pipe.unet.named_modules() if name.endswith("to_q")]
        sizes = {name: pipe.unet.get_submodule(name) for name in keys}
        weights = {}
        for name, layer in sizes.items():
            weights[f"unet.{name}.lora_A.weight"] = 0.3 * torch.randn(2, layer.in_features)
            weights[f"unet.{name}.lora_B.weight"] = 0.3 * torch.randn(layer.out_features, 2)
        pipe.load_lora_weights(weights)
        assert not torch.equal(draw(pipe, call), before)
        assert run.cost.backward_calls > 0
        pipe.unload_lora_weights()
        assert torch.equal(draw(pipe, call), before)


@pytest.mark.parametrize("family", ["sd", "sd-controlnet", "sdxl", "flux-cfg"])
def test_in_inference_mode(family, folder):
    pipe, call = build(family, folder)
    expected = guided(pipe, call)
    with torch.inference_mode():
        assert torch.equal(guided(pipe, call), expected)


def test_a_sample_is_the_same_alone_and_in_a_batch(folder):
    """Law 3. Everything that a recipe reduces is reduced for every sample."""
    pipe, call = build("sd", folder)
    prompts, negatives = ["w1", "w2 a cat", "w3"], ["w4"] * 3

    def drawn(which):
        call_ = call | {"prompt": [prompts[i] for i in which], "negative_prompt": [negatives[i] for i in which]}
        generators = [torch.Generator().manual_seed(i) for i in which]
        loss = sg.SAG(bright, n=2, constraint=sg.Sphere(0.3))
        with sg.guide(pipe, loss=loss):
            return pipe(**call_, eta=1.0, generator=generators).images

    together = drawn([0, 1, 2])
    for i in range(3):
        assert torch.allclose(drawn([i])[0], together[i], atol=1e-4)


def test_noise_of_recipes_is_by_index(folder):
    """lgd draws a cloud around each clean estimate."""
    pipe, call = build("sd", folder)

    def drawn(which, indices=None):
        batch = call | {"prompt": ["w1"] * len(which), "negative_prompt": ["w2"] * len(which)}
        with sg.guide(pipe, loss=sg.LGD(bright, samples=2), indices=which if indices is None else indices):
            return pipe(**batch, generator=[torch.Generator().manual_seed(i) for i in which]).images

    together = drawn([3, 4])
    assert torch.allclose(drawn([4])[0], together[1], atol=1e-4)
    assert not torch.allclose(drawn([4], [0])[0], together[1], atol=1e-4)
    with pytest.raises(ConfigError, match="indices= names 3 samples, and the pipeline draws 1"):
        drawn([4], range(3))


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_a_network_that_fails_leaves_nothing_behind(error, folder):
    """Also in a call that was to be made with a graph: gradients are off again, and so are the hooks that count."""
    pipe, call = build("sd", folder)
    plain, calls = draw(pipe, call), []

    def fail(module, args):
        calls.append(torch.is_grad_enabled())
        if len(calls) == 3:
            raise error("the network's own")

    handle = pipe.unet.conv_in.register_forward_pre_hook(fail)
    with pytest.raises(error, match="the network's own"), sg.guide(pipe, loss=sg.FreeDoM(bright)):
        draw(pipe, call)
    assert calls == [False, True, True] and saved_tensor_hooks() is None and torch.is_grad_enabled()
    handle.remove()
    assert torch.equal(draw(pipe, call), plain)


def test_a_network_that_keeps_a_cache_is_refused(folder):
    pipe, _ = build("flux", folder)
    pipe.transformer.enable_cache(diffusers.FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(ConfigError, match="disable_cache"), sg.guide(pipe, loss=recipe()):
        pass


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("family", ["sd", "sd-unguided", "sd-controlnet", "sdxl", "flux-cfg", "dit", "ddim", "wan"])
def test_calls_are_those_that_the_network_counts(family, n, folder):
    """Law 7: rows through the network for each sample, forward and backward."""
    pipe, call = build(family, folder)
    network = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
    rows = {"forward": 0, "backward": 0}

    def count(module, args, kwargs, output):
        batch = len(args[0]) if args else len(kwargs.get("hidden_states", kwargs.get("sample")))
        rows["forward"] += batch
        first = output[0] if isinstance(output, tuple) else next(iter(output.values()))
        if first.requires_grad:
            first.register_hook(lambda gradient: rows.update(backward=rows["backward"] + batch))

    network.register_forward_hook(count, with_kwargs=True)
    with sg.guide(pipe, loss=sg.SAG(bright, n=n, scale=0.1)) as run:
        drawn = draw(pipe, call)
    samples = len(drawn)
    assert run.cost.forward_calls == rows["forward"] / samples
    assert run.cost.backward_calls == rows["backward"] / samples
    assert run.cost.forward_calls == sum(line.forward_calls for line in run.trace)


@pytest.mark.parametrize(
    "objective, why",
    [
        (lambda x0: bright(x0) * float("nan"), "not finite"),
        (lambda x0: bright(x0).mean(), "one loss per sample"),
        (lambda x0: bright(x0.detach()), "no gradient path"),
    ],
)
def test_nothing_is_silent(objective, why, folder):
    """Law 9."""
    pipe, call = build("sd", folder)
    with pytest.raises(sg.GuidanceError, match=why), sg.guide(pipe, loss=sg.SAG(objective, n=2)):
        draw(pipe, call)
    plain = draw(pipe, call)
    if why == "not finite":
        with sg.guide(pipe, loss=sg.SAG(objective, n=2), on_nan="skip"):
            assert torch.equal(draw(pipe, call), plain)
