"""Export stage: the CAMs of every tagged image into one map store."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from wsss.cam.config import ExportConfig
from wsss.cam.inference import multi_scale_cam, views
from wsss.cam.methods import load_cam_model
from wsss.data.images import read_image
from wsss.data.index import ImageRecord, read_index
from wsss.data.map_store import Attribute, MapStoreWriter
from wsss.data.prefetch import prefetch
from wsss.errors import UserError
from wsss.files import content_hash
from wsss.settings import to_dict
from wsss.training.compute import Compute, autocast, setup
from wsss.training.progress import progress


def export_cams(
    *,
    config: ExportConfig,
    model: Path,
    index: Path,
    root: Path,
    output: Path,
    compute: Compute,
) -> None:
    """Write the CAMs of the training images, and of the images that seeds are scored on.

    Args:
        config: Scales, mirror, precision.
        model: The trained classifier (safetensors).
        index: index.csv.
        root: Folder that the index's paths are relative to.
        output: Map store to write (HDF5).
        compute: Device and threads.

    Raises:
        UserError: The model knows other classes than the index, or an image became unreadable.
    """
    device = setup(compute, seed=0)
    trained = load_cam_model(model)
    known = read_index(index)
    if trained.classes != known.classes:
        raise UserError(
            "the model was trained for other classes than the index has",
            where=model,
            expected=", ".join(known.classes),
            fix="train the CAM model on this index",
        )
    classifier = trained.classifier.to(device).to(memory_format=torch.channels_last)

    def load(record: ImageRecord) -> tuple[ImageRecord, list[Tensor]]:
        return record, views(read_image(root / record.path), config.scales)

    def cam_logits(batch: Tensor) -> Tensor:
        cam: Tensor = classifier(batch)[1]
        return cam

    records = [r for r in known.records if r.tags and set(r.sets) & {"train", "train_aug"}]
    attributes: dict[str, Attribute] = {
        "config": content_hash(to_dict(config)),
        "model": trained.identity,
        "normalisation": "max-min per class",
        "scales": " ".join(map(str, config.scales)),
        "mirror": int(config.mirror),
        "precision": config.precision,
    }
    with (
        torch.inference_mode(),
        autocast(device, config.precision),
        MapStoreWriter(output, classes=known.classes, attributes=attributes) as store,
    ):
        loaded = prefetch(load, records, workers=min(1, compute.workers))
        for record, images in progress(loaded, total=len(records), description="export CAMs"):
            size = (record.height, record.width)
            indices = known.class_indices(record)
            maps = multi_scale_cam(
                cam_logits,
                images,
                size=size,
                class_indices=indices,
                normalisation=classifier.normalisation,
                mirror=config.mirror,
                device=device,
            )
            store.add(record.name, indices, maps.cpu().numpy(), size)
