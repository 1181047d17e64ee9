"""What was stopped goes on from the rows that it had made, by a file that was cut off or is of something else, too."""

import json

from symguide.rows import Rows


def opened(path, **settings):
    """The rows of a file, and what was measured through them."""
    rows, made = Rows(path, {"seed": 0, **settings}), []

    def row(n):
        return rows.get({"n": n}, lambda: made.append(n) or {"error": n / 10})

    return row, made


def test_rows_are_measured_once_and_read_again(tmp_path):
    path = tmp_path / "folder" / "rows.jsonl"
    row, made = opened(path)
    assert not path.parent.exists()
    assert [row(1), row(2), row(1)] == [{"n": 1, "error": 0.1}, {"n": 2, "error": 0.2}, {"n": 1, "error": 0.1}]
    assert [*map(json.loads, path.read_text().splitlines())][:2] == [
        {"seed": 0},
        {"key": {"n": 1}, "found": {"error": 0.1}},
    ]
    row, again = opened(path)
    assert [row(2), row(3)] == [{"n": 2, "error": 0.2}, {"n": 3, "error": 0.3}]
    assert made == [1, 2] and again == [3]


def test_a_row_that_was_cut_off_is_measured_again(tmp_path):
    path = tmp_path / "rows.jsonl"
    row, _ = opened(path)
    row(1), row(2)
    whole = path.read_text()
    for cut, missing in ((1, [3]), (3, [2, 3]), (len(whole) - 4, [1, 2, 3])):
        path.write_text(whole[:-cut])
        row, made = opened(path)
        assert [row(n) for n in (1, 2, 3)] == [{"n": n, "error": n / 10} for n in (1, 2, 3)] and made == missing
        row, made = opened(path)
        assert [row(n)["n"] for n in (1, 2, 3)] == [1, 2, 3] and not made


def test_rows_of_other_settings_are_forgotten(tmp_path):
    path = tmp_path / "rows.jsonl"
    row, _ = opened(path)
    row(1)
    before = path.read_text()
    row, made = opened(path, torch="3.0")
    assert path.read_text() == before  # until a row takes their place
    assert row(1) and made == [1] and json.loads(path.read_text().splitlines()[0]) == {"seed": 0, "torch": "3.0"}


def test_without_a_file_rows_are_kept_in_memory():
    row, made = opened(None)
    assert row(1) == row(1) == {"n": 1, "error": 0.1} and made == [1]
    assert Rows().add({"pair": (1, 2)}) == {"pair": [1, 2]}
