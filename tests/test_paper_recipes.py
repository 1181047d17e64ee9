"""Recipes of papers against loops written out here, torch's own Adam, and each other."""

import math
from itertools import pairwise

import pytest
import torch
from conftest import SCHEDULES, quartic, relative, squares, tiny
from torch import nn

import symguide as sg
from symguide import rules
from symguide.errors import ConfigError
from symguide.per_sample import Noise

STEPS, BATCH, D = 7, 2, 6


def drawn(stream, i, times=None):
    return Noise(0, range(BATCH), (D,)).draw(stream, i, 0, times)


def by_hand(guide, steps=STEPS, eta=1.0):
    """DDIM written in alphas_cumprod, as published code has it; `guide` makes x_s, and the last step's too."""
    denoiser = tiny()
    t, x = [1 - i / steps for i in range(steps)] + [0.0], drawn("start", 0)
    bars = [denoiser.schedule.alpha(each) ** 2 for each in t]
    for i in range(steps):
        bar, bar_s = bars[i], bars[i + 1]
        std = eta * math.sqrt((1 - bar_s) / (1 - bar) * (1 - bar / bar_s))
        x0 = denoiser(x, t[i]).x0.detach()
        eps = (x - math.sqrt(bar) * x0) / math.sqrt(1 - bar)
        mean = math.sqrt(bar_s) * x0 + math.sqrt(max(1 - bar_s - std**2, 0)) * eps
        x = guide(denoiser=denoiser, i=i, x=x, t=t, bars=bars, std=std, x0=x0, mean=mean, z=drawn("step", i))
    return x


def sample(loss, steps=STEPS, **settings):
    return sg.sample(tiny(), batch=BATCH, steps=steps, loss=loss, **settings).samples


def gradient(function, x):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(function(leaf).sum(), leaf)[0]


def unit(g):
    return g / g.norm(dim=1, keepdim=True)


def soft(x0):
    """A bounded objective, so that raw gradients stay small on a random network."""
    return torch.tanh(x0 - 0.5).square().sum(dim=1)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("repeats", [1, 3])
def test_fresh_noise_at_the_steps_level_by_hand(eta, repeats):
    """x_s = alpha_s x_0' + sigma_s z whatever eta, the same z in every batch; the last step gives x_0' itself."""
    move = rules.scale(0.4)

    def guide(denoiser, i, x, t, bars, x0, **_):
        x_s = x
        for r in range(repeats):
            if r:
                ratio = bars[i] / bars[i + 1]
                travel = Noise(0, range(BATCH), (D,)).draw("travel", i, r - 1)
                x = math.sqrt(ratio) * x_s + math.sqrt(1 - ratio) * travel
                x0 = denoiser(x, t[i]).x0.detach()
            moved = x0 - 0.3 * 0.4 * gradient(soft, x0)
            x_s = math.sqrt(bars[i + 1]) * moved
            x_s = x_s + math.sqrt(1 - bars[i + 1]) * Noise(0, range(BATCH), (D,)).draw("step", i, r)
        return x_s

    ours = sg.MPGD(soft, scale=0.3, update=move, eps="fresh", repeats=repeats)
    assert relative(sample(ours, eta=eta), by_hand(guide, eta=eta)) < 1e-11
    alone = sg.sample(tiny(), indices=[1], steps=STEPS, loss=ours, eta=eta).samples
    assert relative(alone[0], sample(ours, eta=eta)[1]) < 1e-12


def test_fresh_noise_is_none_in_the_last_step():
    last = sg.MPGD(soft, scale=0.3, update=rules.scale(0.4), eps="fresh", window=(0.85, 1.0))
    x = sg.sample(tiny(), batch=BATCH, steps=STEPS, return_trajectory=True).trajectory[-2]
    x0 = tiny()(x, 1 / STEPS).x0.detach()
    assert relative(sample(last), x0 - 0.3 * 0.4 * gradient(soft, x0)) < 1e-12


def test_tfg_is_the_published_loop():
    def guide(denoiser, i, x, t, bars, std, x0, mean, z):
        ratios = [a / b for a, b in pairwise(bars)]
        increase = ratios[i] * STEPS / sum(ratios)
        decrease = (1 - ratios[i]) * STEPS / (STEPS - sum(ratios))
        cloud = 0.3 * math.sqrt(1 - bars[i]) * drawn("smooth", i, 3)

        def log_mean(x0):
            return torch.stack([-soft(x0 + shift) for shift in cloud]).exp().mean(dim=0).log()

        of_t = 0.02 * decrease * gradient(lambda x: log_mean(denoiser(x, t[i]).x0), x)
        new = x0
        for _ in range(2):
            new = new + 0.1 * increase * gradient(log_mean, new)
        ratio = min(1 / math.sqrt(ratios[i]), 2.0)
        return mean + std * z + 0.7 * (ratio * of_t + math.sqrt(bars[i + 1]) * (new - x0))

    rho = rules.chain(rules.decrease(0.02), rules.of_x_t())
    recipe = sg.TFG(soft, scale=0.7, rho=rho, mu=rules.increase(0.1), sigma=0.3, inner=2, samples=3)
    assert relative(sample(recipe), by_hand(guide)) < 1e-9
    published = sg.TFG.paper(soft, rho=0.02, mu=0.1, sigma=0.3, inner=2)
    same = sg.TFG(
        soft,
        rho=rules.chain(rules.increase(0.02), rules.of_x_t()),
        mu=rules.increase(0.1),
        sigma=0.3,
        inner=2,
    )
    assert torch.equal(sample(published), sample(same))
    assert relative(sample(published), sample(recipe)) > 1e-3


def w(gradient, step, loss):
    """From the change of x_0 that TFG adds to that of a step from the moved estimate."""
    return rules.of_moved_x0()(gradient, step, loss) / step.schedule.alpha(step.s)


def first_of_adam(rate):
    """What one step of Adam is, whose moments are the gradient's own."""
    return lambda gradient, step, loss: rate * gradient / (gradient.abs() + 1e-8)


U = rules.estimate_length()
HALVES = sg.objectives.Measurement(lambda x0: x0[:, :3], torch.full((3,), 0.5), noise=0.05)
UNIFIED = {
    "freedom": (
        lambda: sg.FreeDoM(quartic, scale=0.7, update=rules.normalise(), repeats=2),
        lambda: sg.TFG(quartic, scale=0.7, rho=rules.normalise(), mu=0, sigma=0, repeats=2),
    ),
    "dps": (
        lambda: sg.DPS(squares, scale=0.3),
        lambda: sg.TFG(squares, scale=0.3, rho=rules.root_loss(), mu=0, sigma=0),
    ),
    "dps of a measurement": (
        lambda: sg.DPS(HALVES, scale=0.3),
        lambda: sg.TFG(HALVES, scale=0.3, rho=rules.residual_norm(0.05), mu=0, sigma=0),
    ),
    "lgd": (
        lambda: sg.LGD(quartic, samples=3, scale=0.7),
        lambda: sg.TFG(quartic, scale=0.7, rho=rules.normalise(), mu=0, sigma=1, samples=3),
    ),
    "mpgd": (
        lambda: sg.MPGD(quartic, scale=0.3, update=U),
        lambda: sg.TFG(quartic, scale=0.3, rho=0, mu=U, inner=1, sigma=0),
    ),
    "mpgd, eps anew": (
        lambda: sg.MPGD(quartic, scale=0.3, update=U, eps="anew"),
        lambda: sg.TFG(quartic, scale=0.3, rho=0, mu=rules.chain(U, w), inner=1, sigma=0),
    ),
    "universal": (
        lambda: sg.UniversalGuidance(quartic, scale=0.3, repeats=2),
        lambda: sg.TFG(quartic, scale=0.3, rho=rules.chain(U, rules.of_moved_x0()), mu=0, sigma=0, repeats=2),
    ),
    "universal with one step backward": (
        lambda: sg.UniversalGuidance(quartic, scale=1.0, update=U, backward_steps=1, backward_rate=0.1),
        lambda: sg.TFG(
            quartic, rho=rules.chain(U, rules.of_moved_x0()), mu=rules.chain(first_of_adam(0.1), w), inner=1, sigma=0
        ),
    ),
    "sag": (
        lambda: sg.SAG(quartic, n=3, scale=0.7),
        lambda: sg.TFG(quartic, scale=0.7, rho=rules.normalise(), mu=0, sigma=0, n=3),
    ),
}


@pytest.mark.parametrize("schedule", ["vp-linear", "ve", "flow"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("name", UNIFIED)
def test_tfgs_special_cases_step_by_step(name, eta, schedule):
    def path(make):
        settings = {"batch": 2, "steps": 5, "eta": eta, "return_trajectory": True}
        return sg.sample(tiny(schedule, "v"), loss=make(), **settings).trajectory

    special, general = (path(make) for make in UNIFIED[name])
    unguided = sg.sample(tiny(schedule, "v"), batch=2, steps=5, eta=eta).samples
    assert relative(special[-1], unguided) > 1e-3
    for a, b in zip(special, general, strict=True):
        assert relative(a, b) < 1e-10


def test_tfg_without_its_variance_part_needs_no_gradient_of_the_network():
    @torch.no_grad()
    def network(x, timestep):
        return torch.tanh(x)

    sg.sample(sg.Denoiser(network, predicts="x0", shape=(3,)), steps=3, loss=sg.TFG(squares, rho=0, mu=0.1))


def test_schedules_of_rules_have_their_mean():
    seen = {"up": [], "down": []}

    def record(name, rule):
        def recorded(gradient, step, loss):
            seen[name].append(rule(torch.ones(1), step, loss).item())
            return gradient

        return recorded

    for schedule in SCHEDULES:
        for values in seen.values():
            values.clear()
        both = rules.chain(record("up", rules.increase(0.5)), record("down", rules.decrease(2.0)), rules.normalise())
        sg.sample(tiny(schedule, "v"), steps=6, loss=sg.FreeDoM(squares, update=both))
        for name, mean in (("up", 0.5), ("down", 2.0)):
            assert sum(seen[name]) / 6 == pytest.approx(mean)
        assert seen["up"] == sorted(seen["up"])
        assert seen["down"] == sorted(seen["down"], reverse=True)


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_mpgd_is_the_papers_loop(eta):
    """Algorithm 1: x_0 is moved, and the step keeps the network's eps."""

    def guide(denoiser, i, x, t, bars, std, x0, mean, z):
        move = 0.2 * math.sqrt(D) * math.sqrt(1 - bars[i]) * unit(gradient(quartic, x0))
        eps = (x - math.sqrt(bars[i]) * x0) / math.sqrt(1 - bars[i])
        bar = bars[i + 1]
        return math.sqrt(bar) * (x0 - move) + math.sqrt(max(1 - bar - std**2, 0)) * eps + std * z

    assert relative(sample(sg.MPGD(quartic, scale=0.2), eta=eta), by_hand(guide, eta=eta)) < 1e-10


@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m", "heun", "midpoint"])
@pytest.mark.parametrize("schedule", ["vp-linear", "ve", "flow"])
def test_alpha_s_of_a_moved_estimate_arrives(schedule, solver):
    """With the network's own eps, whatever the solver makes of it and of the steps before."""
    arrived = []

    class Moves(sg.MPGD):
        def push(self, step):
            return super().push(step)._replace(x0=torch.ones_like(step.x))

        def guide(self, step):
            made = super().guide(step)
            arrived.append((made.x_s - step.x_s()) / step.schedule.alpha(step.s))
            return made

    sg.sample(tiny(schedule, "v"), batch=2, steps=4, solver=solver, loss=Moves(squares))
    assert len(arrived) == 4
    for share in arrived:
        torch.testing.assert_close(share, torch.ones_like(share), rtol=1e-11, atol=1e-11)


def dps_by_hand(residual, scale):
    """2209.14687, algorithm 1, with the DDPM step in alphas and betas."""

    def guide(denoiser, i, x, t, bars, std, x0, mean, z):
        bar, bar_s = bars[i], bars[i + 1]
        alpha = bar / bar_s
        step = math.sqrt(alpha) * (1 - bar_s) * x + math.sqrt(bar_s) * (1 - alpha) * x0
        slope = gradient(lambda x: residual(denoiser(x, t[i]).x0).norm(dim=1), x)
        return step / (1 - bar) + std * z - scale * slope

    return by_hand(guide)


def first(x0):
    return x0[:, :3]


@pytest.mark.parametrize("noise", [1.0, 0.05])
def test_dps_is_the_papers_loop(noise):
    """Of a measurement: the gradient of the residual's norm, whatever its noise; a sample alone is as in its batch."""
    y = torch.tensor([[0.5, -0.2, 0.1], [0.3, 0.4, -0.6]])
    goal = sg.objectives.Measurement(first, y, noise)
    mine = sample(sg.DPS(goal, scale=0.3))
    assert relative(mine, dps_by_hand(lambda x0: y - first(x0), 0.3)) < 1e-10
    one = sg.objectives.Measurement(first, y[1], noise)
    alone = sg.sample(tiny(), indices=[1], steps=STEPS, loss=sg.DPS(one, scale=0.3)).samples
    assert relative(alone, mine[1:]) < 1e-10


def test_what_dps_takes_of_a_sum():
    """Residuals in a row where all have one noise, each by the root of its weight; else the root of the loss."""
    region = sg.objectives.Region(torch.full((D,), 0.5), torch.tensor([0.0, 0.0, 1.0, 0.0, 1.0, 1.0]), 0.3)
    halves = sg.objectives.Measurement(first, torch.zeros(3), 0.3)
    decoded = sg.objectives.Decoded(halves, lambda z: 2 * z)

    def row(x0):
        return torch.cat([2 * region.operator.mask * (x0 - 0.5), first(x0), first(2 * x0)], dim=1)

    goal = 4 * region + halves + decoded
    expected = dps_by_hand(row, 0.1)
    assert relative(sample(sg.DPS(goal, scale=0.1)), expected) < 1e-10
    louder = sg.objectives.Measurement(first, torch.zeros(3), 0.6)
    for mixed in (region + louder, region + squares):
        taken = sg.TFG(mixed, scale=0.1, rho=rules.root_loss(), mu=0, sigma=0)
        assert relative(sample(sg.DPS(mixed, scale=0.1)), sample(taken)) < 1e-10


def test_ecm_is_the_published_loop():
    def guide(denoiser, i, x, t, bars, std, x0, mean, z):
        move = gradient(squares, x0).mul(0.4).clip(-0.2, 0.2)
        eps = (x - math.sqrt(bars[i]) * x0) / math.sqrt(1 - bars[i])
        bar = bars[i + 1]
        return math.sqrt(bar) * (x0 - move) + math.sqrt(max(1 - bar - std**2, 0)) * eps + std * z

    assert relative(sample(sg.ECM(squares, scale=0.4, limit=0.2)), by_hand(guide)) < 1e-9


def test_ecm_reaches_the_minimum_of_half_a_squared_error():
    target = torch.full((D,), 0.5)
    goal = sg.objectives.Measurement(lambda x: x, target)
    assert torch.allclose(sample(sg.ECM(goal, scale=1.0, limit=1e9)), target.expand(BATCH, D))


class Classes(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(D, 8), nn.ReLU(inplace=True), nn.Sequential(nn.Linear(8, 8), nn.ReLU()))
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.body(x))


def test_elucd_is_the_published_loop():
    network = Classes()
    label = torch.tensor([1, 3])

    def log_ratio(x0):
        x = nn.functional.softplus(network.body[0](x0), beta=3)
        x = nn.functional.softplus(network.body[2][0](x), beta=3)
        logits = network.head(x)
        joint = torch.exp(logits * 1.2)[range(BATCH), label]
        return torch.log(joint / torch.exp(logits * 0.6).sum(dim=1))

    largest = 0.0

    def guide(denoiser, i, x, t, bars, std, x0, mean, z):
        nonlocal largest
        largest = max(largest, std**2)  # of the steps so far, as published: the first is the largest here
        schedule = std**2 + 0.3 * largest * math.sin(math.pi * t[i])
        return mean + schedule * 2.0 * gradient(log_ratio, x0) + std * z

    classifier = sg.objectives.Classifier(sg.objectives.softened(network), label, joint=1.2, marginal=0.6)
    assert relative(sample(sg.EluCD(classifier, scale=2.0)), by_hand(guide)) < 1e-9


def test_classifiers_of_both_weights_one_are_the_cross_entropy():
    x0, label = torch.randn(BATCH, D), torch.tensor([1, 3])
    network = Classes()
    plain = sg.objectives.Classifier(network, label)(x0)
    assert torch.equal(plain, nn.functional.cross_entropy(network(x0), label, reduction="none"))
    near = sg.objectives.Classifier(network, label, marginal=1 + 1e-12)(x0)
    assert torch.allclose(near, plain)
    with pytest.raises(ConfigError, match="must be positive"):
        sg.objectives.Classifier(network, label, joint=0)


def test_softened_swaps_every_relu_of_a_copy():
    network = Classes()
    x0 = torch.randn(50, D)
    plain = network(x0)
    copied = sg.objectives.softened(network)
    assert sum(isinstance(m, nn.Softplus) for m in copied.modules()) == 2
    assert not any(isinstance(m, nn.ReLU) for m in copied.modules())
    assert torch.equal(network(x0), plain)
    assert relative(copied(x0), plain) > 1e-3
    assert relative(sg.objectives.softened(network, beta=1e4)(x0), plain) < 1e-3  # where softplus is the ReLU
    assert isinstance(sg.objectives.softened(nn.ReLU()), nn.Softplus)
    with pytest.raises(ConfigError, match="Linear has no ReLU modules to soften"):
        sg.objectives.softened(nn.Linear(2, 2))


class Watched:
    """Adam between two recorders."""

    def __init__(self, **settings):
        self.given, self.made = [], []
        self.rule = rules.chain(self._keep(self.given), rules.adam(0.8, 0.9), self._keep(self.made))
        self.recipe = sg.FreeDoM(squares, scale=0.1, update=self.rule, **settings)

    def _keep(self, into):
        def kept(gradient, step, loss):
            into.append(gradient.clone())
            return gradient

        return kept


@pytest.mark.parametrize("settings", [{}, {"repeats": 3}, {"window": (0.2, 0.7)}, {"constraint": sg.Sphere(0.2)}])
def test_adam_is_torchs_adam_over_the_gradients_of_a_run(settings):
    watched = Watched(**settings)
    for seed in range(2):  # the second run begins anew
        watched.given.clear()
        watched.made.clear()
        sg.sample(tiny(), batch=BATCH, steps=6, seed=seed, loss=watched.recipe)
        parameter = torch.zeros(BATCH, D, requires_grad=True)
        theirs = torch.optim.Adam([parameter], lr=1.0, betas=(0.8, 0.9), eps=1e-8)
        expected = {"repeats": 18, "window": 3, "constraint": 5}.get(next(iter(settings), ""), 6)
        assert len(watched.given) == len(watched.made) == expected
        for given, made in zip(watched.given, watched.made, strict=True):
            before, parameter.grad = parameter.detach().clone(), given
            theirs.step()
            assert torch.allclose(before - parameter.detach(), made, rtol=1e-9)


def test_adam_dps_is_the_published_loop():
    m, v = torch.zeros(BATCH, D), torch.zeros(BATCH, D)

    def guide(denoiser, i, x, t, bars, std, x0, mean, z):
        nonlocal m, v
        g = gradient(lambda x: -(denoiser(x, t[i]).x0 - 0.5).norm(dim=1), x)
        m, v = 0.7 * m + 0.3 * g, 0.6 * v + 0.4 * g**2
        m_hat, v_hat = m / (1 - 0.7 ** (i + 1)), v / (1 - 0.6 ** (i + 1))
        step = 0.05 * m_hat / (v_hat.sqrt() + 1e-8)
        return mean + std * z + step * min(math.sqrt(bars[i + 1] / bars[i]), 2.0)

    assert relative(sample(sg.AdamDPS(squares, scale=0.05, beta1=0.7, beta2=0.6)), by_hand(guide)) < 1e-9


def test_a_recipe_with_state_may_be_used_again_and_is_not_moved_by_bad_gradients():
    recipe = sg.AdamDPS(squares)
    once = sample(recipe)
    sample(recipe, steps=3)
    assert torch.equal(sample(recipe), once)

    calls = []

    def bad_at_first(x0):
        calls.append(1)
        return squares(x0) + torch.tensor([0.0, math.nan if len(calls) == 1 else 0.0])

    later = sg.AdamDPS(squares, window=(1 / STEPS, 1.0))
    skipped = sample(sg.AdamDPS(bad_at_first), on_nan="skip")
    assert torch.allclose(skipped[1], sample(later)[1])
    assert torch.allclose(skipped[0], once[0])


def test_rules_of_every_recipe_begin_anew():
    for make in (
        lambda: sg.MPGD(squares, update=rules.adam()),
        lambda: sg.UniversalGuidance(squares, update=rules.chain(rules.chain(rules.adam()), rules.scale(0.1))),
        lambda: sg.TFG(squares, rho=rules.adam(), mu=rules.adam()),
    ):
        recipe = make()
        assert torch.equal(sample(recipe), sample(recipe))


@pytest.mark.parametrize("draws", [1, 3])
def test_abms_moves_the_noise_as_published(draws):
    def guide(denoiser, i, x, t, bars, std, x0, mean, z):
        if i == STEPS - 1:
            return mean
        noises = [z] if draws == 1 else drawn("smooth", i, draws)
        moves = [
            -math.sqrt(D) * 0.3 * unit(gradient(lambda n: quartic(denoiser(mean + std * n, t[i + 1]).x0), noise))
            for noise in noises
        ]
        return mean + std * (z + sum(moves) / draws)

    assert relative(sample(sg.ABMS(quartic, scale=0.3, samples=draws)), by_hand(guide)) < 1e-9


def test_abms_looks_on_from_s():
    """n calls from s are the look-ahead's, whose gradient is checked elsewhere."""
    denoiser, seen = tiny(), []

    def update(gradient, step, loss):
        seen.append((step.x_s(), step.s, gradient))
        return 0 * gradient

    sg.sample(denoiser, batch=BATCH, steps=4, loss=sg.ABMS(quartic, n=3, update=update))
    assert len(seen) == 3
    for x_s, s, got in seen:
        assert torch.equal(got, sg.lookahead_gradient(tiny(), x_s, s, quartic, 3).value)


def test_abms_leaves_two_stage_samplers_their_calls():
    """The mean of the step is made once: 2 calls of a midpoint step, and 1 for the gradient."""
    trace = sg.sample(tiny(), steps=4, solver="midpoint", loss=sg.ABMS(squares)).trace
    assert [(r.forward_calls, r.backward_calls) for r in trace] == [(3, 1)] * 3 + [(2, 0)]


def test_dreamguider_is_a_loop_over_augmented_copies():
    def guide(denoiser, i, x, t, bars, std, x0, mean, z):
        total = torch.zeros(BATCH, D)
        for noise in drawn("smooth", i, 3):
            for row in range(BATCH):
                a, b = noise[row, 0], noise[row, -1]
                copied = (1 + 0.1 * a) * x0[row : row + 1] + 0.1 * b
                total[row] += (1 + 0.1 * a) * gradient(quartic, copied)[0] / 3
        return mean + std * z - 0.4 * math.sqrt(D) * std * unit(total)

    assert relative(sample(sg.Dreamguider(quartic, scale=0.4, samples=3)), by_hand(guide)) < 1e-9


def test_dreamguider_with_an_augmentation_that_does_nothing_is_its_rule_at_the_estimate():
    plain = sg.SAG(quartic, n=1, scale=0.4, jacobian="identity")
    nothing = sg.Dreamguider(quartic, scale=0.4, samples=2, augment=lambda x0, noise: x0)
    assert relative(sample(nothing), sample(plain)) < 1e-12


NEW = {
    "tfg": sg.TFG,
    "tfg-paper": lambda o, **k: sg.TFG.paper(o, rho=0.01, mu=0.01, **k),
    "abms": sg.ABMS,
    "adam-dps": sg.AdamDPS,
    "ecm": lambda o, **k: sg.ECM(o, scale=0.1, **k),
    "elucd": sg.EluCD,
    "dreamguider": sg.Dreamguider,
}


@pytest.mark.parametrize("shape", [(6,), (2, 4, 4), (2, 3, 4, 4)])
@pytest.mark.parametrize("schedule", ["flow", "ve", "vp-cosine"])
@pytest.mark.parametrize("name", NEW)
def test_any_shape_and_schedule_with_cfg_and_the_sphere(name, schedule, shape):
    settings = {"batch": 2, "steps": 4, "condition": {"label": 1}, "prediction": sg.CFG(2.0)}
    for extra in ({}, {"constraint": sg.Sphere(0.2)}):
        recipe = NEW[name](soft_of_any_shape, **extra)
        result = sg.sample(tiny(schedule, "v", shape), loss=recipe, **settings)
        plain = sg.sample(tiny(schedule, "v", shape), **settings).samples
        assert result.samples.shape == (2, *shape)
        assert result.samples.isfinite().all()
        assert relative(result.samples, plain) > 1e-6


def soft_of_any_shape(x0):
    return torch.tanh(x0 - 0.5).square().flatten(1).sum(dim=1)


def test_the_published_sag_takes_steps_without_noise_between_its_jumps():
    """Its loop in alphas_cumprod: CFG, DDIM with eta = 0, four calls ahead, rho of 0.2, and each guided step twice."""
    told = {"condition": {"label": [0, 1]}, "prediction": sg.CFG(4.0)}
    denoiser, label = tiny(), torch.tensor([0, 1])
    t, x = [1 - i / STEPS for i in range(STEPS)] + [0.0], drawn("start", 0)
    x_s = x

    def eps(x, t):
        with_, without = (denoiser(x, t, label=y).eps for y in (label, torch.full_like(label, 4)))
        return without + 4.0 * (with_ - without), 4.0 * (with_ - without)

    def ddim(x, t, s):
        alpha, sigma, alpha_s, sigma_s = (
            f(r) for r in (t, s) for f in (denoiser.schedule.alpha, denoiser.schedule.sigma)
        )
        return alpha_s * (x - sigma * eps(x, t)[0]) / alpha + sigma_s * eps(x, t)[0]

    for i in range(STEPS):
        guided = 0.3 <= i / STEPS < 0.7
        for repeat in range(2 if guided else 1):
            if repeat:
                bar, bar_s = (denoiser.schedule.alpha(r) ** 2 for r in (t[i], t[i + 1]))
                x = math.sqrt(bar / bar_s) * x_s + math.sqrt(1 - bar / bar_s) * drawn("travel", i)
            x_s = ddim(x, t[i], t[i + 1]).detach()
            if guided:
                leaf = y = x.clone().requires_grad_()
                for k in range(4):
                    y = ddim(y, t[i] * (1 - k / 4), t[i] * (1 - (k + 1) / 4))
                g = torch.autograd.grad(quartic(y).sum(), leaf)[0]
                size = eps(x, t[i])[1].detach().square().mean(dim=1, keepdim=True).sqrt()
                x_s = x_s - 0.2 * size * g / g.square().mean(dim=1, keepdim=True).sqrt()
        x = x_s
    assert relative(sample(sg.SAG.paper(quartic), **told), x) < 1e-9
    assert relative(sample(sg.SAG.paper(quartic), eta=1.0, **told), x) > 1e-3
