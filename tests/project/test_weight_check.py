"""Weight files are looked into before a run: which fit, what is said of others, what is kept."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from clip_helpers import openai_state, write_openai_file
from safetensors.torch import save_file

from wsss.cam.methods.transformer_config import VitConfig
from wsss.errors import UserError
from wsss.models.clip_config import ClipConfig
from wsss.models.config import BackboneConfig
from wsss.models.resnet38 import ResNet38
from wsss.models.vit import MCTformerV2
from wsss.models.weights import read_state_dict, shapes_alone
from wsss.project import weight_check
from wsss.project.config import resolve
from wsss.project.weight_check import WeightFile, check_fits
from wsss.runtime.settings import Settings, to_dict

LITE = BackboneConfig(name="test_efficientnet", weights="key")
VIT = BackboneConfig(name="test_vit", weights="key", output_stride=None)


def answer(settings: Settings, path: Path) -> dict[str, Any]:
    """What the process says of a file, without the process."""
    return weight_check._answer(
        {
            "check": settings.weights_check,  # type: ignore[attr-defined]
            "class": f"{type(settings).__module__}:{type(settings).__name__}",
            "settings": to_dict(settings),
            "path": str(path),
        }
    )


def weights_of(name: str) -> dict[str, torch.Tensor]:
    return timm.create_model(name, pretrained=False).state_dict()


def save(state: dict[str, torch.Tensor], path: Path, *, old: bool = False) -> Path:
    if path.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in state.items()}, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=not old)
    return path


def expanded(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same shapes for next to no bytes."""
    return {name: torch.zeros(()).expand(value.shape) for name, value in state.items()}


def resnet38() -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return expanded(ResNet38().state_dict())


FITTING = {
    "convolutional": (LITE, lambda: weights_of("test_efficientnet")),
    "transformer backbone": (VIT, lambda: weights_of("test_vit")),
    "transformer classifier": (
        VitConfig(name="test_vit", weights="key"),
        lambda: weights_of("test_vit"),
    ),
    "transformer checkpoint": (
        VitConfig(name="test_vit", weights="key"),
        lambda: MCTformerV2("test_vit", 3, class_attention_layers=1).state_dict(),
    ),
    "resnet38": (
        BackboneConfig(name="resnet38", weights="key", output_stride=8),
        resnet38,
    ),
}


@pytest.mark.parametrize("case", FITTING)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", " old.pth"])
def test_files_that_fit(case: str, suffix: str, tmp_path: Path) -> None:
    settings, state = FITTING[case]
    if suffix != ".pth" and case == "resnet38":
        pytest.skip("hundreds of megabytes in this format")
    path = save(state(), tmp_path / f"w{suffix}", old="old" in suffix)
    assert answer(settings, path) == {}


@pytest.mark.parametrize("case", FITTING)
def test_files_of_other_networks(case: str, tmp_path: Path) -> None:
    settings, state = FITTING[case]
    values = state()
    last = list(values)[-3]
    more = {**values, "stranger": torch.zeros(2), last: torch.zeros(1, 2, 3)}
    found = answer(settings, save(more, tmp_path / "w.pth"))
    assert "fit" in found["found"] and found["where"] and found["fix"]
    assert "stranger" in found["found"] or last in found["found"]
    (tmp_path / "text.pth").write_text("no weights")
    assert "found" in answer(settings, tmp_path / "text.pth")


def test_clips(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    clip = ClipConfig(weights="key")
    assert answer(clip, write_openai_file(tmp_path / "tiny.pt")) == {}
    state = openai_state()
    del state["ln_final.bias"]
    torch.save(state, tmp_path / "less.pt")
    assert "text_model.final_layer_norm.bias" in answer(clip, tmp_path / "less.pt")["found"]
    (tmp_path / "folder").mkdir()
    assert "holds no CLIP" in answer(clip, tmp_path / "folder")["found"]


def test_what_cannot_be_told_is_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Odd(BackboneConfig):
        weights_check = f"{__name__}:needs_values"

    path = save({"x": torch.zeros(1)}, tmp_path / "w.pth")
    settings = Odd(name="test_efficientnet", weights="key")
    assert (
        "RuntimeError"
        in weight_check._answer(
            {
                "check": "test_weight_check:needs_values",
                "class": "wsss.models.config:BackboneConfig",
                "settings": to_dict(settings),
                "path": str(path),
            }
        )["unknown"]
    )


def needs_values(settings: Settings, path: Path) -> None:
    read_state_dict(path)["x"].item()


def test_nothing_has_values(tmp_path: Path) -> None:
    state = {"a.b": torch.randn(3, 4), "c": torch.randn(2)}
    for name in ("w.pth", "w.safetensors"):
        path = save(state, tmp_path / name)
        with shapes_alone():
            read = read_state_dict(path)
        assert {key: value.shape for key, value in read.items()} == {
            key: value.shape for key, value in state.items()
        }
        assert all(value.is_meta for value in read.values())
        after = read_state_dict(path)
        assert all(torch.equal(after[key], value) for key, value in state.items())


def test_what_fits_is_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSSS_CACHE", str(tmp_path / "cache"))
    path = save(weights_of("test_efficientnet"), tmp_path / "w.pth")
    file = WeightFile(LITE, path, "runs.a.cam.backbone")
    check_fits([file])
    (kept,) = (tmp_path / "cache" / weight_check.KIND).iterdir()
    assert kept.name == file.key
    # Another process, which has to start none.
    monkeypatch.setattr(weight_check, "_known", set())
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    check_fits([file])
    other = WeightFile(LITE, path.rename(tmp_path / "w.bin"), "x")
    assert other.key != kept.name  # its suffix says how it is read
    with pytest.raises(FileNotFoundError):
        check_fits([other])


def test_the_message_names_file_and_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def here(questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [weight_check._answer(question) for question in questions]

    monkeypatch.setattr(weight_check, "_answers", here)
    state = weights_of("test_efficientnet")
    del state["conv_stem.weight"]
    path = save(state, tmp_path / "w.pth")
    backbone = {"name": "test_efficientnet", "weights": "mine"}
    config = resolve(
        {
            "roots": {"own": "x"},
            "weights": {"mine": str(path)},
            "runs": {
                "a": {
                    "root": "own",
                    "index": {"format": "folder"},
                    "cam": {"method": "cam", "backbone": backbone},
                }
            },
        }
    )
    for _ in range(2):  # a failure is not kept
        with pytest.raises(UserError, match=r"missing: conv_stem\.weight") as caught:
            config.check_weights("a")
        assert caught.value.where == f"{path} (runs.a.cam.backbone)"
