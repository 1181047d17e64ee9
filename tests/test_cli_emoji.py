"""The command line over a small emoji world: sentences, styles by name, views by their parts, and what is recorded."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from emoji_stand_ins import Seen, model
from PIL import Image
from safetensors.torch import load_file

import symguide as sg
from symguide.cli import main
from symguide.errors import WeightsError
from symguide.objectives import Style, TextSimilarity
from symguide.specs import conditions
from symguide.store import digests
from symguide.worlds import WORLDS, World, emoji, load
from symguide.worlds.emoji import minilm


@pytest.fixture(autouse=True)
def world(tmp_path, monkeypatch):
    """The world with a tiny network, scorers that see mean colours, and no encoder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(minilm, "is_installed", lambda: False)
    torch.set_default_dtype(torch.float32)
    sg.save(model(), "denoiser")
    folder = tmp_path / "denoiser"
    kinds = {kind: folder for kind in ("classifier", "clip")}
    monkeypatch.setitem(
        WORLDS.things, "emoji", replace(WORLDS["emoji"], denoiser=folder, scorers=kinds, judges=kinds, shapes=())
    )
    monkeypatch.setattr(load, "scorer", lambda model, kind, **_: Seen(kind, emoji.vectors(), bent=True))
    monkeypatch.setattr(load, "judge", lambda model, kind, **_: Seen(kind, emoji.vectors()))
    Image.new("RGB", (32, 32), "teal").save("openmoji.png")


def draw(*arguments, out="out", code=0):
    plain = ("--model", "emoji", "--num", "3", "--batch", "2", "--steps", "2", "--format", "safetensors")
    done = CliRunner().invoke(main, ["sample", "--out", out, *plain, "--no-grid-png", *map(str, arguments)])
    assert done.exit_code == code, (done.output, done.exception)
    return done


def samples(out="out"):
    return next(iter(load_file(f"{out}/samples.safetensors").values()))


def expected(condition, cfg=3.0, loss=None):
    settings = {"indices": range(3), "steps": 2, "condition": condition, "dtype": torch.float32, "loss": loss}
    return sg.sample(sg.load("emoji", dtype=torch.float32), **settings, prediction=sg.CFG(cfg) if cfg else None).samples


def vector(name):
    return emoji.vectors()[[one.name for one in emoji.emojis()].index(name)]


def test_sentences_styles_and_views_go_to_the_samples_in_turn():
    said = draw(
        *("--prompt", "a happy octopus", "--prompt", "dog", "--condition", "style=twemoji,2,noto"),
        *("--condition", "ground=skyblue,#ffcc00", "--condition", "turn=20"),
    ).stderr
    assert said.count("'a happy octopus' is taken for 'octopus', the nearest name: ") == 1 and "'dog'" not in said
    blue, yellow = (1 - torch.tensor(c) / 255 for c in ([135.0, 206, 235], [255.0, 204, 0]))
    moved = torch.tensor([0, 0, 0, math.radians(20)])
    view = torch.stack([torch.cat([moved, ground]) for ground in (blue, yellow, blue)])
    text = torch.stack([vector("octopus"), vector("dog"), vector("octopus")])
    got = expected({"text": text, "style": [1, 2, 0], "view": view})
    torch.testing.assert_close(samples(), got, rtol=0, atol=1e-4)


def test_a_run_records_what_was_asked_and_is_drawn_again():
    line = (
        "--prompt",
        "wolves",
        "--condition",
        "style=fluent",
        "--condition",
        "ground=#ffcc00,pink",
        "--condition",
        "zoom=1.5",
    )
    draw(*line)
    config = yaml.safe_load(Path("out/config.yaml").read_text())
    assert config["prompt"] == ["wolves"] and config["cfg"] == 3.0
    assert config["condition"] == {"style": "fluent", "ground": ["#ffcc00", "pink"], "zoom": 1.5}
    assert config["made_with"]["sentences"] == {"wolves": "wolf"}
    assert "continuing: 3 of 3 samples" in draw(*line, "--progress").stderr
    again = CliRunner().invoke(main, ["sample", "--config", "out/config.yaml", "--out", "again", "--quiet"])
    assert again.exit_code == 0 and torch.equal(samples("again"), samples())


def test_a_run_does_not_go_on_where_a_sentence_means_something_else(monkeypatch):
    draw("--prompt", "a happy octopus", "--prompt", "dog")
    monkeypatch.setattr(minilm, "is_installed", lambda: True)
    monkeypatch.setattr(minilm, "embed", lambda texts: torch.ones(len(texts), 384) / 384**0.5)
    said = draw("--prompt", "a happy octopus", "--prompt", "dog", "--num", 5, code=2).stderr
    assert "what 'a happy octopus' is taken for is not as it was" in said and "'dog'" not in said
    draw("--prompt", "a happy octopus", out="new")
    config = yaml.safe_load(Path("new/config.yaml").read_text())
    assert config["made_with"]["sentences"] == {"a happy octopus": "itself, by MiniLM"}


def test_a_look_is_given_by_its_parts():
    draw("--prompt", "dog", "--condition", "style=noto", "--condition", "ink=1,0", "--condition", "hue=90")
    look = torch.tensor([[ink, 0, 0, math.pi / 2, 0] for ink in (1.0, 0.0, 1.0)])
    got = expected({"text": vector("dog").expand(3, -1), "style": [0] * 3, "look": look})
    torch.testing.assert_close(samples(), got, rtol=0, atol=1e-4)
    said = draw("--condition", "ink=2", out="wrong", code=2).stderr
    assert "ink of a look must be between 0 and 1, not 2" in said and not Path("wrong").exists()
    assert (
        "e.g. --condition ink=1: ink, pale, gray, hue, free"
        in draw("--condition", "look=1", out="wrong", code=2).stderr
    )


def test_no_prompt_is_no_guidance_and_parts_of_a_view_alone_are_one():
    draw("--condition", "right=0.25")
    torch.testing.assert_close(
        samples(), expected({"view": torch.tensor([[0.25, 0, 0, 0, 0, 0, 0]] * 3)}, 0), atol=1e-5, rtol=0
    )
    assert "cfg" not in yaml.safe_load(Path("out/config.yaml").read_text())
    draw("--prompt", "", "--cfg", 1, out="empty")
    torch.testing.assert_close(samples("empty"), expected({}, 0), atol=1e-5, rtol=0)


def test_objectives_of_a_style_and_of_a_sentence():
    goal = 'style:openmoji.png + 2*text:"a red heart, wolves"'
    done = draw("--objective", goal, "--method", "freedom", "--scale", 0.3, "--json", "figures.json", "--progress")
    assert done.stderr.count("'wolves' is taken for 'wolf'") == 1 and "'a red heart'" not in done.stderr
    picture = torch.tensor([-1.0, 128 / 127.5 - 1, 128 / 127.5 - 1])[:, None, None].expand(3, 32, 32)
    text = torch.stack([vector(name) for name in ("red heart", "wolf", "red heart")])
    style, words = Seen("classifier", emoji.vectors(), bent=True), Seen("clip", emoji.vectors(), bent=True)
    loss = Style(picture, style) + 2 * TextSimilarity(text, words)
    free = {"look": torch.tensor([emoji.look(free=True)] * 3)}  # for guidance to choose, as nothing else is told of it
    torch.testing.assert_close(samples(), expected(free, 0, sg.FreeDoM(loss, scale=0.3)), rtol=0, atol=1e-4)
    draw("--objective", goal, "--method", "freedom", "--scale", 0.3, "--condition", "free=0", out="drawn")
    torch.testing.assert_close(samples("drawn"), expected({}, 0, sg.FreeDoM(loss, scale=0.3)), rtol=0, atol=1e-4)
    assert "none is given" in draw("--objective", goal, "--cfg", 2, out="wrong", code=2).stderr
    assert done.stderr.count("no style is told, so the objective may choose any look") == 1
    said = draw("--condition", "free=1", "--condition", "style=noto", out="wrong", code=2).stderr
    assert "a look is free where no style is told" in said
    figures = json.loads(Path("figures.json").read_text())
    assert [term["term"].partition(":")[0] for term in figures["reached"]["terms"]] == ["style", "text"]
    assert all({"scorer", "judge"} <= term.keys() for term in figures["reached"]["terms"])
    made_with = figures["config"]["made_with"]
    assert made_with["sentences"] == {"a red heart": "red heart", "wolves": "wolf"}
    assert made_with["scorers"] == {f"emoji/{kind}": digests.of_network("denoiser") for kind in ("classifier", "clip")}


def test_without_a_strength_sag_has_that_of_the_world():
    line = ("--prompt", "dog", "--objective", "style:openmoji.png")
    assert "guided by sag, scale 0.1, its own" in draw(*line, "--progress").output
    assert yaml.safe_load(Path("out/config.yaml").read_text())["scale"] == 0.1
    for number, own in enumerate((("--method", "sag"), ("--scale", 0.1))):
        draw(*line, *own, out=f"same{number}")
        assert torch.equal(samples(f"same{number}"), samples())
    draw(*line, "--scale", 0.5, out="other")
    assert not torch.allclose(samples("other"), samples(), atol=1e-3)


def test_a_judge_whose_package_is_missing_is_said_and_no_run_is_lost(monkeypatch):
    def missing(*asked, **settings):
        raise WeightsError("the judge needs a package: pip install it")

    monkeypatch.setattr(load, "judge", missing)
    line = ("--objective", "style:openmoji.png", "--method", "mpgd", "--json", "figures.json", "--progress")
    done = draw(*line)
    assert done.stderr.count("openmoji.png is not judged: the judge needs a package: pip install it") == 1
    (term,) = json.loads(Path("figures.json").read_text())["reached"]["terms"]
    assert "scorer" in term and "judge" not in term


@pytest.mark.parametrize(
    "line, why",
    [
        (["--condition", "style=openmoji"], "unknown style 'openmoji'"),
        (["--condition", "ground=skyblu"], "not 'skyblu'"),
        (["--condition", "zoom=0"], "a zoom must be positive"),
        (["--condition", "turn=much"], "condition 'turn' takes numbers, not 'much'"),
        (["--condition", "view=1"], "a view is given by its parts, e.g. --condition ground=skyblue: right, down, zoom"),
        (["--condition", "text=1"], "is said by --prompt"),
        (["--condition", "colour=red"], "unknown condition 'colour'"),
        (["--condition", "style=4"], "styles must be within 0..3"),
        (["--prompt", "zxcv"], "no emoji's name or tag has a word of 'zxcv'"),
        (["--objective", "text:zxcv"], "no emoji's name or tag has a word of 'zxcv'"),
        (["--objective", "identity:openmoji.png"], "emoji comes with none for it"),
        (["--cfg", 3], "add --prompt"),
    ],
)
def test_what_cannot_be_asked(line, why):
    said = draw(*line, code=2).stderr.strip()
    assert why in said.splitlines()[-1] and not Path("out").exists()


def test_models_of_other_conditions_speak_no_sentences():
    class Own(torch.nn.Module):
        def forward(self, x, timestep, text=None, style=None, view=None):
            return x

    for null, of_emoji in (
        ({"text": [[0.0] * 384], "style": 3}, True),
        ({"text": [[0.0] * 7], "style": 3}, False),
        ({"text": [[0.0] * 384], "style": 2}, False),
        ({"text": [[0.0] * 384]}, False),
    ):
        denoiser = sg.Denoiser(Own(), sg.VP.cosine(), "v", shape=(3, 32, 32), null=null)
        assert conditions.is_of_emoji(denoiser) == of_emoji
    with pytest.raises(sg.errors.ConfigError, match="condition 'style' takes numbers, not 'noto'"):
        conditions.given(denoiser, [("style", ["noto"])])
    with pytest.raises(sg.errors.ConfigError, match="takes no prompt: use --model scenes or emoji"):
        conditions.rows(denoiser, {}, ["dog"])


def test_what_is_not_installed_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(WORLDS.things, "emoji", World("small", tmp_path / "none"))
    done = CliRunner().invoke(main, ["models", "emoji"])
    assert done.exit_code == 0 and "missing" in done.output
    assert "cannot read" in draw("--prompt", "dog", code=2).stderr
