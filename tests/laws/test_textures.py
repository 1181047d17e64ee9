"""Law: where the end of the run is known ahead, four calls beat one; where it is not, they do not.

On textures with random phases, whose denoiser is exact, so that one call's estimate is off only because
phases are not decided yet: a loss on the powers of bands, guided in the first 35 % of 25 steps. The whole study is in
docs/results/10-own-noise.md.
"""

import pytest
from benchmarks.textures import gram, textures

import symguide as sg


@pytest.fixture(scope="module")
def end():
    """The mean loss at the end of a guided run."""
    prior = textures()

    def end(eta, **way):
        recipe = sg.SAG(gram, scale=0.15, window=(0.0, 0.35), memory="fast", **way)
        return gram(sg.sample(prior, batch=128, steps=25, eta=eta, loss=recipe).samples).mean().item()

    return end


def test_without_noise_four_calls_beat_one(end):
    assert end(0.0, n=4) < 0.6 * end(0.0, n=1)


def test_with_noise_they_do_where_it_is_known(end):
    """Four calls without noise, or along noise that is not the run's, are no better than one: that is the control."""
    one = end(1.0, n=1)
    assert end(1.0, n=4, path="own") < 0.9 * one
    assert end(1.0, n=4) > 0.9 * one
    assert end(1.0, n=4, path="fresh", samples=1) > 0.9 * one
