"""path="fresh": the gradient of -log mean exp(-J) over look-aheads with noise of their own, and what it approaches."""

import pytest
import torch
from benchmarks.theory import exact, linear, looked_ahead, rings
from conftest import Tiny, quartic, relative, tiny

import symguide as sg


def mixture():
    """Three broad components, so that no draw decides much: the derivative of a draw is tame."""
    means = torch.tensor([[-1.0, 0.5], [1.0, 0.0], [0.0, -1.0]])
    return sg.MixtureDenoiser(means, torch.diag(torch.tensor([0.3, 0.4])))


def guidance(prior, x, t, a):
    """-grad log E[exp(-a . x_0) | x_t] by autograd of the closed form, sum_k r_k exp(-a . m_k + |a roots_k|² / 2)."""
    leaf = x.clone().requires_grad_()
    log_r, means, roots = prior.posterior(leaf, t)
    value = -torch.logsumexp(log_r - means @ a + 0.5 * torch.einsum("d,kde->ke", a, roots).square().sum(dim=1), dim=1)
    return torch.autograd.grad(value.sum(), leaf)[0]


def test_the_exact_guidance_by_draws_is_that_of_the_closed_form():
    """The oracle of the theory's page, beside another one."""
    prior, t = rings(), 0.6
    x, a = torch.randn(3, 16), torch.zeros(16)
    a[:2] = 1.0
    assert relative(exact(prior, x, t, linear, x, 3000)[0], guidance(prior, x, t, a)) < 0.02


def test_it_converges_to_the_exact_guidance():
    """Its scatter falls as 1 / sqrt(K), what is left as the steps get shorter; rows are draws of one x_t."""
    prior, t, a = mixture(), 0.7, torch.tensor([1.0, -0.5])
    x = torch.tensor([[0.2, -0.3]])
    truth = guidance(prior, x, t, a)

    def drawn(steps, k):
        rows = x.expand(128, 2).contiguous()
        return looked_ahead(prior, rows, t, lambda x0, y: x0 @ a, rows, steps=steps, n="all", path="fresh", samples=k)

    few, many, finer = drawn(4, 4), drawn(4, 32), drawn(12, 32)
    scatter = [each.std(dim=0).norm().item() for each in (few, many)]
    assert scatter[0] / scatter[1] == pytest.approx(8**0.5, rel=0.25)
    off = [((each.mean(dim=0) - truth).norm() / truth.norm()).item() for each in (many, finer)]
    assert off[1] < 0.75 * off[0] and off[1] < 0.15


@pytest.mark.parametrize("memory", ["minimal", "fast"])
def test_it_is_the_gradient_of_its_loss(memory):
    """Central differences of the loss, whose noise belongs to seed and index alone."""
    seen = []

    def keep(gradient, step, loss):
        seen.append((gradient, loss))
        return torch.zeros_like(gradient)

    def asked(x):
        recipe = sg.SAG(quartic, n=3, path="fresh", samples=5, memory=memory, update=keep, window=(0.0, 0.2), scale=1.0)
        sg.sample(tiny(), start=x, steps=5, eta=0.3, seed=4, loss=recipe)
        return seen.pop()

    torch.manual_seed(0)
    x, v, h = torch.randn(2, 6), torch.randn(2, 6), 1e-5
    slope = (asked(x + h * v)[1] - asked(x - h * v)[1]) / (2 * h)
    assert torch.allclose((asked(x)[0] * v).sum(dim=1), slope, rtol=1e-7, atol=1e-9)


def test_its_loss_is_the_soft_mean_of_its_look_aheads():
    losses = []

    def watch(x0):
        losses.append(quartic(x0))
        return losses[-1]

    record = sg.sample(
        tiny(), steps=4, batch=3, loss=sg.SAG(watch, n=2, path="fresh", samples=3, window=(0.0, 0.25))
    ).trace[0]
    each = torch.stack(losses)
    assert each.shape == (3, 3) and not torch.allclose(each[0], each[1])
    assert torch.allclose(record.loss, torch.log(torch.tensor(3.0)) - torch.logsumexp(-each, dim=0))


def test_samples_do_not_depend_on_their_batch():
    recipe = sg.SAG(quartic, n=3, path="fresh", samples=3)
    whole = sg.sample(tiny(), batch=4, steps=4, loss=recipe).samples
    alone = sg.sample(tiny(), indices=[2], steps=4, loss=recipe).samples
    assert torch.allclose(whole[2:3], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("memory", "forward"), [("fast", 1 + 4 * 2), ("minimal", 2 + 4 * 3)])
def test_calls_are_those_that_the_network_counts(memory, forward):
    """1 + K (n - 1) backward calls, and as many forward with "fast"; the other four steps make one each."""
    denoiser = tiny()
    network: Tiny = denoiser.network
    recipe = sg.SAG(quartic, n=3, path="fresh", samples=4, memory=memory, window=(0.0, 0.2))
    cost = sg.sample(denoiser, batch=2, steps=5, loss=recipe).cost
    assert network.backward_rows == 2 * (1 + 4 * 2) == 2 * cost.backward_calls
    assert network.forward_rows == 2 * (forward + 4) == 2 * cost.forward_calls
