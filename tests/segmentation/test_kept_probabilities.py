"""The archives of probabilities that `wsss predict` writes beside its masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from segmentation_helpers import CLASSES, picture, tiny_config

from wsss.data.images import read_label
from wsss.errors import UserError
from wsss.models.backbones import build_backbone
from wsss.models.deeplab import DeepLab
from wsss.runtime.compute import Compute
from wsss.segmentation.config import PredictionConfig
from wsss.segmentation.model_file import SEGMENTATION
from wsss.segmentation.pictures import predict_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model and the pictures a and b; what is predicted goes to out/."""
    torch.manual_seed(0)
    config = tiny_config()
    network = DeepLab(build_backbone(config.backbone), 3, config.head)
    network.head.classifier.weight.data *= 20  # so that labels vary over the picture
    SEGMENTATION.save(tmp_path / "model.safetensors", network, config, classes=CLASSES, training={})
    for name in ("a", "b"):
        Image.fromarray(picture(50, 64)).save(tmp_path / f"{name}.png")
    (tmp_path / "out").mkdir()
    return tmp_path


def predict(folder: Path, *names: str, probabilities: bool) -> int:
    return predict_images(
        model=folder / "model.safetensors",
        inputs=[folder / f"{name}.png" for name in names],
        output=folder / "out",
        config=PredictionConfig(scales=(1.0,), crf=False),
        compute=Compute(device="cpu", threads=1, workers=0),
        probabilities=probabilities,
    )


def made(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "out").glob("*.*"))


def test_probabilities_are_those_that_the_labels_come_from(folder: Path) -> None:
    assert predict(folder, "a", probabilities=True) == 1
    with np.load(folder / "out" / "a.npz") as kept:
        found = kept["probabilities"]
        assert (found.dtype, found.shape) == (np.float16, (3, 50, 64))
        np.testing.assert_allclose(found.astype(float).sum(axis=0), 1, atol=3e-3)
        np.testing.assert_array_equal(kept["confidence"], found.max(axis=0))
        assert kept["classes"].tolist() == ["background", "red", "blue"]
        label = read_label(folder / "out" / "a.png")
        chosen = np.take_along_axis(found, label[None].astype(int), axis=0)[0]
        # Rounded, two probabilities can be equal that were not.
        np.testing.assert_array_equal(chosen, found.max(axis=0))


def test_no_older_probabilities_stay_beside_a_new_mask(folder: Path) -> None:
    predict(folder, "a", "b", probabilities=True)
    predict(folder, "a", probabilities=False)
    assert "a.npz" not in made(folder) and "b.npz" in made(folder)
    predict(folder, "a", probabilities=True)
    assert "a.npz" in made(folder)


@pytest.mark.parametrize("content", ["text", "arrays"])
def test_arrays_of_others_stay(folder: Path, content: str) -> None:
    theirs = folder / "out" / "a.npz"
    if content == "text":
        theirs.write_text("mine")
    else:
        np.savez(theirs, probabilities=np.zeros(3))
    before = theirs.read_bytes()
    with pytest.raises(UserError, match="no result of this command"):
        predict(folder, "a", probabilities=True)
    assert made(folder) == ["a.npz"] and theirs.read_bytes() == before
    predict(folder, "a", probabilities=False)
    assert theirs.read_bytes() == before
    # Not even beside a mask of ours.
    with pytest.raises(UserError, match="no result of this command"):
        predict(folder, "a", probabilities=True)
    assert theirs.read_bytes() == before
