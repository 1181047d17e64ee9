"""A benchmark that was stopped goes on from the rows that it had measured."""

from symguide.bench.kept import Kept


def opened(path, **settings):
    """The file, and what was measured through it."""
    kept, made = Kept(path, {"seed": 0, **settings}), []

    def row(n):
        return kept({"n": n}, lambda: made.append(n) or {"error": n / 10})

    return row, made


def test_rows_are_measured_once_and_read_again(tmp_path):
    path = tmp_path / "rows.jsonl"
    row, made = opened(path)
    assert [row(1), row(2), row(1)] == [{"n": 1, "error": 0.1}, {"n": 2, "error": 0.2}, {"n": 1, "error": 0.1}]
    row, again = opened(path)
    assert [row(2), row(3)] == [{"n": 2, "error": 0.2}, {"n": 3, "error": 0.3}]
    assert made == [1, 2] and again == [3]


def test_a_row_that_was_cut_off_is_measured_again(tmp_path):
    path = tmp_path / "rows.jsonl"
    row, _ = opened(path)
    row(1), row(2)
    path.write_text(path.read_text()[:-3])
    row, made = opened(path)
    assert [row(1), row(2), row(3)] == [{"n": n, "error": n / 10} for n in (1, 2, 3)] and made == [2, 3]
    row, made = opened(path)
    assert [row(n)["n"] for n in (1, 2, 3)] == [1, 2, 3] and not made


def test_rows_of_other_settings_are_forgotten(tmp_path):
    row, _ = opened(tmp_path / "rows.jsonl")
    row(1)
    row, made = opened(tmp_path / "rows.jsonl", torch="3.0")
    assert row(1) and made == [1]
