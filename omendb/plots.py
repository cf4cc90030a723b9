"""Pictures of what was measured; matplotlib is needed here and nowhere else in omendb."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omendb._core import RecallReport

__all__ = ["recall_curve"]


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
    if ax is None:
        try:
            from matplotlib import pyplot
        except ImportError as error:
            raise ImportError("plots need matplotlib: pip install matplotlib") from error
        _, ax = pyplot.subplots(layout="constrained")
    efforts, recalls, rates = zip(*report.table, strict=True)
    chosen = efforts.index(report.effort)
    ax.plot(recalls, rates, marker=".")
    ax.plot(recalls[chosen], rates[chosen], marker="o", color="tab:orange")
    ax.annotate(
        f"effort {report.effort}",
        (recalls[chosen], rates[chosen]),
        xytext=(6, 6),
        textcoords="offset points",
    )
    ax.axvline(report.target, color="gray", linestyle=":", linewidth=1)
    ax.set(
        xlabel=f"recall@{report.k}",
        ylabel="queries per second",
        yscale="log",
        title=report.queries,
    )
    ax.margins(0.1)
    ax.grid(alpha=0.3, which="both")
    return ax
