"""How the heads of the emoji world are trained: on which drawings, on what is kept of them, and that they learn."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from heads_stand_ins import stand_in

from symguide.worlds.emoji import drawings
from symguide.worlds.emoji.names import Emoji

CHARACTERS = (
    Emoji("a", "octopus", (), 3),
    Emoji("b", "pizza", (), 4, ("noto", "twemoji", "fluent")),
    Emoji("c", "rocket", (), 5, ("twemoji",)),
)


@pytest.fixture
def training(monkeypatch, tmp_path):
    """training/emoji_judges.py on three characters, of which emojione draws but one, with random pretrained weights."""
    torch.set_default_dtype(torch.float32)
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "training")
    import emoji_judges

    def drawn(style, codes):
        assert codes == ("a", "b", "c")
        torch.manual_seed(len(style))
        layers = torch.randint(1, 255, (3, 4, 64, 64), dtype=torch.uint8)
        return layers * (torch.arange(3) < 1)[:, None, None, None] if style == "emojione" else layers

    stand_in(monkeypatch, tmp_path)
    monkeypatch.setattr(emoji_judges, "emojis", lambda: CHARACTERS)
    monkeypatch.setattr(emoji_judges, "codes", lambda: tuple(one.code for one in CHARACTERS))
    monkeypatch.setattr(drawings, "drawings", drawn)
    yield emoji_judges
    sys.modules.pop("emoji_judges")


def shown(seen):
    return {(CHARACTERS[c].name, list(drawings.SETS)[s]) for c, s in zip(seen.character, seen.style, strict=True)}


def test_a_scorer_is_trained_on_what_the_models_saw_and_a_judge_on_all(training, tmp_path):
    seen = {role: training.look(role, training.training_view, 0, None, tmp_path) for role in ("scorer", "judge")}
    assert shown(seen["scorer"]) == {
        *(("octopus", style) for style in ("noto", "twemoji", "fluent")),
        *(("rocket", style) for style in ("noto", "fluent")),
    }
    assert len(seen["judge"]) == len(shown(seen["judge"])) == 4 * 3 + 1
    assert ("octopus", "emojione") in shown(seen["judge"])
    measured = training.look("scorer", training.moved_view, 1000, 10, tmp_path)
    assert len(measured) == 10 and shown(measured) - shown(seen["scorer"])


def test_what_is_seen_of_a_view_is_computed_once_and_depends_on_its_seed(training, monkeypatch, tmp_path):
    once, other = (training.look("judge", training.training_view, seed, None, tmp_path) for seed in (0, 1))
    assert not torch.equal(once.last, other.last)
    monkeypatch.setattr(training.EfficientNetLite, "installed", None)
    again = training.look("judge", training.training_view, 0, None, tmp_path)
    assert torch.equal(once.last, again.last) and torch.equal(once.statistics, again.statistics)
    averaged = again.averaged().last
    torch.testing.assert_close(averaged[..., 0, 0], again.last.float().flatten(2).mean(dim=2))


def test_blurred_pictures_are_between_themselves_and_coarser_ones_plus_noise(training):
    torch.manual_seed(0)
    x = (torch.arange(32) % 2 * 2.0 - 1).expand(64, 3, 32, 32)  # of blocks of two pixels the mean is 0
    made = training.blurred(x)
    share = 1 - (made * x).mean(dim=(1, 2, 3))
    noise = (made - (1 - share)[:, None, None, None] * x).std(dim=(1, 2, 3))
    assert -0.02 < share.min() < 0.2 and 0.8 < share.max() < 1.02
    assert noise.min() < 0.03 and 0.12 < noise.max() < 0.16


@pytest.mark.parametrize("key", [("scorer", "clip"), ("judge", "clip"), ("judge", "name"), ("judge", "style")])
def test_a_head_learns_its_answers(training, monkeypatch, tmp_path, key):
    torch.manual_seed(0)
    made = training.KINDS[key]
    sentences = torch.nn.functional.normalize(torch.randn(3, 8, 384) + 3 * torch.randn(3, 1, 384), dim=2)
    safetensors.torch.save_file({"vectors": sentences}, tmp_path / "emoji-sentences.safetensors")
    monkeypatch.setattr(training, "vectors", lambda: sentences[:, 0])
    character, style = torch.arange(60) % 3, torch.arange(60) % 5
    maps = torch.rand(3, 1280, 1, 1)[character] + 0.1 * torch.rand(60, 1280, 2, 2)
    statistics = torch.randn(5, 416)[style] + 0.1 * torch.randn(60, 416)
    if key == ("judge", "style"):  # the stand-in is Lite0, whose maps are narrower than those of Lite2
        statistics = statistics[:, : 2 * sum(training.EfficientNetLite().widths)]
    seen = training.Seen(maps, statistics, character, style)
    args = argparse.Namespace(seed=0, steps=40, checkpoints=tmp_path, resume=False)
    head, _ = training.fitted(made, seen, "head", args)
    groups = {"all": training.Group(lambda one: one.style >= 0), "few": training.Group(lambda one: one.style < 1)}
    rows = training.table(made, head, {"here": seen}, groups)
    assert rows == [
        " | ".join([f"| here, {name}", count, *["1.000"] * len(made.ranks)]) + " |"
        for name, count in (("all", "60"), ("few", "12"))
    ]
    assert all(torch.equal(value, value.half().float()) for value in head.state_dict().values())


def test_answers_are_chosen_among_those_of_a_group(training):
    """The right answer's place is the second of all three, and the first of two."""
    made = replace(training.KINDS["judge", "name"], scores=lambda head, seen: torch.tensor([[0.2, 0.5, 0.1]]))
    seen = training.Seen(torch.zeros(1, 1), torch.zeros(1, 1), torch.tensor([0]), torch.tensor([0]))
    all_ = training.Group(lambda one: one.style >= 0)
    groups = {"all": all_, "two": replace(all_, among=torch.tensor([True, False, True]))}
    rows = training.table(made, torch.nn.Identity(), {"here": seen}, groups)
    assert rows == ["| here, all | 1 | 0.000 | 1.000 |", "| here, two | 1 | 1.000 | 1.000 |"]
