"""Tiny models in float64 on which laws are checked, and a network that counts its own calls."""

import inspect
import math
import os
from dataclasses import replace

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is downloaded, and nobody waits for a hub

import pytest
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


SLOW = (
    # further settings and families of mechanisms that other cases have
    *(
        "test_further_settings_are_right",
        "test_the_gradient_is_exact_in_further_settings",
        "test_the_gradient_is_exact[svd]",
    ),
    *("test_what_a_call_saves[sd3-", "test_what_a_call_saves[sdxl-", "test_what_a_call_saves[sd-unguided-"),
    *("test_what_a_call_saves[sd-inpaint-9-", "test_cards_that_are_enough[sdxl-"),
    *(
        f"test_scale_0_is_bit_identical_and_guidance_lowers_the_loss[{name}]"
        for name in ("ddpm", "euler", "deis", "lms")
    ),
    *(f"test_scale_0_is_bit_identical_and_guidance_lowers_the_loss[{name}]" for name in ("euler-karras", "tcd")),
    *(f"test_scale_0_is_bit_identical_and_guidance_lowers_the_loss[dpm++ 2m{more}]" for more in ("", " karras")),
    # whole processes of which others of a kind stay: examples of pipelines, quick forms of benchmarks
    *("test_examples_pipelines.py::test_example[flux]", "test_examples_pipelines.py::test_example[sdxl]"),
    *("test_examples_pipelines.py::test_example[video]", "test_benchmarks.py::test_pipelines"),
    *(f"test_benchmarks.py::test_quick[{name}-" for name in ("nstudy", "digits", "lookahead", "reuse")),
    *("test_methods_are_tuned_and_compared", "test_the_command_runs_a_stage_in_a_process_of_its_own"),
)
"""What `make test-slow` runs, by part of its name, and `make test` does not."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if any(part in item.nodeid for part in SLOW):
            item.add_marker(pytest.mark.slow)


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


class Noisy:
    """An objective that is asked about noisy samples: the same whatever the noise level, but for a factor."""

    def __init__(self, objective):
        self.objective = objective

    def __call__(self, x0):
        return self.objective(x0)

    def noisy(self, x, t, schedule):
        loss = self.objective(x)
        return loss * schedule.alpha(t) if isinstance(loss, torch.Tensor) else loss


class Posed(sg.objectives.Measurement):
    """A measurement of everything, whose loss is another objective's."""

    class Everything(sg.objectives.LinearOperator):
        def __call__(self, x):
            return x

        adjoint = __call__

    def __init__(self, objective):
        super().__init__(self.Everything(), torch.zeros(1), 0.5)
        self.objective = objective

    def residual(self, x0):
        return -x0

    def __call__(self, x0):
        return self.objective(x0)


RECIPES = {
    "sag": lambda o, **k: sg.SAG(o, n=3, **k),
    "sag-first": lambda o, **k: sg.SAG(o, n=3, jacobian="first", **k),
    "sag-n-of-t": lambda o, **k: sg.SAG(o, n=lambda t: 3 if t > 0.5 else 1, memory="fast", **k),
    "sag-sphere": lambda o, **k: sg.SAG(o, n=2, constraint=sg.Sphere(0.2), **k),
    "sag-repeats": lambda o, **k: sg.SAG(o, n=2, repeats=2, window=(0.2, 0.8), **k),
    "freedom": sg.FreeDoM,
    "dps": sg.DPS,
    "mpgd": sg.MPGD,
    "mpgd-anew": lambda o, **k: sg.MPGD(o, eps="anew", **k),
    "mpgd-sphere": lambda o, **k: sg.MPGD(o, constraint=sg.Sphere(0.2), **k),
    "universal": lambda o, **k: sg.UniversalGuidance(o, backward_steps=3, repeats=2, **k),
    "lgd": lambda o, **k: sg.LGD(o, samples=3, **k),
    "pigdm": lambda o, **k: sg.PiGDM(Posed(o), **k),
    "dsg": sg.DSG,
    "tfg": lambda o, **k: sg.TFG(o, samples=2, **k),
    "tfg-mean": lambda o, **k: sg.TFG(o, rho=0, mu=0.2, sigma=0.0, **k),
    "tfg-sphere": lambda o, **k: sg.TFG(o, constraint=sg.Sphere(0.2), **k),
    "abms": sg.ABMS,
    "abms-draws": lambda o, **k: sg.ABMS(o, samples=3, n=2, **k),
    "abms-sphere": lambda o, **k: sg.ABMS(o, constraint=sg.Sphere(0.2), **k),
    "adam-dps": sg.AdamDPS,
    "adam-repeats": lambda o, **k: sg.AdamDPS(o, repeats=2, window=(0.2, 0.8), **k),
    "ecm": lambda o, **k: sg.ECM(o, scale=0.1, **k),
    "elucd": sg.EluCD,
    "dreamguider": sg.Dreamguider,
    "classifier": lambda o, **k: sg.ClassifierGuidance(Noisy(o), **k),
    "classifier-mean": lambda o, **k: sg.ClassifierGuidance(Noisy(o), form="mean", **k),
    "classifier-sphere": lambda o, **k: sg.ClassifierGuidance(Noisy(o), constraint=sg.Sphere(0.2), **k),
}
"""Every registered recipe, with the settings that change its path through the code."""


def squares(x0):
    """A squared error, for recipes that take its root."""
    return (x0 - 0.5).square().flatten(1).sum(dim=1)
