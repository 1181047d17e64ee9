"""Law 2: bytes saved for backward do not grow with n under "minimal", and do under "fast"."""

import weakref

import pytest
import torch
from conftest import quartic, tiny

import symguide as sg
from symguide.call import GuidedPredictor
from symguide.kept_graphs import KeptGraphs
from symguide.lookahead import lookahead_program, record
from symguide.memory_plan import Forecast
from symguide.meter import SavedBytes, free_bytes
from symguide.planning.simulate import LiveBytes
from symguide.solver import SOLVERS


def peak(n, **settings):
    denoiser, x = tiny(shape=(64,)), torch.randn(8, 64)
    with SavedBytes() as saved:
        sg.lookahead_gradient(denoiser, x, 0.6, quartic, n, **settings)
    assert saved.live == 0
    return saved.peak


def heavy(x0):
    """Saves 40 times the sample's bytes, (B,)."""
    for _ in range(40):
        x0 = torch.sin(x0)
    return x0.sum(dim=1)


@pytest.mark.parametrize("solver", SOLVERS)
def test_minimal_is_flat_in_n_and_fast_is_not(solver):
    assert peak(16, solver=solver) < 1.15 * peak(1, solver=solver)
    assert peak(16, solver=solver, memory="fast") > 3 * peak(1, solver=solver)


def test_keeping_none_frees_the_network_while_the_objective_lives():
    """k = 0: the peak is the larger of the two graphs, not their sum."""
    denoiser, x = tiny(shape=(64,)), torch.randn(8, 64)
    peaks = {}
    for memory in (0, "minimal"):
        with SavedBytes() as saved:
            sg.lookahead_gradient(denoiser, x, 0.6, heavy, 4, memory=memory)
        peaks[memory] = saved.peak
    assert peaks[0] < peaks["minimal"]


def test_only_inputs_are_stored_for_the_sweep():
    """When the objective is asked, the outputs of all calls but the first, the last and its history are gone."""
    outputs = []

    def network(x, timestep):
        out = torch.tanh(x)
        outputs.append(weakref.ref(out))
        return out

    def objective(x0):
        alive.append(sum(ref() is not None for ref in outputs))
        return x0.sum(dim=1)

    for solver in SOLVERS:
        alive = []
        outputs.clear()
        sg.lookahead_gradient(sg.Denoiser(network, predicts="x0"), torch.randn(2, 6), 0.6, objective, 12, solver)
        assert alive[0] <= 3


@pytest.mark.parametrize("memory", [0, "minimal"])
def test_a_call_more_is_a_state_more(memory):
    """Of all tensors: what a call said is not held when its input has been passed, forwards or backwards."""
    denoiser, x, peaks = tiny(shape=(64,)), torch.randn(8, 64), {}
    for n in (6, 14):
        with LiveBytes() as live:
            sg.lookahead_gradient(denoiser, x, 0.6, quartic, n, memory=memory)
        peaks[n] = live.peak
    assert peaks[14] - peaks[6] == pytest.approx(8 * x.nbytes, rel=0.2)


def test_auto_keeps_what_the_budget_holds():
    one = peak(1)
    assert peak(8, memory=f"auto:{3 * one}B") <= 3.5 * one
    denoiser, x = tiny(shape=(64,)), torch.randn(8, 64)
    calls = {
        b: sg.lookahead_gradient(denoiser, x, 0.6, quartic, 8, memory=f"auto:{b}").forward_calls for b in ("1B", "1GB")
    }
    assert calls == {"1B": 16, "1GB": 8}  # where nothing fits, the plan that needs least


def saved_by(call, x):
    with SavedBytes() as saved:
        held = call(x.clone().requires_grad_())
    assert held.requires_grad
    return saved.peak


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("side", [4, 8])
def test_the_forecast_is_what_every_plan_holds(batch, side):
    """From one call and one look at the objective; a plan of one graph more or less would be seen."""
    denoiser, x = tiny(shape=(side,)), torch.randn(batch, side)
    with denoiser.frozen():
        graph, objective = saved_by(lambda z: denoiser(z, 0.6).x0, x), saved_by(quartic, x)
    for n in (1, 3, 8):
        forecast = Forecast(n, graph, graph, objective)
        for kept in {0, 1, min(2, n), n}:
            with SavedBytes() as saved:
                sg.lookahead_gradient(denoiser, x, 0.6, quartic, n, memory=kept)
            fits = [k for k in range(n + 1) if saved.peak == pytest.approx(forecast.peak(k), rel=0.1)]
            assert fits == [kept]


@pytest.mark.parametrize("room", [2.5, 4.2, 6.9])
def test_auto_leaves_room_for_the_objective(room):
    """In a gradient alone, where nobody knows it before, and in a run, from whose second step on it is known."""
    n, most, denoiser, x = 8, int(room), tiny(shape=(64,)), torch.randn(8, 64)
    with denoiser.frozen():
        graph, objective = saved_by(lambda z: denoiser(z, 0.6).x0, x), saved_by(heavy, x)
    forecast = Forecast(n, graph, graph, objective, n * x.nbytes)
    budget = round(room * graph + objective + n * x.nbytes)
    memory = f"auto:{budget}B"
    with SavedBytes() as saved:
        gradient = sg.lookahead_gradient(denoiser, x, 0.6, heavy, n, memory=memory)
    assert forecast.graphs(budget) == most and gradient.forward_calls == 2 * n - most
    assert saved.peak == pytest.approx(forecast.peak(most) - n * x.nbytes, rel=0.05)
    run = sg.sample(denoiser, start=x, steps=4, loss=sg.SAG(heavy, n=n, memory=memory, window=(0.0, 0.5)))
    assert run.cost.peak_bytes <= budget
    assert [line.forward_calls for line in run.trace] == [2 * n - most] * 2 + [1, 1]


def test_auto_keeps_the_last_graphs_of_a_recorded_look_ahead():
    """The first one, which it weighs, goes again where the budget has no room for all."""
    n, denoiser, x = 8, tiny(shape=(64,)), torch.randn(8, 64)
    with denoiser.frozen():
        graph = saved_by(lambda z: denoiser(z, 0.6).x0, x)
        program = lookahead_program(denoiser, 0.6, n, "best", None)
        for room, kept in ((0.5, 0), (2.5, 2), (7.5, 7), (8.5, 8)):
            plan = KeptGraphs(f"auto:{round(room * graph) + n * x.nbytes}B", GuidedPredictor(denoiser), program, x)
            calls = record(plan, [x], program)[1]
            assert [call.kept for call in calls] == [False] * (n - kept) + [True] * kept


def test_a_whole_guided_run_is_flat_in_n():
    peaks = {
        n: sg.sample(tiny(shape=(64,)), batch=4, steps=4, loss=sg.SAG(quartic, n=n)).cost.peak_bytes for n in (1, 16)
    }
    assert peaks[16] < 1.15 * peaks[1]


def test_the_sampler_holds_nothing_without_guidance():
    assert sg.sample(tiny(), batch=2, steps=3).cost.peak_bytes == 0


def test_meters_inside_one_another_count_for_both():
    x = torch.ones(100, requires_grad=True)
    with SavedBytes() as outer:
        with SavedBytes() as inner:
            y = x.exp()
        z = y.exp()
    assert (inner.peak, outer.peak) == (800, 1600)
    del y, z
    assert (inner.live, outer.live) == (0, 0)
    plans = [peak(8, memory=m) for m in ("fast", "auto")]
    assert plans[0] == plans[1]


@pytest.mark.skipif(torch.__version__ < (2, 5), reason="torch 2.4 does not say which hooks are in force")
def test_hooks_around_a_meter_go_on_working():
    """A user's own hooks (torch's save_on_cpu, a meter of theirs) see what the sampler saves, and gradients stay."""
    packed = []

    def pack(tensor):
        packed.append(tensor.nbytes)
        return tensor.detach().clone()

    settings = {"batch": 2, "steps": 3, "loss": sg.SAG(quartic, n=2)}
    plain = sg.sample(tiny(), **settings).samples
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        assert torch.equal(sg.sample(tiny(), **settings).samples, plain)
    assert sum(packed) > 0
    with torch.autograd.graph.save_on_cpu():
        assert torch.equal(sg.sample(tiny(), **settings).samples, plain)


def test_saved_bytes_counts_what_autograd_saves_once_and_no_parameters():
    x = torch.ones(100, requires_grad=True)
    with SavedBytes() as saved:
        y = x * x  # the same storage twice
        z = y.exp()
    assert saved.live == saved.peak == 2 * 800
    z.sum().backward()
    assert saved.live == 0


def test_what_torch_holds_and_does_not_use_is_free(monkeypatch):
    for name, value in {"mem_get_info": (50, 100), "memory_reserved": 30, "memory_allocated": 10}.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert free_bytes(torch.device("cuda")) == 70
