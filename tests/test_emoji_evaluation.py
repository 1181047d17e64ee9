"""How models of the emoji world are measured: figures against loops over a few drawings that one can work out."""

import json
from statistics import median

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from emoji_stand_ins import COUNT, UNSEEN, Seen, album, colour, judges, model, network, replace_world

from symguide import Denoiser, networks
from symguide.cli import main
from symguide.errors import ConfigError, WeightsError
from symguide.evaluation import emoji, emoji_sheets
from symguide.evaluation.emoji import DISTANCE, Evaluation, Judges, Measures, words
from symguide.evaluation.emoji_album import CHARACTERS, DRAWINGS, GROUPS, SETS, TRAINED, Pairs
from symguide.report import frechet, grid
from symguide.schedule import VP
from symguide.worlds.emoji.names import STYLES

DTYPE = torch.float32
TRUE = {
    group: {(c, s) for c in range(COUNT) for s in range(3) if fits(UNSEEN.get(c, ()), STYLES[s])}
    for group, fits in {
        TRAINED: lambda unseen, style: not unseen,
        DRAWINGS: lambda unseen, style: unseen == (style,),
        CHARACTERS: lambda unseen, style: unseen == STYLES,
    }.items()
}


def each(asked):
    return list(zip(asked.character.tolist(), asked.style.tolist(), strict=True))


def pairs(*rows):
    return Pairs(*torch.tensor(rows).unbind(1))


def plain(*colours):
    """Pictures of one colour each, in 0..255."""
    return torch.tensor(colours)[:, :, None, None].expand(-1, -1, 32, 32) / 127.5 - 1


@pytest.mark.parametrize("group", GROUPS)
def test_every_drawing_of_a_group_is_asked_for_once(group):
    asked = album().pairs(group)
    assert len(asked) == len(TRUE[group]) and set(each(asked)) == TRUE[group]
    if group != DRAWINGS:  # styles in turn, and no character again before all had one
        assert (
            asked.style[:2].tolist() == [0, 1]
            and len(set(asked.character[: len(asked) // 3].tolist())) == len(asked) // 3
        )


def test_the_order_is_by_chance_and_does_not_change_with_the_list():
    few, all_ = album(6), album()
    order = all_.pairs(TRAINED).character[:7].tolist()
    assert order != sorted(order)
    assert [c for c in all_.order.tolist() if c < 6] == few.order.tolist()


def test_training_drawings_are_those_that_are_not_held_out():
    book = album()
    assert set(each(book.training())) == {
        (c, s) for c in range(COUNT) for s in range(3) if STYLES[s] not in UNSEEN.get(c, ())
    }
    assert book.drawn[:, SETS.index("emojione")].tolist() == [c < COUNT // 2 for c in range(COUNT)]


def test_another_drawing_in_the_style_is_of_the_group_and_was_seen():
    book = album()
    asked = Pairs(torch.arange(COUNT).repeat(4), torch.arange(4).repeat_interleave(COUNT))
    others = book.others(asked)
    assert torch.equal(others.style, asked.style) and (others.character != asked.character).all()
    assert (others.character % 2 == asked.character % 2).all()
    known = others.style < 3
    assert book.seen[others.character[known], others.style[known]].all()
    alone = [book.others(asked[torch.tensor([row])]).character.item() for row in range(len(asked))]
    assert alone == others.character.tolist() and len(set(alone)) > 6


def test_what_is_read_is_shared_out():
    """Red is 20 c + 5: 45 is character 2, 46 the second best for character 3, and 5 the last one for 11."""
    book = album()
    x = plain((45.0, 10.0, 0.0), (46.0, 60.0, 0.0), (5.0, 60.0, 0.0), (225.0, 210.0, 0.0))
    asked = pairs((2, 0), (3, 1), (11, 2), (11, 4))
    read = Measures(book, judges(book)).read(judges(book).see(x), asked)
    assert read["name"] == 0.5 and read["name among five"] == 0.75 and read["style"] == 0.75
    seen = Seen("clip", book.vectors).image(x)
    places = [
        sorted(range(COUNT), key=lambda n, row=row: -float(row @ book.vectors[n])).index(c)
        for row, (c, _) in zip(seen, each(asked), strict=True)
    ]
    assert read["name by clip"] == sum(p == 0 for p in places) / 4
    assert read["by clip among five"] == sum(p < 5 for p in places) / 4


def test_true_drawings_are_read_as_what_they_are():
    book = album()
    found = Measures(book, judges(book)).drawings(100)
    assert all(found[group]["name"] == found[group]["style"] == 1 for group in GROUPS)
    assert set(found) == {*GROUPS, DISTANCE}


def far(a, b):
    """Root mean square of the difference of two colours in [-1, 1]."""
    return ((a - b) / 127.5).square().mean().sqrt().item()


def test_copies_against_loops():
    book = album()
    asked = book.pairs(TRAINED)[:8]
    # a copy, near copies, the drawing of another style, of another character, and something else
    tints = [colour(c, s) for c, s in each(asked)]
    tints[1] = tints[1] + torch.tensor([0.0, 3.0, 0.0])
    tints[2] = colour(int(asked.character[2]), (int(asked.style[2]) + 1) % 3)
    tints[3] = colour(int(asked.character[0]), 0)
    tints[4] = tints[4] + torch.tensor([7.0, 0.0, 60.0])
    x = torch.stack(tints)[:, :, None, None].expand(-1, -1, 32, 32) / 127.5 - 1
    found = Measures(book, judges(book)).copies(judges(book).spaces(x), asked)
    assert set(found) == {f"copies, in {space}" for space in judges(book).spaces(x)}

    known = [(c, s) for c in range(COUNT) for s in range(3) if STYLES[s] not in UNSEEN.get(c, ())]
    away = [[far(tint, colour(*pair)) for pair in known] for tint in tints]
    near, own = [min(row) for row in away], [row[known.index(p)] for row, p in zip(away, each(asked), strict=True)]
    figures = found["copies, in pixels"]
    assert figures["its own nearest"] == sum(
        known[row.index(min(row))] == p for row, p in zip(away, each(asked), strict=True)
    ) / len(asked)
    new = sorted(min(far(colour(*pair), colour(*k)) for k in known) for pair in TRUE[DRAWINGS])
    limit = new[0] + 0.05 * (len(new) - 1) * (new[1] - new[0])
    assert figures["nearer than 19 of 20 new drawings"] == sum(n < limit for n in near) / len(asked)
    for style, name in ((3, "openmoji"), (4, "emojione")):
        has = [i for i, (c, _) in enumerate(each(asked)) if style == 3 or c < COUNT // 2]
        theirs = {i: min(far(colour(int(asked.character[i]), style), colour(*k)) for k in known) for i in has}
        ratios = sorted(near[i] / theirs[i] for i in has)
        assert figures[f"to {name}'s"] == pytest.approx(ratios[(len(ratios) - 1) // 2], abs=1e-5)  # torch's median
        assert figures[f"own nearer than {name}'s nearest"] == sum(own[i] < theirs[i] for i in has) / len(has)


def test_nearer_to_the_true_drawing_than_another_style_against_loops():
    book = album()
    asked = book.pairs(DRAWINGS)
    shifts = [0.0, 49.0, 51.0]  # styles are 50 apart
    tints = [colour(c, s) + torch.tensor([0.0, d, 0.0]) for (c, s), d in zip(each(asked), shifts, strict=True)]
    x = torch.stack(tints)[:, :, None, None].expand(-1, -1, 32, 32) / 127.5 - 1
    found = Measures(book, judges(book)).toward(judges(book).spaces(x), asked)["the true drawing, in pixels"]
    truths = [colour(*pair) for pair in each(asked)]
    others = [
        min(far(truth, colour(c, o)) for o in range(3) if o != s)
        for truth, (c, s) in zip(truths, each(asked), strict=True)
    ]
    ratios = [far(t, truth) / other for t, truth, other in zip(tints, truths, others, strict=True)]
    assert found["nearer than another style"] == sum(r < 1 for r in ratios) / 3 == 2 / 3
    assert found["to another style's"] == pytest.approx(median(ratios), abs=1e-5)


def test_distance_is_between_halves_that_share_no_drawing():
    book = album(noise=40.0)
    measures = Measures(book, judges(book))
    first, second = measures.halves(100)
    assert len(first) == len(second) == len(TRUE[TRAINED]) // 2 and not set(each(first)) & set(each(second))
    x = book.pictures(book.pairs(TRAINED))
    network = judges(book).networks["classifier"]
    floor = frechet(network.features(book.pictures(first)), network.features(book.pictures(second)))
    assert measures.distance(network.features(x))["Frechet distance"] == pytest.approx(
        floor, rel=1e-4
    )  # by heart is no better
    assert measures.drawings(100)[DISTANCE]["Frechet distance"] == pytest.approx(floor, rel=1e-4)
    assert measures.distance(network.features(-x))["Frechet distance"] > 2 * floor


def test_what_is_missing_is_left_out(monkeypatch):
    book = album()
    bare = Measures(type(book)(book.characters, book.vectors), judges(book, ("style",)))
    found = bare.figures(lambda asked, group: plain(*[(0.0, 10.0, 0.0)] * len(asked)), 4)
    assert found.keys() == set(GROUPS) and all(each.keys() == {"style"} for each in found.values())
    assert bare.drawings(4) == {}
    only_drawings = Measures(book, judges(book, ()))
    found = only_drawings.figures(lambda asked, group: book.pictures(asked), 4)
    assert found.keys() == {"copies, in pixels", "the true drawing, in pixels"}

    def refused(model, kind, *rest):
        if kind == "style":
            return Seen(kind, book.vectors)
        raise WeightsError("pip install something")

    monkeypatch.setattr(emoji, "judge", refused)
    monkeypatch.setattr(emoji, "scorer", refused)
    asked = emoji.judges()
    assert set(asked.networks) == {"style"} and asked.scorer is None
    assert asked.missing == {"scorer and judge name and judge clip and judge classifier": "pip install something"}

    def nothing():
        return type(book)(book.characters, book.vectors), "no drawings"

    monkeypatch.setattr(emoji, "with_or_without", nothing)
    monkeypatch.setattr(emoji, "judges", lambda **_: judges(book, (), {"judge name": "no judges"}))
    with pytest.raises(WeightsError, match="nothing can be measured: no judges; no drawings"):
        emoji.evaluate({})


def test_an_album_without_drawings_says_why(monkeypatch):
    from symguide.evaluation import emoji_album

    def refused():
        raise ConfigError("install npm")

    found, why = emoji_album.with_or_without(refused)
    assert len(found.characters) == len(found.vectors) > 1000 and not found.layers and "install npm" in why


class Drawer(torch.nn.Module):
    """Draws characters of the stand-in album by heart, as they and their styles are asked for."""

    def __init__(self, book):
        super().__init__()
        self.book = book

    def forward(self, x, timestep, text=None, style=None):
        known = text.any(dim=1) & (style < 3)
        character = (text.to(self.book.vectors) @ self.book.vectors.T).argmax(dim=1)
        drawn = self.book.pictures(Pairs(character, style.clamp(max=2)))
        return torch.where(known[:, None, None, None], drawn, torch.zeros_like(drawn)).to(x)


def drawer(book):
    null = {"text": [[0.0] * 384], "style": 3}
    return Denoiser(Drawer(book), VP.cosine(), "x0", shape=(3, 32, 32), null=null)


def test_a_model_that_draws_by_heart_is_measured_as_such(monkeypatch):
    book = album()
    measures = Measures(book, judges(book))
    settings = {"weight": 1.0, "steps": 2, "batch": 5}
    found = measures.figures(Evaluation(drawer(book), book, **settings).samples, 1000)
    assert all(found[group]["name"] == found[group]["style"] == 1.0 for group in GROUPS)
    assert found["copies, in pixels"]["its own nearest"] == 1.0
    assert found["copies, in pixels"]["nearer than 19 of 20 new drawings"] == 1.0
    assert found["copies, in pixels"]["to openmoji's"] < 1e-3
    assert found["the true drawing, in pixels"] == {
        "nearer than another style": 1.0,
        "to another style's": pytest.approx(0.0, abs=1e-3),
    }
    said = words(found, measures.drawings(1000), 1000)
    monkeypatch.setattr(emoji, "with_or_without", lambda: (book, None))
    monkeypatch.setattr(emoji, "judges", lambda **_: judges(book, ("style",), {"judge name": "pip install it"}))
    card = emoji.measured(drawer(book), 10, weight=1.0, steps=2, progress=False)
    assert "style 1.000 (1.000)" in card and card.endswith("Not measured, for want of judge name.")
    assert "name 1.000 (1.000)" in said and "its own nearest 1.000" in said and "1,000 samples" in said


def test_samples_do_not_depend_on_the_batch():
    book = album()
    asked = book.pairs(DRAWINGS)
    whole = Evaluation(model(), book, steps=2, batch=9).samples(asked, DRAWINGS)
    parts = Evaluation(model(), book, steps=2, batch=2).samples(asked, DRAWINGS)
    assert torch.allclose(whole, parts, atol=1e-4)
    assert not torch.allclose(whole, Evaluation(model(), book, steps=2).samples(asked, TRAINED), atol=1e-2)


@pytest.fixture
def folder(tmp_path):
    settings = {"schedule": {"name": "vp-cosine"}, "predicts": "v", "shape": [3, 32, 32]}
    networks.save(network(), tmp_path / "tiny", denoiser=settings | {"null": {"text": [[0.0] * 384], "style": 3}})
    return str(tmp_path / "tiny")


def test_on_the_command_line(folder, tmp_path, monkeypatch):
    book = album()
    monkeypatch.setattr(emoji, "with_or_without", lambda: (book, None))
    some = judges(book, ("style", "classifier"), {"judge name": "pip install it"})
    monkeypatch.setattr(emoji, "judges", lambda **_: some)
    out = tmp_path / "out.json"
    run = ["evaluate", folder, "--samples", "10", "--steps", "1", "--json", str(out)]
    result = CliRunner().invoke(main, run, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text())
    assert found["cfg"] == 3.0 and found["missing"] == {"judge name": "pip install it"}
    assert "left out, for want of judge name: pip install it" in result.output and "CFG 3" in result.output
    figures = found["models"][folder]
    assert figures.keys() >= {*GROUPS, DISTANCE, "copies, in pixels", "the true drawing, in the scorer's features"}
    lines = result.output.partition("CFG 3")[2].splitlines()  # after the bars
    line = next(line for line in lines if line.startswith(TRAINED))
    assert line.split()[-3:] == ["style", f"{figures[TRAINED]['style']:.3f}", "1.000"]
    line = next(line for line in lines if line.startswith("copies, in pixels"))
    assert line.split()[-2:] == [f"{figures['copies, in pixels']['its own nearest']:.3f}", "-"]


def test_judges_look_together():
    book = album()
    asked, x = judges(book), book.pictures(book.pairs(TRAINED))
    seen = asked.see(x)
    assert {kind: rows.shape for kind, rows in seen.items()} == {
        "name": (len(x), COUNT),
        "style": (len(x), len(SETS)),
        "clip": (len(x), 384),
        "classifier": (len(x), 6),
    }
    assert sum(network.calls for network in asked.networks.values()) == 1
    few = Judges(asked.networks, batch=3).see(x)
    assert all(torch.allclose(few[kind], rows) for kind, rows in seen.items())
    assert judges(book, ()).see(x) == {} and list(judges(book, ()).spaces(x)) == ["pixels"]
    asked.networks["style"].stands_on = "something else"
    with pytest.raises(ConfigError, match="stand on one pretrained network"):
        Judges(asked.networks)


def test_sheets_show_what_is_measured():
    """A model that draws by heart: the rows of the true drawings and of its samples are alike."""
    book = album()
    drawing = Evaluation(drawer(book), book, weight=1.0, steps=2)
    page = np.asarray(emoji_sheets.trained(drawing, count=6, columns=3, cell=32))
    own = grid(drawing.samples(book.pairs(TRAINED)[:6], TRAINED), columns=3, cell=32)
    assert np.array_equal(page, np.asarray(own)) and len(np.unique(page.reshape(-1, 3), axis=0)) > 6
    page = np.asarray(emoji_sheets.unseen(drawing, count=2, cell=32)).astype(int)
    truths = [book.pictures(book.pairs(group)[:2]) for group in (DRAWINGS, CHARACTERS)]
    rows = [truths[0], truths[0], truths[1], truths[1]]
    best = np.asarray(grid(rows, [emoji_sheets.TRUE, emoji_sheets.MODEL] * 2, cell=32)).astype(int)
    assert page.shape == best.shape and np.abs(page - best).max() <= 2


def test_models_of_two_worlds_do_not_compare(folder):
    result = CliRunner().invoke(main, ["evaluate", folder, "scenes", "--samples", "10"])
    assert result.exit_code == 2 and "different worlds" in result.output


def test_stand_ins_reach_the_tasks(monkeypatch):
    """The world's own networks are asked by name, so that the stand-ins are what tests measure."""
    book = album()
    replace_world(monkeypatch, book, emoji)
    assert set(emoji.judges().networks) == {"name", "style", "clip", "classifier"} and emoji.judges().scorer.bent
