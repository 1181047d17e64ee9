"""Benchmarks run to their end in their quick form."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def quick(name, folder):
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--quick"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["gradients", "lookahead", "nstudy"])
def test_quick(name, tmp_path):
    assert "| solver |" in quick(name, tmp_path)


def test_beyond(tmp_path):
    rows = {
        line.split("|")[1].strip(): line for line in quick("beyond", tmp_path).splitlines() if line.startswith("| ")
    }
    calls = {way: [int(cell) for cell in line.split("|")[7:9]] for way, line in rows.items() if way != "way"}
    assert calls["best of 25"] == [25, 0] and calls["SAG n=4"] == [14, 14]
    assert calls["descent"] == calls["descent on the sphere"] == [13, 13]


def test_trajectory(tmp_path):
    printed = quick("trajectory", tmp_path)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("| 4")]
    errors = {row[1]: float(row[-1]) for row in rows}
    assert len(errors) == 5 and max(errors.values()) < 1e-10
    calls = {row[1]: (int(row[2]), int(row[3])) for row in rows}
    assert calls['symguide, "minimal"'] == (7, 4)
    assert calls["EDICT, inverted"] == (16, 8)


def test_pipelines_and_that_finished_cells_are_kept(tmp_path):
    pytest.importorskip("diffusers")
    printed = quick("pipelines_gpu", tmp_path)
    ratios = [float(line.split("|")[-2]) for line in printed.splitlines()[2:]]
    assert len(ratios) == 8 and all(0.9 < ratio < 1.1 for ratio in ratios)
    assert quick("pipelines_gpu", tmp_path) == printed
