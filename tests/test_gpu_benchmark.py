"""The benchmark for a GPU, as far as it goes without one: its plan, what it keeps, its caps, and its cells."""

import json
import sys

import pytest
import torch

pytest.importorskip("diffusers")

from benchmarks import gpu
from benchmarks.stages import Cell, Setting, batches, graphs, laws, memory

DTYPE = torch.float32
CPU = Setting(torch.device("cpu"), quick=True)


class Fake(Setting):
    """The CPU, taken for a GPU."""

    gpu = True


@pytest.fixture
def card(monkeypatch):
    """A GPU's own functions, which note what they were asked."""
    asked = []
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda *device, name=name: asked.append(name))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", asked.append)
    return asked


def test_all_stages_fit_in_eight_minutes_and_every_forecast_is_written():
    keys = {
        name: [json.dumps(cell.key) for cell in stage.cells(Fake(torch.device("cpu"), quick=False))]
        for name, stage in gpu.STAGES.items()
    }
    assert all(len(set(found)) == len(found) > 1 for found in keys.values())
    assert sum(stage.cap for stage in gpu.STAGES.values()) <= 480
    assert all(stage.seconds <= stage.cap for stage in gpu.STAGES.values())
    kept = json.loads(memory.FORECAST.read_text())["results"]
    for model, size in memory.CASES:
        for n in memory.NS:
            plans = memory.written(kept, model, size, n).plans
            assert {plan.name for plan in plans} == {json.loads(key)["plan"] for key in keys["memory"]}
            assert all(plan.backward_calls == n for plan in plans)


def kept(path, setting=CPU, fresh=False):
    return gpu.StageRows(path / "gpu-laws.json", setting, fresh)


def test_cells_are_written_at_once_and_measured_once(tmp_path):
    made = []

    def measure(i):
        if i == 1:
            raise ValueError("of one cell alone\nand more")
        found = kept(tmp_path).rows if made else []
        made.append(i)
        return {"value": i, "before": len(found)}

    def cells():
        return iter([Cell({"i": i}, lambda i=i: measure(i)) for i in range(4)])

    assert gpu.measure(cells(), kept(tmp_path), cap=100) == 0
    rows = kept(tmp_path).rows
    assert made == [0, 2, 3] and [row.get("before") for row in rows] == [0, None, 2, 3]
    assert rows[1]["good"] is False and rows[1]["error"] == "ValueError: of one cell alone"
    assert gpu.measure(cells(), kept(tmp_path), cap=100) == 0 and made == [0, 2, 3]
    assert gpu.measure(cells(), kept(tmp_path, fresh=True), cap=100) == 0 and made == [0, 2, 3] * 2


def test_rows_of_another_card_do_not_count(tmp_path, card):
    gpu.measure(iter([Cell({"i": 0}, dict)]), kept(tmp_path), cap=100)
    assert {"i": 0} in kept(tmp_path) and {"i": 1} not in kept(tmp_path)
    assert kept(tmp_path, Fake(torch.device("cpu"), quick=True)).rows == []


def test_no_cell_is_begun_after_the_cap(tmp_path):
    now, made = [0.0], []

    def slow():
        made.append(now[0])
        now[0] += 40
        return {}

    cells = iter([Cell({"i": i}, slow) for i in range(5)])
    assert gpu.measure(cells, kept(tmp_path), cap=100, clock=lambda: now[0]) == 2
    assert made == [0, 40, 80]


def test_a_run_that_waits_is_found_out(card, monkeypatch):
    """Errors are asked for from the second step on, and no more after the last one, whatever happens between."""
    fake = Fake(torch.device("cpu"), quick=True)
    assert laws.waits(fake, "digits", "float32", laws.RECIPES["FreeDoM"], dict)["good"]
    assert card == ["synchronize", "error", "default", "default"]
    card.clear()

    class Waiting(laws.sg.FreeDoM):
        def guide(self, step):
            if step.index == 2:
                raise RuntimeError("called a synchronizing CUDA operation")
            return super().guide(step)

    assert laws.waits(fake, "digits", "float32", Waiting, dict)["value"] == 1
    assert card == ["synchronize", "error", "default"]
    assert not laws.control(fake, "digits", "float32")["good"]  # this card notices nothing
    monkeypatch.setattr(torch.Tensor, "item", lambda tensor: (_ for _ in ()).throw(RuntimeError("synchronizing")))
    assert laws.control(fake, "digits", "float32")["good"]


def test_laws_find_what_is_so():
    exact = laws.exact(CPU, "digits", "float64", "heun")
    assert exact["good"] and exact["plans agree"] and exact["value"] < 1e-12
    assert laws.counts(CPU, "digits", "float32")["good"] and laws.alone(CPU, "digits", "float64")["good"]
    assert laws.as_on_a_cpu(CPU, "digits", "float64")["value"] == 0


def test_throughput_is_of_the_same_calls(card):
    fake = Fake(torch.device("cpu"), quick=True)
    row = batches.throughput(fake, "digits", 2, guided=True)
    steps, n = batches.STEPS, batches.N
    assert row["calls"] == [(steps - 1) * (2 * n - 1) + 1, (steps - 1) * n] and row["peak"] == 7
    assert row["share of it"] > 0 and row["samples / s"] == pytest.approx(2 / row["seconds"])


def test_other_layouts_draw_the_same():
    row = graphs.step(CPU, "digits", "channels_last", "float32", 2)
    assert row["relative difference"] < 1e-4 and row["ms"] > 0


def test_the_command_runs_a_stage_in_a_process_of_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu.py", "half", "--quick", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert ended.value.code == 0
    (row,) = json.loads((tmp_path / "gpu-half.json").read_text())["results"]["rows"]
    assert row["good"] and row["off is off"] and row["loss"][1] < row["loss"][0]
    assert "| sd | bfloat16 | True |" in capsys.readouterr().out
