"""Several particles for every sample: who is paired with whom, what a resampling moves, and what is reported."""

import math
import threading
from functools import partial
from itertools import pairwise

import pytest
import torch
from conftest import relative, squares, tiny

import symguide as sg
from symguide.errors import ConfigError, GuidanceError
from symguide.particle_guidance import resample
from symguide.per_sample import effective_sample_size
from symguide.solver import transition
from symguide.step import Moved

B, K = 2, 3


class Population:
    """K particles for every sample, resampled after the third step; the first of each is chosen."""

    particles = K

    def __init__(self, parents):
        self.parents = parents

    def move(self, step, x_s):
        return Moved(x_s[self.parents], self.parents) if step.index == 2 else x_s

    def choose(self, samples, log_weights):
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


class Weighed:
    """Sequential Monte Carlo with a potential on the clean estimate, resampled where the weights part too far."""

    def __init__(self, objective, particles, below=0.5):
        self.objective, self.particles, self.below = objective, particles, below

    def move(self, step, x_s):
        if step.s == 0:
            return Moved(x_s, log_weights=step.log_weights)
        first = step.predict_at(x_s, step.s)
        now = -self.objective(first.x0)
        before = step.run.memory.get(self, "potential", torch.zeros_like(now))
        weights, ess = step.log_weights + now - before, None
        step.run.memory.put(self, "potential", now)
        parents = None
        ess = effective_sample_size(weights, self.particles)
        low = (ess < self.below * self.particles).repeat_interleave(self.particles)
        if low.any():
            drawn = resample(weights, self.particles, step.uniform("resample"))
            parents = torch.where(low, drawn, torch.arange(len(low)))
            weights = torch.where(low, torch.zeros_like(weights), weights)
            x_s, first = x_s[parents], first.rows(parents)
        return Moved(x_s, parents, first, weights, ess)

    def choose(self, samples, log_weights):
        w = torch.softmax(log_weights.reshape(-1, self.particles), dim=1)
        return w.argmax(dim=1) + torch.arange(len(w)) * self.particles


def test_weighed_particles_are_reported_and_each_sample_is_its_own():
    rule = Weighed(lambda x0: 0.5 * squares(x0), 4)
    result = sg.sample(tiny(), batch=3, steps=6, particles=rule, condition={"label": [0, 1, 2]})
    assert all(record.ess.shape == (3,) for record in result.trace)
    assert all(record.ess.min() >= 1 and record.ess.max() <= 4 + 1e-9 for record in result.trace)
    moved = [record.parents for record in result.trace if record.parents is not None]
    assert moved and all(parents.shape == (3, 4) and parents.max() < 4 for parents in moved)
    alone = sg.sample(tiny(), indices=[1], steps=6, particles=rule, condition={"label": [1]})
    assert relative(alone.samples[0], result.samples[1]) < 1e-9
    assert result.cost.forward_calls == 4 * 6  # the prediction at (x_s, s) is the next step's own


def test_weights_give_the_posterior_of_a_gaussian():
    """x_0 ~ N(0, v), potential exp(-(x_0 - 2)² / 2): the posterior is N(2 v, v) / (1 + v); v is that of the steps."""
    model = sg.GaussianDenoiser(torch.zeros(1), torch.eye(1))
    rule = Weighed(lambda x0: 0.5 * (x0[:, 0] - 2).square(), 200)
    seen = []

    def last(step, x_s):
        moved = Weighed.move(rule, step, x_s)
        if step.s == 0:  # the exact potential of clean samples in place of that of the estimate
            potential = step.run.memory.get(rule, "potential")
            weights = step.log_weights - rule.objective(moved.x_s) - potential
            seen.append((moved.x_s[:, 0].reshape(20, 200), torch.softmax(weights.reshape(20, 200), dim=1)))
        return moved

    rule.move = last
    sg.sample(model, batch=20, steps=20, particles=rule)
    schedule, times, v = model.schedule, [1 - i / 20 for i in range(21)], 1.0
    for t, s in pairwise(times):  # x_s = (alpha_s alpha_t + down sigma_t) x_t + std z
        std = transition("ddim", schedule, t, s, 1.0, None).std
        down = math.sqrt(max(schedule.sigma(s) ** 2 - std**2, 0.0))
        v = (schedule.alpha(s) * schedule.alpha(t) + down * schedule.sigma(t)) ** 2 * v + std**2
    (x, w) = seen[0]
    mean = (w * x).sum(dim=1)
    variance = (w * x.square()).sum(dim=1) - mean.square()
    assert 0.5 < v < 0.9  # the steps are few
    assert abs(mean.mean().item() - 2 * v / (1 + v)) < 0.04
    assert abs(variance.mean().item() - v / (1 + v)) < 0.04


class Best:
    """Of k proposals the one whose clean estimate at s has the lowest loss, as in SVDD."""

    particles = 1

    def __init__(self, objective, k):
        self.objective, self.k = objective, k

    def move(self, step, x_s):
        if step.std == 0:
            return x_s
        proposed = step.propose(self.k)
        made = step.predict_at(proposed, step.s)
        best = self.objective(made.x0).reshape(-1, self.k).argmin(dim=1)
        rows = best + self.k * torch.arange(len(best))
        return Moved(proposed[rows], first=made.rows(rows))

    def choose(self, samples, log_weights):
        return torch.arange(len(samples))


def test_proposals_that_are_predicted_are_not_predicted_again():
    denoiser = tiny()
    settings = {"steps": 6, "particles": Best(squares, 4), "prediction": sg.CFG(2.0)}
    result = sg.sample(denoiser, batch=2, condition={"label": [1, 2]}, **settings)
    assert denoiser.network.forward_rows == 2 * 2 * 21 == 2 * result.cost.forward_calls
    plain = sg.sample(tiny(), batch=2, condition={"label": [1, 2]}, steps=6, prediction=sg.CFG(2.0))
    assert (squares(result.samples) < squares(plain.samples)).all()
    alone = sg.sample(tiny(), indices=[1], condition={"label": [2]}, **settings)
    assert relative(alone.samples[0], result.samples[1]) < 1e-9


def test_one_proposal_is_the_steps_own_distribution():
    """Mean and spread of propose(k), and log_density, against the closed form of the step."""
    seen = {}

    class Look:
        particles = 1

        def move(self, step, x_s):
            if step.index == 1:
                k = 4000
                drawn = step.propose(k).reshape(2, k, 6)
                seen["gap"] = (drawn.mean(dim=1) - step.mean()).abs().max() / step.std
                seen["std"] = (drawn.std(dim=1) / step.std - 1).abs().max()
                normal = torch.distributions.Normal(step.mean()[:, None], step.std)
                expected = normal.log_prob(drawn).sum(dim=2).flatten()
                seen["density"] = relative(step.log_density(drawn.flatten(0, 1)), expected)
                u = step.uniform("resample", 5000)
                seen["uniform"] = u.shape == (2, 5000) and abs(u.mean().item() - 0.5) < 0.02 and u.min() > 0
            return x_s

        def choose(self, samples, log_weights):
            return torch.arange(len(samples))

    sg.sample(tiny(), batch=2, steps=3, particles=Look())
    assert seen["gap"] < 0.08 and seen["std"] < 0.06 and seen["density"] < 1e-12 and seen["uniform"]
    with pytest.raises(GuidanceError, match=r"step 1 of 3 .*: propose needs a stochastic step"):
        sg.sample(tiny(), batch=2, steps=3, eta=0.0, particles=Look())


def test_a_prediction_for_rows_that_are_no_multiple_is_refused():
    rule = Best(squares, 2)
    rule.move = lambda step, x_s: step.predict_at(x_s[:1], step.s)
    with pytest.raises(GuidanceError, match="predict_at takes a multiple of the step's 2 rows, not 1"):
        sg.sample(tiny(), batch=2, steps=3, particles=rule)
