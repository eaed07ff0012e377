"""The report's charts, as SVG that takes its colours and letters from the page around it."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Drawn in these colours, which no data have, and replaced by those of the page, light or dark.
INK, GRID = "#010203", "#040506"
SERIES = ("#0708a1", "#0708a2", "#0708a3", "#0708a4", "#0708a5", "#0708a6")
_PAGE = {INK: "currentColor", GRID: "var(--line)"} | {
    colour: f"var(--s{number})" for number, colour in enumerate(SERIES, start=1)
}
# Any: matplotlib types the keys one by one.
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
}


def _svg(figure: Figure, name: str) -> str:
    """Return the figure as an element for an HTML page; `name` keeps its ids its own."""
    FigureCanvasSVG(figure)
    buffer = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    for drawn, shown in _PAGE.items():
        text = text.replace(drawn, shown)
    # The page says in which font, and scales the drawing to its width.
    text = re.sub(r"font: ([\d.]+px) [^;\"]+", r"font: \1 inherit; font-size: \1", text)
    return re.sub(r'<svg ([^>]*?)width="[^"]+"', r"<svg \1", text, count=1).replace(
        "<svg ", f'<svg role="img" aria-label="{name}" ', 1
    )


def curve(
    points: Sequence[Mapping[str, float]],
    chosen: Mapping[str, tuple[float, float]],
    *,
    name: str,
) -> str:
    """Draw mean IoU, precision and recall against the background score.

    Args:
        points: `threshold`, `miou`, `precision`, `recall` in 0..1, ascending.
        chosen: "configured" and "best" -> (threshold, mIoU) to mark.
        name: Of the chart.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 3.2), layout="constrained")
        axes = figure.add_subplot()
        x = [point["threshold"] for point in points]
        lines = (("miou", "mIoU", "-", 2.2), ("precision", "precision", "--", 1.4))
        for key, label, style, width in (*lines, ("recall", "recall", ":", 1.6)):
            colour = SERIES[("miou", "precision", "recall").index(key)]
            y = [100 * point[key] for point in points]
            axes.plot(x, y, style, color=colour, linewidth=width, label=label)
        for label, marker in (("configured", "o"), ("best", "*")):
            if label in chosen:
                place, value = chosen[label]
                text = f"{label}: {100 * value:.1f} at {place:g}"
                axes.plot(
                    [place],
                    [100 * value],
                    marker,
                    color=SERIES[0],
                    markeredgecolor=INK,
                    markersize=11 if marker == "*" else 7,
                    label=text,
                    linestyle="none",
                )
        axes.set(xlabel="background score", ylabel="mean over classes, %", ylim=(0, 100))
        axes.legend(loc="best", fontsize=9)
        return _svg(figure, name)


def class_bars(
    names: Sequence[str], scores: Mapping[str, Sequence[float | None]], *, name: str
) -> str:
    """Draw the IoU of every class: the last stage as bars, those before as marks.

    Args:
        names: The classes, background first.
        scores: Stage -> IoU of each class in 0..1, None where undefined; in the stages' order.
        name: Of the chart.
    """
    stages = list(scores)
    values = scores[stages[-1]]
    known = [-1.0 if value is None else value for value in values]
    order = sorted(range(len(names)), key=known.__getitem__)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.6, 0.9 + 0.24 * len(names)), layout="constrained")
        axes = figure.add_subplot()
        places = range(len(order))
        widths = [100 * (values[i] or 0.0) for i in order]
        axes.barh(places, widths, height=0.62, color=SERIES[0], label=stages[-1], alpha=0.85)
        for position, stage in enumerate(stages[:-1]):
            marks = [(100 * v, y) for y, i in enumerate(order) if (v := scores[stage][i])]
            axes.plot(
                [x for x, _ in marks],
                [y for _, y in marks],
                "osD^"[position % 4],
                color=SERIES[1 + position % 5],
                markeredgecolor=INK,
                markeredgewidth=0.5,
                markersize=5.5,
                label=stage,
            )
        axes.set_yticks(places, [names[i] for i in order])
        axes.set(xlim=(0, 100), ylim=(-0.6, len(order) - 0.4), xlabel="IoU, %")
        axes.grid(visible=False, axis="y")
        figure.legend(loc="outside upper right", ncols=len(stages), fontsize=9)
        return _svg(figure, name)


def losses(steps: Sequence[int], series: Mapping[str, Sequence[float]], *, name: str) -> str:
    """Draw losses against the steps.

    Args:
        steps: Steps finished, ascending.
        series: Name -> value at each step.
        name: Of the chart.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(5.2, 2.9), layout="constrained")
        axes = figure.add_subplot()
        for position, (label, values) in enumerate(series.items()):
            few = "." if len(steps) < 3 else ""
            colour, width = SERIES[position % len(SERIES)], 2.0 if position == 0 else 1.2
            axes.plot(steps, values, f"{few}-", color=colour, linewidth=width, label=label)
        axes.set(xlabel="steps", ylabel="loss")
        axes.set_ylim(bottom=min(0.0, *axes.get_ylim()))
        if len(series) > 1:
            axes.legend(fontsize=9)
        return _svg(figure, name)
