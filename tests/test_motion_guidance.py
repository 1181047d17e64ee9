"""Motion guidance with an estimator of translations by least squares (Lucas and Kanade), right for smooth pictures."""

import pytest
import torch
from conftest import relative

import symguide as sg
from symguide.errors import ConfigError
from symguide.objectives import Motion, MotionField

SIDE = 16
ROWS, COLUMNS = torch.meshgrid(*[torch.arange(SIDE, dtype=torch.float64)] * 2, indexing="ij")


def blob(right=0.0, down=0.0):
    """A smooth picture moved by so many pixels, (1, H, W), and never at the border."""
    a = torch.exp(-((COLUMNS - 7 - right) ** 2 + (ROWS - 8 - down) ** 2) / 12)
    b = torch.exp(-((COLUMNS - 9 - right) ** 2 + (ROWS - 6 - down) ** 2) / 6)
    return (1.2 * a + 0.6 * b - 0.9)[None]


def slopes(x):
    """d/d column and d/d row by central differences, 0 at the border, (B, 2, H, W)."""
    right, down = torch.zeros_like(x), torch.zeros_like(x)
    right[..., 1:-1] = (x[..., 2:] - x[..., :-2]) / 2
    down[..., 1:-1, :] = (x[..., 2:, :] - x[..., :-2, :]) / 2
    return torch.cat([right, down], dim=1)


def translation(first, second):
    """The one translation d with second(p + d) = first(p), by least squares of second - first + slope . d."""
    g = (slopes(first) + slopes(second)).flatten(2) / 2
    gap = (first - second).flatten(2)
    d = torch.linalg.solve(g @ g.mT, g @ gap.mT)
    return d[..., None].expand(len(first), 2, *first.shape[2:])


def flow(right, down):
    return torch.tensor([right, down], dtype=torch.float64).reshape(2, 1, 1).expand(2, SIDE, SIDE)


def test_the_estimator_is_right():
    for right, down in ((0.0, 0.0), (0.5, 0.0), (-0.3, 0.7), (1.0, -1.0)):
        seen = translation(blob()[None], blob(right, down)[None])[0, :, 0, 0]
        assert torch.allclose(seen, torch.tensor([right, down]), atol=0.1)


def test_the_right_motion_is_the_best():
    objective = Motion(translation, blob(), flow(1.0, -0.5))
    moves = [(right, down) for right in (-1.0, 0.0, 1.0, 2.0) for down in (-1.5, -0.5, 0.5)]
    losses = objective(torch.stack([blob(*move) for move in moves]))
    assert moves[losses.argmin()] == (1.0, -0.5)


def test_the_terms_by_hand():
    """The mean absolute error of the flow, and the colours along the flow that is seen, or that is given."""
    x = torch.stack([blob(0.5, 0.0), blob(0.0, 1.0)])
    seen = translation(blob().expand(2, -1, -1, -1), x)[:, :, 0, 0]
    only = Motion(translation, blob(), flow(1.0, 0.0), colour_weight=0.0)(x)
    assert torch.allclose(only, (seen - torch.tensor([1.0, 0.0])).abs().mean(dim=1))
    oracle = Motion(translation, blob(), flow(1.0, 0.0), flow_weight=0.0, colour_weight=2.0, oracle=True)(x)
    assert torch.allclose(oracle, 2 * MotionField(blob(), flow(1.0, 0.0))(x))
    along = Motion(translation, blob(), flow(1.0, 0.0), flow_weight=0.0, colour_weight=1.0)(x)
    expected = [MotionField(blob(), flow(*d.tolist()))(x[k : k + 1]) for k, d in enumerate(seen)]
    assert torch.allclose(along, torch.cat(expected), atol=5e-3)  # but for what is off the picture
    assert along[0] < 0.2 * oracle[0]


def test_masks():
    mask = torch.zeros(SIDE, SIDE)
    mask[:, :8] = 1
    spoilt = blob().clone()
    spoilt[..., 12:] = 1.0
    settings = {"flow_weight": 0.0, "oracle": True}
    masked = Motion(translation, blob(), flow(0.0, 0.0), mask, **settings)(spoilt[None])
    assert masked == 0 < Motion(translation, blob(), flow(0.0, 0.0), **settings)(spoilt[None])


@pytest.mark.parametrize("oracle", [False, True])
def test_gradients_match_finite_differences_and_a_batch_is_a_loop(oracle):
    objective = Motion(translation, blob(), flow(0.7, -0.4), oracle=oracle)
    torch.manual_seed(0)
    x = torch.stack([blob(0.2, 0.1), blob(-0.5, 0.3)]) + 0.01 * torch.randn(2, 1, SIDE, SIDE)
    leaf, move = x.clone().requires_grad_(), torch.randn_like(x)
    gradient = torch.autograd.grad(objective(leaf).sum(), leaf)[0]
    slope = (objective(x + 1e-6 * move) - objective(x - 1e-6 * move)) / 2e-6
    assert torch.allclose((gradient * move).flatten(1).sum(dim=1), slope, rtol=1e-4)
    assert torch.allclose(objective(x[1:]), objective(x)[1:])


def test_guided_samples_move():
    """A Gaussian model of the picture and its small moves; guidance asks for one of them, with recurrence."""
    tangent = slopes(blob()[None])[0].flatten(1)
    covariance = tangent.T @ tangent + 1e-4 * torch.eye(SIDE * SIDE)
    denoiser = sg.GaussianDenoiser(blob(), covariance)
    loss = sg.FreeDoM(Motion(translation, blob(), flow(0.7, -0.4)), scale=0.3, repeats=2)
    guided, plain = (sg.sample(denoiser, batch=8, steps=12, loss=each).samples for each in (loss, None))

    def off(x):
        return (translation(blob().expand_as(x), x)[:, :, 0, 0] - torch.tensor([0.7, -0.4])).norm(dim=1)

    assert off(guided).mean() < 0.5 * off(plain).mean()
    alone = sg.sample(denoiser, indices=[5], steps=12, loss=loss).samples
    assert relative(alone[0], guided[5]) < 1e-6


def test_networks_as_modules_and_errors():
    class Network(torch.nn.Module):
        def forward(self, first, second):
            return translation(first, second)

    x = blob(0.5, 0.0)[None]
    assert torch.equal(Motion(Network(), blob(), flow(1.0, 0.0))(x), Motion(translation, blob(), flow(1.0, 0.0))(x))
    for make, sentence in (
        (lambda: Motion(3, blob(), flow(0.0, 0.0)), "a flow network is a callable"),
        (lambda: Motion(translation, blob(), flow(0.0, 0.0), flow_weight=-1.0), "must not be negative"),
        (lambda: Motion(translation, blob(), torch.zeros(2, 3, 3)), "the flow"),
        (lambda: Motion(lambda a, b: a, blob(), flow(0.0, 0.0))(x), r"gives \(B, 2, H, W\)"),
        (lambda: Motion(translation, blob(), flow(0.0, 0.0))(torch.zeros(1, 1, 4, 4)), "the samples"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            make()
