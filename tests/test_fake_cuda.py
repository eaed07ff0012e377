"""Every network and training on a GPU that is not there: nothing mixes devices.

What is shown is what the tensors' devices and types tell, not what a GPU computes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cam_settings import as_method
from clip_helpers import NAMES, write_openai_file
from distributed_cases import CAM, CLASSES, DEEPLAB, IRN, NET, Pictures
from fake_cuda import GPU, fake_cuda
from PIL import Image
from torch import Tensor

from wsss.cam.config import ExportConfig
from wsss.cam.export import ClassifierSource, cam_source
from wsss.cam.lpcam import ClassClusters, similarity_maps
from wsss.cam.methods.adversary_settings import AcrSchedule, CollapseGuard
from wsss.cam.methods.clip_es import clip_es_source
from wsss.cam.methods.oc_cse_config import ErasingConfig
from wsss.cam.methods.registry import METHODS
from wsss.cam.model_file import build_classifier, cam_task
from wsss.cam.source import SourceFiles
from wsss.cam.training_pictures import cam_pictures
from wsss.data.index import ImageRecord, Index
from wsss.irn.edges import EdgeFinder
from wsss.irn.map_labels import refined_scores
from wsss.irn.random_walk import random_walk_batch
from wsss.irn.training import IrnTask
from wsss.models.backbones import build_backbone
from wsss.models.config import BackboneConfig
from wsss.models.deeplab import DeepLab
from wsss.models.heads.deeplab_config import LargeFovSettings, V2Settings, V3PlusSettings
from wsss.models.heads.tokens_config import LinearSettings, PyramidSettings
from wsss.models.irnet import IrNet
from wsss.models.lean import lean_backbone
from wsss.runtime.compute import Compute, autocast, convolution_dtype, setup
from wsss.runtime.settings import replace
from wsss.segmentation.inference import class_probabilities, segmenter, views_of
from wsss.segmentation.model_file import build_network
from wsss.segmentation.training import SegmentationTask
from wsss.segmentation.training_pictures import segmentation_pictures
from wsss.training.averaging import AveragedTask
from wsss.training.loop import train
from wsss.training.pictures import TrainingPictures

COMPUTE = Compute(device="cuda:0", threads=1, workers=0)
PICTURE = np.zeros((48, 64, 3), np.uint8)


@dataclass(frozen=True)
class Training:
    """How a training's task is built, and its settings."""

    config: Any
    build: Callable[[Any], Any]


def _cam(method: str, **changes: Any) -> Training:
    config = as_method(CAM, method, precision="auto", **changes)
    return Training(config, lambda config: cam_task(config, CLASSES, device=GPU))


def _irn(config: Any) -> Any:
    return IrnTask(IrNet(build_backbone(config.backbone)), config, GPU)


def _segmentation(config: Any) -> Any:
    task = SegmentationTask(build_network(config, CLASSES - 1), config, GPU)
    return AveragedTask(task, task.network, config.ema) if config.ema else task


def _deeplab(head: Any, **changes: Any) -> Training:
    return Training(replace(DEEPLAB, head=head, **changes), _segmentation)


VIT = BackboneConfig(
    name="vit_tiny_patch16_224", weights="none", output_stride=None, layers=(2, 5), frozen=True
)
PHASES = replace(
    CAM.acr,
    schedule=AcrSchedule(classifier_epochs=1, joint_lr_factor=0.5, ramp_epochs=0.5),
    guard=CollapseGuard(map_mean=0.001, window_steps=1),
    balance=0.5,
)
TRAININGS: Mapping[str, Training] = {
    "cam": _cam("cam"),
    "cam, averaged": _cam("cam", ema=0.9, label_smoothing=0.1, freeze_batchnorm=False),
    "acr": _cam("acr"),
    "acr, official": _cam("acr", head="official", acr=replace(CAM.acr, preset="official")),
    "acr in phases": _cam("acr", acr=PHASES, epochs=2),
    "oc-cse": _cam("oc-cse", occse=ErasingConfig(classifier_epochs=1), epochs=2),
    "mct": _cam("mct", crop_px=32),
    "acr-vit": _cam("acr-vit", crop_px=32),
    "irn": Training(replace(IRN, precision="auto"), _irn),
    "v3plus": _deeplab(V3PlusSettings(channels=8, low_level_channels=4), freeze_batchnorm=False),
    "v3plus, averaged": _deeplab(
        V3PlusSettings(channels=8, low_level_channels=4), ema=0.9, label_smoothing=0.1
    ),
    "largefov": _deeplab(LargeFovSettings(channels=8)),
    "v2": _deeplab(V2Settings(), loss_scales=(1.0, 0.75)),
    "linear": _deeplab(LinearSettings(), backbone=VIT),
    "fpn": _deeplab(PyramidSettings(channels=8), backbone=VIT),
}


def _pictures(task: Any, images: Pictures) -> TrainingPictures | None:
    if hasattr(task, "classifier"):
        return cam_pictures(task.classifier, images, [str(i) for i in range(CLASSES)])
    network = getattr(task, "result", None) or task.network
    return segmentation_pictures(network, images) if isinstance(network, DeepLab) else None


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_stays_on_the_gpu(name: str, tmp_path: Path) -> None:
    config = TRAININGS[name].config
    with fake_cuda():
        assert setup(COMPUTE, seed=0, trains=True) == GPU
        task = TRAININGS[name].build(config)
        images = Pictures(config.crop_px)
        train(
            task,
            images,
            epochs=config.epochs if config.epochs == 2 else 1,
            batch_size=8,
            seed=0,
            compute=COMPUTE,
            work_dir=tmp_path,
            identity={},
            stage="stage",
            description=name,
            pictures=_pictures(task, images),
            schedule=getattr(task, "schedules", None),
        )
        for module in task.modules.values():
            for name, tensor in module.state_dict().items():
                # The average counts on the CPU, where reading the count waits for nothing.
                assert tensor.device == GPU or name == "updates"
        for optimizer in task.optimizers.values():
            kept = [v for state in optimizer.state.values() for v in state.values()]
            assert any(isinstance(value, Tensor) and value.device == GPU for value in kept)


def _exported(method: str, **changes: Any) -> tuple[Any, Tensor]:
    config = as_method(CAM, method, precision="auto", crop_px=32)
    export = ExportConfig(scales=(1.0, 1.5), **changes)
    network = build_classifier(config, CLASSES).eval()
    lender = network if export.refine == "patch-attention" else None
    source = cam_source(export.precision, network, lender, GPU, mirror=export.mirror)
    plain = ClassifierSource(source, export, {}, "")
    with torch.inference_mode(), autocast(GPU, export.precision):
        return source, plain.maps(source.views(PICTURE, export.scales), [0, 2], PICTURE.shape[:2])


@pytest.mark.parametrize(
    ("method", "refine"),
    [("cam", "none"), ("acr", "none"), ("mct", "patch-attention"), ("acr-vit", "none")],
)
def test_cams_are_read_on_the_gpu(method: str, refine: str) -> None:
    with fake_cuda():
        setup(COMPUTE, seed=0)
        _, maps = _exported(method, refine=refine)
        assert (maps.device, maps.dtype, maps.shape) == (GPU, torch.float32, (2, 12, 16))


def test_features_are_compared_with_clusters_on_the_gpu() -> None:
    with fake_cuda():
        setup(COMPUTE, seed=0)
        source, _ = _exported("cam")
        with torch.inference_mode():
            features = source.features(source.views(PICTURE, [1.0])[0])
        centres = np.ones((2, features.shape[1]), np.float32)
        maps = similarity_maps(features[0], [ClassClusters(centres, centres)] * 2)
        assert (maps.device, maps.dtype) == (GPU, torch.float32)


def test_boundaries_and_walk_on_the_gpu() -> None:
    with fake_cuda():
        setup(COMPUTE, seed=0)
        network = IrNet(build_backbone(NET)).eval().to(device=GPU)
        dtype = convolution_dtype(GPU, "auto")
        network.backbone = lean_backbone(network.backbone, dtype=dtype)
        edges = EdgeFinder(network, True, GPU, dtype)([PICTURE, PICTURE])
        assert (edges.device, edges.dtype, edges.shape) == (GPU, torch.float32, (2, 12, 16))
        cams = [torch.zeros(k, 12, 16).to(GPU) for k in (1, 3)]
        walked = random_walk_batch(cams, list(edges), radius=3, steps=8)
        assert [(w.device, tuple(w.shape)) for w in walked] == [
            (GPU, (1, 12, 16)),
            (GPU, (3, 12, 16)),
        ]


@pytest.mark.parametrize("name", ["v3plus", "largefov", "v2", "fpn"])
def test_pictures_are_segmented_on_the_gpu(name: str) -> None:
    with fake_cuda():
        setup(COMPUTE, seed=0)
        network = build_network(TRAININGS[name].config, CLASSES - 1)
        segments = segmenter(network, precision="auto", device=GPU)
        found = class_probabilities(segments, views_of(PICTURE, (1.0, 0.75)), mirror=True)
        assert (found.device, found.dtype, found.shape) == (GPU, torch.float32, (CLASSES, 48, 64))


def test_par_refines_on_the_gpu() -> None:
    with fake_cuda():
        setup(COMPUTE, seed=0)
        scores = np.zeros((3, 48, 64), np.float32)
        refined = refined_scores(
            PICTURE, scores, refine="par", crf=None, par_iterations=2, device=GPU
        )
        assert refined.shape == scores.shape


def test_clip_reads_maps_on_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    weights = write_openai_file(tmp_path / "tiny.pt")
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    settings = METHODS.parse({"method": "clip-es", "clip": {"weights": "tiny"}}, where="cam")
    export = ExportConfig(scales=(1.0, 1.5), mirror=True)
    classes = tuple(NAMES["voc_names"])
    record = ImageRecord("a", ("train",), (classes[0], classes[2]), 64, 48, "a.png")
    # Tensors without values have nothing to keep on the disk.
    module = "wsss.cam.methods.clip_es"
    monkeypatch.setattr(f"{module}.kept_texts", lambda clip, _, texts: clip.embed_texts(texts))
    with fake_cuda():
        setup(COMPUTE, seed=0)
        source = clip_es_source(
            settings,
            export,
            Index(classes, (record,)),
            device=GPU,
            files=SourceFiles(weights=weights),
        )
        with torch.inference_mode(), autocast(GPU, export.precision):
            maps = source.maps(source.prepare(record, tmp_path), [0, 2], PICTURE.shape[:2])
        assert (maps.device, maps.dtype, maps.shape) == (GPU, torch.float32, (2, 12, 16))


def test_what_mixes_devices_is_refused() -> None:
    with fake_cuda():
        image = torch.zeros(3, 8, 8).to(GPU)
        for mistake in (
            lambda: image + torch.zeros(3, 8, 8),
            lambda: torch.nn.Conv2d(3, 2, 1)(image[None]),
            lambda: torch.rand(3, device=GPU, generator=torch.Generator()),
            lambda: image.numpy(),
            lambda: (torch.nn.Conv2d(3, 2, 1)(torch.zeros(1, 3, 4, 4)).mean()).backward(),
        ):
            with pytest.raises((RuntimeError, AssertionError)):
                mistake()
