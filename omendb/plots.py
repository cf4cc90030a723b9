"""Pictures of what was measured; matplotlib is needed here and nowhere else in omendb.

Colours are chosen to be read on white and on black: marks are of middling lightness, frames, grids
and texts of the theme that is in use, and nothing has a background of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from omendb._core import HealthReport, Hits, RecallReport

__all__ = ["distances", "health", "recall_curve"]

# At least 3:1 against white, black and the grays of dark notebooks.
MAIN = "tab:blue"
MARK = "#d9730d"
GRAY = "#808080"
# More lines are told apart by nobody.
LINES = 10


def _axes(ax: Any, count: int = 1) -> Any:
    """Return the axes to draw on: new ones where none are given."""
    try:
        from matplotlib import axes, pyplot
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install matplotlib") from error
    if ax is not None:
        for one in [ax] if count == 1 else np.asarray(ax, dtype=object).ravel():
            if not isinstance(one, axes.Axes):
                raise TypeError(f"expected ax to be axes of matplotlib, got {type(one).__name__}")
        return ax
    size = pyplot.rcParams["figure.figsize"]
    _, ax = pyplot.subplots(
        1, count, layout="constrained", figsize=(size[0] * (1 if count == 1 else 1.6), size[1])
    )
    return ax


def recall_curve(report: RecallReport, ax: Any = None) -> Any:
    """Draw recall against queries per second.

    Parameters
    ----------
    report : RecallReport
        What `Index.tune` measured.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        The axes drawn on. Up and to the right is better.
    """
    ax = _axes(ax)
    efforts, recalls, rates = zip(*report.table, strict=True)
    chosen = efforts.index(report.effort)
    ax.plot(recalls, rates, marker=".", color=MAIN, label="by effort")
    ax.plot(
        recalls[chosen],
        rates[chosen],
        marker="o",
        linestyle="none",
        color=MARK,
        label=f"chosen: effort {report.effort}",
    )
    ax.axvline(
        report.target, color=GRAY, linestyle=":", label=f"asked for: {report.target:g}", zorder=1
    )
    ax.set(
        xlabel=f"recall@{report.k} (share of true neighbours found)",
        ylabel="speed (queries per second)",
        title=f"Recall and speed, {report.queries}",
    )
    ax.set_yscale("log")
    _plain_ticks(ax.yaxis)
    ax.margins(0.08)
    ax.grid(alpha=0.3, which="both")
    _legend(ax)
    return ax


def health(report: HealthReport, ax: Any = None) -> Any:
    """Draw the rows' lengths and how often they are neighbours.

    Parameters
    ----------
    report : HealthReport
        What `Index.health` found.
    ax : sequence of two matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    ndarray of shape (2,) of matplotlib.axes.Axes
        The axes drawn on.
    """
    axes = np.asarray(_axes(ax, 2), dtype=object).ravel()
    if len(axes) != 2:
        raise ValueError(f"expected two axes, one for each picture, got {len(axes)}")
    lengths, occurrences = axes
    if len(report.norms):
        lengths.plot(report.norms, np.arange(len(report.norms)), color=MAIN)
        lengths.axvline(report.norms[50], color=MARK, linestyle="--", label="median")
        _legend(lengths)
        least, middle, most = report.norms[0], report.norms[50], report.norms[-1]
        if 0 < most - least < 0.01 * middle:  # all are of one length but for rounding
            lengths.set_xlim(0.99 * middle, 1.01 * middle)
        lengths.ticklabel_format(axis="x", useOffset=False)  # 1 would stand as 0, plus 1
        lengths.locator_params(axis="x", nbins=5)  # such numbers are long
    lengths.set(
        xlabel="euclidean length of a row",
        ylabel="rows that are as long or shorter (%)",
        title=f"Lengths of {report.rows:,} rows",
        ylim=(-2, 102),
    )
    if report.k:
        counts = np.bincount(report.occurrences)
        share = 100 * np.flip(np.cumsum(np.flip(counts))) / report.sample
        occurrences.step(np.arange(len(counts)), share, where="mid", color=MAIN)
        occurrences.axvline(report.k, color=MARK, linestyle="--", label=f"mean, {report.k}")
        # Nought has a place as well: rows that are nobody's neighbour.
        occurrences.set_xscale("symlog", linthresh=1, linscale=0.4)
        occurrences.set_yscale("log")
        occurrences.set_xlim(left=0)
        _plain_ticks(occurrences.xaxis)
        _plain_ticks(occurrences.yaxis)
        _legend(occurrences)
    else:
        where = {"ha": "center", "va": "center", "transform": occurrences.transAxes}
        occurrences.text(0.5, 0.5, "no row has another to be near to", **where)
    nearest = f"{report.k} nearest" if report.k else "nearest"
    hubness = "not known" if report.hubness is None else f"{report.hubness:.1f}"
    occurrences.set(
        xlabel=f"times among the {nearest} of another row",
        ylabel="rows that are so often or more (%)",
        title=f"Hubness: skewness {hubness}, {report.sample:,} rows",
    )
    for one in axes:
        one.grid(alpha=0.3)
    return axes


def distances(hits: Hits, ax: Any = None) -> Any:
    """Draw the distances of each query's answers by rank.

    Parameters
    ----------
    hits : Hits
        What `Index.search` answered.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    matplotlib.axes.Axes
        The axes drawn on: a line for each of up to ten queries; for more, the median and the
        ranges of half of them and of nine in ten.
    """
    ax = _axes(ax)
    table = np.atleast_2d(hits.distances).astype(np.float64)
    n, k = table.shape
    ranks = np.arange(k)
    if n and k and n <= LINES:
        for query, row in enumerate(table):
            ax.plot(ranks, row, marker=".", label=f"query {query}")
        if n > 1:
            _legend(ax)
    elif n and k:
        low, first, middle, third, high = np.percentile(table, [5, 25, 50, 75, 95], axis=0)
        ax.fill_between(ranks, low, high, color=MAIN, alpha=0.3, lw=0, label="9 in 10 queries")
        ax.fill_between(ranks, first, third, color=MAIN, alpha=0.45, lw=0, label="half of them")
        ax.plot(ranks, middle, color=MAIN, marker="." if k <= 100 else None, label="median")
        _legend(ax)
    queries = "1 query" if n == 1 else f"{n:,} queries"
    ax.set(
        xlabel="rank of the answer (0 is the nearest)",
        ylabel="distance",
        title=f"{k:,} nearest rows of {queries}",
    )
    if k:
        ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(alpha=0.3)
    return ax


def _legend(ax: Any) -> None:
    """Explain the marks, on no background."""
    ax.legend(framealpha=0)


def _plain_ticks(axis: Any) -> None:
    """Write 2,000 rather than a power of ten, also between powers of ten where those are few."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:,g}" if super().__call__(x, pos) or x == 0 else ""

    axis.set_major_formatter(Plain(labelOnlyBase=False))
    axis.set_minor_formatter(Plain(labelOnlyBase=False, minor_thresholds=(1.5, 0.5)))
