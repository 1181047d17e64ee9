"""Benchmarks run to their end in their quick form."""

import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.common import Cells

from symguide.worlds import WORLDS

ROOT = Path(__file__).parent.parent


def quick(name, folder):
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--quick"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def cells(line):
    return [cell.strip() for cell in line.split("|")[1:-1]]


@pytest.mark.parametrize(
    ("name", "head"),
    [
        *(("lookahead", "solver"), ("nstudy", "solver"), ("digits", "method"), ("reuse", "way")),
        *(("textures", "eta"), ("theory", "prior"), ("rule", "world"), ("own_digits", "window")),
    ],
)
def test_quick(name, head, tmp_path):
    assert f"| {head} |" in quick(name, tmp_path)


@pytest.mark.skipif(not WORLDS["galaxies"].denoiser.exists(), reason="galaxygrad is not installed")
def test_galaxies(tmp_path):
    lines = [cells(line) for line in quick("galaxies", tmp_path).splitlines() if line.startswith("| ")]
    calls = {line[3]: line[-2:] for line in lines}
    assert calls["one call"] == ["25", "10"] and calls["own noise, 4"] == ["55", "40"]
    head, *lines = [cells(line) for line in quick("galaxies_tasks", tmp_path).splitlines() if line.startswith("| ")]
    rows = {line[1]: dict(zip(head, line, strict=True)) for line in lines}
    assert float(rows["FreeDoM"]["pixels"]) < float(rows["as it is seen"]["pixels"])
    assert 0.5 < float(rows["FreeDoM"]["chi² / d"]) < 1.5


def test_beyond(tmp_path):
    rows = {
        line.split("|")[1].strip(): line for line in quick("beyond", tmp_path).splitlines() if line.startswith("| ")
    }
    calls = {way: [int(cell) for cell in line.split("|")[7:9]] for way, line in rows.items() if way != "way"}
    assert calls["best of 25"] == [25, 0] and calls["SAG n=4"] == [14, 14]
    assert calls["descent"] == calls["descent on the sphere"] == [13, 12]


def test_trajectory(tmp_path):
    printed = quick("trajectory", tmp_path)
    rows = [cells(line) for line in printed.splitlines() if line.startswith("| 4")]
    errors = {row[1]: float(row[-1]) for row in rows}
    assert len(errors) == 5 and max(errors.values()) < 1e-10
    calls = {row[1]: (int(row[2]), int(row[3])) for row in rows}
    assert calls['symguide, "minimal"'] == (7, 4)
    assert calls["EDICT, inverted"] == (16, 8)


def test_where_the_time_of_a_step_goes(tmp_path):
    row = cells(quick("step", tmp_path).splitlines()[2])
    assert row[:4] == ["1", "3", "minimal", "5 + 3"] and all(float(cell.strip("%")) > 0 for cell in row[4:8])


def test_the_sphere_keeps_states_as_long_as_they_should_be(tmp_path):
    printed = quick("dsg", tmp_path)
    table = printed.partition("what it should be")[2].strip().splitlines()[2:6]
    off = {row[0]: max(abs(float(cell) - 1) for cell in row[1:]) for row in map(cells, table)}
    assert off["unguided"] < 0.05 and off["FreeDoM + DSG, 0.2"] < 0.05 < off["FreeDoM, 0.4"] < off["FreeDoM, 1.6"]


def test_methods_are_tuned_and_compared(tmp_path):
    pytest.importorskip("optuna")
    printed = quick("paper", tmp_path)
    assert {"unguided", "FreeDoM", "SAG", "DOODL"} < {cells(line)[0] for line in printed.splitlines() if "|" in line}
    assert "SAG : FreeDoM, judge" in printed


def test_pipelines(tmp_path):
    pytest.importorskip("diffusers")
    ratios = [float(line.split("|")[-2]) for line in quick("pipelines_gpu", tmp_path).splitlines()[2:]]
    assert len(ratios) == 2 and all(0.9 < ratio < 1.1 for ratio in ratios)


def test_finished_cells_are_kept(tmp_path):
    made = []

    def measure(name, seed):
        made.append((name, seed))
        return {"name": name, "seed": seed, "value": len(made)}

    def cells(fresh=False):
        return Cells(tmp_path / "cells.jsonl", ("name", "seed"), measure, fresh)

    first = [cells().get("a", 0), cells().get("a", 1)]
    assert [cells().get("a", 0), cells().get("a", 1)] == first and made == [("a", 0), ("a", 1)]
    with (tmp_path / "cells.jsonl").open("a") as file:
        file.write('{"name": "a", "value": 9}\n')  # of another form of the benchmark
    assert cells().get("a", 0) == first[0]
    assert cells(fresh=True).get("a", 0)["value"] == 3


def test_results_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    command = [sys.executable, str(ROOT / "benchmarks" / "plots.py"), "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    assert "<svg" in (tmp_path / "estimate.svg").read_text()
