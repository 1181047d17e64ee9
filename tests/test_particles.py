"""Several particles for every sample: who is paired with whom, what a resampling moves, and what is reported."""

import threading
from functools import partial

import pytest
import torch
from conftest import relative, squares, tiny

import symguide as sg
from symguide.errors import ConfigError, GuidanceError
from symguide.step import Moved

B, K = 2, 3


class Population:
    """K particles for every sample, resampled after the third step; the first of each is chosen."""

    particles = K

    def __init__(self, parents):
        self.parents = parents

    def move(self, step, x_s):
        return Moved(x_s[self.parents], self.parents) if step.index == 2 else x_s

    def choose(self, samples):
        return torch.arange(0, len(samples), K)


def adaptive():
    return sg.SAG(squares, n=2, update=sg.rules.chain(sg.rules.adam(), sg.rules.scale(0.05)))


@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m"])
@pytest.mark.parametrize("loss", [None, adaptive()], ids=["plain", "adam"])
def test_a_resampled_particle_goes_on_as_its_parent_would_alone(loss, solver):
    """K runs of one particle each, without noise from the start on: history and moments are the parent's."""
    settings = {"steps": 6, "solver": solver, "eta": 0.0, "loss": loss}
    parents = torch.tensor([2, 2, 0, 3, 5, 5])
    label = torch.tensor([1, 3])
    told = {"condition": {"label": label}, "return_trajectory": True, "particles": Population(parents)}
    path = sg.sample(tiny(), batch=B, **told, **settings).trajectory
    assert path.shape == (7, B, K, 6)
    for row, parent in enumerate(parents.tolist()):
        start = path[0].flatten(0, 1)[parent : parent + 1]
        alone = sg.sample(tiny(), start=start, condition={"label": label[parent // K]}, **settings).samples
        assert relative(path[-1].flatten(0, 1)[row], alone[0]) < 1e-10


@pytest.mark.parametrize(
    ("parents", "sentence"),
    [
        (torch.tensor([0, 1, 3, 3, 4, 5]), r"step 2 of 4 .*: parents must be rows of the same sample"),
        (torch.tensor([0, 1]), r"parents of particles are row numbers \(6,\)"),
    ],
)
def test_parents_that_cannot_be_meant(parents, sentence):
    rule = Population(parents)
    rule.move = lambda step, x_s: Moved(x_s, parents) if step.index == 2 else x_s
    with pytest.raises(GuidanceError, match=sentence):
        sg.sample(tiny(), batch=B, steps=4, particles=rule)


def test_what_is_reported_has_a_place_for_every_particle():
    seen = []
    result = sg.sample(
        tiny(),
        batch=B,
        steps=3,
        particles=sg.BestOfN(squares, K),
        loss=sg.FreeDoM(squares),
        return_trajectory=True,
        callback=lambda record, x: seen.append((record, x)),
    )
    assert result.trajectory.shape == (4, B, K, 6)
    for index, (record, x) in enumerate(seen):
        assert record is result.trace[index]
        if index < 2:  # FreeDoM leaves the last one alone
            assert record.loss.shape == record.gradient_norm.shape == (B, K)
        assert torch.equal(x.reshape(B, K, 6), result.trajectory[index + 1])
    best = squares(result.trajectory[-1].flatten(0, 1)).reshape(B, K).argmin(dim=1)
    assert torch.equal(result.samples, result.trajectory[-1][torch.arange(B), best])
    x0 = tiny()(result.trajectory[0].flatten(0, 1), 1.0).x0
    assert relative(result.trace[0].loss, squares(x0).reshape(B, K)) < 1e-12


TARGETS = torch.tensor([[-1.0] * 6, [2.0] * 6])
MEASURED = {
    "freedom": sg.FreeDoM,
    "lgd": partial(sg.LGD, samples=2),
    "tfg": partial(sg.TFG, samples=2),
    "abms": partial(sg.ABMS, samples=2),
}


@pytest.mark.parametrize("name", MEASURED)
def test_targets_of_samples_are_those_of_all_their_particles(name):
    """The same as every sample alone with its own target, also where a recipe asks about several points of each."""

    def draw(rows):
        objective = sg.objectives.Measurement(lambda x: 1.0 * x, TARGETS[rows])
        settings = {"indices": rows, "steps": 3, "particles": sg.BestOfN(objective, K)}
        return sg.sample(tiny(), loss=MEASURED[name](objective), **settings).samples

    assert relative(draw([0, 1]), torch.cat([draw([0]), draw([1])])) < 1e-10


def test_targets_are_never_paired_by_a_guess():
    objective = sg.objectives.Measurement(lambda x: x, TARGETS)
    with pytest.raises(ConfigError, match="has 2 rows, and there are 4 samples: give one for all or one for each"):
        objective(torch.zeros(4, 6))
    with pytest.raises(ConfigError, match="has 2 rows, and there are 4 samples"):
        sg.sample(tiny(), batch=4, steps=2, loss=sg.FreeDoM(objective))

    def candidates(x0):  # one candidate of every sample after the other: not the order of particles
        return objective(torch.cat([x0, x0 + 1])).reshape(2, -1).mean(dim=0)

    with pytest.raises(ConfigError, match="has 2 rows, and there are 4 samples"):
        sg.sample(tiny(), batch=2, steps=2, loss=sg.FreeDoM(candidates))


def test_adam_begins_anew_in_every_run_wherever_it_is():
    hidden = sg.rules.adam()
    loss = sg.SAG(squares, n=1, update=lambda gradient, step, loss: 0.05 * hidden(gradient, step, loss))
    a, b = (sg.sample(tiny(), batch=2, steps=4, loss=loss).samples for _ in range(2))
    assert torch.equal(a, b)
    assert sg.sample(tiny(), batch=3, steps=4, loss=loss).samples.shape == (3, 6)
    shown = sg.SAG(squares, n=1, update=sg.rules.chain(sg.rules.adam(), sg.rules.scale(0.05)))
    assert torch.equal(sg.sample(tiny(), batch=2, steps=4, loss=shown).samples, a)


def test_runs_at_the_same_time_may_share_a_recipe():
    loss, made, meet = adaptive(), {}, threading.Barrier(2)

    def run(seed, wait=lambda *_: None):
        return sg.sample(tiny(), batch=2, steps=5, seed=seed, loss=loss, callback=wait).samples

    def beside(seed):
        made[seed] = run(seed, lambda *_: meet.wait(20))  # step by step, in turns

    alone = [run(seed) for seed in (0, 1)]
    threads = [threading.Thread(target=beside, args=(seed,)) for seed in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(made[seed], alone[seed]) for seed in (0, 1))
