"""Update rules, constraints and windows: each sample for itself, nothing changed in place, in the precision given."""

import torch
from cases import every
from conftest import relative, squares, tiny

import symguide as sg


def seen(case, indices, dtype=torch.float64):
    """What a rule makes of the gradients of two steps."""
    made = []

    def watch(gradient, step, loss):
        before, given = gradient.clone(), loss.clone()
        made.append(rule(gradient, step, loss))
        assert torch.equal(gradient, before) and torch.equal(loss, given)
        return sg.rules.normalise()(gradient, step, loss)

    torch.set_default_dtype(dtype)
    rule = case.make()
    settings = {"condition": {"label": [i % 4 for i in indices]}, "prediction": sg.CFG(2.0), "steps": 4}
    denoiser = tiny().to(dtype=dtype)
    sg.sample(denoiser, indices=indices, loss=sg.SAG(squares, n=2, update=watch, window=(0.25, 0.75)), **settings)
    return torch.stack(made)


@every("update rule")
def test_every_sample_for_itself(case):
    whole = seen(case, [0, 1, 2])
    assert whole.shape == (2, 3, 6) and bool(whole.isfinite().all()) and whole.abs().max() > 0
    assert relative(seen(case, [2, 0]), whole[:, [2, 0]]) < 1e-9


@every("update rule")
def test_single_precision(case):
    single = seen(case, [0, 1], torch.float32)
    assert single.dtype == torch.float32
    assert relative(single.double(), seen(case, [0, 1])) < 1e-3


@every("constraint", "window")
def test_constraints_and_windows_in_a_run(case):
    def draw(indices, settings):
        return sg.sample(tiny(), indices=indices, steps=6, loss=sg.SAG(squares, n=2, **settings)).samples

    with_it = {case.kind: case.make()}
    batch = draw([0, 1, 2], with_it)
    assert relative(draw([2, 0], with_it), batch[[2, 0]]) < 1e-9
    assert relative(batch, draw([0, 1, 2], {})) > 1e-3
