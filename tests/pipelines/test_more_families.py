"""guide on further families of diffusers pipelines, lightly: off is off, and the gradient is exact."""

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
from gradients import Looks, own_gradient
from zoo import bright, built, double, draw
from zoo_more import MORE, NEW

import symguide as sg

DTYPE = torch.float32
COARSE = 1e-2
"""Of central differences: many of these transformers compute in float32 inside."""


@pytest.mark.parametrize("family", MORE)
def test_the_gradient_is_exact_and_looking_changes_nothing(family, folder):
    if not hasattr(diffusers, NEW.get(family, "DiffusionPipeline")):
        pytest.skip(f"this diffusers has no {NEW[family]}")
    make, call = MORE[family]
    pipe = built(make, folder)
    double(pipe)
    call = {key: doubled(value) for key, value in call.items()}
    plain = drawn(pipe, call)
    recipe = Looks(bright, 1, 2)
    with sg.guide(pipe, loss=recipe):
        assert torch.equal(drawn(pipe, call), plain)
    (got, error), (_, further) = recipe.seen
    assert (error < COARSE).all() and (further < COARSE).all()
    torch.manual_seed(0)
    expected = own_gradient(pipe, call)
    assert (got - expected).norm() < 1e-6 * expected.norm()


def drawn(pipe, call):
    torch.manual_seed(0)  # some encode their pictures at random, and ask no generator
    return draw(pipe, call)


def doubled(value):
    if isinstance(value, list):
        return [doubled(one) for one in value]
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
