"""What one call sees of what is asked for, beside closed forms; and the look-ahead that this names."""

import pytest
import torch
from conftest import tiny

import symguide as sg


def square(x0):
    return x0.square()


def off(alpha, sigma):
    """Root mean square of (x̂² - x²) / std of x², of x ~ N(0, 1): x̂ = a x + b z, with a = α² / v, b = α σ / v."""
    v = alpha**2 + sigma**2
    a, b = alpha**2 / v, alpha * sigma / v
    spread = a**2 + b**2  # of x̂
    mean = 3 * spread**2 - 2 * (spread + 2 * a**2) + 3  # E (x̂² - x²)², and E x̂² x² = spread + 2 a²
    return (spread - 1) / 2**0.5, (mean / 2) ** 0.5


@pytest.mark.parametrize("target", [0.3, 2.0])
def test_bias_and_error_of_a_gaussians_power_are_in_closed_form(target):
    prior = sg.GaussianDenoiser(torch.zeros(1), torch.eye(1))
    x0 = torch.randn(200_000, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    advice = sg.advise(prior, x0, square, target, eta=1.0, window=(0.2, 0.6), steps=10)
    times = [prior.schedule.t_max * (1 - i / 10) for i in (2, 4, 6)]
    (bias, _), (_, middle), (_, end) = (off(prior.schedule.alpha(t), prior.schedule.sigma(t)) for t in times)
    towards = 1 if target > 1 else -1  # a blur has less power: more of what is asked for where less is asked
    assert advice.bias == pytest.approx(towards * bias, abs=0.01)
    assert (advice.middle, advice.end) == (pytest.approx(middle, rel=0.02), pytest.approx(end, rel=0.02))
    assert advice.asked == pytest.approx((target - 1) / 2**0.5, abs=0.02)


PRIOR = sg.MixtureDenoiser(torch.tensor([[-2.0], [2.0]]), 0.01 * torch.eye(1))
X0 = torch.tensor([-2.0, 2.0]).repeat(64)[:, None] + 0.1 * torch.linspace(-1, 1, 128)[:, None]
EARLY, LATE = (0.0, 0.3), (0.8, 1.0)


@pytest.mark.parametrize(
    ("feature", "target", "eta", "window", "kind", "named"),
    [
        (square, 3.9, 1.0, EARLY, "statistic", (4, "own")),  # less power than samples have
        (square, 3.9, 0.0, EARLY, "statistic", (4, "ode")),
        (square, 4.1, 1.0, EARLY, "statistic", (1, "ode")),  # more of it: a blur is pushed hardest
        (square, 4.1, 0.0, EARLY, "statistic", (4, "ode")),
        (square, 9.0, 0.0, EARLY, "statistic", (1, "ode")),  # more than any sample has
        (lambda x0: x0, 0.5, 1.0, LATE, "statistic", (1, "ode")),  # one call sees it
        (lambda x0: x0, 0.5, 1.0, EARLY, "statistic", (4, "own")),  # nothing of it is seen before guidance is over
        (lambda x0: x0, 2.0, 1.0, EARLY, "choice", (1, "ode")),
        (lambda x0: x0, 0.5, 0.0, EARLY, "place", (1, "ode")),
    ],
)
def test_what_is_named(feature, target, eta, window, kind, named):
    advice = sg.advise(PRIOR, X0, feature, target, eta=eta, window=window, kind=kind)
    assert (advice.n, advice.path) == named and advice.settings == dict(zip(("n", "path"), named, strict=True))
    sg.SAG(lambda x0: (feature(x0) - target).square().sum(dim=1), **advice.settings)


def test_it_asks_three_calls_with_condition_and_prediction_rule():
    denoiser, x0 = tiny(), torch.randn(8, 6)
    given = {"eta": 1.0, "condition": {"label": [i % 4 for i in range(8)]}}
    plain = sg.advise(denoiser, x0, lambda x: x.mean(dim=1, keepdim=True), 0.2, **given)
    assert denoiser.network.forward_rows == 3 * 8
    guided = sg.advise(denoiser, x0, lambda x: x.mean(dim=1, keepdim=True), 0.2, **given, prediction=sg.CFG(3.0))
    assert denoiser.network.forward_rows == 3 * 8 + 2 * 3 * 8 and guided.middle != plain.middle


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"kind": "statistics"}, "did you mean 'statistic'"),
        ({"window": (0.5, 0.5)}, "start < stop"),
        ({"window": lambda step: True}, "not for a function"),
        ({"x0": X0[:1]}, "two samples"),
        ({"feature": lambda x0: x0.sum(dim=1)}, r"features are \(B, m\)"),
        ({"feature": torch.ones_like}, "the same in all samples"),
        ({"target": torch.zeros(3)}, "the target is a number"),
    ],
)
def test_bad_input_is_refused(given, says):
    with pytest.raises(sg.ConfigError, match=says):
        sg.advise(**{"denoiser": PRIOR, "x0": X0, "feature": square, "target": 1.0, "eta": 1.0} | given)
