"""CAM training stage: a classifier, alone or against a reconstructor, into one model file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wsss.cam.config import TrainedSettings
from wsss.cam.erasing import check_given, read_anchor
from wsss.cam.methods.plain_config import ConvolutionalSettings
from wsss.cam.model_file import CLASSIFIER, RECONSTRUCTOR, cam_task
from wsss.cam.training_pictures import cam_pictures
from wsss.data.augment import rand_augment, random_erasing
from wsss.data.images import read_sized_image
from wsss.data.index import Index, contents_hash, read_index
from wsss.data.transforms import image_to_tensor, random_crop, random_flip, random_long_side
from wsss.errors import UserError
from wsss.files import content_hash
from wsss.provenance import closure_hash
from wsss.runtime.compute import Compute, setup
from wsss.runtime.processes import Processes
from wsss.runtime.registry import chosen_modules
from wsss.runtime.settings import to_dict
from wsss.training.checkpoint import initial_weights
from wsss.training.loop import finish, train


class ClassificationImages:
    """Augmented crops with image-level labels.

    Each sample: `image` (3, S, S) float32 in 0..1, `valid` (1, S, S) bool, `label` (C,) float32,
    `name`.
    """

    def __init__(self, index: Index, root: Path, config: TrainedSettings) -> None:
        self._records, self._root, self._config = index.records, root, config
        self._index = index
        self.names = index.records.names

    def load(self, position: int, rng: np.random.Generator) -> dict[str, Any]:
        """Resize the long side, mirror, RandAugment, crop and erase, each at random."""
        config, record = self._config, self._records[position]
        label = torch.zeros(len(self._index.classes))
        label[list(self._index.class_indices(record))] = 1
        image = image_to_tensor(read_sized_image(self._root, record))
        image, _ = random_long_side(
            image, None, config.long_side_min_px, config.long_side_max_px, rng
        )
        image, _ = random_flip(image, None, rng)
        image = rand_augment(
            image,
            rng,
            operations=config.rand_augment_operations,
            magnitude=config.rand_augment_magnitude,
        )
        crop = random_crop(image, None, config.crop_px, rng)
        return {
            "image": random_erasing(crop.image, rng, config.erasing),
            "valid": crop.valid,
            "label": label,
            "name": record.name,
        }


def train_cam(
    *,
    config: TrainedSettings,
    index: Path,
    root: Path,
    output: Path,
    work_dir: Path,
    compute: Compute,
    weights_file: Path | None = None,
    transformer_weights_file: Path | None = None,
    anchor_model: Path | None = None,
    reconstructor_output: Path | None = None,
) -> None:
    """Train the classifier that CAMs are read from.

    Args:
        config: Method, networks, schedule, augmentation.
        index: index.csv; its training set's images and tags are used, nothing else.
        root: Folder that the index's paths are relative to.
        output: Model file to write (safetensors).
        work_dir: Checkpoint and metrics.
        compute: Device, threads, workers.
        weights_file: The file that `config.backbone.weights` names, where it names one.
        transformer_weights_file: The file that `config.vit.weights` names, where it names one.
        anchor_model: The trained classifier of the run that the settings' `anchor_from` names,
            which stays as it is.
        reconstructor_output: Model file to write the reconstructor to (safetensors), for figures;
            None: it is not kept.

    Raises:
        UserError: A reconstructor is to be written, and the method has none; or a frozen
            classifier is missing, or not asked for.
    """
    device = setup(compute, config.seed, trains=True)
    known = read_index(index).training_set()
    images = ClassificationImages(known, root, config)
    anchor = None if anchor_model is None else read_anchor(anchor_model, known.classes)
    check_given(anchor, config.anchor_run)
    task = cam_task(
        config,
        len(known.classes),
        device=device,
        weights_file=weights_file,
        transformer_weights_file=transformer_weights_file,
        **({} if anchor is None else {"anchor": anchor}),
    )
    reconstructor = task.modules.get("reconstructor")
    if reconstructor_output is not None and reconstructor is None:
        raise UserError(
            f"the CAM method '{config.method}' has no reconstructor to write",
            where=reconstructor_output,
            fix="leave --reconstructor-output away, or set cam.method to acr or acr-vit",
        )
    modules = {*chosen_modules(config), *(anchor.modules if anchor else ())}
    identity = {
        "config": content_hash(to_dict(config)),
        "classes": content_hash(known.classes),
        "images": content_hash([[record.name, *record.tags] for record in known.records]),
        "pictures": contents_hash(index, known),
        "code": closure_hash(__name__, *sorted(modules)),
        **({} if anchor is None else {"anchor": anchor.digest}),
        **initial_weights(
            config,
            task.modules,
            weights_file=weights_file,
            transformer_weights_file=transformer_weights_file,
        ),
    }
    summary = train(
        task,
        images,
        epochs=config.epochs,
        batch_size=config.batch_size,
        seed=config.seed,
        compute=compute,
        work_dir=work_dir,
        identity=identity,
        stage="cam",
        description=f"train CAM ({config.method})",
        pictures=cam_pictures(task.classifier, images, known.classes),
        # Where there is no such setting, no optimiser follows the poly schedule.
        lr_power=config.lr_power if isinstance(config, ConvolutionalSettings) else 1.0,
        schedule=task.schedules,
    )
    if not Processes.here().is_main:
        return
    told: dict[str, Any] = {"classes": known.classes, "training": asdict(summary)}
    if reconstructor_output is not None and reconstructor is not None:
        RECONSTRUCTOR.save(reconstructor_output, reconstructor, config, **told)
    CLASSIFIER.save(output, task.classifier, config, **told)
    finish(work_dir)
