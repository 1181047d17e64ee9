"""The site's own parts: every public name is in the reference, equations are drawn, links out of docs/ are names."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

import symguide as sg

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site():
    for library in ("mkdocs", "griffe", "latex2mathml"):
        pytest.importorskip(library)
    spec = importlib.util.spec_from_file_location("site_of_docs", ROOT / "docs" / "site.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_name_is_in_the_reference_once(site):
    entries = [
        line.removeprefix("::: ")
        for package, title in site.PACKAGES.items()
        for line in site.reference(package, title).splitlines()
        if line.startswith("::: ")
    ]
    names = [entry.rpartition(".")[2] for entry in entries]
    assert set(sg.__all__) - {"objectives"} <= set(names) and len(set(entries)) == len(entries)
    for name in ("Style", "CLIP", "Guider", "frechet", "ByIndex"):
        assert name in names
    module, _, name = next(entry for entry in entries if entry.endswith(".SAG")).rpartition(".")
    assert getattr(importlib.import_module(module), name) is sg.SAG


@pytest.fixture
def changed(site):
    """A page's text as the site has it, where there is one other page."""
    page = SimpleNamespace(file=SimpleNamespace(src_uri="results/some.md"))
    files = SimpleNamespace(get_file_from_path=lambda path: path if path == "tuning.md" else None)
    return lambda text: site.on_page_markdown(text, page, None, files)


def test_equations_are_drawn(changed):
    text = changed("so $`\\sqrt{d}`$ and\n\n```math\n\\frac{a}{b}\n```\n\nbut $5, `$x` and\n\n```\n$y$\n```\n")
    assert "<msqrt>" in text and "<mfrac>" in text and "$5, `$x`" in text and "$y$" in text and "\\sqrt" not in text


def test_links_lead_to_pages_or_are_names(changed):
    assert changed("[a](../tuning.md#b) [c](https://d) [e](#f)") == "[a](../tuning.md#b) [c](https://d) [e](#f)"
    assert changed("[the examples](../../examples) of it") == "the examples of it"
    assert changed("[gone](../gone.md)") == "[gone](../gone.md)"  # strict building stops at this one
    assert changed("![picture](../images/beyond.png)") == "![picture](../images/beyond.png)"


def test_examples_of_docstrings_are_code(site):
    docstring = SimpleNamespace(value="What.\n\n>>> f(1)\n[2]\n\nMore.")
    site.Doctests().on_object(obj=SimpleNamespace(docstring=docstring))
    assert docstring.value == "What.\n\n```pycon\n>>> f(1)\n[2]\n```\n\nMore."
