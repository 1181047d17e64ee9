"""The studies of look-aheads: ratios are paired, curves are compared at equal shapes, proposals count their calls."""

import statistics
import sys

import pytest
import torch
from benchmarks import equal_calls, papercell, quality_of_model
from benchmarks.papercell import CURVE, KEYS, Plan
from conftest import quartic, tiny

import symguide as sg


def made(plan, seed, num=4, **figures):
    costs = {"scorer": 1.0, "frechet": 1.0, "forward": 1, "backward": 1, "seconds": 1.0}
    return dict(zip(KEYS, (*plan.key, seed, num), strict=True)) | costs | figures


def line(n, judge, seeds=(0, 1, 2)):
    """Cells of a curve whose shapes fall evenly with the strength; judge: (shape, seed) -> figure."""
    scales = [0.0, *CURVE]
    plans = [Plan("style", n if scale else 0, scale=scale or 0.3) for scale in scales]
    shapes = [0.9 - 0.2 * i for i in range(len(scales))]
    return [
        made(plan, seed, shape=shape, judge=judge(shape, seed))
        for plan, shape in zip(plans, shapes, strict=True)
        for seed in seeds
    ]


def test_ratios_are_those_of_each_seed():
    one, two = Plan("style", 1), Plan("style", 2)
    cells = [made(one, s, judge=float(1 + s), shape=1.0) for s in range(3)]
    cells += [made(two, s, judge=(0.5, 0.75)[s] * (1 + s), shape=1.0) for s in range(2)]  # the third is still to come
    cells.append(made(two, 0, num=2, judge=9.0, shape=1.0))  # fewer samples, another run
    mean, spread = statistics.fmean((0.5, 0.75)), statistics.stdev((0.5, 0.75))
    assert papercell.ratio(cells, two, one, "judge") == f"{mean:.3f} ± {spread:.3f}"
    (row,) = papercell.rows(cells, [two])
    assert row["judge : one call"] == "0.625 ± 0.177" and row["runs"] == "2 x 4"


def test_strength_alone_is_no_gain_at_equal_shapes_and_a_better_judge_is():
    """Two calls that are one call at another strength have the ratio 1; at 0.8 of its judge 0.8, in every resample."""

    def judge(shape, seed):
        return 2 + shape + 0.1 * seed

    one = line(1, judge)
    further = [
        dict(c, shape=c["shape"] - 0.1 * bool(c["n"]), judge=c["judge"] - 0.1 * bool(c["n"])) for c in line(2, judge)
    ]
    level, interval, seeds = papercell.at_equal_shapes([*one, *further], "style", 0.0, 0.5)
    assert level == pytest.approx(1.0) and interval == (pytest.approx(1.0), pytest.approx(1.0)) and seeds == 3
    better = [dict(c, judge=0.8 * c["judge"]) for c in line(2, judge) if c["n"]]
    level, (low, high), _ = papercell.at_equal_shapes([*one, *better], "style", 0.0, 0.5)
    assert level == pytest.approx(0.8) and low == pytest.approx(0.8) and high == pytest.approx(0.8)
    assert papercell.at_equal_shapes([*one, *better[3:]], "style", 0.0, 0.5) is None  # a strength is missing


def test_a_curve_is_followed_between_its_points():
    points = [(0.9, 4.0), (0.7, 3.0), (0.75, 2.5), (0.5, 1.0)]
    assert papercell.lowest(points, 0.7) == pytest.approx(2.2) and papercell.lowest(points, 0.95) != papercell.lowest(
        points, 0.95
    )


@pytest.mark.parametrize("k", [1, 3])
def test_proposals_take_the_best_of_their_draws_for_the_calls_they_say(k):
    """A run of five steps, the last without noise: 1 + 4 K calls, as every step's choice makes the next one's call."""
    denoiser, losses = tiny(), []
    drawn = sg.sample(denoiser, batch=3, steps=5, particles=equal_calls.Proposals(quartic, k), dtype=torch.float64)
    assert drawn.cost.forward_calls == 1 + 4 * k and drawn.cost.backward_calls == 0
    assert denoiser.network.forward_rows == 3 * (1 + 4 * k)
    alone = sg.sample(
        tiny(), indices=[2], steps=5, particles=equal_calls.Proposals(quartic, k), dtype=torch.float64
    ).samples
    torch.testing.assert_close(alone, drawn.samples[2:], rtol=1e-10, atol=1e-10)
    for count in (1, 8):
        rule = equal_calls.Proposals(quartic, count)
        samples = sg.sample(tiny(), batch=16, steps=5, particles=rule, dtype=torch.float64).samples
        losses.append(quartic(samples).mean())
    assert losses[1] < losses[0]


def test_fronts_have_what_is_better_than_all_that_costs_less():
    def cells(way, calls, scorer, judge):
        figures = {"shape": 1.0, "frechet": 1.0, "seconds": 1.0, "forward": calls, "backward": 0}
        return [
            {"task": "style", "way": way, "scale": 0.3, "seed": s, "scorer": scorer, "judge": judge} | figures
            for s in (0, 1)
        ]

    every = cells("c", 90, 2.0, 2.5) + cells("a", 50, 3.0, 3.0) + cells("b", 70, 3.5, 2.0)
    every.append(every[0] | {"seed": 2, "scorer": 99.0})  # a seed that the others do not have yet
    rows = equal_calls.rows(every, "style")
    assert [row["way"] for row in rows] == ["a", "b", "c"]
    assert [row["front, scorer"] for row in rows] == ["yes", "", "yes"]
    assert [row["front, judge"] for row in rows] == ["yes", "yes", ""]


def test_errors_of_a_model_are_those_of_the_window():
    looked = [{"t": t, "n=1": t, "n=2": t / 2} for t in (0.9, 0.7, 0.5, 0.1)]
    assert quality_of_model.error(looked, 1) == pytest.approx(0.6) == 2 * quality_of_model.error(looked, 2)
    cells = [
        {"model": "scenes", "task": "style", "n": n, "seed": 0, "num": 2, "scorer": n, "judge": 2 / n} for n in (1, 2)
    ]
    cells.append({"model": "scenes", "task": "estimate", "n": 0, "seed": 0, "num": 2, "rows": looked})
    (row,) = quality_of_model.rows(cells)
    assert (
        row["style, scorer"] == "2.00 ± 0.00" and row["style, judge"] == "0.50 ± 0.00" and row["identity, judge"] == ""
    )


@pytest.mark.parametrize(
    ("study", "head", "calls"),
    [(papercell, "task", "70 + 40"), (quality_of_model, "model", ""), (equal_calls, "way", "97")],
    ids=["papercell", "quality_of_model", "equal_calls"],
)
def test_quick(study, head, calls, tmp_path, monkeypatch, capsys):
    """Each study runs to its end; 10 of 25 steps take 2 calls of 2 passes, and 24 of 25 take 4 draws."""
    torch.set_default_dtype(torch.float32)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["study", "--quick"])
    study.main()
    printed = capsys.readouterr().out
    assert f"| {head} |" in printed and f"| {calls}" in printed and "written" not in printed
    assert [path.name.endswith("-quick.jsonl") for path in (tmp_path / "out/benchmarks").iterdir()] == [True]
