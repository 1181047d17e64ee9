"""Law 3: a sample depends on (seed, index) only: the same alone, in any batch, in any order, on any shard."""

import pytest
import torch
from conftest import RECIPES, relative, squares, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

import symguide as sg
from symguide.loss_guidance import RECIPES as REGISTRY
from symguide.per_sample import Noise


def test_every_registered_recipe_is_under_the_laws():
    assert {type(make(squares)).__name__ for make in RECIPES.values()} == {r.__name__ for r in REGISTRY.values()}


@pytest.mark.parametrize("solver", ["ddim", "heun", "dpmpp_2m"])
@pytest.mark.parametrize("name", RECIPES)
def test_recipes(name, solver):
    def draw(indices, **k):
        loss = RECIPES[name](squares)
        return sg.sample(tiny(), indices=indices, steps=6, solver=solver, seed=3, loss=loss, **k).samples

    batch = draw([0, 1, 2, 3])
    assert relative(draw([0])[0], batch[0]) < 1e-9
    shuffled = draw([3, 1])
    assert relative(shuffled[0], batch[3]) < 1e-9
    assert relative(shuffled[1], batch[1]) < 1e-9


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_change_the_samples(name):
    """Otherwise the law above holds for methods that do nothing."""
    guided = sg.sample(tiny(), batch=2, steps=6, loss=RECIPES[name](squares)).samples
    assert relative(guided, sg.sample(tiny(), batch=2, steps=6).samples) > 1e-3


def test_conditions_and_cfg():
    def draw(indices, labels):
        settings = {"condition": {"label": labels}, "prediction": sg.CFG(2.0), "loss": sg.SAG(squares, n=2)}
        return sg.sample(tiny(), indices=indices, steps=5, **settings).samples

    assert relative(draw([2], [1])[0], draw([0, 1, 2], [3, 0, 1])[2]) < 1e-9


def test_particles_item_by_item():
    def draw(indices):
        return sg.sample(tiny(), indices=indices, steps=5, particles=sg.BestOfN(squares, 3)).samples

    assert relative(draw([5])[0], draw([4, 5, 6])[1]) < 1e-9


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
