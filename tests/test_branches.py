"""Rules as generators of branches: what they make, what they cost, what they leave as it was."""

import threading

import pytest
import torch
from conftest import Tiny, quartic, relative, tiny
from torch import nn

import symguide as sg
from symguide.branch import Branch, Rule
from symguide.call import GuidedPredictor
from symguide.closed_form import MixtureDenoiser
from symguide.edits import Capture, Edit, attention_identity, skipped
from symguide.errors import ConfigError, GuidanceError

CONDITION = {"label": [3, 5, 7]}
MAP = "middle.*.attention.softmax"


@pytest.fixture(scope="module")
def digits():
    return sg.load("digits", dtype=torch.float64)


@pytest.fixture(scope="module")
def weak():
    torch.manual_seed(0)
    worse = sg.load("digits", dtype=torch.float64)
    with torch.no_grad():
        for weight in worse.network.parameters():
            weight += 0.02 * torch.randn_like(weight)
    return worse


class Blurred(Rule):
    """Asks twice: c's estimate first, then the model at a blurred one of it."""

    def calls(self, at):
        c = (yield {"c": Branch()})["c"]
        blurred = torch.nn.functional.avg_pool2d(c.x0, 3, 1, 1)
        schedule = at.denoiser.schedule
        k = (yield {"k": Branch(x=schedule.alpha(at.t) * blurred + schedule.sigma(at.t) * c.eps)})["k"]
        return c.with_x0(c.x0 + (c.x0 - k.x0))


class Retimed(Rule):
    """Away from what the network says where it is told another timestep."""

    def __init__(self, by):
        self.by = by

    def calls(self, at):
        timestep = at.denoiser.schedule.timestep(at.t) + self.by
        p = yield {"c": Branch(), "k": Branch(timestep=timestep)}
        return p["c"].with_value(2 * p["c"].value - p["k"].value)


def rules(weak):
    return {
        "cfg": (sg.CFG(2.0), 2),
        "cfg++": (sg.CFGPlusPlus(0.6), 2),
        "apg": (sg.APG(5.0, threshold=1.0), 2),
        "pag": (sg.PAG(MAP), 2),
        "autoguidance": (sg.Autoguidance(weak), 2),
        "blurred": (Blurred(), 2),
        "retimed": (Retimed(5.0), 2),
        "chain": (sg.chain(sg.CFG(2.0), sg.PAG(MAP, 2.0), sg.Autoguidance(weak)), 4),
    }


NAMES = ("cfg", "cfg++", "apg", "pag", "autoguidance", "blurred", "retimed", "chain")


def near(x0):
    return (x0 - 0.3).square().flatten(1).sum(dim=1)


@pytest.mark.parametrize("name", NAMES)
def test_exact_gradients_counts_and_batches(name, digits, weak):
    rule, calls = rules(weak)[name]
    told = {"condition": CONDITION, "prediction": rule}
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    leaf = x.clone().requires_grad_()
    expected = torch.autograd.grad(near(sg.lookahead(digits, leaf, 0.6, 4, **told).x0).sum(), leaf)[0]
    for memory in ("minimal", "fast", 0):
        got = sg.lookahead_gradient(digits, x, 0.6, near, 4, memory=memory, **told)
        assert relative(got.value, expected) < 1e-12
    whole = sg.sample(digits, batch=3, steps=4, loss=sg.SAG(near, n=2), **told)
    alone = sg.sample(digits, indices=[1], steps=4, loss=sg.SAG(near, n=2), condition={"label": [5]}, prediction=rule)
    assert torch.allclose(alone.samples[0], whole.samples[1], atol=1e-11)
    assert whole.cost.forward_calls == calls * (3 * 3 + 1)
    assert not any(m._forward_hooks for each in (digits, weak) for m in each.network.modules())


@pytest.mark.parametrize("predicts", ["eps", "v", "x0", "flow"])
def test_rules_are_what_they_say(predicts):
    """Against formulas written out with calls of the network one by one."""
    denoiser, weak, x, t = tiny(predicts=predicts), tiny(predicts=predicts, seed=1), torch.randn(3, 6), 0.6
    label = torch.tensor([0, 1, 2])
    c, u = denoiser(x, t, label=label), denoiser(x, t, label=torch.full((3,), 4))
    k = weak(x, t, label=label)

    def at(rule):
        return sg.lookahead(denoiser, x, t, 1, condition={"label": label}, prediction=rule).first

    assert relative(at(sg.CFG(2.5)).value, u.value + 2.5 * (c.value - u.value)) < 1e-12
    assert relative(at(sg.Autoguidance(weak, 2.5)).x0, k.x0 + 2.5 * (c.x0 - k.x0)) < 1e-12
    both = sg.chain(sg.CFG(2.5), sg.Autoguidance(weak, 1.5))
    expected = u.x0 + 2.5 * (c.x0 - u.x0) + k.x0 + 1.5 * (c.x0 - k.x0) - c.x0
    assert relative(at(both).x0, expected) < 1e-12
    told = denoiser.network(x, torch.full((3,), denoiser.schedule.timestep(t) + 50.0), label=label)
    assert relative(at(Retimed(50.0)).value, 2 * c.value - told) < 1e-12
    other = tiny(predicts="v" if predicts == "x0" else "x0", seed=1)
    k = other(x, t, label=label)
    assert relative(at(sg.Autoguidance(other, 2.5)).x0, k.x0 + 2.5 * (c.x0 - k.x0)) < 1e-12


def today(rule, denoiser, x, t, condition):
    """CFG, CFG++ and APG as they were before rules asked for branches, frozen here."""
    label = torch.as_tensor(condition["label"])
    null = torch.full((len(x),), denoiser.null["label"])
    u, c = denoiser(torch.cat([x, x]), t, label=torch.cat([null, label])).chunk(2)
    if isinstance(rule, sg.CFG):
        return u.value + rule.scale * (c.value - u.value)
    if isinstance(rule, sg.CFGPlusPlus):
        return u.x0 + rule.scale * (c.x0 - u.x0)
    d = c.x0 - u.x0
    length = torch.linalg.vector_norm(d.flatten(1), dim=1)[:, None, None, None]
    d = d * (rule.threshold / length.clamp_min(torch.finfo(d.dtype).tiny)).clamp_max(1.0)

    def dot(a, b):
        return (a * b).flatten(1).sum(dim=1)[:, None, None, None]

    along = c.x0 * (dot(d, c.x0) / dot(c.x0, c.x0).clamp_min(torch.finfo(d.dtype).tiny))
    return c.x0 + (rule.scale - 1) * (d - along + rule.parallel * along)


@pytest.mark.parametrize("rule", [sg.CFG(2.0), sg.CFGPlusPlus(0.6), sg.APG(5.0, 1.5, 0.3)], ids=["cfg", "cfg++", "apg"])
def test_to_the_last_bit_what_they_were(rule, digits):
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    got = sg.lookahead(digits, x, 0.6, 1, condition=CONDITION, prediction=rule).first
    assert torch.equal(got.value, today(rule, digits, x, 0.6, CONDITION))


def off(weak):
    return {
        "cfg": sg.CFG(1.0),
        "apg": sg.APG(1.0, momentum=-0.5),
        "pag": sg.PAG("no.such", 0.0),
        "autoguidance": sg.Autoguidance(weak, 1.0),
        "interval": sg.Interval(sg.CFG(3.0), 1e6, 1e7),
        "chain": sg.chain(sg.PAG("no.such", 0.0), sg.CFG(1.0)),
    }


@pytest.mark.parametrize("name", ["cfg", "apg", "pag", "autoguidance", "interval", "chain"])
def test_off_is_off_to_the_last_bit_and_costs_nothing(name, weak):
    denoiser = tiny()
    settings = {"batch": 3, "steps": 4, "condition": {"label": [0, 1, 2]}}
    plain, rows = sg.sample(denoiser, **settings), denoiser.network.forward_rows
    got = sg.sample(denoiser, prediction=off(weak)[name], **settings)
    assert torch.equal(got.samples, plain.samples) and denoiser.network.forward_rows == 2 * rows


def test_what_is_off_in_a_chain_changes_no_bit(digits):
    settings = {"batch": 3, "steps": 4, "condition": CONDITION}
    alone = sg.sample(digits, prediction=sg.CFG(3.0), **settings)
    chained = sg.sample(digits, prediction=sg.chain(sg.CFG(3.0), sg.PAG(MAP, 0.0)), **settings)
    assert torch.equal(alone.samples, chained.samples) and alone.cost.forward_calls == chained.cost.forward_calls


@pytest.mark.parametrize("solver", ["ddim", "heun"])
def test_an_interval_is_of_the_noise_level_of_every_evaluation(solver):
    """Heun's second stage has its own; outside one call is made."""
    denoiser, told = tiny(), []
    given = denoiser.network.forward

    def forward(x, timestep, label=None):
        told.append((timestep[0].item(), len(x)))
        return given(x, timestep, label)

    denoiser.network.forward = forward
    sg.sample(
        denoiser,
        batch=1,
        steps=8,
        solver=solver,
        eta=0.0,
        condition={"label": [1]},
        prediction=sg.Interval(sg.CFG(3.0), 0.5, 2.0),
    )
    ratio = {t: denoiser.schedule.ratio(denoiser.schedule.at_timestep(t)) for t, _ in told}
    assert all((rows == 2) == (0.5 < ratio[t] <= 2.0) for t, rows in told)
    assert {rows for _, rows in told} == {1, 2}


def test_autoguidance_of_a_mixture_in_closed_form():
    """k + w (c - k), of two closed forms, whichever of them is the weak one."""
    means = torch.tensor([[-2.0], [2.0]])
    good, bad = MixtureDenoiser(means, 0.1 * torch.eye(1)), MixtureDenoiser(means, 1.5 * torch.eye(1))
    x = torch.linspace(-3, 3, 7)[:, None]
    got = sg.lookahead(good, x, 0.5, 1, prediction=sg.Autoguidance(bad, 2.0)).x0
    assert relative(got, 2 * good(x, 0.5).x0 - bad(x, 0.5).x0) < 1e-12
    with pytest.raises(ConfigError, match="take one of the same schedule"):
        sg.lookahead(
            good, x, 0.5, 1, prediction=sg.Autoguidance(MixtureDenoiser(means, torch.eye(1), schedule=sg.VE(20.0)))
        )
    with pytest.raises(ConfigError, match="is told no timestep"):
        sg.lookahead(good, x, 0.5, 1, prediction=Retimed(5.0))


def test_the_weak_model_is_counted_and_frozen_with_the_run():
    denoiser, weak, seen = tiny(), tiny(seed=1), []
    weak.network.register_forward_hook(lambda m, given, made: seen.append(m.inner.requires_grad))
    run = sg.sample(
        denoiser, batch=2, steps=3, condition={"label": [0, 1]}, prediction=sg.Autoguidance(weak), loss=sg.SAG(quartic)
    )
    rows = [each.network.forward_rows for each in (denoiser, weak)]
    assert rows[0] == rows[1] and 2 * run.cost.forward_calls == sum(rows)
    assert 2 * run.cost.backward_calls == sum(each.network.backward_rows for each in (denoiser, weak))
    assert seen and not any(seen) and weak.network.inner.requires_grad
    with pytest.raises(GuidanceError, match="training mode"):
        train = sg.Denoiser(nn.Sequential(nn.Dropout()).train(), denoiser.schedule)
        sg.sample(denoiser, batch=2, steps=3, prediction=sg.Autoguidance(train))


class Remembers(Rule):
    """Adds what the step before kept, and says who kept what."""

    def __init__(self):
        self.log = []

    by_step = True

    def calls(self, at):
        c = (yield {"c": Branch()})["c"]
        before = at.recall("x0", torch.zeros_like(c.x0))
        at.keep("x0", c.x0)
        self.log.append((at.t, at.own, before[:, 0].tolist()))
        return c.with_value(c.value + 0.1 * before)


@pytest.mark.parametrize("loss", [None, sg.SAG(quartic, n=3, repeats=2)], ids=["plain", "guided"])
@pytest.mark.parametrize("solver", ["ddim", "heun"])
def test_the_samplers_own_prediction_alone_is_remembered_once_a_step(loss, solver):
    rule = Remembers()
    run = sg.sample(tiny(), batch=2, steps=4, solver=solver, prediction=rule, loss=loss)
    times = [line.t for line in run.trace]
    own = [t for t, mine, _ in rule.log if mine]
    assert sorted(set(own), reverse=True) == times and len(own) == (
        4 if loss is None else 7
    )  # the last one is not repeated
    for t in times:  # within a step everybody is told the same, whatever was kept meanwhile
        place = [i for i, (time, mine, _) in enumerate(rule.log) if mine and time == t]
        end = next((i for i, (time, mine, _) in enumerate(rule.log) if mine and time < t), len(rule.log))
        assert len({tuple(before) for _, _, before in rule.log[place[0] : end]}) == 1
    assert rule.log[0][2] == [0.0, 0.0] and rule.log[-1][2] != [0.0, 0.0]


def test_momentum_is_the_papers():
    """A loop of its own: DDIM, with the running sum m <- (c - u) + beta m."""
    denoiser, label = tiny(), torch.tensor([0, 1, 2])
    settings = {"batch": 3, "steps": 5, "eta": 0.0, "condition": {"label": label}, "return_trajectory": True}
    run = sg.sample(denoiser, prediction=sg.APG(5.0, 0.8, 0.2, momentum=-0.5), **settings)
    m = 0.0
    for line, x, x_s in zip(run.trace, run.trajectory, run.trajectory[1:], strict=False):
        c, u = denoiser(x, line.t, label=label).x0, denoiser(x, line.t, label=torch.full((3,), 4)).x0
        m = (c - u) - 0.5 * m
        d = m * (0.8 / m.norm(dim=1, keepdim=True)).clamp_max(1.0)
        along = c * (d * c).sum(dim=1, keepdim=True) / c.square().sum(dim=1, keepdim=True)
        x0 = c + 4.0 * (d - along + 0.2 * along)
        schedule = denoiser.schedule
        eps = (x - schedule.alpha(line.t) * x0) / schedule.sigma(line.t)
        assert relative(x_s, schedule.alpha(line.s) * x0 + schedule.sigma(line.s) * eps) < 1e-10
    plain = sg.sample(denoiser, prediction=sg.APG(5.0, 0.8, 0.2), **settings)
    assert torch.equal(
        plain.samples, sg.sample(denoiser, prediction=sg.APG(5.0, 0.8, 0.2, momentum=0.0), **settings).samples
    )
    assert relative(run.samples, plain.samples) > 1e-3


def test_momentum_of_a_sample_is_its_own_and_gradients_know_it():
    denoiser, rule = tiny(), sg.APG(5.0, momentum=-0.5)
    whole = sg.sample(denoiser, batch=3, steps=4, condition={"label": [0, 1, 2]}, prediction=rule, loss=sg.SAG(quartic))
    alone = sg.sample(denoiser, indices=[1], steps=4, condition={"label": [1]}, prediction=rule, loss=sg.SAG(quartic))
    assert torch.allclose(alone.samples[0], whole.samples[1], atol=1e-12)

    class Compares(sg.SAG):
        def guide(self, step):
            leaf = step.x.clone().requires_grad_()
            with torch.enable_grad():
                x0 = step.run.predict(leaf, step.t).x0
            expected = torch.autograd.grad(quartic(x0).sum(), leaf)[0]
            got = step.lookahead_gradient(quartic, 1)[0]
            assert relative(got, expected) < 1e-12
            return super().guide(step)

    sg.sample(denoiser, batch=3, steps=4, condition={"label": [0, 1, 2]}, prediction=rule, loss=Compares(quartic, n=2))
    for ask in (
        lambda: sg.lookahead(denoiser, torch.randn(1, 6), 0.5, condition={"label": [1]}, prediction=rule),
        lambda: sg.optimise(denoiser, quartic, sg.DOODL(), condition={"label": [1]}, prediction=rule),
    ):
        with pytest.raises(ConfigError, match="APG asks for the memory of a run"):
            ask()


class Best:
    """Resamples: every row becomes a copy of its sample's last one."""

    particles = 2

    def move(self, step, x_s):
        parents = torch.arange(len(x_s)) // 2 * 2 + 1
        return sg.Moved(x_s[parents], parents)

    def choose(self, samples, log_weights):
        return torch.arange(0, len(samples), 2)


def test_what_is_remembered_goes_with_the_particles():
    rule = Remembers()
    sg.sample(tiny(), batch=2, steps=3, prediction=rule, particles=Best())
    for _, own, before in rule.log:
        assert not own or (before[0] == before[1] and before[2] == before[3])
    assert rule.log[-1][2][0] != rule.log[-1][2][2]


class Drawn(Rule):
    """A little noise of two names in the prediction."""

    by_step = True

    def __init__(self):
        self.seen = []

    def calls(self, at):
        c = (yield {"c": Branch()})["c"]
        one, two = at.noise("one"), at.noise("two", (3,))
        assert two.shape == (len(at.x), 3)
        self.seen.append((at.t, one, two))
        return c.with_value(c.value + 0.1 * one)


def test_noise_is_of_the_sample_and_of_the_step():
    rule = Drawn()
    whole = sg.sample(tiny(), batch=3, steps=3, prediction=rule, loss=sg.SAG(quartic, n=2))
    alone = sg.sample(tiny(), indices=[2], steps=3, prediction=Drawn(), loss=sg.SAG(quartic, n=2))
    assert torch.allclose(alone.samples[0], whole.samples[2], atol=1e-12)
    draws = {tuple(one.flatten().tolist()) for _, one, _ in rule.seen}
    assert len(draws) == 3 < len(rule.seen)  # one for each step, whoever looks ahead in it
    assert not torch.equal(rule.seen[0][1][:, :3], rule.seen[0][2])
    with pytest.raises(ConfigError, match="Drawn asks for the noise of a run"):
        sg.lookahead(tiny(), torch.randn(1, 6), 0.5, prediction=Drawn())
    Careless = type("Careless", (Drawn,), {"by_step": False})
    with pytest.raises(ConfigError, match="by_step must be True"):
        sg.sample(tiny(), steps=2, prediction=Careless())


def test_a_prediction_made_ahead_is_not_taken_where_it_depends_on_the_step():
    class Ahead(Best):
        def move(self, step, x_s):
            return sg.Moved(x_s, first=step.predict_at(x_s, step.s) if step.s > 0 else None)

    kept, plain = Remembers(), Remembers()
    got = sg.sample(tiny(), batch=2, steps=3, prediction=kept, particles=Ahead())
    expected = sg.sample(
        tiny(), batch=2, steps=3, prediction=plain, particles=type("Idle", (Best,), {"move": lambda s, step, x: x})()
    )
    assert torch.equal(got.samples, expected.samples)


def test_rules_are_values():
    assert sg.CFG(2.0) == sg.CFG(2.0) != sg.CFG(3.0)
    assert sg.chain(sg.CFG(2.0), sg.PAG("a")) == sg.chain(sg.CFG(2.0), sg.PAG("a"))
    assert sg.chain(sg.CFG(2.0)) == sg.CFG(2.0)


@pytest.mark.parametrize(
    "make, why",
    [
        (lambda: sg.PAG(3.0), "PAG takes names of modules"),
        (lambda: sg.Autoguidance("scenes-weak"), "takes a weaker denoiser"),
        (lambda: sg.Interval(3.0, 0, 1), "Interval takes a rule"),
        (lambda: sg.Interval(sg.CFG(3.0), 2, 1), "low < high"),
        (lambda: sg.chain(sg.CFG(3.0), 2.0), "chain takes rules"),
        (lambda: sg.chain(sg.CFG(3.0), sg.CFGPlusPlus(0.6)), "cannot be chained"),
        (lambda: sg.APG(3.0, momentum=1.0), "momentum lies between"),
        (lambda: sg.CFG("3"), "scale of CFG must be a finite number"),
    ],
)
def test_settings_are_checked(make, why):
    with pytest.raises(ConfigError, match=why):
        make()


def test_two_threads_ask_one_network_for_different_edits(digits):
    jobs = {"plain": None, "pag": sg.PAG(MAP), "more": sg.PAG("*.*.*.attention.softmax", 2.0)}
    drawn = {name: sg.sample(digits, batch=2, steps=5, prediction=rule).samples for name, rule in jobs.items()}
    wrong = []

    def job(name):
        again = [sg.sample(digits, batch=2, steps=5, prediction=jobs[name]).samples for _ in range(4)]
        wrong.extend(name for samples in again if not torch.equal(samples, drawn[name]))

    threads = [threading.Thread(target=job, args=(name,)) for name in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len({tuple(x.flatten().tolist()) for x in drawn.values()}) == 3
    assert not any(m._forward_hooks for m in digits.network.modules())


def test_everything_knows_rules(digits):
    """optimise, frames and particles, beside the rest."""
    rule = sg.PAG(MAP)
    start = sg.optimise(digits, near, sg.DFlow(iterations=0), batch=2, steps=3, prediction=rule).samples
    assert torch.equal(start, sg.sample(digits, batch=2, steps=3, eta=0.0, prediction=rule).samples)
    kept = sg.sample(
        digits, batch=2, steps=3, condition={"label": [1, 2]}, particles=sg.BestOfN(near, 2), prediction=rule
    )
    assert kept.samples.shape == (2, 1, 8, 8)
    frames = sg.Denoiser(lambda x, timestep: 0.5 * x * timestep[:, :, None] / 1000, shape=(3, 2))
    with pytest.raises(ConfigError, match="no one that lies in an interval"):
        sg.lookahead(frames, torch.randn(2, 3, 2), (0.2, 0.5, 0.9), 2, prediction=sg.Interval(sg.CFG(2.0), 0, 1))


# ---- edits


def blocks():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 4))


def test_an_edit_is_of_its_own_rows():
    network, x = blocks(), torch.randn(4, 4)
    plain = network(x)
    half = Edit("1.1", lambda made, part: 0.5 * made)
    with half.on(network, slice(2, 4), 4):
        got = network(x)
    assert torch.equal(got[:2], plain[:2]) and torch.equal(got[2:], network[2](0.5 * network[1](network[0](x)))[2:])
    with skipped("1").on(network, slice(0, 1), 4), half.on(network, slice(3, 4), 4):
        got = network(x)
    assert torch.equal(got[1:3], plain[1:3]) and torch.allclose(got[0], network[2](network[0](x))[0])
    assert torch.allclose(got[3], network[2](0.5 * network[1](network[0](x)))[3])
    seen = Capture("*.1")
    with seen.on(network, slice(1, 3), 4):
        assert torch.equal(network(x), plain)
    assert torch.equal(seen.made["1.1"], network[1](network[0](x))[1:3])
    assert torch.equal(network(x), plain) and not any(m._forward_hooks for m in network.modules())


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_everything_is_restored_after_errors(error):
    network, x = blocks(), torch.randn(2, 4)
    plain = network(x)

    def fail(made, part):
        raise error("here")

    for _ in range(2):
        with (
            pytest.raises(error, match="here"),
            skipped("0").on(network, slice(0, 1), 2),
            Edit("1.*", fail).on(network, slice(0, 1), 2),
        ):
            network(x)
        assert torch.equal(network(x), plain) and not any(m._forward_hooks for m in network.modules())


def test_other_threads_pass_an_edit_unchanged():
    network, x, there = blocks(), torch.randn(2, 4), []
    plain = network(x)
    with skipped("1").on(network, slice(0, 2), 2):
        thread = threading.Thread(target=lambda: there.append(network(x)))
        thread.start()
        thread.join()
        assert not torch.equal(network(x), plain)
    assert torch.equal(there[0], plain)


@pytest.mark.parametrize("pattern", [MAP, "middle.0"])
def test_checkpoints_carry_edits_along(pattern, digits):
    edit = attention_identity(pattern) if pattern == MAP else skipped(pattern)

    class Edited(Rule):
        def calls(self, at):
            p = yield {"c": Branch(), "k": Branch(edit=edit)}
            return p["c"].with_value(2 * p["c"].value - p["k"].value)

    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))

    def gradient(blocks, memory):
        with sg.checkpointed(digits.network, *blocks):
            return sg.lookahead_gradient(digits, x, 0.6, near, 3, memory=memory, prediction=Edited()).value

    leaf = x.clone().requires_grad_()
    plain = torch.autograd.grad(near(sg.lookahead(digits, leaf, 0.6, 3, prediction=Edited()).x0).sum(), leaf)[0]
    for memory in ("minimal", "fast"):
        for blocks in (("middle.*",), ("middle.0.attention", "up.*.*"), ("down.*.*", "middle.*", "up.*.*")):
            assert relative(gradient(blocks, memory), plain) < 1e-12
    with sg.checkpointed(digits.network, "middle.*"):
        leaf = x.clone().requires_grad_()
        loss, made = near(sg.lookahead(digits, leaf, 0.6, 3, prediction=Edited()).x0).sum(), []
        thread = threading.Thread(target=lambda: made.append(torch.autograd.grad(loss, leaf)[0]))
        thread.start()  # as a GPU's backward pass is in a thread of its own
        thread.join()
    assert relative(made[0], plain) < 1e-12
    unedited = sg.lookahead_gradient(digits, x, 0.6, near, 3).value
    assert relative(unedited, plain) > 1e-3 and not any(m._forward_hooks for m in digits.network.modules())


class Checkpointing(nn.Module):
    """A network with a checkpoint of its own."""

    def __init__(self, reentrant):
        super().__init__()
        self.inner, self.reentrant = blocks().double(), reentrant

    def forward(self, x, timestep):
        return torch.utils.checkpoint.checkpoint(self.inner, x, use_reentrant=self.reentrant)


@pytest.mark.parametrize("ours", [False, True], ids=["", "with ours inside"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_other_checkpoints_are_refused_where_they_would_forget_an_edit(reentrant, ours):
    denoiser = sg.Denoiser(Checkpointing(reentrant), shape=(4,))

    class Edited(Rule):
        def calls(self, at):
            return (yield {"k": Branch(edit=skipped("inner.1.0"))})["k"]

    x = torch.randn(2, 4)
    blocks = ["inner.1"] if ours else []
    with sg.checkpointed(denoiser.network, *blocks), pytest.raises(GuidanceError, match=r"use symguide\.checkpointed"):
        sg.lookahead_gradient(denoiser, x, 0.6, quartic, 2, prediction=Edited())
    with torch.no_grad():
        assert sg.lookahead(denoiser, x, 0.6, 2, prediction=Edited()).x0.shape == (2, 4)
    assert not any(m._forward_hooks for m in denoiser.network.modules())


def test_compiled_networks_are_refused(digits):
    compiled = torch.compile(digits.network, backend="eager")
    inner = blocks()
    inner[1].compile(backend="eager")
    for network, pattern in ((compiled, MAP), (inner, "1.0"), (inner, "1")):
        with (
            pytest.raises(ConfigError, match=r"torch\.compile has compiled"),
            skipped(pattern).on(network, slice(0, 1), 1),
        ):
            pass


def test_edits_say_what_they_cannot_do(digits):
    x, t = torch.zeros(2, 1, 8, 8), torch.zeros(2)
    for edit, why in (
        (attention_identity("middle.0.attention"), "does not know what middle.0.attention, a SelfAttention, gives"),
        (skipped("input"), "input cannot be skipped, as it makes"),
    ):
        with pytest.raises(GuidanceError, match=why), edit.on(digits.network, slice(0, 1), 2):
            digits.network(x, t)
    with (
        pytest.raises(GuidanceError, match="gives 2 rows for a batch of 4"),
        skipped("middle.0").on(digits.network, slice(0, 1), 4),
    ):
        digits.network(x, t)
    with (
        pytest.raises(ConfigError, match="names no module of UNet, which has"),
        skipped("midle.0").on(digits.network, slice(0, 1), 2),
    ):
        pass
    with pytest.raises(ConfigError, match=r"that is a torch\.nn\.Module, not function"):
        sg.sample(sg.Denoiser(lambda x, timestep: x, shape=(4,)), steps=1, prediction=sg.PAG("a"))
    cross = sg.load("scenes", dtype=torch.float64)
    with pytest.raises(GuidanceError, match="a CrossSoftmax, gives where tokens see themselves alone"):
        sg.sample(
            cross,
            steps=1,
            condition={"caption": torch.zeros(1, 16, dtype=int)},
            prediction=sg.PAG("middle.*.cross.softmax"),
        )


def test_time_is_edited_too(digits):
    """A module that embeds the timestep, with what was added to it, is one that was told another one."""
    timestep = torch.full((2,), 300.0)
    later = digits.network.embed_time(timestep + 40, 2) - digits.network.embed_time(timestep, 2)
    x = torch.randn(2, 1, 8, 8)
    with Edit("time", lambda made, part: made + later[:1]).on(digits.network, slice(1, 2), 2):
        got = digits.network(x, timestep)
    assert torch.allclose(got[1], digits.network(x, timestep + 40)[1]) and torch.equal(
        got[0], digits.network(x, timestep)[0]
    )


def test_the_counter_in_the_network_agrees():
    denoiser = tiny()
    assert isinstance(denoiser.network, Tiny)
    run = sg.sample(
        denoiser, batch=2, steps=3, condition={"label": [0, 1]}, prediction=sg.chain(sg.CFG(2.0), Retimed(9.0))
    )
    assert denoiser.network.forward_rows == 2 * run.cost.forward_calls == 2 * 3 * 3
    assert denoiser.network.calls == 3  # all branches in one call
    both = sg.chain(sg.CFG(2.0), sg.APG(3.0))
    run = sg.sample(denoiser, batch=2, steps=3, condition={"label": [0, 1]}, prediction=both)
    assert run.cost.forward_calls == 3 * 2 and denoiser.network.calls == 6  # u once for both


def test_a_null_condition_of_the_moment_is_that_of_the_moment():
    """A rule may make up another one in every call: nothing of the last one is left."""
    denoiser, asked = tiny(), []

    class Another(Rule):
        def calls(self, at):
            asked.append(len(asked) % 4)
            return (yield {"u": at.null({"label": asked[-1]})})["u"]

    x, rule, label = torch.randn(2, 6), Another(), torch.tensor([1, 2])
    predict = GuidedPredictor(denoiser, {"label": label}, rule)
    for i in range(9):
        assert torch.equal(predict(x, 0.5).value, denoiser(x, 0.5, label=torch.full((2,), i % 4)).value)
