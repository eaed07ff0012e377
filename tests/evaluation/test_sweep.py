"""The one-pass sweep against labelling and counting anew at every background score."""

from __future__ import annotations

import csv
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from PIL import Image

from wsss.data.images import read_label, write_label
from wsss.data.index import ImageRecord, Index, write_index, write_masks
from wsss.errors import UserError
from wsss.evaluation import scoring
from wsss.evaluation.choosing import choose_thresholds
from wsss.evaluation.config import EvaluationConfig
from wsss.evaluation.sweep import SweepCounts, as_thresholds
from wsss.evaluation.tables import collect, format_table, read_notes, read_rows
from wsss.maps.chosen import read_chosen
from wsss.maps.map_store import MapStore, MapStoreWriter, upsample

CLASSES = ("ant", "bee", "cat")


def label_at(class_indices, maps, threshold):
    """The definition: argmax over [background score, maps]; the first of equals wins."""
    background = np.full((1, *maps.shape[1:]), threshold, dtype=np.float32)
    keys = np.concatenate([[0], np.asarray(class_indices) + 1])
    return keys[np.argmax(np.concatenate([background, maps]), axis=0)]


def naive_confusion(truth, prediction, n_labels):
    counts = np.zeros((n_labels, n_labels), dtype=np.int64)
    for t, p in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if t != 255:
            counts[t, p] += 1
    return counts


def images_with_ties(thresholds):
    rng = np.random.default_rng(11)
    # Many values exactly equal to a threshold, many equal between classes, some out of range.
    levels = np.concatenate([thresholds, [0.0, 1.0, 1.5, -0.5, 0.333]]).astype(np.float32)
    for class_indices in ([0, 2], [1], [], [0, 1, 2]):
        truth = rng.choice(np.array([0, 1, 2, 3, 255], np.uint8), size=(13, 17))
        yield (
            truth,
            np.array(class_indices, np.int64),
            rng.choice(levels, size=(len(class_indices), 13, 17)),
        )


@pytest.mark.parametrize("part", [50, 1_000_000])
def test_every_threshold_scores_as_if_labelled_anew(part, monkeypatch):
    monkeypatch.setattr("wsss.evaluation.sweep._PART", part)
    values = [round(0.1 * i, 6) for i in range(10)]
    thresholds = as_thresholds(values)
    counts = SweepCounts(3, thresholds)
    expected = np.zeros((len(values), 4, 4), dtype=np.int64)
    for truth, class_indices, maps in images_with_ties(thresholds):
        counts.add(truth, class_indices, maps)
        for i, value in enumerate(values):
            expected[i] += naive_confusion(truth, label_at(class_indices, maps, value), 4)
    for i in range(len(values)):
        assert np.array_equal(counts.confusion(i), expected[i]), values[i]
    # Not vacuous: the threshold matters.
    assert not np.array_equal(expected[0], expected[-1])


def test_labels_of_wider_types_count_alike():
    thresholds = as_thresholds([0.2, 0.5])
    narrow, wide = SweepCounts(3, thresholds), SweepCounts(3, thresholds)
    for truth, class_indices, maps in images_with_ties(thresholds):
        narrow.add(truth, class_indices, maps)
        wide.add(truth.astype(np.int64), class_indices, maps)
    assert narrow.counts.sum() > 0
    assert np.array_equal(narrow.counts, wide.counts)
    for bad in (-1, 4, 256):
        with pytest.raises(ValueError, match=f"label {bad}"):
            wide.add(np.full((1, 1), bad), np.array([0]), np.zeros((1, 1, 1), np.float32))


def test_parts_add_up():
    thresholds = as_thresholds([0.2, 0.5])
    whole, parts = SweepCounts(3, thresholds), [SweepCounts(3, thresholds) for _ in range(2)]
    for i, image in enumerate(images_with_ties(thresholds)):
        whole.add(*image)
        parts[i % 2].add(*image)
    parts[0].merge(parts[1])
    assert np.array_equal(whole.counts, parts[0].counts)
    with pytest.raises(ValueError, match="different background scores"):
        whole.merge(SweepCounts(3, as_thresholds([0.2, 0.6])))


@pytest.mark.parametrize("values", [[], [0.2, 0.2], [0.3, 0.2]])
def test_thresholds_must_ascend(values):
    with pytest.raises(ValueError, match="ascending"):
        as_thresholds(values)


def test_what_cannot_be_counted_is_refused():
    counts = SweepCounts(2, as_thresholds([0.5]))
    truth = np.zeros((2, 2), np.uint8)
    with pytest.raises(ValueError, match="not finite"):
        counts.add(truth, np.array([0]), np.full((1, 2, 2), np.nan, np.float32))
    with pytest.raises(ValueError, match="maps are"):
        counts.add(truth, np.array([0]), np.zeros((1, 2, 3), np.float32))
    with pytest.raises(ValueError, match="label 7"):
        counts.add(np.full((2, 2), 7, np.uint8), np.array([0]), np.zeros((1, 2, 2), np.float32))


def test_sweep_holds_the_configured_score_once():
    config = EvaluationConfig(sweep_first=0.1, sweep_last=0.5, sweep_step=0.1)
    assert config.thresholds(0.25) == (0.1, 0.2, 0.25, 0.3, 0.4, 0.5)
    assert config.thresholds(0.3) == (0.1, 0.2, 0.3, 0.4, 0.5)
    assert len(EvaluationConfig().thresholds(0.29)) == 100
    beyond = EvaluationConfig(sweep_first=0.0, sweep_last=0.4996, sweep_step=0.05)
    assert beyond.thresholds(0.1)[-1] == 0.45


@pytest.mark.parametrize(
    ("key", "value"),
    [("sweep_step", 0.0), ("sweep_last", 1.2), ("panel_count", 0), ("sweep_first", 0.995)],
)
def test_impossible_settings_name_their_key(key, value):
    with pytest.raises(UserError, match=key):
        EvaluationConfig(**{key: value})


@pytest.fixture
def run(tmp_path):
    """Three tagged images and one without tags, with masks and a map store."""
    rng = np.random.default_rng(5)
    root = tmp_path / "data"
    root.mkdir()
    records, masks = [], {}
    with MapStoreWriter(tmp_path / "cams.h5", classes=CLASSES, attributes={}) as store:
        for i, tags in enumerate([("ant",), ("ant", "cat"), ("bee",), ()]):
            name, height, width = f"i{i}", 21 + i, 30 - i
            records.append(ImageRecord(name, ("train",), tags, width, height, f"{name}.jpg"))
            label = rng.choice(np.array([0, 1, 2, 3, 255], np.uint8), size=(height, width))
            write_label(root / f"{name}.png", label)
            masks[name] = f"{name}.png"
            indices = [CLASSES.index(tag) for tag in tags]
            if tags:
                maps = rng.random((len(tags), (height - 1) // 4 + 1, (width - 1) // 4 + 1))
                store.add(name, indices, maps, (height, width))
    write_index(Index(CLASSES, tuple(records)), tmp_path / "index.csv")
    write_masks(masks, tmp_path / "masks.csv")
    return tmp_path


def arguments(run, **changes):
    common = {
        "config": EvaluationConfig(sweep_first=0.1, sweep_last=0.9, sweep_step=0.2),
        "maps": run / "cams.h5",
        "index": run / "index.csv",
        "masks": run / "masks.csv",
        "root": run / "data",
        "output": run / "cam.csv",
        "curve": run / "cam_curve.csv",
        "plot": run / "cam_curve.png",
        "run": "tiny",
        "stage": "cam",
        "split": "train",
        "background": 0.4,
        "workers": 1,
    }
    return common | changes


def expected_ious(run, threshold, names=("i0", "i1", "i2", "i3")):
    counts = np.zeros((4, 4), dtype=np.int64)
    with MapStore(run / "cams.h5") as store:
        for name in names:
            truth = read_label(run / "data" / f"{name}.png")
            prediction = np.zeros_like(truth)
            if name in store.names:
                stored = store.read(name)
                maps = upsample(stored.maps, stored.size, "resize")
                prediction = label_at(stored.class_indices, maps, threshold)
            counts += naive_confusion(truth, prediction, 4)
    true = np.diag(counts)
    return true / (counts.sum(0) + counts.sum(1) - true)


def test_a_chosen_score_is_the_configured_one_and_the_table_says_how(run, capsys):
    chosen = run / "thresholds.json"
    choose_thresholds(cams=run / "cams.h5", index=run / "index.csv", output=chosen)
    entry = read_chosen(chosen, "cam")
    score, share = entry["score"], entry["object_share"]
    assert entry["images"] == 3 and 0 < share < 1 and share == round(share, 6)
    said = f"the CAMs of 3 images part at {score:g}: {share:.1%} of the pixels are object"
    assert said in capsys.readouterr().out
    auto = {"config": EvaluationConfig(cam_background="auto"), "background": None}
    scoring.score_maps(**arguments(run, **auto, thresholds=chosen))
    (configured,) = {
        row["threshold"] for row in read_rows(run / "cam.csv") if row["selection"] == "configured"
    }
    assert configured == f"{score:g}"
    with MapStore(run / "cams.h5") as store:
        values = np.concatenate([store.read(n).maps.max(axis=0).ravel() for n in store.names])
    assert score == pytest.approx(np.sqrt((values**2).mean()), abs=0.01)
    (note,) = read_notes(run / "cam.csv")
    assert note == f"cam: configured is auto, chosen as {score:g} by quadratic mean of the maps"
    for both in ({"background": 0.4, "thresholds": chosen}, {"background": None}):
        with pytest.raises(UserError, match="background score given"):
            scoring.score_maps(**arguments(run, **both))
    with pytest.raises(UserError, match="its scores are of cam maps"):
        changes = {"stage": "pseudo_label", "background": None, "thresholds": chosen}
        scoring.score_maps(**arguments(run, **changes))


@pytest.mark.setting("evaluation.sweep_first", "evaluation.sweep_last", "evaluation.sweep_step")
def test_score_maps_writes_rows_curve_and_plot(run):
    scoring.score_maps(**arguments(run))
    rows = read_rows(run / "cam.csv")
    assert [row["class"] for row in rows] == ["background", *CLASSES, "mean"] * 2
    configured, best = rows[:5], rows[5:]
    assert {(r["selection"], r["threshold"]) for r in configured} == {("configured", "0.4")}
    ious = expected_ious(run, 0.4)
    np.testing.assert_allclose([float(r["iou"]) for r in configured[:4]], ious, atol=1e-6)
    assert float(configured[4]["iou"]) == pytest.approx(ious.mean(), abs=1e-6)
    values = (0.1, 0.3, 0.4, 0.5, 0.7, 0.9)
    means = {value: expected_ious(run, value).mean() for value in values}
    winner = max(means, key=means.get)
    assert {(r["selection"], r["threshold"]) for r in best} == {("best", f"{winner:g}")}
    assert float(best[4]["iou"]) == pytest.approx(means[winner], abs=1e-6)
    with open(run / "cam_curve.csv", newline="") as handle:
        curve = list(csv.DictReader(handle))
    assert {float(p["threshold"]): float(p["miou"]) for p in curve} == pytest.approx(
        means, abs=1e-6
    )
    with Image.open(run / "cam_curve.png") as picture:
        assert picture.size == (704, 462)
    plot = (run / "cam_curve.png").read_bytes()
    scoring.score_maps(**arguments(run))
    assert (run / "cam_curve.png").read_bytes() == plot


def test_the_number_of_processes_changes_nothing(run, monkeypatch):
    scoring.score_maps(**arguments(run))
    expected = (run / "cam.csv").read_bytes()
    monkeypatch.setattr("wsss.runtime.pool.MIN_IMAGES_PER_WORKER", 2)
    started = []
    real = ProcessPoolExecutor
    monkeypatch.setattr(
        "wsss.runtime.pool.ProcessPoolExecutor",
        lambda workers, **options: started.append(workers) or real(workers, **options),
    )
    scoring.score_maps(**arguments(run, output=run / "two.csv", workers=2))
    assert started == [2]
    assert (run / "two.csv").read_bytes() == expected


def test_missing_maps_are_an_error(run):
    with MapStoreWriter(run / "few.h5", classes=CLASSES, attributes={}) as store:
        store.add("i0", [0], np.zeros((1, 6, 8)), (21, 30))
    with pytest.raises(UserError, match="2 of 4 images of split 'train' have no maps: i1, i2"):
        scoring.score_maps(**arguments(run, maps=run / "few.h5"))
    assert not (run / "cam.csv").exists()


def test_what_has_no_mask_is_left_out_and_named(run, capsys):
    write_masks({"i0": "i0.png", "i2": "i2.png"}, run / "masks.csv")
    scoring.score_maps(**arguments(run))
    expected = expected_ious(run, 0.4, ("i0", "i2"))
    rows = read_rows(run / "cam.csv")[:4]
    np.testing.assert_allclose([float(row["iou"] or "nan") for row in rows], expected, atol=1e-6)
    note = "cam on train: 2 of 4 pictures have a mask, the 2 without one are left out"
    assert note in capsys.readouterr().out
    assert (run / "cam.csv").read_text().startswith(f"# {note}\nrun,stage,")
    collect(scores=[run / "cam.csv"], output=run / "miou.csv")
    assert format_table(run / "miou.csv").startswith(note)


def test_without_masks_there_is_an_empty_table_that_says_so(run, capsys):
    write_masks({}, run / "masks.csv")
    scoring.score_maps(**arguments(run))
    assert read_rows(run / "cam.csv") == []
    note = "cam on train: not scored, as none of its 4 pictures has a mask"
    assert read_notes(run / "cam.csv") == [note]
    assert (run / "cam_curve.csv").read_text().splitlines() == ["threshold,miou,precision,recall"]
    with Image.open(run / "cam_curve.png") as plot:
        assert plot.format == "PNG"
    (run / "predictions").mkdir()
    for i in range(4):
        write_label(run / "predictions" / f"i{i}.png", np.zeros((21 + i, 30 - i), np.uint8))
    scoring.score_labels(**label_arguments(run))
    assert read_rows(run / "segmentation.csv") == []
    collect(scores=[run / "cam.csv", run / "segmentation.csv"], output=run / "miou.csv")
    assert read_notes(run / "miou.csv") == [note, note.replace("cam", "segmentation")]


def test_a_mixture_is_named(run):
    write_masks({"i0": "i0.png", "i2": "i2.png"}, run / "masks.csv")
    (run / "predictions").mkdir()
    for i in range(4):
        write_label(run / "predictions" / f"i{i}.png", np.zeros((21 + i, 30 - i), np.uint8))
    scoring.score_labels(**label_arguments(run, labels_kind="mixed"))
    # Three images have tags, and so are trained on.
    assert read_notes(run / "segmentation.csv")[1] == "segmentation: learnt from 1 pseudo + 2 masks"
    assert {row["labels"] for row in read_rows(run / "segmentation.csv")} == {"mixed"}


def test_an_empty_split_is_an_error(run):
    with pytest.raises(UserError, match="val"):
        scoring.score_maps(**arguments(run, split="val"))


def test_other_classes_are_an_error(run):
    with MapStoreWriter(run / "other.h5", classes=("ant", "bee"), attributes={}):
        pass
    with pytest.raises(UserError, match="its classes are ant, bee"):
        scoring.score_maps(**arguments(run, maps=run / "other.h5"))


def test_a_mask_of_another_size_is_an_error(run):
    write_label(run / "data" / "i1.png", np.zeros((5, 5), np.uint8))
    with pytest.raises(UserError, match="this label map is 5 x 5 px"):
        scoring.score_maps(**arguments(run))


def test_who_is_at_fault_is_named(run):
    """The mask of a class that there is not; what is scored, where that is another picture's."""
    bad = np.full((22, 29), 9, np.uint8)
    labels = run / "predictions"
    labels.mkdir()
    for i in range(4):
        write_label(labels / f"i{i}.png", np.zeros((21 + i, 30 - i), np.uint8))
    write_label(labels / "i1.png", bad)
    with pytest.raises(UserError, match="holds the label 9") as caught:
        scoring.score_labels(**label_arguments(run))
    assert caught.value.where == str(labels / "i1.png")
    write_label(labels / "i1.png", np.zeros_like(bad))
    mask = run / "data" / "i1.png"
    write_label(mask, bad)
    for score, given in (
        (scoring.score_maps, arguments(run)),
        (scoring.score_labels, label_arguments(run)),
    ):
        with pytest.raises(UserError, match="holds the label 9") as caught:
            score(**given)
        assert caught.value.where == str(mask)


def label_arguments(run, **changes):
    common = {
        "labels": run / "predictions",
        "index": run / "index.csv",
        "masks": run / "masks.csv",
        "root": run / "data",
        "output": run / "segmentation.csv",
        "run": "tiny",
        "stage": "segmentation",
        "split": "train",
        "labels_kind": "ground_truth",
    }
    return common | changes


def test_score_labels_equals_a_count_of_its_own(run):
    rng = np.random.default_rng(8)
    (run / "predictions").mkdir()
    counts = np.zeros((4, 4), dtype=np.int64)
    for i in range(4):
        truth = read_label(run / "data" / f"i{i}.png")
        prediction = rng.choice(np.array([0, 1, 2, 3, 255], np.uint8), size=truth.shape)
        write_label(run / "predictions" / f"i{i}.png", prediction)
        counts += naive_confusion(truth, np.where(prediction == 255, 0, prediction), 4)
    scoring.score_labels(**label_arguments(run))
    rows = read_rows(run / "segmentation.csv")
    assert {(r["labels"], r["selection"], r["threshold"]) for r in rows} == {
        ("ground_truth", "configured", "")
    }
    true = np.diag(counts)
    for key, whole in (
        ("iou", counts.sum(0) + counts.sum(1) - true),
        ("precision", counts.sum(0)),
        ("recall", counts.sum(1)),
    ):
        np.testing.assert_allclose([float(r[key]) for r in rows[:4]], true / whole, atol=1e-6)
        assert float(rows[4][key]) == pytest.approx((true / whole).mean(), abs=1e-6)


def test_missing_predictions_are_an_error(run):
    (run / "predictions").mkdir()
    write_label(run / "predictions" / "i2.png", np.zeros((23, 28), np.uint8))
    with pytest.raises(UserError, match=r"3 of 4 .* have no prediction: i0, i1, i3"):
        scoring.score_labels(**label_arguments(run))


def test_a_prediction_of_another_size_is_an_error(run):
    (run / "predictions").mkdir()
    for i in range(4):
        write_label(run / "predictions" / f"i{i}.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(UserError, match="this label map is 2 x 2 px"):
        scoring.score_labels(**label_arguments(run))
