"""Asking a scheduler for the mean and the noise of its step: exact, of every scheduler, and nobody else's noise."""

import math
import threading

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")

import diffusers

import symguide as sg
from symguide.pipelines import state
from symguide.pipelines.draws import Draws, mean_and_std

SHAPE = 2, 4, 8, 8


def step_of(scheduler, sample, generator=None):
    """A step in the middle of a run, and what is asked of it: mean, std."""
    scheduler.set_timesteps(10)
    t, output = scheduler.timesteps[4], 0.1 * sample.flip(0)
    more = {} if generator is None else {"generator": generator}
    if hasattr(scheduler, "scale_model_input"):
        scheduler.scale_model_input(sample, t)
    before = state.kept(scheduler)

    def step():
        return scheduler.step(output, t, sample, **more).prev_sample

    sources = generator if isinstance(generator, list) else [generator]
    return step, lambda: mean_and_std(scheduler, before, step, sample, sources)


def normal(seed=0):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


STDS = {
    "DDPMScheduler": lambda s, a, b: math.sqrt((1 - b) / (1 - a) * (1 - a / b)),
    "EulerAncestralDiscreteScheduler": lambda s, a, b: float(
        (s.sigmas[5] ** 2 * (s.sigmas[4] ** 2 - s.sigmas[5] ** 2) / s.sigmas[4] ** 2).sqrt()
    ),
    "DDIMScheduler": lambda s, a, b: 0.0,
    "EulerDiscreteScheduler": lambda s, a, b: 0.0,
}
"""By formulas: of abar at the timestep and at the next one, or of sigmas."""


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("kind", STDS)
def test_mean_and_std_are_those_of_the_formula_and_no_generator_moves(kind, several):
    scheduler, sample = getattr(diffusers, kind)(), normal()
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    step, asked = step_of(scheduler, sample, generators if several else generators[0])
    states = [g.get_state() for g in generators]
    own, before = torch.get_rng_state(), state.kept(scheduler)
    mean, std = asked()
    assert all(torch.equal(g.get_state(), s) for g, s in zip(generators, states, strict=True))
    assert torch.equal(torch.get_rng_state(), own) and vars(scheduler).keys() == before.keys()
    a, b = (float(scheduler.alphas_cumprod[int(t)]) for t in scheduler.timesteps[4:6])
    assert std == pytest.approx(STDS[kind](scheduler, a, b), rel=1e-5)
    with Draws() as draws:
        made = step()
    assert draws.count == (sample.numel() if std else 0)
    z = [torch.randn((1, *SHAPE[1:]), generator=g.manual_seed(i), dtype=sample.dtype) for i, g in enumerate(generators)]
    if not several:
        z = [torch.randn(SHAPE, generator=generators[0].manual_seed(0), dtype=sample.dtype)]
    assert torch.allclose(made, mean + std * torch.cat(z), atol=1e-6)


def test_nobody_else_is_given_that_noise():
    """While one scheduler is asked, another one steps in another thread."""
    other = diffusers.DDPMScheduler()
    other.set_timesteps(10)

    def drawn():
        generator = torch.Generator().manual_seed(0)
        return other.step(torch.zeros(1, 4), other.timesteps[2], torch.zeros(1, 4), generator=generator).prev_sample

    alone, meanwhile = drawn(), []
    scheduler, sample = diffusers.DDPMScheduler(), normal()
    step, _ = step_of(scheduler, sample)
    before = state.kept(scheduler)

    def with_another_thread():
        thread = threading.Thread(target=lambda: meanwhile.append(drawn()))
        thread.start()
        thread.join()
        return step()

    mean_and_std(scheduler, before, with_another_thread, sample)
    assert len(meanwhile) == 2 and all(torch.equal(one, alone) for one in meanwhile) and torch.equal(drawn(), alone)


class Drawing(diffusers.EulerDiscreteScheduler):
    """Adds noise that it draws in a way of its own."""

    def __init__(self, draw, **settings):
        super().__init__(**settings)
        self.draw = draw

    def step(self, model_output, timestep, sample, generator=None, **more):
        made = super().step(model_output, timestep, sample)
        made.prev_sample = made.prev_sample + self.draw(self, sample)
        return made


def test_every_way_to_draw_normal_noise_is_known():
    sample = normal()
    ways = {
        "torch.randn": (0.5, lambda _, x: 0.5 * torch.randn(x.shape, dtype=x.dtype)),
        "randn_like": (0.5, lambda _, x: 0.5 * torch.randn_like(x)),
        "normal_": (0.5, lambda _, x: torch.empty_like(x).normal_(0.0, 0.5)),
        "aten": (0.5, lambda _, x: -0.5 * torch.randn(*x.shape, dtype=x.dtype)),
        "two noises": (0.5, lambda _, x: 0.3 * torch.randn_like(x) - 0.4 * torch.randn_like(x)),
        "one of two": (0.5, lambda _, x: 0.5 * torch.randn_like(x) + 0.0 * torch.randn_like(x)),
    }
    for name, (expected, draw) in ways.items():
        _, asked = step_of(Drawing(draw), sample)
        mean, std = asked()
        _, plain = step_of(diffusers.EulerDiscreteScheduler(), sample)
        assert std == pytest.approx(expected, rel=1e-6), name
        assert torch.equal(mean, plain()[0]), name


def test_noise_that_cannot_be_asked_for_is_found_out():
    own = torch.Generator().manual_seed(3)
    ways = {
        "torch's rand": lambda _, x: torch.rand(x.shape),
        "torch's normal": lambda _, x: torch.normal(torch.zeros_like(x), 0.5),
        "torch's randn": lambda _, x: torch.randn(x.shape, generator=own),
        "white noise": lambda _, x: torch.from_numpy(np.random.default_rng().normal(size=x.shape)),
        "as white noise": lambda _, x: torch.arange(8) * torch.randn_like(x),
        "mean of its step is not known": lambda _, x: torch.randn_like(x)[:1].repeat(2, 1, 1, 1).cumsum(1),
    }
    for why, draw in ways.items():
        _, asked = step_of(Drawing(draw), normal())
        with pytest.raises(sg.GuidanceError, match=why):
            asked()


def test_a_brownian_path_is_not_told_what_was_asked():
    """torchsde's samplers remember what they drew: the constants that are asked with would be its path from then on."""
    scheduler = Drawing(lambda own, x: 0.5 * own.noise_sampler(own.sigmas[4], own.sigmas[5]))
    path = {}

    def remembered(*levels):
        return path.setdefault(levels, torch.randn(SHAPE, generator=torch.Generator().manual_seed(7)))

    scheduler.noise_sampler = remembered
    _, asked = step_of(scheduler, normal())
    assert asked()[1] == pytest.approx(0.5) and not path and scheduler.noise_sampler is remembered
