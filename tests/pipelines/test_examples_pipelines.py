"""The examples of diffusers pipelines run on tiny ones from a folder, and guidance lowers the loss that they print."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from test_examples import FOLDERS
from zoo import build

DTYPE = torch.float32
RUNS = {
    "stable_diffusion": ("sd", ["--prompt", "w1 a cat"]),
    "sdxl": ("sdxl", ["--prompt", "w1 a cat"]),
    "flux": ("flux", ["--prompt", "w1 a cat", "--size", "32", "32"]),
    "video": (
        "wan",
        ["--prompt", "w1 w2", "--size", "16", "16", "--frames", "9", "--scale", "0.02"],
    ),  # it hardly moves
}


@pytest.mark.parametrize("script", FOLDERS, ids=lambda path: path.stem)
def test_example(script, folder, tmp_path):
    family, arguments = RUNS[script.stem]
    build(family, folder)[0].save_pretrained(tmp_path / "pipeline")
    done = subprocess.run(
        [sys.executable, script, tmp_path / "pipeline", *arguments],
        cwd=tmp_path,
        env={**os.environ, "SYMGUIDE_QUICK": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    plain, guided = map(float, re.search(r"loss: (\S+) unguided, (\S+) guided", done.stdout).groups())
    assert guided < plain
    (written,) = re.findall(r"^wrote (\S+)$", done.stdout, flags=re.MULTILINE)
    assert Path(tmp_path, written).stat().st_size > 100
