"""Law 3: a sample depends on (seed, index) only: the same alone, in any batch, in any order, on any shard."""

import pytest
import torch
from cases import every
from conftest import relative, squares, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

import symguide as sg
from symguide.per_sample import Noise


@pytest.mark.parametrize("solver", ["ddim", "heun", "dpmpp_2m"])
@every("loss guidance")
def test_recipes(case, solver):
    def draw(indices, **k):
        loss = case.make(squares)
        return sg.sample(case.model(), indices=indices, steps=6, solver=solver, seed=3, loss=loss, **k).samples

    batch = draw([0, 1, 2, 3])
    assert relative(draw([0])[0], batch[0]) < 1e-9
    shuffled = draw([3, 1])
    assert relative(shuffled[0], batch[3]) < 1e-9
    assert relative(shuffled[1], batch[1]) < 1e-9


@every("loss guidance")
def test_recipes_change_the_samples(case):
    """Otherwise the law above holds for methods that do nothing."""
    guided = sg.sample(case.model(), batch=2, steps=6, loss=case.make(squares)).samples
    assert relative(guided, sg.sample(case.model(), batch=2, steps=6).samples) > 1e-3


def rows(settings, chosen):
    """Settings of a run whose conditions have a row for each sample, of some samples."""
    condition = {name: [value[i] for i in chosen] for name, value in settings.get("condition", {}).items()}
    return {**settings, "condition": condition}


@pytest.mark.parametrize("solver", ["ddim", "heun", "dpmpp_2m"])
@every("prediction guidance")
def test_prediction_rules(case, solver):
    def draw(indices):
        settings = {"steps": 5, "solver": solver, "prediction": case.make(), "loss": sg.SAG(squares, n=2)}
        return sg.sample(case.model(), indices=indices, **settings, **rows(case.settings, indices)).samples

    batch = draw([0, 1, 2])
    assert relative(draw([1])[0], batch[1]) < 1e-9
    assert relative(draw([2, 0]), batch[[2, 0]]) < 1e-9


@every("prediction guidance")
def test_prediction_rules_change_the_samples(case):
    settings = {"batch": 3, "steps": 5, **case.settings}
    guided = sg.sample(case.model(), prediction=case.make(), **settings).samples
    assert relative(guided, sg.sample(case.model(), **settings).samples) > 1e-3


@every("particle guidance")
def test_particles(case):
    """Item by item: the particles of a sample are its own."""

    def draw(indices, **settings):
        settings = {"steps": 5, "particles": case.make(squares), **case.settings, **settings}
        return sg.sample(case.model(), indices=indices, **settings).samples

    batch = draw([4, 5, 6])
    assert relative(draw([5])[0], batch[1]) < 1e-9
    assert relative(draw([6, 4]), batch[[2, 0]]) < 1e-9
    assert relative(draw([4, 5, 6], particles=None), batch) > 1e-3


@every("loss guidance", "prediction guidance", "particle guidance")
def test_the_seed_decides(case):
    hook = {"loss guidance": "loss", "prediction guidance": "prediction", "particle guidance": "particles"}[case.kind]

    def draw(seed):
        given = () if case.kind == "prediction guidance" else (squares,)
        settings = {"batch": 3, "steps": 4, hook: case.make(*given), **case.settings}
        return sg.sample(case.model(), seed=seed, **settings).samples

    assert torch.equal(draw(3), draw(3))
    assert relative(draw(4), draw(3)) > 1e-2


def test_conditions_and_cfg():
    def draw(indices, labels):
        settings = {"condition": {"label": labels}, "prediction": sg.CFG(2.0), "loss": sg.SAG(squares, n=2)}
        return sg.sample(tiny(), indices=indices, steps=5, **settings).samples

    assert relative(draw([2], [1])[0], draw([0, 1, 2], [3, 0, 1])[2]) < 1e-9


def test_particles_with_labels_of_their_own():
    """Conditions and targets given one per sample reach all of its particles."""
    target = sg.objectives.Measurement(lambda x: x, torch.tensor([[1.0] * 6, [-1.0] * 6]))
    settings = {"batch": 2, "steps": 5, "condition": {"label": [0, 1]}}
    best = sg.sample(tiny(), particles=sg.BestOfN(target, 4), **settings).samples
    assert target(best).sum() < target(sg.sample(tiny(), **settings).samples).sum()


@given(
    seed=st.integers(0, 2**63),
    indices=st.lists(st.integers(0, 10**6), min_size=1, max_size=4, unique=True),
    step=st.integers(0, 5000),
    repeat=st.integers(0, 9),
)
@settings(max_examples=50, deadline=None)
def test_noise_of_a_sample_does_not_know_its_batch(seed, indices, step, repeat):
    whole = Noise(seed, indices, (2, 3)).draw("step", step, repeat)
    alone = [Noise(seed, [i], (2, 3)).draw("step", step, repeat)[0] for i in indices]
    assert torch.equal(whole, torch.stack(alone))


def test_noise_is_normal_and_streams_differ():
    drawn = {s: Noise(0, range(4), (5000,)).draw(s) for s in Noise.streams}
    for values in drawn.values():
        assert abs(values.mean()) < 0.03
        assert abs(values.std() - 1) < 0.03
    flat = torch.stack([v.flatten() for v in drawn.values()])
    assert (torch.corrcoef(flat) - torch.eye(len(flat))).abs().max() < 0.03
    assert not torch.equal(Noise(0, [0], (8,)).draw("step", 1), Noise(0, [0], (8,)).draw("step", 2))
    assert not torch.equal(Noise(0, [0], (8,)).draw("step", 1), Noise(0, [0], (8,)).draw("step", 1, repeat=1))


def test_noise_is_the_same_in_every_precision():
    single, double = (Noise(7, [1], (50,), dtype=d).draw("start") for d in (torch.float32, torch.float64))
    assert torch.equal(single, double.float())
