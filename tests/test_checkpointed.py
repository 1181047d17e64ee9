"""Checkpointed blocks of a network of one's own: the same gradient bit for bit, from fewer bytes."""

import copy

import pytest
import torch
from torch import nn

import symguide as sg
from symguide.errors import ConfigError
from symguide.meter import SavedBytes
from symguide.networks import UNet

BLOCKS = "down.*.*", "middle.*", "up.*.*"


@pytest.fixture(scope="module")
def denoiser():
    torch.manual_seed(0)
    network = UNet(in_channels=1, channels=(8, 16), groups=4, heads=2).double()
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, std=0.1)  # those that begin at zero would hide what is inside
    return sg.Denoiser(network, predicts="eps", shape=(1, 8, 8))


def bright(x0):
    """Squared distance to 0.7, (B,)."""
    return (x0 - 0.7).square().flatten(1).sum(dim=1)


def gradient(denoiser, n=3, **settings):
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with SavedBytes() as saved:
        value = sg.lookahead_gradient(denoiser, x, 0.6, bright, n, **settings).value
    return value, saved.peak


@pytest.mark.parametrize("memory", ["minimal", "fast", "auto"])
def test_the_gradient_is_the_same_and_takes_less(denoiser, memory):
    plain, whole = gradient(denoiser, memory=memory)
    with sg.checkpointed(denoiser.network, *BLOCKS):
        value, less = gradient(denoiser, memory=memory)
    assert torch.equal(value, plain) and less < 0.4 * whole
    assert gradient(denoiser, memory=memory)[1] == whole
    assert not any("forward" in vars(part) for part in denoiser.network.modules())


def test_a_run_is_the_same_also_with_a_copy_of_the_network(denoiser):
    def run():
        return sg.sample(denoiser, batch=2, steps=3, loss=sg.SAG(bright, n=2), dtype=torch.float32)

    plain = run()
    with sg.checkpointed(denoiser.network, *BLOCKS):
        less = run()
    assert torch.equal(plain.samples, less.samples) and less.cost.peak_bytes < 0.4 * plain.cost.peak_bytes


def test_blocks_called_again_are_those_of_the_copy(denoiser):
    with sg.checkpointed(denoiser.network, "middle.0"):
        other = copy.deepcopy(denoiser.network)
    assert other.middle[0].forward.args[0].__self__ is other.middle[0]


def test_everything_is_put_back_after_an_error(denoiser):
    with pytest.raises(ZeroDivisionError), sg.checkpointed(denoiser.network, *BLOCKS):
        raise ZeroDivisionError
    assert not any("forward" in vars(part) for part in denoiser.network.modules())


@pytest.mark.parametrize(
    ("blocks", "sentence"),
    [
        (("dwon.*",), "'dwon.*' names no module of UNet, which has"),
        (("down.*",), "names no module"),  # a list of blocks, which is never called
        (("middle.*", "middle.0.conv1"), "'middle.0.conv1' lies inside 'middle.0'"),
    ],
)
def test_blocks_that_cannot_be_meant(denoiser, blocks, sentence):
    with pytest.raises(ConfigError) as failure, sg.checkpointed(denoiser.network, *blocks):
        pass
    assert sentence in str(failure.value)
