"""Resampling by weights: unbiased, of the right spread, by numbers of the sample alone."""

import pytest
import torch

from symguide.errors import ConfigError, GuidanceError
from symguide.particle_guidance.resampling import KINDS, resample

WEIGHTS = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.7, 0.0, 0.05, 0.25]])


def counts(kind, draws=20_000):
    """How often every particle of WEIGHTS goes on, (draws, 2, 4), each draw being two samples of a large batch."""
    u = torch.rand(2 * draws, 4, generator=torch.Generator().manual_seed(0))
    parents = resample(WEIGHTS.log().repeat(draws, 1).flatten(), 4, u, kind).reshape(-1, 4)
    own = parents - 4 * torch.arange(len(parents))[:, None]
    assert own.min() >= 0 and own.max() < 4
    return torch.nn.functional.one_hot(own, 4).sum(dim=1).reshape(draws, 2, 4).double()


@pytest.mark.parametrize("kind", KINDS)
def test_every_particle_goes_on_as_often_as_it_weighs(kind):
    seen = counts(kind)
    assert (seen.mean(dim=0) - 4 * WEIGHTS).abs().max() < 0.03
    assert seen[:, 1, 1].max() == 0  # of weight 0


def test_the_spread_of_each_kind():
    """Multinomial: K w (1 - w). The others never leave out, or take twice, what is expected once."""
    assert (counts("multinomial").var(dim=0) - 4 * WEIGHTS * (1 - WEIGHTS)).abs().max() < 0.03
    systematic, residual = counts("systematic"), counts("residual")
    assert ((systematic - 4 * WEIGHTS).abs() < 1).all()
    assert (residual >= torch.floor(4 * WEIGHTS)).all()
    rest = 4 * WEIGHTS - torch.floor(4 * WEIGHTS)
    number = rest.sum(dim=1, keepdim=True)
    assert (residual.var(dim=0) - number * (rest / number) * (1 - rest / number)).abs().max() < 0.03


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_is_resampled_by_its_own_numbers(kind):
    u = torch.rand(3, 4, generator=torch.Generator().manual_seed(1))
    log_weights = torch.randn(12, generator=torch.Generator().manual_seed(2))
    whole = resample(log_weights, 4, u, kind)
    alone = torch.cat([resample(log_weights[4 * i : 4 * i + 4], 4, u[i : i + 1], kind) + 4 * i for i in range(3)])
    assert torch.equal(whole, alone)
    assert torch.equal(whole, resample(log_weights + 1000, 4, u, kind))


@pytest.mark.parametrize("kind", ["systematic", "residual"])
def test_equal_weights_change_nothing(kind):
    u = torch.tensor([[0.01, 0.5, 0.3, 0.99, 0.2]])
    assert resample(torch.full((5,), -7.0), 5, u, kind).tolist() == [0, 1, 2, 3, 4]


def test_what_cannot_be_resampled():
    u = torch.full((1, 2), 0.5)
    with pytest.raises(GuidanceError, match="no particle of a sample weighs anything"):
        resample(torch.tensor([-torch.inf, -torch.inf]), 2, u)
    with pytest.raises(ConfigError, match="systemic"):
        resample(torch.zeros(2), 2, u, "systemic")
    with pytest.raises(ConfigError, match=r"needs uniform numbers \(1, 2\)"):
        resample(torch.zeros(2), 2, u[:, :1], "multinomial")
