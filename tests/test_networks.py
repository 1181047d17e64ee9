"""Networks are per sample and run in every precision; model folders come back bit for bit or say what is wrong."""

import copy
import json

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from symguide import networks
from symguide.errors import ConfigError, WeightsError
from symguide.networks.layers import coloured, placed
from symguide.networks.sketch import Sketch, crisp
from symguide.schedule import VP
from symguide.worlds import emoji


@pytest.fixture(autouse=True)
def single():
    """These tests start from float32, as users do."""
    torch.set_default_dtype(torch.float32)


def unet(**changes):
    torch.manual_seed(0)
    arguments = {
        "in_channels": 1,
        "channels": (8, 16),
        "classes": 3,
        "attention": (False, True),
        "heads": 2,
        "groups": 4,
    }
    return filled(networks.UNet(**(arguments | changes)))


def filled(network):
    """The network with no weight at zero, so that every part takes part."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network.eval().requires_grad_(False)


def vector_unet(**changes):
    torch.manual_seed(0)
    arguments = {
        "in_channels": 1,
        "channels": (8, 16),
        "attention": (False, True),
        "heads": 2,
        "groups": 4,
        "text": 6,
        "entries": 2,  # bfloat16 would choose others where keys are nearly tied
    }
    return filled(networks.VectorUNet(**(arguments | changes)))


def everything():
    torch.manual_seed(0)
    x, t, label = torch.randn(5, 1, 8, 8, dtype=torch.float64), torch.rand(5) * 1000, torch.arange(5) % 4
    text, view, look = (torch.randn(5, width, dtype=torch.float64) for width in (6, 7, 5))
    text = nn.functional.normalize(text)
    return {
        "VectorUNet": (vector_unet(), (x, t, text, label, view, look)),
        "UNet": (unet(), (x, t, label)),
        "ConvClassifier": (filled(networks.ConvClassifier(channels=(8, 16), width=12, groups=4)), (x,)),
        "TimedClassifier": (filled(networks.TimedClassifier(channels=(8, 16), groups=4)), (x, t)),
        "TokenClassifier": (filled(networks.TokenClassifier(width=16, depth=2, heads=2)), (x,)),
    }


ALL = pytest.mark.parametrize("name", sorted(everything()))


@ALL
def test_every_sample_is_the_same_alone_and_in_a_batch(name):
    network, inputs = everything()[name]
    network = network.double()
    together = network(*inputs)
    alone = torch.cat([network(*(value[i : i + 1] for value in inputs)) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-9)


@ALL
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrow_types_agree_with_float64(name, dtype):
    network, (x, *rest) = everything()[name]
    exact = network.double()(x, *rest)
    narrow = network.to(dtype)(x.to(dtype), *rest)
    assert narrow.dtype == dtype
    error = (narrow.double() - exact).norm() / exact.norm()
    assert error < (1e-5 if dtype == torch.float32 else 0.1)


@ALL
def test_gradients_reach_the_input_and_match_finite_differences(name):
    network, (x, *rest) = everything()[name]
    network = network.double()
    x, direction = x.requires_grad_(), torch.randn_like(x)
    (gradient,) = torch.autograd.grad(network(x, *rest).square().sum(), x)
    with torch.no_grad():
        ahead, behind = (network(x + h * direction, *rest).square().sum() for h in (1e-5, -1e-5))
    assert (gradient * direction).sum().item() == pytest.approx(((ahead - behind) / 2e-5).item(), rel=1e-6)


def test_no_label_is_the_null_label():
    network, (x, t, _) = everything()["UNet"]
    network = network.double()
    assert torch.equal(network(x, t), network(x, t, torch.full((5,), 3)))
    assert not torch.allclose(network(x, t), network(x, t, torch.zeros(5, dtype=torch.long)))


@pytest.mark.parametrize("side", [8, 32, 40])
def test_what_a_vector_unet_is_not_told_is_null(side):
    """At sides where the sketch is as large as the finest level, and smaller, and larger."""
    network, (_, t, text, style, view, look) = everything()["VectorUNet"]
    network, x = network.double(), torch.randn(5, 1, side, side, dtype=torch.float64)
    bare, none = network(x, t), torch.full((5,), 3)
    assert torch.equal(bare, network(x, t, 0 * text, none, 0 * view, 0 * look))
    for told in ({"text": text}, {"style": style.clamp(max=2)}, {"view": view}, {"look": look}):
        made = network(x, t, **told)
        assert made.shape == x.shape and bool(((made - bare).flatten(1).norm(dim=1) > 1e-3).all())


@pytest.mark.parametrize(
    "told, message",
    [
        ({"text": torch.zeros(2, 5)}, r"text must be 2 rows of 6 numbers, not \(2, 5\)"),
        ({"text": torch.zeros(1, 6)}, r"text must be 2 rows of 6 numbers"),
        ({"text": torch.zeros(2, 6, dtype=torch.long)}, r"text must be 2 rows of 6 numbers"),
        ({"view": torch.zeros(2, 6)}, r"view must be 2 rows of 7 numbers, not \(2, 6\)"),
        ({"look": torch.zeros(2, 3)}, r"look must be 2 rows of 5 numbers, not \(2, 3\)"),
        ({"style": torch.zeros(2)}, r"style must be 2 integers, one for each sample, not torch.float32"),
        ({"style": torch.zeros(3, dtype=torch.long)}, r"style must be 2 integers"),
        ({"style": torch.tensor([0, 4])}, r"styles must be within 0\.\.3 \(3 is none\), not 0\.\.4"),
        ({"style": torch.tensor([-1, 0])}, r"styles must be within 0\.\.3"),
    ],
)
def test_what_a_vector_unet_cannot_be_told(told, message):
    with pytest.raises(ConfigError, match=message):
        vector_unet()(torch.zeros(2, 1, 8, 8), torch.zeros(2), **told)
    with pytest.raises(ConfigError, match="multiples of 4"):
        vector_unet()(torch.zeros(2, 1, 8, 6), torch.zeros(2))


def test_timesteps_count():
    network, (x, t, _) = everything()["UNet"]
    network = network.double()
    assert torch.equal(network(x, torch.tensor(7.0)), network(x, torch.full((5,), 7.0)))
    assert not torch.allclose(network(x, torch.tensor(7.0)), network(x, t))


@pytest.mark.parametrize("channels, attention", [((8,), (True,)), ((8, 12, 16), (False, True, False))])
def test_levels(channels, attention):
    network = unet(in_channels=3, channels=channels, attention=attention, blocks=2, classes=None)
    x = torch.randn(2, 3, 8, 12)
    assert network(x, torch.tensor([1.0, 500.0])).shape == x.shape


def test_classifier_features():
    for name in ("ConvClassifier", "TokenClassifier"):
        network, (x,) = everything()[name]
        network = network.double()
        assert torch.equal(network.head(network.features(x)), network(x))


@pytest.mark.parametrize(
    "inputs, message",
    [
        ((torch.zeros(2, 3, 8, 8), torch.zeros(2)), r"takes x of shape \(B, 1, H, W\)"),
        ((torch.zeros(2, 1, 7, 8), torch.zeros(2)), "multiples of 2"),
        ((torch.zeros(2, 1, 8, 8), torch.zeros(3)), r"timestep must be of shape \(2,\)"),
        ((torch.zeros(2, 1, 8, 8), torch.zeros(2), torch.zeros(3, dtype=torch.long)), "label must be 2 integers"),
        ((torch.zeros(2, 1, 8, 8), torch.zeros(2), torch.zeros(2)), "label must be 2 integers"),
        ((torch.zeros(2, 1, 8, 8), torch.zeros(2), torch.tensor([0, 4])), r"within 0\.\.3 \(3 is none\)"),
    ],
)
def test_wrong_inputs(inputs, message):
    with pytest.raises(ConfigError, match=message):
        unet()(*inputs)
    with pytest.raises(ConfigError, match="has no classes"):
        unet(classes=None)(torch.zeros(1, 1, 8, 8), torch.zeros(1), torch.zeros(1, dtype=torch.long))


@pytest.mark.parametrize(
    "make",
    [
        lambda: networks.UNet(channels=(8, 16), attention=(True,)),
        lambda: networks.UNet(channels=(8, 15)),
        lambda: networks.UNet(channels=(9, 9), groups=3),
        lambda: networks.UNet(heads=5),
        lambda: networks.ConvClassifier(size=9),
        lambda: networks.TimedClassifier(channels=(8, 15)),
        lambda: networks.TokenClassifier(patch=3),
        lambda: networks.TokenClassifier(heads=5),
    ],
)
def test_arguments_that_do_not_fit(make):
    with pytest.raises(ConfigError):
        make()


# Model folders


@ALL
def test_round_trip_is_bit_equal(name, tmp_path):
    network, inputs = everything()[name]
    networks.save(network, tmp_path / "a" / "b", card="# card", note={"key": [1, 2]})
    loaded, config = networks.load(tmp_path / "a" / "b")
    assert type(loaded) is type(network) and config["note"] == {"key": [1, 2]} and config["network"] == name
    inputs = tuple(value.float() if value.is_floating_point() else value for value in inputs)
    assert torch.equal(loaded(*inputs), network(*inputs))
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    assert sorted(p.name for p in (tmp_path / "a" / "b").iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_load_follows_the_dtype_and_leaves_the_random_numbers_alone(tmp_path):
    networks.save(unet(), tmp_path)
    state = torch.get_rng_state()
    assert {p.dtype for p in networks.load(tmp_path, dtype=torch.bfloat16)[0].parameters()} == {torch.bfloat16}
    torch.set_default_dtype(torch.float64)
    try:
        assert {p.dtype for p in networks.load(tmp_path)[0].parameters()} == {torch.float64}
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(state, torch.get_rng_state())


def edit(folder, **changes):
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def cut(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])


def flip(folder):
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def foreign(folder, tensors):
    safetensors.torch.save_file(tensors, folder / "model.safetensors")
    edit(folder, sha256=None)


BROKEN = {
    "no config": (lambda f: (f / "config.json").unlink(), WeightsError, r"cannot read .*config\.json"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), WeightsError, r"cannot read .*model\.safetensors"),
    "not JSON": (lambda f: (f / "config.json").write_bytes(b"{\xff"), ConfigError, r"config\.json is not JSON"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), ConfigError, "is no model config"),
    "no arguments": (lambda f: edit(f, arguments=None), ConfigError, "is no model config"),
    "unknown network": (lambda f: edit(f, network="Unet"), ConfigError, "did you mean 'UNet'"),
    "a strange network": (lambda f: edit(f, network=["UNet"]), ConfigError, "unknown network"),
    "unknown argument": (lambda f: edit(f, arguments={"depth": 3}), ConfigError, "does not take these arguments"),
    "bad argument": (lambda f: edit(f, arguments={"channels": "wide"}), ConfigError, "does not take these arguments"),
    "truncated": (lambda f: cut(f, 1000), WeightsError, "sha256 differs"),
    "empty": (lambda f: (cut(f, 0), edit(f, sha256=None)), WeightsError, "no whole safetensors file"),
    "truncated header": (lambda f: (cut(f, 100), edit(f, sha256=None)), WeightsError, "no whole safetensors file"),
    "truncated weights": (lambda f: (cut(f, -9), edit(f, sha256=None)), WeightsError, "no whole safetensors file"),
    "one bit": (flip, WeightsError, "sha256 differs"),
    "a pickle": (
        lambda f: (torch.save(unet().state_dict(), f / "model.safetensors"), edit(f, sha256=None)),
        WeightsError,
        "no whole safetensors file",
    ),
    "another network": (lambda f: foreign(f, {"weight": torch.zeros(2)}), WeightsError, "input.weight|is missing"),
    "one tensor more": (
        lambda f: foreign(f, unet().state_dict() | {"more": torch.zeros(2)}),
        WeightsError,
        "more belongs to another network",
    ),
    "another width": (lambda f: foreign(f, unet(channels=(8, 24)).state_dict()), WeightsError, "has shape"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_folders_say_what_is_wrong(case, tmp_path):
    networks.save(unet(), tmp_path)
    breaks, error, message = BROKEN[case]
    breaks(tmp_path)
    with pytest.raises(error, match=message) as caught:
        networks.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(WeightsError, match="nowhere"):
        networks.load(tmp_path / "nowhere")


def test_a_save_that_fails_leaves_nothing_and_harms_nothing(tmp_path, monkeypatch):
    networks.save(unet(), tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match="JSON values only"):
        networks.save(filled(unet()), tmp_path, extra=object())
    with pytest.raises(ConfigError, match="has network already"):
        networks.save(unet(), tmp_path, network="other")

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        networks.save(filled(unet()), tmp_path)
    assert before == {p.name: p.read_bytes() for p in tmp_path.iterdir()}


def test_a_class_of_ones_own(tmp_path, monkeypatch):
    class Mine(nn.Linear):
        def __init__(self, width: int) -> None:
            super().__init__(width, width)
            self.arguments = {"width": width}

    with pytest.raises(ConfigError, match="Mine is not registered"):
        networks.save(Mine(3), tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(networks.NETWORKS, "Mine", Mine)
    mine = Mine(3)
    networks.save(mine, tmp_path)
    assert torch.equal(networks.load(tmp_path)[0].weight, mine.weight)


def test_a_class_of_ones_own_by_a_decorator(tmp_path):
    known = dict(networks.NETWORKS)
    try:

        @networks.saveable
        class Scaled(nn.Linear):
            def __init__(self, sides: tuple[int, int] = (2, 3), *, heads: dict | None = None, name: str = "a") -> None:
                super().__init__(*sides)

        made = Scaled((4, 5), heads={"b": (1, 2)})
        assert made.arguments == {"sides": [4, 5], "heads": {"b": [1, 2]}, "name": "a"}
        networks.save(made, tmp_path)
        loaded, config = networks.load(tmp_path)
        assert config["arguments"] == loaded.arguments == made.arguments and torch.equal(loaded.weight, made.weight)
        with pytest.raises(TypeError, match="unexpected keyword argument 'width'"):
            Scaled(width=3)
    finally:
        networks.NETWORKS.clear()
        networks.NETWORKS.update(known)


def test_weights_stored_in_half_precision_come_back_in_any(tmp_path):
    network = networks.ConvClassifier(1, 8, (8, 8)).float()
    networks.save(network, tmp_path / "half", dtype=torch.float16)
    networks.save(network, tmp_path / "whole")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "whole")]
    assert sizes[0] < 0.6 * sizes[1]
    loaded = networks.load(tmp_path / "half", dtype=torch.float64)[0]
    for mine, given in zip(loaded.parameters(), network.parameters(), strict=True):
        assert mine.dtype == torch.float64 and torch.equal(mine, given.half().double())
    assert next(network.parameters()).dtype == torch.float32


def test_larger_pictures_are_seen_as_the_means_of_their_blocks():
    torch.manual_seed(0)
    network = filled(networks.ConvClassifier(channels=(8, 16), width=12, groups=4, heads={"a": 3, "b": 2})).double()
    whole = networks.Averaged(network, 8)
    x = torch.randn(2, 1, 24, 24, dtype=torch.float64)
    small = x.reshape(2, 1, 8, 3, 8, 3).mean(dim=(3, 5))
    torch.testing.assert_close(whole(x), network(small))
    torch.testing.assert_close(whole.attribute(x, "b"), network.attribute(small, "b"))
    torch.testing.assert_close(whole.features(x), network.features(small))
    assert [m.shape for m in whole.maps(x)] == [m.shape for m in network.maps(small)]
    assert torch.equal(whole(small), network(small)) and whole.heads == network.heads
    assert next(whole.parameters()) is next(network.parameters()) and not hasattr(whole, "text")
    torch.testing.assert_close(copy.deepcopy(whole).to(torch.float64)(x), whole(x))
    for shape in ((2, 1, 12, 12), (2, 1, 8, 16), (1, 8, 8), (2, 1, 0, 0)):
        with pytest.raises(ConfigError, match="multiple of 8 pixels"):
            whole(torch.zeros(shape, dtype=torch.float64))


def test_a_segmenter_of_larger_pictures_labels_all_their_pixels():
    torch.manual_seed(0)
    network = filled(networks.PyramidSegmenter(channels=(8, 8, 16)))
    x = torch.randn(2, 3, 64, 64)
    out = networks.Averaged(network, 32)(x)
    assert out.shape == (2, 7, 64, 64)
    torch.testing.assert_close(out[:, :, 1::2, ::2], network(nn.functional.avg_pool2d(x, 2)))


def test_a_vector_unet_sees_its_sketch_as_the_view_has_it():
    """Its output is `refine`'s with what the sketch remembers, and layers move and change ground as drawings do."""
    network, (x, t, text, style, view, look) = everything()["VectorUNet"]
    network, view = network.double(), 0.1 * view
    layers, known, sure = network.sketch(text)
    told = x, t, text, style, view, look
    assert torch.equal(network(*told), network.refine(*told, layers, known, sure))
    layers = layers / layers.abs().amax()  # beside those of random weights nothing else would count
    base = network.refine(*told, layers, known, sure)
    for other in ((layers.flip(4), known, sure), (layers, 0 * known, sure), (layers, known, sure + 1)):
        gap = network.refine(*told, *other) - base
        assert bool((gap.flatten(1).norm(dim=1) > 1e-4).all())

    drawn = torch.rand(5, 4, 32, 32, dtype=torch.float64) * 255
    drawn[:, :3] *= drawn[:, 3:] / 255
    both = torch.stack([drawn, drawn.flip(0)], dim=1) / 255
    view, plain = 0.2 * torch.rand(5, 7, dtype=torch.float64), torch.zeros(5, 5, dtype=torch.float64)
    quarter = torch.tensor([[0.0, 0, 0, torch.pi / 2, 0.3, 0.5, 0.7]], dtype=torch.float64)
    for which, each in enumerate((drawn, drawn.flip(0))):
        assert torch.allclose(placed(both, view, plain)[:, which].float(), emoji.picture(each, view), atol=1e-5)
    turned = placed(both, torch.cat([quarter] * 5), plain)
    upright = placed(both, torch.cat([quarter * torch.tensor([1.0, 1, 1, 0, 1, 1, 1])] * 5), plain)
    assert torch.allclose(turned, upright.rot90(-1, dims=(3, 4)), atol=1e-9)
    ground = torch.tensor([0.7, 0.5, 0.3], dtype=torch.float64)[:, None, None]
    assert torch.allclose(upright[:, 0], 2 * (drawn[:, :3] + (255 - drawn[:, 3:]) * ground) / 255 - 1)


def test_a_network_is_shown_the_drawing_in_the_style_asked_for_once_more():
    """In a style that is said that one, else the posterior mean of those that it knows; without any, the ground."""
    network, (_, t, text, style, view, look) = everything()["VectorUNet"]
    network = networks.VectorUNet(channels=(8, 16), attention=(False, True), heads=2, groups=4, text=6, entries=2)
    network.sketch.known.copy_(torch.tensor([[1.0, 0, 1], [0, 1, 1]]))
    network = network.double()
    alpha, sigma = 0.05, 0.9987
    network.weigh.bias.data = torch.tensor([alpha / sigma**2, alpha**2 / sigma**2]).double().log()
    layers, known, sure = network.sketch(text)
    known[3] = torch.tensor([1.0, 1, 0])
    known[4] = 0
    style[:] = torch.tensor([0, 1, 2, 3, 3])
    layers = torch.rand(5, 3, 4, 32, 32).double() * known[:, :, None, None, None]
    x = alpha * placed(layers, 0 * view, look)[:, 0] + sigma * torch.randn(5, 3, 32, 32).double()
    shown = []
    network.hint.register_forward_hook(lambda module, given, made: shown.append(given[0]))
    network.refine(x, t, text, style, 0 * view, look, layers, known, sure)
    pictures, said = nn.functional.pixel_shuffle(shown[0][:, :48], 2).unflatten(1, (4, 3)), shown[0][:, 48:]
    assert torch.allclose(pictures[:, :3], placed(layers, 0 * view, look))
    assert torch.equal(said, said[:, :, :1, :1].expand(-1, -1, 16, 16))
    assert torch.equal(said[:, :3, 0, 0], known) and torch.equal(said[:, 4, 0, 0], sure)
    for i in range(3):
        assert torch.allclose(pictures[i, 3], pictures[i, i] if known[i, i] else torch.ones(3, 32, 32).double())
        assert said[i, 3, 0, 0] == known[i, i]
    near = torch.stack([-(x[3] - alpha * pictures[3, k]).square().sum() / (2 * sigma**2) for k in range(2)]).softmax(0)
    expected = near[0] * pictures[3, 0] + near[1] * pictures[3, 1]
    torch.testing.assert_close(pictures[3, 3], expected)
    torch.testing.assert_close(said[3:, 3, 0, 0], torch.tensor([1.0, 0]).double())
    assert torch.equal(pictures[4, 3], torch.ones(3, 32, 32).double())


def test_before_it_is_trained_a_network_takes_samples_for_normal_about_what_it_remembers():
    """Its output is then v by the posterior mean of samples N(s, tau^2), from noise to none."""
    torch.manual_seed(0)
    network = networks.VectorUNet(channels=(8, 16), attention=(False, True), heads=2, groups=4, text=6, entries=2)
    network, schedule = network.double().requires_grad_(False), VP.cosine()
    network.spread.weight[0, :-4] = 0.1 * torch.randn(32)
    for last in (network.output, network.finish):
        nn.init.zeros_(last.bias)  # their weights are
    t = torch.tensor([0.0, 0.01, 0.5, 0.9, 0.995]).double()
    style, view, look = torch.tensor([0, 1, 2, 0, 1]), torch.zeros(5, 7).double(), torch.zeros(5, 5).double()
    known = torch.tensor([[1.0, 1, 1]] * 3 + [[0.0, 1, 1], [1.0, 0, 0]]).double()
    layers, sure = torch.rand(5, 3, 4, 32, 32).double() * known[:, :, None, None, None], torch.rand(5).double()
    mean = torch.where(known[range(5), style, None, None, None] > 0, placed(layers, view, look)[range(5), style], 1.0)
    share = known[range(5), style]
    time = nn.functional.silu(network.embed_time(1000 * t, 5))
    odds = time @ network.spread.weight[0, :-4] + 3.5 - 5.2 * share
    tau, alpha, sigma = (z[:, None, None, None] for z in (odds.sigmoid(), schedule.alpha(t), schedule.sigma(t)))
    x = alpha * (mean + tau * torch.randn(5, 3, 32, 32)) + sigma * torch.randn(5, 3, 32, 32)
    got = network.refine(x, 1000 * t, torch.zeros(5, 6).double(), style, view, look, layers, known, sure)
    x0 = mean + alpha * tau**2 / (alpha**2 * tau**2 + sigma**2) * (x - alpha * mean)
    torch.testing.assert_close(alpha * x - sigma * got, x0, rtol=1e-5, atol=1e-6)
    some = slice(1, None)  # at t = 0 v is the noise, which x does not tell of
    torch.testing.assert_close(got[some], ((alpha * x - x0) / sigma)[some], rtol=1e-5, atol=1e-5)


def test_layers_in_other_colours():
    """Red turned by a third of the circle is green; gray is the mean of the colours, pale the way to white."""
    red, clear = torch.tensor([1.0, 0, 0, 1]), torch.tensor([0.0, 0, 0, 0])
    half = torch.tensor([0.3, 0.1, 0.2, 0.5])
    layers = torch.stack([red, clear, half]).T[None, :, :, None].expand(6, -1, -1, -1)
    look = torch.zeros(6, 5)
    look[1:, 1:4] = torch.tensor(
        [[0, 0, 2 * torch.pi / 3], [0, 1, 0.7], [1, 0, 0.7], [0.5, 0, 0], [0, 0.5, 2 * torch.pi]]
    )
    look[:, [0, 4]] = torch.rand(6, 2)  # ink is another's work
    plain, turned, gray, white, pale, grayish = coloured(layers, look)[:, :, :, 0].unbind(0)
    assert torch.equal(plain, layers[0, :, :, 0])
    expected = {
        "turned": (turned, [[0, 1, 0, 1], [0, 0, 0, 0], [0.2, 0.3, 0.1, 0.5]]),
        "gray": (gray, [[1 / 3, 1 / 3, 1 / 3, 1], [0, 0, 0, 0], [0.2, 0.2, 0.2, 0.5]]),
        "white": (white, [[1, 1, 1, 1], [0, 0, 0, 0], [0.5, 0.5, 0.5, 0.5]]),
        "pale": (pale, [[1, 0.5, 0.5, 1], [0, 0, 0, 0], [0.4, 0.3, 0.35, 0.5]]),
        "grayish": (grayish, [[2 / 3, 1 / 6, 1 / 6, 1], [0, 0, 0, 0], [0.25, 0.15, 0.2, 0.5]]),
    }
    for got, right in expected.values():
        torch.testing.assert_close(got.T, torch.tensor(right), rtol=0, atol=1e-6)


def test_a_sketch_gives_the_drawings_of_the_nearest_name_and_leaves_out_what_it_does_not_know():
    torch.manual_seed(0)
    sketch = filled(Sketch(text=6, entries=4, keys=6)).double()
    sketch.query.weight.copy_(torch.eye(6))
    sketch.keys.copy_(3 * torch.eye(6)[:4])
    sketch.known[2, 1] = 0
    drawings = crisp(sketch.decode(sketch.codes))
    drawings[2, 1] = 0
    layers, known, sure = sketch(torch.eye(6).double()[:4])
    torch.testing.assert_close(layers, drawings)
    assert torch.equal(known, sketch.known) and torch.equal(sure, torch.ones(4).double())

    asked = torch.tensor([[0.8, 1.0, 0, 0, 0, 0.6]] * 2 + [[0] * 6]).double()
    layers, known, sure = sketch(asked, torch.tensor([-1, 1, 1]))
    torch.testing.assert_close(layers[:2], drawings[[1, 0]])
    torch.testing.assert_close(sure, torch.tensor([0.5**0.5, 0.8 * 0.5**0.5, 0]).double())
    assert not layers[2].any() and known.tolist() == [[1, 1, 1], [1, 1, 1], [0, 0, 0]]
    torch.testing.assert_close(sketch(asked)[0], sketch(asked, torch.tensor([-1, -1, -1]))[0])


def test_what_is_nearly_opaque_and_nearly_clear_is_so():
    opacity = torch.tensor([-0.3, 0.05, 0.1, 0.3, 0.5, 0.86, 0.95, 1.2])
    colour = torch.tensor([0.2, -0.1, 0.0, 0.1, 0.6, 0.3, 1.1, 0.4])
    layers = torch.stack([colour, colour, colour, opacity])[None, None, :, :, None].requires_grad_()
    made = crisp(layers)[0, 0, :, :, 0]
    torch.testing.assert_close(made[3], torch.tensor([0, 0, 0, 0.25, 0.5, 0.95, 1, 1]))
    torch.testing.assert_close(made[0], torch.tensor([0, 0, 0, 0.1, 0.5, 0.3, 1, 0.4]))
    leaking = crisp(layers, 0.1)[0, 0, :, :, 0]
    torch.testing.assert_close(leaking[3, :2], torch.tensor([-0.05, -0.00625]))
    torch.testing.assert_close(leaking[0, [1, 4]], torch.tensor([-0.015625, 0.51]))
    gradient = torch.autograd.grad(leaking.sum(), layers)[0]
    assert bool((gradient != 0).all())


def test_a_sketch_costs_a_fifth_of_a_call():
    """As docs/emoji.md and its docstring say."""
    with torch.device("meta"):
        network, x = networks.VectorUNet(), torch.empty(1, 3, 32, 32)
        text, style = torch.empty(1, 384), torch.empty(1, dtype=torch.long)
        counted = []
        for call in (lambda: network.sketch(text), lambda: network(x, torch.empty(1), text, style)):
            with FlopCounterMode(display=False) as counter:
                call()
            counted.append(counter.get_total_flops() / 1e6)
    assert counted == pytest.approx([55.8, 278.5], abs=0.1)
