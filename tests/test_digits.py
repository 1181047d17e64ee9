"""The digits world: its data are scikit-learn's, its classifiers read them, and its folders say how they were made."""

import json

import pytest
import torch

from symguide import networks
from symguide.errors import ConfigError
from symguide.schedule import VP
from symguide.worlds import WORLDS, digits

FOLDERS = [digits.DENOISER, digits.SCORER, digits.NOISY, digits.JUDGE]


@pytest.fixture(autouse=True)
def single():
    """These tests start from float32, as users do."""
    torch.set_default_dtype(torch.float32)


def test_data_are_those_of_scikit_learn():
    source = pytest.importorskip("sklearn.datasets").load_digits()
    assert torch.equal(digits.images("all"), torch.from_numpy(source.images).float().unsqueeze(1) / 8 - 1)
    assert torch.equal(digits.labels("all"), torch.from_numpy(source.target).long())


def test_split_is_disjoint_complete_and_stratified():
    parts = [digits.images(split).flatten(1) for split in ("train", "held_out", "all")]
    rows = [sorted(map(tuple, part.tolist())) for part in parts]
    assert sorted(rows[0] + rows[1]) == rows[2]
    assert not set(rows[0]) & set(rows[1])
    train, held_out = digits.labels("train").bincount(), digits.labels("held_out").bincount()
    assert torch.all((held_out / (train + held_out) - 0.2).abs() < 0.01)
    assert len(digits.images("train")) == len(digits.labels("train")) == 1442


def test_images_are_in_range_and_of_the_default_dtype():
    images = digits.images("all")
    assert images.dtype == torch.get_default_dtype() and images.min() == -1 and images.max() == 1
    images.zero_()
    assert digits.images("all").max() == 1


def test_unknown_split():
    with pytest.raises(ConfigError, match="did you mean 'train'"):
        digits.images("training")


@pytest.mark.parametrize("make", [digits.scorer, digits.judge])
def test_classifiers_read_held_out_digits(make):
    classifier, x = make(), digits.images("held_out")
    assert (classifier(x).argmax(1) == digits.labels("held_out")).double().mean() >= 0.98
    assert classifier.features(x).shape == (len(x), 64)


def test_the_noisy_classifier_reads_what_noise_leaves():
    """And knows how much that is: it is never surer than right, on average, at any level."""
    classifier, schedule, x, label = digits.noisy(), VP.cosine(), digits.images("held_out"), digits.labels("held_out")
    torch.manual_seed(0)
    accuracy = []
    for t in (0.0, 0.3, 0.6, 0.9):
        noisy = schedule.alpha(t) * x + schedule.sigma(t) * torch.randn(x.shape)
        logits = classifier(noisy, torch.full((len(x),), schedule.timestep(t)))
        accuracy.append((logits.argmax(1) == label).double().mean().item())
        assert logits.softmax(1).amax(1).mean() < accuracy[-1] + 0.1
    assert accuracy[0] > 0.95 and accuracy[1] > 0.9 and 0.1 < accuracy[3] < 0.5
    assert accuracy == sorted(accuracy, reverse=True)


def test_scorer_and_judge_are_built_differently():
    assert type(digits.scorer().network) is not type(digits.judge().network)


def test_denoiser_finds_digits_in_noise():
    network, config = networks.load(WORLDS["digits"].denoiser)
    assert config["denoiser"] == {
        "schedule": {"name": "vp-cosine"},
        "predicts": "v",
        "shape": [1, 8, 8],
        "null": {"label": 10},
        "conditions": {"label": "digit 0-9; 10 is none"},
    }
    schedule, t = VP.cosine(), 0.9
    x0, label = digits.images("held_out"), digits.labels("held_out")
    torch.manual_seed(0)
    x = schedule.alpha(t) * x0 + schedule.sigma(t) * torch.randn(x0.shape)

    def estimate(label):
        return schedule.alpha(t) * x - schedule.sigma(t) * network(x, torch.tensor(schedule.timestep(t)), label)

    judge = digits.judge()
    told, untold = (judge(estimate(which)).argmax(1) for which in (label, None))
    assert (told == label).double().mean() > 0.9 > (untold == label).double().mean()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda f: f.name)
def test_cards_tell_how_the_weights_were_made(folder):
    card = (folder / "README.md").read_text()
    for part in (f"`python training/digits.py {folder.name} --seed", "CC BY 4.0", "hours on", "## Measured"):
        assert part in card
    assert {p.name for p in folder.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    assert "sha256" in json.loads((folder / "config.json").read_text())


def test_the_world_is_small():
    sizes = {folder.name: (folder / "model.safetensors").stat().st_size for folder in FOLDERS}
    assert sizes["denoiser"] < 4.1e6 and sizes["scorer"] < 1e6 and sizes["judge"] < 1e6 and sizes["noisy"] < 1e6
    assert sum(p.stat().st_size for p in digits.WEIGHTS.rglob("*")) < 5.5e6
