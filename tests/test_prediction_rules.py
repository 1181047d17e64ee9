"""CFG++ and APG against their formulas, CFG, and diffusers' own projection."""

from itertools import pairwise

import pytest
import torch
from conftest import SCHEDULES, quartic, relative, tiny

import symguide as sg
from symguide.branch import Point
from symguide.denoiser import Prediction
from symguide.errors import ConfigError

RULES = {
    "cfg++": sg.CFGPlusPlus(0.6),
    "apg": sg.APG(5.0),
    "apg of a limited length": sg.APG(5.0, threshold=0.4, parallel=0.3),
}
CONDITION = {"label": [0, 1, 2]}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("predicts", ["eps", "v", "x0", "flow"])
def test_cfg_pp_noises_its_estimate_with_the_unconditional_noise(schedule, predicts):
    denoiser = tiny(schedule=schedule, predicts=predicts)
    if predicts == "eps" and schedule == "flow":
        pytest.skip("an eps prediction says nothing of x_0 at t = 1")
    run = sg.sample(
        denoiser, batch=3, steps=5, eta=0.0, condition=CONDITION, prediction=sg.CFGPlusPlus(0.6), return_trajectory=True
    )
    label = torch.tensor(CONDITION["label"])
    for line, (x, x_s) in zip(run.trace, pairwise(run.trajectory), strict=True):
        c, u = denoiser(x, line.t, label=label), denoiser(x, line.t, label=torch.full((3,), 4))
        x0 = 0.4 * u.x0 + 0.6 * c.x0
        expected = denoiser.schedule.alpha(line.s) * x0 + denoiser.schedule.sigma(line.s) * u.eps
        assert relative(x_s, expected) < 1e-10


def test_cfg_pp_is_cfg_with_a_weight_that_changes_with_the_step():
    denoiser = tiny()
    settings = {"batch": 3, "steps": 6, "eta": 0.0, "condition": CONDITION, "return_trajectory": True}
    run = sg.sample(denoiser, prediction=sg.CFGPlusPlus(0.6), **settings)
    t, s = (denoiser.schedule.ratio(time) for time in (run.trace[0].t, run.trace[0].s))
    same = sg.sample(denoiser, prediction=sg.CFG(0.6 * t / (t - s)), **settings)
    assert relative(run.trajectory[1], same.trajectory[1]) < 1e-10


def pair(seed=0, shape=(3, 2, 4, 4)):
    generator = torch.Generator().manual_seed(seed)
    x, u, c = (torch.randn(shape, generator=generator) for _ in range(3))
    return [Prediction(x, value, "x0", 0.8, 0.6, (-0.6, 0.8)) for value in (u, c)]


def combined(rule, u, c):
    """What a rule of two branches makes of them, without a network."""
    asked = rule.calls(Point(rule, tiny(shape=u.x.shape[1:]), u.x, 0.5, {"label": torch.zeros(len(u.x), dtype=int)}))
    assert set(next(asked)) == {"u", "c"}
    with pytest.raises(StopIteration) as done:
        asked.send({"u": u, "c": c})
    return done.value.value


def test_apg_is_cfg_where_nothing_is_taken_away():
    u, c = pair()
    assert relative(combined(sg.APG(7.0, parallel=1.0), u, c).x0, combined(sg.CFG(7.0), u, c).x0) < 1e-13
    shift = combined(sg.APG(7.0), u, c).shift
    assert relative(shift, combined(sg.APG(7.0), u, c).eps - u.eps) < 1e-13


@pytest.mark.parametrize("threshold, parallel", [(0.0, 0.0), (2.5, 0.0), (2.5, 0.4)])
def test_apg_projects_as_diffusers_does(threshold, parallel):
    """Fed with clean estimates, and in its paper's combination, which is not diffusers' default."""
    guiders = pytest.importorskip("diffusers.guiders.adaptive_projected_guidance")
    u, c = pair()
    got = combined(sg.APG(7.0, threshold, parallel), u, c).x0
    expected = guiders.normalized_guidance(c.x0, u.x0, 6.0, None, parallel, threshold, use_original_formulation=True)
    assert relative(got, expected) < 1e-6  # diffusers adds an eps to norms
    assert relative(got, combined(sg.APG(7.0, parallel=1.0), u, c).x0) > 1e-2


@pytest.mark.parametrize("name", RULES)
def test_exact_gradients_and_batches(name):
    denoiser, x, rule = tiny(), torch.randn(3, 6), RULES[name]
    settings = {"n": 3, "condition": CONDITION, "prediction": rule}
    leaf = x.clone().requires_grad_()
    expected = torch.autograd.grad(quartic(sg.lookahead(denoiser, leaf, 0.6, **settings).x0).sum(), leaf)[0]
    assert relative(sg.lookahead_gradient(denoiser, x, 0.6, quartic, **settings).value, expected) < 1e-12
    whole = sg.sample(denoiser, batch=3, steps=4, condition=CONDITION, prediction=rule, loss=sg.SAG(quartic, n=2))
    for i in range(3):
        own = {"condition": {"label": [i]}, "prediction": rule, "loss": sg.SAG(quartic, n=2)}
        alone = sg.sample(denoiser, indices=[i], steps=4, **own)
        assert torch.allclose(alone.samples[0], whole.samples[i], atol=1e-12)
    assert whole.cost.forward_calls == 2 * (3 * 3 + 1)


def test_rules_say_what_they_need():
    with pytest.raises(ConfigError, match="between 0 and 1"):
        sg.CFGPlusPlus(7.5)
    with pytest.raises(ConfigError, match="threshold"):
        sg.APG(7.5, threshold=-1.0)
    with pytest.raises(ConfigError, match="APG strengthens a condition"):
        sg.sample(tiny(), steps=2, prediction=sg.APG(7.5))
    plain = sg.sample(tiny(), steps=2, batch=3, condition=CONDITION)
    off = sg.sample(tiny(), steps=2, batch=3, condition=CONDITION, prediction=sg.APG(1.0))
    assert torch.equal(plain.samples, off.samples) and plain.cost.forward_calls == off.cost.forward_calls
