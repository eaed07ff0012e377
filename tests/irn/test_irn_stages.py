"""The three IRN stages on a tiny folder of pictures, through their entry points."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wsss.data.crf_config import CrfConfig
from wsss.data.images import read_label
from wsss.data.index import ImageRecord, Index, read_index, write_index
from wsss.errors import UserError
from wsss.irn import edges
from wsss.irn.config import IrnConfig, LabelsConfig, PseudoLabelsConfig
from wsss.irn.crf_label_config import CrfLabelsSettings
from wsss.irn.inputs import label_values
from wsss.irn.label_stage import make_labels
from wsss.irn.labels import confident_labels, mine_labels
from wsss.irn.model_file import IRNET
from wsss.irn.pseudo_labels import batches_of, job_of, walked_jobs
from wsss.irn.random_walk import random_walk
from wsss.irn.training import labels_at_stride, train_irn
from wsss.irn.walk_choice import choose_walk_threshold
from wsss.irn.walked import Finisher, WalkJob, walked_scores
from wsss.maps.background_choice import edge_score
from wsss.maps.chosen import chosen_entry, read_chosen, write_chosen
from wsss.maps.map_store import MapStore, MapStoreWriter, map_size
from wsss.models.config import BackboneConfig
from wsss.runtime.compute import Compute

CLASSES = ("cat", "dog", "fish")
CPU = torch.device("cpu")
COMPUTE = Compute(device="cpu", threads=1, workers=0)
IRN = IrnConfig(
    backbone=BackboneConfig(weights="none"),
    epochs=1,
    batch_size=2,
    crop_px=40,
    radius=4,
    learning_rate=0.01,
)

LABELS = LabelsConfig(foreground_threshold=0.3, background_threshold=0.05)


@dataclasses.dataclass(frozen=True)
class Folder:
    root: Path
    index: Path
    cams: Path


def picture(height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A red square on green, and where the square is."""
    rng = np.random.default_rng(seed)
    inside = np.zeros((height, width), bool)
    inside[height // 4 : -height // 4, width // 4 : -width // 4] = True
    image = np.where(inside[..., None], (200, 40, 30), (30, 150, 60))
    return (image + rng.integers(-4, 5, image.shape)).astype(np.uint8), inside


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    sizes = {"a": (41, 53), "b": (41, 53), "c": (60, 40), "only_val": (20, 20)}
    records = []
    cams = tmp_path / "cams.h5"
    with MapStoreWriter(cams, classes=CLASSES, attributes={}) as store:
        for i, (name, (height, width)) in enumerate(sizes.items()):
            image, inside = picture(height, width, i)
            Image.fromarray(image).save(tmp_path / f"{name}.png")
            tags = ("cat", "fish") if name == "c" else ("dog",)
            sets = ("val",) if name == "only_val" else ("train",)
            records.append(ImageRecord(name, sets, tags, width, height, f"{name}.png"))
            if name == "only_val":
                continue
            small = inside[::4, ::4].astype(np.float32)
            assert small.shape == map_size(height, width)
            maps = np.stack([small * 0.9, small * 0.2])[: len(tags)]
            indices = (0, 2) if name == "c" else (1,)
            store.add(name, indices, maps, (height, width))
    write_index(Index(CLASSES, tuple(records)), tmp_path / "index.csv")
    return Folder(tmp_path, tmp_path / "index.csv", cams)


def mine(
    folder: Folder,
    output: str,
    workers: int = 0,
    *,
    config: LabelsConfig | None = None,
    thresholds: Path | None = None,
) -> Path:
    mine_labels(
        config=config or LABELS,
        cams=folder.cams,
        index=folder.index,
        root=folder.root,
        output=folder.root / output,
        thresholds=thresholds,
        workers=workers,
    )
    return folder.root / output


def train(folder: Folder, labels: Path) -> Path:
    train_irn(
        config=IRN,
        labels=labels,
        index=folder.index,
        root=folder.root,
        output=folder.root / "irn.safetensors",
        work_dir=folder.root / "work",
        compute=COMPUTE,
        weights_file=None,
    )
    return folder.root / "irn.safetensors"


def test_confident_labels_follow_both_thresholds() -> None:
    image, inside = picture(40, 40, 0)
    # Sure of the object, of the background beside it, and not of the yellow strip.
    image[30:] = (220, 210, 20)
    score = np.where(inside, 0.9, 0.0).astype(np.float32)
    score[30:, :] = 0.15
    score[15:17, 15:17] = 0.31
    found = confident_labels(image, score[None], np.array([6]), LABELS)
    expected = np.where(inside, 7, 0)
    expected[30:] = 255
    assert np.array_equal(found, expected)


def test_two_equal_thresholds_leave_nothing_open() -> None:
    image, inside = picture(30, 30, 1)
    config = LabelsConfig(foreground_threshold=0.3, background_threshold=0.3)
    maps = np.stack([inside * 0.5, inside * 0.6]).astype(np.float32)
    found = confident_labels(image, maps, np.array([0, 4]), config)
    assert np.array_equal(found, np.where(inside, 5, 0))


def test_ties_go_to_background() -> None:
    scores = np.array([[[0.25, 0.26, 0.1]], [[0.1, 0.26, 0.25]]], np.float32)
    assert label_values(scores, 0.25, np.array([3, 8])).tolist() == [[0, 4, 0]]
    assert label_values(scores[:0], 0.25, np.array([], int)).tolist() == [[0, 0, 0]]


def test_mining_writes_one_label_map_an_image_whatever_the_workers(folder: Folder) -> None:
    alone, many = mine(folder, "alone"), mine(folder, "many", workers=2)
    assert sorted(path.name for path in alone.glob("[!.]*")) == ["a.png", "b.png", "c.png"]
    for path in alone.glob("[!.]*"):
        assert path.read_bytes() == (many / path.name).read_bytes()
    assert set(np.unique(read_label(alone / "a.png"))) <= {0, 2, 255}
    assert read_label(alone / "c.png")[30, 20] == 1


def test_walked_scores_are_divided_by_the_images_maximum() -> None:
    walked = np.random.default_rng(0).random((2, 5, 6), dtype=np.float32) * 0.01
    kept, scores = walked_scores(walked, (18, 21))
    assert scores.shape == (2, 18, 21)
    assert scores.max() == pytest.approx(1)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(walked)[None], scale_factor=4.0, mode="bilinear"
    )[0, :, :18, :21].numpy()
    np.testing.assert_allclose(scores, expected / expected.max(), rtol=1e-5)
    np.testing.assert_allclose(kept, walked / expected.max(), rtol=1e-5)
    assert not walked_scores(np.zeros((1, 5, 6), np.float32), (18, 21))[1].any()
    assert walked_scores(np.zeros((0, 5, 6), np.float32), (18, 21))[1].shape == (0, 18, 21)


def test_labels_at_stride_take_the_middle_of_each_cell() -> None:
    target = torch.arange(9 * 10).reshape(1, 9, 10)
    found = labels_at_stride(target)
    assert found.shape == (1, 3, 3)
    assert found[0, 0].tolist() == [22, 26, 29]
    assert found[0, 2, 0] == 82


def test_the_stages_run_one_after_the_other(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = train(folder, mine(folder, "labels"))
    assert not IRNET.load(model).network.training

    one, many = folder.root / "one", folder.root / "many"
    pseudo(folder, model, "one", workers=0)
    pseudo(folder, model, "many", workers=2)
    assert sorted(path.name for path in one.glob("[!.]*")) == ["a.png", "b.png", "c.png"]
    for path in one.glob("[!.]*"):
        assert path.read_bytes() == (many / path.name).read_bytes()
    with MapStore(folder.root / "one.h5") as store:
        assert store.upsampling == "times4" and store.classes == CLASSES
        stored = store.read("c")
        assert stored.maps.shape == (2, 15, 10) and stored.size == (60, 40)
        assert stored.class_indices.tolist() == [0, 2]

    with monkeypatch.context() as patch:
        patch.setattr(edges, "edge_map", square_edges)
        pseudo(folder, model, "walled", workers=0)
    label = read_label(folder.root / "walled" / "a.png")
    assert label[20, 26] == 2 and label[2, 2] == 0


def square_edges(network: object, image: torch.Tensor, *, mirror: bool) -> torch.Tensor:
    """The square's outline, where a barely trained network has nothing to say."""
    rows, columns = map_size(*image.shape[-2:])
    edge = torch.full((len(image), rows, columns), 0.02)
    top, left = rows // 4, columns // 4
    edge[:, top : rows - top, left : columns - left] = 0.99
    edge[:, top + 1 : rows - top - 1, left + 1 : columns - left - 1] = 0.02
    return edge


def pseudo(
    folder: Folder,
    model: Path,
    output: str,
    workers: int,
    *,
    config: PseudoLabelsConfig | None = None,
    thresholds: Path | None = None,
) -> None:
    make_labels(
        config=config or PseudoLabelsConfig(background=0.25),
        cams=folder.cams,
        model=model,
        index=folder.index,
        root=folder.root,
        output=folder.root / output,
        maps=folder.root / f"{output}.h5",
        compute=dataclasses.replace(COMPUTE, workers=workers),
        thresholds=thresholds,
    )


def test_scores_that_are_auto_come_from_the_maps(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cam, walked = folder.root / "thresholds.json", folder.root / "walk_thresholds.json"
    write_chosen(cam, {"cam": chosen_entry("cam", 0.4, method="test")})
    model, same = train(folder, mine(folder, "labels")), {}
    for name, config, file in (
        ("auto", LabelsConfig(), cam),
        ("number", LabelsConfig(foreground_threshold=0.5, background_threshold=0.21), None),
    ):
        same[name] = mine(folder, name, config=config, thresholds=file)
    for path in same["auto"].glob("[!.]*"):
        assert path.read_bytes() == (same["number"] / path.name).read_bytes()

    batches: list[int] = []

    def counted(network: object, image: torch.Tensor, *, mirror: bool) -> torch.Tensor:
        batches.append(len(image))
        return square_edges(network, image, mirror=mirror)

    monkeypatch.setattr(edges, "edge_map", counted)
    auto = PseudoLabelsConfig()
    choose_walk_threshold(
        config=auto,
        cams=folder.cams,
        model=model,
        index=folder.index,
        root=folder.root,
        output=walked,
        compute=COMPUTE,
    )
    # On a CPU no batch shares the memory; a GPU would have walked the first two together.
    assert batches == [1, 1, 1]
    assert "choose walk threshold: 3 img" in capsys.readouterr().err
    chosen = read_chosen(walked, "walked")
    assert chosen["sample"] == ["a", "b", "c"]
    # The walked maps, as the stage that labels keeps them.
    pseudo(folder, model, "kept", workers=0)
    with MapStore(folder.root / "kept.h5") as store:
        expected = edge_score(store.read(name).maps for name in store.names)
    assert chosen["score"] == pytest.approx(expected, abs=0.011)
    pseudo(folder, model, "auto_labels", workers=0, config=auto, thresholds=walked)
    number = PseudoLabelsConfig(background=chosen["score"])
    pseudo(folder, model, "number_labels", workers=0, config=number)
    for path in (folder.root / "auto_labels").glob("[!.]*"):
        assert path.read_bytes() == (folder.root / "number_labels" / path.name).read_bytes()
    with pytest.raises(UserError, match="its scores are of cam maps"):
        pseudo(folder, model, "wrong", workers=0, config=auto, thresholds=cam)


def test_names_may_have_folders_of_their_own(folder: Folder) -> None:
    record = ImageRecord("deep/er/a", ("train",), ("dog",), 53, 41, "a.png")
    write_index(Index(CLASSES, (record,)), folder.index)
    maps = np.full((1, *map_size(41, 53)), 0.9, np.float32)
    with MapStoreWriter(folder.cams, classes=CLASSES, attributes={}) as store:
        store.add(record.name, [1], maps, (41, 53))
    mine(folder, "labels")
    config = CrfLabelsSettings(background=0.5, confidence=0.0, crf=CrfConfig(iterations=1))
    common = {"cams": folder.cams, "index": folder.index, "root": folder.root, "compute": COMPUTE}
    output = {"output": folder.root / "crf", "maps": folder.root / "crf.h5"}
    make_labels(config=config, **common, **output)
    Finisher(PseudoLabelsConfig(background=0.5), folder.root / "walked")(
        WalkJob(record, np.array([1]), maps)
    )
    for made in ("labels", "crf", "walked"):
        assert read_label(folder.root / made / "deep" / "er" / "a.png").shape == (41, 53)


def test_walks_of_a_batch_are_those_of_each_image(folder: Folder) -> None:
    config = PseudoLabelsConfig(background=0.25, radius=3, beta=4.0, steps=16)
    generator = torch.Generator().manual_seed(0)
    edges_of = {
        shape: torch.rand(shape, generator=generator) for shape in ((2, 11, 14), (1, 15, 10))
    }

    def find_edges(pictures: Sequence[np.ndarray]) -> torch.Tensor:
        return edges_of[(len(pictures), *map_size(*pictures[0].shape[:2]))]

    records = read_index(folder.index).training_set().records
    with MapStore(folder.cams) as store:
        batches = batches_of(records, 8)
        jobs = list(walked_jobs(config, find_edges, store, batches, folder.root, CPU))
        assert [job.record.name for job in jobs] == ["a", "b", "c"]
        all_edges = [edge for edge_batch in edges_of.values() for edge in edge_batch]
        for job, edge in zip(jobs, all_edges, strict=True):
            cam = torch.from_numpy(store.read(job.record.name).maps)
            alone = random_walk(cam, edge, radius=3, beta=4.0, steps=16)
            np.testing.assert_allclose(job.maps, alone.numpy(), atol=1e-5)


def test_cams_at_another_stride_are_not_walked(folder: Folder) -> None:
    with MapStoreWriter(folder.root / "large.h5", classes=CLASSES, attributes={}) as store:
        store.add("a", (1,), np.ones((1, 41, 53), np.float32), (41, 53))
    with (
        MapStore(folder.root / "large.h5") as store,
        pytest.raises(UserError, match=r"the CAMs of 'a' are maps of \(41, 53\)"),
    ):
        job_of(store, read_index(folder.index).records[0])


def test_missing_labels_and_foreign_cams_are_named(folder: Folder) -> None:
    labels = mine(folder, "labels")
    (labels / "b.png").unlink()
    with pytest.raises(UserError, match=r"1 of 3 training images have no label map: b"):
        train(folder, labels)
    write_index(Index(("cat",), ()), folder.root / "other" / "index.csv")
    record = ImageRecord("a", ("train",), ("cat",), 53, 41, "a.png")
    write_index(Index(("cat",), (record,)), folder.root / "other" / "index.csv")
    with pytest.raises(UserError, match="classes cat, dog, fish"):
        mine(dataclasses.replace(folder, index=folder.root / "other" / "index.csv"), "x")
    assert not (folder.root / "x").exists()


@pytest.mark.parametrize(
    ("kind", "values", "key"),
    [
        (
            LabelsConfig,
            {"foreground_threshold": 0.3, "background_threshold": 0.4},
            "labels.background_threshold",
        ),
        (IrnConfig, {"crop_px": 64}, "irn.crop_px"),
        (IrnConfig, {"scale_min": 2.0}, "irn.scale_min"),
        (PseudoLabelsConfig, {"steps": 0}, "steps"),
    ],
)
def test_impossible_settings_are_named(kind: type, values: dict[str, float], key: str) -> None:
    with pytest.raises(UserError, match=key.replace(".", r"\.")):
        kind(**values)
