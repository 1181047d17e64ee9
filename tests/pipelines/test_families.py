"""guide on every family of diffusers pipelines: off is off, gradients are exact, everything is put back."""

import functools

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from zoo import FAMILIES, bright, build, double, draw

import symguide as sg
from symguide.denoiser import Prediction
from symguide.pipelines.decode import decoder
from symguide.pipelines.levels import levels
from symguide.pipelines.modules import networks
from symguide.pipelines.record import Recorder
from symguide.pipelines.replay import Replay

DTYPE = torch.float32
EVERY = pytest.mark.parametrize("family", FAMILIES)
COARSE = {"flux": 1e-3, "flux-distilled": 1e-3, "flux-cfg": 1e-3, "ltx": 1e-3, "wan": 1e-2, "wan-two": 1e-2}
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


@pytest.mark.parametrize("family", ["sd", "sdxl", "flux", "ltx", "wan", "wan-two"])
def test_latents_are_guided_without_a_decoder(family, folder):
    pipe, call = build(family, folder)
    call["output_type"] = "latent"
    plain = draw(pipe, call)
    with sg.guide(pipe, loss=sg.SAG(bright, n=2, scale=0.3), decode=False):
        guided = draw(pipe, call)
    assert (bright(guided) < bright(plain)).all()


class Looks(sg.SAG):
    """Takes a gradient at one step, beside central differences of the same look-ahead."""

    def __init__(self, objective, n, at=1):
        super().__init__(objective, n=n, scale=1.0)
        self.at, self.seen = at, []

    def guide(self, step):
        if step.index == self.at:
            denoiser, x = step.run.predict.denoiser, step.x.double()  # some pipelines draw float32 whatever they are
            gradient = sg.lookahead_gradient(denoiser, x, step.t, self.objective, self.n).value
            direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)

            @torch.no_grad()
            def loss(h):
                return self.objective(sg.lookahead(denoiser, x + h * direction, step.t, self.n).x0)

            slopes = torch.stack([(loss(h) - loss(-h)) / (2 * h) for h in (1e-4, 1e-3)])
            self.seen.append(((gradient * direction).flatten(1).sum(dim=1), slopes, gradient))


@pytest.mark.parametrize("n", [1, 3])
@EVERY
def test_the_gradient_is_that_of_central_differences(family, n, folder):
    pipe, call = build(family, folder)
    double(pipe)
    recipe = Looks(bright, n)
    seen = recipe.seen
    with sg.guide(pipe, loss=recipe):
        draw(pipe, call)
    ((got, slopes, _),) = seen
    error = ((slopes - got) / got).abs().amin(dim=0)  # at the better of two distances: rounding wants the larger one
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
    got = seen[0][2]
    assert (got - expected).norm() < 1e-5 * expected.norm()


@EVERY
@pytest.mark.parametrize("settings", [{"n": 1}, {"n": 2, "memory": "fast"}])
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


def own_gradient(pipe, call, at=1):
    """The gradient at x_t through the pipeline's own code, run with a graph from the sample of that step on."""
    scheduler, known = pipe.scheduler, levels(pipe.scheduler)
    stock, schedule, found, count = scheduler.step, known.schedule, {}, iter(range(100))
    recorder = Recorder(networks(pipe))

    @functools.wraps(stock)
    def step(model_output, timestep, sample, *args, **kwargs):
        index, calls = next(count), recorder.take()
        if index == at:
            every = [float(value) for value in scheduler.timesteps]
            t = known.times(scheduler)[every.index(float(timestep))]
            weights = schedule.alpha(t), schedule.sigma(t), schedule.v_weights(t)
            estimate = Prediction(known.ours(sample, t), model_output, known.predicts, *weights).x0
            rows = len(call["class_labels"]) if "class_labels" in call else len(sample)
            loss = bright(decoder(pipe, calls, False)(estimate[:rows])).sum()
            gradient = torch.autograd.grad(loss, sample)[0]
            gradient = gradient.unflatten(0, (-1, rows)).sum(dim=0)  # DiT's halves are one sample, twice
            found["gradient"] = gradient / schedule.alpha(t) if known.exploded else gradient
        result = stock(model_output.detach(), timestep, sample.detach(), *args, **kwargs)
        x_s = (result[0] if isinstance(result, tuple) else result.prev_sample).detach().requires_grad_(index == at - 1)
        if isinstance(result, tuple):
            return (x_s, *result[1:])
        result.prev_sample = x_s
        return result

    scheduler.step = step
    recorder.attach()
    try:
        with torch.enable_grad():
            type(pipe).__call__.__wrapped__(pipe, **call, generator=torch.Generator().manual_seed(0))
    finally:
        recorder.detach()
        del scheduler.step
    return found["gradient"]
