"""What benchmarks on a run's CAMs share: the images that have both CAMs and masks, and mIoU."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from wsss.data.build import build_index, build_masks
from wsss.data.formats.registry import FORMATS
from wsss.data.index import ImageRecord, Index, write_index, write_masks
from wsss.evaluation.config import EvaluationConfig
from wsss.evaluation.scoring import score_labels, score_maps
from wsss.maps.background import threshold_of
from wsss.maps.map_store import MapStore, MapStoreWriter

SPLIT = "train"


def add_seed_options(parser: argparse.ArgumentParser) -> None:
    """Give a benchmark the options that name CAMs and data."""
    parser.add_argument("--cams", type=Path, required=True, help="a run's results/NAME/cams.h5")
    parser.add_argument("--root", type=Path, required=True, help="the folder VOC2012")
    parser.add_argument("--images", type=int, help="that many of them only, evenly spaced")
    parser.add_argument("--background", type=float, default=0.4, help="score beside the CAMs")
    parser.add_argument("--workers", type=int, default=1)


def write_seeds(folder: Path, cams: Path, root: Path, count: int | None) -> Index:
    """Write index.csv, masks.csv and cams.h5 of the images of `train` with CAMs and masks."""
    settings = FORMATS.parse({"format": "voc"}, where="index")
    whole = build_index(settings, root)
    with MapStore(cams) as store:
        records = [r for r in whole.records if SPLIT in r.sets and r.name in store.names]
        masks = build_masks(settings, root, Index(whole.classes, tuple(records)))
        records = evenly([record for record in records if record.name in masks], count)
        with MapStoreWriter(
            folder / "cams.h5", classes=store.classes, attributes={}, upsampling=store.upsampling
        ) as writer:
            for record in records:
                maps = store.read(record.name)
                writer.add(record.name, maps.class_indices.tolist(), maps.maps, maps.size)
    index = Index(whole.classes, tuple(records))
    write_index(index, folder / "index.csv")
    write_masks({record.name: masks[record.name] for record in records}, folder / "masks.csv")
    return index


def evenly(records: Sequence[ImageRecord], count: int | None) -> list[ImageRecord]:
    """`count` of these images, evenly spaced; None: all."""
    some = len(records) if count is None else min(count, len(records))
    return [records[i * len(records) // some] for i in range(some)]


def map_mious(
    folder: Path, maps: Path, root: Path, config: EvaluationConfig, *, workers: int = 1
) -> dict[str, float]:
    """MIoU of maps in percent, at a background score (`configured`) and at the best one."""
    score_maps(
        config=config,
        maps=maps,
        index=folder / "index.csv",
        masks=folder / "masks.csv",
        root=root,
        output=folder / "scores.csv",
        curve=folder / "curve.csv",
        plot=folder / "curve.png",
        run="benchmark",
        stage="cam",
        split=SPLIT,
        background=threshold_of(config.cam_background),
        workers=workers,
    )
    return _means(folder / "scores.csv")


def label_miou(folder: Path, labels: Path, root: Path) -> float:
    """MIoU of label PNGs in percent."""
    score_labels(
        labels=labels,
        index=folder / "index.csv",
        masks=folder / "masks.csv",
        root=root,
        output=folder / "scores.csv",
        run="benchmark",
        stage="pseudo_label",
        split=SPLIT,
    )
    return _means(folder / "scores.csv")["configured"]


def _means(path: Path) -> dict[str, float]:
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["class"] == "mean"]
    return {row["selection"]: 100 * float(row["iou"]) for row in rows}
