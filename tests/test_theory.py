"""What docs/theory/lookahead.md says of estimates, on mixtures: what each is the gradient of."""

import json

import pytest
import torch
from benchmarks.common import RESULTS, Cells
from benchmarks.rule import ENOUGH, PARTS, Cell, check, compared, drawn, way_of
from benchmarks.rule import Guided as OfRule
from benchmarks.textures import Guided, study
from benchmarks.theory import broad, by_weights, cosine, exact, length, looked_ahead, noised, rings

from symguide.rows import Rows


def plane(x0, y):
    return x0[:, :2] @ torch.tensor([1.0, -0.5])


def test_one_call_is_the_gradient_of_the_mean_of_a_linear_loss():
    """Exactly, though the posterior has twelve modes."""
    prior, t = rings(), 0.6
    x, y = noised(prior, t, 4)
    _, value = exact(prior, x, t, plane, y, 1)
    one = looked_ahead(prior, x, t, plane, y, n=1, steps=4)
    assert torch.allclose(one, value, rtol=1e-9, atol=1e-12)


def test_gradients_along_the_runs_own_noise_have_the_mean_losss_gradient_as_their_mean():
    """Up to the discretisation of 32 steps and 1024 draws."""
    prior, t = broad(), 0.7
    x, y = (each[:1].expand(1024, -1).contiguous() for each in noised(prior, t, 1))
    own = looked_ahead(prior, x, t, plane, y, n="all", path="own", steps=32)
    _, value = exact(prior, x[:1], t, plane, y[:1], 1)
    mean = own.mean(dim=0, keepdim=True)
    assert cosine(mean, value) > 0.99 and length(mean, value) == pytest.approx(1.0, rel=0.15)
    assert (own - value).norm(dim=1).mean() > 2 * (mean - value).norm()  # one draw is another thing


def test_look_aheads_that_are_only_weighed_approach_the_exact_guidance():
    prior, t = rings(), 0.6
    x, y = noised(prior, t, 4)
    soft, _ = exact(prior, x, t, plane, y, 200)
    off = [((by_weights(prior, x, t, plane, y, k) - soft).norm() / soft.norm()).item() for k in (16, 1024)]
    assert off[1] < 0.25 and off[1] < 0.5 * off[0]


def test_the_study_of_textures_runs_in_its_quick_form(tmp_path):
    cells = Cells(
        tmp_path / "cells.jsonl", ("loss", "eta", "window", "scale", "way", "seed", "num"), Guided().cell, False
    )
    (row,) = study("gram", cells, quick=True)["rows"]
    assert float(row["ode 4"].split()[0]) < 0.6 and float(row["own all"].split()[0]) < 0.6


@pytest.mark.parametrize("name", PARTS)
def test_the_rule_of_which_method_is_advise(name):
    """What it names in the rows that are kept, where that is computed in no time; and what is right in them."""
    rows = json.loads((RESULTS / f"rule-{name}.json").read_text())["results"]
    guided = OfRule()
    for row in rows[-40:]:
        if row["world"] != "digits":
            window = tuple(float(part) for part in row["window"].split(" to "))
            advice = guided.advice(Cell(row["world"], row["loss"], row["eta"], window, row["steps"], row["scale"]))
            assert row["rule"] == way_of(advice)
    for row in rows:
        ends = {way: float(row[way]) for way in compared(row["eta"])}
        assert (row["right"] == "yes") == (ends[row["rule"]] <= ENOUGH * min(ends.values()))


def test_no_cell_that_the_rule_is_held_against_is_one_that_it_was_made_from():
    seen, held_out, unseen = (set(PARTS[name]) for name in ("seen", "held-out", "unseen"))
    assert not seen & held_out and not seen & unseen and (len(held_out), len(unseen)) == (40, 20)
    assert drawn(5, 2, {"rings": ("mode",)}) == drawn(5, 2, {"rings": ("mode",)})


def test_the_rule_is_checked_in_a_quick_form():
    (row,) = check((Cell("textures", "quiet", 1.0),), Rows(), quick=True)
    assert row["rule"] == "own 4" and row["kind"] == "statistic"
