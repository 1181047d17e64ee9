"""Settings of the command line: read by the signatures they belong to, by --set or as options, from old configs too."""

import contextlib
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import click
import pytest
import safetensors.torch
import torch
import yaml
from conftest import RUNNER
from hypothesis import given
from hypothesis import strategies as st

import symguide as sg
from symguide import registry, values
from symguide.cli import main, methods, registered, settings
from symguide.cli.command import flag
from symguide.cli.request import request
from symguide.cli.tune import TABLE
from symguide.errors import ConfigError, SymguideError
from symguide.files import in_use, locked
from symguide.loss_guidance.recipe import Constraint, Count, OverTime, Rule, Window
from symguide.prediction_guidance import chain
from symguide.store.shards import Part
from symguide.worlds import digits, load, scenes


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments, code=0):
    result = RUNNER.invoke(main, [str(word) for word in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def asked(line, command="sample"):
    """What a command line asks for."""
    words = line.split() if isinstance(line, str) else [str(word) for word in line]
    with main.get_command(click.Context(main), command).make_context(command, words) as ctx:
        return request(ctx.params["words"], settings.SAMPLE if command == "sample" else TABLE)


def samples(out="out"):
    return safetensors.torch.load_file(Path(out) / "samples.safetensors")["samples"]


# Every option that there was


OLD = {
    "--model scenes": {"model": "scenes"},
    "--pipeline ./sd": {"pipeline": "./sd"},
    "--num 7": {"num": 7},
    "--batch 9": {"batch": 9},
    "--seed -3": {"seed": -3},
    "--condition label=0,1,2": {"condition": [("label", [0, 1, 2])]},
    "--prompt 'a'": {"prompt": ["'a'"]},
    "--pipeline ./sd --negative-prompt w": {"negative_prompt": "w"},
    "--pipeline ./sd --size 24 32": {"size": [24, 32]},
    "--cfg 2": {"cfg": 2.0},
    "--rule apg": {"rule": "apg"},
    "--steps 5": {"steps": 5},
    "--solver heun": {"solver": "heun"},
    "--grid karras": {"grid": "karras"},
    "--eta 0": {"eta": 0.0},
    "--restart 0.1 2 3": {"restart": [0.1, 2.0, 3]},
    "--pipeline ./sd --scheduler DDIMScheduler": {"scheduler": "DDIMScheduler"},
    "--device cuda": {"device": "cuda"},
    "--dtype float16": {"dtype": "float16"},
    "--on-nan skip": {"on_nan": "skip"},
    "--objective classifier:3": {"objective": "classifier:3"},
    "--encoder a --encoder b": {"encoder": ["a", "b"]},
    "--best-of 4": {"best_of": 4},
    "--pipeline ./sd --checkpoint": {"checkpoint": True},
    "--out there": {"out": "there"},
    "--format npz": {"format": "npz"},
    "--no-grid-png": {"grid_png": False},
    "--grid-png": {"grid_png": True},
    "--progress": {"progress": True},
    "--quiet": {"progress": False},
    "--json -": {"json": "-"},
    "--fresh": {"fresh": True},
}
"""Options of the run as they were typed before --set, and what they mean."""

OF_METHODS = {
    "--scale 2": ("sag", {"scale": 2.0}),
    "--window 0.2 0.7": ("sag", {"window": [0.2, 0.7]}),
    "--repeats 3": ("sag", {"repeats": 3}),
    "--n 4": ("sag", {"n": 4}),
    "--jacobian first": ("sag", {"jacobian": "first"}),
    "--memory 0": ("sag", {"memory": 0}),
    "--memory auto:2GB": ("sag", {"memory": "auto:2GB"}),
    "--lookahead-solver paper": ("sag", {"solver": "ddim", "grid": "uniform"}),
    "--lookahead-grid karras": ("sag", {"grid": "karras"}),
    "--sphere 0.2": ("sag", {"constraint": 0.2}),
    "--method dsg --rate 0.3": ("dsg", {"rate": 0.3}),
    "--method lgd --samples 3": ("lgd", {"samples": 3}),
    "--method universal --backward-steps 2": ("universal", {"backward_steps": 2}),
    "--method classifier --form mean": ("classifier", {"form": "mean"}),
}


@pytest.mark.parametrize("line", OLD)
def test_options_of_the_run(line):
    """As options of their own, and with --set in their place."""
    found = asked(line).settings
    assert {name: found[name] for name in OLD[line]} == OLD[line]
    if line not in ("--quiet", "--no-grid-png"):
        *others, head, text = [*line.rpartition(" --")[0].split(), *_parted(line.rpartition("--")[2])]
        if "--encoder" not in line:
            assert asked([*others, "--set", f"{head}={text}" if text else head]).settings == found


@pytest.mark.parametrize("line", OF_METHODS)
def test_options_of_methods(line):
    name, expected = OF_METHODS[line]
    (found,) = asked(f"--objective classifier:3 {line}").methods()
    assert found.name == name and {key: found.settings[key] for key in expected} == expected
    head, text = _parted(line.rpartition("--")[2])
    method = ["--method", name]
    (same,) = asked(["--objective", "classifier:3", *method, "--set", f"{head}={text}"]).methods()
    (dotted,) = asked(["--objective", "classifier:3", *method, "--set", f"{name}.{head}={text}"]).methods()
    assert same == dotted == found


def _parted(option):
    head, *text = option.split()
    return head, ",".join(text)


def test_debug_and_help_are_taken_anywhere():
    result = RUNNER.invoke(main, ["sample", "--num", "0", "--debug"])
    assert isinstance(result.exception, ConfigError)
    assert run("sample", "--num", "3", "--help").output == run("sample", "-h").output


# Values by their types


@pytest.mark.parametrize(
    "text, kind, expected",
    [
        ("3", int, 3),
        ("-3", int, -3),
        ("1e3", float, 1000.0),
        ("3", Count, 3),
        ("0.5", OverTime, 0.5),
        ("none", float | None, None),
        ("yes", bool, True),
        ("first", Literal["exact", "first"], "first"),
        ("2", Literal[1, 2], 2),
        ("0.2,0.7", Window, [0.2, 0.7]),
        ("(0.2, 0.7)", tuple[float, float], [0.2, 0.7]),
        ("1,2,3", list[int], [1, 2, 3]),
        ("a,b", tuple[str, ...], ["a", "b"]),
        ("rho(0.2)", Rule | None, "rho(0.2)"),
        ("0.25", float | Rule, 0.25),
        ("0.1", Constraint | None, 0.1),
        ("fast", str | int, "fast"),
        ("2", str | int, 2),
        ("7", Annotated[int, values.Between(1, 9)], 7),
    ],
)
def test_values_by_type(text, kind, expected):
    found = values.plain(text, kind, "x")
    assert found == expected and type(found) is type(expected)
    assert yaml.safe_load(yaml.safe_dump(found)) == expected


@pytest.mark.parametrize(
    "text, kind, why",
    [
        ("3.5", int, "x takes a whole number, not '3.5'"),
        ("inf", float, "x takes a finite number"),
        ("maybe", bool, "x takes true or false"),
        ("0.2", Window, "x takes 2 values with commas between"),
        ("0.2,a", Window, "x takes 2 values"),
        ("third", Literal["exact", "first"], "x takes exact or first"),
        ("rho", Rule | None, "x takes a rule such as rho(0.2) or none"),
        ("rhoo(0.2)", Rule | None, "did you mean 'rho'"),
        ("rho(1, 2, 3)", Rule, "too many positional arguments"),
        ("rho(factr=1)", Rule, "unexpected keyword"),
        ("clip(-1)", Rule, "the length to clip at must be positive"),
        ("chain(rho)", Rule, "more in it than calls, numbers and text"),
        ("12", Annotated[int, values.Between(1, 9)], "x takes a whole number from 1 to 9"),
        ("9" * 5000, int, "x takes a whole number"),
    ],
    ids=lambda each: str(each)[:30],
)
def test_values_of_another_type(text, kind, why):
    with pytest.raises(ConfigError) as caught:
        values.plain(text, kind, "x")
    assert why in str(caught.value) and "\n" not in str(caught.value)


KINDS = [
    int,
    float,
    bool,
    Window,
    Rule | None,
    Constraint | None,
    Literal["a", "b"],
    str | int,
    list[float],
    values.Pairs,
]


@given(st.text(max_size=60), st.sampled_from(KINDS))
def test_any_text_is_a_value_or_a_sentence(text, kind):
    with contextlib.suppress(SymguideError):
        yaml.safe_dump(values.plain(text, kind, "x"))


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch planted')",
        "open('planted', 'w')",
        "rho(open('planted', 'w'))",
        "rho((lambda: open('planted', 'w'))())",
        "chain(*[open('planted', 'w')])",
        "rho(factor=[x for x in ().__class__.__mro__][1].__subclasses__())",
        "rules.os.system('touch planted')",
        "rho(**{'factor': open('planted', 'w')})",
        "rho(0.2) if open('planted', 'w') else rho(1)",
        "(" * 400 + ")" * 400 + "()",
    ],
    ids=lambda text: text[:20],
)
def test_nothing_but_rules_is_ever_called(text):
    for read in (registry.read, lambda text: values.plain(text, Rule, "x")):
        with pytest.raises(ConfigError):
            read(text)
    assert not Path("planted").exists()


def test_a_rule_is_what_python_makes():
    """Also in the config, which draws the same samples again."""
    line = (
        "--steps",
        4,
        "--num",
        2,
        "--format",
        "safetensors",
        "--no-grid-png",
        "--quiet",
        "--objective",
        "classifier:3",
    )
    run("sample", *line, "--set", "update=chain(clip(0.5), scale(3))", "--set", "window=noise_window(0.5, 50)")
    rules, scorer = sg.rules, digits.scorer(dtype=torch.float32)
    recipe = sg.SAG(
        sg.objectives.Classifier(scorer, 3),
        update=rules.chain(rules.clip(0.5), rules.scale(3)),
        window=sg.noise_window(0.5, 50),
    )
    expected = sg.sample(
        sg.load("digits", dtype=torch.float32), indices=range(2), steps=4, loss=recipe, dtype=torch.float32
    )
    assert torch.equal(samples(), expected.samples)
    written = yaml.safe_load(Path("out/config.yaml").read_text())
    assert written["update"] == "chain(clip(0.5), scale(3))" and written["window"] == "noise_window(0.5, 50)"
    run("sample", "--config", "out/config.yaml", "--out", "again", "--quiet")
    assert Path("again/config.yaml").read_bytes() == Path("out/config.yaml").read_bytes()
    assert torch.equal(samples("again"), samples())


def test_a_negative_condition_and_a_constraint_go_through_the_config():
    line = "--steps 2 --num 2 --quiet --condition label=3 --cfg 3 --set cfg.negative=label=5 --objective classifier:3"
    run("sample", *line.split(), "--set", "constraint=Sphere(0.2)", "--format", "safetensors")
    written = yaml.safe_load(Path("out/config.yaml").read_text())
    assert written["cfg.negative"] == {"label": 5} and written["sphere"] == "Sphere(0.2)"
    run("sample", "--config", "out/config.yaml", "--out", "again", "--quiet")
    assert Path("again/config.yaml").read_bytes() == Path("out/config.yaml").read_bytes()
    expected = sg.sample(
        sg.load("digits", dtype=torch.float32),
        indices=range(2),
        steps=2,
        condition={"label": 3},
        prediction=sg.CFG(3.0, negative={"label": 5}),
        loss=sg.SAG(sg.objectives.Classifier(digits.scorer(dtype=torch.float32), 3), constraint=sg.Sphere(0.2)),
        dtype=torch.float32,
    )
    torch.testing.assert_close(samples(), expected.samples, rtol=0, atol=1e-5)


# Whose setting it is


def test_settings_belong_to_the_methods_that_take_them():
    line = "--objective classifier:3 --method sag --method apg --method best_of_n --condition label=3"
    found = {m.name: m.settings for m in asked(f"{line} --set n=4 --set apg.scale=7 --set threshold=2").methods()}
    assert found["sag"]["n"] == 4 and found["best_of_n"]["n"] == 4  # both take it, and both were named
    assert found["apg"]["scale"] == 7.0 and found["apg"]["threshold"] == 2.0 and found["sag"]["scale"] == 0.5
    one = {m.name: m.settings for m in asked(f"{line} --set sag.n=4").methods()}
    assert one["sag"]["n"] == 4 and one["best_of_n"]["n"] == 4 and asked("").methods() == []
    found = {m.name: m.settings for m in asked("--objective own:x --cfg 3 --rule apg --scale 0.7").methods()}
    assert found["sag"]["scale"] == 0.7 and found["apg"]["scale"] == 3.0  # that of --rule is --cfg
    found = {m.name: m.settings for m in asked("--objective own:x --best-of 8").methods()}
    assert found == {"best_of_n": {"n": 8}}


def test_rules_for_the_prediction_are_chained():
    """As in Python; and one of another rule has the others inside."""
    line = "--condition label=3 --cfg 2.5 --method pag --set modules=middle.* --set pag.scale=3"
    assert methods.prediction(asked(line).methods()) == chain(sg.PAG("middle.*", 3.0), sg.CFG(2.5))
    line = "--condition label=3 --cfg 2.5 --method interval --set low=0.3 --set high=5"
    assert methods.prediction(asked(line).methods()) == sg.Interval(sg.CFG(2.5), 0.3, 5.0)
    with pytest.raises(ConfigError, match="interval is of another rule"):
        methods.prediction(asked("--method interval --set low=0.3 --set high=5").methods())
    with pytest.raises(ConfigError, match="pag needs modules: add --set modules="):
        asked("--method pag").methods()
    (weak,) = [each.make() for each in asked("--method autoguidance --set weak=scenes-weak").methods()]
    assert weak.weak.shape == (3, 32, 32) and weak.scale == 2.0


def test_a_rule_with_perturbed_modules_draws_what_python_draws():
    line = [
        "--model",
        "scenes",
        "--prompt",
        "a red star",
        "--num",
        2,
        "--steps",
        3,
        "--format",
        "safetensors",
        "--quiet",
    ]
    run("sample", *line, "--method", "pag", "--set", "modules=middle.*.attention.softmax", "--set", "scale=2")
    expected = sg.sample(
        sg.load("scenes", dtype=torch.float32),
        indices=range(2),
        steps=3,
        condition={"caption": scenes.tokens(["a red star"])},
        prediction=chain(sg.PAG("middle.*.attention.softmax", 2.0), sg.CFG(5.0)),
        dtype=torch.float32,
    )
    torch.testing.assert_close(samples(), expected.samples, rtol=0, atol=1e-5)
    run("sample", "--config", "out/config.yaml", "--out", "again", "--quiet")
    assert torch.equal(samples("again"), samples())


ROOT = Path(__file__).parent.parent
PAGES = ["README.md", *(f"docs/{page.relative_to(ROOT / 'docs')}" for page in sorted((ROOT / "docs").rglob("*.md")))]


def printed():
    """Every command line of sample and tune in the README, the docs, the examples and --help."""
    text = "".join((ROOT / page).read_text() for page in PAGES)
    text += "".join(path.read_text() for path in sorted((ROOT / "examples").glob("*.py")))
    lines = re.findall(r"^(?:\$ )?(symguide (?:sample|tune) .*(?:\\\n.*)*)$", text, re.MULTILINE)
    for name in ("sample", "tune"):
        command = main.get_command(click.Context(main), name)
        lines += [line for _, example in command.examples for line in example.splitlines()]
    return list(dict.fromkeys(line.replace("\\\n", " ") for line in lines if line.split()[1] in ("sample", "tune")))


@pytest.mark.parametrize("line", printed())
def test_what_is_printed_is_understood(line):
    """Files of runs aside, whose settings are those of the runs."""
    _, name, *words = shlex.split(line, comments=True)
    if "--config" in words:
        del words[words.index("--config") : words.index("--config") + 2]
    found = asked(words, name)
    assert found.typed is not None and (name == "tune" or isinstance(found.methods(), list))


def test_there_are_printed_lines():
    assert len(printed()) >= 20


@pytest.mark.parametrize(
    "line, why",
    [
        ("--set scael=3", "unknown setting 'scael': did you mean 'scale'"),
        ("--set sag.scael=3", "unknown setting of sag: 'scael': did you mean 'scale'"),
        ("--set n", "--set takes NAME=VALUE"),
        ("--set", "--set takes NAME=VALUE: give it after --set"),
        ("--eta", "--eta takes a value: give it after --eta"),
        ("--restart 1 2", "--restart takes 3 values: give it after --restart"),
        ("threes", "symguide sample takes no further argument, and 'threes' is one"),
        ("--objective classifier:3 --set sag.n=x", "--set sag.n takes a whole number or a rule"),
        ("--objective classifier:3 --set dsg.rate=1", "a setting of dsg, which is not asked for: add --method dsg"),
        ("--objective classifier:3 --method dps --set n=4", "dps does not take --set n, which belongs to"),
        ("--objective classifier:3 --set form=eps", "sag does not take --set form, which belongs to classifier"),
        ("--shard 3/2", "--shard takes I/N with 1 <= I <= N"),
        ("--shard 1/2 --fresh", "leave it out with --shard"),
    ],
)
def test_settings_that_cannot_be_meant(line, why):
    said = run("sample", *line.split(), code=2).stderr.strip()
    assert why in said and len(said.splitlines()) == 1 and not Path("out").exists()


def test_whose_parameters_an_error_names():
    said = run("sample", *["--objective", "classifier:3", "--method", "dps", "--n", "4"], code=2).stderr
    own = said.partition("dps takes ")[2].strip().split(", ")
    assert own == [flag(methods.key("dps", name)) for name in registered.parameters("dps")]


# Configs as earlier versions wrote them


EARLIER = """\
model: digits
num: 3
batch: 2
steps: 8
seed: 0
solver: heun
grid: uniform
eta: 1.0
restart:
- 0.3
- 2.0
- 1
cfg: 1.5
rule: apg
device: cpu
dtype: float32
on_nan: raise
condition:
  label:
  - 1
  - 2
objective: classifier:3,4
method: sag
scale: 0.3
window:
- 0.0
- 0.7
repeats: 2
n: 2
memory: minimal
jacobian: exact
lookahead_solver: ddim
lookahead_grid: uniform
sphere: 0.2
format: safetensors
grid_png: true
made_with:
  symguide: 0.1.0
  torch: 2.13.0
  weights: 0c0c2bacbc14821def9cf3f9eb5f2cf60d64ca3984ef043429ecf8428b95b3ed
  files: {}
  scorers:
    digits/classifier: 136ee4eee4a05f68da99e10cf74551e9ba1c4084f5674d393a9167e7761f2945
"""


def test_configs_of_earlier_versions_draw_the_same_samples():
    Path("run.yaml").write_text(EARLIER)
    said = run("sample", "--config", "run.yaml").stderr
    assert "weights" not in said
    denoiser, scorer = sg.load("digits", dtype=torch.float32), load.scorer("digits", "classifier", dtype=torch.float32)
    recipe = sg.SAG(
        sg.objectives.Classifier(scorer, [3, 4]),
        n=2,
        scale=0.3,
        window=(0.0, 0.7),
        repeats=2,
        solver="ddim",
        grid="uniform",
        constraint=sg.Sphere(0.2),
    )
    expected = sg.sample(
        denoiser,
        indices=range(2),
        steps=8,
        solver="heun",
        restart=sg.Restart(0.3, 2.0, 1),
        condition={"label": [1, 2]},
        prediction=sg.APG(1.5),
        loss=recipe,
        dtype=torch.float32,
    )
    assert torch.equal(samples()[:2], expected.samples)
    run("sample", "--config", "out/config.yaml", "--out", "again", "--quiet")
    assert Path("again/config.yaml").read_bytes() == Path("out/config.yaml").read_bytes()
    assert torch.equal(samples("again"), samples())


# Parts of a run


def test_parts_make_the_whole():
    assert Part.parse("2/3").of(
        iter([range(1), range(1, 2), range(2, 3), range(3, 4), range(4, 5)])
    ).__next__() == range(1, 2)
    line = ("--steps", 3, "--num", 9, "--batch", 2, "--format", "safetensors", "--no-grid-png", "--seed", 4)
    run("sample", *line, "--out", "whole", "--quiet")
    said = run("sample", *line, "--shard", "2/3", "--progress").stdout
    assert "3 samples drawn; 6 of 9 are missing" in said and not Path("out/samples.safetensors").exists()
    assert sorted(p.name for p in Path("out/shards").glob("*.safetensors")) == [
        "000002-000003.safetensors",
        "000008-000008.safetensors",
    ]
    for part in ("1/3", "3/3"):
        run("sample", *line, "--shard", part, "--quiet")
    assert torch.equal(samples(), samples("whole"))
    assert Path("out/config.yaml").read_bytes() == Path("whole/config.yaml").read_bytes()
    refused = run("sample", *line, "--steps", 4, "--shard", "1/3", code=2).stderr
    assert "has samples of another run: steps (3 there, 4 here)" in refused


def test_parts_of_another_run_are_refused_before_anything_is_drawn():
    """While a part is being drawn its run has the folder, though no shard is there yet."""
    pytest.importorskip("fcntl")
    line = ("--num", 4, "--batch", 2, "--steps", 2, "--quiet")
    run("sample", *line, "--shard", "1/2")
    for path in Path("out/shards").glob("*.safetensors"):
        path.unlink()
    with locked(Part(1, 2).lock(Path("out/shards"))):
        refused = run("sample", *line, "--steps", 3, "--shard", "2/2", code=2).stderr
    assert "has samples of another run: steps (2 there, 3 here)" in refused


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks")
def test_two_processes_draw_one_run_at_the_same_time():
    """Each has its part, the last one assembles; a third that wants a part or the whole is refused meanwhile."""
    plain = ["--num", "24", "--batch", "2", "--steps", "12", "--format", "safetensors", "--no-grid-png", "--quiet"]
    command = [sys.executable, "-m", "symguide.cli", "sample", *plain]
    settings = {"stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([*command, "--shard", f"{i}/2"], **settings) for i in (1, 2)]
    try:
        locks = [Path(f"out/shards/part-{i}-of-2.lock") for i in (1, 2)]
        while any(p.poll() is None for p in both) and not all(lock.exists() for lock in locks):
            time.sleep(0.01)
        while all(p.poll() is None for p in both):  # or they may end before the third one has looked
            for process in both:
                process.send_signal(signal.SIGSTOP)
            if not in_use(Path("out")):
                break
            for process in both:  # one was about to begin, or to end
                process.send_signal(signal.SIGCONT)
            time.sleep(0.01)
        if in_use(locks[0]):
            assert "another run is writing to part 1/2" in run("sample", *plain, "--shard", "1/2", code=2).stderr
            assert "parts of the run are being drawn" in run("sample", *plain, code=2).stderr
        for process in both:
            process.send_signal(signal.SIGCONT)
        for process in both:
            _, stderr = process.communicate(timeout=120)
            assert process.returncode == 0, stderr
    finally:
        for process in both:
            process.kill()
    run("sample", *plain, "--out", "whole")
    assert torch.equal(samples(), samples("whole"))
    assert not list(Path("out").rglob("*.tmp")) and not list(Path("out").rglob("*.lock"))
