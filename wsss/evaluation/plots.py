"""The sweep's curve as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def plot_methods(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Plot each method's mean IoU with its seeds' standard deviation; write a PNG.

    Args:
        path: PNG to write.
        rows: Rows of `methods.csv`.
    """
    methods = list(dict.fromkeys(row["method"] for row in rows))
    kinds = list(dict.fromkeys(_kind(row) for row in rows))
    height = 1.2 + 0.22 * len(methods) * (len(kinds) + 1)
    figure = Figure(figsize=(6.4, max(2.6, height)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, kind in enumerate(kinds):
        mine = [row for row in rows if _kind(row) == kind and row["miou"]]
        axes.errorbar(
            [100 * float(row["miou"]) for row in mine],
            [methods.index(row["method"]) + (place + 1) / (len(kinds) + 1) - 0.5 for row in mine],
            xerr=[100 * float(row["miou_sd"] or 0) for row in mine],
            fmt="o",
            capsize=3,
            label=kind,
        )
    axes.set_yticks(range(len(methods)), methods)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.set_xlabel("mIoU, %: mean of the seeds, bars one standard deviation")
    axes.grid(alpha=0.3, axis="x")
    axes.legend(fontsize="small")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _kind(row: Mapping[str, str]) -> str:
    selection = f", {row['selection']} score" if not row["stage"].startswith("seg") else ""
    return f"{row['stage']} on {row['split']}{selection}"
