"""The demo writes what it says, measures what it draws, and ends with a sentence."""

import json
import sys

import pytest
import torch
from click.testing import CliRunner
from conftest import RUNNER

from symguide.cli import main
from symguide.demo.ahead import Elongated
from symguide.demo.run import one_thread
from symguide.demo.steer import real
from symguide.worlds import digits
from symguide.worlds.load import load


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
    result = CliRunner().invoke(main, ["demo", "digits", "--num", "1", "--steps", "3", "--out", str(tmp_path)])
    assert result.exit_code == 0 and 'pip install "symguide[report]"' in result.output
    assert not (tmp_path / "index.html").exists() and (tmp_path / "steer.png").exists()


def test_json_goes_to_stdout_alone(tmp_path):
    arguments = ["demo", "digits", "--num", "1", "--steps", "3", "--out", str(tmp_path), "--json", "-"]
    assert json.loads(RUNNER.invoke(main, arguments).stdout)["settings"]["num"] == 1


def test_a_wrong_device_is_a_sentence(tmp_path):
    result = CliRunner().invoke(main, ["demo", "--device", "abacus", "--out", str(tmp_path)])
    assert result.exit_code == 2 and "'abacus'" in result.output and "use cpu" in result.output


@pytest.mark.parametrize("world", ["tour", "digits"])
def test_too_few_steps_are_refused_before_anything_is_drawn(world, tmp_path):
    result = CliRunner().invoke(main, ["demo", world, "--steps", "2", "--out", str(tmp_path / "out")])
    assert result.exit_code == 2 and "--steps" in result.output and not (tmp_path / "out").exists()


TASKS = ["identity", "text", "inpainting"]


@pytest.fixture(scope="module")
def scenes_ran(tmp_path_factory):
    out = tmp_path_factory.mktemp("scenes")
    return CliRunner().invoke(
        main, ["demo", "scenes", "--num", "1", "--steps", "3", "--out", str(out)], catch_exceptions=False
    ), out


def test_scenes_are_steered_in_every_task(scenes_ran):
    result, out = scenes_ran
    assert result.exit_code == 0, result.output
    assert {p.stem for p in out.iterdir()} >= {"slim", "estimates", "style", *TASKS, "results"}
    results = json.loads((out / "results.json").read_text())
    for name in TASKS:
        rows = {row["method"]: row for row in results[name]}
        assert rows["unguided"]["forward_calls"] == 3  # without a caption there is one branch
        assert rows["SAG (n=4)"]["forward_calls"] == 2 * 7 + 1
        assert rows["SAG (n=4)"]["backward_calls"] == rows["SAG (n=4) + DSG"]["backward_calls"] == 2 * 4
        assert len({row["judge"] for row in rows.values()}) == 4
    assert f"identity {results['identity'][0]['judge']:.2f} to " in result.output


def test_more_calls_are_shown_beside_what_strength_buys(scenes_ran):
    """Two panels of one call and more at one strength, and of one call at others: windows, calls and sentences."""
    result, out = scenes_ran
    results = json.loads((out / "results.json").read_text())
    style = {row["method"]: row for row in results["style"]}
    assert {name: (row["forward_calls"], row["backward_calls"]) for name, row in style.items()} == {
        "unguided": (6, 0),  # two branches; one step of three is in the middle window
        "one call": (6, 2),
        "two calls": (2 * (2 + 3), 2 * 2),
        "one call, twice as strong": (6, 2),
    }
    assert len({row["scorer"] for row in style.values()}) == 4
    slim = {row["method"]: row for row in results["slim"]}
    assert [slim[name]["scale"] for name in ("one call", "two calls", "four calls")] == [0.2] * 3
    assert slim["one call, weaker"]["scale"] < 0.2 < slim["one call, stronger"]["scale"]
    assert slim["four calls"]["forward_calls"] == 1 + 2 * 7 and slim["four calls"]["backward_calls"] == 2 * 4
    assert slim["real digits"]["met"] == 1
    share = results["style"][2]["scorer"] / results["style"][1]["scorer"]
    assert f"two calls have {share:.2f} of one call's loss" in result.output
    assert f"one call ahead meets it in {slim['one call']['met']:.0%} of the samples" in result.output


def test_two_calls_are_ahead_of_one_at_any_strength_in_the_first_panel():
    """What its title says, on noise of no seed that its strengths were chosen on."""
    panel = Elongated(load("digits"), 16, "cpu")
    panel.methods = [method for method in panel.methods if "call" in method.name and "four" not in method.name]
    panel.run(lambda name, work: None, 20, 5)
    two, single = ([row for row in panel.rows if row["method"].startswith(n)] for n in ("two calls", "one call"))
    assert len(single) == 3 and two[0]["met"] > max(row["met"] for row in single)
    assert two[0]["met"] > 0.4 + max(row["met"] for row in single if row["scale"] <= two[0]["scale"])
    assert all(two[0]["frechet"] < row["frechet"] / 2 for row in single if row["scale"] >= two[0]["scale"])


def test_more_calls_see_more_of_the_sample_to_come(scenes_ran):
    rows = json.loads((scenes_ran[1] / "results.json").read_text())["estimates"]
    one, two, four = ([v for k, v in row.items() if k != "calls"] for row in rows)
    assert rows[0]["calls"] == "1 call" and rows[2]["calls"] == "4 calls"
    assert len(one) == len(two) == len(four) and one[0] > two[0] > 0


def test_the_page_of_scenes_holds_all_pictures(scenes_ran):
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    html = (scenes_ran[1] / "index.html").read_text()
    assert html.count("data:image/png;base64,") == 3 + len(TASKS) and html.count("<svg") == 1 + len(TASKS)
    first, _, rest = html.partition("What guidance sees on the way")
    assert "Where looking ahead pays" in first and "Style</h2>" in rest and "Identity" in rest
    results, closing = (
        json.loads((scenes_ran[1] / "results.json").read_text()),
        html.partition("The other tasks, by")[2],
    )
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
