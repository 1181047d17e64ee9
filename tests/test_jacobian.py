"""The Jacobian of a look-ahead: against autograd, central differences, its own adjoint, and the network's counter."""

import pytest
import torch
from conftest import SCHEDULES, quartic, relative, tiny
from published import ADM, again
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

import symguide as sg
from symguide.errors import ConfigError, GuidanceError
from symguide.meter import SavedBytes
from symguide.networks.attention import TokenBlock
from symguide.solver import SOLVERS


def randn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inner(a, b):
    return (a * b).flatten(1).sum(1)


class Tokens(nn.Module):
    """Attention as diffusers has it: fused, and a block of ours; (B, 5, 8)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.qkv, self.norm = nn.Linear(8, 24), nn.GroupNorm(5, 5)
        self.block = TokenBlock(8, 2)

    def forward(self, x, timestep):
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        return self.block(x + scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("n", [1, 2, 5])
def test_both_products_are_exact(solver, n):
    denoiser, x, v, u = tiny(), randn(3, 6), randn(3, 6, seed=2), randn(3, 6, seed=3)
    matrix = torch.autograd.functional.jacobian(lambda z: sg.lookahead(denoiser, z, 0.6, n, solver).x0.sum(0), x)
    matrix = matrix.permute(1, 0, 2)  # (B, out, in)
    with sg.linearise(denoiser, x, 0.6, n, solver) as ahead:
        assert torch.equal(ahead.x0, sg.lookahead(denoiser, x, 0.6, n, solver).x0)
        for _ in range(2):  # again and again
            assert relative(ahead.vjp(u), torch.einsum("bij,bi->bj", matrix, u)) < 1e-12
            assert relative(ahead.jvp(v), torch.einsum("bij,bj->bi", matrix, v)) < 1e-12
        assert relative(inner(u, ahead.jvp(v)), inner(ahead.vjp(u), v)) < 1e-12
        h = 1e-4
        f = [sg.lookahead(denoiser, x + c * h * v, 0.6, n, solver).x0 for c in (-2, -1, 1, 2)]
        assert relative(ahead.jvp(v), (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h)) < 1e-8


@pytest.mark.parametrize("predicts", ["eps", "x0", "v", "flow"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_vjp_of_a_gradient_is_the_lookaheads(schedule, predicts):
    denoiser, x = tiny(schedule, predicts), randn(2, 6)
    gradient = sg.lookahead_gradient(denoiser, x, 0.7, quartic, 4)
    leaf = gradient.x0.requires_grad_()
    with sg.linearise(denoiser, x, 0.7, 4) as ahead:
        assert torch.equal(ahead.vjp(torch.autograd.grad(quartic(leaf).sum(), leaf)[0]), gradient.value)


def test_through_a_rule_and_its_condition():
    denoiser, x, u, v = tiny(), randn(2, 6), randn(2, 6, seed=2), randn(2, 6, seed=3)
    with sg.linearise(denoiser, x, 0.6, 3, condition={"label": [0, 2]}, prediction=sg.CFG(2.5)) as ahead:
        assert relative(inner(u, ahead.jvp(v)), inner(ahead.vjp(u), v)) < 1e-12
        once = ahead.vjp(u)
    with sg.linearise(denoiser, x, 0.6, 3, condition={"label": [0, 2]}) as ahead:
        assert relative(ahead.vjp(u), once) > 1e-3


def test_fused_attention_has_both():
    denoiser, x = sg.Denoiser(Tokens().double().eval(), predicts="v"), randn(2, 5, 8)
    u, v = randn(2, 5, 8, seed=2), randn(2, 5, 8, seed=3)
    with sg.linearise(denoiser, x, 0.6, 2) as ahead:
        assert relative(inner(u, ahead.jvp(v)), inner(ahead.vjp(u), v)) < 1e-12
        h = 1e-4
        f = [sg.lookahead(denoiser, x + c * h * v, 0.6, 2).x0 for c in (-2, -1, 1, 2)]
        assert relative(ahead.jvp(v), (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h)) < 1e-8


def test_calls_are_counted_at_the_network():
    denoiser, x = tiny(), randn(3, 6)
    network, counter = denoiser.network, denoiser.counter
    with sg.linearise(denoiser, x, 0.6, 4) as ahead:
        assert (network.forward_rows, network.backward_rows) == (4 * 3, 0)
        for _ in range(5):
            ahead.vjp(x)
        assert (network.forward_rows, network.backward_rows) == (4 * 3, 5 * 4 * 3)
        ahead.jvp(x)
    assert (counter.forward, counter.backward) == (network.forward_rows, network.backward_rows) == (8 * 3, 20 * 3)


def test_graphs_are_kept_until_it_is_closed():
    denoiser, x = tiny(shape=(64,)), randn(8, 64)
    with SavedBytes() as saved:
        with sg.linearise(denoiser, x, 0.6, 4) as ahead:
            held = saved.live
            ahead.vjp(x)
            ahead.jvp(x)
            assert saved.live == held > 0
        assert saved.live == 0
        with pytest.raises(GuidanceError, match="closed"):
            ahead.vjp(x)
        with pytest.raises(GuidanceError, match="closed"):
            ahead.jvp(x)
    assert all(p.requires_grad for p in denoiser.network.parameters())
    with pytest.raises(ZeroDivisionError), SavedBytes() as saved, sg.linearise(denoiser, x, 0.6, 4):
        raise ZeroDivisionError
    assert saved.live == 0


def test_samples_are_independent():
    denoiser, x, v = tiny(), randn(4, 6), randn(4, 6, seed=2)
    with sg.linearise(denoiser, x, 0.6, 3) as ahead:
        whole = ahead.vjp(v), ahead.jvp(v)
    for i in range(4):
        with sg.linearise(denoiser, x[i : i + 1], 0.6, 3) as ahead:
            alone = ahead.vjp(v[i : i + 1]), ahead.jvp(v[i : i + 1])
        assert all(relative(a[0], w[i]) < 1e-13 for a, w in zip(alone, whole, strict=True))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints(reentrant):
    inside = tiny().network

    def network(x, timestep):
        return checkpoint(inside, x, timestep, use_reentrant=reentrant)

    denoiser, x, v = sg.Denoiser(network, predicts="v"), randn(2, 6), randn(2, 6, seed=2)
    with inside.requires_grad_(False) and sg.linearise(denoiser, x, 0.6, 2) as ahead:
        if reentrant or torch.__version__ < (2, 5):  # where checkpoints of both kinds have none
            with pytest.raises(GuidanceError, match="no forward-mode derivative"):
                ahead.jvp(v)
        else:
            assert relative(inner(v, ahead.jvp(x)), inner(ahead.vjp(v), x)) < 1e-12


@pytest.mark.parametrize("kind", ["published", "compiled"])
def test_graphs_that_pass_once_are_made_anew(kind):
    """Checkpoints that free what they hold, and compiled networks, which overwrite it: right, and counted."""
    if kind == "published":
        network, plain, shape = again(ADM().eval()), ADM().eval(), (1, 4, 4)
    else:
        torch._dynamo.reset()
        body = nn.Sequential(nn.Linear(6, 16), nn.SiLU(), nn.Linear(16, 6))
        fast, shape = torch.compile(body, backend="aot_eager"), (6,)
        network, plain = (lambda x, timestep, part=part: part(x) for part in (fast, body))
    x, u = randn(2, *shape), randn(2, *shape, seed=2)
    denoiser = sg.Denoiser(network, predicts="v")
    with sg.linearise(sg.Denoiser(plain, predicts="v"), x, 0.6, 2) as ahead:
        expected = ahead.vjp(u)
    with sg.linearise(denoiser, x, 0.6, 2) as ahead:
        for _ in range(3):
            assert relative(ahead.vjp(u), expected) < 1e-12
    assert (denoiser.counter.forward, denoiser.counter.backward) == (2 * 2 * 3, 2 * 2 * 3)


def test_what_cannot_be_linearised_says_so():
    denoiser, x = tiny(), randn(2, 6)
    with sg.linearise(denoiser, x, 0.6) as ahead, pytest.raises(ConfigError, match="vectors of shape"):
        ahead.vjp(x[:1])
    with pytest.raises(ConfigError, match="n >= 1"), sg.linearise(denoiser, x, 0.6, 0):
        pass
    cut = sg.Denoiser(lambda x, timestep: x.detach(), predicts="x0")
    with pytest.raises(GuidanceError, match="no gradient path"), sg.linearise(cut, x, 0.6):
        pass


def test_in_inference_mode():
    with torch.inference_mode():
        x = randn(2, 6)
        with sg.linearise(tiny(), x, 0.6, 2) as ahead:
            assert relative(inner(x, ahead.jvp(x)), inner(ahead.vjp(x), x)) < 1e-12


def bounded(x0):
    return torch.cos(x0).sum(dim=1)


class Newton(sg.Recipe):
    """Asks a step's Jacobian several times; `asked` first where the sampler's own prediction is known before."""

    asked = False

    def push(self, step):
        if self.asked:
            assert step.prediction.x0 is not None
        with step.linearised(n=2) as ahead:
            leaf = ahead.x0.clone().requires_grad_()
            loss = self.objective(leaf)
            gradient = ahead.vjp(torch.autograd.grad(loss.sum(), leaf)[0])
            assert relative(ahead.vjp(ahead.jvp(gradient)), gradient) > 0
        return sg.loss_guidance.recipe.Push(gradient, loss.detach(), x_s=-0.01 * gradient)


@pytest.mark.parametrize("asked", [False, True])
def test_a_step_has_one_and_makes_its_own_call_once(asked):
    denoiser, recipe = tiny(), Newton(bounded)
    recipe.asked = asked
    result = sg.sample(denoiser, batch=3, steps=4, loss=recipe)
    same = sg.sample(denoiser, batch=3, steps=4, loss=sg.SAG(bounded, n=2, update=sg.rules.scale(1.0), scale=0.01))
    assert relative(result.samples, same.samples) < 1e-13
    forward = [line.forward_calls for line in result.trace]
    assert forward == [2 + 2 + asked] * 4  # the look-ahead, one jvp; the sampler's own once more if it has no graph
    assert [line.backward_calls for line in result.trace] == [2 + 2] * 4
    assert denoiser.network.backward_rows == 3 * (4 + 2) * 4


class Pseudo(sg.Recipe):
    """A cotangent that is no gradient: A^T r, or of a shape that is wrong."""

    def push(self, step):
        gradient, loss = step.carried_back(self.objective, 3, memory="fast")
        return sg.loss_guidance.recipe.Push(gradient, loss, x_s=-0.01 * gradient)


def test_any_cotangent_is_carried_back():
    matrix, denoiser = randn(6, 6), tiny()
    seen = []

    def cotangent(x0):
        seen.append(x0)
        return x0.sum(dim=1), torch.tanh(x0) @ matrix

    start = randn(2, 6, seed=5)
    result = sg.sample(denoiser, start=start, steps=2, eta=0, loss=Pseudo(cotangent), return_trajectory=True)
    plain = sg.sample(denoiser, start=start, steps=2, eta=0, return_trajectory=True)
    leaf = start.clone().requires_grad_()
    x0 = sg.lookahead(denoiser, leaf, 1.0, 3).x0
    g = torch.autograd.grad(x0, leaf, torch.tanh(x0.detach()) @ matrix)[0]
    assert relative(result.trajectory[1], plain.trajectory[1] - 0.01 * g) < 1e-12
    assert torch.equal(seen[0], x0.detach())
    assert [line.forward_calls for line in result.trace] == [3, 3]
    for wrong in (lambda x0: (x0.sum(dim=1), x0[:, :2]), lambda x0: (x0, x0)):
        with pytest.raises(GuidanceError, match="a cotangent of x_0"):
            sg.sample(denoiser, start=start, steps=2, loss=Pseudo(wrong))
