"""The pages of results: tables are what the results say, and answers stand on figures of the page that they link to."""

import json
import re
import sys
from pathlib import Path

import pytest
from benchmarks.render import main

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "results"
ANSWERS = [
    [cell.strip() for cell in line.strip("|\n").split("|")]
    for line in (PAGES / "README.md").read_text().splitlines()[7:]
    if line.startswith("| ")
]


def test_tables_are_what_the_results_say(tmp_path, monkeypatch, capsys):
    def render(*words):
        monkeypatch.setattr(sys, "argv", ["render.py", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().out

    code, said = render("--check")
    assert code == 0, f"{said}: run python benchmarks/render.py"
    page = (PAGES / "8-tuned.md").read_text()
    (tmp_path / "page.md").write_text(page.replace("0.343 ± 0.049", "0.243 ± 0.049"))
    assert render("--check", "--pages", str(tmp_path)) == (1, "not what the results say: page.md\n")
    assert render("--pages", str(tmp_path))[0] == 0 and (tmp_path / "page.md").read_text() == page


def test_a_table_has_the_figures_of_the_runs_themselves():
    """Of one row, from its cells and not from the row that is kept beside them."""
    cells = json.loads((ROOT / "benchmarks" / "results" / "paper-identity.json").read_text())["results"]["cells"]
    judged = [cell["judge"] for cell in cells if cell["method"] == "FreeDoM"]
    line = next(line for line in (PAGES / "8-tuned.md").read_text().splitlines() if line.startswith("| FreeDoM |"))
    assert len(judged) == 3 and f"| {sum(judged) / 3:.3f} ±" in line


@pytest.mark.parametrize("page", sorted(PAGES.glob("[0-9]*.md")), ids=lambda page: page.stem)
def test_pages_answer_first_and_every_table_is_marked(page):
    text = page.read_text()
    lines = text.splitlines()
    assert lines[0].startswith("# ") and lines[2].startswith("**")
    outside = re.sub(r"<!-- table: \S+ -->.*?<!-- end -->", "", text, flags=re.DOTALL)
    assert "|---|" not in outside
    assert text.count("<details") == text.count("</details>") > 0


def numbers(text):
    return re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?", text.replace("**", ""))


@pytest.mark.parametrize(("question", "answer", "number", "link"), ANSWERS, ids=[row[0] for row in ANSWERS])
def test_answers_stand_on_figures_of_their_page(question, answer, number, link):
    assert len(answer) < 100 and question.endswith("?")
    found = [float(n) for n in numbers((PAGES / re.search(r"\]\((.*?)\)", link)[1]).read_text())]
    for figure in numbers(number):
        half = 0.5 * 10.0 ** -len(figure.partition(".")[2]) if "e" not in figure else 0.0
        assert any(abs(float(figure) - each) <= half + 1e-9 for each in found), figure


def test_there_are_answers_and_few_lines():
    assert len(ANSWERS) >= 20 and len((PAGES / "README.md").read_text().splitlines()) <= 60
    assert ANSWERS[0][0] == "Which method first?"
