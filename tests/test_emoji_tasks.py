"""The tasks of the emoji world: what is asked, of which drawing, and how far samples are from the true one."""

import pytest
import torch
from emoji_stand_ins import UNSEEN, album, judges, model, replace_world

import symguide as sg
from symguide.errors import ConfigError
from symguide.evaluation import emoji_tasks
from symguide.evaluation.emoji_album import CHARACTERS, DRAWINGS, SETS, Pairs
from symguide.evaluation.emoji_tasks import TASKS, Task, Truth, task
from symguide.worlds import emoji
from symguide.worlds.emoji.names import STYLES

DTYPE = torch.float32
GIVEN = {
    "style": (True, False),
    "line-art": (True, False),
    "text": (False, True),
    "personalisation": (True, False),
    "palette": (True, False),
    "edges": (True, False),
    "inpainting": (False, False),
    "super-resolution": (True, False),
    "translation": (False, True),
    "composed": (False, False),
}
"""Whether the model is told the text, and the style."""


@pytest.fixture(autouse=True)
def book(monkeypatch):
    """Drawings with patterns, and networks that see mean colours."""
    made = album(noise=40.0)
    replace_world(monkeypatch, made, emoji_tasks)
    return made


def noise(count, side=32):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(3)).clamp(-1, 1)


def test_all_tasks_are_known_here():
    assert set(TASKS) == set(GIVEN)
    with pytest.raises(ConfigError, match="did you mean 'palette'"):
        task("pallette", range(2))


@pytest.mark.parametrize("name", TASKS)
def test_a_sample_has_the_same_task_in_any_batch(name):
    whole, part = task(name, range(6)), task(name, [4])
    x = noise(6)
    for role in ("scorer", "judge"):
        losses, alone = getattr(whole, role)(x), getattr(part, role)(x[4:5])
        assert losses.shape == (6,) and torch.allclose(losses[4:5], alone, rtol=1e-4, atol=1e-5)
    assert part.prompts == [whole.prompts[4]] and part.texts == whole.texts[4:5]
    for field in ("character", "style", "truth", "known", "seen"):
        assert torch.equal(getattr(part, field), getattr(whole, field)[4:5])
    if whole.reference is not None:
        assert torch.equal(part.reference, whole.reference[4:5])
    for told in ("condition", "upper"):
        mine, others = getattr(part, told) or {}, getattr(whole, told) or {}
        assert mine.keys() == others.keys() and all(torch.equal(mine[key], others[key][4:5]) for key in mine)
    ahead = Truth(whole, judges(album())).against(x)
    for key, value in Truth(part, judges(album())).against(x[4:5]).items():
        torch.testing.assert_close(value, ahead[key][4:5], equal_nan=True, rtol=1e-5, atol=1e-6)


FREE = torch.tensor([emoji.look(free=True)] * 5)


@pytest.mark.parametrize("name", TASKS)
def test_the_model_is_told_what_the_task_says(name, book):
    goal, (text, style) = task(name, range(5)), GIVEN[name]
    expected = book.vectors[goal.character] if text else torch.zeros(5, 384)
    assert torch.equal(goal.condition["text"], expected) and goal.told == (text or style)
    assert goal.condition["style"].tolist() == (goal.style.tolist() if style else [3] * 5)
    if name == "personalisation":
        assert len(goal.condition["view"].unique(dim=0)) == 5 and goal.condition["view"][:, 4:].any()
        assert goal.prompts[0] == f"{book.characters[int(goal.character[0])].name} on skyblue"
    else:
        names = [book.characters[c].name for c in goal.character.tolist()]
        assert goal.prompts == (names if text else [""] * 5) and "view" not in goal.condition
    assert ("look" in goal.condition) == (not style) and torch.equal(goal.condition.get("look", FREE), FREE)
    assert (goal.upper is not None) == (name == "style")
    if goal.upper is not None:
        assert torch.equal(goal.upper["style"], goal.style) and torch.equal(goal.upper["text"], goal.condition["text"])


@pytest.mark.parametrize("name", TASKS)
def test_truths_are_drawings_that_training_never_saw_and_the_judge_prefers_them(name, book):
    goal = task(name, range(5))
    for c, s in zip(goal.character.tolist(), goal.style.tolist(), strict=True):
        unseen = UNSEEN.get(c, ())
        if TASKS[name].group == DRAWINGS:
            assert unseen == (STYLES[s],)
        elif TASKS[name].group == CHARACTERS:
            assert unseen == STYLES
        else:
            assert not unseen and SETS[s] == "openmoji"
    asked = Pairs(goal.character, goal.style)
    assert torch.equal(goal.truth, book.pictures(asked, 32, goal.condition.get("view")))
    if name not in ("style", "line-art", "text", "personalisation", "composed"):  # whose judges look at something else
        assert (goal.judge(goal.truth) < 1e-6).all() and (goal.judge(noise(5)) > 1e-3).all()


@pytest.mark.parametrize("name", TASKS)
def test_what_training_saw_is_in_other_styles_than_the_truth(name, book):
    goal = task(name, range(9))
    for row, (c, s) in enumerate(zip(goal.character.tolist(), goal.style.tolist(), strict=True)):
        expected = [i != s and style not in UNSEEN.get(c, ()) for i, style in enumerate(STYLES)]
        assert goal.seen[row].tolist() == expected
        shown = book.pictures(Pairs(goal.character[[row]], torch.tensor([1])), 32, _view(goal, row))
        assert torch.equal(goal.known[row, 1], shown[0])


def _view(goal, row):
    return goal.condition["view"][[row]] if "view" in goal.condition else None


def test_references_show_something_else_in_the_style(book):
    for name in ("style", "line-art"):
        goal = task(name, range(6))
        others = book.others(Pairs(goal.character, goal.style))
        assert torch.equal(goal.reference, book.pictures(others)) and (others.character != goal.character).all()
        assert (goal.scorer(goal.reference) < 1e-6).all() and (goal.scorer(goal.truth) > 1e-6).all()


def test_translation_starts_from_a_drawing_that_training_saw(book):
    goal = task("translation", range(3))
    for row, (c, s) in enumerate(zip(goal.character.tolist(), goal.style.tolist(), strict=True)):
        source = next(i for i in range(3) if i != s and STYLES[i] not in UNSEEN.get(c, ()))
        shown = book.pictures(Pairs(torch.tensor([c]), torch.tensor([source])))
        assert torch.equal(goal.reference[row], shown[0]) and not torch.equal(shown[0], goal.truth[row])


def test_measurements_are_met_by_the_truth_alone():
    for name in ("inpainting", "super-resolution"):
        goal = task(name, range(4))
        assert (goal.scorer(goal.truth) < 1e-8).all() and (goal.scorer(goal.truth.flip(3)) > 1e-2).all()
    half = task("inpainting", range(4))
    right = torch.cat([half.truth[..., :16], noise(4)[..., 16:]], dim=3)
    assert (half.scorer(right) < 1e-8).all() and (half.judge(right) > 1e-6).all()
    coarse = task("super-resolution", range(4))
    assert (coarse.scorer(coarse.reference) < 1e-8).all() and not torch.equal(coarse.reference, coarse.truth)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_of_larger_pictures_is_the_same_task(name):
    small, large = task(name, range(3)), task(name, range(3), side=64)
    assert small.prompts == large.prompts and large.truth.shape == (3, 3, 64, 64)
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(large.truth, 2), small.truth, atol=2e-2, rtol=0)
    assert large.mask is None or large.mask.shape == (64, 64)
    assert large.scorer(noise(3, 64)).shape == large.judge(noise(3, 64)).shape == (3,)


@pytest.mark.parametrize("name", TASKS)
def test_guidance_can_follow_every_task(name):
    goal = task(name, range(2))
    told = {"condition": goal.condition, "prediction": sg.CFG(3.0) if goal.told else None, "batch": 2, "steps": 3}
    plain = sg.sample(model(), **told).samples
    guided = sg.sample(model(), **told, loss=sg.FreeDoM(goal.scorer, scale=1.0)).samples
    assert torch.isfinite(guided).all() and not torch.allclose(plain, guided)


def by_hand(**given):
    """A task of three samples whose truths are grey levels 0, 0.2 and 0.4."""
    truth = torch.tensor([0.0, 0.2, 0.4])[:, None, None, None].expand(-1, 3, 32, 32)
    known = torch.stack([truth + 0.3, truth - 0.1, truth], dim=1)
    seen = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    fields = {"prompts": [""] * 3, "character": torch.tensor([6, 7, 8]), "style": torch.tensor([2, 2, 2])}
    fields |= {"condition": {}, "reference": None, "scorer": abs, "judge": abs}
    return Task(**fields | {"truth": truth, "known": known, "seen": seen} | given)


def test_distances_to_the_truth_by_hand():
    goal = by_hand()
    asked = judges(album())
    found = Truth(goal, asked).against(goal.truth + torch.tensor([0.05, 0.0, -0.25])[:, None, None, None])
    assert found["pixels"].tolist() == pytest.approx([0.05, 0.0, 0.25], abs=1e-6)
    assert found["copied, pixels"][:2].tolist() == pytest.approx([0.1, 0.3], abs=1e-6)
    assert found["copied, pixels"][2].isnan() and found["copied, features"][2].isnan()
    # features of grey m are (m, m, m, m², m², m²) + 1: at truth 0 (1, ...), whose square is 6
    assert found["features"].tolist()[:2] == pytest.approx([3 * (0.05**2 + 0.05**4) / 6, 0.0], abs=1e-6)
    assert found["copied, features"][0].item() == pytest.approx(3 * (0.1**2 + 0.1**4) / 6, abs=1e-6)
    # red is 127.5, 153 and 178.5, which is 20 c + 5 of c = 6.1, 7.4 and 8.7
    truths = Truth(goal, asked).against(goal.truth)
    assert truths["name"].tolist() == [1.0, 1.0, 0.0] and truths["among five"].tolist() == [1.0, 1.0, 1.0]
    assert truths["style"].tolist() == [1.0, 0.0, 0.0]  # green is 110 in style 2 and 160 in style 3
    assert "features" not in Truth(goal, judges(album(), ("style",))).against(goal.truth)
