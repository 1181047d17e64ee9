"""Training resumes exactly, and its measures give known values."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from symguide.errors import ConfigError, WeightsError

TRAINING = Path(__file__).parents[1] / "training"


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(TRAINING), *sys.path])


@pytest.fixture(autouse=True)
def single():
    """These tests start from float32, as users do."""
    torch.set_default_dtype(torch.float32)


def train(tmp_path, stop=None, **settings):
    """Average weights after 10 steps on random targets, stopped by an error at step `stop`."""
    from fit import Run, fit

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))

    def loss(step):
        if step == stop:
            raise KeyboardInterrupt
        return (network(torch.randn(8, 3)) - torch.randn(8, 1)).square().mean()

    run = Run(
        **{"steps": 10, "rate": 0.1, "seed": 3, "checkpoint": tmp_path / "run.safetensors", "every": 3, **settings}
    )
    return fit(network, loss, run)[0].state_dict()


def test_a_stopped_run_resumes_to_the_same_weights(tmp_path):
    whole = train(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "b", stop=8)
    resumed = train(tmp_path / "b", resume=True)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_checkpoints_of_other_settings_and_other_files_are_refused(tmp_path):
    train(tmp_path)
    with pytest.raises(ConfigError, match="use the same settings"):
        train(tmp_path, resume=True, rate=0.2)
    (tmp_path / "run.safetensors").write_bytes(b"no checkpoint")
    with pytest.raises(WeightsError, match="is no checkpoint"):
        train(tmp_path, resume=True)


def test_frechet_distance_of_gaussians():
    from measure import frechet

    torch.manual_seed(0)
    a = torch.randn(500, 4, dtype=torch.float64)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet(a, a + 2) == pytest.approx(16)
    c = torch.cov(a.T)
    assert frechet(a, 3 * a - 2 * a.mean(0)) == pytest.approx(4 * c.trace().item())


def test_nearest_neighbours():
    from measure import nearest

    x = torch.tensor([[0.0, 0.0], [1.0, 1.0], [3.0, 3.0]])
    assert nearest(x, x).tolist() == [0, 0, 0]
    assert nearest(x, x, others=True).tolist() == [1, 1, 2]
