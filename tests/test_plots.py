"""Pictures: what is drawn, where, with which names; how they look is for eyes."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from reference import Array

import omendb

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
pyplot = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    pyplot.close("all")


@pytest.fixture
def rows(rng: np.random.Generator) -> Array:
    return rng.standard_normal((2000, 8)).astype(np.float32)


def labels(ax: object) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]  # type: ignore[attr-defined]


def test_a_recall_report_draws_its_table_and_marks_the_chosen_effort(rows: Array) -> None:
    report = omendb.Index(rows, method="graph").tune(0.9, queries=rows[:50] + 0.1)
    ax = report.plot()
    efforts, recalls, rates = zip(*report.table, strict=True)
    line, chosen, target = ax.get_lines()
    np.testing.assert_array_equal(line.get_xydata(), np.column_stack([recalls, rates]))
    at = efforts.index(report.effort)
    np.testing.assert_array_equal(chosen.get_xydata(), [[recalls[at], rates[at]]])
    assert target.get_xdata()[0] == 0.9
    assert ax.get_xlabel().startswith("recall@10")
    assert "queries per second" in ax.get_ylabel()
    assert f"chosen: effort {report.effort}" in labels(ax)


def test_health_draws_lengths_and_occurrences(rows: Array) -> None:
    health = omendb.Index(rows).health()
    lengths, occurrences = health.plot()
    np.testing.assert_array_equal(lengths.get_lines()[0].get_xdata(), health.norms)
    times, share = occurrences.get_lines()[0].get_xydata().T
    for t, s in zip(times, share, strict=True):
        assert s == pytest.approx(100 * np.mean(health.occurrences >= t))
    assert "length" in lengths.get_xlabel()
    assert "%" in lengths.get_ylabel()
    assert "10 nearest" in occurrences.get_xlabel()
    assert f"{health.hubness:.1f}" in occurrences.get_title()


def test_lengths_that_are_alike_have_numbers_apart_from_each_other(rows: Array) -> None:
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    lengths = omendb.Index(rows).health().plot()[0]
    lengths.figure.canvas.draw()
    low, high = lengths.get_xlim()
    ticks = [
        tick.label1.get_window_extent()
        for tick in lengths.xaxis.get_major_ticks()
        if low <= tick.get_loc() <= high
    ]
    for left, right in itertools.pairwise(ticks):
        assert right.x0 - left.x1 > left.height


@pytest.mark.parametrize("count", [0, 1])
def test_the_health_of_next_to_nothing_is_drawn_too(count: int) -> None:
    for ax in omendb.Index(np.ones((count, 3))).health().plot():
        ax.figure.canvas.draw()
        assert ax.get_xlabel()
    assert ax.get_xlabel() == "times among the nearest of another row"
    assert [text.get_text() for text in ax.texts] == ["no row has another to be near to"]


def test_hits_draw_a_line_for_each_query_or_ranges_of_many(rows: Array) -> None:
    index = omendb.Index(rows)
    few = index.search(rows[:3], k=5)
    ax = few.plot()
    assert [list(line.get_ydata()) for line in ax.get_lines()] == few.distances.tolist()
    assert labels(ax) == ["query 0", "query 1", "query 2"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == (
        "rank of the answer (0 is the nearest)",
        "distance",
    )
    single = index.search(rows[0], k=5)
    (line,) = single.plot().get_lines()
    assert list(line.get_ydata()) == single.distances.tolist()
    many = index.search(rows[:100], k=5)
    ax = many.plot()
    (line,) = ax.get_lines()
    np.testing.assert_allclose(line.get_ydata(), np.median(many.distances, axis=0), rtol=1e-6)
    assert labels(ax) == ["9 in 10 queries", "half of them", "median"]
    for nothing in (index.search(rows[:0]), omendb.Index(dim=8).search(rows[:2])):
        nothing.plot().figure.canvas.draw()


def test_pictures_are_drawn_on_given_axes(rows: Array) -> None:
    index = omendb.Index(rows, method="graph")
    _, axes = pyplot.subplots(1, 2)
    assert index.search(rows[:2]).plot(ax=axes[0]) is axes[0]
    assert index.tune(0.9).plot(ax=axes[1]) is axes[1]
    _, axes = pyplot.subplots(1, 2)
    assert list(index.health().plot(ax=axes)) == list(axes)
    with pytest.raises(ValueError, match="expected two axes, one for each picture, got 1"):
        index.health().plot(ax=axes[0])
    for report in (index.search(rows[:2]), index.tune(0.9), index.health()):
        for wrong in (3, "left", axes[0].figure, [3, axes[0]]):
            with pytest.raises(TypeError, match="expected ax to be axes of matplotlib, got"):
                report.plot(ax=wrong)
    assert len(pyplot.get_fignums()) == 2


def luminance(color: object) -> float:
    """The relative luminance of WCAG 2."""
    rgb = np.array(matplotlib.colors.to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_marks_stand_out_on_white_and_on_black(style: str, rows: Array) -> None:
    with pyplot.style.context(style):
        index = omendb.Index(rows, method="graph")
        axes = [index.tune(0.9).plot(), *index.health().plot(), index.search(rows[:50]).plot()]
        for ax in axes:
            ground = luminance(ax.get_facecolor())
            assert ax.get_legend().get_frame().get_alpha() == 0
            for line in ax.get_lines():
                dark, light = sorted([ground, luminance(line.get_color())])
                assert (light + 0.05) / (dark + 0.05) > 3, line


def test_without_matplotlib_a_sentence_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import numpy as np, omendb\n"
        "try: omendb.Index(np.eye(3)).search(np.eye(3)).plot()\n"
        "except ImportError as error: print(error)"
    )
    out = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert out == "plots need matplotlib: pip install matplotlib\n"
