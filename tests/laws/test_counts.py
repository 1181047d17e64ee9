"""Law 7: calls match a counter inside the network, and each recipe's documented formula."""

import pytest
import torch
from conftest import RECIPES, quartic, squares, tiny

import symguide as sg
from symguide.solver import SOLVERS

FORMULA = {  # forward and backward calls of a guided step, the sampler's own included
    "sag": (5, 3),
    "sag-first": (3, 1),
    "sag-sphere": (3, 2),
    "freedom": (1, 1),
    "dps": (1, 1),
    "mpgd": (1, 0),
    "pigdm": (1, 1),
    "mpgd-anew": (1, 0),
    "mpgd-sphere": (1, 0),
    "lgd": (1, 1),
    "dsg": (1, 1),
    "tfg": (1, 1),
    "tfg-mean": (1, 0),
    "abms": (2, 1),
    "abms-draws": (1 + 3 * 3, 3 * 2),
    "adam-dps": (1, 1),
    "adam-repeats": (2, 2),
    "ecm": (1, 0),
    "elucd": (1, 0),
    "dreamguider": (1, 0),
    "classifier": (1, 0),
    "classifier-mean": (1, 0),
    "classifier-sphere": (1, 0),
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_trace_and_the_totals_equal_a_counter_in_the_network(name):
    denoiser = tiny()
    result = sg.sample(denoiser, batch=3, steps=6, loss=RECIPES[name](squares))
    assert result.cost.forward_calls * 3 == denoiser.network.forward_rows
    assert result.cost.backward_calls * 3 == denoiser.network.backward_rows
    assert sum(r.forward_calls for r in result.trace) == result.cost.forward_calls
    assert sum(r.backward_calls for r in result.trace) == result.cost.backward_calls


@pytest.mark.parametrize("name", FORMULA)
def test_a_guided_step_costs_what_the_docstring_says(name):
    record = sg.sample(tiny(), batch=2, steps=6, loss=RECIPES[name](squares)).trace[2]
    assert (record.forward_calls, record.backward_calls) == FORMULA[name]


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


def test_solvers_cost_their_stages():
    assert sg.sample(tiny(), steps=4, solver="heun").cost.forward_calls == 7
    assert sg.sample(tiny(), steps=4, solver="midpoint").cost.forward_calls == 8
    assert sg.sample(tiny(), steps=4, solver="dpmpp_2m").cost.forward_calls == 4


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
