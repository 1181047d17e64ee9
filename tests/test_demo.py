"""The demo writes what it says, measures what it draws, and ends with a sentence."""

import json
import sys

import pytest
import torch
from click.testing import CliRunner
from conftest import RUNNER

from symguide.cli import main
from symguide.demo.run import one_thread
from symguide.demo.steer import real
from symguide.worlds import digits


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    arguments = [
        "demo",
        "digits",
        "--num",
        "3",
        "--steps",
        "3",
        "--out",
        str(out / "a"),
        "--json",
        str(out / "figures.json"),
    ]
    return CliRunner().invoke(main, arguments, catch_exceptions=False), out


def test_it_ends_well_and_names_its_files(ran):
    result, out = ran
    assert result.exit_code == 0, result.output
    assert {p.name for p in (out / "a").iterdir()} >= {"steer.png", "inpaint.png", "results.json"}
    for path in (out / "a").iterdir():
        assert str(path) in result.output and path.stat().st_size > 500
    assert "SAG (n=4) + DSG" in result.output and "never told a digit" in result.output


def test_results_hold_what_was_measured_and_how_to_run_it_again(ran):
    _, out = ran
    results = json.loads((out / "a" / "results.json").read_text())
    assert results == json.loads((out / "figures.json").read_text())
    assert results["command"] == "symguide demo digits --num 3 --steps 3 --seed 0 --device cpu"
    rows = {row["method"]: row for row in results["steer"]}
    assert rows["unguided"]["forward_calls"] == 3 and rows["unguided"]["backward_calls"] == 0
    assert rows["FreeDoM"]["backward_calls"] == 2  # the last step, to sigma = 0, is not guided
    assert rows["SAG (n=4)"]["forward_calls"] == 2 * 7 + 1 and rows["SAG (n=4)"]["backward_calls"] == 2 * 4
    assert rows["SAG (n=4)"]["peak_bytes"] == rows["FreeDoM"]["peak_bytes"]
    assert rows["real digits"]["judge_accuracy"] == 1 and "forward_calls" not in rows["real digits"]
    assert {row["method"] for row in results["inpaint"]} >= {"DPS", "SAG (n=4)", "DSG", "reference"}


def test_the_page_shows_both_panels(ran):
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    html = (ran[1] / "a" / "index.html").read_text()
    assert html.count("data:image/png;base64,") == 2 and html.count("<svg") == 1
    assert "symguide demo digits --num 3" in html and "seed 0" in html and "torch" in html


def test_without_the_extra_there_is_no_page_and_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    result = CliRunner().invoke(main, ["demo", "digits", "--num", "1", "--steps", "2", "--out", str(tmp_path)])
    assert result.exit_code == 0 and 'pip install "symguide[report]"' in result.output
    assert not (tmp_path / "index.html").exists() and (tmp_path / "steer.png").exists()


def test_json_goes_to_stdout_alone(tmp_path):
    arguments = ["demo", "digits", "--num", "1", "--steps", "2", "--out", str(tmp_path), "--json", "-"]
    assert json.loads(RUNNER.invoke(main, arguments).stdout)["settings"]["num"] == 1


def test_a_wrong_device_is_a_sentence(tmp_path):
    result = CliRunner().invoke(main, ["demo", "--device", "abacus", "--out", str(tmp_path)])
    assert result.exit_code == 2 and "'abacus'" in result.output and "use cpu" in result.output


TASKS = ["style", "aesthetics", "personalisation", "identity", "text", "inpainting"]


@pytest.fixture(scope="module")
def scenes_ran(tmp_path_factory):
    out = tmp_path_factory.mktemp("scenes")
    return CliRunner().invoke(
        main, ["demo", "--num", "1", "--steps", "2", "--out", str(out)], catch_exceptions=False
    ), out


def test_scenes_are_steered_in_every_task(scenes_ran):
    result, out = scenes_ran
    assert result.exit_code == 0, result.output
    assert {p.stem for p in out.iterdir()} >= {"estimates", *TASKS, "results"}
    results = json.loads((out / "results.json").read_text())
    for name in TASKS:
        rows = {row["method"]: row for row in results[name]}
        double = 1 if name in ("identity", "text", "inpainting") else 2  # without a caption there is one branch
        assert rows["unguided"]["forward_calls"] == 2 * double
        assert rows["SAG (n=4)"]["forward_calls"] == (7 + 1) * double
        assert rows["SAG (n=4)"]["backward_calls"] == rows["SAG (n=4) + DSG"]["backward_calls"] == 4 * double
        assert len({row["judge"] for row in rows.values()}) == 4
    assert f"style {results['style'][0]['judge']:.2f} to " in result.output


def test_more_calls_see_more_of_the_sample_to_come(scenes_ran):
    rows = json.loads((scenes_ran[1] / "results.json").read_text())["estimates"]
    one, two, four = ([v for k, v in row.items() if k != "calls"] for row in rows)
    assert rows[0]["calls"] == "1 call" and rows[2]["calls"] == "4 calls"
    assert len(one) == len(two) == len(four) and one[0] > two[0] > 0


def test_the_page_of_scenes_holds_all_pictures(scenes_ran):
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    html = (scenes_ran[1] / "index.html").read_text()
    assert html.count("data:image/png;base64,") == 1 + len(TASKS) and html.count("<svg") == len(TASKS)
    assert "What guidance sees on the way" in html and "Personalisation" in html
    results, closing = json.loads((scenes_ran[1] / "results.json").read_text()), html.partition("All tasks, by")[2]
    for name in TASKS:
        assert all(f"<td>{row['judge']:.3f}</td>" in closing for row in results[name])


def test_real_digits_show_the_targets():
    targets = torch.arange(1500) % 10
    shown = real(targets)
    assert len(shown.flatten(1).unique(dim=0)) > 1300
    assert (digits.judge()(shown).argmax(1) == targets).double().mean() > 0.99


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
