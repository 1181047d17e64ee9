"""What all commands of `symguide bench` share: errors, help, and runs that go on where they were stopped."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.peers import gradients
from benchmarks.peers.gradients import Plan
from conftest import RUNNER

import symguide
from symguide.cli import main

SMALL = Plan(("gaussian", "mixture"), ("ddim",), (1, 2), ("float64",), 1, 8, 1, 1)


@pytest.mark.parametrize(
    "line, hint",
    [
        ("gradient", "did you mean 'gradients'"),
        ("gradients --device nowhere", "'nowhere'"),
        ("gradients --subject digit", "did you mean 'digits'"),
        ("gradients --way autograt", "did you mean 'autograd'"),
        ("gradients --dtype float16", "did you mean 'bfloat16'"),
        ("gradients --n 0", "--n takes a whole number from 1"),
        ("gradients --threads 0", "--threads takes a whole number from 1 to 1,024"),
        ("memory --subject sd-1.4", "did you mean 'sd-1.5'"),
        ("quality --task identiti", "did you mean 'identity'"),
        ("quality --way exac", "did you mean 'exact'"),
    ],
)
def test_errors_are_one_sentence(line, hint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = RUNNER.invoke(main, ["bench", *line.split()])
    said = done.stderr.strip().splitlines()
    assert done.exit_code == 2 and len(said) == 1 and said[0].startswith("error: ") and hint in said[0]
    assert not list(Path().iterdir())


def test_a_size_that_a_model_cannot_take_is_one_sentence(tmp_path):
    done = RUNNER.invoke(main, ["bench", "memory", "--subject", "digits", "--size", "16", "--out", str(tmp_path)])
    assert done.exit_code == 2 and done.stderr.startswith("error: digits has no pictures of 16 pixels: choose another")


def test_an_installed_package_says_where_the_benchmarks_are(tmp_path, monkeypatch):
    """In any folder, and wherever python is told to look."""
    line = [sys.executable, "-m", "symguide.cli", "bench", "memory", "--help"]
    package = Path(symguide.__file__).parent
    beside = subprocess.run(
        line, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(package.parent)}, text=True, capture_output=True
    )
    assert beside.returncode == 0 and "symguide bench memory --quick" in beside.stdout
    monkeypatch.setattr(symguide, "__file__", str(tmp_path / "lib" / "site-packages" / "symguide" / "__init__.py"))
    for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        monkeypatch.delitem(sys.modules, name)
    done = RUNNER.invoke(main, ["bench", "memory", "--quick"])
    assert done.exit_code == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: the benchmarks come with the source") and "clone" in done.stderr


@pytest.mark.parametrize("name", ["gradients", "memory", "quality"])
def test_help_shows_examples(name):
    for line in ("bench --help", f"bench {name} --help"):
        text = RUNNER.invoke(main, line.split()).output
        assert "Examples" in text and f"symguide bench {name} --quick" in text


def test_the_command_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(gradients, "QUICK", SMALL)
    asked, taken = [], gradients._gradient

    def stopped(way, *where):
        asked.append(way.name)
        if len(asked) == 9:
            raise KeyboardInterrupt
        return taken(way, *where)

    def run(line):
        return RUNNER.invoke(main, [*line.split(), "--out", str(tmp_path / "some")])

    line = "bench gradients --quick --quiet"
    monkeypatch.setattr(gradients, "_gradient", stopped)
    assert run(line).exit_code != 0
    assert [path.name for path in (tmp_path / "some").iterdir()] == ["gradients.unfinished.jsonl"]
    assert run(line).exit_code == 0
    found = json.loads((tmp_path / "some" / "gradients.json").read_text())["results"]["errors"]
    rows = [(row["subject"], row["way"], row.get("n")) for row in found]
    missing = sum("missing" in row for row in found)
    assert len(set(rows)) == len(rows) == len(asked) - 1 + missing  # the ninth was asked for twice, the others once
    assert sorted(path.suffix for path in (tmp_path / "some").iterdir()) == [".html", ".json"]
