"""Objectives with an equal say, the Polyak step and feedback, on functions whose gradients are known."""

import pytest
import torch
from conftest import relative, tiny

import symguide as sg
from symguide.errors import ConfigError, GuidanceError
from symguide.objectives import Augmented, Balanced, BlackBox


def gradient(objective, x):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(objective(leaf).sum(), leaf)[0]


def test_every_part_pulls_as_its_share_says():
    """Whatever units a part has, and per sample."""
    parts = [lambda x: x[:, :2].square().sum(dim=1), lambda x: 1000 * x[:, 2:].pow(4).sum(dim=1)]
    x = torch.randn(3, 4)
    got = gradient(Balanced(parts, [1.0, 3.0]), x)
    lengths = torch.stack([gradient(part, x).norm(dim=1) for part in parts])
    assert torch.allclose(got[:, :2].norm(dim=1), lengths.mean(dim=0))
    assert torch.allclose(got[:, 2:].norm(dim=1), 3 * lengths.mean(dim=0))
    assert torch.allclose(got[:, :2] / got[:, :2].norm(dim=1, keepdim=True), x[:, :2] / x[:, :2].norm(dim=1)[:, None])
    louder = Balanced([parts[0], lambda x: 7 * parts[1](x)])
    ratio = gradient(louder, x)[:, 2:].norm(dim=1) / gradient(louder, x)[:, :2].norm(dim=1)
    assert torch.allclose(ratio, torch.ones(3))
    assert torch.allclose(Balanced(parts)(x)[1:2], Balanced(parts)(x[1:2]))


def test_a_part_without_gradient_counts_nothing():
    flat = Balanced([lambda x: x[:, 0] ** 2, lambda x: (x[:, 1] - 5).clamp_min(0) ** 2])
    assert gradient(flat, torch.tensor([[1.0, 1.0]])).tolist() == [[1.0, 0.0]]  # half of 2, the mean of 2 and 0
    with torch.no_grad():
        assert flat(torch.ones(1, 2)).isfinite().all()


def test_balanced_in_a_run():
    parts = [lambda x: (x - 0.5).square().flatten(1).sum(1), Augmented(lambda x: 100 * x.flatten(1).pow(4).sum(1), 2)]

    def draw(indices):
        loss = sg.SAG(Balanced(parts), n=2)
        return sg.sample(tiny(shape=(1, 2, 3)), indices=indices, steps=5, loss=loss).samples

    assert relative(draw([1])[0], draw([0, 1])[1]) < 1e-9


def test_what_balanced_refuses():
    for make, sentence in (
        (lambda: Balanced([len]), "at least two"),
        (lambda: Balanced([len, len], [1.0]), "2 positive numbers"),
        (lambda: Balanced([len, len], [1.0, 0.0]), "2 positive numbers"),
        (lambda: Balanced([len, BlackBox(len)]), "BlackBox has none"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            make()
    with pytest.raises(GuidanceError, match="no gradient path"):
        Balanced([lambda x: x.sum(1), lambda x: x.detach().sum(1)])(torch.ones(2, 3))


def test_polyaks_step_halves_a_square_and_lands_on_a_cone():
    x, aim = torch.randn(4, 5), torch.randn(4, 5)

    def square(x):
        return (x - aim).square().sum(dim=1)

    def cone(x):
        return 3 * (x - aim).norm(dim=1) + 2

    step = sg.rules.polyak()
    assert torch.allclose(x - step(gradient(square, x), None, square(x)), (x + aim) / 2)
    step = sg.rules.polyak(target=2.0)
    assert torch.allclose(x - step(gradient(cone, x), None, cone(x)), aim)
    assert step(gradient(square, x), None, torch.full((4,), 1.5)).abs().max() == 0  # below the target already
    for dtype in (torch.float16, torch.float32, torch.float64):
        assert step(torch.zeros(2, 3, dtype=dtype), None, torch.full((2,), 3.0)).isfinite().all()


def test_polyaks_step_in_a_run():
    """Far from what the model draws by itself, and in the last step, too, which has no noise to measure steps by."""
    denoiser = sg.GaussianDenoiser(torch.zeros(3), torch.eye(3))

    def far(x0):
        return (x0 - 4).square().sum(dim=1)

    loss = sg.FreeDoM(far, scale=1.0, update=sg.rules.polyak())
    guided = sg.sample(denoiser, batch=50, steps=30, loss=loss)
    assert far(guided.samples).mean() < 0.3 * far(sg.sample(denoiser, batch=50, steps=30).samples).mean()
    assert guided.trace[-1].loss is not None


def test_feedback_lets_go_where_the_loss_is_low():
    g = torch.ones(4, 2)
    loss = torch.tensor([0.0, 0.5, 1.5, 1e9])
    assert torch.allclose(sg.rules.feedback(0.5)(g, None, loss)[:, 0], torch.tensor([0.0, 0.5, 0.75, 1.0]))
    with pytest.raises(ConfigError, match="positive"):
        sg.rules.feedback(0.0)
