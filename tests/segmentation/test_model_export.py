"""Exported models give in their own runtime what they give here, on pictures of any size."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import REPOSITORY
from PIL import Image
from segmentation_helpers import picture, tiny_config

import wsss
from wsss.cli import main
from wsss.errors import UserError
from wsss.models.config import BackboneConfig
from wsss.models.heads.deeplab_config import LargeFovSettings, V2Settings
from wsss.models.heads.tokens_config import LinearSettings, PyramidSettings
from wsss.runtime.settings import replace, to_dict
from wsss.segmentation.config import PredictionConfig
from wsss.segmentation.exports.formats import (
    METADATA_FILE,
    MODEL_FORMATS,
    Exported,
    difference,
    write,
)
from wsss.segmentation.exports.portable import _scaled
from wsss.segmentation.model_file import SEGMENTATION, build_network

CLASSES = ("dog", "sofa")
SIZES = ((64, 64), (61, 83), (130, 97))


def backbone(name, **settings):
    return BackboneConfig(name=name, weights="none", **settings)


VIT = {"output_stride": None, "layers": (0, 1, 2, 3)}
CONFIGS = {
    "lite0-v3plus": tiny_config(backbone=backbone("tf_efficientnet_lite0")),
    "resnet-largefov": tiny_config(
        backbone=backbone("test_resnet", output_stride=8), head=LargeFovSettings(channels=8)
    ),
    "resnet-v2": tiny_config(backbone=backbone("test_resnet"), head=V2Settings(rates=(1, 2))),
    "vit-linear": tiny_config(backbone=backbone("test_vit", **VIT), head=LinearSettings()),
    "vit-fpn": tiny_config(backbone=backbone("test_vit", **VIT), head=PyramidSettings(channels=8)),
}


def write_model(path: Path, config) -> None:
    """Write a random model whose probabilities differ from place to place, as after training."""
    torch.manual_seed(0)
    config = replace(config, freeze_batchnorm=False)
    network = build_network(config, len(CLASSES))
    image = F.interpolate(torch.randn(4, 3, 12, 12), size=(96, 96), mode="bilinear")
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
        network.train()(image)
        network.eval()
        last = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)][-1]
        last.weight *= 1 / network(image).std(dim=(2, 3)).mean()
    path.parent.mkdir(parents=True)
    SEGMENTATION.save(path, network, config, classes=CLASSES, training={})


def make_run(folder: Path, name: str) -> Path:
    run = folder / "results" / name
    write_model(run / "segmentation" / "model.safetensors", CONFIGS[name])
    return run


def runtime(folder: Path, form: str):
    """Open an exported model as its users would."""
    if form == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
        return lambda pictures: session.run(None, {"image": pictures})[0]
    module = torch.export.load(folder / "model.pt2").module()
    return lambda pictures: module(torch.from_numpy(pictures)).detach().numpy()


slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("resnet-largefov", "onnx"),
        ("vit-fpn", "torch-export"),
        pytest.param("lite0-v3plus", "onnx", marks=slow),
        pytest.param("lite0-v3plus", "torch-export", marks=slow),
        pytest.param("resnet-v2", "onnx", marks=slow),
        pytest.param("vit-linear", "onnx", marks=slow),
        pytest.param("vit-fpn", "onnx", marks=slow),
    ],
)
def test_it_gives_what_we_give(tmp_path, capsys, name, form):
    run = make_run(tmp_path, name)
    assert main(["export-model", str(run), "--format", form]) == 0
    assert "in float32: the same to 1e-4" in capsys.readouterr().out
    folder = run / "export" / f"model-{form}"
    call = runtime(folder, form)
    model = wsss.load(run, scales=(1.0,), mirror=False, crf=False, precision="float32")
    for size in SIZES:
        image = picture(*size)
        wanted = model.predict(image).probabilities
        assert wanted.std(axis=(1, 2)).max() > 0.01
        found = call(image[None])
        assert found.shape == (1, 3, *size) and found.dtype == np.float32
        np.testing.assert_allclose(found[0], wanted, atol=1e-4)
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
        # Several pictures at once: each as alone.
        both = call(np.stack([image, image[::-1]]))
        np.testing.assert_allclose(both[0], wanted, atol=1e-4)
    # Nothing of this machine goes out with it.
    for file in folder.iterdir():
        assert str(REPOSITORY).encode() not in file.read_bytes()
        assert b"site-packages" not in file.read_bytes()
    card = (folder / "README.md").read_text()
    assert "no CRF, in float32:" in card
    (code,) = re.findall(r"```python\n(.*?)```", card, re.S)
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    Image.fromarray(picture(90, 120)).save(folder / "picture.jpg")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^(dog|sofa) \d+% of the picture$", done.stdout, re.M)


def test_a_hugging_face_folder_is_loaded(tmp_path, monkeypatch):
    run = make_run(tmp_path, "resnet-v2")
    (run / "config").mkdir()
    settings = PredictionConfig(scales=(0.75, 1.0), mirror=False, crf=False)
    (run / "config/prediction.json").write_text(json.dumps(to_dict(settings)))
    wanted = wsss.load(run).predict(picture(50, 70))
    hub = tmp_path / "hub"
    assert main(["export-model", str(run), "--format", "huggingface", "--output", str(hub)]) == 0
    assert sorted(path.name for path in hub.iterdir() if path.name[0] != ".") == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert json.loads((hub / "config.json").read_text())["id2label"]["1"] == "dog"
    moved = tmp_path / "elsewhere"
    hub.rename(moved)
    found = wsss.load(moved)
    assert found.prediction == settings
    assert np.array_equal(found.predict(picture(50, 70)).probabilities, wanted.probabilities)
    (code,) = re.findall(r"```python\n(.*?)```", (moved / "README.md").read_text(), re.S)
    Image.fromarray(picture(90, 120)).save(moved / "picture.jpg")
    monkeypatch.chdir(moved)
    exec(code, {})
    assert (moved / "overlay.png").is_file()
    # The command takes it as well, settings and all.
    assert main(["predict", str(moved), "picture.jpg", "--device", "cpu"]) == 0
    (moved / "config.json").write_text(
        '{"model_type": "wsss-segmentation", "prediction": {"a": 1}}'
    )
    with pytest.raises(UserError, match="config"):
        wsss.load(moved)


def test_the_card_says_what_is_known_and_no_more(tmp_path, capsys):
    from wsss.data.index import ImageRecord, Index, write_index

    run = make_run(tmp_path, "resnet-v2")
    out = tmp_path / "bare"
    words = ["export-model", str(run), "--format", "huggingface", "--output"]
    assert main([*words, str(out)]) == 0
    card = (out / "README.md").read_text()
    assert "None were taken." in card and "Classes: dog, sofa." in card
    assert not re.search("^license:", card, re.M) and "# license:" in card
    records = [
        ImageRecord(f"{i}", ("val" if i == 3 else "train",), ("dog",), 9, 9, f"{i}.jpg")
        for i in range(4)
    ]
    write_index(Index(CLASSES, tuple(records)), run / "index.csv")
    (run / "config").mkdir()
    (run / "config/cam.json").write_text('{"method": "clip-es"}')
    row = "mine,segmentation,pseudo,val,configured,"
    (run / "miou.csv").write_text(
        "# 1 picture is left out\n"
        "run,stage,labels,split,selection,threshold,class,iou,precision,recall\n"
        f"{row},dog,0.623,0.7,0.8\n{row},mean,0.456,0.5,0.6\n"
    )
    assert main([*words, str(tmp_path / "full")]) == 0
    card = (tmp_path / "full/README.md").read_text()
    assert (
        "CAM method `clip-es`" in card and "| dog | 3 | 1 |" in card and "| sofa | 0 | 0 |" in card
    )
    assert "45.6" in card and "62.3" in card and "1 picture is left out" in card
    assert '"batch_size": 4' in card
    assert main([*words, str(tmp_path / "full")]) == 2
    assert "something here already" in capsys.readouterr().err


def test_what_cannot_be_exported_is_named_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    run = make_run(tmp_path, "resnet-v2")

    def fail(*arguments, **options):
        raise RuntimeError("data-dependent branching\nand so on")

    monkeypatch.setattr(torch.export, "export", fail)
    assert main(["export-model", str(run), "--format", "torch-export"]) == 2
    printed = capsys.readouterr().err
    assert "the head 'v2' on test_resnet cannot be exported: data-dependent branching" in printed
    assert not list((run / "export").iterdir())


def test_what_gives_something_else_is_not_written(tmp_path):
    path = tmp_path / "m" / "model.safetensors"
    write_model(path, CONFIGS["resnet-v2"])
    trained = SEGMENTATION.load(path)

    model = wsss.load(path, scales=(1.0,), mirror=False, precision="float32", crf=False)

    def right(pictures):
        return np.stack([model.predict(each).probabilities for each in pictures])

    def shifted(pictures):
        return np.roll(right(pictures), 1, axis=-1)

    assert difference(right, trained, 33) < 1e-5
    assert difference(shifted, trained, 33) > 1e-3


def test_a_program_keeps_its_metadata_as_people_write_it(tmp_path):
    class Nothing(torch.nn.Module):
        def forward(self, x):
            return x + 0

    metadata = {"a note": "Hände, 手"}
    program = torch.export.export(Nothing(), (torch.zeros(1),))
    path = tmp_path / "model.pt2"
    MODEL_FORMATS["torch-export"].write(Exported(program, metadata, 1), path)
    extra = {METADATA_FILE: ""}
    torch.export.load(path, extra_files=extra)
    assert extra[METADATA_FILE] == '{"a note": "Hände, 手"}'


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    path = tmp_path / "m" / "model.safetensors"
    write_model(path, CONFIGS["resnet-v2"])
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match="onnxscript is not installed") as error:
        write(SEGMENTATION.load(path), MODEL_FORMATS["onnx"], tmp_path)
    assert "wsss[onnx]" in str(error.value)


def test_whole_numbers_round_as_the_pyramid_does():
    for side in range(1, 60):
        for factor in (4.0, 2.0, 1.0, 0.5, 0.25, 0.125):
            assert _scaled(side, factor) == max(1, round(side * factor))
