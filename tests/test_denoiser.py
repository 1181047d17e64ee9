import numpy as np
import pytest
import torch
from conftest import Tiny, relative, tiny

import symguide as sg


def test_conditions_come_in_many_forms():
    denoiser = tiny()
    draws = [
        sg.sample(denoiser, batch=2, steps=2, condition={"label": label}).samples
        for label in (
            [1, 1],
            (1, 1),
            1,
            np.array([1, 1]),
            np.int64(1),
            torch.tensor([1, 1]),
            torch.tensor(1),
            torch.tensor([1]),
        )
    ]
    assert all(torch.equal(d, draws[0]) for d in draws)
    assert not torch.equal(draws[0], sg.sample(denoiser, batch=2, steps=2, condition={"label": 2}).samples)


def test_floating_conditions_follow_the_networks_precision():
    seen = []

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16))

        def forward(self, x, timestep, text=None, label=None):
            seen.append((x.dtype, timestep.dtype, text.dtype, label.dtype))
            return x * self.scale

    condition = {"text": torch.zeros(2, 7, 5), "label": [0, 1]}
    sg.sample(sg.Denoiser(Network(), shape=(3,)), batch=2, steps=1, condition=condition)
    assert seen == [(torch.bfloat16, torch.float64, torch.bfloat16, torch.int64)]


def test_times_of_their_own():
    """t as (B,): each sample at its own noise level, as if alone."""
    denoiser, x, t = tiny(), torch.randn(3, 6), torch.tensor([0.2, 0.5, 0.9])
    together = denoiser(x, t)
    for k in range(3):
        alone = denoiser(x[k : k + 1], t[k].item())
        assert relative(together.x0[k], alone.x0[0]) < 1e-12
        assert relative(together.eps[k], alone.eps[0]) < 1e-12
        assert relative(together.v[k], alone.v[0]) < 1e-12


def test_to_copies_and_leaves_the_original():
    denoiser = tiny()
    low = denoiser.to(dtype=torch.float32)
    assert (denoiser.dtype, low.dtype) == (torch.float64, torch.float32)
    assert denoiser.to("cpu", torch.float64) is denoiser
    plain = sg.Denoiser(lambda x, timestep: x)
    assert plain.to("cpu", torch.float32) is plain


def test_cfg_takes_a_negative_condition_and_any_scale():
    denoiser, x = tiny(), torch.randn(2, 6)
    c, u, n = (denoiser(x, 0.5, label=torch.tensor([k, k])).eps for k in (1, 4, 2))
    for scale in (-1.0, 0.0, 0.5, 3.0):
        made = sg.CFG(scale)(denoiser, x, 0.5, {"label": torch.tensor([1, 1])})
        assert relative(made.eps, u + scale * (c - u)) < 1e-12
        assert torch.allclose(made.shift, scale * (c - u))
    made = sg.CFG(2.0, negative={"label": 2})(denoiser, x, 0.5, {"label": torch.tensor([1, 1])})
    assert relative(made.eps, n + 2.0 * (c - n)) < 1e-12
    with pytest.raises(sg.ConfigError, match="no null condition"):
        sg.CFG(2.0)(sg.Denoiser(Tiny()), x, 0.5, {"label": torch.tensor([1, 1])})


def test_models_are_saved_and_loaded_whole(tmp_path):
    denoiser = sg.load("digits", dtype=torch.float32)
    sg.save(denoiser, tmp_path / "copy", card="# a copy")
    again = sg.load(tmp_path / "copy", dtype=torch.float32)
    settings = {"batch": 2, "steps": 2, "condition": {"label": [3, 10]}, "dtype": torch.float32}
    assert torch.equal(sg.sample(denoiser, **settings).samples, sg.sample(again, **settings).samples)
    assert again.null == {"label": 10}
    with pytest.raises(sg.ConfigError, match="registered class"):
        sg.save(sg.Denoiser(lambda x, timestep: x), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_folder_that_is_no_denoiser():
    from symguide.worlds.digits import JUDGE

    with pytest.raises(sg.ConfigError, match="not a model to sample from"):
        sg.load(JUDGE)
    with pytest.raises(sg.WeightsError, match="cannot read"):
        sg.load("some/folder")
