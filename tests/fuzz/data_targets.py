"""The readers of what people and their tools write: lists of pictures, drawings, chosen scores."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fuzz.mutator import damaged, damaged_archive, damaged_json
from fuzz.target import Damage, Target
from wsss.cam.imported_maps import ClassMaps
from wsss.cam.imported_masks import Masks
from wsss.data.build import build_index
from wsss.data.exports.label_studio import brush_rle
from wsss.data.formats.coco_json import CocoJsonSettings
from wsss.data.formats.folder import FolderSettings
from wsss.data.formats.table import TableSettings
from wsss.data.imports.masks import Choices, import_masks
from wsss.data.imports.registry import read_drawing
from wsss.data.index import ImageRecord, Index
from wsss.evaluation.config import EvaluationConfig
from wsss.evaluation.tables import CurvePoint, write_curve
from wsss.maps.chosen import chosen_entry, with_chosen, write_chosen
from wsss.report import facts

CLASSES = ("cat", "dog")
NAMES = ("a", "b", "c", "d")
WIDTH, HEIGHT = 20, 16
SOURCES = ("coco.json", "tasks.json", "cvat.zip", "pngs")
Files = list[tuple[Path, tuple[Damage, ...]]]
_OUTLINE = [[1, 1, 9, 1, 9, 9]]


def _coco() -> dict[str, Any]:
    sides = {"width": WIDTH, "height": HEIGHT}
    runs = {"size": [HEIGHT, WIDTH], "counts": [0, 20, 300]}
    return {
        "images": [{"id": i, "file_name": f"{n}.png", **sides} for i, n in enumerate(NAMES)],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 1, "segmentation": _OUTLINE, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 2, "segmentation": runs, "iscrowd": 1},
            {"id": 3, "image_id": 2, "category_id": 1, "segmentation": [], "bbox": [0, 0, 3, 3]},
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


def _pictures(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / f"{name}.png")


def _lists(folder: Path) -> Files:
    _pictures(folder / "images")
    rows = [(f"{name}.png", CLASSES[i % 2], "train") for i, name in enumerate(NAMES)]
    labels = "image,tags,set\n" + "".join(",".join(row) + "\n" for row in rows)
    objects = [{"file_name": row[0], "labels": [row[1]], "set": row[2]} for row in rows]
    hot = [f"{name},{int(tag == 'cat')},{int(tag == 'dog')}\n" for name, tag, _ in rows]
    for name, text in {
        "labels.csv": labels,
        "classes.txt": "cat\ndog\n",
        "hot.csv": "image,cat,dog\n" + "".join(hot),
        "list.json": json.dumps(objects),
        "list.jsonl": "".join(json.dumps(each) + "\n" for each in objects),
        "annotations.json": json.dumps(_coco()),
    }.items():
        (folder / name).write_text(text)
    ways = {".json": (damaged, damaged_json, damaged_json)}
    names = ("labels.csv", "classes.txt", "hot.csv", "list.json", "list.jsonl", "annotations.json")
    return [(folder / name, ways.get(Path(name).suffix, (damaged,))) for name in names]


def _read_lists(folder: Path) -> None:
    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        build_index(FolderSettings(), folder)
        for file in ("hot.csv", "list.json", "list.jsonl"):
            build_index(TableSettings(file=file), folder)
        build_index(CocoJsonSettings(), folder)


def _png(colours: bool) -> bytes:
    label = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    label[2:5, 2:9] = 1
    picture = np.stack([label * np.uint8(128), 0 * label, 0 * label], axis=2) if colours else label
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def _drawings(folder: Path) -> Files:
    region = {"original_width": WIDTH, "original_height": HEIGHT, "type": "polygonlabels"}
    region |= {"value": {"points": [[1, 1], [50, 1], [50, 50]], "polygonlabels": ["cat"]}}
    brush = brush_rle(np.eye(HEIGHT, WIDTH, dtype=bool))
    stroke = {**region, "type": "brushlabels", "value": {"rle": brush, "brushlabels": ["dog"]}}
    tasks = [
        {"data": {"image": "/data/upload/1/0a0b0c0d-a.png"}, "annotations": [{"result": [stroke]}]},
        {"data": {"image": "b.png"}, "annotations": [{"id": 2, "result": [region, stroke]}]},
    ]
    (folder / "coco.json").write_text(json.dumps(_coco()))
    (folder / "tasks.json").write_text(json.dumps(tasks))
    with zipfile.ZipFile(folder / "cvat.zip", "w") as archive:
        archive.writestr("labelmap.txt", "background:0,0,0::\ncat:128,0,0::\ndog:0,128,0::\n")
        archive.writestr("SegmentationClass/a.png", _png(colours=True))
    (folder / "pngs").mkdir()
    (folder / "pngs/a.png").write_bytes(_png(colours=False))
    (folder / "pngs/classes.txt").write_text("cat\ndog\n")
    ways = (damaged, damaged_json, damaged_json)
    return [
        (folder / "coco.json", ways),
        (folder / "tasks.json", ways),
        (folder / "cvat.zip", (damaged, damaged_archive, damaged_archive)),
        (folder / "pngs/a.png", (damaged,)),
        (folder / "pngs/classes.txt", (damaged,)),
    ]


def _import(folder: Path) -> None:
    records = [ImageRecord(n, ("train",), CLASSES, WIDTH, HEIGHT, f"{n}.png") for n in NAMES]
    index, choices = Index(CLASSES, records), Choices(overwrite=True)
    for name in SOURCES:
        drawing = read_drawing(folder / name, CLASSES)
        with contextlib.redirect_stderr(io.StringIO()):
            import_masks(drawing, index, folder / "root", choices)


def _made_elsewhere(folder: Path) -> Files:
    half = np.full((HEIGHT, WIDTH), 0.5, np.float32)
    np.savez_compressed(folder / "a.npz", cat=half, dog=np.ones((4, 5), bool))
    np.savez(folder / "b.npz", cat=half)
    document = _coco()
    document["annotations"] = [
        {"image_id": i, "score": 0.9, "segmentation": document["annotations"][1]["segmentation"]}
        for i in range(3)
    ]
    (folder / "masks.json").write_text(json.dumps(document))
    ways = (damaged, damaged_archive, damaged_archive)
    files: Files = [(folder / name, ways) for name in ("a.npz", "b.npz")]
    return [*files, (folder / "masks.json", (damaged, damaged_json, damaged_json))]


def _read_made(folder: Path) -> None:
    for name in ("a", "b"):
        record = ImageRecord(name, ("train",), ("cat",), WIDTH, HEIGHT, f"{name}.png")
        maps = ClassMaps(folder, CLASSES)
        maps.check([record])
        maps.read(record, ("cat",))
        masks = Masks(folder, "masks.json", 0.5)
        masks.check([record])
        for mask in masks.read(record):
            assert mask.shape == (HEIGHT, WIDTH)


def _results(folder: Path) -> Files:
    write_chosen(folder / "thresholds.json", {"cam": chosen_entry("cam", 0.3, method="x")})
    for name in ("benchmarks", "config", "cam/work", "evaluation"):
        (folder / name).mkdir(parents=True)
    (folder / "benchmarks/cam.tsv").write_text("s\th:m:s\n75.2\t0:01:15\n")
    lines = [json.dumps({"step": step, "loss": 1 / step, "lr": 0.1}) for step in (1, 2, 3)]
    (folder / "cam/work/metrics.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "config/cam.json").write_text('{"method": "cam", "epochs": 2, "crop_px": 64}')
    write_curve(folder / "evaluation/cam_curve.csv", [CurvePoint(0.1, 0.5, 0.4, 0.6)])
    ways = (damaged, damaged_json, damaged_json)
    files: Files = [(folder / name, ways) for name in ("thresholds.json", "config/cam.json")]
    others = ("benchmarks/cam.tsv", "cam/work/metrics.jsonl", "evaluation/cam_curve.csv")
    return [*files, *((folder / name, (damaged,)) for name in others)]


def _read_results(folder: Path) -> None:
    with_chosen("evaluation", EvaluationConfig(cam_background="auto"), folder / "thresholds.json")
    for read in (facts.times, facts.trainings, facts.curves, facts.differences):
        read(folder)


DATA_TARGETS = {
    "list": Target(_lists, _read_lists),
    "drawing": Target(_drawings, _import),
    "made-elsewhere": Target(_made_elsewhere, _read_made),
    "result": Target(_results, _read_results),
}
