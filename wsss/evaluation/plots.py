"""The sweep's curve as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from wsss.evaluation.tables import CurvePoint
from wsss.files import atomic_file


def plot_curve(
    path: Path,
    points: Sequence[CurvePoint],
    *,
    configured: int | None,
    best: int | None,
    title: str,
) -> None:
    """Plot mean IoU, precision and recall against the background score; write a PNG.

    Without points the plot is empty, and its title says why.

    Args:
        path: PNG to write.
        points: The sweep, ascending.
        configured: Position of the configured background score; None: there are no points.
        best: Position of the best one; None: there are no points.
        title: Title of the plot.
    """
    figure = Figure(figsize=(6.4, 4.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    thresholds = [point.threshold for point in points]
    axes.plot(thresholds, [100 * p.iou for p in points], label="mIoU", linewidth=2)
    axes.plot(thresholds, [100 * p.precision for p in points], label="precision", linestyle="--")
    axes.plot(thresholds, [100 * p.recall for p in points], label="recall", linestyle=":")
    for position, marker, name in ((configured, "o", "configured"), (best, "*", "best")):
        if position is None:
            continue
        point = points[position]
        axes.plot(
            [point.threshold],
            [100 * point.iou],
            marker,
            markersize=9,
            label=f"{name}: {100 * point.iou:.1f} at {point.threshold:g}",
        )
    axes.set_xlabel("background score")
    axes.set_ylabel("mean over classes, %")
    axes.set_ylim(0, 100)
    axes.set_title(title, wrap=True)
    axes.grid(alpha=0.3)
    if points:
        axes.legend()
    with atomic_file(path) as temporary:
        # Without the library's version in it the same curve gives the same bytes.
        figure.savefig(temporary, format="png", metadata={"Software": None})
