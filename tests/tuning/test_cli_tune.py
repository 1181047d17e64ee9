"""symguide tune: from a command to a front, a picture, and configs that symguide sample takes as they are."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
import safetensors.torch
import torch
import yaml
from click.testing import CliRunner
from PIL import Image

import symguide as sg
from symguide import configs
from symguide.cli import main, registered, tuning
from symguide.networks import UNet
from symguide.ranges import Choice, Maybe, Range, Window
from symguide.worlds import WORLDS, World, digits, load, scenes

RUNNER = CliRunner()
DTYPE = torch.float32
OWN = """
def bright(x0):
    return -x0.flatten(1).mean(1)

def dark(x0):
    return x0.flatten(1).mean(1)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    network = UNet(1, (4, 8), classes=10, attention=(False, False), heads=2, groups=2)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    sg.save(sg.Denoiser(network, sg.VP.cosine(), "v", shape=(1, 8, 8), null={"label": 10}), folder)
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, model):
    """Every test in a folder of its own, with the small model as that of the digits world, and rules of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "own_rules", raising=False)
    (tmp_path / "own_rules.py").write_text(OWN)
    scorers, judges = {"classifier": digits.SCORER}, {"classifier": digits.JUDGE}
    monkeypatch.setitem(WORLDS.things, "digits", World("small", model, scorers, judges))
    return tmp_path


def run(*line, code=0):
    result = RUNNER.invoke(main, list(map(str, line)))
    assert result.exit_code == code, result.output
    return result


def tune(*line, code=0):
    own = ("--steps", 4, "--num", 3, "--batch", 2, "--seeds", "7,8", "--budget", 300)
    return run("tune", *own, "--objective", "classifier:3", *line, code=code)


def test_a_search_writes_what_sample_takes():
    text = tune(
        "--method", "sag", "--method", "mpgd", "--budget", 500, "--out", "tuned", "--json", "figures.json"
    ).output
    assert {p.name for p in Path("tuned").iterdir()} == {
        "config.yaml", "front", "front.png", "results.json", "trials.jsonl",
    }  # fmt: skip
    figures = json.loads(Path("figures.json").read_text())
    assert figures == json.loads(Path("tuned/results.json").read_text())
    assert figures["metric"] == "judge" and figures["calls_spent"] <= 500
    best = figures["trials"][figures["best"]]
    assert best["metric"] <= min(trial["metric"] for trial in figures["trials"][:2])
    assert [trial["method"] for trial in figures["trials"][:2]] == ["sag", "mpgd"]
    assert "judge" in text and "unguided" in text and "default" in text and "network calls" in text
    assert "symguide sample --config tuned/config.yaml" in text
    assert Image.open("tuned/front.png").size[0] > 600
    assert len(list(Path("tuned/front").iterdir())) == len(figures["front"])

    for name in ["tuned/config.yaml", *map(str, Path("tuned/front").iterdir())]:
        written = yaml.safe_load(Path(name).read_text())
        assert "sample --config" in Path(name).read_text().splitlines()[0]
        run("sample", "--config", name, "--out", "drawn", "--fresh", "--format", "npz")
        drawn = configs.read(Path("drawn/config.yaml"))
        assert {**drawn, "format": "png"} == written


def test_the_config_draws_with_the_settings_of_the_best_trial():
    tune("--method", "freedom", "--search", "scale=0.1:3:log", "--search", "window", "--out", "tuned")
    figures = json.loads(Path("tuned/results.json").read_text())
    best = figures["trials"][figures["best"]]
    run("sample", "--config", "tuned/config.yaml", "--seed", 7, "--format", "safetensors", "--out", "drawn")
    samples = safetensors.torch.load_file("drawn/samples.safetensors")["samples"]
    network = load.judge("digits", "classifier")
    with torch.no_grad():
        losses = sg.objectives.Classifier(network, [3] * 3)(samples).tolist()
    lines = [json.loads(line) for line in Path("tuned/trials.jsonl").read_text().splitlines()[1:]]
    record = next(line for line in lines if line.get("number") == best["number"])
    assert record["values"][:3] == pytest.approx(losses, rel=1e-3)  # of seed 7, the first of the two


def test_a_search_goes_on_and_another_is_refused():
    first = tune("--method", "dps", "--out", "tuned").output
    lines = Path("tuned/trials.jsonl").read_bytes()
    again = tune("--method", "dps", "--out", "tuned").output
    assert again == first and Path("tuned/trials.jsonl").read_bytes() == lines
    refused = tune("--method", "dps", "--out", "tuned", "--cfg", "2", "--condition", "label=3", code=2)
    assert re.search(r"trials of another search: .*cfg", refused.output)
    tune("--method", "dps", "--out", "tuned", "--cfg", "2", "--condition", "label=3", "--fresh")


def test_metrics_and_what_is_kept():
    tune("--method", "dps", "--metric", "own_rules:bright", "--keep", "own_rules:dark", "--floor", "-9", "--out", "a")
    figures = json.loads(Path("a/results.json").read_text())
    assert figures["metric"] == "own_rules:bright" and figures["floor"] == -9
    assert figures["trials"][0]["keep"] == pytest.approx(-figures["trials"][0]["metric"])
    assert json.loads(Path("a/results.json").read_text())["front"]
    lost = tune("--method", "dps", "--keep", "own_rules:dark", "--floor", "9", "--out", "b", code=2)
    assert "no trial can be chosen" in lost.output and "lower the floor" in lost.output
    assert Path("b/front.png").exists() and not Path("b/config.yaml").exists()
    tune("--method", "dps", "--metric", "scorer", "--out", "c", "--quiet")
    assert json.loads(Path("c/results.json").read_text())["metric"] == "scorer"
    said = run("tune", "--steps", 4, "--num", 1, "--budget", 200, "--method", "mpgd", "--objective", "own_rules:dark")
    assert "no judge of this objective" in said.output


def test_a_search_begins_at_a_config(model):
    guided = ("--objective", "own_rules:dark", "--method", "mpgd", "--scale", "0.77")
    run("sample", "--model", model, *guided, "--num", 2)
    line = ("--config", "out/config.yaml", "--steps", 4, "--num", 2, "--seeds", "1", "--budget", 300, "--out", "tuned")
    run("tune", *line)
    figures = json.loads(Path("tuned/results.json").read_text())
    assert figures["trials"][0]["settings"]["scale"] == 0.77 and figures["trials"][0]["method"] == "mpgd"
    assert len({trial["settings"].get("scale") for trial in figures["trials"]}) > 2


def test_what_is_typed_is_fixed_and_shown_ranges_are_searched():
    tune("--n", 2, "--search", "scale=0.1,0.2", "--search", "jacobian", "--budget", 3000, "--out", "tuned")
    trials = json.loads(Path("tuned/results.json").read_text())["trials"]
    assert {trial["settings"]["n"] for trial in trials} == {2}
    searched = {(trial["settings"]["scale"], trial["settings"]["jacobian"]) for trial in trials[1:]}
    assert searched == {(scale, jacobian) for scale in (0.1, 0.2) for jacobian in ("exact", "first")}


def test_a_rule_that_is_set_is_in_every_trial_and_in_the_configs():
    tune("--search", "scale=0.1,0.2", "--set", "update=clip(0.5)", "--out", "tuned")
    trials = json.loads(Path("tuned/results.json").read_text())["trials"]
    assert {trial["settings"]["update"] for trial in trials} == {"clip(0.5)"}
    assert configs.read(Path("tuned/config.yaml"))["update"] == "clip(0.5)"
    run("sample", "--config", "tuned/config.yaml", "--out", "drawn", "--num", 1)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("scale=0.1:3:log", Range(0.1, 3.0, log=True)),
        ("n=1:8", Range(1, 8)),
        ("sphere=none,0.05:0.5", Maybe(Range(0.05, 0.5))),
        ("window=0:0.4,0.6:1", Window(Range(0.0, 0.4), Range(0.6, 1.0))),
        ("n=1,2,4", Choice(1, 2, 4)),
        ("sphere=none,0.1", Choice(None, 0.1)),
        ("memory=fast,2", Choice("fast", 2)),
    ],
)
def test_ranges_as_they_are_typed(text, expected):
    name, _, rest = text.partition("=")
    kind = registered.parameters("sag")[registered.parameter_of(name)].kind
    assert repr(tuning.parse_range(name, kind, rest)) == repr(expected)


@pytest.mark.parametrize(
    "line, why",
    [
        ("--search scale=3:1", "low < high"),
        ("--search scale=0:1:log", "a low end above 0"),
        ("--search scale=a:b", "--search scale=a:b: scale takes a finite number, not 'a'"),
        ("--search scale=-1:2", "sag cannot be searched with scale = -1.0: scale must not be negative"),
        ("--search scale=1:2:lin", "LOW:HIGH:log"),
        ("--search n=0,2", "sag cannot be searched with n = 0: n must be a whole number, at least 1"),
        ("--search n=1:2,4", "one range, LOW:HIGH, or a list"),
        ("--search jacobian=exact:first", "has no numbers"),
        ("--search jacobian=frist", "unknown jacobian 'frist': did you mean 'first'"),
        ("--search window=0:0.4", "two ranges, of start and stop"),
        ("--search window=0:0.8,0.6:1", "start must stay before its stop"),
        ("--search sacle=1:2", "did you mean 'scale'"),
        ("--search rate=0.1:1", "unknown parameter in --search 'rate'"),
        ("--search memory", "memory has no range of its own"),
        ("--search n=1,2 --n 2", "nothing of sag is left to search"),
        ("--method freedom --n 3", "freedom does not take --n"),
        ("--method sga", "unknown method 'sga'"),
        ("--method cfg", "use --cfg SCALE"),
        ("--metric nobody:knows", "no module 'nobody'"),
        ("--keep shape", "asks the judge of the scenes world"),
        ("--floor 0.5", "add --keep"),
        ("--seeds a", "--seeds takes values with commas between (a whole number"),
        ("--seeds 1,1", "seeds that differ"),
        ("--budget 10", "budget of 10 network calls is less than"),
        ("--objective own_rules:dark --metric judge", "there is no judge of own_rules:dark"),
        ("--objective blackbox:own_rules:dark", "black box"),
        ("--pipeline ./sd", "unknown option '--pipeline'"),
    ],
)
def test_errors_are_a_sentence(line, why):
    output = tune(*line.split(), "--out", "tuned", code=2).output
    assert why in " ".join(output.split()), output
    assert "Traceback" not in output and not Path("tuned").exists()


def test_an_objective_is_needed():
    assert "give --objective" in run("tune", code=2).output


def test_every_option_is_explained_and_the_help_teaches():
    command = main.get_command(click.Context(main), "tune")
    for name, option in command.table.items():
        groups = ("Samples", "Sampler", "Guidance", "Search", "Output", "Run", "Settings")
        assert option.about and option.group in groups, name
    text = run("tune", "--help").output
    assert text.count("symguide tune") >= 4 and "Search:" in text and "--budget" in text
    assert all(setting.help for setting in command.table.values())


def test_shapes_that_must_be_kept():
    """Prompts say which shape each sample has to show, and the judge of scenes says whether it does."""
    plan = SimpleNamespace(source=SimpleNamespace(name="scenes"), shape=(3, 32, 32))
    with pytest.raises(sg.ConfigError, match="which shape is asked for"):
        tuning._keep({"keep": "shape", "floor": None, "prompt": []}, plan)
    asked = tuning._keep({"keep": "shape", "floor": None, "prompt": ["a red star", "a blue disk on red"]}, plan)
    captions = scenes.captions(found := scenes.draw("held_out", range(64)))
    single = [i for i, text in enumerate(captions) if found.count[i] == 1][:20]
    pictures = scenes.render(found[torch.tensor(single)], 32, torch.float32)
    shapes = [found.shape[i, 0].item() for i in single]
    star, disk = (tuning.SHAPES.index(name) for name in ("star", "disk"))
    told = asked(range(20))(pictures)
    expected = [float(shape == (star, disk)[i % 2]) for i, shape in enumerate(shapes)]
    assert (told - torch.tensor(expected)).abs().mean() < 0.1
