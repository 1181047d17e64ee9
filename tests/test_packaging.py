"""What a user gets who installs wheels: built here, installed into a fresh environment, run outside of the checkout."""

import ast
import importlib
import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import symguide as sg
from symguide.registry import registry_of
from symguide.worlds.emoji import drawings, names

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
    (Path(site) / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
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
    said = json.loads(run(python.parent / "symguide", "models", "--json", "-", folder=tmp_path).stdout)
    ours = [row for row in said if Path(row["folder"]).is_relative_to(python.parents[1])]
    assert {"digits", "scenes", "scenes-latent"} <= {row["name"] for row in ours}
    assert all(
        (row["weights"] == "missing") == (not registry_of("world")[row["name"]].denoiser.exists()) for row in ours
    )
    Path(next(row["folder"] for row in ours if row["name"] == "digits")).rename(tmp_path / "away")
    refused = run(*sample, folder=tmp_path, check=False)  # as where the weights are those of an older version
    assert refused.returncode == 2 and "pip install --upgrade symguide-worlds" in refused.stderr.splitlines()[-1]


def test_the_wheel_of_the_worlds_has_every_file_of_theirs_and_says_whose_drawings_they_learned_from(wheels):
    with zipfile.ZipFile(wheels["symguide_worlds"]) as wheel:
        held = set(wheel.namelist())
        notice = next(wheel.read(name).decode() for name in held if name.endswith("licenses/NOTICE"))
    source = WORLDS / "src"
    files = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    assert "symguide_worlds/emoji/names.json" in files
    assert {name for name in files if "__pycache__" not in name} <= held
    for style in names.STYLES:
        assert drawings.SETS[style].credit in notice and drawings.SETS[style].licence in notice


def fresh(code, folder):
    """What code prints in a new process that imports this checkout."""
    return run(
        sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); {code}", folder=folder
    ).stdout


def test_importing_symguide_imports_nothing_else_of_it_and_no_torch(tmp_path):
    said = fresh("import symguide; print(*sys.modules)", tmp_path).split()
    assert not {"torch", "numpy", "tqdm", "PIL", "yaml", "click"} & set(said)
    assert {name for name in said if name.startswith("symguide")} == {"symguide", "symguide.version"}


def test_modules_do_not_hide_the_functions_of_their_names(tmp_path):
    code = "import symguide.lookahead, symguide.checkpointed; import symguide as sg"
    assert fresh(f"{code}; print(type(sg.lookahead), type(sg.checkpointed))", tmp_path) == (
        "<class 'function'> <class 'function'>\n"
    )


def test_names_are_the_same_for_type_checkers_and_for_python():
    source = ast.parse(Path(sg.__file__).read_text())
    (block,) = (node for node in source.body if isinstance(node, ast.If))
    stated = {name.name: importlib.import_module(node.module) for node in block.body for name in node.names}
    assert sorted(stated) == sorted(sg.__all__) and set(stated) <= set(dir(sg))
    assert [name for name in stated if getattr(sg, name) is not getattr(stated[name], name)] == []


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'looking_ahead'"):
        sg.looking_ahead  # noqa: B018


def test_a_method_of_a_plug_in_is_a_name_too(monkeypatch):
    class Mine: ...

    monkeypatch.setitem(registry_of("particle guidance").things, "mine", Mine)
    assert sg.Mine is Mine
