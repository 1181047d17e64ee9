"""The comparison of memory: predictions beside measurements, its tables, and the command that writes them."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from benchmarks.peers import memory
from benchmarks.peers.invertible import EdictWay
from benchmarks.peers.memory import LIVE, SAVED, Plan, ratio
from benchmarks.peers.networks import ON_CPU, ON_GPU, SUBJECTS
from benchmarks.peers.programs import Autograd, Sweep
from benchmarks.peers.sde import ReversibleHeun
from conftest import RUNNER

from symguide.cli import main

DTYPE = torch.float32
CPU = torch.device("cpu")


class Liar(Sweep):
    """Keeps all graphs, and says that it keeps none."""

    def __init__(self):
        super().__init__("fast")
        self.name = "liar"

    def kept(self, task, forecast, device):
        return 0


def measured(plan, *ways):
    return list(memory.rows(plan, 0, CPU, lambda what: None, ways))


def small(monkeypatch, name, sizes, batches):
    monkeypatch.setitem(SUBJECTS, name, replace(SUBJECTS[name], sizes=sizes, batches=batches))


def test_predictions_are_what_embedded_models_hold(monkeypatch):
    small(monkeypatch, "digits", (8,), (1,))
    rows = measured(Plan(("digits",), (1, 3)), Sweep(0), Sweep("minimal"), Autograd(), EdictWay(), Liar())
    known = [row for row in rows if f"predicted {LIVE}" in row and row["way"] != "liar"]
    assert len(known) == 3 * 2 * 2
    for row in known:
        assert ratio(row, SAVED) == pytest.approx(1, rel=0.1), row
        assert ratio(row, LIVE) == pytest.approx(1, rel=0.1), row
    assert all(ratio(row, SAVED) > 1.5 for row in rows if row["way"] == "liar" and row["n"] == 3)
    inverted = [row for row in rows if "EDICT" in row["way"]]
    assert len(inverted) == 2 and ratio(inverted[0], SAVED) is None and not any(row["checkpoint"] for row in inverted)
    held = {(row["way"], row["checkpoint"], row["n"]): row[SAVED] for row in rows}
    assert held["symguide, minimal", False, 3] < 1.05 * held["symguide, minimal", False, 1]
    assert held["symguide, minimal", True, 3] < 0.5 * held["symguide, minimal", False, 3]
    assert held["autograd", False, 3] > 2 * held["autograd", False, 1]


@pytest.mark.skipif(torch.__version__ < (2, 5), reason="torch 2.4 has no fused attention on meta tensors")
@pytest.mark.parametrize(("name", "size", "batch"), [("small-unet", 32, 2), ("small-transformer", 64, 1)])
def test_predictions_are_what_pipelines_networks_hold(name, size, batch, monkeypatch):
    """Of `estimate_memory`'s simulation, without weights; per-block checkpoints make both kinds of bytes fewer."""
    pytest.importorskip("diffusers")
    small(monkeypatch, name, (size,), (batch,))
    rows = measured(Plan((name,), (2,)), Sweep("fast"))
    assert [row["checkpoint"] for row in rows] == [False, True]
    assert all(ratio(row, kind) == pytest.approx(1, rel=0.1) for row in rows for kind in (SAVED, LIVE))
    assert all(rows[1][kind] < 0.6 * rows[0][kind] for kind in (SAVED, LIVE))


def test_what_is_measured_where():
    assert set(Plan().named(CPU)) == set(ON_CPU) and set(Plan().named(torch.device("cuda"))) == set(ON_GPU)
    few = Plan(ns=(1, 8), everything=False)
    assert few.cells(few.named(CPU)["scenes"]) == [(32, 1, [1, 8])]
    assert Plan(ns=(1, 4)).cells(SUBJECTS["scenes"]) == [(32, 1, [1, 4]), (64, 1, [4]), (32, 4, [4])]
    assert Plan(ns=(1, 8)).cells(SUBJECTS["scenes"]) == [(32, 1, [1, 8]), (64, 1, [8]), (32, 4, [8])]
    asked = Plan(ns=(2,), sizes=(16, 64), batches=(3,))
    assert asked.cells(asked.named(CPU)["scenes"]) == [(16, 3, [2]), (64, 3, [2])]


def test_on_a_gpu_the_allocator_is_asked(monkeypatch):
    """Its functions stood in for: what was there before is left out, and what does not fit is a row that says so."""
    subject = SUBJECTS["digits"]
    network = subject.make(CPU)
    task, x = network.problem(8, 1, "ddim", False), network.start(8, 1, 0)
    network.device = torch.device("cuda")
    for name, value in {"empty_cache": None, "memory_allocated": 40, "max_memory_allocated": 100}.items():
        monkeypatch.setattr(torch.cuda, name, lambda *where, value=value: value)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda *where: None)
    assert memory.measured(Sweep("minimal"), task, network, x, False) == {"fits": True, LIVE: 60}

    class Large(Sweep):
        def gradient(self, task, x):
            raise torch.cuda.OutOfMemoryError

    assert memory.measured(Large("fast"), task, network, x, False) == {"fits": False}
    row = {"subject": "digits", "way": "w", "n": 1, "size": 8, "batch": 1, "checkpoint": False, "fits": False}
    assert memory.all_rows([row], "digits").cells()[0] == ["w", "kept", "8", "1", "1"]
    assert memory.summary([row]) == ""


def test_what_is_missing_is_a_row_that_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    monkeypatch.setitem(sys.modules, "torchsde", None)
    rows = measured(Plan(("small-unet", "digits"), (1,), everything=False), Sweep("fast"), ReversibleHeun())
    assert 'pip install "symguide[pipelines]"' in rows[0]["missing"] and rows[0]["subject"] == "small-unet"
    assert [row.get("missing") for row in rows[1:]] == ["torchsde", None, None]
    assert "needs torchsde" in str(memory.by_n(rows, "digits"))
    assert "symguide[pipelines]" in str(memory.by_n(rows, "small-unet"))


def test_tables_keep_the_ratio_that_is_farthest_off():
    row = {"subject": "s", "way": "w", "size": 8, "batch": 1, "checkpoint": True, "fits": True}
    rows = [
        {**row, "n": 1, SAVED: 100, f"predicted {SAVED}": 100},
        {**row, "n": 4, SAVED: 90, f"predicted {SAVED}": 100},
        {**row, "n": 4, "batch": 2, SAVED: 210, f"predicted {SAVED}": 200},
    ]
    assert memory.by_n(rows, "s").cells() == [["w", "again", "100 B", "90 B", "0.900"]]
    assert memory.summary(rows) == "measured / predicted saved: 0.900 to 1.050 in 3 measurements"


def test_progress_is_told_what_there_is_to_do():
    ticks, plan, ways = [], Plan(("digits",), (1,), everything=False), (Sweep("fast"), EdictWay())
    list(memory.rows(plan, 0, CPU, ticks.append, ways))
    assert len(ticks) == memory.work(plan, CPU, ways)


def test_the_command_writes_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "QUICK", Plan(("digits",), (1, 2), everything=False))
    out = tmp_path / "found"
    line = ["bench", "memory", "--quick", "--out", str(out), "--json", str(tmp_path / "figures.json")]
    line += ["--way", "symguide, minimal", "--way", "symguide, fast"]
    done = RUNNER.invoke(main, line)
    assert done.exit_code == 0, (done.output, done.exception)
    assert "digits, minimal: n = 2 holds 1.00" in done.output and "measured / predicted saved: " in done.output
    written = json.loads((out / "memory.json").read_text())
    assert written["machine"]["torch"] == torch.__version__ and written["results"]["settings"]["ns"] == [1, 2]
    assert {row["way"] for row in written["results"]["rows"]} == {"symguide, minimal", "symguide, fast"}
    assert json.loads((tmp_path / "figures.json").read_text()) == written["results"]
    page = (out / "memory.html").read_text()
    assert page.count("<svg") == 1 and "symguide bench memory --quick" in page and "all measurements" in page
    assert sorted(path.name for path in out.iterdir()) == ["memory.html", "memory.json"]


def test_the_command_measures_what_it_is_asked_for(tmp_path):
    line = "bench memory --quiet --subject digits --size 8 --batch 2 --batch 3 --n 2 --blocks again --threads 1"
    done = RUNNER.invoke(main, [*line.split(), "--way", "symguide, fast", "--out", str(tmp_path)])
    assert done.exit_code == 0 and not done.output
    rows = json.loads((tmp_path / "memory.json").read_text())["results"]["rows"]
    assert {(row["way"], row["size"], row["n"]) for row in rows} == {("symguide, fast", 8, 2)}
    assert sorted((row["batch"], row["checkpoint"]) for row in rows) == [(2, True), (3, True)]
    page = (tmp_path / "memory.html").read_text().replace("&#39;", "'")
    assert (
        "--batch 2 --batch 3" in page
        and "--way 'symguide, fast'" in page
        and "--n 2 --" in page
        and "--blocks again" in page
    )
