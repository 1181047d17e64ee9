"""Law 7: calls match a counter inside the network, and each recipe's documented formula."""

import pytest
import torch
from cases import every
from conftest import quartic, squares, tiny

import symguide as sg
from symguide.solver import SOLVERS


def named(case, **settings):
    """A run's settings with a row's guidance."""
    given = () if case.kind == "prediction guidance" else (squares,)
    hook = {"loss guidance": "loss", "prediction guidance": "prediction", "particle guidance": "particles"}[case.kind]
    return {"batch": 3, **settings, hook: case.make(*given), **case.settings}


@every("loss guidance", "prediction guidance", "particle guidance")
def test_the_trace_and_the_totals_equal_a_counter_in_the_network(case):
    denoiser, settings = case.model(), named(case, steps=6)
    asked = [denoiser, *getattr(settings.get("prediction"), "models", ())]
    result = sg.sample(denoiser, **settings)
    assert result.cost.forward_calls * 3 == sum(model.network.forward_rows for model in asked)
    assert result.cost.backward_calls * 3 == sum(model.network.backward_rows for model in asked)
    assert sum(r.forward_calls for r in result.trace) == result.cost.forward_calls
    assert sum(r.backward_calls for r in result.trace) == result.cost.backward_calls


@every("loss guidance", where=lambda case: case.cost is not None)
def test_a_guided_step_costs_what_the_docstring_says(case):
    record = sg.sample(case.model(), **named(case, steps=6)).trace[2]
    assert (record.forward_calls, record.backward_calls) == case.cost


@every("prediction guidance", where=lambda case: case.cost is not None)
def test_a_prediction_costs_what_the_docstring_says(case):
    """In the sampler's own call, in every call of a look-ahead, and once in each of these backwards."""
    denoiser = case.model()
    record = sg.sample(denoiser, **named(case, steps=4)).trace[1]
    assert record.forward_calls == case.cost
    guided = sg.sample(case.model(), loss=sg.SAG(squares, n=3, memory="fast"), **named(case, steps=4)).trace[1]
    assert (guided.forward_calls, guided.backward_calls) == (3 * case.cost, 3 * case.cost)


@every("particle guidance", where=lambda case: case.cost is not None)
def test_a_step_of_particles_costs_what_the_docstring_says(case):
    assert sg.sample(case.model(), **named(case, steps=4)).trace[1].forward_calls == case.cost


@every("solver")
def test_solvers_cost_their_stages(case):
    for steps in (1, 4, 7):
        assert sg.sample(tiny(), steps=steps, solver=case.make()).cost.forward_calls == case.cost(steps)


@pytest.mark.parametrize("n", [1, 2, 4, 7])
@pytest.mark.parametrize("solver", SOLVERS)
def test_forward_and_backward_calls_of_a_look_ahead(solver, n):
    for settings, forward, backward in (
        ({"memory": "fast"}, n, n),
        ({"memory": "minimal"}, 2 * n - 1, n),
        ({"memory": 2}, 2 * n - min(2, n), n),
        ({"memory": 0}, 2 * n, n),
        ({"memory": "auto"}, n, n),
        ({"jacobian": "first"}, n, 1),
        ({"jacobian": "identity"}, n, 0),
    ):
        denoiser = tiny()
        g = sg.lookahead_gradient(denoiser, torch.randn(2, 6), 0.6, quartic, n, solver, **settings)
        assert (g.forward_calls, g.backward_calls) == (forward, backward)
        assert (denoiser.network.forward_rows, denoiser.network.backward_rows) == (2 * forward, 2 * backward)
        guided = sg.sample(tiny(), batch=2, steps=4, loss=sg.SAG(quartic, n=n, solver=solver, **settings)).trace[1]
        assert (guided.forward_calls, guided.backward_calls) == (forward, backward)


def test_cfg_is_two_calls_in_one_batch():
    denoiser = tiny()
    settings = {"condition": {"label": 1}, "prediction": sg.CFG(2.0)}
    result = sg.sample(denoiser, batch=3, steps=4, **settings)
    assert (result.cost.forward_calls, denoiser.network.calls) == (8, 4)
    denoiser = tiny()
    guided = sg.sample(denoiser, batch=3, steps=4, loss=sg.SAG(squares, n=4, memory="fast"), **settings)
    assert (guided.trace[0].forward_calls, guided.trace[0].backward_calls) == (8, 8)
    assert guided.cost.backward_calls * 3 == denoiser.network.backward_rows


def test_repeats_and_windows():
    loss = sg.SAG(squares, n=2, memory="fast", repeats=3, window=(0.0, 0.5))
    trace = sg.sample(tiny(), batch=2, steps=6, loss=loss).trace
    assert [r.forward_calls for r in trace] == [6, 6, 6, 1, 1, 1]
    assert [r.backward_calls for r in trace] == [6, 6, 6, 0, 0, 0]


def test_weights_are_frozen_inside_and_as_before_outside():
    denoiser = tiny()
    seen = []
    denoiser.network.register_forward_hook(lambda m, i, o: seen.append(m.inner.requires_grad))
    sg.sample(denoiser, steps=3, loss=sg.SAG(squares))
    assert not any(seen)
    assert all(p.requires_grad and p.grad is None for p in denoiser.network.parameters())
    with pytest.raises(ValueError, match="stop"):
        sg.sample(denoiser, steps=3, loss=sg.SAG(lambda x0: (_ for _ in ()).throw(ValueError("stop"))))
    assert all(p.requires_grad for p in denoiser.network.parameters())
