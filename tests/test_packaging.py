"""What a user gets who installs wheels: built here, installed into a fresh environment, run outside of the checkout."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
WORLDS = ROOT / "packages" / "symguide-worlds"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input"]


def run(*command, folder, check=True):
    """The finished process; PYTHONPATH is gone, so that only what is installed can be imported."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [str(part) for part in command], cwd=folder, env=environment, capture_output=True, text=True, check=check
    )


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """symguide's wheel and that of its worlds, by the names of their packages."""
    folder = tmp_path_factory.mktemp("wheels")
    run(*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT, WORLDS, folder=folder)
    return {path.name.split("-")[0]: path for path in folder.glob("*.whl")}


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The python of a fresh environment that sees the dependencies of this one, and no symguide that can be imported.

    A path file puts a folder on sys.path without reading the path files in it, as which an editable install is there.
    """
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, symlinks=True)
    made = folder / "bin" / "python"
    site = run(made, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=folder).stdout.strip()
    (Path(site) / "dependencies.pth").write_text(str(Path(torch.__file__).parents[1]))
    return made


def install(python, wheel):
    target = ["--no-deps", "--no-index", "--ignore-installed", "--no-warn-script-location"]
    run(*PIP, "--python", python, "install", *target, wheel, folder=python.parent)


def test_an_installed_wheel_finds_the_installed_weights_and_says_what_to_install_without_them(wheels, python, tmp_path):
    assert wheels["symguide"].stat().st_size < 5e6 < wheels["symguide_worlds"].stat().st_size
    install(python, wheels["symguide"])
    where = run(python, "-c", "import symguide; print(symguide.__file__)", folder=tmp_path).stdout
    assert Path(where).is_relative_to(python.parents[1])

    sample = [python.parent / "symguide", "sample", "--model", "digits", "--num", 1, "--steps", 2, "--out", "out"]
    refused = run(*sample, folder=tmp_path, check=False)
    assert refused.returncode == 2
    assert 'are not installed: pip install "symguide[worlds]"' in refused.stderr.strip().splitlines()[-1]

    install(python, wheels["symguide_worlds"])
    done = run(*sample, folder=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "out").rglob("*.png"))
    said = run(python.parent / "symguide", "models", folder=tmp_path).stdout
    assert str(python.parents[1]) in said and "missing" not in said
