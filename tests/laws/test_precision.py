"""Samples are of the precision that was asked for, and near those of double precision."""

import torch
from cases import every
from conftest import relative, squares

import symguide as sg

HOOKS = {"loss guidance": "loss", "prediction guidance": "prediction", "particle guidance": "particles"}


@every(*HOOKS)
def test_single_precision(case):
    def draw(dtype):
        torch.set_default_dtype(dtype)
        denoiser = case.model().to(dtype=dtype)
        given = () if case.kind == "prediction guidance" else (squares,)
        settings = {"batch": 3, "steps": 4, HOOKS[case.kind]: case.make(*given), **case.settings}
        samples = sg.sample(denoiser, **settings).samples
        assert samples.dtype == dtype
        return samples.double()

    assert relative(draw(torch.float32), draw(torch.float64)) < 1e-3
