"""A package of others that brings one new thing of each kind in a file: each is found wherever the own ones are."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

SOURCE = '''
"""One new thing of each kind."""

from dataclasses import dataclass
from typing import Annotated

import torch

from symguide.branch import Branch, Rule
from symguide.loss import value_and_gradient
from symguide.loss_guidance.recipe import Push, Recipe, Scale
from symguide.objectives import Objective
from symguide.ranges import Range
from symguide.registry import named, register
from symguide.solver import solver, straight_weights
from symguide.trajectory.path import Path, check_iterations
from symguide.worlds import WEIGHTS, World


@register("loss guidance", "tug")
@dataclass(frozen=True, kw_only=True)
class Tug(Recipe):
    """Tug: moves the clean estimate by a share of the way down its gradient.

    Args:
        objective: clean samples (B, ...) -> loss (B,).
        scale: 0 is off.
        share: of the gradient.

    Cost of a guided step: 1 forward and no backward call.
    """

    scale: Scale = 1.0
    share: Annotated[float, Range(0.01, 0.5, log=True)] = 0.1

    def push(self, step):
        loss, gradient = value_and_gradient(self.objective_at(step), step.prediction.x0)
        return Push(gradient, loss, x0=-self.scale * self.share * gradient)


@named("update rule")
def halved(times: int = 1):
    """g, halved so many times."""
    return lambda gradient, step, loss: gradient / 2**times


@register("prediction guidance", "shrunk")
@dataclass(frozen=True)
class Shrunk(Rule):
    """Shrunk: the clean estimate times a factor.

    Args:
        factor: 1.0 is off.

    Cost: 1 call per sample.
    """

    factor: float = 0.9

    def calls(self, at):
        made = (yield {"c": Branch()})["c"]
        return made.with_x0(self.factor * made.x0)


@register("particle guidance", "first_of")
class FirstOf:
    """First of n: n particles for every sample, and the first one is kept.

    Args:
        n: particles for every sample; 1 is off.

    Cost: n times the run.
    """

    def __init__(self, n: int = 2) -> None:
        self.particles = n

    def move(self, step, x_s):
        return x_s

    def choose(self, samples, log_weights):
        return torch.arange(0, len(samples), self.particles)


@register("trajectory optimisation", "walk")
class Walk:
    """Walk: plain descent on the starting noise.

    Args:
        iterations: steps; 0 is off.
        rate: length of a step.

    Cost per sample: that of DOODL.
    """

    controlled = False

    def __init__(self, iterations: int = 2, rate: float = 0.01) -> None:
        self.iterations, self.rate = check_iterations(iterations), rate

    def visit(self, path: Path):
        point = path.at(path.start)
        yield point
        for _ in range(self.iterations):
            point = path.at(point.inputs[0] - self.rate * point.gradient()[0])
            yield point


@solver("euler_again")
def euler_again(program, schedule, x, t, s, past, stages=1):
    """The straight step once more."""
    r, c = straight_weights(schedule, t, s)
    return program.linear((r, x), (c, program.predict(x, t)))


@register("objective", "dark")
class Dark(Objective):
    """Dark pictures: the mean of all pixels."""

    def __call__(self, x0):
        return x0.flatten(1).mean(dim=1)


register("world", "digits-again")(
    World("the digits once more", WEIGHTS / "digits" / "denoiser", {"classifier": WEIGHTS / "digits" / "scorer"})
)
'''

USE = """
import torch
import symguide as sg
from symguide.registry import from_settings, registry_of, to_settings

dark = sg.objectives.OBJECTIVES["dark"]()
denoiser = sg.load("digits-again")
told = {"batch": 2, "steps": 3, "condition": {"label": 3}}
plain = sg.sample(denoiser, **told, solver="ddim").samples
assert torch.equal(sg.sample(denoiser, **told, solver="euler_again").samples, plain)
recipe = sg.Tug(dark, share=0.2, scale=3.0)
guided = sg.sample(denoiser, **told, loss=recipe).samples
assert (dark(guided) < dark(plain)).all()
assert from_settings("loss guidance", dark, to_settings(recipe)) == recipe
update = to_settings(sg.SAG(dark, update=sg.rules.chain(registry_of("update rule")["halved"](2))))["update"]
assert update == "chain(halved(2))", update
for hook, kind, name in (
    ("prediction", "prediction guidance", "shrunk"), ("particles", "particle guidance", "first_of")
):
    changed = sg.sample(denoiser, **told, **{hook: registry_of(kind)[name]()}).samples
    assert changed.shape == plain.shape
    assert torch.allclose(changed, plain, atol=1e-5) == (name == "first_of")
walked = sg.optimise(denoiser, dark, sg.Walk(rate=10.0), **told)
assert (walked.loss < walked.trace[0].loss).all()
settings = {"budget": 150, "num": 2, "seeds": (1,), "steps": 3, "condition": {"label": 3}}
tuned = sg.tune(denoiser, ["tug", "mpgd"], objective=dark, **settings)
assert {trial.method for trial in tuned.trials} == {"tug", "mpgd"}
assert any(trial.settings.get("share", 0.1) != 0.1 for trial in tuned.trials if trial.method == "tug")
"""


@pytest.fixture(scope="module")
def plugged(tmp_path_factory):
    """The environment of a process in which the package is installed."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "extra_things.py").write_text(SOURCE)
    info = folder / "extra_things-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extra-things\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[symguide.plugins]\nthings = extra_things\n")
    source = Path(__file__).parents[1] / "src"
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(source), str(folder)]),
    }


def python(plugged, *arguments, cwd=None):
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=plugged, timeout=240, cwd=cwd
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("methods", {"tug": "loss", "shrunk": "prediction", "first_of": "particle", "walk": "trajectory"}),
        ("objectives", {"dark": "mean of all pixels"}),
        ("models", {"digits-again": "the digits once more"}),
    ],
)
def test_what_a_plug_in_brings_is_listed(plugged, command, names):
    listed = {row["name"]: row for row in json.loads(python(plugged, "-m", "symguide.cli", command, "--json", "-"))}
    for name, what in names.items():
        assert what in json.dumps(listed[name])
    if command == "methods":
        assert listed["tug"]["parameters"]["share"] == 0.1 and "no backward call" in listed["tug"]["cost"]


def test_what_a_plug_in_brings_is_used_from_python(plugged):
    python(plugged, "-c", textwrap.dedent(USE))


def test_a_recipe_of_a_plug_in_is_used_from_the_command_line(plugged, tmp_path):
    guided = [*("--method", "tug", "--set", "share=0.2", "--scale", "2"), *("--objective", "classifier:3")]
    drawn = ["--model", "digits", "--steps", "3", "--num", "2", "--out", "drawn", "--set", "solver=euler_again"]
    python(plugged, "-m", "symguide.cli", "sample", *drawn, *guided, cwd=tmp_path)
    config = yaml.safe_load((tmp_path / "drawn" / "config.yaml").read_text())
    assert config["method"] == "tug" and config["share"] == 0.2 and config["solver"] == "euler_again"


def test_a_plug_in_that_cannot_be_imported_is_named_and_stops_nothing(plugged, tmp_path):
    (tmp_path / "torn_things.py").write_text("import nothing_of_that_name\n")
    info = tmp_path / "torn_things-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torn-things\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[symguide.plugins]\ntorn = torn_things\n")
    both = {**plugged, "PYTHONPATH": os.pathsep.join([plugged["PYTHONPATH"], str(tmp_path)])}
    code = "from symguide.registry import registry_of as r; print(*r('loss guidance'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=both, timeout=240)
    assert done.returncode == 0 and {"tug", "sag"} <= set(done.stdout.split())
    assert "the plug-in torn (torn_things) cannot be imported: No module named 'nothing_of_that_name'" in done.stderr
