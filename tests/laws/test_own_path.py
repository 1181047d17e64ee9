"""Law 8: a look-ahead along the run's own path is the gradient of what the run will do, with the noise it will draw."""

from itertools import pairwise

import pytest
import torch
from conftest import SCHEDULES, quartic, relative, tiny

import symguide as sg
from symguide import rules
from symguide.own_path import legs
from symguide.solver import SOLVERS
from symguide.step import Guided

STEPS = 6
PLANS = ("minimal", "fast", 2, 0, "auto")


class Asks:
    """Loss guidance that changes nothing: in one step it keeps a recipe's gradient of that step."""

    def __init__(self, recipe, at):
        self.recipe, self.at, self.step, self.gradient = recipe, at, None, None

    def prepare(self, run):
        self.recipe.prepare(run)

    def repeats_at(self, step):
        return self.recipe.repeats_at(step)

    def guide(self, step):
        if (step.index, step.visit, step.repeat) == self.at:
            self.step = step
            self.gradient, self.loss = self.recipe.gradient(step)


class Push:
    """A step hook that moves x in one step."""

    def __init__(self, at, by):
        self.at, self.by = at, by

    def before(self, step, x):
        return x + self.by if (step.index, step.visit, step.repeat) == self.at else x

    def after(self, step, x_s):
        return x_s


def asked(recipe, at, denoiser=None, **settings):
    """A recipe's gradient in one step of a run that nothing guides, with that step."""
    asks = Asks(recipe, at)
    sg.sample(denoiser or tiny(), batch=3, steps=STEPS, seed=5, loss=asks, **settings)
    return asks


def by_differences(recipe, at, direction, denoiser=None, h=2e-4, **settings):
    """The derivative of the loss of the samples of the run itself, by what x is in one step: of fourth order."""

    def loss(c):
        # repeats are those of a recipe that is on
        return quartic(
            sg.sample(
                denoiser or tiny(),
                batch=3,
                steps=STEPS,
                seed=5,
                loss=Asks(recipe, None),
                hooks=[Push(at, c * h * direction)],
                **settings,
            ).samples
        )

    f = [loss(c) for c in (-2, -1, 1, 2)]
    return (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h)


RUNS = {
    "plain": ((2, 0, 0), {}, {}),
    "half the noise": ((1, 0, 0), {"eta": 0.5}, {}),
    "none": ((1, 0, 0), {"eta": 0.0}, {}),
    "repeats": ((2, 0, 1), {}, {"repeats": 3, "window": (0.2, 0.8)}),
    "restart": ((1, 0, 0), {"restart": sg.Restart(0.2, 12.0, 1)}, {}),
    "the restart's steps": ((3, 1, 0), {"restart": sg.Restart(0.2, 12.0, 1)}, {"repeats": 2}),
    "guidance of the prediction": ((2, 0, 0), {"prediction": sg.CFG(3.0), "condition": {"label": [0, 1, 2]}}, {}),
}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", RUNS)
def test_all_calls_are_the_rest_of_the_run(name, solver):
    """Beside differences of the samples of the run, which know nothing of how its path is looked along."""
    at, run, settings = RUNS[name]
    recipe = sg.SAG(quartic, n="all", path="own", **settings)
    asks = asked(recipe, at, solver=solver, **run)
    direction = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    slope = by_differences(recipe, at, direction, solver=solver, **run)
    assert relative((asks.gradient * direction).sum(dim=1), slope) < 1e-6
    assert relative(asks.loss, quartic(sg.sample(tiny(), **same(recipe, solver, run)).samples)) < 1e-12


def same(recipe, solver, run):
    return {"batch": 3, "steps": STEPS, "seed": 5, "loss": Asks(recipe, None), "solver": solver, **run}


@pytest.mark.parametrize("solver", SOLVERS)
def test_where_the_run_ends_with_noise_the_clean_estimate_there_is_asked(solver):
    """By one call, whatever the solver."""
    recipe, denoiser = sg.SAG(quartic, n="all", path="own"), tiny()
    asks = asked(recipe, (1, 0, 0), until=0.2, solver=solver)
    end = sg.sample(denoiser, **same(recipe, solver, {"until": 0.2})).samples
    time = next(t for t in asks.step.run.times if t <= 0.2)
    assert relative(asks.loss, quartic(denoiser(end, time).x0.detach())) < 1e-12


def posterior(schedule, t, s, x0, x_t, z):
    """DDPM's step, by Bayes' rule: q(x_s | x_t, x_0) of q(x_s | x_0) and q(x_t | x_s)."""
    keep = schedule.alpha(t) / schedule.alpha(s)
    between = schedule.sigma(t) ** 2 - keep**2 * schedule.sigma(s) ** 2
    variance = 1 / (keep**2 / between + (1 / schedule.sigma(s) ** 2 if s > 0 else float("inf")))
    clean = schedule.alpha(s) * x0 / schedule.sigma(s) ** 2 if s > 0 else 0
    return x0 if s == 0 else variance * (keep * x_t / between + clean) + variance**0.5 * z


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_all_calls_equal_autograd_through_the_rest_of_the_sampler(schedule):
    denoiser = tiny(schedule, "flow" if schedule == "flow" else "eps")
    for plan in PLANS:
        asks = asked(sg.SAG(quartic, n="all", path="own", memory=plan), (1, 0, 0), denoiser)
        step, run = asks.step, asks.step.run
        leaf = x = step.x.clone().requires_grad_()
        for i in range(1, STEPS):
            t, s = run.times[i : i + 2]
            x = posterior(step.schedule, t, s, denoiser(x, t).x0, x, run.noise.draw("step", i))
        assert relative(asks.gradient, torch.autograd.grad(quartic(x).sum(), leaf)[0]) < 1e-12


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("n", [2, 3])
def test_a_leg_is_its_steps_with_the_clean_estimate_held(schedule, n):
    denoiser = tiny(schedule, "flow" if schedule == "flow" else "eps")
    ends = {2: (1, 4, 6), 3: (1, 3, 4, 6)}[n]  # of the five steps that are left
    for plan in PLANS:
        asks = asked(sg.SAG(quartic, n=n, path="own", memory=plan), (1, 0, 0), denoiser)
        step, run = asks.step, asks.step.run
        leaf = x = step.x.clone().requires_grad_()
        for begin, end in pairwise(ends):
            x0 = denoiser(x, run.times[begin]).x0
            for i in range(begin, end):
                x = posterior(step.schedule, *run.times[i : i + 2], x0, x, run.noise.draw("step", i))
        assert relative(asks.gradient, torch.autograd.grad(quartic(x).sum(), leaf)[0]) < 1e-12


@pytest.mark.parametrize("solver", SOLVERS)
def test_without_noise_it_is_the_look_ahead_on_the_grid_of_the_run(solver):
    asks = asked(sg.SAG(quartic, n="all", path="own"), (0, 0, 0), eta=0.0, solver=solver)
    times = asks.step.run.times
    n = {"heun": 2 * STEPS - 1, "midpoint": 2 * STEPS}.get(solver, STEPS)
    given = sg.lookahead_gradient(tiny(), asks.step.x, times[0], quartic, n, solver, lambda *_: times)
    assert relative(asks.gradient, given.value) < 1e-13
    one = asked(sg.SAG(quartic, n=1, path="own"), (2, 0, 0))
    assert torch.equal(one.gradient, asked(sg.FreeDoM(quartic), (2, 0, 0)).gradient)


def test_particles_follow_the_noise_of_their_rows():
    denoiser, at = tiny(), (2, 0, 0)
    particles = sg.BestOfN(lambda x0: -x0.sum(dim=1), 2)
    recipe, ends = sg.SAG(quartic, n="all", path="own"), {}
    asks = Asks(recipe, at)
    sg.sample(denoiser, batch=2, steps=STEPS, loss=asks, particles=particles, callback=lambda r, x: ends.update(x_0=x))
    assert asks.gradient.shape == (4, 6) and relative(asks.loss, quartic(ends["x_0"])) < 1e-12


@pytest.mark.parametrize(
    "recipe",
    [sg.DSG, sg.LGD, sg.TFG, sg.UniversalGuidance, sg.ABMS, sg.SAG],
    ids=lambda recipe: recipe.__name__,
)
def test_all_recipes_that_look_ahead_take_the_path(recipe):
    def draw(**settings):
        return sg.sample(tiny(), batch=2, steps=STEPS, loss=recipe(quartic, **settings)).samples

    ways = [draw(n=2), draw(n=2, path="own"), draw(n="all", path="own")]
    assert all(relative(a, b) > 1e-4 for a, b in pairwise(ways))


def test_abms_looks_from_where_the_step_leads():
    """One call from x_s on, and all: what is left from there."""
    seen = {}

    class Once(sg.ABMS):
        def push(self, step):
            seen[step.index] = step
            return super().push(step)

    sg.sample(tiny(), batch=3, steps=STEPS, loss=Once(quartic, scale=1e-300, n="all", path="own"))
    step = seen[2]
    gradient, _ = step.gradient_after(step.x_s(), quartic, None, path="own")
    leaf = x = step.x_s().clone().requires_grad_()
    for i in range(3, STEPS):
        x = posterior(step.schedule, *step.run.times[i : i + 2], tiny()(x, step.run.times[i]).x0, x, noise(step, i))
    assert relative(gradient, torch.autograd.grad(quartic(x).sum(), leaf)[0]) < 1e-12


@pytest.mark.parametrize("solver", SOLVERS)
def test_abms_looks_through_the_repeats_that_are_left_of_its_step(solver):
    """From x_s back to x_t, and down again: beside the end of the run, and its differences by what x_s is."""
    at, way = (1, 0, 0), torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    recipe = sg.ABMS(quartic, n="all", path="own", repeats=2)

    class Asking(Asks):
        def guide(self, step):
            if (step.index, step.visit, step.repeat) == self.at:
                self.gradient, self.loss = step.gradient_after(step.x_s(), quartic, None, path="own")

    class Moving(Asks):
        def guide(self, step):
            if (step.index, step.visit, step.repeat) == at:
                return Guided(step.x_s() + self.by * way, torch.zeros(3), torch.zeros(3))

    asks = Asking(recipe, at)
    sg.sample(tiny(), **same(recipe, solver, {"loss": asks}))

    def end(c):
        moving = Moving(recipe, at)
        moving.by = c * 2e-4
        return quartic(sg.sample(tiny(), **same(recipe, solver, {"loss": moving})).samples)

    f = [end(c) for c in (-2, -1, 1, 2)]
    slope = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * 2e-4)
    assert relative(asks.loss, end(0)) < 1e-12
    assert relative((asks.gradient * way).sum(dim=1), slope) < 1e-6


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("settings", [{"repeats": 2}, {"repeats": 3}], ids=["2 repeats", "3 repeats"])
def test_legs_over_time_travel_are_exact_though_next_to_nothing_of_x_is_left(schedule, settings):
    """Heun's second stage would be where the noise is a rounding; and DDIM's leg is the moves with x_0 held."""
    asked_at = []

    def network(x, t, *_):
        asked_at.append(x.detach().abs().max().item())
        return 0.3 * torch.tanh(x)

    denoiser = sg.Denoiser(network, SCHEDULES[schedule], "x0", shape=(6,))
    run = {"steps": STEPS, "batch": 3, "seed": 5, "eta": 1.0, "grid": "flow"}
    asks = Asks(sg.SAG(quartic, n=3, path="own", **settings), (0, 0, 0))
    sg.sample(denoiser, loss=asks, solver="heun", **run)
    level = max(SCHEDULES[schedule].sigma(SCHEDULES[schedule].t_max), 1.0)
    assert max(asked_at) < 20 * level and bool(asks.gradient.isfinite().all())

    asks = Asks(sg.SAG(quartic, n=2, path="own", **settings), (0, 0, 0))
    sg.sample(denoiser, loss=asks, **run)
    step, leaf = asks.step, asks.step.x.clone().requires_grad_()
    x, (_, _, parts) = leaf, legs("ddim", step.schedule, list(step.moves()), 2)
    for part in parts:
        x0 = denoiser(x, part[0].t).x0
        for move in part:
            z = move.noise() if move.std > 0 else 0.0
            keep = step.schedule.alpha(move.s) - move.kept * step.schedule.alpha(move.t) if not move.back else 0.0
            x = x0 if move.s == 0 else move.kept * x + keep * x0 + move.std * z
    assert relative(asks.gradient, torch.autograd.grad(quartic(x).sum(), leaf)[0]) < 1e-10


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("settings", [{}, {"repeats": 3}], ids=["plain", "repeats"])
def test_as_many_calls_are_made_as_asked(solver, settings):
    """And with all of them it is the run, whatever schedule takes a second stage away."""
    asks = Asks(sg.SAG(quartic, n="all", path="own", **settings), (0, 0, 0))
    denoiser = tiny("flow", "flow")
    sg.sample(denoiser, **same(asks.recipe, solver, {"loss": asks}))
    most = asks.step.own_path(None)[0].calls
    assert [asks.step.own_path(n)[0].calls for n in range(1, most + 3)] == [*range(1, most + 1), most, most]
    whole = asks.step.lookahead_gradient(quartic, most, path="own")[0]
    assert torch.equal(whole, asks.gradient)


def test_a_step_refuses_what_it_cannot_look_along():
    refused = [
        ({"n": 3, "path": "foo"}, "unknown path"),
        ({"n": None}, "use path='own'"),
        ({"n": 3, "path": "own", "grid": "flow"}, "leave grid= out"),
        ({"n": 3, "path": "own", "samples": 7}, "use path='fresh'"),
        ({"n": 0, "path": "own"}, "n must be a whole number"),
        ({"n": 1.5, "path": "own"}, "n must be a whole number"),
        ({"n": 3, "path": "fresh", "samples": 0}, "samples must be a whole number"),
    ]
    step = asked(sg.SAG(quartic), (1, 0, 0)).step
    for settings, says in refused:
        with pytest.raises(sg.ConfigError, match=says):
            step.lookahead_gradient(quartic, **settings)
    with pytest.raises(sg.ConfigError, match="gradient_after looks along"):
        step.gradient_after(step.x_s(), quartic, 2, path="fresh")
    last = asked(sg.SAG(quartic), (STEPS - 1, 0, 0)).step
    for path in ("ode", "own"):
        with pytest.raises(sg.ConfigError, match="nothing is left to look ahead"):
            last.gradient_after(last.x_s(), quartic, 1, path=path)


def test_one_fresh_call_is_one_call():
    def calls(**settings):
        denoiser = tiny()
        sg.sample(denoiser, batch=2, steps=STEPS, loss=sg.SAG(quartic, window=(0.0, 0.1), **settings))
        return denoiser.network.forward_rows // 2 - STEPS, denoiser.network.backward_rows // 2

    assert calls(n=1, path="fresh", samples=4) == calls(n=1) == (0, 1)


def noise(step, index):
    return step.run.noise.draw("step", index)


@pytest.mark.parametrize("memory", ["minimal", "fast"])
def test_own_noise_costs_no_calls(memory):
    def calls(**settings):
        denoiser = tiny()
        recipe = sg.SAG(quartic, memory=memory, window=(0.0, 0.1), **settings)
        sg.sample(denoiser, batch=2, steps=STEPS, loss=recipe)
        return denoiser.network.forward_rows // 2 - STEPS, denoiser.network.backward_rows // 2

    assert calls(n=3, path="own") == calls(n=3) == ((2, 3) if memory == "fast" else (4, 3))
    assert calls(n="all", path="own") == ((5, 6) if memory == "fast" else (10, 6))
    # three look-aheads after a call that they share
    assert calls(n=3, path="fresh", samples=3) == ((6, 7) if memory == "fast" else (10, 7))


@pytest.mark.parametrize("plan", PLANS)
def test_fresh_look_aheads_are_weighed_by_their_losses(plan):
    """-log mean exp(-J) over look-aheads with noise of their own, beside autograd through all of them at once."""
    denoiser, samples = tiny(), 5
    asks = asked(sg.SAG(quartic, n=3, path="fresh", samples=samples, memory=plan), (1, 0, 0), denoiser, eta=0.0)
    step, run = asks.step, asks.step.run
    leaf = step.x.clone().requires_grad_()
    losses = []
    for k in range(samples):
        drawn, x = run.noise.draw("ahead", 1, k << 16, 2), leaf
        for z, (i, j) in zip([*drawn, 0.0], ((1, 3), (3, 4), (4, 6)), strict=True):
            x = posterior(step.schedule, run.times[i], run.times[j], denoiser(x, run.times[i]).x0, x, z)
        losses.append(quartic(x))
    loss = -torch.stack(losses).neg().logsumexp(dim=0) + torch.tensor(samples).log()
    assert relative(asks.loss, loss.detach()) < 1e-12
    assert relative(asks.gradient, torch.autograd.grad(loss.sum(), leaf)[0]) < 1e-12


def test_what_cannot_be_looked_along_is_refused():
    for settings, says in (
        ({"grid": "flow", "path": "own"}, "leave grid= out"),
        ({"n": "all"}, "use path='own'"),
        ({"samples": 2}, "use path='fresh'"),
        ({"path": "owm"}, "own"),
        ({"n": "al", "path": "own"}, "or 'all'"),
    ):
        with pytest.raises(sg.ConfigError, match=says):
            sg.SAG(quartic, **settings)
    with pytest.raises(sg.ConfigError, match="LGD looks along"):
        sg.LGD(quartic, path="fresh")
    with pytest.raises(sg.ConfigError, match=r"unknown path of LGD 'foo' \(known: ode, own\)"):
        sg.LGD(quartic, path="foo")
    with pytest.raises(sg.ConfigError, match=r"n at t = .* must be a whole number"):
        asked(sg.SAG(quartic, path="own", n=lambda t: "all"), (0, 0, 0))
    window = {"window": lambda step: bool(step.x.sum() > -1e9), "repeats": 2}
    with pytest.raises(sg.ConfigError, match=r"asks for step\.x"):
        asked(sg.SAG(quartic, path="own", **window), (0, 0, 0))
    asked(sg.SAG(quartic, path="own", window=sg.noise_window(0.5, 9.0), repeats=2), (0, 0, 0))
    frames = {"shape": (2, 3), "grid": lambda *_: [(1.0, 1.0), (0.5, 1.0), (0.0, 0.5), (0.0, 0.0)], "steps": 3}
    with pytest.raises(sg.ConfigError, match="path='ode'"):
        sg.sample(tiny(shape=(2, 3)), loss=sg.SAG(quartic, path="own", update=rules.scale(1.0)), **frames)
