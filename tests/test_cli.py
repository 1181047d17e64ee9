"""The command line: help, errors as sentences, and runs that repeat, continue, and leave nothing half-written."""

import contextlib
import errno
import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from conftest import RUNNER
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import symguide as sg
from symguide import files
from symguide import files as disk
from symguide.cli import COMMANDS, config, main, methods, settings
from symguide.cli import run as runs
from symguide.cli.command import flag
from symguide.cli.request import request
from symguide.errors import ConfigError
from symguide.loss_guidance import RECIPES
from symguide.networks import CaptionUNet, ConvClassifier, PyramidSegmenter, TokenClassifier, TwinEncoder, UNet, save
from symguide.objectives import OBJECTIVES
from symguide.particle_guidance import METHODS
from symguide.prediction_guidance import RULES
from symguide.solver import GRIDS, PRESETS, SOLVERS
from symguide.specs import grammar, references, steering
from symguide.store import outputs
from symguide.trajectory import TRAJECTORIES
from symguide.worlds import WORLDS, World, digits, load, scenes

READY = [name for name in COMMANDS if name != "demo" or importlib.util.find_spec("symguide.cli.demo")]
OWN = """
import torch
import symguide as sg
from symguide import files as disk

def ink(x0):
    return [float(x.mean()) for x in x0]

def smooth(x0):
    return x0.diff(dim=-1).square().flatten(1).sum(1)

class Bright(sg.objectives.Objective):
    def __call__(self, x0):
        return -x0.flatten(1).mean(1)

class Needs:
    def __init__(self, weight):
        self.weight = weight

def factory():
    return Bright()

def wrong():
    return 3

def breaks(x0):
    raise RuntimeError("out of ink")

number = 7
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model folder with a small U-Net, whose last layers are not zero."""
    network = filled(UNet(1, (4, 8), classes=10, attention=(False, False), heads=2, groups=2))
    folder = tmp_path_factory.mktemp("models") / "tiny"
    sg.save(sg.Denoiser(network, sg.VP.cosine(), "v", shape=(1, 8, 8), null={"label": 10}), folder)
    return folder


def filled(network, seed=0):
    """No weight at zero, float32."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
    return network


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The scenes world with small networks: a text-to-image model, scorers, and a judge of classes and of styles."""
    folder = tmp_path_factory.mktemp("scenes")
    network = CaptionUNet(3, 2, (8, 8), 1, (False, True), 2, 4, words=len(scenes.VOCABULARY), width=8, depth=1)
    null = {"caption": [[0] * scenes.LENGTH]}
    sg.save(sg.Denoiser(filled(network), sg.VP.cosine(), "v", shape=(3, 32, 32), null=null), folder / "denoiser")
    heads = {"shape": 6, "colour": 8, "count": 2, "paints": 8}
    small = {"in_channels": 3, "size": 32, "channels": (4, 8), "width": 8, "groups": 2}
    scorers = {
        "classifier": ConvClassifier(**small, heads=heads),
        "clip": TwinEncoder("ConvClassifier", small | {"classes": 6}, "Reader", {"width": 8, "depth": 1, "heads": 2}),
        "identity": ConvClassifier(**small, classes=6),
        "aesthetic": ConvClassifier(**small, classes=1),
        "segmenter": PyramidSegmenter(3, (8,), 7),
    }
    for seed, (kind, network) in enumerate(scorers.items()):
        save(filled(network, seed), folder / kind)
    save(filled(ConvClassifier(**small, heads=heads), 9), folder / "judge")
    save(filled(TokenClassifier(3, 32, 8, 8, 1, 2, 6), 9), folder / "blind")
    judges = {"classifier": folder / "judge", "identity": folder / "blind", "clip": folder / "left out"}
    return World("drawn", folder / "denoiser", {kind: folder / kind for kind in scorers}, judges)


@pytest.fixture
def scene_model(drawn, monkeypatch):
    """That world as "scenes"."""
    monkeypatch.setitem(WORLDS.things, "scenes", drawn)
    pixels = (np.arange(32 * 32 * 3) * 7 % 256).astype(np.uint8).reshape(32, 32, 3)
    Image.fromarray(pixels).save("ref.png")
    return "scenes"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Every test in a folder of its own, which holds the module own_rules."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "own_rules", raising=False)
    (tmp_path / "own_rules.py").write_text(OWN)
    return tmp_path


@pytest.fixture
def world(model, monkeypatch):
    """The digits world with the small model as its denoiser."""
    scorers, judges = {"classifier": digits.SCORER}, {"classifier": digits.JUDGE}
    monkeypatch.setitem(WORLDS.things, "digits", World("small", model, scorers, judges))


def run(*arguments, code=0):
    result = RUNNER.invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    assert "Traceback" not in result.output
    return result


def draw(model, *arguments, out="out", code=0):
    """A small run: five samples in batches of two."""
    plain = ("--num", 5, "--batch", 2, "--steps", 3, "--quiet", "--format", "safetensors", "--no-grid-png")
    return run("sample", "--model", model, "--out", out, *plain, *arguments, code=code)


def asked(*words):
    """What a command line asks for."""
    command = main.get_command(click.Context(main), "sample")
    with command.make_context("sample", [str(word) for word in words]) as ctx:
        return request(ctx.params["words"], settings.SAMPLE)


def sentence(result):
    """The one sentence of an error."""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    return lines[0]


def samples(out="out"):
    return safetensors.torch.load_file(Path(out) / "samples.safetensors")["samples"]


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


# Help and listings


def test_help_of_the_group():
    text = run("--help").output
    assert all(name in text for name in COMMANDS) and "Examples:" in text and "130" in text
    assert run("--version").output == f"symguide {sg.__version__}\n"


@pytest.mark.parametrize("name", READY)
def test_help_of_every_command(name):
    text = run(name, "--help").output
    assert "Examples" in text and text.count("symguide " + name) >= 3
    assert "json" in text or name == "bench"


@pytest.mark.parametrize("name", ["sample", "tune"])
def test_few_options_and_all_settings_are_in_the_help(name):
    command = main.get_command(click.Context(main), name)
    assert len([option for option in command.params if option.name != "set"]) <= 15
    assert len(command.options) <= 15 < len(command.table)
    text = run(name, "--help").output
    for setting in command.table:
        assert re.search(
            rf"^  (--)?{flag(setting)[2:] if setting in (*command.options, 'set') else setting}\b", text, re.M
        )
    assert text.index("Samples:") < text.index("Sampler:") < text.index("Guidance:") < text.index("Examples:")


def test_what_can_be_named_is_listed():
    text = run("methods").output
    for name in [*SOLVERS, *GRIDS, *RECIPES, *RULES, *METHODS, *TRAJECTORIES]:
        assert name in text


def test_help_imports_no_torch():
    code = f"""
import sys
from symguide.cli import main
for line in ("--help", *(f"{{name}} --help" for name in {READY})):
    try:
        main(line.split())
    except SystemExit as end:
        assert not end.code
assert "torch" not in sys.modules and "numpy" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command, registered", [("methods", [*RECIPES, *RULES, *METHODS, *TRAJECTORIES]), ("objectives", OBJECTIVES)]
)
def test_listings_have_a_row_for_all_that_is_registered(command, registered):
    rows = json.loads(run(command, "--json", "-").output)
    assert [row["name"] for row in rows] == list(registered)
    text = run(command, "--json", "rows.json").output
    assert json.loads(Path("rows.json").read_text()) == rows
    assert all(name in text for name in registered)
    for name in registered:
        assert len(run(command, name).output) > 100


def test_objectives_say_which_network_they_ask():
    rows = {row["name"]: row for row in json.loads(run("objectives", "--json", "-").output)}
    assert rows["style"]["asks"] == "the classifier of the model's world, or a CLIP given by --encoder"
    assert rows["depth"]["asks"] == "a DepthEstimator given by --encoder" and rows["palette"]["asks"] == ""


def test_methods_show_parameters_cost_and_docs():
    rows = {row["name"]: row for row in json.loads(run("methods", "--json", "-").output)}
    assert rows["sag"]["parameters"]["n"] == 2 and rows["sag"]["kind"] == "loss guidance"
    assert "Range(low=1, high=8" in rows["sag"]["ranges"]["n"] and "2312.12030" in rows["sag"]["source"]
    assert rows["sag"]["types"]["window"].startswith("2 values with commas between (a finite number, a finite")
    assert "2n - 1" in rows["sag"]["cost"] and rows["cfg"]["parameters"]["scale"] == 3.0
    assert "n" not in rows["freedom"]["parameters"] and "window" in rows["freedom"]["parameters"]
    assert "Symplectic Adjoint" in run("methods", "sag").output
    assert all(row["about"] and row["cost"] for row in rows.values())


def test_models(world, model):
    assert "digits" in run("models").output
    rows = json.loads(run("models", "--json", "-").output)
    assert [row["name"] for row in rows] == list(WORLDS)
    row = rows[0]
    assert row["scorers"] == "classifier" and row["folder"] == str(model) and row["weights"].endswith("MB")
    (model / "README.md").write_text("# the card")
    assert "# the card" in run("models", "digits").output


@pytest.mark.parametrize(
    "line, hint",
    [
        ("sampel", "'sample'"),
        ("methods sga", "'sag'"),
        ("objectives clasifier", "'classifier'"),
        ("models digit", "'digits'"),
        ("sample --model digit", "'digits'"),
        ("sample --solver dpm_2m", "'dpmpp_2m'"),
        ("sample --grid karas", "'karras'"),
        ("sample --stpes 3", "--steps"),
        ("sample --config run.yaml", "did you mean 'steps'"),
        ("sample --objective clasifier:3 --model {model}", "'classifier'"),
        ("sample --objective own_rules:smoth --model {model}", "'smooth'"),
        ("sample --method sagg --objective own_rules:smooth", "'sag'"),
        ("sample --condition labl=3 --model {model}", "'label'"),
    ],
)
def test_unknown_names_come_with_suggestions(line, hint, model):
    Path("run.yaml").write_text("stepz: 3\n")
    assert hint in sentence(run(*line.format(model=model).split(), code=2))
    assert not Path("out").exists()


# The grammar of objectives

parts = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1)
terms = st.builds(
    grammar.Term,
    st.floats(allow_nan=False, allow_infinity=False),
    st.from_regex(r"[a-z_][a-z0-9_.]{0,6}", fullmatch=True),
    st.lists(parts, max_size=3).map(tuple),
)


@given(st.lists(terms, min_size=1, max_size=4))
def test_what_is_shown_is_read_back(some):
    assert grammar.parse(grammar.show(some)) == some


@given(st.text())
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(ConfigError):
        grammar.parse(text)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("classifier:3", [(1.0, "classifier", ("3",))]),
        ("2*a:b+c:d", [(2.0, "a", ("b",)), (1.0, "c", ("d",))]),
        ("1e+1*a:b", [(10.0, "a", ("b",))]),
        (" -.5 * region : a b.png @ left ", [(-0.5, "region", ("a b.png", "left"))]),
        ('region:"x+y.png"@"a@b"', [(1.0, "region", ("x+y.png", "a@b"))]),
        ('text:"a red star"+0.5*aesthetic', [(1.0, "text", ("a red star",)), (0.5, "aesthetic", ())]),
        ("palette:#ff0000,#0000ff", [(1.0, "palette", ("#ff0000,#0000ff",))]),
        ("classifier:shape=star", [(1.0, "classifier", ("shape=star",))]),
        (r"region:C:\pictures\a.png@left", [(1.0, "region", (r"C:\pictures\a.png", "left"))]),
    ],
)
def test_specs(text, expected):
    assert grammar.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "classifier:", "a b", "a @b", "a:b +", "+", "2*", "*a:b", 'a:"b', 'a:"b"c', "a:b@"]
)
def test_bad_specs(text):
    with pytest.raises(ConfigError, match="expected"):
        grammar.parse(text)


def aim(text, model="tiny", shape=(1, 8, 8), indices=range(2), **settings):
    return steering.Steering(text, model, shape, **settings).at(indices)


def test_objectives_of_your_own():
    x = torch.rand(2, 1, 8, 8)
    bright = -x.flatten(1).mean(1)
    for text in ("own_rules:Bright", "own_rules:factory"):
        assert torch.equal(aim(text)(x), bright)
    smooth = aim("own_rules:smooth")(x)
    assert torch.allclose(aim("0.5*own_rules:smooth + -2*own_rules:Bright")(x), 0.5 * smooth - 2 * bright)
    assert torch.allclose(aim("own_rules:ink", black_box=True)(x), -bright)
    assert not aim("blackbox:own_rules:smooth").differentiable


@pytest.mark.parametrize(
    "text, why",
    [
        ("own_rules:Needs", "needs weight"),
        ("own_rules:number", "is int"),
        ("own_rules:wrong", "gave int"),
        ("no_such_module:Rule", "no module"),
        ("measurement:x", "operator"),
        ("classifier:3", "tiny comes with none for it: write a function"),
        ("blackbox:ink", "module:Name"),
        ("region:a.png", "PICTURE@MASK"),
        ("region:a.png@left", "No such file"),
        ("own_rules:a@b", "module:Name"),
        ("own_rules", "unknown objective"),
        ("classifier", "classifier:LABELS or"),
        ("asthetic", "did you mean 'aesthetic'"),
        ("aesthetic", "give a CLIP with --encoder"),
        ("style:a.png", "objectives.Style"),
        ("text:a red star", "objectives.TextSimilarity"),
        ("palette:#ff0000", "RGB samples"),
        ("palette:#ff0000@3", "colours already"),
        ("palette:a.png@x", "positive whole number"),
        ("superres:a.png@3", "no whole blocks of 3"),
        ("superres:a.png@0", "positive whole number"),
        ("deblur:a.png@-1", "positive number of pixels"),
        ("deblur:a.png@inf", "positive number of pixels"),
        ("motion:own_rules.py@flow.png", "not a picture"),
    ],
)
def test_objectives_that_cannot_be_made(text, why):
    with pytest.raises(ConfigError, match=why):
        aim(text)


@pytest.mark.parametrize("text, why", [("classifier:x", "comma list"), ("classifier:-1", "negative")])
def test_labels_that_are_none(text, why, world):
    with pytest.raises(ConfigError, match=why):
        aim(text, "digits")


def test_labels_belong_to_the_index(world):
    x = torch.rand(6, 1, 8, 8)
    steer = steering.Steering("classifier:0,1,2,3", "digits", (1, 8, 8))
    whole = steer.at(range(6))(x)
    assert torch.allclose(whole[4:], steer.at(range(4, 6))(x[4:]))
    assert torch.allclose(whole[4:5], sg.objectives.Classifier(sg.worlds.digits.scorer(), 0)(x[4:5]))


def test_references_of_all_kinds():
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    sample = torch.from_numpy(pixels / 127.5 - 1)[None]
    Image.fromarray(pixels).save("a.png")
    np.save("a.npy", pixels)
    np.savez("a.npz", anything=sample.numpy())
    safetensors.torch.save_file({"x": sample[None].float()}, "a.safetensors")
    for name in ("a.png", "a.npy", "a.npz", "a.safetensors"):
        assert torch.allclose(references.reference(name, (1, 8, 8), print), sample, atol=1e-6), name
    colour = references.reference("a.png", (3, 8, 8), print)
    assert colour.shape == (3, 8, 8) and torch.allclose(colour[1:2], sample)
    np.save("flat.npy", np.array([0.5, 3.0]))
    assert references.reference("flat.npy", (2,), print).tolist() == [0.5, 3.0]


def test_references_that_do_not_fit():
    Image.new("L", (4, 6)).save("small.png")
    Path("text.png").write_text("no picture")
    Path("text.npz").write_text("no array")
    np.save("wild.npy", np.full((8, 8), 7.0))
    np.save("nan.npy", np.full((8, 8), np.nan))
    np.savez("two.npz", a=np.zeros(2), b=np.zeros(2))
    cases = [
        ("small.png", (1, 8, 8), "4x6 pixels"),
        ("text.png", (1, 8, 8), "not a picture"),
        ("text.npz", (1, 8, 8), "no array file"),
        ("wild.npy", (1, 8, 8), "between -1 and 1"),
        ("nan.npy", (1, 8, 8), "not finite"),
        ("two.npz", (2,), "holds 2: a, b"),
        ("small.png", (2,), "cannot stand for"),
        ("wild.npy", (2,), "has shape"),
    ]
    for name, shape, why in cases:
        with pytest.raises(ConfigError, match=why):
            references.reference(name, shape, print)


def test_masks():
    for name, kept in {"left": 32, "right": 32, "top": 32, "bottom": 32, "center": 16}.items():
        assert references.mask(name, (1, 8, 8), print).sum() == kept
    pixels = np.zeros((8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save("none.png")
    pixels[0, 0] = 255
    Image.fromarray(pixels).save("one.png")
    np.save("one.npy", pixels)
    for name in ("one.png", "one.npy"):
        mask = references.mask(name, (3, 8, 8), print)
        assert mask.shape == (1, 8, 8) and mask.sum() == 1
    with pytest.raises(ConfigError, match="selects nothing"):
        references.mask("none.png", (1, 8, 8), print)
    with pytest.raises(ConfigError, match="rows and columns"):
        references.mask("left", (4,), print)


# Objectives with embedded networks, and the rest of what ships


def shown(name="ref.png"):
    return references.reference(name, (3, 32, 32), print)


def embedded(kind):
    return load.scorer("scenes", kind)


def flow():
    np.save("flow.npy", np.ones((2, 32, 32)))
    return sg.objectives.MotionField(shown(), torch.ones(2, 32, 32))


def pixels():
    array = np.arange(32 * 32, dtype=np.uint8).reshape(32, 32) % 7
    Image.fromarray(array).save("mask.png")
    return scenes.objective("segmentation", torch.from_numpy(array).long())


def lines():
    Image.fromarray(np.eye(32, dtype=np.uint8) * 255).save("lines.png")
    return sg.objectives.Edges(torch.eye(32))


def low():
    Image.open("ref.png").resize((8, 8)).save("low.png")
    return sg.objectives.Measurement(sg.objectives.Downsample(4), references.reference("low.png", (3, 8, 8), print))


SPECS = {
    "classifier:shape=star,disk": lambda: sg.objectives.Classifier(embedded("classifier"), [4, 0], "shape"),
    "classifier:count=2": lambda: sg.objectives.Classifier(embedded("classifier"), 1, "count"),
    "classifier:colour=3": lambda: sg.objectives.Classifier(embedded("classifier"), 3, "colour"),
    'text:"a red star"': lambda: scenes.objective("text", "a red star"),
    "text:a red star, a blue disk": lambda: scenes.objective("text", ["a red star", "a blue disk"]),
    "image:ref.png": lambda: scenes.objective("image", shown()),
    "identity:ref.png": lambda: scenes.objective("identity", shown()),
    "style:ref.png": lambda: scenes.objective("style", shown()),
    "0.5*aesthetic": lambda: 0.5 * scenes.objective("aesthetic"),
    "segmentation:mask.png": pixels,
    "palette:#ff0000,#0000FF": lambda: sg.objectives.Palette(torch.tensor([[1.0, -1, -1], [-1, -1, 1]])),
    "palette:ref.png@3": lambda: sg.objectives.Palette.of(shown(), 3),
    "edges:lines.png": lines,
    "motion:ref.png@flow.npy": flow,
    "superres:low.png@4": low,
    "deblur:ref.png@1.5": lambda: sg.objectives.Measurement(sg.objectives.GaussianBlur(1.5), shown()),
}


@pytest.mark.parametrize("text", SPECS)
def test_what_is_typed_is_the_objective_of_that_name(text, scene_model, tmp_path, monkeypatch):
    """Also in another folder, by its full paths; other models with such samples get no scorer of the world."""
    x0 = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    expected = SPECS[text]()(x0)
    full = steering.resolved(text)
    assert steering.resolved(full) == full
    monkeypatch.chdir("/")
    steer = steering.Steering(full, "scenes", (3, 32, 32))
    torch.testing.assert_close(steer.at(range(2))(x0), expected)
    torch.testing.assert_close(steer.at(range(1, 3))(x0)[1:], steer.at([2])(x0[1:]))
    if steer.scored:
        with pytest.raises(ConfigError, match=r"asks a network that knows the samples, and .* comes with none"):
            aim(full, str(tmp_path), (3, 32, 32))
    else:
        torch.testing.assert_close(aim(full, str(tmp_path), (3, 32, 32))(x0), expected)
    assert [str(path) for path in steering.files(full)] == [
        str(tmp_path / name) for name in re.findall(r"\w+\.(?:png|npy)", text)
    ]


@pytest.mark.parametrize(
    "text, why",
    [
        ("classifier:3", "shape, colour, texture"),
        ("classifier:shpae=star", "did you mean 'shape'"),
        ("classifier:shape=stra", "did you mean 'star'"),
        ("classifier:shape=7", "0 to 5"),
        ("classifier:paints=1", "unknown attribute"),
        ("classifier:texture=plain", "unknown head"),
        ("text:a mauve star", "'mauve'"),
        ("aesthetic:ref.png", "must be aesthetic"),
        ("segmentation:ref.png", "8-bit grey or indexed"),
        ("segmentation:small.png", "4x6 pixels"),
        ("segmentation:real.npy", "whole numbers"),
        ("region:small.png@left", "4x6 pixels"),
        ("edges:small.png", "4x6 pixels"),
        ("motion:ref.png@ref.png", "a flow is an array"),
        ("palette:white.png", "1 different colours"),
    ],
)
def test_objectives_of_scenes_that_cannot_be_made(text, why, scene_model):
    Image.new("L", (4, 6)).save("small.png")
    Image.new("RGB", (32, 32), "white").save("white.png")
    np.save("real.npy", np.zeros((32, 32)))
    with pytest.raises(ConfigError, match=why):
        x0 = torch.zeros(2, 3, 32, 32)
        aim(text, "scenes", (3, 32, 32))(x0)


def test_pictures_of_another_size_are_resized_and_that_is_said(scene_model):
    wide = Image.new("RGB", (200, 100), "red")
    wide.paste("blue", (30, 0, 170, 100))
    wide.save("wide.png")
    said = []
    steer = steering.Steering("style:wide.png + identity:ref.png", "scenes", (3, 32, 32), say=said.append)
    assert said == ["wide.png has 200x100 pixels: its middle is resized to 32x32"]
    blue = torch.tensor([-1.0, -1, 1])[:, None, None].expand(3, 32, 32)
    style = scenes.objective("style", blue) + scenes.objective("identity", shown())
    x0 = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(steer.at(range(2))(x0), style(x0))


def test_masks_of_classes():
    array = np.array([[0, 1], [6, 255]], dtype=np.uint8)
    Image.fromarray(array).save("grey.png")
    indexed = Image.fromarray(array)
    indexed.putpalette([7] * 768)
    indexed.save("indexed.png")
    np.save("whole.npy", array.astype(np.int64) % 255 - (array == 255))
    np.save("bytes.npy", array)
    for name in ("grey.png", "indexed.png", "whole.npy", "bytes.npy"):
        assert references.classes(name, (3, 2, 2), print).tolist() == [[0, 1], [6, -1]]
    Image.fromarray(array > 0).save("bits.png")
    assert references.classes("bits.png", (3, 2, 2), print).tolist() == [[0, 1], [1, 1]]


def test_lines_may_be_dark_on_bright():
    said, drawn_lines = [], np.eye(8, dtype=np.uint8) * 255
    Image.fromarray(drawn_lines).save("chalk.png")
    Image.fromarray(255 - drawn_lines).save("ink.png")
    chalk, ink = (references.sketch(name, (3, 8, 8), said.append) for name in ("chalk.png", "ink.png"))
    assert torch.equal(chalk, torch.eye(8)) and torch.equal(ink, chalk)
    assert said == ["ink.png is mostly bright: its dark parts are taken as the lines"]


def test_guided_run_with_embedded_networks(scene_model):
    text = 'classifier:shape=star + 2*style:ref.png + identity:ref.png + text:"a red star"'
    done = draw("scenes", "--objective", text, "--method", "mpgd", "--json", "figures.json", "--progress")
    figures = json.loads(Path("figures.json").read_text())
    terms = {entry["term"].partition(":")[0]: entry for entry in figures["reached"]["terms"]}
    assert list(terms) == ["classifier", "style", "identity", "text"]
    assert all("judge" in terms[name] for name in ("classifier", "style", "identity")) and "judge" not in terms["text"]
    assert "hits" in terms["classifier"]["judge"] and "hits" not in terms["style"]["scorer"]
    losses = [terms[name]["scorer"]["loss"] for name in terms]
    assert figures["reached"]["loss"] == pytest.approx(sum(losses) + losses[1], rel=1e-4)
    assert "shape=star by the judge, which guidance never sees" in done.stdout and "% hit" in done.stdout


def test_a_judge_that_cannot_be_asked_is_left_out(world):
    """The digits' judge has no feature maps for a style."""
    Image.new("L", (8, 8), 200).save("a.png")
    figures = json.loads(draw("digits", "--objective", "style:a.png", "--method", "mpgd", "--json", "-").output)
    assert list(figures["reached"]["terms"][0]) == ["term", "scorer"]


# Prompts


def test_prompts_are_captions(scene_model):
    prompts = ["a red star on blue stripes", "a green disk"]
    draw("scenes", "--prompt", prompts[0], "--prompt", prompts[1], "--cfg", 2, "--num", 3)
    expected = sg.sample(
        sg.load("scenes", dtype=torch.float32),
        indices=range(2),
        steps=3,
        condition={"caption": scenes.tokens(prompts)},
        prediction=sg.CFG(2.0),
        dtype=torch.float32,
    )
    assert torch.equal(samples()[:2], expected.samples)
    assert yaml.safe_load(Path("out/config.yaml").read_text())["prompt"] == prompts
    run("sample", "--config", "out/config.yaml", "--out", "again", "--quiet")
    assert torch.equal(samples(), samples("again"))
    said = sentence(draw("scenes", "--prompt", "a red star", "--cfg", 2, "--num", 3, code=2))
    assert "prompt (" in said


def test_a_prompt_is_followed_by_guidance_unless_told_otherwise(scene_model):
    prompt = ("--prompt", "a red star", "--num", 1)
    draw("scenes", *prompt)
    assert yaml.safe_load(Path("out/config.yaml").read_text())["cfg"] == 5.0
    draw("scenes", *prompt, "--cfg", 5, out="five")
    draw("scenes", *prompt, "--rule", "cfg++", out="++")
    assert yaml.safe_load(Path("++/config.yaml").read_text())["cfg"] == 0.6
    assert not torch.equal(samples("++"), samples("five"))
    draw("scenes", *prompt, "--cfg", 1, out="one")
    assert torch.equal(samples(), samples("five")) and not torch.equal(samples(), samples("one"))


def test_one_scale_in_python_and_on_the_command_line(model):
    """A recipe's own scale whatever the model, and the run says which one it took."""
    for world in ("scenes", "scenes-flow", "digits"):
        for name, recipe in RECIPES.items():
            (made,) = asked("--model", world, "--objective", "aesthetic", "--method", name).methods()
            assert made.settings.get("scale", 1.0) == recipe(lambda x0: x0).scale
    assert asked("--objective", "aesthetic", "--scale", 0.7).methods()[0].settings["scale"] == 0.7
    line = (model, "--objective", "own_rules:smooth", "--num", 1, "--progress")
    assert "guided by sag, scale 0.5, its own (see --scale)" in draw(*line, out="a").stdout
    assert "guided by dsg, rate 0.1, its own (see --rate)" in draw(*line, "--method", "dsg", out="b").stdout
    said = draw(*line, "--scale", 0.5, out="c").stdout
    assert "guided by sag\n" in said and torch.equal(samples("a"), samples("c"))


def test_a_prompt_and_an_objective(scene_model):
    Path("run.yaml").write_text("model: scenes\nprompt: a red star\nsteps: 2\nnum: 1\n")
    line = ["--config", "run.yaml", "--objective", "style:ref.png", "--method", "sag", "--n", 2, "--quiet"]
    run("sample", *line)
    assert names("out") == ["config.yaml", "grid.png", "samples", "shards"]


@pytest.mark.parametrize(
    "line, why",
    [
        ("--prompt 'a mauve star'", "'mauve'"),
        ("--prompt 'a red star' --condition caption=1", "leave out --condition caption"),
        ("--cfg 3", "add --prompt"),
        ("--model {model} --prompt 'a red star'", "takes no prompt"),
        ("--model other --prompt 'a red star'", "another"),
    ],
)
def test_prompts_that_cannot_be_used(line, why, scene_model, model):
    network = CaptionUNet(3, 2, (8, 8), 1, (False, True), 2, 4, words=9, length=4, width=8, depth=1)
    null = {"caption": [[0] * 4]}
    sg.save(sg.Denoiser(network, sg.VP.cosine(), "v", shape=(3, 32, 32), null=null), "other")
    assert why in sentence(draw("scenes", *shlex.split(line.format(model=model)), code=2))


# Options that go together


@pytest.mark.parametrize("name", RECIPES)
def test_every_method_takes_what_it_says(name):
    made = methods.whole(name, {})
    recipe = made.make(lambda x0: x0.sum(1))
    assert isinstance(recipe, RECIPES[name]) and recipe.window == (0.0, 1.0)
    assert ("rate" in made.settings) == (name == "dsg")
    assert config.matters({**methods.record([made]), "made_with": {}})  # JSON-able


@pytest.mark.parametrize(
    "line, why",
    [
        ("--method freedom --n 3 --objective own_rules:smooth", "freedom does not take --n, which belongs to .*sag"),
        ("--method dsg --scale 1 --objective own_rules:smooth", "dsg does not take --scale"),
        ("--method mpgd --jacobian first --objective own_rules:smooth", "mpgd does not take --jacobian"),
        ("--method doodl --objective own_rules:smooth", "call sg.optimise"),
        ("--method sag --method dps --objective own_rules:smooth", "sag and dps are both loss guidance"),
        ("--method cfg --objective own_rules:smooth", "add --prompt"),
        ("--rule cfg++ --cfg 5 --condition label=3", "between 0 and 1"),
        ("--rule apg", "add --prompt"),
        ("--method best_of_n", "--method best_of_n needs something to steer toward"),
        ("--method sag", "give --objective"),
        ("--best-of 3", "give --objective"),
        ("--n 3", "must go with a method"),
        ("--n 3 --best-of 2 --objective own_rules:ink", "must go with a method"),
        ("--objective blackbox:own_rules:ink", "black box"),
        ("--cfg 3", "give.*--condition"),
        ("--condition label=x", "condition 'label' takes numbers, not 'x'"),
        ("--condition label=1,,2", "takes name=VALUE or name=VALUE,VALUE, not 'label=1,,2'"),
        ("--condition label", "takes name=VALUE"),
        ("--condition label=1 --condition label=2", "twice"),
        ("--eta 2", "eta"),
        ("--eta nan", "a finite number from 0 to 1, not 'nan'"),
        ("--steps 0", "steps"),
        ("--memory much --objective own_rules:smooth", "auto:2GB"),
        ("--window 0.5 0.2 --objective own_rules:smooth", "start < stop"),
        ("--device nonsense", "is no device"),
        ("--device cuda:99", "cannot be used here"),
        ("--objective own_rules:smooth --sphere 0.1 --eta 0", "eta=1"),
        ("--restart 2 1 1", "low < high"),
        ("--restart 1e8 1e9 1", "no step of 3 lies between"),
        ("--restart 1 2 0", "restart"),
    ],
)
def test_options_that_do_not_go_together(line, why, model):
    assert re.search(why, sentence(draw(model, *line.split(), code=2)))
    assert not Path("out").exists()


def test_errors_of_your_own_code_are_a_sentence(model):
    result = draw(model, "--objective", "own_rules:breaks", code=1)
    assert "out of ink" in sentence(result) and "--debug" in result.stderr
    again = RUNNER.invoke(main, ["sample", "--model", str(model), "--objective", "own_rules:breaks", "--debug"])
    assert isinstance(again.exception, RuntimeError) and "out of ink" in str(again.exception)


# Runs


def test_unguided_samples_are_those_of_sample(model):
    draw(model, "--seed", 3, "--condition", "label=0,1,2", "--cfg", 2)
    expected = sg.sample(
        sg.load(model, dtype=torch.float32),
        indices=range(2, 4),
        steps=3,
        seed=3,
        condition={"label": [2, 0]},
        prediction=sg.CFG(2.0),
        dtype=torch.float32,
    )
    assert torch.equal(samples()[2:4], expected.samples)


@pytest.mark.parametrize("form", ["png", "npz", "safetensors"])
def test_formats(model, form):
    run("sample", "--model", model, "--num", 5, "--batch", 2, "--steps", 2, "--format", form)
    raw = torch.cat([safetensors.torch.load_file(p)["samples"] for p in sorted(Path("out/shards").iterdir())])
    assert raw.shape == (5, 1, 8, 8) and raw.dtype == torch.float32
    Image.open("out/grid.png").verify()
    assert Image.open("out/grid.png").size == (3 * 66 + 2, 2 * 66 + 2)
    if form == "png":
        assert names("out/samples") == [f"{i:06d}.png" for i in range(5)]
        pixels = np.asarray(Image.open("out/samples/000004.png"))
        assert np.array_equal(pixels, ((raw[4, 0].clamp(-1, 1) + 1) * 127.5).round().numpy().astype(np.uint8))
    elif form == "npz":
        assert np.array_equal(np.load("out/samples.npz")["samples"], raw.numpy())
    else:
        assert torch.equal(samples(), raw)
    assert not [path for path in Path("out").rglob("*.tmp")]


def test_half_precision(model):
    draw(model, "--dtype", "bfloat16")
    assert samples().dtype == torch.bfloat16
    draw(model, "--dtype", "bfloat16", "--format", "npz")
    assert np.load("out/samples.npz")["samples"].dtype == np.float32


def test_samples_that_are_no_pictures(tmp_path):
    assert not outputs.drawable((2,)) and outputs.drawable((3, 8, 8))
    with pytest.raises(ConfigError, match="--format npz"):
        outputs.check(tmp_path, "png", (2,))
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not samples of a run"):
        outputs.check(tmp_path, "png", (1, 8, 8))


def test_guided_run_reports_by_scorer_and_judge(world):
    line = ["sample", "--model", "digits", "--num", 3, "--batch", 2, "--steps", 3, "--objective", "classifier:3,4"]
    text = run(*line, "--method", "sag", "--n", 2, "--sphere", 0.2, "--json", "figures.json").output
    assert "by the scorer" in text and "by the judge" in text
    figures = json.loads(Path("figures.json").read_text())
    (entry,) = figures["reached"]["terms"]
    assert entry["term"] == "classifier:3,4"
    assert entry["scorer"]["loss"] != entry["judge"]["loss"] and 0 <= entry["judge"]["hits"] <= 1
    assert figures["reached"]["loss"] == pytest.approx(entry["scorer"]["loss"], rel=1e-4)
    # two guided steps of 2n - 1 = 3 forward and n = 2 backward calls, and the last one, which has no noise
    assert figures["cost"]["forward_calls_per_sample"] == 7 and figures["cost"]["backward_calls_per_sample"] == 4
    assert figures["cost"]["peak_bytes"] > 0 and figures["cost"]["seconds"] > 0
    assert figures["config"]["objective"] == "classifier:3,4" and figures["drawn_now"] == 3


def test_best_of_n_counts_all_tries(model):
    figures = json.loads(draw(model, "--objective", "own_rules:ink", "--best-of", 3, "--json", "-").output)
    assert figures["cost"]["forward_calls_per_sample"] == 9 and figures["cost"]["backward_calls_per_sample"] == 0
    one = json.loads(draw(model, "--objective", "own_rules:ink", "--best-of", 1, "--json", "-", out="b").output)
    assert figures["reached"]["loss"] < one["reached"]["loss"]


def test_restarts_are_those_of_sample_and_of_the_config(model):
    figures = json.loads(draw(model, "--steps", 6, "--restart", 0.3, 2, 2, "--json", "-").output)
    restart, denoiser = sg.Restart(0.3, 2, 2), sg.load(model, dtype=torch.float32)
    expected = sg.sample(denoiser, indices=range(2, 4), steps=6, restart=restart, dtype=torch.float32)
    assert torch.equal(samples()[2:4], expected.samples)
    assert figures["cost"]["forward_calls_per_sample"] == expected.cost.forward_calls > 6
    run("sample", "--config", "out/config.yaml", "--out", "again")
    assert torch.equal(samples("again"), samples())


def test_region_keeps_its_part(model):
    draw(model, "--format", "png")
    line = ["--objective", "5*region:out/samples/000000.png@left", "--method", "mpgd", "--scale"]
    losses = []
    for scale in (0, 0.5):
        done = draw(model, *line, scale, "--steps", 8, "--json", "-", out=f"s{scale}")
        losses.append(json.loads(done.output)["reached"]["loss"])
    assert losses[1] < 0.7 * losses[0]


# Config


def test_config_round_trip(model):
    Image.new("L", (8, 8), 200).save("a+b.png")
    spec_text = '0.1*own_rules:smooth + region:"a+b.png"@center'
    draw(model, "--objective", spec_text, "--n", 2, "--window", 0, 0.7, "--condition", "label=1,2", "--cfg", 1.5)
    written = yaml.safe_load(Path("out/config.yaml").read_text())
    assert written["method"] == "sag" and written["window"] == [0.0, 0.7] and written["condition"] == {"label": [1, 2]}
    assert written["made_with"]["torch"] and written["lookahead_solver"] == PRESETS["best"][0] and "out" not in written
    run("sample", "--config", "out/config.yaml", "--out", "again", "--quiet")
    assert torch.equal(samples(), samples("again"))
    assert Path("out/config.yaml").read_bytes() == Path("again/config.yaml").read_bytes()


def test_the_own_path_is_a_setting_of_files_and_of_the_line(model):
    draw(model, "--objective", "own_rules:smooth", "--path", "own", "--set", "sag.n=all")
    written = yaml.safe_load(Path("out/config.yaml").read_text())
    assert (written["path"], written["n"]) == ("own", "all") and "lookahead_grid" not in written
    run("sample", "--config", "out/config.yaml", "--out", "again", "--quiet")
    assert torch.equal(samples(), samples("again"))
    run("sample", "--config", "out/config.yaml", "--out", "other", "--quiet", "--n", 1)
    assert not torch.equal(samples(), samples("other"))


def test_what_is_typed_wins_over_the_config(model):
    content = (
        f"model: {model}\nsteps: 4\nnum: 3\nbatch: 2\nseed: 1\ngrid-png: false\nformat: npz\ncondition: {{label: 3}}\n"
    )
    Path("run.yaml").write_text(
        content + "eta: 1e-1\nout: from_config\nobjective: own_rules:smooth\nn: 2\nmethod: sag\n"
    )
    run("sample", "--config", "run.yaml", "--steps", 2, "--quiet")
    written = yaml.safe_load(Path("from_config/config.yaml").read_text())
    assert (written["steps"], written["num"], written["eta"], written["n"]) == (2, 3, 0.1, 2)
    done = run("sample", "--config", "run.yaml", "--method", "freedom", "--out", "other")
    assert "--n belonged to its method sag" in done.stderr
    assert yaml.safe_load(Path("other/config.yaml").read_text())["method"] == "freedom"


def test_toml(model):
    Path("run.toml").write_text(
        f'model = "{model}"\nsteps = 2\nnum = 2\nwindow = [0.0, 0.5]\nobjective = "own_rules:smooth"'
    )
    run("sample", "--config", "run.toml", "--quiet")
    assert yaml.safe_load(Path("out/config.yaml").read_text())["window"] == [0.0, 0.5]


@pytest.mark.parametrize(
    "text, why",
    [
        ("stpes: 3", "did you mean 'steps'"),
        ("steps: 2.5", "steps takes a whole number from 1 to 100,000, not '2.5'"),
        ("steps: true", "steps takes text or numbers, not True"),
        ("steps: 0", "steps takes a whole number from 1 to 100,000, not '0'"),
        ("eta: [1, 2]", "eta takes a finite number from 0 to 1, not '1,2'"),
        ("window: [0.1]", "window"),
        ("eta: {a: 1}", "eta takes one value"),
        ("window: 0.5", "window"),
        ("solver: dddim", "did you mean 'ddim'"),
        ("- 1", "keys with values"),
        ("a: [", "is not YAML"),
        ("condition: 5", "condition takes name=VALUE"),
    ],
)
def test_bad_configs(text, why):
    Path("run.yaml").write_text(text)
    assert why in sentence(run("sample", "--config", "run.yaml", code=2))
    assert "cannot read the config" in sentence(run("sample", "--config", "none.yaml", code=2))


def test_a_config_says_what_has_changed_since(model):
    draw(model)
    written = yaml.safe_load(Path("out/config.yaml").read_text())
    written["made_with"] |= {"weights": "other", "torch": "1.0"}
    Path("old.yaml").write_text(yaml.safe_dump(written))
    said = run("sample", "--config", "old.yaml", "--out", "again").stderr
    assert "made with torch 1.0" in said and "weights of the model are not as" in said


def test_a_run_knows_the_scorer_that_guided_it(world, monkeypatch):
    line = ("--objective", "classifier:3", "--method", "mpgd")
    draw("digits", *line)
    monkeypatch.setitem(WORLDS["digits"].scorers, "classifier", digits.JUDGE)
    assert "weights of the scorer digits/classifier are not as" in sentence(draw("digits", *line, code=2))


# Interrupted, continued, refused


def interrupted_after(monkeypatch, count, error):
    """Makes the write of shard number `count` fail."""
    real, calls = disk.write, []

    def write(path, data):
        if path.parent.name == "shards":
            calls.append(path)
            if len(calls) > count:
                raise error
        real(path, data)

    monkeypatch.setattr(disk, "write", write)


def test_interrupted_run_continues_to_the_same_samples(model, monkeypatch):
    guided = ("--objective", "own_rules:smooth", "--n", 2)
    draw(model, *guided, out="whole")
    with monkeypatch.context() as patch:
        interrupted_after(patch, 1, KeyboardInterrupt())
        said = draw(model, *guided, code=130).stderr
    assert "2 of 5 samples are saved in out/shards" in said and "--config out/config.yaml" in said
    assert names("out") == ["config.yaml", "shards"] and names("out/shards") == ["000000-000001.safetensors"]
    line = ["sample", "--config", "out/config.yaml", "--out", "out", "--json", "figures.json"]
    assert "continuing: 2 of 5" in run(*line).stderr
    assert json.loads(Path("figures.json").read_text())["drawn_now"] == 3
    assert torch.equal(samples(), samples("whole"))
    before = Path("out/shards/000000-000001.safetensors").stat().st_mtime_ns
    draw(model, *guided)
    assert Path("out/shards/000000-000001.safetensors").stat().st_mtime_ns == before


def test_interrupted_before_anything_is_drawn_leaves_nothing(model, monkeypatch):
    interrupted_after(monkeypatch, 0, KeyboardInterrupt())
    assert "nothing is saved" in draw(model, code=130).stderr
    assert not Path("out").exists()


def test_more_samples_of_the_same_run(model):
    draw(model, "--num", 9, out="whole")
    draw(model)
    draw(model, "--num", 9)
    assert torch.equal(samples(), samples("whole")) and names("out/shards") == names("whole/shards")
    draw(model)
    assert names("out/shards")[-2:] == ["000006-000007.safetensors", "000008-000008.safetensors"]
    assert torch.allclose(samples(), samples("whole")[:5], atol=1e-5)  # its last batch has another size


@pytest.mark.parametrize(
    "option, key", [("--steps", "steps (3 there, 4 here)"), ("--batch", "batch (2 there, 4 here)"), ("--seed", "seed")]
)
def test_another_run_is_refused(model, option, key):
    draw(model)
    said = sentence(draw(model, option, 4, code=2))
    assert key in said and "--fresh" in said
    kept = samples()
    draw(model, option, 4, "--fresh")
    assert option == "--batch" or not torch.equal(samples(), kept)


def test_other_formats_and_memory_plans_are_the_same_run(model):
    guided = ("--objective", "own_rules:smooth", "--n", 2)
    draw(model, *guided)
    figures = json.loads(draw(model, *guided, "--memory", "fast", "--format", "npz", "--json", "-").output)
    assert figures["drawn_now"] == 0 and np.array_equal(np.load("out/samples.npz")["samples"], samples().numpy())


def test_changed_files_are_another_run(model):
    Image.new("L", (8, 8), 200).save("a.png")
    draw(model, "--objective", "region:a.png@left")
    Image.new("L", (8, 8), 100).save("a.png")
    assert "a.png is not as it was" in sentence(draw(model, "--objective", "region:a.png@left", code=2))


def test_folders_that_are_not_ours_are_left_alone(model):
    Path("out").mkdir()
    Path("out/config.yaml").write_text("mine: 1\n")
    for extra in ((), ("--fresh",)):
        assert "was not written by a run" in sentence(draw(model, *extra, code=2))
    assert Path("out/config.yaml").read_text() == "mine: 1\n"
    draw(model, out="b")
    Path("b/config.yaml").unlink()
    assert "has shards and no config.yaml" in sentence(draw(model, out="b", code=2))


@pytest.mark.parametrize("harm", ["cut", "flip", "empty", "text", "foreign"])
def test_corrupt_shard_is_drawn_again(model, harm):
    draw(model)
    expected, path = samples(), Path("out/shards/000002-000003.safetensors")
    data = path.read_bytes()
    flipped = data[:-5] + bytes([data[-5] ^ 1]) + data[-4:]
    foreign = safetensors.torch.save({"samples": torch.zeros(2, 1, 8, 8)})
    path.write_bytes({"cut": data[:-9], "flip": flipped, "empty": b"", "text": b"no shard", "foreign": foreign}[harm])
    Path("out/samples.safetensors").unlink()
    line = ("--model", model, "--num", 5, "--batch", 2, "--steps", 3, "--format", "safetensors", "--no-grid-png")
    said = run("sample", *line, "--progress", "--json", "figures.json").stderr
    assert "000002-000003.safetensors is corrupt: its samples are drawn again" in said
    assert torch.equal(samples(), expected) and json.loads(Path("figures.json").read_text())["drawn_now"] == 2


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_full_disk_is_a_sentence_and_leaves_nothing_half_written(model, monkeypatch, number):
    error = OSError(number, os.strerror(number), "out/shards/x")
    with monkeypatch.context() as patch:
        interrupted_after(patch, 1, error)
        said = sentence(draw(model, code=3))
    assert ("disk is full" if number == errno.ENOSPC else "no permission") in said
    assert names("out/shards") == ["000000-000001.safetensors"] and names("out") == ["config.yaml", "shards"]
    draw(model)
    draw(model, out="whole")
    assert torch.equal(samples(), samples("whole"))


@pytest.mark.parametrize("form", ["npz", "png", "safetensors"])
def test_full_disk_while_assembling_keeps_the_old_file(model, monkeypatch, form):
    run("sample", "--model", model, "--num", 2, "--steps", 2, "--format", form, "--quiet")
    before = {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()}

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        patch.setattr(os, "rename", full)
        line = ["sample", "--model", model, "--num", 2, "--steps", 2, "--format", form, "--quiet"]
        assert "disk is full" in sentence(run(*line, code=3))
    assert {path: path.read_bytes() for path in Path("out").rglob("*") if path.is_file()} == before


def test_files_that_cannot_be_written_are_named(model, monkeypatch):
    """Before a sample is drawn, where that can be known; else with all samples kept."""
    said = sentence(draw(model, "--json", "nowhere/figures.json", code=2))
    assert "'nowhere/figures.json' is no file in a folder that exists" in said and not Path("out").exists()
    Path("gone").mkdir()
    costs = runs.costs
    monkeypatch.setattr(runs, "costs", lambda *given: Path("gone").rmdir() or costs(*given))
    said = sentence(draw(model, "--json", "gone/figures.json", code=3))
    assert said.endswith("at gone/figures.json") and len(samples()) == 5


def test_what_a_killed_run_left_is_swept(model):
    draw(model)
    left = disk.temporary(Path("out/samples"))
    left.mkdir()
    draw(model)
    assert not left.exists()


def test_two_runs_do_not_share_a_folder(model):
    pytest.importorskip("fcntl")
    draw(model)
    with files.locked(Path("out")):
        assert "another run is writing" in sentence(draw(model, code=2))


def test_out_of_memory_is_a_sentence(model, monkeypatch):
    def full(*arguments, **settings):
        raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setattr(sg, "sample", full)
    assert "smaller --batch" in sentence(draw(model, code=3))


def test_quiet_and_progress(model):
    quiet = draw(model)
    assert quiet.stdout == quiet.stderr == ""
    shown = run("sample", "--model", model, "--num", 2, "--steps", 2, "--progress", "--out", "b")
    assert "step 2/2" in shown.stderr and "2 samples" in shown.stdout and "2/2" not in shown.stdout


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT to a child")
def test_ctrl_c_in_a_real_process_then_continue(model):
    line = ["sample", "--model", str(model), "--num", "40", "--batch", "2", "--steps", "12", "--format", "safetensors"]
    command = [sys.executable, "-m", "symguide.cli", *line]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background shell has it ignored
    )
    deadline = time.monotonic() + 60
    while not list(Path("out/shards").glob("*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "samples are saved in out/shards" in stderr and "Traceback" not in stderr
    assert 0 < len(names("out/shards")) < 20 and not Path("out/samples.safetensors").exists()
    assert "continuing" in run(*line).stderr
    run(*line, "--out", "whole", "--quiet")
    assert torch.equal(samples(), samples("whole"))


def test_every_option_is_typed_and_grouped():
    command = main.get_command(click.Context(main), "sample")
    for name, option in command.table.items():
        assert option.about and option.group in ("Samples", "Sampler", "Guidance", "Output", "Run", "Settings"), name
