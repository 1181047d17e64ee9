"""Every example runs, says something and writes what it says it wrote."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
FOLDERS = [script for script in EXAMPLES if 'add_argument("folder")' in script.read_text()]
"""Those that take a pipeline's folder: tests/pipelines/test_examples_pipelines.py."""


@pytest.mark.parametrize("script", [script for script in EXAMPLES if script not in FOLDERS], ids=lambda path: path.stem)
def test_example(script, tmp_path):
    environment = {**os.environ, "SYMGUIDE_QUICK": "1"}
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "nan" not in done.stdout.lower()
    (written,) = re.findall(r"^wrote (\S+)$", done.stdout, flags=re.MULTILINE)
    assert (tmp_path / written).stat().st_size > 100


def test_there_are_examples_and_they_are_short():
    assert len(EXAMPLES) >= 5
    assert all(len(script.read_text().splitlines()) < 60 for script in EXAMPLES)
