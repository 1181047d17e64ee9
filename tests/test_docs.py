"""The README's first example runs as printed, and the docs know every registered name."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from symguide.registry import registry_of
from symguide.solver import GRIDS, SOLVERS

ROOT = Path(__file__).parent.parent


def test_the_readmes_first_example_runs_as_printed(tmp_path):
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "forward_calls" in done.stdout
    assert (tmp_path / "out" / "quickstart.png").stat().st_size > 1000


def test_the_page_of_methods_is_what_the_docstrings_say():
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "docs" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert page == generate.page(), "run python docs/generate.py"
    for kind in ("loss guidance", "prediction guidance", "particle guidance", "trajectory optimisation"):
        for name, method in registry_of(kind).items():
            assert f"\n### {method.__name__}\n" in page and f"\n`{name}`: `{method.__name__}(" in page
    assert all(f"| `{name}` |" in page for name in (*SOLVERS, *GRIDS))


def test_the_example_of_contributing_is_a_method_and_its_row(tmp_path):
    """Its file registers a recipe that samples, and its row makes it."""
    page = (ROOT / "docs" / "contributing.md").read_text()
    source, row = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[:2]
    code = f"""
from functools import partial
import symguide as sg
from symguide.registry import REGISTRIES, registry_of
exec(compile({source!r}, "halfway.py", "exec"), globals())
LOSS, NONE = "loss guidance", {{"scale": 0}}
class Case:
    def __init__(self, kind, name, make, **row): self.kind, self.name, self.make, self.row = kind, name, make, row
case, = [{row}]
assert type(case.make(sum)) is registry_of(case.kind)[case.name] and case.row
loss = case.make(lambda x0: x0.square().flatten(1).sum(dim=1))
settings = dict(steps=4, batch=2)
denoiser = sg.GaussianDenoiser(torch.ones(3), torch.eye(3))
record = sg.sample(denoiser, loss=loss, **settings).trace[1]
assert (record.forward_calls, record.backward_calls) == case.row["cost"]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "path",
    ["README.md", *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").rglob("*.md")))],
)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / path).read_text()):
        assert target.startswith("http") or ((ROOT / path).parent / target).exists(), target
