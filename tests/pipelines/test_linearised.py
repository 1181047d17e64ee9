"""The Jacobian of a pipeline's step: its own networks, fused attention included, asked again and again."""

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from conftest import relative
from zoo import bright, build, double, draw

import symguide as sg
from symguide.loss import value_and_gradient
from symguide.loss_guidance.recipe import Push

DTYPE = torch.float32


class Asks(sg.FreeDoM):
    """Guides nothing; at each step J^T and J twice, beside what plain `lookahead_gradient` gives."""

    def __init__(self, seen):
        super().__init__(bright)
        object.__setattr__(self, "seen", seen)

    def push(self, step):
        u, v = step.draw("smooth"), step.draw("measure")
        counter = step.run.predict.denoiser.counter
        with step.linearised(n=2) as ahead:
            begun = counter.forward, counter.backward
            back, again = ahead.vjp(u), ahead.vjp(u)
            forth = ahead.jvp(v)
            spent = (counter.forward - begun[0]) // len(u), (counter.backward - begun[1]) // len(u)
            loss, slope = value_and_gradient(self.objective, ahead.x0)
            through = ahead.vjp(slope)
        gradient, _ = step.lookahead_gradient(self.objective, n=2)
        self.seen.append((u, v, back, again, forth, through, gradient, spent))
        return Push(gradient, loss, x_s=torch.zeros_like(gradient))


@pytest.mark.parametrize("family", ["sd", "flux"])
def test_a_pipelines_step_has_one(family, folder):
    seen = []
    pipe, call = build(family, folder)
    double(pipe)
    with sg.guide(pipe, loss=Asks(seen), decode=False):
        draw(pipe, call)
    assert len(seen) > 1
    for u, v, back, again, forth, through, gradient, spent in seen:
        assert torch.equal(back, again)
        assert abs((u * forth).sum() / (back * v).sum() - 1) < 1e-8  # Flux turns its queries in float32
        assert relative(through, gradient) < 1e-10
        passes = 2 if family == "sd" else 1
        assert spent == (3 * passes, 2 * 2 * passes)  # the first call's graph is made anew, once
