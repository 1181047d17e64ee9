"""The README's first example runs as printed, and the docs know every registered name."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from symguide.loss_guidance import RECIPES
from symguide.particle_guidance import METHODS
from symguide.prediction_guidance import RULES
from symguide.solver import GRIDS, SOLVERS
from symguide.trajectory import TRAJECTORIES

ROOT = Path(__file__).parent.parent


def test_the_readmes_first_example_runs_as_printed(tmp_path):
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "forward_calls" in done.stdout
    assert (tmp_path / "out" / "quickstart.png").stat().st_size > 1000


@pytest.mark.parametrize(
    "name", [c.__name__ for c in (*RECIPES.values(), *RULES.values(), *METHODS.values(), *TRAJECTORIES.values())]
)
def test_every_method_has_its_paragraph(name):
    titles = {"UniversalGuidance": "Universal Guidance"}
    assert re.search(rf"^## {titles.get(name, name)}\b", (ROOT / "docs" / "methods.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", [*SOLVERS, *GRIDS])
def test_every_solver_and_grid_is_named(name):
    assert f"`{name}`" in (ROOT / "docs" / "methods.md").read_text()


@pytest.mark.parametrize(
    "path",
    ["README.md", *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").rglob("*.md")))],
)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / path).read_text()):
        assert target.startswith("http") or ((ROOT / path).parent / target).exists(), target
