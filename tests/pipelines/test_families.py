"""guide on one family of each kind: off is off, gradients are exact, everything is put back.

All pipeline classes of diffusers go through the tier in `every/` (make test-pipelines), by stronger oracles.
"""

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from gradients import Looks, own_gradient
from zoo import bright, build, double, draw

import symguide as sg
from symguide.pipelines.modules import networks
from symguide.pipelines.replay import Replay

DTYPE = torch.float32
KINDS = {
    "sd": "doubled rows",
    "sd-v-rescale": "rescaled guidance of v",
    "sd-inpaint-9": "channels beside the latents",
    "sd-controlnet": "a network that another is given the output of",
    "sd-lora": "adapters",
    "sdxl": "added conditions, states that are divided by alpha",
    "flux-distilled": "packed latents, an embedded scale",
    "flux-cfg": "two passes, one after the other",
    "dit": "doubled samples, labels, variances that are cut off",
    "ddim": "pixels",
    "cogvideox": "videos with time before channels",
    "wan-two": "two networks, one for each part of the path",
}
"""One family of each kind, and what is its own."""
EVERY = pytest.mark.parametrize("family", KINDS)
COARSE = {"flux-distilled": 1e-3, "flux-cfg": 1e-3, "wan-two": 1e-2}
"""Relative error of central differences where the transformer itself computes in float32."""


@EVERY
def test_scale_0_is_bit_identical_and_guidance_lowers_the_loss(family, folder):
    pipe, call = build(family, folder)
    plain = draw(pipe, call)
    with sg.guide(pipe, loss=sg.SAG(bright, n=2, scale=0.0)) as run:
        assert torch.equal(draw(pipe, call), plain)
    assert run.cost.backward_calls == 0 and all(line.loss is None for line in run.trace)
    with sg.guide(pipe, loss=sg.SAG(bright, n=2, scale=0.3)) as run:
        guided = draw(pipe, call)
    assert torch.equal(draw(pipe, call), plain) and not torch.equal(guided, plain)
    if not family.startswith("wan"):  # what its random decoder shows hardly depends on the latents
        assert (bright(2 * guided.float() - 1) < bright(2 * plain.float() - 1)).all()
    assert run.cost.backward_calls > 0 and run.trace[-1].loss is None


@pytest.mark.parametrize("family", ["sd", "sdxl", "ltx", "wan-two"])
def test_latents_are_guided_without_a_decoder(family, folder):
    pipe, call = build(family, folder)
    call["output_type"] = "latent"
    plain = draw(pipe, call)
    with sg.guide(pipe, loss=sg.SAG(bright, n=2, scale=0.3), decode=False):
        guided = draw(pipe, call)
    assert (bright(guided) < bright(plain)).all()


@pytest.mark.parametrize("n", [1, 3])
@EVERY
def test_the_gradient_is_that_of_central_differences(family, n, folder):
    pipe, call = build(family, folder)
    double(pipe)
    recipe = Looks(bright, n)
    seen = recipe.seen
    with sg.guide(pipe, loss=recipe):
        draw(pipe, call)
    ((_, error),) = seen
    assert (error < COARSE.get(family, 1e-5)).all()


@EVERY
def test_the_gradient_of_one_call_is_that_of_the_pipelines_own_graph(family, folder):
    pipe, call = build(family, folder)
    double(pipe)
    recipe = Looks(bright, 1)
    seen = recipe.seen
    with sg.guide(pipe, loss=recipe):
        draw(pipe, call)
    expected = own_gradient(pipe, call)
    got = seen[0][0]
    assert (got - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize(
    ("family", "settings"),
    [(family, {"n": 1}) for family in KINDS]
    + [(family, {"n": 2, "memory": "fast"}) for family in ("sd", "sd-controlnet", "flux-cfg", "dit")],
)
def test_no_call_is_made_twice(family, settings, folder, monkeypatch):
    """Where the first call's graph is needed, the pipeline's own calls are made with one, and samples are the same."""
    results = []
    built = [(kept, *build(family, folder)) for kept in (True, False)]
    for kept, pipe, call in built:
        double(pipe)
        if not kept:
            monkeypatch.setattr(Replay, "graphs", lambda replay: None)
        made = Counter(networks(pipe))
        with sg.guide(pipe, loss=sg.SAG(bright, scale=0.3, **settings)) as run:
            drawn = draw(pipe, call)
        results.append((drawn, made.count, run))
    (drawn, calls, run), (again, more, slow) = results
    torch.testing.assert_close(drawn, again, rtol=1e-6, atol=1e-7)
    guided = sum(line.loss is not None for line in run.trace)
    passes = run.trace[-1].forward_calls  # of the last step, which is not guided
    spared = 0 if "controlnet" in family else guided - 1
    assert slow.cost.forward_calls - run.cost.forward_calls == spared * passes
    assert (more - calls > 0) == (spared > 0) and run.cost.backward_calls == slow.cost.backward_calls
    assert spared == 0 or run.cost.peak_bytes > slow.cost.peak_bytes  # the graphs count from when they are made


class Counter:
    """Counts the calls of networks."""

    def __init__(self, modules):
        self.count = 0
        for module in modules:
            module.register_forward_pre_hook(self.add)

    def add(self, module, args):
        self.count += 1
