"""What the command line is given (configs, counts, files of models and runs) is taken as meant, or refused at once."""

import importlib
import json
import shutil
import tracemalloc
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from conftest import RUNNER

import symguide as sg
from symguide import configs
from symguide.cli import config, estimate, main
from symguide.cli.group import BAD_DISK, _explain
from symguide.errors import ConfigError, WeightsError
from symguide.networks import io
from symguide.pipelines import load
from symguide.rows import Rows
from symguide.specs import kinds
from symguide.store import digests
from symguide.store.shards import Shards
from symguide.tuning.log import Log
from symguide.tuning.trial import Trial
from symguide.worlds import digits


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sentence(*line):
    """The one sentence of a command that cannot be used, and that leaves nothing behind."""
    result = RUNNER.invoke(main, [str(word) for word in line])
    lines = result.stderr.strip().splitlines()
    assert result.exit_code == 2 and len(lines) == 1, (result.stderr, result.exception)
    assert not Path("out").exists()
    return lines[0]


# Configs


@pytest.mark.parametrize(
    "text, why",
    [
        ("grid_png: 3", "grid_png takes true or false, not '3'"),
        ("grid_png: maybe", "grid_png takes true or false, not 'maybe'"),
        ("progress: [1]", "progress takes true or false"),
        ("prompt: yes", "prompt takes text or numbers, not True: put words such as yes, no or null in quotes"),
        ("prompt: [a, null]", "prompt takes text or numbers"),
        ("steps: true", "steps takes text or numbers, not True"),
        ("prompt: [[a]]", "prompt is nested too deep"),
        ("prompt: {a: b}", "prompt takes values, not names with values"),
        ("objective: {a: b}", "objective takes one value, not names with values"),
        ("condition: {label: [[1]]}", "condition is nested too deep"),
        ("condition: {label: {a: 1}}", "condition is nested too deep"),
        ("objective: a:b\nwindow: 0.5", "window takes 2 values with commas between"),
        ("objective: a:b\nwindow: [0, 1, 2]", "window takes 2 values with commas between"),
        ("stepz:", "did you mean 'steps'"),
        ("prompt: 2020-01-01", "prompt holds a date: put it in quotes"),
        ("prompt: !!binary aGVsbG8=", "prompt holds a bytes"),
        ("seed: 0x" + "f" * 5000, "seed holds a number of 20000 bits"),
        ("seed: " + "9" * 5000, "not YAML: Exceeds the limit"),
        ('model: "a\\0b"', "zero byte"),
        ("steps: 3\nsteps: 4", "steps is there twice"),
        ("grid-png: true\ngrid_png: false", "grid_png is there twice"),
        ("num: 1e23", "num takes a whole number from 1 to 4,294,967,296, not '1e23'"),
        ("num: 100000000000000000000000", "from 1 to 4,294,967,296"),
        ("batch: 0", "batch takes a whole number from 1 to"),
        ("prompt: &a [*a]", "nested too deep"),
        ("[" * 3000, "nested more than 20 deep"),
        ("a: " + "{a: " * 3000, "nested more than 20 deep"),
        ("x" * (1 << 21), "more than 1,048,576 bytes"),
    ],
    ids=lambda text: text[:40],
)
def test_configs_that_cannot_be_meant(text, why):
    Path("run.yaml").write_text(text)
    assert why in sentence("sample", "--config", "run.yaml")


def test_aliases_cannot_make_a_large_config_of_a_small_one():
    """A list of 1,000 lists of 1,000: 12 kB of text, a million values; deeper bombs are nested too deep anyway."""
    inner = ", ".join(["x"] * 1000)
    Path("wide.yaml").write_text(f"a: &a [{inner}]\nprompt: [{', '.join(['*a'] * 1000)}]\n")
    with pytest.raises(ConfigError, match="more than 100,000 values"):
        configs.read(Path("wide.yaml"))
    deep = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    Path("deep.yaml").write_text(deep + "prompt: *a11\n")
    tracemalloc.start()
    with pytest.raises(ConfigError, match="nested too deep"):
        configs.read(Path("deep.yaml"))
    assert tracemalloc.get_traced_memory()[1] < 20e6  # 9^11 values would be hundreds of gigabytes
    tracemalloc.stop()


def test_aliases_of_values_are_taken():
    Path("run.yaml").write_text(
        "prompt: &p [a, b]\nencoder: *p\ncondition: {label: [1, 2]}\nmade_with: {files: {a: b}}"
    )
    read = configs.read(Path("run.yaml"))
    assert read["prompt"] == read["encoder"] == ["a", "b"] and read["condition"] == {"label": [1, 2]}


def test_a_config_that_says_nonsense_of_what_made_it_is_another_run():
    now = {"model": "digits", config.MADE_WITH: {"weights": "1", "scorers": {"a": "1"}, "files": {}}}
    for told in (3, [1], {"scorers": [1], "files": 3}, {"weights": [1]}):
        then = {**now, config.MADE_WITH: told}
        assert config.differences(then, now) == ["the weights of the model are not as it was"]


# Counts


@pytest.mark.parametrize(
    "line, why",
    [
        ("--num 1e23", "--num takes a whole number from 1 to"),
        (f"--num {10**23}", "from 1 to 4,294,967,296"),
        (f"--batch {10**23}", "from 1 to 4,294,967,296"),
        ("--batch 0", "--batch takes a whole number from 1"),
        (f"--steps {10**12}", "from 1 to 100,000"),
        (f"--objective a:b --n {10**12}", "--n takes a whole number"),
        (f"--best-of {10**12}", "from 1 to 100,000"),
        (f"--condition label={2**63}", "--condition takes name=VALUE"),
        (f"--memory {'9' * 5000}", "must go with a method"),
        ("--json .", "is no file in a folder that exists"),
        ("--json nowhere/figures.json", "is no file in a folder that exists"),
    ],
    ids=lambda text: text[:40],
)
def test_options_that_cannot_be_meant(line, why):
    assert why in sentence("sample", *line.split())


@pytest.mark.parametrize("text", ["9" * 5000, f"{2**31}", "-1"], ids=["long", "large", "negative"])
def test_labels_that_are_none(text):
    context = kinds.Context((1, 8, 8), print)
    with pytest.raises(ConfigError, match=r"labels count from 0|must have a label"):
        kinds.KINDS["classifier"].read((text,), context)


def test_numbers_of_thousands_of_digits_are_a_sentence():
    with pytest.raises(ConfigError, match="positive whole number"):
        kinds.KINDS["superres"].read(("a.png", "9" * 5000), kinds.Context((1, 8, 8), print))
    with pytest.raises(ConfigError, match="--size takes one such as"):
        estimate.pixels("9" * 5000)
    for sigma in (1e300, float("inf"), float("nan"), 0):
        with pytest.raises(ConfigError, match="at most 1000 pixels"):
            sg.objectives.GaussianBlur(sigma)
        with pytest.raises(ConfigError, match="at most 1000 pixels"):
            sg.objectives.MotionBlur(sigma, 0)


def test_a_large_run_is_planned_at_once():
    """Nothing is listed that is not drawn yet: 2^32 samples in batches of one would fill the memory."""
    tracemalloc.start()
    shards = Shards(Path("shards"), 2**32, 1, "run")
    first = [next(iter(shards.ranges)) for _ in range(2)]
    assert first == [range(1), range(1)] and shards.found() == []
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def test_shards_that_are_found():
    """Those of this run's batches, in order of their index, also past the names' six digits."""
    shards = Shards(Path("shards"), 10_000_050, 100, "run")
    shards.folder.mkdir()
    ours = [range(0, 100), range(999_900, 1_000_000), range(1_000_000, 1_000_100), range(10_000_000, 10_000_050)]
    for indices in reversed(ours):
        shards.path(indices).touch()
    for name in ("000100-000149", "000050-000149", "20000000-20000099", "0000200-0000299"):
        (shards.folder / f"{name}.safetensors").touch()
    assert shards.found() == ours
    assert list(Shards(Path("none"), 5, 2, "run").ranges) == [range(0, 2), range(2, 4), range(4, 5)]


def test_memory_that_cannot_be_had_on_a_cpu_is_a_sentence():
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60, dtype=torch.uint8)
    code, text = _explain(error.value)
    assert code == BAD_DISK and "smaller --batch" in text


# Files


def test_what_is_no_file_is_not_read():
    Path("folder").mkdir()
    for path in ("/dev/zero", "folder"):
        with pytest.raises(ConfigError, match="it is no file"):
            digests.of_file(Path(path))


@pytest.mark.parametrize(
    "figures", [3, [], {"x": 1}, dict.fromkeys(("forward_calls", "backward_calls", "seconds", "peak_bytes"), "a")]
)
def test_shards_with_broken_records_are_corrupt(figures):
    shards = Shards(Path("shards"), 2, 2, "run")
    shards.folder.mkdir()
    shards.save(range(2), torch.zeros(2, 1), sg.Cost(1, 1, 1.0, 1))
    path = shards.path(range(2))
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    metadata["record"] = json.dumps(figures)
    path.write_bytes(safetensors.torch.save({"samples": torch.zeros(2, 1)}, metadata=metadata))
    with pytest.raises(WeightsError, match="corrupt"):
        shards.read(range(2))
    path.unlink()
    path.mkdir()
    with pytest.raises(WeightsError, match="corrupt"):
        shards.read(range(2))


def test_records_of_searches_that_no_search_wrote():
    log, path = {"search": {"budget": 3}}, Path("trials.jsonl")
    trial = {field.name: 0 for field in fields(Trial)} | {"settings": {}, "values": [1.0], "kept": [], "calls": 3}
    for line in ({}, trial | {"values": "x"}, trial | {"calls": "x"}):
        path.write_text(f"{json.dumps(log)}\n{json.dumps(line)}\n")
        with pytest.raises(ConfigError, match="no search wrote"):
            Log(path, {"budget": 3})
    for text in ('{"search": 3}\n', "[" * 100_000, ""):
        path.write_text(text)
        with pytest.raises(ConfigError, match="no record of a search"):
            Log(path, {"budget": 3})
    path.write_text(f"{json.dumps(log)}\n{json.dumps(trial)}\n3\n")
    assert Log(path, {"budget": 3}).replay(0, {})[1] == 3


def test_rows_of_benchmarks_that_are_none_are_measured_again():
    path = Path("rows.jsonl")
    Rows(path).get({"n": 1}, lambda: {"x": 2})
    with path.open("ab") as file:
        file.write(b'3\n[1, 2]\n{"key": {"n": 2}, "found": 3}\n' + b"[" * 100_000 + b"\n\xff\n")
    assert Rows(path).get({"n": 1}, dict) == {"n": 1, "x": 2} and Rows(path).get({"n": 2}, lambda: {"x": 4})["x"] == 4
    assert [line.keys() for line in map(json.loads, path.read_text().splitlines()[1:])] == [{"key", "found"}] * 3


@pytest.mark.parametrize(
    "change, why",
    [
        ({"shape": "x"}, "the shape of a sample"),
        ({"shape": [-1, 8, 8]}, "the shape of a sample"),
        ({"shape": [1.5, 8, 8]}, "the shape of a sample"),
        ({"shape": [[1], 8]}, "the shape of a sample"),
        ({"null": [1]}, "null is the numbers"),
        ({"null": {"label": "x"}}, "null is the numbers"),
        ({"null": {"label": 10**30}}, "null is the numbers"),
        ({"schedule": {"name": "vp-linear", "beta_min": "a"}}, "a schedule is its name with numbers"),
    ],
)
def test_models_whose_config_cannot_be_meant(change, why):
    shutil.copytree(digits.DENOISER, "model")
    path = Path("model/config.json")
    told = json.loads(path.read_text())
    told["denoiser"] |= change
    path.write_text(json.dumps(told))
    with pytest.raises(ConfigError, match=why):
        sg.load("model")


def test_weights_of_another_kind_and_configs_without_an_end():
    shutil.copytree(digits.NOISY, "model")
    weights = safetensors.torch.load_file("model/model.safetensors")
    safetensors.torch.save_file({key: value.long() for key, value in weights.items()}, "model/model.safetensors")
    told = json.loads(Path("model/config.json").read_text())
    Path("model/config.json").write_text(json.dumps({k: v for k, v in told.items() if k != "sha256"}))
    with pytest.raises(WeightsError, match=r"holds torch\.int64 in place of"):
        io.load("model")
    Path("model/config.json").write_text("[" * 100_000)
    with pytest.raises(ConfigError, match="is not JSON"):
        io.load("model")


class Broken:
    """A library that fails as others' do."""

    def __init__(self, error):
        self.error = error

    def from_pretrained(self, *_, **__):
        raise self.error


@pytest.mark.parametrize("error", [KeyError("_class_name"), TypeError("not\niterable"), AttributeError(), IndexError()])
def test_errors_of_libraries_are_a_sentence(error, monkeypatch, here):
    """transformers and diffusers have errors of many kinds for configs that are broken."""
    found = importlib.import_module("symguide.encoders.load")  # encoders.load is a function
    monkeypatch.setattr(found, "_maker", lambda kind: Broken(error))
    for call in (found.pretrained, found.network):
        with pytest.raises(WeightsError, match="has no CLIPModel to load") as caught:
            call("CLIPModel", here)
        assert "\n" not in str(caught.value)

    class Diffusers:
        DiffusionPipeline = Broken(error)
        utils = SimpleNamespace(logging=SimpleNamespace(disable_progress_bar=lambda: None))

    monkeypatch.setattr(load, "diffusers", lambda: Diffusers)
    monkeypatch.setattr(load, "installed", lambda package: False)
    Path("model_index.json").write_text("{}")
    with pytest.raises(WeightsError, match="cannot be loaded") as caught:
        load.load_pipeline(str(here), torch.float32)
    assert "\n" not in str(caught.value)
