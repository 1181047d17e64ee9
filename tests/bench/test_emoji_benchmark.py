"""The study on emoji: what stands beside the methods, what of cells becomes rows, and that it all runs and goes on."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from benchmarks import emoji, papercell, render, world
from benchmarks.papercell import KEYS, Plan
from emoji_stand_ins import album, judges, model, replace_world

import symguide as sg
from symguide.errors import WeightsError
from symguide.evaluation import emoji as evaluation
from symguide.evaluation import emoji_tasks
from symguide.evaluation.emoji_album import Pairs

DTYPE = torch.float32


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch, tmp_path):
    """A tiny model, a few drawings, and networks that see mean colours; files go to a folder of the test."""
    book, tiny = album(noise=40.0), model()
    replace_world(monkeypatch, book, evaluation, emoji_tasks)
    monkeypatch.setattr(evaluation, "with_or_without", lambda: (book, None))
    monkeypatch.setattr(emoji, "album", lambda: book)
    for module in (world, emoji):
        monkeypatch.setattr(module, "loaded", lambda name, device: tiny)
    monkeypatch.chdir(tmp_path)
    return book


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["emoji.py", *words])
    emoji.main()


def rows(printed):
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("| ")]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:] if len(line) == len(lines[0])]


def test_what_stands_beside_the_methods():
    made = emoji.Emoji(real=20)
    assert made.plain("style") == (emoji.TRUTH, emoji.COPY, "unguided", emoji.TOLD)
    assert made.plain("line-art") == (emoji.TRUTH, emoji.COPY, "unguided")
    assert made.plain("inpainting") == (emoji.TRUTH, "unguided")  # training saw no drawing of these
    truth, copy = (made.without("style", what, 0, 3, 2) for what in (emoji.TRUTH, emoji.COPY))
    assert truth["pixels"] == truth["features"] == 0 and truth["nearer, pixels"] == 1 and truth["forward"] == 0
    goal = made.task("style", range(3))
    away = [
        min((k - t).square().mean().sqrt().item() for k, s in zip(known, seen, strict=True) if s)
        for known, seen, t in zip(goal.known, goal.seen, goal.truth, strict=True)
    ]
    assert copy["pixels"] == pytest.approx(sum(away) / 3, rel=1e-5) and copy["nearer, pixels"] == 0
    assert "nearer, pixels" not in made.without("inpainting", emoji.TRUTH, 0, 3, 2)
    told, plain = (made.without("style", what, 0, 3, 2) for what in (emoji.TOLD, "unguided"))
    assert told["forward"] == plain["forward"] == 4 and told["pixels"] != plain["pixels"]
    drawn = sg.sample(
        made.denoiser, batch=3, steps=2, seed=0, condition=dict(goal.upper), prediction=sg.CFG(3.0)
    ).samples
    assert told["pixels"] == pytest.approx((drawn - goal.truth).square().mean((1, 2, 3)).sqrt().mean().item(), rel=1e-4)


def test_a_translation_may_begin_with_the_drawing(monkeypatch):
    made = emoji.Emoji(real=20)
    assert made.plain("translation") == (emoji.TRUTH, emoji.COPY, "unguided", emoji.NOISED)
    goal, far = made.task("translation", range(3)), {}
    for begin in (0.6, 0.002):
        monkeypatch.setattr(emoji, "BEGIN", begin)
        monkeypatch.setattr(made, "figures", lambda goal, samples, cost: samples)
        drawn = made.without("translation", emoji.NOISED, 0, 3, 3)
        far[begin] = (drawn - goal.reference).square().mean().sqrt().item()
    assert far[0.002] < 0.1 < far[0.6]  # from next to no noise the drawing comes back


def test_judges_that_are_missing_are_named(monkeypatch, stand_ins):
    monkeypatch.setattr(emoji, "judges", lambda **_: judges(stand_ins, ("style",), {"judge name": "pip install it"}))
    with pytest.raises(WeightsError, match="pip install it"):
        emoji.Emoji(real=4)


def test_quick_of_a_task(monkeypatch, capsys):
    pytest.importorskip("optuna")
    run(monkeypatch, "style", "--quick")
    found = {row["method"]: row for row in rows(capsys.readouterr().out) if "judge" in row}
    beside = [emoji.TRUTH, emoji.COPY, "unguided", emoji.TOLD]
    assert list(found)[:4] == beside and {"FreeDoM", "SAG n=2 own", "SAG n=2, set as FreeDoM"} <= set(found)
    assert found[emoji.TRUTH]["pixels to truth"].startswith("0.000") and found["unguided"]["forward"] == "8"
    assert found["SAG + DSG"]["settings"].endswith(("n 2", "n 4"))
    kept = list((emoji.FOLDER / "emoji-quick").glob("style-*.jsonl"))
    assert len(kept) == 4 and not list(kept[0].parent.parent.glob("*.jsonl"))
    # what is done is not measured again
    monkeypatch.setattr(emoji.Emoji, "measured", None)
    run(monkeypatch, "style", "--quick")
    again = {row["method"]: row for row in rows(capsys.readouterr().out) if "judge" in row}
    assert again == found


def test_quick_of_the_cell_and_the_model(monkeypatch, capsys):
    run(monkeypatch, "cell", "--quick")
    one, two = rows(capsys.readouterr().out)
    assert (one["n"], one["calls"], two["n"], two["calls"]) == ("1", "50 + 20", "2", "70 + 40")
    assert two["scorer : one call"] and not one["scorer : one call"]
    run(monkeypatch, "model", "--quick")
    printed, _, styles = capsys.readouterr().out.partition("| task")
    assert [row["drawings"] for row in rows(f"| task{styles}")] == ["10", "10"]
    found = {(row[""], row["figure"]): row for row in rows(printed)}
    row = found["trained characters", "style"]
    assert 0 <= float(row["emoji"]) <= float(row["drawings"]) <= 1
    assert found["copies, in pixels", "its own nearest"]["drawings"] == ""


def test_results_are_written_for_the_tables(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("benchmarks.common.RESULTS", tmp_path)
    monkeypatch.setattr(render, "RESULTS", tmp_path)
    monkeypatch.setattr(render, "results", render.results.__wrapped__)
    monkeypatch.setattr(emoji, "PARTS", {"cell": ([Plan("style", 1, model="emoji", steps=4)], (0, 1), 2)})
    run(monkeypatch, "cell")
    cells = json.loads((tmp_path / "emoji-cell.json").read_text())["results"]["cells"]
    assert [cell["seed"] for cell in cells] == [0, 1]
    (row,) = render.TABLES["emoji-cell"]()
    assert row["runs"] == "2 x 2" and set(row) == set(emoji.CELL)
    mean = sum(cell["pixels"] for cell in cells) / 2
    assert row["pixels to truth"].startswith(f"{mean:.3f} ±")
    monkeypatch.setattr(papercell.Guided, "cell", None)
    run(monkeypatch, "cell", "--report")  # from what is there
    assert "1 |" in capsys.readouterr().out
    row = dict.fromkeys(("method", "settings", *emoji.FIGURES, "forward", "backward", "seconds"), "x")
    monkeypatch.setattr(emoji, "tuned", lambda name, *rest: {"rows": [row | {"method": name, "peak": 1}]})
    run(monkeypatch, "text")
    assert render.TABLES["emoji-text"]() == [row | {"method": "text"}]


def test_names_that_are_kept_are_counted_from_those_of_unguided_samples():
    """Two calls have 0.8 of one call's judge at the same names; unguided samples have 0.9 of them."""
    made = []
    for n, factor in ((1, 1.0), (2, 0.8)):
        for step, scale in enumerate((0.0, *papercell.CURVE)):
            plan = Plan("style", n if scale else 0, scale=scale or 0.3, model="emoji")
            five = 0.9 - 0.15 * step
            figures = {"among five": five, "judge": (factor if step else 1.0) * (2 + five)}
            made += [dict(zip(KEYS, (*plan.key, seed, 4), strict=True)) | figures for seed in (0, 1)]
    (row,) = emoji.at_equal_names(made)
    assert row["task"] == "style" and row["60% kept"] == "0.80 (0.80 to 0.80)"
    assert emoji.at_equal_names([]) == []


def test_styles_are_told_apart_where_the_true_drawing_has_the_lowest_loss(monkeypatch, stand_ins):
    """By losses that are the distance to style 0 in red, whatever is asked: right where the truth is of style 0."""
    near = stand_ins.pictures(Pairs(torch.arange(12), torch.zeros(12, dtype=torch.long)))
    goal = emoji.task("style", range(9))

    def loss(x):
        return (x - near[goal.character]).square().mean((1, 2, 3))

    made = replace(goal, scorer=loss, judge=lambda x: -loss(x) - 9 * (x == goal.truth).flatten(1).all(1))
    monkeypatch.setattr(emoji, "task", lambda name, indices: made)
    row = emoji.told_apart(9)[0]
    assert row["scorer"] == f"{(goal.style == 0).double().mean():.2f}" and row["judge"] == "1.00"


def test_balanced_objectives_are_reported_by_their_plain_sum():
    x = torch.rand(2, 3)
    balanced = sg.objectives.Balanced([lambda x: x[:, 0], lambda x: 100 * x[:, 1]])
    torch.testing.assert_close(emoji.total(balanced, x), x[:, 0] + 100 * x[:, 1])
    assert torch.equal(emoji.total(lambda x: x[:, 2], x), x[:, 2])
