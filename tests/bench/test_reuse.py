"""Tricks that reuse what earlier steps computed: their calls, each sample alone, and what they claim to be exact."""

import pytest
import torch
from benchmarks import reuse
from conftest import quartic, relative, tiny

import symguide as sg
from symguide.solver import flow, transition

CALLS = {  # forward and backward of a sample in six steps, of which the last is not guided
    "n = 1, every second step": (6, 3),
    "the same, twice the strength": (6, 3),
    "n = 1, old gradient between": (6, 3),
    "n = 1, quasi-Newton between": (6, 3),
    "n = 2, history": (11, 10),
    "n = 2, every second step": (9, 6),
    "n = 2, old gradient between": (9, 6),
    "n = 2, old cotangent between": (9, 8),
    "n = 2, quasi-Newton between": (11, 6),
    "n = 4, through the first two": (21, 10),
}


def drawn(recipe, batch=3, steps=6, indices=None):
    denoiser = tiny()
    result = sg.sample(denoiser, batch=batch, steps=steps, loss=recipe, indices=indices, dtype=torch.float64)
    network = denoiser.network
    return result.samples, (network.forward_rows / batch, network.backward_rows / batch)


@pytest.mark.parametrize("name", CALLS)
def test_tricks_count_their_calls_keep_samples_apart_and_begin_as_sag_does(name):
    recipe = reuse.WAYS[name](quartic, 0.3)
    samples, calls = drawn(recipe)
    assert calls == CALLS[name] and relative(drawn(recipe)[0], samples) == 0  # nothing is left of the last run
    assert relative(drawn(recipe, 1, indices=[2])[0], samples[2:]) < 1e-12
    if name != "n = 4, through the first two":  # in one guided step there is nothing to reuse
        first, exact = (drawn(r, steps=2)[0] for r in (recipe, sg.SAG(quartic, n=recipe.n, scale=recipe.scale)))
        assert relative(first, exact) < 1e-12


def test_history_is_that_of_the_solvers_own_steps_and_brings_the_estimate_nearer():
    denoiser = sg.GaussianDenoiser(torch.zeros(6), torch.diag(torch.linspace(0.3, 2.0, 6)))
    early, before, t = torch.linspace(-1, 1, 6)[None], 0.65, 0.6
    x, past = denoiser.transport(early, before, t), denoiser(early, before).x0
    plain, told = (reuse.with_history(denoiser.schedule, t, 2, time) for time in (None, before))
    step = transition("dpmpp_2m", denoiser.schedule, t, flow(denoiser.schedule, t, 2)[1], 0.0, before)
    assert told.nodes[:2] == step.program.nodes
    x0, without = (
        reuse.run(program, inputs, lambda z, r: denoiser(z, r).x0)
        for program, inputs in ((told, [x, past]), (plain, [x]))
    )
    assert relative(x0, denoiser.transport(x, t)) < 0.8 * relative(without, denoiser.transport(x, t))


def test_broydens_matrix_meets_the_last_pair_of_each_sample():
    pairs = [tuple(torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(k)).unbind(0)) for k in range(3)]
    c, g = pairs[-1]
    assert (
        relative(reuse.broyden(pairs, c), g) < 1e-12 < 1e-2 < relative(reuse.broyden(pairs, pairs[0][0]), pairs[0][1])
    )
    assert relative(reuse.broyden([(a[:1], b[:1]) for a, b in pairs], c[:1]), g[:1]) < 1e-12


def test_the_studies_make_their_tables(guided_world, tmp_path):
    torch.set_default_dtype(torch.float32)
    world, ways = guided_world[0], ("SAG n = 2", "n = 2, quasi-Newton between")
    rows = reuse.estimates(world, 2, 3, (2,), 8)
    assert [row["eta"] for row in rows] == [0.0, 0.0, 1.0, 1.0] and all(float(row["n=2, history"]) > 0 for row in rows)
    exact, trick = reuse.gradients(world, "inpainting", ways, 2, 4)
    assert exact["middle"] == exact["late"] == "1.00" and float(trick["late"]) < 0.99
    keys = ("task", "way", "scale", "seed", "num", "steps")
    cells = reuse.Cells(tmp_path / "cells.jsonl", keys, reuse.Guided(world).cell, False)
    (row,) = reuse.guided("inpainting", ways[:1], cells, True)["rows"]
    assert (row["forward"], row["backward"]) == (5, 4) and "judge, 0.3" in row
