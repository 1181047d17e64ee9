"""The emoji world without its models: names and their split, sentences, pictures under a view, packages of drawings."""

import dataclasses
import hashlib
import io
import itertools
import json
import math
import multiprocessing
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from emoji_stand_ins import Seen, network

import symguide as sg
from symguide import report
from symguide.errors import ConfigError, WeightsError
from symguide.objectives import TextSimilarity
from symguide.worlds import WORLDS, emoji, scorers
from symguide.worlds.emoji import drawings, minilm, names, sentences, views

MINILM = pytest.mark.skipif(not minilm.is_installed(), reason=f"MiniLM is not installed: {minilm.INSTALL}")


@pytest.fixture
def bare(monkeypatch):
    """As where MiniLM is not installed."""
    monkeypatch.setattr(minilm, "is_installed", lambda: False)


# The model


def test_every_trained_name_finds_its_own_drawings_in_the_models_memory():
    """In the types that a model may have: of names.json, and those alone that training saw."""
    seen = torch.tensor([[style not in one.unseen for style in names.STYLES] for one in names.emojis()])
    trained = seen.any(dim=1)
    sketch, vectors = sg.load("emoji", dtype=torch.float32).network.sketch, names.vectors()[trained]
    rows = torch.arange(len(sketch.keys))
    assert torch.equal(sketch.known > 0, seen[trained]) and torch.equal(sketch.near(vectors).argmax(dim=1), rows)
    for dtype in (torch.float16, torch.bfloat16):
        narrow = sg.load("emoji", dtype=dtype).network.sketch
        assert torch.equal(narrow.near(vectors.to(dtype)).argmax(dim=1), rows)


def test_weights_of_another_version_are_named_as_such(tmp_path, monkeypatch):
    folder = tmp_path / "denoiser"
    shutil.copytree(WORLDS["digits"].denoiser, folder)
    config = json.loads((folder / "config.json").read_text())
    config["arguments"]["rank"] = 4
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="does not take these arguments"):
        sg.load(folder)
    monkeypatch.setitem(WORLDS.things, "digits", dataclasses.replace(WORLDS["digits"], denoiser=folder))
    with pytest.raises(WeightsError, match=r"rank.*pip install --upgrade symguide-worlds"):
        sg.load("digits")


# Names


def test_the_names_that_ship_are_split_as_the_rule_says():
    listed = names.emojis()
    assert len(listed) == 1594 and len({one.code for one in listed}) == len({one.name for one in listed}) == 1594
    unseen = names.split(names.codes())
    assert {one.code: one.unseen for one in listed if one.unseen} == unseen
    whole = [one for one in listed if one.unseen == names.STYLES]
    assert len(whole) == 150 and sum(len(one.unseen) == 1 for one in listed) == 300 and len(unseen) == 450
    ranks = {code: hashlib.sha512(f"character {code}".encode()).hexdigest() for code in names.codes()}
    least = max(ranks[one.code] for one in whole)
    assert all(ranks[one.code] > least for one in listed if one.unseen != names.STYLES)


def test_the_split_does_not_depend_on_the_order_of_the_characters():
    assert names.split(reversed(names.codes())) == names.split(names.codes())


def test_every_name_has_a_vector_of_its_own_of_length_1():
    assert emoji.vectors().shape == (1594, emoji.WIDTH) and emoji.vectors().dtype == torch.float32
    torch.testing.assert_close(emoji.vectors().norm(dim=1), torch.ones(1594, dtype=torch.float32))
    alike = emoji.vectors() @ emoji.vectors().T - 2 * torch.eye(1594, dtype=torch.float32)
    assert alike.max() < 0.999


def test_styles_have_numbers():
    assert [emoji.style(name) for name in ("noto", "twemoji", "fluent")] == [0, 1, 2]
    with pytest.raises(ConfigError, match=r"unknown style 'openmoji'.*noto"):
        emoji.style("openmoji")


@pytest.mark.parametrize("content", ["{", "[{}]", "3"])
def test_a_damaged_list_of_names_is_one_sentence(content, tmp_path, monkeypatch):
    (tmp_path / "names.json").write_text(content)
    monkeypatch.setattr(names, "WEIGHTS", tmp_path)
    with pytest.raises(WeightsError, match="is not the list of the emoji world's names"):
        names.emojis.__wrapped__()


def test_vectors_of_other_names_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(names, "WEIGHTS", tmp_path)
    with pytest.raises(WeightsError, match=r"does not hold the vectors of the emoji world .*: install it again"):
        names.vectors.__wrapped__()
    safetensors.torch.save_file({"name": torch.ones(3, 384)}, tmp_path / "vectors.safetensors")
    with pytest.raises(WeightsError, match="holds 3 vectors for 1594 names"):
        names.vectors.__wrapped__()


# Sentences


def vector(name):
    return emoji.vectors()[[one.name for one in emoji.emojis()].index(name)]


@pytest.mark.parametrize(
    "sentence, name",
    [
        ("a happy octopus", "octopus"),
        ("Two OCTOPUSES, dancing", "octopus"),
        ("wolves", "wolf"),
        ("three mice", "mouse"),
        ("fire trucks", "fire engine"),  # truck is a tag
        ("a dancing woman", "woman dancing"),
        ("strawberries", "strawberry"),
        ("a dog", "dog"),  # as good as "dog face", and shorter
        ("eyes", "eyes"),
        ("an eye", "eye"),
        ("happy birthday", "birthday cake"),
        ("a woman's hat", "woman’s hat"),
        ("pinata", "piñata"),
        ("sunset at the sea", "sunset"),
    ],
)
def test_the_nearest_name_of_a_sentence(sentence, name):
    assert sentences.nearest(sentence).name == name


def test_a_name_with_an_article_is_that_name():
    """But for two that differ in a sign that is no word."""
    listed = emoji.emojis()
    assert [one.name for one in listed if sentences.nearest(f"A  {one.name.upper()}") is not one] == ["keycap: *"]
    assert all(sentences.nearest(one.name) is one for one in listed[::10])


def test_without_an_encoder_a_sentence_has_the_vector_of_a_name_and_that_is_said(bare):
    said = []
    found = emoji.text(["a happy octopus", " Red  heart", ""], said.append)
    assert torch.equal(found, torch.stack([vector("octopus"), vector("red heart"), torch.zeros(384).float()]))
    assert len(said) == 1 and said[0].startswith("'a happy octopus' is taken for 'octopus', the nearest name: ")
    assert minilm.INSTALL in said[0]
    with pytest.warns(UserWarning, match="taken for 'wolf'"):
        assert torch.equal(emoji.text("wolves"), vector("wolf")[None])
    with pytest.raises(ConfigError, match=r"has a word of 'zxcv qwerty': .*pip install"):
        emoji.text("zxcv qwerty")
    with pytest.raises(ConfigError, match="has a word of 'the of'"):
        emoji.text("the of")
    assert emoji.text([]).shape == (0, 384)


def test_names_have_their_shipped_vectors_beside_an_encoder_and_sentences_have_its_own(monkeypatch):
    asked = []

    def embed(texts):
        asked.append(list(texts))
        return torch.full((len(texts), 384), 0.5, dtype=torch.float32)

    monkeypatch.setattr(minilm, "is_installed", lambda: True)
    monkeypatch.setattr(minilm, "embed", embed)
    found = emoji.text(["octopus", "a happy octopus", "dog", ""])
    assert asked == [["a happy octopus"]]
    assert torch.equal(found[[0, 2]], torch.stack([vector("octopus"), vector("dog")]))
    assert found[1].eq(0.5).all() and found[3].eq(0).all()


@MINILM
def test_the_encoder_gives_names_their_shipped_vectors():
    some = emoji.emojis()[::100]
    made = minilm.embed([one.name for one in some])
    torch.testing.assert_close(made, emoji.vectors()[::100], rtol=0, atol=1e-3)
    alone = torch.cat([minilm.embed([one.name]) for one in some[:3]])
    torch.testing.assert_close(alone, made[:3], rtol=0, atol=1e-5)  # whatever it is padded to
    assert minilm.embed([]).shape == (0, 384)


def test_a_damaged_encoder_is_one_sentence(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    (tmp_path / "model.zip").write_bytes(b"no zip")
    (tmp_path / "__init__.py").touch()
    found = type("Spec", (), {"origin": str(tmp_path / "__init__.py")})
    monkeypatch.setattr(minilm, "find_spec", lambda name: found)
    with pytest.raises(WeightsError, match=r"does not hold MiniLM.*pip install"):
        minilm._encoder.__wrapped__()
    monkeypatch.setattr(minilm, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="MiniLM, which is not installed: pip install"):
        minilm._encoder.__wrapped__()


def test_an_objective_of_a_sentence_asks_the_worlds_scorer(bare, monkeypatch):
    clip = Seen("clip", emoji.vectors(), bent=True)
    monkeypatch.setattr(scorers, "network", lambda *asked, **settings: clip)
    x = torch.rand(2, 3, 32, 32)
    got = emoji.objective("text", ["octopus", "dog"])(x)
    expected = 1 - (clip.double().image(x) * torch.stack([vector("octopus"), vector("dog")])).sum(dim=1)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    with pytest.raises(ConfigError, match="unknown objective of emoji 'classifer'"):
        emoji.objective("classifer", 3)


def test_vectors_are_for_networks_that_take_them():
    class Looks(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.words = torch.nn.Embedding(5, 2)

        def image(self, x):
            return x[:, :2]

        def text(self, tokens):
            return self.words(tokens).mean(dim=1)

    TextSimilarity(torch.tensor([[1, 2]]), Looks())
    with pytest.raises(ConfigError, match="tokens are integers"):
        TextSimilarity(torch.rand(1, 2), Looks())


# Pictures


def layers(count=3, side=16):
    generator = torch.Generator().manual_seed(0)
    opacity = torch.randint(0, 256, (count, 1, side, side), generator=generator)
    colours = torch.randint(0, 256, (count, 3, side, side), generator=generator) * opacity // 255
    return torch.cat([colours, opacity], dim=1).to(torch.uint8)


def seen(drawn, **view):
    """One drawing under a view, without averaging."""
    return views.picture(drawn[None], torch.tensor([emoji.view(**view)], dtype=torch.float32), drawn.shape[-1])[0]


def on_white(drawn):
    """Written out for each pixel: the colours over white, in [-1, 1]."""
    drawn = drawn.double() / 255
    return (2 * (drawn[:3] + 1 - drawn[3:]) - 1).float()


def test_a_drawing_as_it_is_stands_on_white_averaged_over_blocks():
    drawn = layers()
    whole = torch.stack([on_white(one) for one in drawn])
    blocks = whole.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(4, 5))
    torch.testing.assert_close(views.picture(drawn, None, 8), blocks, rtol=0, atol=1e-5)
    torch.testing.assert_close(views.picture(drawn, torch.zeros(3, 7), 16), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("right, down", [(3, 0), (0, 5), (-2, 4), (16, 0)])
def test_a_drawing_moves_by_whole_pixels(right, down):
    drawn, expected = layers(1)[0], torch.zeros(4, 16, 16, dtype=torch.uint8)
    for y, x in itertools.product(range(16), range(16)):
        if 0 <= y - down < 16 and 0 <= x - right < 16:
            expected[:, y, x] = drawn[:, y - down, x - right]
    torch.testing.assert_close(seen(drawn, right=right / 16, down=down / 16), on_white(expected), rtol=0, atol=1e-4)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_drawing_turns_clockwise(quarters):
    """What is at the top is on the right after a quarter; torch.rot90 turns the other way."""
    drawn = layers(1)[0]
    torch.testing.assert_close(
        seen(drawn, turn=90 * quarters), on_white(torch.rot90(drawn, -quarters, (1, 2))), rtol=0, atol=1e-4
    )
    top = torch.zeros(4, 16, 16, dtype=torch.uint8)
    top[3, 0:2, 7:9] = 255
    ink = (seen(top, turn=90) < 0).any(dim=0).nonzero()
    assert set(ink[:, 1].tolist()) == {14, 15} and set(ink[:, 0].tolist()) == {7, 8}


def test_a_drawing_zooms_about_its_middle():
    drawn = layers(1)[0].float()
    middle = drawn[None, :, 4:12, 4:12]
    padded = drawn[None, :, 3:13, 3:13]  # what lies around it counts at its edges
    expected = F.interpolate(padded, scale_factor=2.0, mode="bilinear")[0, :, 2:18, 2:18]
    torch.testing.assert_close(seen(drawn, zoom=2.0), on_white(expected), rtol=0, atol=1e-4)
    inner = F.interpolate(middle, scale_factor=2.0, mode="bilinear")[0, :, 1:-1, 1:-1]
    torch.testing.assert_close(seen(drawn, zoom=2.0)[:, 1:-1, 1:-1], on_white(inner), rtol=0, atol=1e-4)


def test_it_is_turned_first_and_moved_then():
    drawn, expected = layers(1)[0], torch.zeros(4, 16, 16, dtype=torch.uint8)
    expected[:, :, 4:] = torch.rot90(drawn, -1, (1, 2))[:, :, :12]
    torch.testing.assert_close(seen(drawn, right=0.25, turn=90), on_white(expected), rtol=0, atol=1e-4)


def test_the_ground_shows_where_nothing_is_drawn():
    drawn = layers(1)[0]
    got = seen(drawn, ground="#ffcc00", right=0.25)
    assert torch.allclose(got[:, :, :4], torch.tensor([1.0, 0.6, -1.0]).float()[:, None, None].expand(3, 16, 4))
    share = drawn[3:].double() / 255
    expected = 2 * (drawn[:3].double() / 255 + (1 - share) * torch.tensor([1, 0.8, 0])[:, None, None]) - 1
    torch.testing.assert_close(seen(drawn, ground="#ffcc00"), expected.float(), rtol=0, atol=1e-5)


def test_drawings_that_are_not_moved_stay_what_they_were_to_the_last_bit():
    drawn, view = layers(), torch.zeros(3, 7)
    view[1] = torch.tensor(emoji.view(turn=13, zoom=1.1, right=0.02))
    got, plain = views.picture(drawn, view, 8), views.picture(drawn, None, 8)
    assert torch.equal(got[[0, 2]], plain[[0, 2]]) and not torch.allclose(got[1], plain[1])


def test_views_are_each_drawings_own():
    torch.manual_seed(0)
    drawn, view = layers(6), views.random_views(6)
    assert view[:, :4].any() and view[:, 4:].any()
    alone = torch.cat([views.picture(drawn[i : i + 1], view[i : i + 1], 8) for i in range(6)])
    torch.testing.assert_close(views.picture(drawn, view, 8), alone, rtol=0, atol=1e-6)
    assert views.picture(drawn, view, 8).dtype == torch.float32 and alone.abs().max() <= 1 + 1e-5


def test_random_views_are_as_often_moved_and_coloured_as_they_say():
    torch.manual_seed(0)
    view = views.random_views(20000)
    moved, ground = view[:, :4].any(dim=1), view[:, 4:].any(dim=1)
    assert abs(moved.float().mean() - 1 / 3) < 0.02 and abs(ground.float().mean() - 1 / 4) < 0.02
    torch.testing.assert_close(view[moved][:, 0].std().item(), 0.06, rtol=0.05, atol=0)
    assert view[:, 4:].min() >= 0 and view[:, 4:].max() <= 1


def test_ink_is_where_colours_change_and_goes_with_the_drawing():
    """A square of two colours: black at its border and where they meet, its own colours within, clear outside."""
    drawn = torch.zeros(2, 4, 64, 64)
    drawn[:, 0, 16:48, 16:32], drawn[:, 1, 16:48, 32:48], drawn[:, 3, 16:48, 16:48] = 255, 255, 255
    got = views.picture(drawn, side=64, look=torch.tensor([emoji.look(ink=1), emoji.look(ink=0.5)]))
    plain = views.picture(drawn, side=64)
    line = torch.zeros(64, 64, dtype=torch.bool)
    for at in (15, 31, 47):
        line[15:48, at] = True
    line[15, 15:48] = line[47, 15:48] = True
    assert torch.equal(got[0], torch.where(line, -1.0, plain[0]))
    torch.testing.assert_close(got[1], torch.where(line, (plain[1] - 1) / 2, plain[1]), rtol=0, atol=1e-6)
    view = torch.tensor([emoji.view(right=0.25, ground="blue")])
    moved = views.picture(drawn[:1], view, 64, torch.tensor([emoji.look(ink=1)]))
    shifted = line.roll(16, dims=1)
    assert bool((moved[0, :, shifted] < -0.99).all()) and moved[0, 2, 0, 0] == 1


def test_looks_stay_within_what_a_drawing_can_show_and_change_no_other():
    torch.manual_seed(0)
    drawn, look = layers(6), torch.tensor([emoji.look(), emoji.look(hue=200)] * 2 + [emoji.look(1, 0.5, 0.3, 90)] * 2)
    got = views.picture(drawn, None, 8, look)
    assert torch.equal(got[[0, 2]], views.picture(drawn, None, 8)[[0, 2]]) and got.abs().max() <= 1
    alone = torch.cat([views.picture(drawn[i : i + 1], None, 8, look[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(got, alone, rtol=0, atol=1e-6)


def test_random_looks_are_as_often_inked_and_so_on_as_they_say():
    torch.manual_seed(0)
    look = views.random_looks(20000)
    for column, share in zip(look.T, [0.6, 0.5, 0.3, 0.4, 0.0], strict=True):
        assert abs(column.ne(0).float().mean() - share) < 0.02
    inked = look[:, 0][look[:, 0] != 0]
    assert look[:, :3].min() >= 0 and look[:, :3].max() <= 1 and look[:, 3].abs().max() <= torch.pi
    assert inked.min() >= 0.4 and look[:, 1].max() <= 0.7


@pytest.mark.parametrize(
    "given, why",
    [
        ({"ink": 1.1}, "must be between 0 and 1"),
        ({"hue": None}, "a hue"),
        ({"free": 2}, "is free or not"),
        ({"free": 1, "ink": 1}, "has no ink"),
    ],
)
def test_what_is_no_look(given, why):
    with pytest.raises(ConfigError, match=why):
        emoji.look(**given)


@pytest.mark.parametrize(
    "arguments, why",
    [
        ((layers(2), None, 8, torch.zeros(2, 3)), r"looks of 2 drawings are \(2, 5\), not \(2, 3\)"),
        ((layers(2), None, 5), "of 16 pixels have no whole blocks for pictures of 5"),
        ((layers(2), None, 32), "no whole blocks"),
        ((layers(2), None, 0), "no whole blocks"),
        ((layers(2)[:, :3], None, 8), r"drawings are \(B, 4, side, side\)"),
        ((layers(2), torch.zeros(1, 7), 8), r"views of 2 drawings are \(2, 7\), not \(1, 7\)"),
    ],
)
def test_what_is_no_picture(arguments, why):
    with pytest.raises(ConfigError, match=why):
        views.picture(*arguments)


@pytest.mark.parametrize(
    "given, why",
    [
        ({"zoom": 0}, "a zoom must be positive"),
        ({"zoom": -1.0}, "a zoom must be positive"),
        ({"turn": math.nan}, "a turn must be a finite number"),
        ({"right": "1"}, "to the right must be a finite number"),
        ({"ground": "skyblu"}, "a ground is a colour such as skyblue or #ffcc00, not 'skyblu'"),
        ({"ground": 3}, "a ground is a colour"),
    ],
)
def test_what_is_no_view(given, why):
    with pytest.raises(ConfigError, match=why):
        emoji.view(**given)


# Drawings

SQUARE = '<path fill="#f00" d="M0 0h8v16H0z"/>'


def packed(files):
    """A package as npm has it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        archive.add(Path(__file__).parent, "package/folder", recursive=False)
        for name, content in files.items():
            data = json.dumps(content).encode()
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


ICONS = {
    "icons": {"box": {"body": SQUARE}, "odd": {"body": SQUARE, "width": 32}},
    "aliases": {"same": {"parent": "box"}},
}
FILE = packed({"icons.json": ICONS, "chars.json": {"1F4E6": "box", "2B1B-FE0F": "same", "ff": "lacking"}})


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of its own, and a set "noto" of three characters, which is fetched by nothing."""
    monkeypatch.setenv("SYMGUIDE_CACHE", str(tmp_path / "cache"))
    package = drawings.Package("@x/noto", "1", hashlib.sha512(FILE).hexdigest(), "MIT", "nobody")
    monkeypatch.setitem(drawings.SETS, "noto", package)
    drawings.icons.cache_clear()
    yield tmp_path / "cache" / "emoji"
    drawings.icons.cache_clear()


def npm(monkeypatch, content=FILE, error=None):
    """What npm does in place of fetching; the commands that it was asked."""
    asked = []

    def run(command, **settings):
        asked.append(command)
        if error is not None:
            raise error
        Path(command[-1], "x-noto-1.tgz").write_bytes(content)

    monkeypatch.setattr(subprocess, "run", run)
    return asked


def test_the_cache_is_where_it_is_said_to_be(monkeypatch, tmp_path):
    monkeypatch.setenv("SYMGUIDE_CACHE", str(tmp_path))
    assert drawings.folder() == tmp_path / "emoji"
    for unset in (lambda: monkeypatch.setenv("SYMGUIDE_CACHE", ""), lambda: monkeypatch.delenv("SYMGUIDE_CACHE")):
        unset()
        assert drawings.folder() == Path.home() / ".cache" / "symguide" / "emoji"


def test_a_package_is_fetched_once_and_its_files_are_read(cache, monkeypatch):
    asked = npm(monkeypatch)
    assert set(drawings.icons("noto")) == {"1f4e6", "2b1b"}
    assert drawings.fetched(drawings.SETS["noto"]) == cache / "x-noto-1.tgz" and len(asked) == 1
    assert asked[0][:3] == ["npm", "pack", "@x/noto@1"]
    assert 'viewBox="0 0 16 16"' in drawings.icons("noto")["1f4e6"] and SQUARE in drawings.icons("noto")["2b1b"]
    for name in ("missing.json", "folder"):
        with pytest.raises(WeightsError, match=f"x-noto-1.tgz holds no file {name}"):
            drawings.member(drawings.SETS["noto"], name)


def test_npm_that_is_missing_or_offline_is_one_sentence_and_leaves_nothing(cache, monkeypatch):
    offline = "npm error code ENOTFOUND\nnpm error network request to https://registry.npmjs.org failed\n"
    for error, why in (
        (FileNotFoundError(2, "No such file or directory", "npm"), "No such file or directory: 'npm'"),
        (subprocess.CalledProcessError(1, ["npm"], stderr=offline), "code ENOTFOUND network request to https"),
    ):
        npm(monkeypatch, error=error)
        with pytest.raises(WeightsError) as caught:
            drawings.fetched(drawings.SETS["noto"])
        said = str(caught.value)
        assert why in said and "\n" not in said and "npm error" not in said
        assert said.endswith(f"install npm, go online, or put x-noto-1.tgz into {cache}")
        assert [path for path in cache.iterdir() if path.suffix != ".lock"] == []


def test_a_file_of_another_digest_is_not_kept_and_not_read(cache, monkeypatch):
    npm(monkeypatch, packed({}))
    with pytest.raises(WeightsError, match="npm brought another file than @x/noto 1, of sha512"):
        drawings.fetched(drawings.SETS["noto"])
    path = cache / "x-noto-1.tgz"
    assert not path.exists()
    path.write_bytes(FILE[:-1])
    with pytest.raises(WeightsError, match=f"{path} is not @x/noto 1: its sha512 is .*; delete it"):
        drawings.icons("noto")


def test_a_cache_that_cannot_be_written_is_one_sentence(cache, monkeypatch):
    npm(monkeypatch)
    cache.parent.write_text("no folder")
    with pytest.raises(ConfigError, match=f"kept in {cache}, which cannot be written .*set SYMGUIDE_CACHE"):
        drawings.drawings("noto", ["1f4e6"])


def fetch(wait):
    """In a process of its own: the package, brought by an npm that takes a while."""
    package = drawings.Package("@x/noto", "1", hashlib.sha512(FILE).hexdigest(), "MIT", "nobody")

    def run(command, **settings):
        with open(drawings.folder() / "asked", "a") as file:
            file.write("once\n")
        wait.wait(0.5)
        Path(command[-1], package.file).write_bytes(FILE)

    subprocess.run = run
    drawings.fetched(package)


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_processes_fetch_a_package_once(cache):
    context = multiprocessing.get_context("fork")
    wait = context.Event()
    processes = [context.Process(target=fetch, args=(wait,)) for _ in range(3)]
    for each in processes:
        each.start()
    for each in processes:
        each.join(60)
    assert [each.exitcode for each in processes] == [0, 0, 0]
    assert (cache / "asked").read_text() == "once\n" and (cache / "x-noto-1.tgz").read_bytes() == FILE


def half(side=64):
    """The red half of the square, drawn by hand."""
    picture = torch.zeros(4, side, side, dtype=torch.uint8)
    picture[0, :, : side // 2] = picture[3, :, : side // 2] = 255
    return picture


def test_drawings_are_drawn_once_and_lacking_ones_are_empty(cache, monkeypatch):
    pytest.importorskip("cairosvg", exc_type=ImportError)
    npm(monkeypatch)
    listed = ["1f4e6", "1f600", "2b1b"]
    found = drawings.drawings("noto", listed)
    assert torch.equal(found, torch.stack([half(), torch.zeros_like(half()), half()]))
    monkeypatch.setattr(drawings, "render", lambda *_: pytest.fail("drawn twice"))
    assert torch.equal(drawings.drawings("noto", tuple(listed)), found)
    assert drawings.drawings("noto", []).shape == (0, 4, 64, 64)
    with pytest.raises(pytest.fail.Exception):
        drawings.drawings("noto", listed, 32)
    (kept,) = cache.glob("noto-1-64-*.safetensors")
    safetensors.torch.save_file({"drawings": found[:2]}, kept)
    with pytest.raises(ConfigError, match="delete it, and they are drawn again"):
        drawings.drawings("noto", listed)
    kept.write_bytes(kept.read_bytes()[:-9])
    with pytest.raises(ConfigError, match=r"cannot be read .*delete it, and it is drawn again"):
        drawings.drawings("noto", listed)


def test_one_drawing_by_the_name_of_what_it_shows(cache, monkeypatch):
    pytest.importorskip("cairosvg", exc_type=ImportError)
    npm(monkeypatch)
    made = emoji.drawing("package", "noto", side=32)
    assert torch.equal(made, emoji.picture(half()[None], side=32)[0]) and made.unique().tolist() == [-1, 1]
    shown = np.asarray(report.picture(made))
    assert shown.shape == (32, 32, 3) and shown[5, 5].tolist() == [255, 0, 0] and (shown[5, 25] == 255).all()
    for name, by, why in (
        ("packing", "noto", "unknown emoji 'packing'"),
        ("package", "notto", "unknown set of emoji"),
        ("octopus", "noto", "noto has no octopus: take another of noto, twemoji"),
    ):
        with pytest.raises(ConfigError, match=why):
            emoji.drawing(name, by)


def test_colours_are_kept_times_their_opacity():
    pytest.importorskip("cairosvg", exc_type=ImportError)
    svg = drawings._svg({"body": '<path fill="#c86432" fill-opacity=".5" d="M0 0h16v16H0z"/>'}, {})
    made = drawings.render(svg, 8)
    assert made.shape == (4, 8, 8) and made[3].unique().tolist() in ([127], [128])
    assert (made[:3, 4, 4] - torch.tensor([100, 50, 25])).abs().max() <= 1


@pytest.mark.parametrize(
    "style, characters, why",
    [
        ("notto", ["1f419"], "unknown set of emoji 'notto': did you mean 'noto'"),
        ("noto", ["octopus"], "code points, each such as 1f419, not 'octopus'"),
        ("noto", "1f419", "code points, each such as 1f419, not '1f419'"),
        ("noto", ["../x"], "code points"),
    ],
)
def test_what_cannot_be_drawn(style, characters, why):
    with pytest.raises(ConfigError, match=why):
        drawings.drawings(style, characters)


# The model


def test_guidance_toward_a_condition_leaves_out_text_and_style_and_keeps_view_and_look():
    told = []

    class Told(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network()

        def forward(self, x, timestep, text=None, style=None, view=None, look=None):
            told.append((text, style, view, look))
            return self.network(x, timestep, text, style, view, look)

    null = sg.load("emoji").null
    denoiser = sg.Denoiser(Told(), sg.VP.cosine(), "v", shape=(3, 32, 32), null=null)
    text = emoji.vectors()[:2]
    view = torch.tensor([emoji.view(ground="skyblue"), emoji.view(turn=20)])
    look = torch.tensor([emoji.look(ink=1), emoji.look(hue=20)])
    condition = {"text": text, "style": [1, 2], "view": view, "look": look}

    sg.sample(denoiser, batch=2, steps=1, condition=condition, prediction=sg.CFG(3.0))
    (texts, styles, seen_views, looks), *rest = told
    assert not rest and texts.shape == (4, 384)
    without = texts.abs().sum(dim=1) == 0
    assert without.sum() == 2 and torch.equal(texts[~without].float(), text)
    assert styles[without].tolist() == [3, 3] and styles[~without].tolist() == [1, 2]
    assert torch.equal(looks[without], looks[~without])
    torch.testing.assert_close(looks[without], look.to(looks))
    assert torch.equal(seen_views[without], seen_views[~without])
    torch.testing.assert_close(seen_views[without], view.to(seen_views))
