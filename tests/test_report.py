"""Reports measure what they say, draw what they are given, and are whole files that need no others."""

import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch
from benchmarks.lines import Panel, draw_lines

from symguide import report
from symguide.errors import ConfigError
from symguide.loop import StepRecord


def gaussian(mean, root, count=4000, seed=0):
    """Samples whose empirical mean and covariance are exactly `mean` and root root'."""
    x = torch.randn(count, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x - x.mean(0)
    white = x @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T
    return white @ root.T + mean


@pytest.fixture
def pair():
    torch.manual_seed(0)
    roots = torch.randn(2, 5, 5, dtype=torch.float64)
    means = torch.randn(2, 5, dtype=torch.float64)
    return gaussian(means[0], roots[0]), gaussian(means[1], roots[1], count=999, seed=1)


# Quality


def test_frechet_of_diagonal_gaussians_has_a_closed_form():
    a, b = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([2.0, 0.5, 0.0]).double()
    shift = torch.tensor([0.0, 3.0, -4.0]).double()
    x, y = gaussian(torch.zeros(3).double(), a.diag()), gaussian(shift, b.diag(), count=500)
    assert report.frechet(x, y) == pytest.approx(25 + (a - b).square().sum().item(), rel=1e-9)


def test_frechet_of_any_gaussians_is_that_of_the_matrix_square_root(pair):
    linalg = pytest.importorskip("scipy.linalg")
    x, y = pair
    c, d = torch.cov(x.T), torch.cov(y.T)
    cross = torch.from_numpy(linalg.sqrtm((c @ d).numpy()).real)
    expected = (x.mean(0) - y.mean(0)).square().sum() + torch.trace(c + d - 2 * cross)
    assert report.frechet(x, y) == pytest.approx(expected.item(), rel=1e-9)


def test_frechet_is_symmetric_zero_for_itself_and_blind_to_rotations(pair):
    x, y = pair
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))[0]
    assert report.frechet(x, x) == pytest.approx(0, abs=1e-10)
    assert report.frechet(x, y) == pytest.approx(report.frechet(y, x), rel=1e-9)
    assert report.frechet(x @ rotation, y @ rotation) == pytest.approx(report.frechet(x, y), rel=1e-9)


def test_frechet_of_few_rows_is_that_of_many_in_fewer_dimensions(pair):
    """Within 30 dimensions 20 rows of five are few, and go another way, with what is known of them in five."""
    x, y = pair[0][:20], pair[1]
    wide = torch.linalg.qr(torch.randn(30, 30, dtype=torch.float64))[0][:5]
    assert report.frechet(x @ wide, y @ wide) == pytest.approx(report.frechet(x, y), rel=1e-9)
    assert report.frechet(y @ wide, x @ wide) == pytest.approx(report.frechet(x, y), rel=1e-9)


def test_frechet_of_fewer_samples_than_features_and_of_a_single_feature():
    x = torch.randn(4, 30)
    assert report.frechet(x, x) == pytest.approx(0, abs=1e-5)
    assert report.frechet(x, x + 1) == pytest.approx(30, rel=1e-5)
    one = torch.tensor([[0.0], [2.0]])
    assert report.frechet(one, 2 * one) == pytest.approx(1 + (2**0.5) ** 2)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros(1, 3), torch.zeros(5, 3), "N >= 2"),
        (torch.zeros(5, 3, 1), torch.zeros(5, 3), "N >= 2"),
        (torch.zeros(5, 3), torch.zeros(5, 4), "one judge for both"),
        (torch.full((5, 3), torch.nan), torch.zeros(5, 3), "finite"),
    ],
)
def test_features_that_do_not_compare_are_refused(a, b, message):
    with pytest.raises(ConfigError, match=message):
        report.frechet(a, b)


def test_judged_counts_and_gives_the_cross_entropy():
    logits = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    verdict = report.judged(lambda x: x, logits, torch.tensor([0, 0, 0]))
    assert verdict.loss.tolist() == pytest.approx([0.693147, 0.006715, 5.006715], abs=1e-5)
    assert verdict.right.tolist() == [True, True, False] and verdict.accuracy == pytest.approx(2 / 3)
    with pytest.raises(ConfigError, match="3 samples need as many labels"):
        report.judged(lambda x: x, logits, torch.tensor([0]))


def test_nearest_neighbours():
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0], [3.0, 3.0]])
    assert report.nearest(x, x).tolist() == [0, 0, 0]
    assert report.nearest(x, x, others=True).tolist() == [1, 1, 2]


# Tables

TABLE = report.Table(
    [report.Column("m", "method"), report.Column("x", "two\nlines", "{:.1f}"), report.Column("n", "n")],
    [{"m": "long name", "x": 12.345, "n": 1}, {"m": "b", "x": float("nan")}],
)


def test_a_table_is_aligned_and_shows_what_is_missing():
    assert str(TABLE).splitlines() == [
        "             two",
        "method     lines  n",
        "---------  -----  -",
        "long name   12.3  1",
        "b            nan  -",
    ]


def test_records_keep_full_values_and_are_json():
    assert TABLE.records() == [{"m": "long name", "x": 12.345, "n": 1}, {"m": "b", "x": None}]


# Pictures


def colour(picture, x, y):
    return picture.getpixel((x, y))


def test_grid_has_the_size_and_pixels_of_its_samples():
    samples = torch.tensor([-1.0, 0.0, 1.0, 7.0]).reshape(4, 1, 1, 1).expand(4, 1, 8, 8)
    picture = report.grid(samples, columns=2, cell=20)  # 8 pixels become 24
    assert picture.size == (8 + 2 * 28 + 4, 8 + 2 * 28 + 4)
    assert [colour(picture, 20 + 28 * i, 20) for i in (0, 1)] == [(0,) * 3, (128,) * 3]
    assert [colour(picture, 20 + 28 * i, 48) for i in (0, 1)] == [(255,) * 3, (255,) * 3]
    assert colour(picture, 33, 20) == (255, 255, 255)  # the gap
    assert colour(report.grid(samples, cell=20, ink=True), 20, 20) == (255, 255, 255)


def test_grid_shows_colours_and_every_pixel_without_smoothing():
    x = torch.full((1, 3, 2, 2), -1.0)
    x[0, 0, 0, 1] = 1
    picture = report.grid([x], cell=10, smooth=False)
    assert colour(picture, 8 + 9, 8) == (255, 0, 0) and colour(picture, 8 + 4, 8) == (0, 0, 0)
    assert len(picture.crop((8, 8, 18, 18)).getcolors()) == 2


def test_labels_heads_and_marks_take_room_and_are_drawn():
    x = torch.ones(3, 1, 8, 8)
    plain = report.grid([x, x], cell=16)
    named = report.grid([x, x], ["a long label", "b"], ["1", "2", "3"], marks=[[True] * 3, [False] * 3], cell=16)
    assert named.width > plain.width + 60 and named.height > plain.height + 15
    blue = sum(count for count, rgb in named.getcolors(100_000) if rgb == (0, 114, 178))
    assert blue == 3 * 16 * 4
    dark = [x for x in range(named.width) for y in range(named.height) if sum(colour(named, x, y)) < 300]
    assert min(dark) >= 4  # no label is cut off


def test_labels_of_several_lines_are_narrow():
    x = torch.ones(2, 1, 8, 8)
    one, two = (report.grid([x, x], [name, "b"], cell=32) for name in ("a method + another", "a method\n+ another"))
    assert two.width < one.width - 30 and two.height == one.height
    inked = [y for y in range(32) if any(sum(colour(two, x, y)) < 300 for x in range(two.width - 2 * 36))]
    assert len(inked) > 12 and min(inked) >= 4  # both lines are there, beside the first row


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": torch.zeros(2, 5, 8, 8)}, "shows .B, 1 or 3, H, W. samples"),
        ({"rows": []}, "shows .B, 1 or 3, H, W. samples"),
        ({"rows": [torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 4, 4)]}, "one size"),
        ({"rows": torch.zeros(2, 1, 8, 8), "labels": ["a", "b"]}, "does not fit 2 labels"),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        report.grid(**arguments)


# Curves and pages


def trace(steps, guided=True):
    values = [torch.rand(6) + 1 for _ in range(steps)]
    return [
        StepRecord(i, 1.0, 0.5, v, v, 1, 1, 0.1) if guided else StepRecord(i, 1.0, 0.5, None, None, 1, 0, 0.1)
        for i, v in enumerate(values)
    ]


def test_curves_are_svg_in_the_colour_of_the_page():
    pytest.importorskip("matplotlib")
    svg = report.draw_curves({"guided & good": trace(5), "unguided": trace(5, guided=False)})
    assert svg.startswith("<svg") and "currentColor" in svg and "#010203" not in svg
    assert "guided &amp; good" in svg and ">unguided<" not in svg
    assert "<script" not in svg


def test_particles_are_drawn_as_that_many_samples():
    pytest.importorskip("matplotlib")
    flat = trace(5)
    shaped = [replace(line, loss=line.loss.reshape(2, 3), gradient_norm=line.loss.reshape(2, 3)) for line in flat]
    assert report.draw_curves({"best": shaped}) == report.draw_curves({"best": flat})


def test_lines_share_a_legend_and_lie_on_the_floor():
    pytest.importorskip("matplotlib")
    panels = [
        Panel("error", "n", {"ours": [(1, 0.0), (4, 1e-16)], "theirs": [(1, 1.0), (4, 0.1)]}, floor=1e-17),
        Panel("bytes", "n", {"theirs": [(1, 10.0), (4, 40.0)]}),
    ]
    svg = draw_lines(panels)
    assert svg.startswith("<svg") and svg == draw_lines(panels) and "#010203" not in svg
    assert svg.count(">ours<") == svg.count(">theirs<") == 1 and ">error<" in svg and ">bytes<" in svg
    assert svg.count(f"stroke: {report.curves.COLOURS[3]}") >= 2  # theirs, in both panels
    assert "17" in svg  # the axis reaches the floor


def test_losses_below_zero_are_drawn():
    pytest.importorskip("matplotlib")

    falling = [StepRecord(i, 1.0, 0.5, torch.full((6,), -5.0 - i), torch.ones(6), 1, 1, 0.1) for i in range(5)]
    assert re.search(r">[−-][5-9](\.\d+)?<", report.draw_curves({"aesthetic": falling}))  # the axis goes there


def test_a_page_is_complete_alone_and_escapes_what_it_is_told():
    pytest.importorskip("jinja2")
    evil = "<script>alert('x')</script>"
    section = report.Section(
        evil, evil, report.grid(torch.zeros(1, 1, 8, 8)), f'"{evil}', TABLE, svg="<svg></svg>", notes=[evil]
    )
    html = report.render_page(evil, evil, f"symguide demo {evil}", [section], {"torch": evil, "seed": "7"})
    assert "<script" not in html and html.count("&lt;script&gt;") == 9
    assert "data:image/png;base64," in html and "<svg></svg>" in html
    assert "long name" in html and "12.3" in html and "seed 7" in html and "prefers-color-scheme: dark" in html
    assert not re.search(r"(src|href)=\"(?!data:)", html) and "@import" not in html
    HTMLParser().feed(html)


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2"])
def test_a_missing_extra_is_a_sentence(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=r'needs .*: pip install "symguide\[report\]"'):
        if missing == "matplotlib":
            report.draw_curves({})
        else:
            report.render_page("", "", "", [], {})


def test_tiles_have_captions_and_are_escaped():
    pytest.importorskip("jinja2")
    drawn = report.grid(torch.zeros(1, 1, 8, 8))
    tiles = [report.Tile(drawn, "<b>", ["<i>", "two"], '"alt'), report.Tile(drawn, "wide", row=True)]
    html = report.render_page("", "", "", [report.Section("", tiles=tiles)], {})
    assert html.count("<figure") == 2 and html.count('<figure class="row">') == 1 and "&#34;alt" in html
    assert "<b>&lt;b&gt;</b><span>&lt;i&gt;</span><span>two</span></figcaption>" in html


def test_files_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = report.write(tmp_path / "new" / "file.txt", "first")
    assert path.read_text() == "first"

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        report.write(path, "second")
    assert path.read_text() == "first" and [p.name for p in path.parent.iterdir()] == ["file.txt"]
