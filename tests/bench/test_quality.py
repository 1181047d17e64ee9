"""What a gradient's accuracy buys: recipes that take others' gradients, rows, tables, and the command."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from benchmarks.peers import quality
from benchmarks.peers.invertible import EdictWay
from benchmarks.peers.programs import Autograd
from benchmarks.peers.quality import QUICK, ByWay, Guide, Plan, guides
from benchmarks.peers.sde import ReversibleHeun
from benchmarks.peers.way import Problem
from benchmarks.world import over_seeds
from conftest import RUNNER, quartic, relative, tiny

import symguide as sg
from symguide.cli import main

DTYPE = torch.float32
SMALL = replace(QUICK, n=2, steps=2, num=2, fine=8, real=16)


def drawn(loss, **settings):
    told = {"condition": {"label": [0, 1, 2]}, "prediction": sg.CFG(2.0)}
    told |= {"batch": 3, "steps": 4, "solver": "ddim", "dtype": torch.float64} | settings
    return sg.sample(tiny(), loss=loss, **told).samples


@pytest.mark.parametrize("n", [1, 3])
def test_the_gradient_of_another_way_guides_as_ours_does_where_it_is_exact(n):
    """Conditions, classifier-free guidance and time travel included."""
    ours = drawn(sg.SAG(quartic, n=n, scale=0.4, solver="ddim", repeats=2))
    other = ByWay(quartic, n=n, scale=0.4, repeats=2, guide_by=Guide(Autograd(), n, "ddim", n))
    assert relative(drawn(other), ours) < 1e-12 < 1e-2 < relative(drawn(None), ours)


def test_a_sample_is_the_same_in_any_batch():
    recipe = ByWay(quartic, n=2, scale=0.4, guide_by=Guide(EdictWay(), 2, "EDICT", 1))
    alone = drawn(recipe, batch=1, indices=[2], condition={"label": [2]})
    assert relative(alone, drawn(recipe)[2:]) < 1e-12


def test_all_look_as_many_calls_ahead():
    """The samplers' own calls, by a network that counts."""
    for guide in guides(4):
        if guide.way.missing:
            continue
        denoiser = tiny()
        guide.way.sample(Problem(denoiser, quartic, 0.6, guide.steps, guide.solver), torch.ones(1, 6).double())
        twice = isinstance(guide.way, ReversibleHeun)  # torchsde makes its first call twice
        assert denoiser.network.forward_rows - twice == guide.n


def test_rows_are_of_all_seeds_strengths_and_ways_with_their_calls(guided_world):
    ticks = []
    plan = replace(SMALL, seeds=(0, 1), strengths=(0.3, 0.9))
    ways = [guide for guide in guides(2) if guide.names in (NAMES[0], NAMES[1])]
    rows = list(quality.samples(plan, ways, *guided_world, ticks.append))
    found = {(row["way"], row["n"], row["strength"], row["seed"]): row for row in rows}
    assert len(found) == len(rows) == len(ticks) == 2 * (1 + 2 * len(ways))
    calls = {row["way"]: (row["forward"], row["backward"]) for row in rows}  # one step is guided, the last is not
    assert calls == {"unguided": (2, 0), "exact": (3, 2), "EDICT, inverted": (2 + 4, 2)}
    assert found["unguided", 0, 0.0, 0]["scorer"] > found["exact", 2, 0.9, 0]["scorer"]


NAMES = [{"way": "exact", "solver": "ddim", "n": 2}, {"way": "EDICT, inverted", "solver": "EDICT", "n": 2}]


def test_cosines_tell_exact_gradients_from_others(guided_world):
    ticks = []
    ways = [g for g in guides(2) if g.way.name in ("exact", "identity", "EDICT, inverted")]
    rows = list(quality.accuracy(SMALL, ways, guided_world[0], ticks.append))
    own = {way: [row["own"] for row in rows if row["way"] == way] for way in {row["way"] for row in rows}}
    assert len(ticks) == len(rows) == len(ways)
    assert min(own["exact"] + own["EDICT, inverted"]) > 0.9999 and max(own["identity"]) < 0.9
    flow = {(row["solver"], row["n"]): row["flow"] for row in rows if row["way"] == "exact"}
    assert flow["ddim", 1] < flow["ddim", 2] < 0.999


def test_progress_is_told_what_there_is_to_do():
    ways = guides(4)
    there = [guide for guide in ways if not guide.way.missing]
    plan = Plan(tasks=("identity", "text"), strengths=(0.3,), seeds=(0, 1))
    assert quality.work(plan, ways) == 2 * (2 + 2 * len(there) + 3 * len(there))


def test_a_library_that_is_missing_is_a_row_that_says_so(guided_world, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchsde", None)
    ways = [guide for guide in guides(2) if isinstance(guide.way, ReversibleHeun)]
    rows = list(quality.samples(SMALL, ways, *guided_world, lambda what: None))
    assert rows[0]["missing"] == "torchsde" and [row["way"] for row in rows] == ["sdeint_adjoint", "unguided"]
    line = str(quality.table(rows, [], "identity")).splitlines()[-1]
    assert "needs torchsde" in line and line.endswith("-")


def test_tables_stand_by_strength_and_calls():
    figures = {"scorer": 1.0, "shape": 0.5, "frechet": 10.0, "seconds": 2.0}
    rows = [
        {"task": "t", "way": way, "solver": "ddim", "n": 1, "strength": s, "seed": seed, "forward": f, "backward": 1}
        | {**figures, "judge": 0.2 + 0.2 * seed}
        for way, s, f in [("dear", 0.3, 9), ("cheap", 0.9, 2), ("cheap", 0.3, 2)]
        for seed in (0, 1)
    ]
    looked = [{"task": "t", "way": "dear", "solver": "ddim", "n": 1, "t": t, "own": 1.0, "flow": t} for t in (0.2, 0.4)]
    cells = quality.table(rows, looked, "t").cells()
    assert [row[:2] for row in cells] == [["0.3", "cheap"], ["0.3", "dear"], ["0.9", "cheap"]]
    assert cells[1][7] == "0.300 ± 0.141" and cells[1][-2:] == ["1.000", "0.300"] and cells[0][-1] == "-"


def test_figures_over_seeds():
    cells = [{"judge": v, "forward": 3, "backward": 1, "seconds": v} for v in (1.0, 3.0)]
    row = {"judge": "2.0 ± 1.4", "forward": 3, "backward": 1, "seconds": "2"}
    assert over_seeds(cells, {"judge": ("judge", 1)}) == row
    assert over_seeds(cells[:1], {"judge": ("judge", 1)})["judge"] == "1.0 ± 0.0"


def test_the_command_writes_its_files(guided_world, tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "QUICK", SMALL)
    monkeypatch.setattr(quality, "world", lambda plan, device: guided_world)
    out = tmp_path / "found"
    line = ["bench", "quality", "--quick", "--way", "exact", "--task", "inpainting", "--out", str(out), "--json", "-"]
    done = RUNNER.invoke(main, line)
    assert done.exit_code == 0, (done.output, done.exception)
    assert "inpainting" in done.stderr and "judge" in done.stderr and "cosine" in done.stderr
    written = json.loads((out / "quality.json").read_text())
    assert written["machine"]["torch"] == torch.__version__ and json.loads(done.stdout) == written["results"]
    assert written["results"]["settings"]["tasks"] == ["inpainting"]
    assert {row["way"] for row in written["results"]["samples"]} == {"unguided", "exact"}
    page = (out / "quality.html").read_text()
    assert page.count("<svg") == 2 and "symguide bench quality --quick --task inpainting --way exact" in page
    assert sorted(path.name for path in out.iterdir()) == ["quality.html", "quality.json"]
