"""Guidance of a pipeline's own that cannot be made again at other points is refused, in a sentence."""

from types import SimpleNamespace

import pytest
import torch

import symguide as sg
from symguide.pipelines.combine import combination, conditional

PIPELINE = SimpleNamespace(guidance_scale=5.0, guidance_rescale=0.0)


def outputs(passes, rows=2):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(rows, 4, 8, 8, generator=generator) for _ in range(passes)]


def dot(a, b):
    return (a * b).flatten(1).sum(1).reshape(-1, 1, 1, 1)


OTHER = {
    "apg": lambda u, c: c + 4 * (c - u - dot(c - u, c) / dot(c, c) * c),
    "cfg-norm": lambda u, c: (u + 5 * (c - u)) * (dot(c, c) / dot(u + 5 * (c - u), u + 5 * (c - u))).sqrt(),
    "cfg-zero*": lambda u, c: dot(c, u) / dot(u, u) * u + 5 * (c - dot(c, u) / dot(u, u) * u),
    "clipped": lambda u, c: (u + 5 * (c - u)).clamp(-1, 1),
    "with noise": lambda u, c: u + 5 * (c - u) + 0.01 * torch.randn_like(u),
}


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("name", OTHER)
def test_rules_that_depend_on_the_predictions(name, rows):
    """The first three are weighted sums at every point, but of other weights at each: frozen, they are other rules."""
    u, c = outputs(2, rows)
    with pytest.raises(sg.GuidanceError, match="no fixed weighted sum"):
        combination([u, c], OTHER[name](u, c), PIPELINE)


@pytest.mark.parametrize("scale", [5.0, 3.2])
@pytest.mark.parametrize("first", ["u", "c"])
def test_fixed_rules_are_found_whatever_the_order_and_the_scale(first, scale):
    """A scale that the pipeline says, and one that it does not."""
    u, c = outputs(2)
    passes = [u, c] if first == "u" else [c, u]
    rule = combination(passes, u + scale * (c - u), PIPELINE)
    assert conditional(rule, PIPELINE) == (1 if first == "u" else 0)
    x, y = outputs(2)
    expected = x + scale * (y - x) if first == "u" else y + scale * (x - y)
    assert torch.allclose(rule([x, y]), expected, atol=1e-9)


def test_three_passes():
    """Perturbed attention: u + w (c - u) + s (c - p)."""
    u, c, p = outputs(3)
    rule = combination([u, c, p], u + 5 * (c - u) + 2 * (c - p), PIPELINE)
    assert torch.allclose(rule.weights, torch.tensor([-4.0, 7.0, -2.0]), atol=1e-9)
    with pytest.raises(sg.GuidanceError, match="made 3 passes"):
        conditional(rule, PIPELINE)


def normed(u, c, w=4.0, sign=1.0):
    y = u + w * (c - u)
    return sign * y * c.norm(dim=-1, keepdim=True) / y.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_along_the_last_axis_are_a_known_rule(dtype, sign):
    """QwenImage's and Lumina 2's; the pipeline does not say its scale, and bfloat16 rounds."""
    u, c = (y.to(dtype) for y in outputs(2))
    rule = combination([u, c], normed(u, c, sign=sign), PIPELINE)
    assert conditional(rule, PIPELINE) == 1
    x, y = (z.double() for z in outputs(2))
    expected = normed(x.flip(0), y.flip(0), sign=sign)  # elsewhere, where its weights are others
    assert (rule([x.flip(0), y.flip(0)]) - expected).norm() < (
        1e-6 if dtype == torch.float32 else 3e-2
    ) * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", OTHER)
def test_rounding_hides_no_rule(name, dtype):
    """In half precision too a rule that depends on the predictions is refused, and a fixed one is found."""
    u, c = (y.to(dtype) for y in outputs(2))
    if name != "with noise":  # which is below bfloat16's own
        with pytest.raises(sg.GuidanceError, match="no fixed weighted sum"):
            combination([u, c], OTHER[name](u, c), PIPELINE)
    rule = combination([u, c], u + 3.2 * (c - u), PIPELINE)
    assert torch.allclose(rule.weights, torch.tensor([-2.2, 3.2]).double(), atol=0.02)


def test_values_that_are_not_finite():
    u, c = outputs(2)
    c[0, 0, 0, 0] = float("nan")
    with pytest.raises(sg.GuidanceError, match="not finite"):
        combination([u, c], u + 5 * (c - u), PIPELINE)
