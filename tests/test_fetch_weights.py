"""`wsss fetch-weights`: what a run takes by name, found in the cache or asked for at once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY
from hub_helpers import COMMIT, cached_repository
from safetensors.torch import save_file

from wsss.cli import main
from wsss.project.config import load_config
from wsss.project.weights import named_weights


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(REPOSITORY / "config.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_a_run_takes_by_name(project: Path) -> None:
    config = load_config()
    found = {
        run: {place: s.name for place, s in named_weights(config.run(run)).items()}  # type: ignore[attr-defined]
        for run in ("voc-r50", "voc-clip", "voc")
    }
    resnet = "resnet50.tv_in1k"
    places = ("cam.backbone", "irn.backbone", "segmentation.backbone")
    assert found["voc-r50"] == dict.fromkeys(places, resnet)
    # No IRNet where labels come from a CRF.
    assert found["voc-clip"] == {
        "cam.clip": "openai/clip-vit-base-patch16",
        "segmentation.backbone": "resnet101.tv_in1k",
    }
    assert found["voc"] == {}


def test_the_command(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = cached_repository(monkeypatch, project / "hub", "timm/resnet50.tv_in1k")
    save_file({"a": torch.ones(1)}, folder / "model.safetensors")
    assert main(["fetch-weights", "results/voc-r50", "voc"]) == 0
    printed = capsys.readouterr().out
    assert "voc-r50, irn.backbone: timm/resnet50.tv_in1k" in printed
    assert COMMIT in printed and str(folder) in printed
    assert "voc: no weights of this run come by name" in printed


def test_all_that_is_lacking_is_said_at_once(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    cached_repository(monkeypatch, project / "hub", "some/other")
    assert main(["fetch-weights", "voc-clip", "coco-clip"]) == 2
    printed = capsys.readouterr().err
    assert printed.count("hf download openai/clip-vit-base-patch16") == 1
    assert printed.count("hf download timm/resnet101.tv_in1k") == 1
    assert main(["fetch-weights", "voc-klip"]) == 2
    assert "voc-clip" in capsys.readouterr().err
