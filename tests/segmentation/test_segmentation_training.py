"""DeepLab training on label maps: it learns, from what it may see and nothing else."""

from __future__ import annotations

import builtins
import io
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from segmentation_helpers import make_data, tiny_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from wsss.data.crf_config import CrfConfig
from wsss.data.images import read_label, write_label
from wsss.data.index import read_index, read_masks, write_masks
from wsss.data.labelled import LabelledImages, label_pngs
from wsss.errors import UserError
from wsss.models.backbones import build_backbone, freeze_batchnorm
from wsss.models.config import BackboneConfig
from wsss.models.deeplab import DeepLab
from wsss.models.heads.tokens_config import LinearSettings
from wsss.models.vit_features import keep_features
from wsss.models.weights import load_model_file
from wsss.runtime.compute import FeatureCompute
from wsss.runtime.registry import used
from wsss.runtime.settings import parse, to_dict
from wsss.segmentation import training
from wsss.segmentation.config import PredictionConfig, SegmentationConfig
from wsss.segmentation.labels import find_labels
from wsss.segmentation.model_file import SEGMENTATION
from wsss.segmentation.prediction import predict_split
from wsss.segmentation.training import SegmentationTask, parameter_groups, train_segmentation

COMPUTE = FeatureCompute(device="cpu", threads=1, workers=0)


@pytest.fixture
def data(tmp_path):
    return make_data(tmp_path)


def run_training(data, config, *, output="model.safetensors", **changes):
    values = {
        "config": config,
        "labels": data / "pseudo",
        "masks": None,
        "index": data / "index.csv",
        "root": data / "data",
        "output": data / output,
        "work_dir": data / f"work_{output}",
        "compute": COMPUTE,
        "weights_file": None,
    }
    train_segmentation(**(values | changes))


def test_it_learns_and_predicts_from_the_model_file_alone(data):
    config = tiny_config(epochs=12)
    run_training(data, config)
    trained = SEGMENTATION.load(data / "model.safetensors")
    assert trained.classes == ("red", "blue")
    assert trained.settings == config
    predict_split(
        config=PredictionConfig(scales=(1.0,), crf=False),
        model=data / "model.safetensors",
        index=data / "index.csv",
        root=data / "data",
        output=data / "predictions",
        output_crf=None,
        compute=COMPUTE,
    )
    right = total = 0
    for record in read_index(data / "index.csv").subset("val").records:
        truth = read_label(data / "data" / "masks" / f"{record.name}.png")
        prediction = read_label(data / "predictions" / f"{record.name}.png")
        right += int((truth == prediction).sum())
        total += truth.size
    # Background alone is three quarters of the pixels.
    assert right / total > 0.92


def test_tensorboard_has_the_curves_and_pictures_of_the_stage(data):
    run_training(data, tiny_config(epochs=2, ema=0.9))
    folder = data / "work_model.safetensors" / "tensorboard"
    events = EventAccumulator(str(folder)).Reload()
    shown = events.Tags()["images"]
    assert shown == [f"segmentation/pictures/p{i:02d}" for i in (0, 3, 6, 9)]
    for tag in shown:
        sizes = {(each.width, each.height) for each in events.Images(tag)}
        # Crop, labels and prediction, 256 px wide and 4 px apart, below a line of titles.
        assert sizes == {(3 * 260 - 4, 256 + 20)} and len(events.Images(tag)) == 2
    assert {"segmentation/loss", "segmentation/lr"} <= set(events.Tags()["scalars"])


def test_pseudo_labels_are_all_it_reads(data, monkeypatch):
    (data / "masks.csv").unlink()
    shutil.rmtree(data / "data" / "masks")
    opened = []
    real_open, real_image_open = builtins.open, Image.open

    def note(path):
        opened.append(str(path))
        return path

    monkeypatch.setattr(Image, "open", lambda p, *a, **k: real_image_open(note(p), *a, **k))
    monkeypatch.setattr(builtins, "open", lambda p, *a, **k: real_open(note(p), *a, **k))
    monkeypatch.setattr(io, "open", builtins.open)
    # Even when told where masks would be.
    run_training(data, tiny_config(), masks=data / "masks.csv")
    assert any("pseudo" in path for path in opened)
    assert not [path for path in opened if "masks" in path]


@pytest.mark.setting("segmentation.labels")
def test_ground_truth_is_read_only_where_the_settings_say_so(data):
    shutil.rmtree(data / "pseudo")
    config = tiny_config(labels="ground_truth")
    run_training(data, config, labels=None, masks=data / "masks.csv")
    _, metadata = load_model_file(data / "model.safetensors", "segmentation")
    assert metadata["settings"]["labels"] == "ground_truth"
    with pytest.raises(UserError, match=r"no masks\.csv was given"):
        run_training(data, config, output="other", labels=None)


@pytest.mark.setting("segmentation.labels")
def test_a_mixture_takes_masks_where_there_are_some(data, capsys):
    index = read_index(data / "index.csv").training_set()
    masks = read_masks(data / "masks.csv")
    # Of the training set's masks two are left, and one of a picture that is not trained on.
    write_masks({name: masks[name] for name in ("p01", "p04", "p13")}, data / "masks.csv")
    config = tiny_config(labels="mixed")
    found = find_labels(
        config, index, labels=data / "pseudo", masks=data / "masks.csv", root=data / "data"
    )
    assert sorted(found) == [record.name for record in index.records]
    from_masks = {name for name, path in found.items() if path.parent.name == "masks"}
    assert from_masks == {"p01", "p04"}
    assert "10 pseudo-labels and 2 masks" in capsys.readouterr().out
    run_training(data, config, masks=data / "masks.csv")
    _, metadata = load_model_file(data / "model.safetensors", "segmentation")
    # Another mask is another training.
    write_label(data / "data" / "masks" / "p01.png", np.zeros_like(read_label(found["p01"])))
    run_training(data, config, masks=data / "masks.csv", output="other")
    _, other = load_model_file(data / "other", "segmentation")
    assert other["training"]["labels"] != metadata["training"]["labels"]
    write_masks({"p13": masks["p13"]}, data / "masks.csv")
    with pytest.raises(UserError, match="none of the 12 training pictures has a mask"):
        run_training(data, config, masks=data / "masks.csv")
    with pytest.raises(UserError, match=r"is mixed, and no masks\.csv was given"):
        run_training(data, config)


def test_missing_pseudo_labels_are_an_error(data):
    (data / "pseudo" / "p03.png").unlink()
    with pytest.raises(UserError, match="1 of 12 training images have no label map: p03"):
        run_training(data, tiny_config())
    with pytest.raises(UserError, match="no folder of labels"):
        run_training(data, tiny_config(), labels=None)
    assert not (data / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (np.zeros((9, 9), np.uint8), "this label map is 9 x 9 px"),
        (np.full((60, 71), 3, np.uint8), "holds the label 3"),
    ],
)
def test_labels_that_do_not_fit_are_an_error(data, label, message):
    write_label(data / "pseudo" / "p00.png", label)
    with pytest.raises(UserError, match=message):
        run_training(data, tiny_config())


def test_the_same_seed_gives_the_same_bytes(data):
    run_training(data, tiny_config())
    run_training(data, tiny_config(), output="again")
    run_training(data, tiny_config(seed=1), output="other")
    first = (data / "model.safetensors").read_bytes()
    assert (data / "again").read_bytes() == first
    assert (data / "other").read_bytes() != first


def test_the_model_is_the_average_of_the_weights_where_asked_for(data):
    run_training(data, tiny_config())
    run_training(data, tiny_config(ema=0.9), output="averaged")
    run_training(data, tiny_config(label_smoothing=0.2), output="softened")
    plain, averaged, softened = (
        SEGMENTATION.load(data / name).network.state_dict()
        for name in ("model.safetensors", "averaged", "softened")
    )
    assert plain.keys() == averaged.keys() == softened.keys()
    for other in (averaged, softened):
        assert any(not torch.equal(plain[key], other[key]) for key in plain)


def test_a_checkpoint_of_other_labels_is_refused(data, monkeypatch):
    class Stop(Exception):
        pass

    real = SegmentationTask.phases
    taken = []

    def stop_later(self, batch, context):
        if len(taken) == 2:
            raise Stop
        taken.append(context.step)
        return real(self, batch, context)

    monkeypatch.setattr(SegmentationTask, "phases", stop_later)
    monkeypatch.setattr("wsss.training.loop.time.monotonic", iter(range(0, 10**9, 999)).__next__)
    with pytest.raises(Stop):
        run_training(data, tiny_config())
    monkeypatch.undo()
    assert (data / "work_model.safetensors" / "checkpoint.pt").exists()
    label = read_label(data / "pseudo" / "p00.png")
    write_label(data / "pseudo" / "p00.png", 0 * label)
    with pytest.raises(UserError, match="checkpoint"):
        run_training(data, tiny_config())
    # With the old ones it goes on, and leaves nothing to go on with.
    write_label(data / "pseudo" / "p00.png", label)
    run_training(data, tiny_config())
    assert not (data / "work_model.safetensors" / "checkpoint.pt").exists()


def test_samples_keep_image_and_labels_together(data):
    config = tiny_config(crop_px=96, scale_min=0.7, scale_max=0.8)
    index = read_index(data / "index.csv").training_set()
    paths = label_pngs(index, data / "pseudo", fix="")
    dataset = LabelledImages(config, index, data / "data", paths)
    for position in range(len(index.records)):
        sample = dataset.load(position, np.random.default_rng(position))
        assert sample["image"].shape == (3, 96, 96)
        padding = ~sample["valid"][0]
        # The crop is larger than any image here.
        assert padding.any()
        assert (sample["target"][padding] == 255).all()
        assert (sample["target"][~padding] != 255).all()
        red, _, blue = sample["image"]
        inside = sample["target"]
        assert (red - blue)[inside == 1].mean() > 0.3 or not (inside == 1).any()
        assert (blue - red)[inside == 2].mean() > 0.3 or not (inside == 2).any()
        assert (red - blue)[inside == 0].abs().mean() < 0.2


def test_learning_rates_and_decay_by_group():
    config = SegmentationConfig(
        learning_rate=0.1, head_lr_factor=10, head_bias_lr_factor=20, weight_decay=0.5
    )
    backbone = freeze_batchnorm(build_backbone(BackboneConfig(weights="none")))
    network = DeepLab(backbone, 3, config.head)
    settings = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in parameter_groups(network, config)
        for parameter in group["params"]
    }
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            assert id(parameter) not in settings
        elif name.startswith("backbone."):
            assert settings.pop(id(parameter)) == (0.1, 0.5), name
        elif parameter.ndim == 1:
            assert settings.pop(id(parameter)) == (2.0, 0.0), name
        else:
            assert settings.pop(id(parameter)) == (1.0, 0.5), name
    assert not settings


def test_settings_survive_json():
    config = tiny_config(loss_scales=(1.0, 0.75, 0.5))
    assert parse(SegmentationConfig, to_dict(config), where="segmentation") == config
    prediction = PredictionConfig(scales=(0.5, 1.0), crf_settings=CrfConfig(iterations=3))
    assert parse(PredictionConfig, to_dict(prediction), where="prediction") == prediction


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        (SegmentationConfig, "epochs", 0),
        (SegmentationConfig, "crop_px", 8),
        (SegmentationConfig, "scale_min", 2.0),
        (SegmentationConfig, "learning_rate", 0.0),
        (SegmentationConfig, "weight_decay", -1.0),
        (SegmentationConfig, "momentum", 1.0),
        (SegmentationConfig, "loss_scales", (0.5,)),
        (PredictionConfig, "scales", ()),
        (PredictionConfig, "split", ""),
        (CrfConfig, "iterations", 0),
        (CrfConfig, "bilateral_sxy", 0.0),
    ],
)
def test_impossible_settings_name_their_key(kind, key, value):
    with pytest.raises(UserError, match=key):
        kind(**{key: value})


def test_another_stages_model_is_refused(data):
    from wsss.models.weights import save_model

    save_model(data / "cam.safetensors", {"w": torch.zeros(1)}, stage="cam", metadata={})
    with pytest.raises(UserError, match="of stage 'cam'"):
        SEGMENTATION.load(data / "cam.safetensors")


FROZEN = BackboneConfig(
    name="test_vit", weights="none", output_stride=None, layers=(0, -1), frozen=True
)


@pytest.mark.setting("compute.feature_cache_gb")
def test_a_training_on_kept_features_is_the_same(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WSSS_CACHE", str(tmp_path / "cache"))
    kept = tmp_path / "cache" / "features"
    config = tiny_config(backbone=FROZEN, head=LinearSettings(dropout=0.0), augment=False, epochs=3)
    run_training(data, config, output="plain.safetensors")
    assert not kept.exists()
    limits = []

    def keep(body, folder, limit, **more):
        limits.append(limit)
        return keep_features(body, folder, limit, **more)

    monkeypatch.setattr(training, "keep_features", keep)
    compute = FeatureCompute(device="cpu", threads=1, workers=0, feature_cache_gb=1)
    run_training(data, config, output="kept.safetensors", compute=compute)
    assert limits == [10**9]
    # 12 pictures, each once.
    assert len(list(kept.rglob("*.safetensors"))) == 12
    plain, ours = (
        load_model_file(data / f"{name}.safetensors", "segmentation")[0]
        for name in ("plain", "kept")
    )
    assert plain.keys() == ours.keys()
    for name, value in plain.items():
        torch.testing.assert_close(ours[name], value, atol=1e-4, rtol=1e-3)
    assert not torch.equal(ours["head.classifier.weight"], torch.zeros(()))
    capsys.readouterr()
    drawn = tiny_config(backbone=FROZEN, head=LinearSettings(dropout=0.0))
    run_training(data, drawn, output="drawn.safetensors", compute=compute)
    assert "no features are kept: its pictures are drawn" in capsys.readouterr().err


def test_without_augmentation_a_picture_is_the_same_every_time(data):
    config = tiny_config(augment=False, crop_px=64)
    index = read_index(data / "index.csv").training_set()
    paths = label_pngs(index, data / "pseudo", fix="")
    images = LabelledImages(config, index, data / "data", paths, augment=False)
    for position, record in enumerate(index.records):
        first = images.load(position, np.random.default_rng(0))
        second = images.load(position, np.random.default_rng(1))
        assert all(torch.equal(first[key], second[key]) for key in ("image", "valid", "target"))
        factor = min(1, 64 / max(record.height, record.width))
        height, width = round(record.height * factor), round(record.width * factor)
        expected = torch.zeros(64, 64, dtype=torch.bool)
        expected[:height, :width] = True
        assert torch.equal(first["valid"][0], expected)
        assert (first["target"][~expected] == 255).all()
        assert (first["target"][expected] != 255).all()
        if factor == 1:
            picture = np.array(Image.open(data / "data" / record.path)) / 255
            found = first["image"][:, :height, :width].permute(1, 2, 0).numpy()
            np.testing.assert_allclose(found, picture, atol=1e-6)
    with pytest.raises(UserError, match="'flip' has no effect"):
        used(SegmentationConfig, {"augment": False, "flip": True}, {"flip": True}, where="x")
