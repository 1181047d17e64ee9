"""Tiny models in float64 on which laws are checked, and a network that counts its own calls."""

import inspect
import math
import os
from dataclasses import replace

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is downloaded, and nobody waits for a hub
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of processes that tests start, too: workers share the cores

import pytest
import tiers
import torch
from click.testing import CliRunner
from torch import nn

import symguide as sg

torch.set_num_threads(1)

collect_ignore = ["pipelines/every"]  # a tier of its own: make test-pipelines

APART = "mix_stderr" in inspect.signature(CliRunner).parameters  # click 8.1 mixes them unless told
RUNNER = CliRunner(mix_stderr=False) if APART else CliRunner()

SCHEDULES = {
    "vp-linear": sg.VP.linear(),
    "vp-cosine": sg.VP.cosine(),
    "vp-discrete": sg.VP.discrete(betas=torch.linspace(1e-4, 0.02, 1000)),
    "ve": sg.VE(sigma_max=20.0),
    "flow": sg.RectifiedFlow(),
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in tiers.beyond_covering(items):
        item.add_marker(pytest.mark.full)
    for item in items:
        if any(part in item.nodeid for part in tiers.SLOW):
            item.add_marker(pytest.mark.slow)
        elif tiers.takes_long(item):
            item.add_marker(pytest.mark.full)


@pytest.fixture(autouse=True)
def default_dtype(request):
    """Laws are checked in float64, unless the module has another DTYPE; the default is put back after each test."""
    torch.set_default_dtype(getattr(request.module, "DTYPE", torch.float64))
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Where tiny pipelines keep their tokenizers."""
    return tmp_path_factory.mktemp("zoo")


@pytest.fixture(scope="session")
def guided_world():
    """The scenes model with its judge and a few held-out pictures, and what counts its calls."""
    from benchmarks.peers import quality

    return quality.world(replace(quality.QUICK, real=16), "cpu")


class Tiny(nn.Module):
    """A nonlinear network on flat samples that counts rows forward and backward, by itself."""

    def __init__(self, d: int = 6, width: int = 24, classes: int = 4, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.inner = nn.Parameter(torch.randn(d + 1, width, generator=generator, dtype=torch.float64) / math.sqrt(d))
        self.outer = nn.Parameter(torch.randn(width, d, generator=generator, dtype=torch.float64) / math.sqrt(width))
        self.labels = nn.Parameter(torch.randn(classes + 1, width, generator=generator, dtype=torch.float64))
        self.forward_rows = self.backward_rows = self.calls = 0

    def forward(self, x, timestep, label=None):
        self.calls += 1
        self.forward_rows += len(x)
        flat = x.flatten(1)
        time = (timestep / 1000).to(x)[:, None]
        hidden = torch.cat([flat, time], dim=1) @ self.inner
        if label is not None:
            hidden = hidden + self.labels[label]
        out = (torch.tanh(hidden) @ self.outer).reshape(x.shape)
        if out.requires_grad:
            out.register_hook(self._count)
        return out

    def _count(self, gradient):
        self.backward_rows += len(gradient)


def tiny(schedule="vp-linear", predicts="eps", shape=(6,), seed=0):
    return sg.Denoiser(Tiny(math.prod(shape), seed=seed), SCHEDULES[schedule], predicts, shape=shape, null={"label": 4})


def quartic(x0):
    """A smooth objective with a Hessian that is not constant."""
    return ((x0 - 0.3) ** 4).flatten(1).sum(dim=1) + x0.flatten(1).prod(dim=1)


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


def squares(x0):
    """A squared error, for recipes that take its root."""
    return (x0 - 0.5).square().flatten(1).sum(dim=1)
