"""What the tests of the transformer methods share: the smallest of them, and its training."""

from __future__ import annotations

from pathlib import Path

import torch
from conftest import write_tiny_data

from wsss.cam.config import TrainedSettings
from wsss.cam.methods.acr_config import AcrConfig
from wsss.cam.methods.acr_vit_config import AcrVitSettings
from wsss.cam.methods.transformer_config import VitConfig
from wsss.cam.training import train_cam
from wsss.data.build import build_index
from wsss.data.formats.folder import FolderSettings
from wsss.data.index import write_index
from wsss.models.config import BackboneConfig
from wsss.runtime.compute import Compute

CPU = torch.device("cpu")
VIT = VitConfig(
    name="deit_tiny_patch16_224",
    depth=2,
    class_attention_layers=2,
    drop_path=0.0,
    learning_rate_at_512=0.1,
    warmup_epochs=0.0,
)
TINY = AcrVitSettings(
    backbone=BackboneConfig(name="test_efficientnet", weights="none", output_stride=16),
    vit=VIT,
    epochs=1,
    batch_size=2,
    crop_px=32,
    long_side_min_px=32,
    long_side_max_px=48,
    precision="float32",
    acr=AcrConfig(
        decoder_depth=3,
        decoder_width=4,
        decode_px=None,
        feature_levels=(1, 2),
        feature_channels=(4, 4),
        grid_min=4,
        grid_max=6,
    ),
)


def write_data(root: Path) -> Path:
    write_tiny_data(root, train=4, val=2)
    write_index(build_index(FolderSettings(), root), root / "index.csv")
    return root


def train(data: Path, folder: Path, config: TrainedSettings) -> Path:
    output = folder / "model.safetensors"
    train_cam(
        config=config,
        index=data / "index.csv",
        root=data,
        output=output,
        work_dir=folder / "work",
        compute=Compute(device="cpu", threads=1, workers=0),
    )
    return output
