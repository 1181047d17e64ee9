"""The scenes world: pictures against areas and colours in closed form, captions against the truth."""

import math
from dataclasses import replace

import pytest
import torch

from symguide.errors import ConfigError
from symguide.evaluation.quality import plain
from symguide.worlds import scenes
from symguide.worlds.scenes.picture import PALETTE, _objects
from symguide.worlds.scenes.scene import BACKGROUNDS, COLOURS, HELD_OUT_PAIRS, SHAPES, SIZES, TEXTURES

POINTS = math.pi / 5
AREAS = {
    "disk": math.pi * 0.95**2,
    "ring": math.pi * (0.97**2 - 0.47**2),
    "square": 1.6**2,
    "triangle": 3 * math.sqrt(3) * 0.55**2,
    "star": 10 * 0.5 * 1.1 * 0.45 * math.sin(POINTS),
    "cross": 4 * 0.68 - 0.68**2,
}
"""Of shapes of radius 1."""


def test_a_scene_depends_on_its_seed_split_and_index_alone():
    whole, part = scenes.draw("train", range(40)), scenes.draw("train", [31, 7])
    for name, value in vars(part).items():
        assert torch.equal(value, getattr(whole, name)[[31, 7]]), name
    assert torch.equal(scenes.render(part), scenes.render(whole)[[31, 7]])
    assert scenes.captions(part) == [scenes.captions(whole)[i] for i in (31, 7)]
    for other in (scenes.draw("train", range(40), seed=1), scenes.draw("held_out", range(40))):
        assert (other.centre != whole.centre).all()


def test_numbers_are_uniform_and_unrelated():
    from symguide.worlds.scenes.scene import _uniforms

    u = torch.from_numpy(_uniforms(0, 0, torch.arange(20_000).numpy(), 6))
    assert abs(u.mean() - 0.5) < 0.003 and abs(u.var() - 1 / 12) < 0.001
    assert (torch.corrcoef(u.T) - torch.eye(6)).abs().max() < 0.03
    assert abs(torch.corrcoef(torch.stack([u[:-1, 0], u[1:, 0]]))[0, 1]) < 0.03


def test_held_out_pairs_are_never_drawn_in_training_and_always_in_combinations():
    held = torch.tensor([s * len(COLOURS) + c for s, c in HELD_OUT_PAIRS])
    for split in ("train", "held_out"):
        assert scenes.draw(split, range(5000)).pairs[:, held].sum() == 0
    unseen = scenes.draw("combinations", range(2000))
    assert (unseen.pairs[:, held].sum(1) == 1).all() and (unseen.pairs.sum(1) == 1).all()
    seen = scenes.draw("train", range(5000)).pairs.sum(0)
    assert (seen > 0).sum() == len(SHAPES) * len(COLOURS) - len(held)


def test_objects_stay_inside_and_apart():
    s = scenes.draw("train", range(5000))
    reach = s.radius[..., None]
    assert (s.centre - reach >= -0.03).all() and (s.centre + reach <= 1.03).all()
    two = s[s.count == 2]
    apart = (two.centre[:, 0] - two.centre[:, 1]).norm(dim=1) / two.radius.sum(1)
    assert apart.quantile(0.02) > 0.6 and (two.shape[:, 0] != two.shape[:, 1]).all()
    assert (two.colour[:, 0] != two.colour[:, 1]).all()
    for slot in (0, 1):
        assert ((s.paint != s.colour[:, slot : slot + 1]) | (s.count[:, None] <= slot)).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_areas_are_the_shapes_own(shape):
    s = scenes.draw("train", range(64))
    s = replace(s, shape=torch.full_like(s.shape, SHAPES.index(shape)), count=torch.ones_like(s.count))
    covered = _objects(s, 128, torch.float64, 0)[0].mean(dim=(1, 2))
    assert torch.allclose(covered, AREAS[shape] * s.radius[:, 0] ** 2, rtol=0.03)
    assert torch.allclose((scenes.masks(s, 128) > 0).double().mean(dim=(1, 2)), covered, rtol=0.02)


def test_pixels_have_the_colours_that_the_truth_says():
    s = scenes.draw("train", range(400))
    plainly = (s.texture[:, 0] == 0) & (s.shape[:, 0] != SHAPES.index("ring")) & (s.count == 1)
    s = s[plainly & (s.background == 0)]
    x, mask = scenes.render(s, 64), scenes.masks(s, 64)
    for row in range(len(s)):
        inside = x[row][:, mask[row] == 1 + s.shape[row, 0]].median(dim=1).values
        outside = x[row][:, mask[row] == 0].median(dim=1).values
        assert torch.allclose((inside + 1) / 2, PALETTE[s.colour[row, 0]].double(), atol=1e-6)
        assert torch.allclose((outside + 1) / 2, PALETTE[s.paint[row, 0]].double(), atol=1e-6)


def test_every_background_mixes_its_two_colours_only():
    s = scenes.draw("train", range(500))
    x, ground = (scenes.render(s, 32) + 1) / 2, scenes.masks(s, 32) == 0
    first, second = PALETTE.double()[s.paint].unbind(1)
    along = (second - first)[..., None, None]
    share = ((x - first[..., None, None]) * along).sum(1) / along.square().sum(1)
    off = (x - first[..., None, None] - share[:, None] * along).norm(dim=1)
    soft = torch.nn.functional.max_pool2d((~ground).double()[:, None], 7, 1, 3)[:, 0] > 0  # edges mix objects in
    assert off[~soft].max() < 1e-6 and share[~soft].min() > -1e-6 and share[~soft].max() < 1 + 1e-6
    for kind, name in enumerate(BACKGROUNDS):
        spread = share[s.background == kind].masked_fill(soft[s.background == kind], 0.0).amax(dim=(1, 2))
        assert (spread == 0).all() if name == "plain" else spread.median() > 0.5


def test_the_front_object_covers_the_one_behind():
    s = scenes.draw("train", range(400))
    s = s[s.count == 2]
    s = replace(s, centre=s.centre[:, :1].expand(-1, 2, -1).clone())
    front = scenes.masks(replace(s, count=torch.ones_like(s.count)), 64)
    both = scenes.masks(s, 64)
    assert torch.equal(both[front > 0], front[front > 0]) and (both > 0).sum() > (front > 0).sum()


def test_larger_pictures_show_the_same():
    s = scenes.draw("train", range(64))
    s = s[s.background != BACKGROUNDS.index("noise")]
    small, large = scenes.render(s, 32), scenes.render(s, 64)
    assert (torch.nn.functional.avg_pool2d(large, 2) - small).abs().mean() < 0.02
    assert scenes.render(s, 32, torch.float32).dtype == torch.float32 and small.abs().max() <= 1


def test_captions_say_what_is_true():
    s = scenes.draw("train", range(600))
    for row, text in enumerate(scenes.captions(s)):
        words = [w for w in text.split() if w not in ("a", "an")]
        objects = [i for i, word in enumerate(words) if word in SHAPES]
        assert len(objects) == s.count[row]
        said = {(words[i], next(w for w in reversed(words[:i]) if w in COLOURS)) for i in objects}
        slots = range(int(s.count[row]))
        assert said == {(SHAPES[s.shape[row, k]], COLOURS[s.colour[row, k]]) for k in slots}
        textures = sorted(w for w in words if w in TEXTURES)
        assert textures == sorted(TEXTURES[s.texture[row, k]] for k in slots if s.texture[row, k])
        assert {w for w in words if w in SIZES} <= {SIZES[s.size[row, k]] for k in slots}
        if "on" in words:
            ground = words[words.index("on") + 1 :]
            paints = [COLOURS.index(w) for w in ground if w in COLOURS]
            assert paints == s.paint[row, : len(paints)].tolist()
            assert [w for w in ground if w in BACKGROUNDS] == [BACKGROUNDS[s.background[row]]] * (s.background[row] > 0)
        if "left of" in text or "right of" in text:
            first = next(k for k in slots if SHAPES[s.shape[row, k]] == words[objects[0]])
            assert (s.centre[row, first, 0] < s.centre[row, 1 - first, 0]) == ("left of" in text)
        if "front" in words or "behind" in words:
            first = next(k for k in slots if SHAPES[s.shape[row, k]] == words[objects[0]])
            assert (first == 0) == ("front" in words)


def test_tokens():
    texts = scenes.captions(scenes.draw("train", range(200)))
    rows = scenes.tokens(texts)
    assert rows.shape == (200, scenes.LENGTH) and rows.max() < len(scenes.VOCABULARY)
    for text, row in zip(texts, rows.tolist(), strict=True):
        silent = {"a", "an", "and", "the", "of", "to", "in", "at"}
        assert [scenes.VOCABULARY[t] for t in row if t] == [w for w in text.split() if w not in silent]
    assert torch.equal(scenes.tokens("A Red STAR, on blue-stripes!"), scenes.tokens(["red star on blue stripes"]))
    assert scenes.tokens("").sum() == 0
    with pytest.raises(ConfigError, match=r"do not know the word 'teal'.* they know disk"):
        scenes.tokens("a teal star")
    with pytest.raises(ConfigError, match="at most 16 words"):
        scenes.tokens("red " * 17)


def test_errors():
    with pytest.raises(ConfigError, match="split"):
        scenes.draw("test", [0])
    with pytest.raises(ConfigError, match="whole numbers from 0"):
        scenes.draw("train", [-1])


def test_beauty_is_the_stated_rule():
    s = scenes.draw("held_out", range(2000))
    score = scenes.beauty(s)
    assert 0 <= score.min() < 3 and 7 < score.max() <= 10
    row = s[[0]]
    row = replace(row, count=torch.tensor([1]), colour=torch.tensor([[6, 0]]), paint=torch.tensor([[7, 0]]))
    row = replace(row, background=torch.tensor([0]), centre=torch.full_like(row.centre, 0.5))
    bright, dark = (PALETTE.double() @ torch.tensor([0.299, 0.587, 0.114]))[[6, 7]].tolist()
    assert scenes.beauty(row).item() == pytest.approx(10 * (0.35 * (bright - dark) + 0.25 + 0.1 + 0.2), abs=1e-5)
    assert scenes.beauty(replace(row, background=torch.tensor([4]))).item() < scenes.beauty(row).item() - 2


def test_plain_captions_cover_all_pairs_and_grounds():
    asked = plain(42 * 7)
    assert len(set(asked.texts)) == 42 * 7 and (asked.colour != asked.paint).all()
    held = {(s, c) for s, c in HELD_OUT_PAIRS}
    assert not held & set(zip(asked.shape.tolist(), asked.colour.tolist(), strict=True))
    unseen = plain(60, unseen=True)
    assert set(zip(unseen.shape.tolist(), unseen.colour.tolist(), strict=True)) == held
    assert scenes.tokens(asked.texts).shape == (294, scenes.LENGTH)
