"""What a reader of the plots is shown: each curve apart from the others, and what it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from wsss.evaluation.plots import plot_curve, plot_methods
from wsss.evaluation.tables import CurvePoint


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are written."""
    figures: list[Figure] = []
    save = Figure.savefig

    def kept(self: Figure, *arguments: object, **options: object) -> None:
        figures.append(self)
        save(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", kept)
    return figures


def test_curves_and_points_are_told_apart(tmp_path: Path, drawn: list[Figure]) -> None:
    points = [CurvePoint(0.1 * i, 0.5 + 0.1 * i, 0.6, 0.7) for i in range(3)]
    plot_curve(tmp_path / "curve.png", points, configured=1, best=2, title="cam on train")
    (axes,) = drawn[0].axes
    lines = axes.get_lines()
    shown = {str(line.get_label()): line for line in lines}
    iou, precision, recall = (shown[name] for name in ("mIoU", "precision", "recall"))
    assert len({line.get_linestyle() for line in (iou, precision, recall)}) == 3
    assert list(iou.get_ydata()) == pytest.approx([50, 60, 70])
    assert list(precision.get_ydata()) == pytest.approx([60] * 3)
    assert list(recall.get_ydata()) == pytest.approx([70] * 3)
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        *("mIoU", "precision", "recall"),
        *("configured: 60.0 at 0.1", "best: 70.0 at 0.2"),
    ]
    assert axes.get_ylim() == (0, 100) and axes.get_title() == "cam on train"
    assert axes.get_xlabel() and axes.get_ylabel()


def test_without_points_there_is_nothing_to_explain(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_curve(tmp_path / "curve.png", [], configured=None, best=None, title="not scored")
    assert drawn[0].axes[0].get_legend() is None


def test_methods_stand_below_each_other(tmp_path: Path, drawn: list[Figure]) -> None:
    rows = [
        {"method": method, "stage": "cam", "split": "train", "selection": selection,
         "miou": miou, "miou_sd": sd}
        for method, miou, sd in (("acr", "0.5", "0.02"), ("cam", "0.4", ""), ("mct", "", ""))
        for selection in ("configured", "best")
    ]  # fmt: skip
    plot_methods(tmp_path / "methods.png", rows)
    (axes,) = drawn[0].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["acr", "cam", "mct"]
    low, high = axes.get_ylim()
    assert low > high  # the first on top
    names = ["cam on train, configured score", "cam on train, best score"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == names
    first, second = axes.containers
    assert list(first.lines[0].get_xdata()) == pytest.approx([50, 40])
    # Each method's points lie within its row, one kind above the other.
    for place, (upper, lower) in enumerate(
        zip(first.lines[0].get_ydata(), second.lines[0].get_ydata(), strict=True)
    ):
        assert place - 0.5 < upper < lower < place + 0.5
