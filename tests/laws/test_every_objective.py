"""Objectives: exact gradients, a loss for each sample alone, any precision, networks left as they are."""

import pytest
import torch
from cases import SAMPLES, every
from torch import nn

from symguide.errors import ConfigError, GuidanceError
from symguide.objectives.base import Follower
from symguide.per_sample import rows_of_samples

ALL = [0, 1, 2]
smooth = every("objective", where=lambda case: case.name != "blackbox")


def gradient(objective, x0):
    leaf = x0.clone().requires_grad_()
    return torch.autograd.grad(objective(leaf).sum(), leaf)[0]


@smooth
def test_gradients_are_those_of_finite_differences(case):
    objective, h = case.make(ALL), 1e-6
    exact = gradient(objective, SAMPLES)
    for seed in range(3):
        along = torch.randn(SAMPLES.shape, generator=torch.Generator().manual_seed(seed))
        slope = (objective(SAMPLES + h * along) - objective(SAMPLES - h * along)) / (2 * h)
        torch.testing.assert_close((exact * along).flatten(1).sum(1), slope, rtol=1e-6, atol=1e-8)
    assert exact.flatten(1).abs().amax(dim=1).min() > 1e-4


@every("objective")
def test_a_batch_is_a_loop(case):
    whole, alone = case.make(ALL), [case.make([i]) for i in ALL]
    losses = whole(SAMPLES)
    assert losses.shape == (3,) and bool(losses.isfinite().all())
    torch.testing.assert_close(losses, torch.cat([alone[i](SAMPLES[i : i + 1]) for i in ALL]), rtol=0, atol=1e-12)
    if whole.differentiable:
        together = torch.cat([gradient(alone[i], SAMPLES[i : i + 1]) for i in ALL])
        torch.testing.assert_close(gradient(whole, SAMPLES), together, rtol=0, atol=1e-12)


@every("objective")
def test_one_target_for_all_and_one_for_each_sample_with_its_particles(case):
    six = SAMPLES.repeat_interleave(2, dim=0) + 0.01 * torch.arange(6)[:, None, None, None]
    one = case.make([0])
    torch.testing.assert_close(one(six), torch.cat([one(x[None]) for x in six]))
    three, each = case.make(ALL), case.make([0, 0, 1, 1, 2, 2])(six)
    with rows_of_samples(2):  # as a run with two particles has them
        torch.testing.assert_close(three(six), each)
    if case.name not in ("aesthetic", "blackbox"):  # which have no target
        with pytest.raises(ConfigError, match="has 3 rows, and there are 6 samples"):
            three(six)


@smooth
def test_narrow_samples(case):
    objective, x0 = case.make(ALL), SAMPLES.bfloat16()
    loss = objective(x0)
    assert loss.dtype == torch.float32 and loss.shape == (3,)
    torch.testing.assert_close(loss.double(), objective(x0.double()), rtol=1e-4, atol=1e-5)
    got, exact = gradient(objective, x0), gradient(objective, x0.double())
    assert got.dtype == torch.bfloat16 and (got - exact).norm() < 0.02 * exact.norm()


@smooth
def test_networks_are_left_as_they_are(case):
    objective = case.make([0])
    networks = [value.network for value in vars(objective).values() if isinstance(value, Follower)]
    before = [{key: weight.clone() for key, weight in network.state_dict().items()} for network in networks]
    gradient(objective, SAMPLES[:1].float())
    for network, kept in zip(networks, before, strict=True):
        assert isinstance(network, nn.Module)
        assert all(torch.equal(weight, kept[key]) for key, weight in network.state_dict().items())
        assert all(p.requires_grad and p.grad is None and p.dtype == torch.float64 for p in network.parameters())


@every("objective", where=lambda case: case.name == "blackbox")
def test_rules_without_a_gradient_say_so(case):
    import symguide as sg

    assert not case.make(ALL).differentiable
    with pytest.raises(GuidanceError, match="the objective is a black box"):
        sg.SAG(case.make(ALL))
