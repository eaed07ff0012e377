"""ACR in phases and OC-CSE as whole trainings; what their settings and runs may not be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from cam_settings import cam_settings
from conftest import write_tiny_data

from wsss.cam.methods.acr import AcrMethod
from wsss.cam.methods.registry import METHODS
from wsss.cam.model_file import CLASSIFIER
from wsss.cam.training import train_cam
from wsss.data.build import build_index
from wsss.data.formats.folder import FolderSettings
from wsss.data.index import write_index
from wsss.errors import UserError
from wsss.project.config import resolve
from wsss.runtime.compute import Compute
from wsss.training.step import Phase, StepContext

TINY: dict[str, Any] = {
    "backbone": {"name": "test_efficientnet", "weights": "none", "output_stride": 16},
    "epochs": 4,
    "batch_size": 4,
    "crop_px": 48,
    "long_side_min_px": 48,
    "long_side_max_px": 64,
    "learning_rate": 0.001,
    "acr": {
        "decoder_depth": 3, "decoder_width": 4, "decode_px": 32,
        "feature_levels": [1, 2], "feature_channels": [4, 4],
        "schedule": {"classifier_epochs": 1, "reconstructor_epochs": 1, "ramp_epochs": 0.5},
        "balance": 2.0, "anchor": 0.3, "guard": {"map_mean": 0.001, "window_steps": 1},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny")
    write_tiny_data(root)
    write_index(build_index(FolderSettings(), root), root / "index.csv")
    return root


def train(data: Path, folder: Path, anchor: Path | None = None, **settings: Any) -> Path:
    train_cam(
        config=cam_settings({**TINY, **settings}),
        index=data / "index.csv",
        root=data,
        output=folder / "model.safetensors",
        work_dir=folder / "work",
        compute=Compute(device="cpu", threads=1, workers=0, checkpoint_minutes=0),
        anchor_model=anchor,
    )
    return folder / "model.safetensors"


class Killed(Exception):
    pass


@pytest.mark.parametrize("stop_at", [1, 3, 5, 7])
def test_a_restart_in_any_phase_gives_the_same_bytes(data, tmp_path, monkeypatch, stop_at) -> None:
    whole = train(data, tmp_path / "whole").read_bytes()
    phases = AcrMethod.phases

    def dying(
        self: AcrMethod, batch: Mapping[str, Any], context: StepContext
    ) -> Iterator[Phase[Any]]:
        if context.step == stop_at:
            raise Killed
        return phases(self, batch, context)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(AcrMethod, "phases", dying)
        train(data, tmp_path / "killed")
    assert train(data, tmp_path / "killed").read_bytes() == whole


@pytest.mark.setting("cam.occse.anchor_from")
def test_an_anchor_of_another_run(data, tmp_path) -> None:
    plain = train(data, tmp_path / "plain", method="cam")
    settings = {"method": "oc-cse", "occse": {"anchor_from": "plain"}, "epochs": 2}
    made = train(data, tmp_path / "oc", plain, **settings)
    assert CLASSIFIER.load(made).settings.method == "oc-cse"
    with pytest.raises(UserError, match="its model was not given"):
        train(data, tmp_path / "none", **settings)
    with pytest.raises(UserError, match="settings name no run"):
        train(data, tmp_path / "unasked", plain, method="cam")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"acr": {"schedule": {"classifier_epochs": 4}}}, "fewer than cam.epochs"),
        ({"acr": {"schedule": {"ramp_epochs": -1}}}, "0 or more"),
        ({"acr": {"balance": 0.0}}, "above 0"),
        ({"acr": {"anchor": 0.3}}, "has not learned"),
        ({"acr": {"guard": {"class_loss": 0.5}}}, "above 1"),
        ({"method": "acr-vit", "acr": {"balance": 1.0}}, "no gradient to compare"),
        ({"method": "acr-vit", "acr": {"schedule": {"classifier_epochs": 1}}}, "only ramp_epochs"),
        ({"method": "oc-cse", "occse": {"classifier_epochs": 0}}, "has not learned"),
        ({"method": "oc-cse", "occse": {"classifier_epochs": 4}}, "fewer than cam.epochs"),
        ({"method": "oc-cse", "occse": {"anchor": 0.0}}, "above 0"),
    ],
)
def test_impossible_settings(settings: dict[str, Any], message: str) -> None:
    vit = {"vit": {"warmup_epochs": 1.0, "learning_rate_at_512": 0.1}}
    vit = vit if settings.get("method") == "acr-vit" else {}
    with pytest.raises(UserError, match=message):
        METHODS.parse({"epochs": 4, **vit, **settings}, where="cam")


def project(**cams: Any) -> Any:
    base = {"root": "own", "index": {"format": "folder"}}
    return resolve(
        {"roots": {"own": "x"}, "runs": {k: {**base, "cam": v} for k, v in cams.items()}}
    )


def anchored_by(run: str) -> dict[str, Any]:
    return {"acr": {"anchor": 0.5, "anchor_from": run}}


@pytest.mark.setting("cam.acr.anchor_from")
def test_a_frozen_classifier_is_another_runs() -> None:
    assert project(a={}, b=anchored_by("a")).run("b").stages["cam"].anchor_run == "a"
    with pytest.raises(UserError, match="unknown run 'c'"):
        project(a={}, b=anchored_by("c"))
    with pytest.raises(UserError, match="in a circle"):
        project(a=anchored_by("b"), b=anchored_by("a"))
    with pytest.raises(UserError, match=r"acr\.anchor is 0"):
        project(a={}, b={"acr": {"anchor_from": "a"}})
    with pytest.raises(UserError, match="'balance' has no effect"):
        vit = {"warmup_epochs": 1.0, "learning_rate_at_512": 0.1}
        project(a={"method": "acr-vit", "vit": vit, "acr": {"balance": 4.0}})
