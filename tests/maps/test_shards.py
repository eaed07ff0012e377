"""Stages shared by several jobs: whatever their number, the bytes of one job alone."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from conftest import write_tiny_data
from memory_helpers import peak_of

from wsss.cam.config import ExportConfig
from wsss.cam.methods.plain_config import PlainSettings
from wsss.cam.training import train_cam
from wsss.cli import main
from wsss.data.build import build_index
from wsss.data.crf_config import CrfConfig, LabelCrfConfig
from wsss.data.formats.folder import FolderSettings
from wsss.data.index import write_index
from wsss.errors import UserError
from wsss.files import write_json
from wsss.irn.config import IrnConfig, LabelsConfig, PseudoLabelsConfig
from wsss.irn.model_file import IRNET
from wsss.maps.map_store import MapStore, MapStoreWriter, map_size
from wsss.maps.shard_files import merge_shards, record_shard
from wsss.maps.shards import Shard, parse_shard
from wsss.models.backbones import build_backbone
from wsss.models.config import BackboneConfig
from wsss.models.deeplab import DeepLab
from wsss.models.heads.deeplab_config import V3PlusSettings
from wsss.models.irnet import IrNet
from wsss.project.config import resolve
from wsss.runtime import pool
from wsss.runtime.compute import Compute
from wsss.runtime.settings import to_dict
from wsss.segmentation.config import PredictionConfig, SegmentationConfig, SelfLabelsConfig
from wsss.segmentation.model_file import SEGMENTATION

BACKBONE = BackboneConfig(name="test_efficientnet", weights="none", output_stride=16)


# ----- the division


@pytest.mark.parametrize("total", [1, 2, 3, 7, 30])
def test_parts_are_neighbours_in_order_and_even(total: int) -> None:
    for count in (0, 1, 6, 7, 20, 82783):
        parts = [Shard(number, total).of(range(count)) for number in range(1, total + 1)]
        assert [item for part in parts for item in part] == list(range(count))
        sizes = {len(part) for part in parts}
        assert max(sizes) - min(sizes) <= 1


def test_a_shard_is_written_as_a_fraction() -> None:
    assert parse_shard("2/7") == Shard(2, 7) and str(Shard(2, 7)) == "2/7"
    for wrong in ("2", "0/3", "4/3", "-1/3", "1/0", "a/b", "1/3/5", ""):
        with pytest.raises(UserError, match="2/8"):
            parse_shard(wrong)


def test_the_setting_is_a_number_or_one_for_each_stage() -> None:
    assert resolve({}).shards.export == 1
    assert set(to_dict(resolve({"shards": 5}).shards).values()) == {5}
    some = resolve({"shards": {"export": 8, "prediction": 2}}).shards
    assert tuple(to_dict(some).values()) == (8, 1, 1, 1, 2)
    for wrong, words in (
        (0, "shards is 0"),
        ({"cam": 2}, "unknown key 'cam'"),
        ({"labels": 0}, "1 or more"),
        (True, "shards"),
        ("many", "shards"),
    ):
        with pytest.raises(UserError, match=words):
            resolve({"shards": wrong})


# ----- the stages' commands

# Command: options with inputs, options with results.
STAGES = {
    "export": (
        {"config": "config/export.json", "model": "cam.safetensors"},
        {"output": "cams.h5"},
    ),
    "labels": (
        {"config": "config/labels.json", "cams": "given.h5"},
        {"output": "labels", "manifest": "labels.sha256"},
    ),
    "pseudo-labels": (
        {"config": "config/pseudo_labels.json", "cams": "given.h5", "model": "irn.safetensors"},
        {"output": "labels", "manifest": "labels.sha256", "maps": "walked.h5"},
    ),
    "self-labels": (
        {"config": "config/self_labels.json", "model": "segmentation.safetensors"},
        {"output": "labels", "manifest": "labels.sha256"},
    ),
    "prediction": (
        {"config": "config/prediction.json", "model": "segmentation.safetensors"},
        {
            "output": "labels",
            "manifest": "labels.sha256",
            "output-crf": "labels_crf",
            "manifest-crf": "labels_crf.sha256",
        },
    ),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight training images and five others, settings, hardly trained models, random CAMs."""
    folder = tmp_path_factory.mktemp("inputs")
    write_tiny_data(folder / "data", train=8, val=5)
    index = build_index(FolderSettings(), folder / "data")
    write_index(index, folder / "index.csv")
    head = V3PlusSettings(channels=8, low_level_channels=4)
    crf = LabelCrfConfig(iterations=1)
    settings: dict[str, Any] = {
        "export": ExportConfig(scales=(1.0,)),
        "labels": LabelsConfig(foreground_threshold=0.3, background_threshold=0.05, crf=crf),
        "irn": IrnConfig(backbone=BACKBONE),
        "pseudo_labels": PseudoLabelsConfig(background=0.25, radius=3, steps=4),
        "segmentation": SegmentationConfig(backbone=BACKBONE, head=head),
        "self_labels": SelfLabelsConfig(
            scales=(1.0,), mirror=False, confidence=0.4, crf_settings=CrfConfig(iterations=1)
        ),
        "prediction": PredictionConfig(
            scales=(1.0,), mirror=False, crf_settings=CrfConfig(iterations=1)
        ),
    }
    for stage, values in settings.items():
        write_json(folder / f"config/{stage}.json", to_dict(values))
    train_cam(
        config=PlainSettings(
            backbone=BACKBONE,
            epochs=1,
            batch_size=8,
            crop_px=32,
            long_side_min_px=32,
            long_side_max_px=40,
        ),
        index=folder / "index.csv",
        root=folder / "data",
        output=folder / "cam.safetensors",
        work_dir=folder / "work",
        compute=Compute(device="cpu", threads=1, workers=0),
    )
    torch.manual_seed(0)
    irn = IrNet(build_backbone(BACKBONE))
    IRNET.save(folder / "irn.safetensors", irn, settings["irn"], training={})
    SEGMENTATION.save(
        folder / "segmentation.safetensors",
        DeepLab(build_backbone(BACKBONE), len(index.classes) + 1, head),
        settings["segmentation"],
        classes=index.classes,
        training={},
    )
    rng = np.random.default_rng(0)
    with MapStoreWriter(folder / "given.h5", classes=index.classes, attributes={}) as store:
        for record in index.training_set().records:
            indices = index.class_indices(record)
            maps = rng.random((len(indices), *map_size(record.height, record.width)))
            store.add(record.name, indices, maps, (record.height, record.width))
    return folder


def words(folder: Path, paths: dict[str, str]) -> list[str]:
    return [word for option, path in paths.items() for word in (f"--{option}", f"{folder / path}")]


def call(command: str, inputs: Path, *options: str, workers: int = 0) -> int:
    """Run a stage's command on the inputs."""
    shared = {"index": "index.csv", "root": "data"}
    local = ["--workers", str(workers)]
    if command != "labels":
        local += ["--device", "cpu", "--threads", "1"]
    return main([command, *words(inputs, {**STAGES[command][0], **shared}), *options, *local])


def shares(command: str, inputs: Path, folder: Path, total: int) -> list[str]:
    """Make all shards of a stage; return their folders."""
    folders = [f"{folder}/{number}-of-{total}" for number in range(1, total + 1)]
    for number, path in enumerate(folders, start=1):
        assert call(command, inputs, "--shard", f"{number}/{total}", "--output", path) == 0
    return folders


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file in a folder."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.name.startswith(".")
    }


def made(folder: Path) -> set[str]:
    """Return the images that a folder has results of."""
    names = {path.stem for path in folder.rglob("*.png")}
    for store in folder.rglob("*.h5"):
        with MapStore(store) as maps:
            names |= set(maps.names)
    return names


@pytest.mark.parametrize("command", STAGES)
def test_the_bytes_do_not_depend_on_the_number_of_jobs(
    command: str, inputs: Path, tmp_path: Path
) -> None:
    results = STAGES[command][1]
    alone = tmp_path / "alone"
    assert call(command, inputs, *words(alone, results)) == 0
    expected = digests(alone)
    # All results are there, with every image of the stage.
    images = 5 if command == "prediction" else 8
    for name in results.values():
        if name.endswith(".h5"):
            with MapStore(alone / name) as store:
                assert len(store.names) == images
        elif name.endswith(".sha256"):
            assert len((alone / name).read_text().splitlines()) == images
    # Uneven parts, and more jobs than images: some have nothing to do.
    for total in (3, 9):
        folders = shares(command, inputs, tmp_path / "shards", total)
        # Each job does its own part: all of the work done by all would go together as well.
        parts = [len(Shard(number, total).of(range(images))) for number in range(1, total + 1)]
        assert [len(made(Path(folder))) for folder in folders] == parts
        many = tmp_path / f"many-{total}"
        assert call(command, inputs, *words(many, results), "--merge", *reversed(folders)) == 0
        assert digests(many) == expected


class Inline(Executor):
    """A pool that works in this process, and notes of how many processes it would be."""

    sizes: ClassVar[list[int]] = []

    def __init__(self, workers: int, **_: Any) -> None:
        self.sizes.append(workers)

    def submit(self, function: Any, /, *arguments: Any, **_: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(function(*arguments))
        return done


@pytest.mark.setting("compute.workers")
@pytest.mark.parametrize("command", sorted(STAGES.keys() - {"export"}))
def test_so_many_processes_share_the_images(
    command: str, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "ProcessPoolExecutor", Inline)
    monkeypatch.setattr(Inline, "sizes", [])
    assert call(command, inputs, *words(tmp_path, STAGES[command][1]), workers=3) == 0
    assert Inline.sizes == [3]


@pytest.mark.setting("prediction.crf")
def test_a_part_has_no_results_that_were_not_asked_for(inputs: Path, tmp_path: Path) -> None:
    config = PredictionConfig(scales=(1.0,), mirror=False, crf=False)
    write_json(tmp_path / "prediction.json", to_dict(config))
    options = ["--config", f"{tmp_path}/prediction.json", "--shard", "1/5"]
    assert call("prediction", inputs, *options, "--output", f"{tmp_path}/part") == 0
    assert [path.name for path in (tmp_path / "part").glob("*/")] == ["predictions"]


def test_parts_of_something_else_do_not_go_together(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = shares("labels", inputs, tmp_path / "shards", 2)
    merge = [*words(tmp_path / "merged", STAGES["labels"][1]), "--merge"]
    assert call("labels", inputs, *merge, folders[0]) == 2
    error = capsys.readouterr().err
    assert "not all shards of one stage: 1/2" in error and "--shard I/N" in error
    assert call("labels", inputs, *merge, *folders, folders[0]) == 2
    # Other settings.
    config = inputs / "config/labels.json"
    text = config.read_text()
    config.write_text(text.replace("0.05", "0.06"))
    try:
        assert call("labels", inputs, *merge, *folders) == 2
    finally:
        config.write_text(text)
    error = capsys.readouterr().err
    assert "settings differ" in error and f"rm -r {folders[0]}" in error
    # Other CAMs and another index.
    (tmp_path / "other").write_text("other")
    for option in ("cams", "index"):
        other = [f"--{option}", f"{tmp_path}/other"]
        assert call("labels", inputs, *other, *merge, *folders) == 2
        assert f"made of something else: {option} differ" in capsys.readouterr().err
    assert digests(tmp_path / "merged") == {}
    assert call("labels", inputs, *merge, *folders) == 0


def test_pseudo_labels_of_one_job_need_a_path_for_the_maps(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("pseudo-labels", inputs, "--output", str(tmp_path / "labels")) == 2
    assert "--maps is not given" in capsys.readouterr().err


# ----- putting together


def write_shard(folder: Path, number: int, total: int, names: list[str], **made_of: str) -> Path:
    shard = folder / f"{number}-of-{total}"
    (shard / "labels").mkdir(parents=True)
    with MapStoreWriter(shard / "cams.h5", classes=("a", "b"), attributes={"n": 1}) as store:
        for name in names:
            store.add(name, [1], np.full((1, 4, 5), len(name) / 8), (13, 17))
    for name in names:
        path = shard / "labels" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    record_shard(shard, Shard(number, total), made_of)
    return shard


def test_damage_is_named_with_what_to_do(tmp_path: Path) -> None:
    first = write_shard(tmp_path / "shards", 1, 2, ["a", "b"])
    second = write_shard(tmp_path / "shards", 2, 2, ["c"])
    kept = shutil.copytree(second, tmp_path / "kept")
    outputs = {"cams.h5": tmp_path / "cams.h5", "labels": tmp_path / "labels"}

    def cut_store() -> None:
        (second / "cams.h5").write_bytes((second / "cams.h5").read_bytes()[:-100])

    damages: dict[str, tuple[Callable[[], Any], Path]] = {
        "missing or incomplete": (lambda: shutil.rmtree(second), second),
        "is damaged": (cut_store, second / "cams.h5"),
        "is gone": ((second / "labels" / "c.png").unlink, second / "labels" / "c.png"),
        "another version": (lambda: write_json(second / "shard.json", {}), second / "shard.json"),
    }
    for found, (damage, where) in damages.items():
        damage()
        with pytest.raises(UserError, match=found) as error:
            merge_shards([first, second], outputs, {})
        assert error.value.where == str(where)
        assert f"rm -r {second}" in str(error.value.fix)
        assert not any(output.exists() for output in outputs.values())
        shutil.rmtree(second, ignore_errors=True)
        shutil.copytree(kept, second)
    merge_shards([first, second], outputs, {})
    written = sorted(path.name for path in outputs["labels"].glob("[!.]*"))
    assert written == ["a.png", "b.png", "c.png"]
    with MapStore(outputs["cams.h5"]) as store:
        assert store.names == ["a", "b", "c"] and store.attributes["n"] == 1


def test_of_many_files_merging_holds_no_object_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What becomes of any folder that is written, merged or not.
    for name in ("write_mark", "_sync_all"):
        monkeypatch.setattr(f"wsss.files.{name}", lambda folder: None)
    shards = []
    for number in range(1, 21):
        names = [f"p{number:02}{place:03}" for place in range(100)]
        shard = tmp_path / "shards" / str(number)
        (shard / "labels").mkdir(parents=True)
        for name in names:
            (shard / "labels" / f"{name}.png").touch()
        record_shard(shard, Shard(number, 20), {})
        shards.append(shard)
    merge_shards(shards, {"labels": tmp_path / "before"}, {})
    _, _, most = peak_of(lambda: merge_shards(shards, {"labels": tmp_path / "labels"}, {}))
    assert len(list((tmp_path / "labels").glob("p*.png"))) == 2000
    # A file is read in pieces of 2**18 bytes.
    assert (most - 2.7e5) / 2000 < 150


def test_results_survive_their_shards_on_any_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = [write_shard(tmp_path / "shards", 1, 1, ["x/y"])]
    merge_shards(shards, {"labels": tmp_path / "linked"}, {})

    def refuse(*_: object) -> None:
        raise OSError("no hard links here")

    monkeypatch.setattr("os.link", refuse)
    merge_shards(shards, {"labels": tmp_path / "copied"}, {})
    shutil.rmtree(tmp_path / "shards")
    for name in ("linked", "copied"):
        assert (tmp_path / name / "x" / "y.png").read_text() == "x/y"
