"""The comparison of gradients: its subjects, its rows, its tables, and the command that writes them."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from benchmarks.peers import gradients
from benchmarks.peers.gradients import Plan
from benchmarks.peers.invertible import BdiaWay
from benchmarks.peers.programs import Autograd, Sweep
from benchmarks.peers.sde import ReversibleHeun
from benchmarks.peers.subjects import SUBJECTS, T
from conftest import RUNNER, relative

import symguide as sg
from symguide.cli import main

CPU = torch.device("cpu")
SMALL = Plan(("gaussian", "mixture"), ("ddim", "dpmpp_2m"), (1, 4), ("float64", "float32", "bfloat16"), 2, 50, 1, 1)


OURS = (Sweep("minimal"), Sweep("fast"), Autograd(), BdiaWay())


def measured(plan=SMALL, ways=OURS):
    return list(gradients.errors(plan, 0, CPU, lambda what: None, ways))


def test_the_gaussians_flow_is_that_of_a_fine_grid():
    subject = SUBJECTS["gaussian"](3, 0, CPU)
    fine = sg.lookahead_gradient(subject.denoiser, subject.x, T, subject.objective, 300, "midpoint").value
    assert relative(subject.flow(1), fine) < 1e-3


@pytest.mark.parametrize("name", SUBJECTS)
def test_subjects_are_the_same_again_and_other_with_another_seed(name):
    one, again, other = (SUBJECTS[name](2, seed, CPU) for seed in (0, 0, 1))
    assert torch.equal(one.x, again.x) and not torch.equal(one.x, other.x)
    assert torch.equal(one.x[:1], SUBJECTS[name](1, 0, CPU).x)
    assert one.problem(2, "ddim", "float32").denoiser.dtype in (torch.float32, None)


def test_rows_have_both_errors_and_precision_shows():
    rows = measured()
    assert len(rows) == 2 * (3 * 2 + 1) * 2 * 3
    worst = {d: max(row["own"] for row in rows if row["dtype"] == d and "BDIA" not in row["way"]) for d in SMALL.dtypes}
    assert worst["float64"] < 1e-12 < worst["float32"] < 1e-5 < worst["bfloat16"] < 0.2
    for subject in SMALL.subjects:
        exact = {
            row["n"]: row["flow"]
            for row in rows
            if (row["subject"], row["way"], row["solver"], row["dtype"]) == (subject, "autograd", "ddim", "float64")
        }
        assert 0.01 < exact[4] < exact[1]  # exact for the map, and not for the flow


def test_progress_is_told_what_there_is_to_do():
    ticks = []
    ways = (Sweep("minimal"), BdiaWay())
    list(gradients.errors(SMALL, 0, CPU, ticks.append, ways))
    assert len(ticks) == gradients.work(SMALL, ways)
    gradients.costs(SMALL, 0, CPU, ticks.append, ways)
    with_digits = replace(SMALL, subjects=("gaussian", "digits"))
    assert len(ticks) == gradients.work(with_digits, ways)


def test_costs_show_what_memory_plans_are_for():
    rows = gradients.costs(replace(SMALL, ns=(1, 6)), 0, CPU, lambda what: None, (Sweep("minimal"), Autograd()))
    saved = {(row["way"], row["n"]): row["saved"] for row in rows}
    assert saved["symguide, minimal", 6] < 1.05 * saved["symguide, minimal", 1]
    assert saved["autograd", 6] > 4 * saved["autograd", 1]


def test_seconds_are_the_median_of_some_rounds_to_that_of_the_unit(monkeypatch):
    clock, order = [0.0], []

    def takes(name, *lengths):
        left = list(lengths)

        def task():
            order.append(name)
            clock[0] += left.pop(0)

        return task

    monkeypatch.setattr(gradients.time, "perf_counter", lambda: clock[0])
    tasks = {("a", 1): takes("a", 4.0, 90.0, 6.0), ("b", 1): takes("b", 1.0, 1.0, 1.0)}
    found = gradients.in_turn(takes("unit", *[2.0] * 5, 50.0), tasks, 3, CPU, lambda what: None)
    assert found == {("a", 1): 3.0, ("b", 1): 0.5}
    assert order == ["unit", "a", "unit", "b"] * 3


def test_a_library_that_is_missing_is_a_row_that_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchsde", None)
    ways = (Autograd(), ReversibleHeun())
    rows = measured(replace(SMALL, subjects=("gaussian",)), ways)
    assert rows[-1] == {"subject": "gaussian", "way": "sdeint_adjoint", "missing": "torchsde"}
    assert gradients.costs(SMALL, 0, CPU, lambda what: None, ways)[-1]["missing"] == "torchsde"
    line = str(gradients.error_table(rows, "gaussian", [1, 4])).splitlines()[-1]
    assert line.split()[:3] == ["sdeint_adjoint", "needs", "torchsde"] and line.endswith("-")
    assert 'pip install "symguide[bench]"' in ReversibleHeun().missing


def test_tables_keep_the_worst_of_the_plans():
    rows = [
        {"subject": "s", "way": way, "solver": "ddim", "n": 1, "dtype": d, "own": own, "flow": 0.5, "cosine": 0.9}
        for way, d, own in [
            ("symguide, minimal", "float64", 1e-16),
            ("symguide, fast", "float64", 3e-16),
            ("symguide, minimal", "float32", 2e-7),
            ("symguide, fast", "float32", 1e-7),
        ]
    ]
    assert gradients.error_table(rows, "s", [1]).cells() == [
        ["symguide, all plans", "ddim", "3.0e-16", "2.0e-07", "5.0e-01", "0.900"]
    ]


def test_the_command_writes_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(gradients, "QUICK", Plan(("digits",), ("ddim",), (2,), ("float64", "float32"), 1, 8, 1, 1))
    out = tmp_path / "found"
    line = ["bench", "gradients", "--quick", "--out", str(out), "--json", str(tmp_path / "figures.json")]
    done = RUNNER.invoke(main, line)
    assert done.exit_code == 0, (done.output, done.exception)
    assert "symguide, all plans" in done.output and "own map" in done.output and "flow" in done.output
    written = json.loads((out / "gradients.json").read_text())
    assert written["machine"]["torch"] == torch.__version__ and written["results"]["settings"]["seed"] == 0
    assert json.loads((tmp_path / "figures.json").read_text()) == written["results"]
    sweeps = [row for row in written["results"]["errors"] if row["way"].startswith("symguide,")]
    assert sweeps and all(row["own"] < (1e-12 if row["dtype"] == "float64" else 1e-5) for row in sweeps)
    page = (out / "gradients.html").read_text()
    assert page.count("<svg") == 2 and "symguide bench gradients --quick" in page
    assert sorted(path.name for path in out.iterdir()) == ["gradients.html", "gradients.json"]


def test_a_subject_alone_has_no_costs(tmp_path, monkeypatch):
    monkeypatch.setattr(gradients, "QUICK", replace(SMALL, ns=(1,), dtypes=("float64",)))
    line = f"bench gradients --quick --quiet --subject mixture --way autograd --n 3 --dtype float32 --out {tmp_path}"
    done = RUNNER.invoke(main, line.split())
    assert done.exit_code == 0 and not done.output
    results = json.loads((tmp_path / "gradients.json").read_text())["results"]
    asked = {(row["subject"], row["way"], row["n"], row["dtype"]) for row in results["errors"]}
    assert asked == {("mixture", "autograd", 3, dtype) for dtype in ("float64", "float32")} and not results["costs"]
    assert "--subject mixture" in (tmp_path / "gradients.html").read_text()


def test_one_plan_and_more_calls_than_tables_of_costs_show(tmp_path, monkeypatch):
    monkeypatch.setattr(gradients, "QUICK", replace(SMALL, subjects=("gaussian",), dtypes=("float64",)))
    line = f"bench gradients --quick --progress --n 17 --out {tmp_path} --way"
    done = RUNNER.invoke(main, [*line.split(), "symguide, minimal"])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "symguide, all plans" in done.output and "n = 17" in done.output
    assert ">symguide<" in (tmp_path / "gradients.html").read_text()  # its line is in the plot
