"""Training resumes exactly, and refuses checkpoints of other runs."""

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
