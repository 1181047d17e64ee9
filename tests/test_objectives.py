import pytest
import torch
import torch.nn.functional as F

from symguide.objectives import (
    BlackBox,
    Classifier,
    CompressedSensing,
    Edges,
    GaussianBlur,
    Mask,
    Measurement,
    MotionField,
    Palette,
    Region,
)


def by_differences(objective, x0, h=1e-6):
    out = torch.zeros_like(x0)
    flat = out.view(len(x0), -1)
    for k in range(flat.shape[1]):
        e = torch.zeros_like(x0)
        e.view(len(x0), -1)[:, k] = h
        flat[:, k] = (objective(x0 + e) - objective(x0 - e)) / (2 * h)
    return out


def gradient(objective, x0):
    leaf = x0.clone().requires_grad_()
    return torch.autograd.grad(objective(leaf).sum(), leaf)[0]


NETWORK = torch.nn.Sequential(
    torch.nn.Flatten(), torch.nn.Linear(8, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)
).double()
BLUR = torch.rand(1, 1, 3, 3, dtype=torch.float64)
MADE = {
    "classifier": Classifier(NETWORK, [0, 2, 1]),
    "region": Region(torch.randn(1, 2, 4, dtype=torch.float64), torch.tensor([1.0, 0, 1, 0])),
    "measurement": Measurement(
        lambda x: F.conv2d(x, BLUR, padding=1), torch.randn(3, 1, 2, 4, dtype=torch.float64), 0.3
    ),
    "sum": 0.5 * Classifier(NETWORK, 1)
    + 2 * Region(torch.zeros(1, 2, 4), torch.ones(4))
    - (lambda x: x.flatten(1).sum(1)),
}


@pytest.mark.parametrize("name", MADE)
def test_gradients_and_batches(name):
    objective, x0 = MADE[name], torch.randn(3, 1, 2, 4)
    assert objective(x0).shape == (3,)
    assert torch.allclose(gradient(objective, x0), by_differences(objective, x0), atol=1e-7)


def test_a_batch_is_a_loop():
    x0 = torch.randn(3, 1, 2, 4)
    for k in range(3):
        assert torch.allclose(Classifier(NETWORK, k)(x0)[k], Classifier(NETWORK, [0, 1, 2])(x0)[k])
        assert torch.allclose(MADE["sum"](x0)[k], MADE["sum"](x0[k : k + 1])[0])


def test_made_in_inference_mode():
    """As in an application that wraps all it does, where gradients are wanted later."""
    make = {
        "mask": lambda: Measurement(Mask(torch.tensor([1.0, 0, 1, 0])), torch.ones(1, 1, 2, 4), 0.3),
        "sensing": lambda: Measurement(CompressedSensing((1, 2, 4), 0.5), torch.ones(1, 4), 0.3),
        "blur": lambda: Measurement(GaussianBlur(0.8), torch.ones(1, 1, 2, 4), 0.3),
        "region": lambda: Region(torch.ones(1, 2, 4), torch.tensor([1.0, 0, 1, 0])),
        "palette": lambda: Palette(torch.tensor([[0.1], [0.5]])),
        "edges": lambda: Edges(torch.ones(2, 4)),
        "motion": lambda: MotionField(torch.ones(1, 2, 4), torch.full((2, 2, 4), 0.4)),
    }
    x0 = torch.randn(2, 1, 2, 4)
    for name, each in make.items():
        with torch.inference_mode():
            objective = each()
        assert torch.equal(gradient(objective, x0), gradient(each(), x0)), name


def test_values():
    x0 = torch.randn(4, 1, 2, 4)
    assert torch.allclose(Classifier(NETWORK, 2)(x0), -NETWORK(x0).log_softmax(dim=1)[:, 2])
    a, b = Classifier(NETWORK, 0), Classifier(NETWORK, 1)
    assert torch.allclose((0.5 * a + b * 3 - a)(x0), -0.5 * a(x0) + 3 * b(x0))
    assert torch.allclose((-a)(x0), -a(x0))
    assert torch.allclose(sum([a, b], 0 * a)(x0), a(x0) + b(x0))


def test_a_measurement_is_minus_log_likelihood():
    y, noise = torch.randn(1, 3), 0.4
    x = torch.randn(5, 3)
    normal = torch.distributions.Normal(x, noise)
    difference = Measurement(lambda x: x, y, noise)(x) + normal.log_prob(y.expand(5, 3)).sum(dim=1)
    assert torch.allclose(difference, difference[:1].expand(5))


def test_scorers_follow_the_samples_precision_and_are_not_changed():
    objective = Classifier(NETWORK, 1)
    assert objective(torch.randn(2, 1, 2, 4, dtype=torch.float32)).dtype == torch.float32
    assert objective(torch.randn(2, 1, 2, 4, dtype=torch.bfloat16)).dtype == torch.float32
    assert NETWORK[1].weight.dtype == torch.float64
    assert NETWORK[1].weight.requires_grad


def test_black_box_values_and_sums():
    rule = BlackBox(lambda x0: [int(x.sum() > 0) for x in x0])
    assert rule(torch.tensor([[1.0], [-1.0]])).tolist() == [1.0, 0.0]
    assert not (rule + Classifier(NETWORK, 0)).differentiable
    assert (Classifier(NETWORK, 0) + Classifier(NETWORK, 1)).differentiable
