"""Labels of the training images by a trained model: only their tags, only where it is sure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from segmentation_helpers import CLASSES, make_data, tiny_config

from wsss.data.crf import crf_from_probabilities
from wsss.data.crf_config import CrfConfig
from wsss.data.images import read_image, read_label
from wsss.data.index import Index, read_index, write_index
from wsss.errors import UserError
from wsss.evaluation.scoring import score_labels
from wsss.evaluation.tables import read_notes, read_rows
from wsss.models.backbones import build_backbone
from wsss.models.deeplab import DeepLab
from wsss.runtime.compute import Compute
from wsss.segmentation.config import SelfLabelsConfig
from wsss.segmentation.inference import class_probabilities, segmenter, views_of
from wsss.segmentation.model_file import SEGMENTATION
from wsss.segmentation.self_labels import make_self_labels, tag_probabilities

COMPUTE = Compute(device="cpu", threads=1, workers=0)
SCALES = (0.75, 1.0)
# Of the pictures in turn: one class, the other, both, none.
TAGS = (("red",), ("blue",), ("blue", "red"), (), ("blue", "red"), ("red",))


@pytest.fixture
def data(tmp_path):
    make_data(tmp_path, train=6, val=2)
    index = read_index(tmp_path / "index.csv")
    records = [
        replace(record, tags=TAGS[i]) if i < 6 else record for i, record in enumerate(index.records)
    ]
    write_index(Index(CLASSES, tuple(records)), tmp_path / "index.csv")
    torch.manual_seed(0)
    config = tiny_config()
    network = DeepLab(build_backbone(config.backbone), 3, config.head)
    # Strong opinions, so that labels vary over the image.
    network.head.classifier.weight.data *= 200
    SEGMENTATION.save(tmp_path / "model.safetensors", network, config, classes=CLASSES, training={})
    return tmp_path


def label(data, output="made", compute=COMPUTE, **settings):
    make_self_labels(
        config=SelfLabelsConfig(**{"scales": SCALES, "crf": False, **settings}),
        model=data / "model.safetensors",
        index=data / "index.csv",
        root=data / "data",
        output=data / output,
        compute=compute,
    )
    paths = sorted((data / output).glob("*.png"))
    return {path.stem: read_label(path) for path in paths}


def naive(data, name, tags, *, weight=1.0):
    """Return (1 + K, H, W) float64: the other classes' probabilities are 0, the rest sum to 1."""
    network = SEGMENTATION.load(data / "model.safetensors").network
    segments = segmenter(network, precision="auto", device=torch.device("cpu"))
    views = views_of(read_image(data / "data" / f"{name}.png"), SCALES)
    found = class_probabilities(segments, views, mirror=True).numpy().astype(np.float64)
    for position, other in enumerate(CLASSES, 1):
        if other not in tags:
            found[position] = 0
    found[0] *= weight
    found /= found.sum(axis=0)
    return found


def test_tags_and_background_share_what_they_have() -> None:
    found = np.array([0.1, 0.3, 0.2], np.float32).reshape(3, 1, 1)
    for weight, wanted in ((1.0, [1 / 6, 1 / 2, 1 / 3]), (5.0, [1 / 2, 0.3, 0.2])):
        shares = tag_probabilities(found, weight)
        np.testing.assert_allclose(shares.ravel(), wanted, rtol=1e-6)
        assert shares.dtype == np.float32
    # All that the model gave went to labels that cannot be: nothing is known, not even by division.
    assert not tag_probabilities(np.zeros((2, 3, 4), np.float32), 1.0).any()


@pytest.mark.parametrize(("confidence", "weight"), [(0.0, 1.0), (0.8, 1.0), (0.8, 0.25)])
def test_labels_are_the_best_of_tags_and_background(data, confidence, weight) -> None:
    made = label(data, confidence=confidence, background_weight=weight)
    assert list(made) == [f"p{i:02d}" for i in range(6)]
    seen = set()
    for (name, found), tags in zip(made.items(), TAGS, strict=True):
        shares = naive(data, name, tags, weight=weight)
        best = shares.max(axis=0)
        wanted = np.where(best < confidence, 255, shares.argmax(axis=0))
        # Where the two best are equal but for rounding, or confidence is just met, either is right.
        second = np.sort(shares, axis=0)[-2]
        sure = (best - second > 1e-5) & (np.abs(best - confidence) > 1e-5)
        assert sure.mean() > 0.99
        np.testing.assert_array_equal(found[sure], wanted[sure])
        assert set(np.unique(found)) <= {0, 255, *(CLASSES.index(tag) + 1 for tag in tags)}
        seen |= set(np.unique(found))
    assert (255 in seen) == (confidence > 0) and {0, 1, 2} <= seen
    assert not made["p03"].any()  # no tags: background


def test_a_crf_refines_them_before_the_sure_ones_are_chosen(data) -> None:
    crf = CrfConfig(iterations=3)
    made = label(data, crf=True, crf_settings=crf, confidence=0.9)
    plain = label(data, "plain", confidence=0.9)
    network = SEGMENTATION.load(data / "model.safetensors").network
    segments = segmenter(network, precision="auto", device=torch.device("cpu"))
    for name, tags in zip(made, TAGS, strict=True):
        labels = [0, *sorted(CLASSES.index(tag) + 1 for tag in tags)]
        if len(labels) == 1:
            assert not made[name].any()
            continue
        path = str(data / "data" / f"{name}.png")
        found = class_probabilities(
            segments, views_of(read_image(path), SCALES), mirror=True
        ).numpy()
        shares = tag_probabilities(found[labels], 1.0)
        refined = crf_from_probabilities(read_image(path), shares, crf)
        wanted = np.array(labels)[refined.argmax(axis=0)]
        wanted[refined.max(axis=0) < np.float32(0.9)] = 255
        np.testing.assert_array_equal(made[name], wanted)
    assert any((made[name] != plain[name]).any() for name in made)


def test_processes_change_nothing(data) -> None:
    one = label(data, crf=True)
    two = label(data, "two", Compute(device="cpu", threads=1, workers=2), crf=True)
    for name, found in one.items():
        np.testing.assert_array_equal(found, two[name])


@pytest.mark.parametrize("other_size", [False, True])
def test_a_failure_leaves_nothing(data, other_size: bool) -> None:
    said = "this picture is 7 x 9 px" if other_size else "cannot read this picture"
    (data / "data" / "p05.png").write_bytes(b"no picture")
    if other_size:
        Image.new("RGB", (7, 9)).save(data / "data" / "p05.png")
    with pytest.raises(UserError, match=said):
        label(data)
    assert not (data / "made").exists()


def test_other_classes_are_an_error(data) -> None:
    index = read_index(data / "index.csv")
    bare = tuple(replace(record, tags=()) for record in index.records)
    write_index(Index(("cow",), bare), data / "index.csv")
    with pytest.raises(UserError, match="the model knows the classes red, blue"):
        label(data)


def test_their_table_names_the_run_and_says_how_much_is_unsure(data) -> None:
    made = label(data, confidence=0.9)
    score_labels(
        labels=data / "made",
        index=data / "index.csv",
        masks=data / "masks.csv",
        root=data / "data",
        output=data / "scores.csv",
        run="second",
        stage="self_label",
        split="train",
        labels_kind="first",
    )
    rows = read_rows(data / "scores.csv")
    assert {(row["run"], row["stage"], row["labels"]) for row in rows} == {
        ("second", "self_label", "first")
    }
    unsure = sum(int((found == 255).sum()) for found in made.values())
    share = 100 * unsure / sum(found.size for found in made.values())
    (note,) = read_notes(data / "scores.csv")
    assert f"self_label on train: {share:.1f} % of the pixels have no label" in note and share > 1
