"""The report of a run: one HTML page that asks no network for anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt

from wsss.data.index import Index, read_index, read_masks
from wsss.errors import UserError
from wsss.evaluation.config import EvaluationConfig
from wsss.evaluation.tables import Row, mean_cells
from wsss.files import read_json_object, write_text
from wsss.report import charts, facts
from wsss.report.findings import Findings, Picture, examine, representative
from wsss.report.pictures import Shown, colours, panel_uris, show
from wsss.report.template import TEMPLATE

SHOWN_EACH = 3
CONTRADICTIONS = 12
PANELS = 8
# With more labels than this, the cells of the confusion matrix are too narrow for numbers.
MOST_NUMBERED = 25
NAMES = {
    "cam": "CAMs",
    "cam_crf": "CAMs with CRF",
    "pseudo_label": "pseudo-labels",
    "pseudo_label_crf": "pseudo-labels with CRF",
    "self_label": "labels predicted by another run",
    "segmentation": "segmentation",
    "segmentation_crf": "segmentation with CRF",
    "irn": "IRNet",
}


def write_report(
    *,
    config: EvaluationConfig,
    folder: Path,
    index: Path,
    masks: Path,
    root: Path,
    output: Path,
) -> None:
    """Write the report of a run: what was run, its scores, curves, losses and pictures.

    What the run does not have, such as masks or a segmentation, the page does without.

    Args:
        config: The share of a picture from which a class counts as predicted.
        folder: The run's folder, `results/<run>`.
        index: `index.csv`.
        masks: `masks.csv`, for what has masks.
        root: Data root.
        output: HTML file to write. It holds times, so that two runs never give the same bytes.

    Raises:
        UserError: There is no run in the folder, or a file of it is damaged.
    """
    if not (folder / "config").is_dir():
        raise UserError(
            "no run is in this folder", where=folder, expected="results/<run>, with config/ in it"
        )
    page = _page(folder, read_index(index), read_masks(masks), root, config.tag_share)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    write_text(output, environment.from_string(TEMPLATE).render(page))


def _page(
    folder: Path, index: Index, masks: Mapping[str, str], root: Path, min_share: float
) -> dict[str, Any]:
    rows = facts.scores(folder)
    findings, labels, split = None, _predictions(folder), ""
    if labels is not None:
        split = str(read_json_object(folder / "config" / "prediction.json").get("split"))
        chosen = index.subset(split)
        findings = examine(chosen, labels=labels, masks=masks, root=root, min_share=min_share)

    def drawn(pictures: Sequence[Picture]) -> list[Shown]:
        assert labels is not None
        return [show(each, root=root, labels=labels, masks=masks) for each in pictures]

    page: dict[str, Any] = {
        "title": f"Run {folder.resolve().name}",
        "summary": _summary(index, masks, folder),
        "tiles": _tiles(rows, findings, folder),
        "split": split,
        "table": mean_cells(rows),
        "notes": facts.notes(folder),
        "curves": _curves(folder, rows),
        "bars": _bars(rows),
        "losses": [
            (NAMES.get(each.name, _title(each.name)), _losses(each))
            for each in facts.trainings(folder)
        ],
        "panels": panel_uris(folder / "panels", PANELS),
        "data": _data(index, masks, root),
        "times": [(name, _clock(seconds)) for name, seconds in facts.times(folder).items()],
        "settings": facts.differences(folder),
        "versions": facts.versions(),
        "confusion": None,
        "tags": None,
        "ranked": None,
        "ranked_by": "",
        "contradictions": None,
    }
    if findings is not None:
        has_masks = findings.confusion is not None
        page["confusion"] = _confusion(findings)
        page["tags"] = _tags(findings, min_share)
        page["ranked_by"] = "their mean IoU" if has_masks else "how well classes and tags agree"
        ranked = representative(findings.by_merit, SHOWN_EACH)
        page["ranked"] = {kind: drawn(pictures) for kind, pictures in ranked.items()}
        page["contradictions"] = _contradictions(findings, drawn)
    sections = {
        "scores": ("table", "Scores"),
        "curves": ("curves", "Background scores"),
        "classes": ("bars", "Classes"),
        "confusion": ("confusion", "Confusion"),
        "tags": ("tags", "Tags"),
        "trainings": ("losses", "Trainings"),
        "pictures": ("ranked", "Pictures"),
        "contradictions": ("contradictions", "Contradictions"),
        "panels": ("panels", "Panels"),
        "run": ("data", "What was run"),
    }
    page["sections"] = [(place, text) for place, (key, text) in sections.items() if page[key]]
    return page


def _title(name: str) -> str:
    return name.replace("_", " ")


def _predictions(folder: Path) -> Path | None:
    """Return the run's predictions, after the CRF where there are such."""
    found = (folder / name for name in ("predictions_crf", "predictions"))
    return next((path for path in found if path.is_dir()), None)


def _summary(index: Index, masks: Mapping[str, str], folder: Path) -> str:
    count = len(index.records)
    covered = sum(record.name in masks for record in index.records)
    text = f"{count} pictures with image-level tags of {len(index.classes)} classes; "
    if covered == 0:
        return text + "there are no masks, so that only tags can be compared with."
    labels = facts.settings_of(folder).get("segmentation.labels")
    purpose = "scoring and training" if labels in ("mixed", "ground_truth") else "scoring"
    return text + f"masks of {covered} of them, for {purpose}."


def _means(rows: Sequence[Row]) -> dict[str, float]:
    """Return stage -> mean IoU at the configured background score."""
    return {
        row["stage"]: float(row["iou"])
        for row in rows
        if row["class"] == "mean" and row["selection"] == "configured" and row["iou"]
    }


def _tiles(rows: Sequence[Row], findings: Findings | None, folder: Path) -> list[tuple[str, str]]:
    found = [
        (f"{100 * value:.1f} %", f"mIoU, {NAMES.get(stage, _title(stage))}")
        for stage, value in _means(rows).items()
    ]
    if findings is not None:
        scores = findings.tag_scores
        both, said, tagged = (
            sum(getattr(each, key) for each in scores) for key in ("both", "found", "tagged")
        )
        if said and tagged:
            found.append((f"{100 * both / said:.0f} %", "of predicted classes are tags"))
            found.append((f"{100 * both / tagged:.0f} %", "of tags are predicted"))
    seconds = sum(facts.times(folder).values())
    if seconds:
        found.append((_clock(seconds), "in all stages"))
    return found


def _clock(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    hours, rest = divmod(round(seconds), 3600)
    if hours:
        return f"{hours} h {rest // 60:02d} min"
    return f"{rest // 60} min {rest % 60:02d} s"


def _curves(folder: Path, rows: Sequence[Row]) -> list[tuple[str, str]]:
    found = []
    for stage, points in facts.curves(folder).items():
        chosen = {
            row["selection"]: (float(row["threshold"]), float(row["iou"]))
            for row in rows
            if row["stage"] == stage and row["class"] == "mean" and row["threshold"] and row["iou"]
        }
        found.append((NAMES[stage], charts.curve(points, chosen, name=f"curve-{stage}")))
    return found


def _bars(rows: Sequence[Row]) -> str:
    stages: dict[str, dict[str, float | None]] = {}
    for row in rows:
        if row["selection"] == "configured" and row["class"] != "mean":
            value = float(row["iou"]) if row["iou"] else None
            stages.setdefault(NAMES.get(row["stage"], row["stage"]), {})[row["class"]] = value
    if not stages:
        return ""
    names = list(dict.fromkeys(name for scores in stages.values() for name in scores))
    scores = {stage: [values.get(name) for name in names] for stage, values in stages.items()}
    return charts.class_bars(names, scores, name="classes")


def _losses(training: facts.Training) -> str:
    named = {
        name.removesuffix("_total").replace("_", " "): values
        for name, values in training.losses.items()
    }
    return charts.losses(training.steps, named, name=f"losses-{training.name}")


def _shares(confusion: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    totals = confusion.sum(axis=1, keepdims=True)
    shares = np.zeros(confusion.shape, dtype=np.float64)
    np.divide(confusion, totals, out=shares, where=totals > 0)
    return shares


def _confusion(findings: Findings) -> dict[str, Any] | None:
    if findings.confusion is None:
        return None
    names = ("background", *findings.classes)
    rows = []
    for name, shares in zip(names, _shares(findings.confusion), strict=True):
        cells = [
            (
                f"{0.9 * share:.3f}",
                f"{100 * share:.0f}" if share >= 0.005 else "",
                other,
                share > 0.5,
            )
            for other, share in zip(names, shares, strict=True)
        ]
        rows.append((name, cells))
    return {
        "names": names,
        "rows": rows,
        "pictures": sum(each.iou is not None for each in findings.pictures),
        "numbers": len(names) <= MOST_NUMBERED,
    }


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def _tags(findings: Findings, min_share: float) -> dict[str, Any] | None:
    tagged = [each for each in findings.pictures if each.record.tags]
    if not tagged:
        return None
    colour = colours(("background", *findings.classes))
    rows = [
        (
            *(colour[each.name], each.name, each.tagged, each.found, each.both),
            *(_percent(each.precision), _percent(each.recall)),
        )
        for each in findings.tag_scores
    ]
    return {
        "rows": rows,
        "pictures": len(tagged),
        "min_share": f"{100 * min_share:g}",
        "empty": sum(not each.found for each in tagged),
    }


def _contradictions(findings: Findings, drawn: Any) -> dict[str, Any] | None:
    found = findings.contradictions
    if not found:
        return None
    shown = []
    for picture, each in zip(found, drawn(found[:CONTRADICTIONS]), strict=False):
        extra = [f"predicted: {', '.join(picture.extra)}"] if picture.extra else []
        missing = [f"not predicted: {', '.join(picture.missing)}"] if picture.missing else []
        shown.append(Shown(each.title, "; ".join([*extra, *missing]), each.tiles))
    rest = [
        (each.record.name, ", ".join(each.extra), ", ".join(each.missing))
        for each in found[CONTRADICTIONS:]
    ]
    tagged = sum(bool(each.record.tags) for each in findings.pictures)
    return {"count": len(found), "of": tagged, "shown": shown, "rest": rest}


def _data(index: Index, masks: Mapping[str, str], root: Path) -> list[tuple[str, str]]:
    # Only its name: the page is sent to others.
    rows = [("folder", root.resolve().name), ("classes", ", ".join(index.classes))]
    for name in index.sets:
        records = index.subset(name).records
        tagged = sum(bool(record.tags) for record in records)
        covered = sum(record.name in masks for record in records)
        rows.append((name, f"{len(records)} pictures, {tagged} with tags, {covered} with masks"))
    return rows
