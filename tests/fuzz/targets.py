"""The readers: what a sound file is, how it gets damaged, and who reads it."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import random
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import torch
import yaml
from torch import nn

from fuzz.data_targets import DATA_TARGETS
from fuzz.mutator import damaged, damaged_archive, damaged_json
from fuzz.target import Damage, Target
from wsss.data.formats.cls_labels import read_cls_labels
from wsss.data.index import ImageRecord, Index, read_index, read_masks, write_index, write_masks
from wsss.errors import UserError
from wsss.evaluation import tables, tags
from wsss.maps.map_store import MapStore, MapStoreWriter, map_size
from wsss.maps.shard_files import merge_shards, record_shard
from wsss.maps.shards import Shard
from wsss.models.weights import load_model_file, load_strict, read_state_dict, save_model
from wsss.monitor.plan import PlannedJob, write_plan
from wsss.monitor.status import run_status
from wsss.monitor.status_text import format_status
from wsss.project.config import load_config
from wsss.project.file import read_stage
from wsss.project.yaml_files import parse_yaml
from wsss.runtime.heartbeat import heartbeat_file
from wsss.training.checkpoint import load_checkpoint, save_checkpoint

CLASSES = ("cat", "dog", "cow")
REPOSITORY = Path(__file__).parents[2]


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


def _weights() -> object:
    return {"state_dict": _network().state_dict(), "epoch": 3, "lr": 0.1, "names": ["a", ("b",)]}


def _archives(folder: Path) -> list[tuple[Path, tuple[Damage, ...]]]:
    torch.save(_weights(), folder / "x.pth")
    return [(folder / "x.pth", (damaged, damaged_archive, damaged_archive))]


def _legacy(folder: Path) -> list[tuple[Path, tuple[Damage, ...]]]:
    torch.save(_weights(), folder / "x.pth", _use_new_zipfile_serialization=False)
    return [(folder / "x.pth", (damaged,))]


def _load_weights(folder: Path) -> None:
    load_strict(_network(), read_state_dict(folder / "x.pth"), where="x.pth")


def _models(folder: Path) -> list[tuple[Path, tuple[Damage, ...]]]:
    path = folder / "model.safetensors"
    metadata = {"settings": {"head": {"channels": 3}}, "classes": list(CLASSES)}
    save_model(path, _network().state_dict(), stage="cam", metadata=metadata)
    return [(path, (damaged, _damaged_header))]


def _damaged_header(content: bytes, rng: random.Random) -> bytes:
    end = 8 + int.from_bytes(content[:8], "little")
    header = damaged_json(content[8:end], rng)
    if rng.random() < 0.3:
        described = json.loads(content[8:end])
        text = described["__metadata__"]["wsss"].encode()
        described["__metadata__"]["wsss"] = damaged_json(text, rng).decode()
        header = json.dumps(described).encode()
    return len(header).to_bytes(8, "little") + header + content[end:]


def _load_model(folder: Path) -> None:
    path = folder / "model.safetensors"
    load_strict(_network(), load_model_file(path, "cam")[0], where=path)


@functools.cache  # what is loaded into, whatever it held before
def _training(folder: Path) -> tuple[Path, dict[str, nn.Module], dict[str, torch.optim.Optimizer]]:
    network = _network()
    adam = torch.optim.Adam(network.parameters())
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    adam.step()
    return folder / "checkpoint.pt", {"net": network}, {"adam": adam}


def _checkpoints(folder: Path) -> list[tuple[Path, tuple[Damage, ...]]]:
    path, modules, optimizers = _training(folder)
    save_checkpoint(path, identity={"a": 1}, step=3, modules=modules, optimizers=optimizers)
    return [(path, (damaged, damaged_archive))]


def _load_checkpoint(folder: Path) -> None:
    path, modules, optimizers = _training(folder)
    load_checkpoint(path, identity={"a": 1}, modules=modules, optimizers=optimizers)


def _stores(folder: Path) -> list[tuple[Path, tuple[Damage, ...]]]:
    rng = np.random.default_rng(0)
    told = {"config": "abc", "code": "def", "normalisation": "max", "n": 3}
    with MapStoreWriter(folder / "s.h5", classes=CLASSES, attributes=told) as store:
        for name in ("a", "b c", "x/y", "d"):
            store.add(name, [0, 2], rng.random((2, *map_size(30, 41))), (30, 41))
    return [(folder / "s.h5", (damaged, damaged, damaged, _forged_store))]


def _forged_store(content: bytes, rng: random.Random) -> bytes:
    """Return a store that HDF5 wrote itself, of unlikely values."""
    sides = (0, 1, 3, 8, 11, 300, 70_000, 2**31, 2**40)

    def shape() -> tuple[int, ...]:
        return tuple(rng.choice(sides) for _ in range(rng.choice((0, 1, 2, 3, 3, 3, 4))))

    result = io.BytesIO()
    with h5py.File(
        result, "w", libver=rng.choice(("latest", "latest", "v110", "earliest"))
    ) as file:
        file.attrs["format"] = rng.choice(("wsss-maps", "wsss-maps", b"wsss-maps", 3, [1, 2]))
        file.attrs["format_version"] = rng.choice((1, 1, 1, "1", 1.0, [1], 2**40))
        names = rng.choice((CLASSES, (), ("",), ("é", "\n")))
        file.attrs["classes"] = rng.choice(
            (np.array(names, dtype=h5py.string_dtype()), 3, [[1.5]], "cat", b"\xff")
        )
        if rng.random() < 0.9:
            file.attrs["upsampling"] = rng.choice(("resize", "times4", 3, ["x"]))
        group = file.create_group("maps") if rng.random() < 0.95 else file
        for number in range(3):
            with contextlib.suppress(ValueError, TypeError, OverflowError, OSError, RuntimeError):
                size = shape()
                kind = rng.choice((np.float16, np.float16, np.float64, np.int8, np.complex64, "S9"))
                chunks = tuple(min(64, max(1, side)) for side in size) if size else None
                data = group.create_dataset(
                    f"n{number}", size, kind, chunks=chunks, compression="gzip" if chunks else None
                )
                classes = [rng.choice((0, 1, 2, 3, -1, 2**40)) for _ in range(rng.randrange(4))]
                data.attrs["classes"] = rng.choice((classes, "x", 1.5, [[0]]))
                data.attrs["size"] = rng.choice(([30, 41], size[1:], [2**62, 1], "x", [1, 1, 1]))
    return result.getvalue()


def _read_store(folder: Path) -> None:
    with MapStore(folder / "s.h5") as store:
        for name in store.names:
            with contextlib.suppress(UserError):
                store.read(name)
            store.read(name, (30, 41))


def _indexes(folder: Path) -> list[tuple[Path, tuple[Damage, ...]]]:
    records = [
        ImageRecord(f"n{i}", ("train", "val"), CLASSES[: i % 3], 40 + i, 30, f"images/n{i}.jpg")
        for i in range(6)
    ]
    write_index(Index(CLASSES, tuple(records)), folder / "index.csv")
    write_masks(
        {record.name: f"masks/{record.name}.png" for record in records}, folder / "masks.csv"
    )
    return [(folder / name, (damaged,)) for name in ("index.csv", "classes.txt", "masks.csv")]


def _read_index(folder: Path) -> None:
    known = read_index(folder / "index.csv")
    with contextlib.suppress(UserError):
        known.training_set().multi_hot()
    read_masks(folder / "masks.csv")


_CONFIG = """\
compute: {device: cpu, threads: 2}
roots: {own: data/own, other: "data/ö"}
weights: {some: weights/x.pth}
defaults:
  cam: &cam {epochs: 2, crop_px: 64}
ablations: {q: [0.1, 0.5]}
runs:
  own:
    root: own
    index: {format: folder, classes: [cat, dog]}
    cam: {method: cam, <<: *cam}
    segmentation:
      epochs: 1
  2012: {extends: own, stop_after: cam, export: {scales: [1.0, 0.5]}}
  on: {extends: own}
"""


def _configs(folder: Path) -> list[tuple[Path, tuple[Damage, ...]]]:
    (folder / "config.yaml").write_text(_CONFIG)
    (folder / "config.local.yaml").write_text("shards: 2\nruns: {own: {cam: {seed: 3}}}\n")
    (folder / "stage.json").write_text(json.dumps({"method": "cam", "epochs": 2, "crop_px": 64}))
    return [
        (folder / "config.yaml", (damaged, damaged, _damaged_yaml)),
        (folder / "config.local.yaml", (damaged, _damaged_yaml)),
        (folder / "stage.json", (damaged, damaged_json)),
    ]


def _damaged_yaml(content: bytes, rng: random.Random) -> bytes:
    value = parse_yaml(content.decode(), "sound")
    changed = json.loads(damaged_json(json.dumps(value).encode(), rng))
    return yaml.safe_dump(changed, allow_unicode=rng.random() < 0.5).encode("utf-8", "replace")


def _read_config(folder: Path) -> None:
    load_config(folder=folder)
    read_stage("cam", folder / "stage.json")


def _runs(folder: Path) -> list[tuple[Path, tuple[Damage, ...]]]:
    jobs = [
        PlannedJob("index", ("index.csv",), "logs/index.log", "benchmarks/index.tsv"),
        PlannedJob("cam", ("cam/model", "cam/other"), "logs/cam.log"),
        PlannedJob("export", ("cams.h5",), "../logs/export.log", None, must_run=False),
    ]
    write_plan(folder, jobs, whole=True)
    (folder / "index.csv").write_text("made")
    for name in ("benchmarks", "logs", "shards", "cam"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "benchmarks" / "index.tsv").write_text("s\th:m:s\tmax_rss\n75.2\t0:01:15\t100\n")
    (folder / "logs" / "cam.log").write_text("one\ntwo\n")
    (folder / "shards" / "export.json").write_text('{"shards": 3, "asked": "3 jobs"}')
    told = {"command": "cam", "host": "node7 pid:[7]", "pid": 1, "process": "1", "started": 1.5e9}
    told |= {"time": 2e9, "progressed": 2e9, "epoch": 1, "epochs": 3, "done": 3, "total": 9}
    told |= {"unit": "step", "loss": 0.5, "images_per_s": 3.2, "eta_s": 100, "doing": "train"}
    beats = [heartbeat_file(folder / name) for name in ("cam/model", "cams.h5")]
    beats.append(heartbeat_file(folder / "shards" / "export" / "1-of-3"))
    for path, state in zip(beats, ("running", "failed", "running"), strict=True):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({**told, "state": state, "message": "why\nso"}))
    ways = (damaged, damaged_json, damaged_json)
    others = [folder / "plan.json", folder / "shards" / "export.json"]
    return [
        *((path, ways) for path in (*beats, *others)),
        (folder / "benchmarks" / "index.tsv", (damaged,)),
        (folder / "logs" / "cam.log", (damaged,)),
    ]


def _show_status(folder: Path) -> None:
    # As the command prints it.
    format_status(run_status(folder)).encode()


def _shards(folder: Path) -> list[tuple[Path, tuple[Damage, ...]]]:
    for number in (1, 2):
        part = folder / f"{number}-of-2"
        (part / "labels").mkdir(parents=True)
        (part / "labels" / f"n{number}.png").write_bytes(b"x")
        record_shard(part, Shard(number, 2), {"code": "a", "settings": "b"})
    return [(folder / "1-of-2" / "shard.json", (damaged, damaged_json, damaged_json))]


def _merge(folder: Path) -> None:
    parts = [folder / "1-of-2", folder / "2-of-2"]
    merge_shards(parts, {"labels": folder / "labels"}, {"code": "a", "settings": "b"})


def _tables(folder: Path) -> list[tuple[Path, tuple[Damage, ...]]]:
    values = ("demo", "cam", "pseudo", "val", "configured", "0.3", "mean", "0.5", "0.6", "0.7")
    row = dict(zip(tables.COLUMNS, values, strict=True))
    tables.write_rows(folder / "miou.csv", [row, {**row, "class": "é"}], notes=["2 left out"])
    counts = dict.fromkeys(tags.COLUMNS, "1")
    tables.write_rows(folder / "tags.csv", [counts, {**counts, "class": "all"}], tags.COLUMNS)
    return [(folder / name, (damaged,)) for name in ("miou.csv", "tags.csv")]


def _show_tables(folder: Path) -> None:
    tables.format_table(folder / "miou.csv").encode()
    tags.format_tags(folder / "tags.csv").encode()


def _labels(folder: Path) -> list[tuple[Path, tuple[Damage, ...]]]:
    values = {f"2007_{i:06d}": np.eye(3, dtype=np.float32)[i % 3] for i in range(5)}
    np.save(folder / "cls_labels.npy", np.array(values, dtype=object), allow_pickle=True)
    return [(folder / "cls_labels.npy", (damaged,))]


TARGETS = {
    "weights": Target(_archives, _load_weights),
    "weights-legacy": Target(_legacy, _load_weights),
    "model": Target(_models, _load_model),
    "checkpoint": Target(_checkpoints, _load_checkpoint),
    "store": Target(_stores, _read_store),
    "index": Target(_indexes, _read_index),
    "config": Target(_configs, _read_config),
    "status": Target(_runs, _show_status),
    "shard": Target(_shards, _merge),
    "table": Target(_tables, _show_tables),
    "cls-labels": Target(_labels, lambda folder: read_cls_labels(folder / "cls_labels.npy", 3)),
    **DATA_TARGETS,
}


@contextlib.contextmanager
def mutation(
    files: list[tuple[Path, tuple[Damage, ...]]], sound: dict[Path, bytes], rng: random.Random
) -> Iterator[None]:
    """Have one of the files damaged."""
    path, ways = rng.choice(files)
    path.write_bytes(rng.choice(ways)(sound[path], rng))
    try:
        yield
    finally:
        path.write_bytes(sound[path])
