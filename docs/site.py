"""What mkdocs does not do: the README as the first page, an API reference, equations, examples, links out of docs/.

Equations are written as GitHub shows them, ```math blocks and $`...`$ in a line, and become MathML, which browsers draw
without a script. A link to a file of the repository outside of docs/ becomes its name.
"""

import ast
import posixpath
import re
from pathlib import Path
from typing import Any

import griffe
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "": "Sampling, models, solvers",
    "loss_guidance": "Loss guidance",
    "prediction_guidance": "Prediction guidance",
    "particle_guidance": "Particle guidance",
    "trajectory": "Whole trajectories",
    "objectives": "Objectives",
    "encoders": "Encoders",
    "pipelines": "Diffusers pipelines",
    "integrations": "Models of other libraries",
    "tuning": "Tuning",
    "planning": "Memory, ahead of a run",
    "evaluation": "Evaluation",
    "report": "Reports",
}
"""Packages of the reference, in order, and what is in them."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Pages that nobody listed stand at the end of the menu, the reference after them."""
    listed = set(re.findall(r"[\w./-]+\.md", str(config.nav)))
    more = sorted(page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md"))
    more = [page for page in more if page not in listed and page != "results.md"]
    config.nav += [{"More": more}] if more else []
    config.nav += [{"API reference": [f"reference/{name or 'core'}.md" for name in PACKAGES]}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=readme))
    for package, title in PACKAGES.items():
        path = f"reference/{package or 'core'}.md"
        files.append(File.generated(config, path, content=reference(package, title)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    folder = posixpath.dirname(page.file.src_uri)

    def inside(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[2].partition("#")[0]))
        there = "://" in link[2] or link[2].startswith("#") or files.get_file_from_path(target) is not None
        repository = (ROOT / "docs" / target).exists() or (page.file.src_uri == "index.md" and (ROOT / target).exists())
        return link[0] if there or not repository else link[1]

    markdown = re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", inside, markdown)
    markdown = re.sub(r"^```math\n(.*?)^```$", lambda m: convert(m[1], display="block"), markdown, flags=re.M | re.S)
    return re.sub(r"\$`(.+?)`\$", lambda m: convert(m[1]), markdown)


def reference(package: str, title: str) -> str:
    """The page of a package: what it says of itself and its public names; of symguide those of no other page."""
    tree, names = public(package)
    if not package:
        others = {home.rpartition(".")[2] for name in PACKAGES if name for home in public(name)[1]}
        names = [home for home in names if home.rpartition(".")[2] not in others]
    about = f"`symguide.{package}`\n\n{ast.get_docstring(tree)}" if package else "`import symguide as sg`"
    return "\n\n".join([f"# {title}", about, *(f"::: {home}" for home in names)]) + "\n"


def public(package: str) -> tuple[ast.Module, list[str]]:
    """A package, and where all is that it lists in __all__ or imports under its own name."""
    tree = ast.parse((ROOT / "src" / "symguide" / package / "__init__.py").read_text(encoding="utf-8"))
    imports = [
        (node.module, alias)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    ]
    lists = (node.value for node in tree.body if isinstance(node, ast.Assign) and _name(node.targets[0]) == "__all__")
    listed = next(map(ast.literal_eval, lists), [alias.name for _, alias in imports if alias.asname == alias.name])
    own = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    homes = {name: f"symguide.{package}.{name}" for name in own}
    homes |= {alias.name: f"{module}.{alias.name}" for module, alias in imports}
    return tree, [home for name, home in homes.items() if name in listed]


def _name(target: ast.expr) -> str:
    return target.id if isinstance(target, ast.Name) else ""


class Doctests(griffe.Extension):
    """Examples of docstrings as code: without it every >>> is a quotation of a quotation."""

    def on_object(self, *, obj: griffe.Object, **settings: Any) -> None:
        if obj.docstring:
            obj.docstring.value = re.sub(r"^>>> .*(?:\n.+)*", r"```pycon\n\g<0>\n```", obj.docstring.value, flags=re.M)
