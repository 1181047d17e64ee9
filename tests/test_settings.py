"""Settings of runs: numbers of other libraries are numbers, and what cannot be meant is refused in a sentence."""

import os

import numpy as np
import pytest
import torch
from conftest import squares, tiny
from torch import nn

import symguide as sg
from symguide import meter
from symguide.errors import ConfigError, GuidanceError
from symguide.memory_plan import check_memory
from symguide.solver import Predict, through, trajectory, transition


@pytest.mark.parametrize("kind", [np.int64, np.uint8, lambda n: torch.tensor(n)], ids=["int64", "uint8", "torch"])
def test_whole_numbers_of_other_libraries(kind):
    def run(whole):
        settings = {"seed": whole(3), "steps": whole(4), "batch": whole(2), "indices": [whole(1), whole(5)]}
        particles = sg.BestOfN(squares, whole(2))
        loss = sg.SAG(squares, n=2, memory=whole(1))
        restart = sg.Restart(0.1, 10.0, times=whole(1))
        drawn = sg.sample(tiny(), shape=[whole(6)], loss=loss, particles=particles, restart=restart, **settings).samples
        ahead = sg.lookahead_gradient(tiny(), torch.ones(2, 6), 0.5, squares, n=whole(3), memory=whole(2))
        moved = sg.optimise(tiny(), squares, sg.DFlow(iterations=whole(1)), **settings).samples
        return drawn, ahead.value, moved, torch.tensor(ahead.forward_calls)

    assert all(torch.equal(a, b) for a, b in zip(run(kind), run(int), strict=True))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"seed": 1.5}, "seed must be a whole number, not 1.5"),
        ({"seed": None}, "seed must be a whole number, not None"),
        ({"indices": [0.7, 1.9]}, "an index of a sample must be a whole number, not 0.7"),
        ({"indices": 3}, "indices must be whole numbers, one for each sample, not 3"),
        ({"indices": []}, "indices name no sample"),
        ({"batch": 2.0}, "batch must be a whole number of samples, at least 1, not 2.0"),
        ({"batch": True}, "batch must be a whole number of samples, at least 1, not True"),
        ({"steps": "4"}, "steps must be a whole number, at least 1, not '4'"),
        ({"shape": 6}, r"shape is that of one sample, such as \(3, 64, 64\), and not 6"),
        ({"shape": (6.5,)}, "every side of a shape must be a whole number, at least 1, not 6.5"),
        ({"start": np.zeros((2, 6))}, r"start must be a tensor of floats \(B, ...\), .* not ndarray"),
        ({"start": torch.zeros(2, 6, dtype=torch.int64)}, "start must be a tensor of floats"),
        ({"eta": "1"}, "eta must be between 0"),
        ({"on_nan": None}, "on_nan is 'raise' or 'skip'"),
        ({"dtype": torch.int64}, "one device and one floating type"),
    ],
)
def test_what_cannot_be_meant(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        sg.sample(tiny(), **{"steps": 2, **settings})


@pytest.mark.parametrize("memory", ["auto:-1GB", "auto:infGB", "auto:nanGB", "auto:GB", 1.5, True, None, -1])
def test_memory_plans_that_are_none(memory):
    with pytest.raises(ConfigError, match="memory is 'minimal', 'fast', 'auto'"):
        check_memory(memory)


@pytest.mark.parametrize("noise", [torch.tensor([0.1, 0.2]), [0.1], "1", 0.0, float("nan"), None])
def test_noise_of_a_measurement_is_one_number(noise):
    with pytest.raises(ConfigError, match="the noise of a measurement is one positive number"):
        sg.objectives.Measurement(lambda x: x, torch.zeros(1, 2), noise)


@pytest.mark.parametrize("failure", [ValueError, OSError, AttributeError])
def test_systems_that_do_not_say_what_is_free(failure, monkeypatch):
    def sysconf(name):
        raise failure

    monkeypatch.setattr(os, "sysconf", sysconf)
    with pytest.raises(ConfigError, match="name a budget, memory='auto:2GB'"):
        sg.lookahead_gradient(tiny(), torch.ones(1, 6), 0.5, squares, memory="auto")
    sg.lookahead_gradient(tiny(), torch.ones(1, 6), 0.5, squares, memory="auto:1MB")
    monkeypatch.setattr(os, "sysconf", {"SC_AVPHYS_PAGES": 7, "SC_PAGE_SIZE": 10}.get)
    assert meter.free_bytes(torch.device("cpu")) == 70


def test_samples_that_are_not_finite_end_a_run_on_a_cpu_at_once():
    class Broken(nn.Module):
        calls = 0

        def forward(self, x, timestep):
            self.calls += 1
            return x / (0.0 if self.calls == 2 else 1.0)

    network = Broken()
    with pytest.raises(GuidanceError, match=r"step 1 of 9 \(t = 0.8889\) made samples that are not finite"):
        sg.sample(sg.Denoiser(network, shape=(3,)), steps=9)
    assert network.calls == 2


@pytest.mark.parametrize("add", [sum, lambda terms: sum(terms, start=0.0 * terms[0])])
def test_objectives_add_up_by_sum(add):
    x0 = torch.randn(3, 6)
    terms = [sg.objectives.Measurement(lambda x: x, torch.full((1, 6), y), 0.5) for y in (0.0, 1.0, 2.0)]
    expected = sum(2 * (x0 - y).square().sum(dim=1) for y in (0.0, 1.0, 2.0))
    assert torch.allclose(add(terms)(x0), expected)
    assert torch.allclose((np.float32(0.5) * terms[0] + 0)(x0), x0.square().sum(dim=1))
    with pytest.raises(ConfigError, match="added to another callable, not int"):
        terms[0] + 1


@pytest.mark.parametrize(
    ("target", "dtype"),
    [
        ((torch.float32,), torch.float32),
        (("cpu", torch.float32), torch.float32),
        ((torch.device("cpu"),), torch.float64),
        ((None, torch.float16), torch.float16),
        ((torch.zeros(1, dtype=torch.float32),), torch.float32),
        ((sg.Denoiser(nn.Linear(1, 1, dtype=torch.bfloat16)),), torch.bfloat16),
    ],
)
def test_to_takes_what_torchs_does(target, dtype):
    denoiser = tiny()
    made = denoiser.to(*target)
    assert made.dtype == dtype and denoiser.dtype == torch.float64
    assert (made is denoiser) == (dtype == torch.float64)
    assert denoiser.to(device="cpu", dtype=dtype).dtype == dtype


def test_to_takes_nothing_else():
    for given in ((torch.int32,), (torch.float32, torch.float64), ("cpu", "meta"), (1.5,)):
        with pytest.raises(ConfigError, match=r"to\(\) takes"):
            tiny().to(*given)


def test_programs_that_are_kept_cannot_be_changed():
    schedule = sg.VP.discrete(betas=np.linspace(1e-4, 0.02, 1000))
    program = trajectory("dpmpp_2m", schedule, "flow", 0.5, 3)
    assert trajectory("dpmpp_2m", schedule, "flow", 0.5, 3) is program
    with pytest.raises(AttributeError):
        program.nodes.append(Predict(0, 0.5))
    with pytest.raises(AttributeError):
        program.inputs = 2
    same = sg.VP.discrete(betas=np.linspace(1e-4, 0.02, 1000))
    assert schedule == same and hash(schedule) == hash(same) and schedule is not same


def test_nothing_is_kept_of_schedules_and_grids_that_may_change():
    class Mine(sg.Schedule):
        strength = 1.0

        def alpha(self, t):
            return 1 - t

        def sigma(self, t):
            return self.strength * t

        def time(self, ratio):
            return ratio / (self.strength + ratio)

    schedule, end = Mine(), [0.4]

    def grid(schedule, t, steps):
        return [t, *end, 0.0]

    def weights(program):
        return [node.terms for node in program.nodes if not isinstance(node, Predict)]

    before = weights(trajectory("ddim", schedule, grid, 0.8, 2))
    std = transition("ddim", schedule, 0.8, 0.4, 1.0, None).std
    end[0] = 0.3
    assert weights(trajectory("ddim", schedule, grid, 0.8, 2)) != before
    schedule.strength, end[0] = 2.0, 0.4
    assert transition("ddim", schedule, 0.8, 0.4, 1.0, None).std == pytest.approx(2 * std)
    one, two = (weights(through("midpoint", schedule, (0.8, 0.0), (2,))) for schedule.strength in (1.0, 2.0))
    assert one != two


def test_numpys_whole_numbers_of_objectives_and_starts():
    from symguide.tuning.tune import in_parts

    pictures = torch.rand(2, 3, 8, 8)
    assert torch.equal(sg.objectives.Downsample(np.int64(2))(pictures), sg.objectives.Downsample(2)(pictures))
    assert sg.objectives.Cutouts(lambda x: x.flatten(1).sum(dim=1), size=np.int64(4)).size == 4
    assert in_parts(np.int64(3), (7,), np.int64(2)) == in_parts(3, (7,), 2)
    data = torch.randn(6, 4)
    assert torch.equal(
        sg.OptimalGaussian.fit(data, covariance=np.int64(2)).variances,
        sg.OptimalGaussian.fit(data, covariance=2).variances,
    )
