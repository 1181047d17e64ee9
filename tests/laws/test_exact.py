"""Law 1: the look-ahead's gradient is the gradient, by plain autograd and by central differences."""

import pytest
import torch
from cases import every
from conftest import SCHEDULES, quartic, relative, tiny

import symguide as sg
from symguide.loss_guidance.descent import Descent, LookAhead
from symguide.loss_guidance.recipe import count_at
from symguide.solver import GRIDS, SOLVERS

PLANS = ("minimal", "fast", 2, "auto")


def by_autograd(denoiser, x, t, n, solver, grid=None, **settings):
    """The reference: the graph of all n calls at once."""
    leaf = x.clone().requires_grad_()
    x0 = sg.lookahead(denoiser, leaf, t, n, solver, grid, **settings).x0
    return torch.autograd.grad(quartic(x0).sum(), leaf)[0]


def by_differences(denoiser, x, t, n, solver, h=1e-5):
    """Fourth-order central differences, one coordinate at a time."""
    out = torch.zeros_like(x)
    for k in range(x.shape[1]):
        e = torch.zeros_like(x)
        e[:, k] = h
        f = [quartic(sg.lookahead(denoiser, x + c * e, t, n, solver).x0) for c in (-2, -1, 1, 2)]
        out[:, k] = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h)
    return out


@pytest.mark.parametrize("n", [1, 2, 4, 7])
@pytest.mark.parametrize("solver", SOLVERS)
def test_gradient_equals_autograd_and_differences_under_every_plan(solver, n):
    denoiser, x = tiny(), torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    reference, differences = by_autograd(denoiser, x, 0.6, n, solver), by_differences(denoiser, x, 0.6, n, solver)
    for plan in PLANS:
        value = sg.lookahead_gradient(denoiser, x, 0.6, quartic, n, solver, memory=plan).value
        assert relative(value, reference) < 1e-12
        assert relative(value, differences) < 1e-6


@pytest.mark.parametrize("predicts", ["eps", "x0", "v", "flow"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_gradient_equals_autograd_for_every_schedule_and_prediction(schedule, predicts):
    denoiser, x = tiny(schedule, predicts), torch.randn(2, 6, generator=torch.Generator().manual_seed(2))
    for solver in SOLVERS:
        for grid in GRIDS:
            value = sg.lookahead_gradient(denoiser, x, 0.7, quartic, 5, solver, grid).value
            assert relative(value, by_autograd(denoiser, x, 0.7, 5, solver, grid)) < 1e-12


@pytest.mark.parametrize("solver", ["ddim", "heun", "dpmpp_2m"])
@every("prediction guidance")
def test_gradient_goes_through_all_branches_of_a_prediction(case, solver):
    denoiser, x = case.model(), torch.randn(3, 6, generator=torch.Generator().manual_seed(3))
    settings = {**case.settings, "prediction": case.make()}
    reference = by_autograd(denoiser, x, 0.6, 4, solver, **settings)
    for plan in PLANS:
        value = sg.lookahead_gradient(denoiser, x, 0.6, quartic, 4, solver, memory=plan, **settings).value
        assert relative(value, reference) < 1e-12
    assert relative(reference, by_autograd(denoiser, x, 0.6, 4, solver, **case.settings)) > 1e-3


class Look:
    """Loss guidance that changes nothing, and asks a recipe for its gradient in the second step."""

    def __init__(self, recipe):
        self.recipe, self.seen = recipe, {}

    def prepare(self, run):
        self.recipe.prepare(run)

    def repeats_at(self, step):
        return 1

    def guide(self, step):
        if step.index == 1:
            gradient, loss = self.recipe.gradient(step)
            self.seen = {"step": step, "gradient": gradient, "loss": loss, "objective": self.recipe.objective_at(step)}


def descends(case):
    """Whether a row's recipe has a gradient of its own that is exact; paths along noise have laws of their own."""
    recipe = case.make(quartic)
    plain = getattr(recipe, "jacobian", "exact") == "exact" and getattr(recipe, "path", "ode") == "ode"
    return isinstance(recipe, Descent) and plain and case.name != "abms"


@every("loss guidance", where=descends)
def test_the_gradient_of_a_recipe_is_that_of_its_objective(case):
    """Through the look-ahead that it says, or at the estimate, with the draws of the step; ABMS has its own test."""
    look, denoiser = Look(case.make(quartic)), case.model()
    sg.sample(denoiser, batch=3, steps=4, loss=look)
    step, recipe = look.seen["step"], look.recipe
    if isinstance(recipe, LookAhead):
        leaf = step.x.clone().requires_grad_()
        ahead = count_at("n", recipe.n, step.t), recipe.solver, recipe.grid
        x0 = sg.lookahead(denoiser, leaf, step.t, *ahead).x0
    else:
        x0 = leaf = denoiser(step.x, step.t).x0.detach().requires_grad_()
    loss = look.seen["objective"](x0)
    assert relative(look.seen["loss"], loss.detach()) < 1e-12
    assert relative(look.seen["gradient"], torch.autograd.grad(loss.sum(), leaf)[0]) < 1e-12


def test_plans_agree_to_the_last_bit():
    denoiser, x = tiny(), torch.randn(3, 6)
    values = [sg.lookahead_gradient(denoiser, x, 0.6, quartic, 4, memory=m).value for m in (*PLANS, 0, "auto:1B")]
    assert all(torch.equal(v, values[0]) for v in values)


@pytest.mark.parametrize("solver", SOLVERS)
def test_float32_within_1e_5(solver):
    torch.set_default_dtype(torch.float32)
    denoiser, x = tiny().to(dtype=torch.float32), torch.randn(3, 6)
    reference = by_autograd(denoiser, x, 0.6, 7, solver)
    assert relative(sg.lookahead_gradient(denoiser, x, 0.6, quartic, 7, solver).value, reference) < 1e-5


def test_bfloat16_points_the_same_way():
    denoiser, x = tiny(), torch.randn(3, 6)
    exact = sg.lookahead_gradient(denoiser, x, 0.6, quartic, 4).value
    low = sg.lookahead_gradient(denoiser.to(dtype=torch.bfloat16), x.bfloat16(), 0.6, quartic, 4).value
    assert low.dtype == torch.bfloat16
    assert torch.cosine_similarity(low.double(), exact).min() > 0.98


def test_named_jacobians_are_what_they_say():
    denoiser, x = tiny(), torch.randn(2, 6)
    ahead = sg.lookahead(denoiser, x, 0.6, 4).x0.detach().requires_grad_()
    cotangent = torch.autograd.grad(quartic(ahead).sum(), ahead)[0]
    leaf = x.clone().requires_grad_()
    first = torch.autograd.grad(denoiser(leaf, 0.6).x0, leaf, cotangent)[0]
    assert relative(sg.lookahead_gradient(denoiser, x, 0.6, quartic, 4, jacobian="first").value, first) < 1e-13
    assert relative(sg.lookahead_gradient(denoiser, x, 0.6, quartic, 4, jacobian="identity").value, cotangent) < 1e-13


@pytest.mark.parametrize(("solver", "method"), [("ddim", "euler"), ("midpoint", "midpoint"), ("heun", "heun2")])
def test_torchdiffeq_integrates_and_differentiates_to_the_same(solver, method):
    """The peer solves dy/du = flow(y) in the flow frame on the same fixed grid; heun's last step is one-stage."""
    torchdiffeq = pytest.importorskip("torchdiffeq")
    schedule = sg.RectifiedFlow()
    denoiser = sg.Denoiser(tiny("flow", "flow").network, schedule, "flow")
    x, t = torch.randn(2, 6), 0.8
    calls = {"ddim": 4, "midpoint": 8, "heun": 7}[solver]
    grid = torch.tensor([t, 0.75 * t, 0.5 * t, 0.25 * t, 0.0])

    def field(u, y):
        return denoiser(y, u.item()).flow

    leaf = x.clone().requires_grad_()
    if solver == "heun":
        y = torchdiffeq.odeint(field, leaf, grid[:-1], method=method)[-1]
        x0 = denoiser(y, 0.25 * t).x0
    else:
        x0 = torchdiffeq.odeint(field, leaf, grid, method=method)[-1]
    reference = torch.autograd.grad(quartic(x0).sum(), leaf)[0]
    gradient = sg.lookahead_gradient(denoiser, x, t, quartic, calls, solver, "uniform")
    assert relative(gradient.x0, x0.detach()) < 1e-12
    assert relative(gradient.value, reference) < 1e-12


def test_the_vanilla_adjoint_is_not_exact():
    """Why the sweep exists: torchdiffeq's continuous adjoint misses the gradient of its own solver."""
    torchdiffeq = pytest.importorskip("torchdiffeq")
    denoiser, x, t = tiny("flow", "flow"), torch.randn(2, 6), 0.8
    grid = torch.linspace(t, 0, 5)
    leaf = x.clone().requires_grad_()
    y = torchdiffeq.odeint_adjoint(
        lambda u, y: denoiser(y, u.item()).flow, leaf, grid, method="euler", adjoint_params=()
    )[-1]
    vanilla = torch.autograd.grad(quartic(y).sum(), leaf)[0]
    assert relative(vanilla, by_autograd(denoiser, x, t, 4, "ddim", "uniform")) > 1e-3
