"""Prediction with a trained model: a split for scoring, and any pictures for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from wsss.data.images import IMAGE_SUFFIXES, read_image, write_label
from wsss.data.index import read_index
from wsss.data.prefetch import prefetch
from wsss.data.shards import WHOLE, Shard
from wsss.errors import UserError
from wsss.evaluation.sampling import sample_records
from wsss.files import atomic_directory, atomic_file
from wsss.models.deeplab import DeepLab
from wsss.segmentation.config import CrfConfig, PredictionConfig
from wsss.segmentation.inference import class_probabilities, load_views
from wsss.segmentation.model_file import load_segmentation_model
from wsss.segmentation.overlay import overlay
from wsss.segmentation.refine import BoundedPool, refine, refine_to_file
from wsss.training.compute import Compute, setup
from wsss.training.progress import progress

# Below this many images a process costs more to start than it saves.
MIN_IMAGES_FOR_PROCESSES = 4


def _probabilities(
    network: DeepLab,
    paths: Sequence[Path],
    config: PredictionConfig,
    compute: Compute,
    device: torch.device,
) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the (n_labels, H, W) probabilities of each image, reading ahead of the device."""
    network.to(device).to(memory_format=torch.channels_last).eval()
    ahead = prefetch(
        lambda path: load_views(str(path), config.scales), paths, workers=compute.workers
    )
    for views in progress(ahead, total=len(paths), description="predict", unit="img"):
        mean = class_probabilities(
            network, views, mirror=config.mirror, precision=config.precision, device=device
        )
        yield mean.cpu().numpy()


def _label(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    return np.asarray(probabilities.argmax(axis=0), dtype=np.uint8)


def predict_split(
    *,
    config: PredictionConfig,
    model: Path,
    index: Path,
    root: Path,
    output: Path,
    output_crf: Path | None,
    compute: Compute,
    split: str | None = None,
    names: Sequence[str] = (),
    count: int | None = None,
    shard: Shard = WHOLE,
) -> None:
    """Write a label PNG for every image of a split.

    Args:
        config: Scales, mirror, CRF settings, split.
        model: Model file.
        index: `index.csv`.
        root: Data root.
        output: Folder of PNGs to write, without CRF.
        output_crf: Folder of PNGs to write, with CRF; None: no CRF.
        compute: Device, threads, workers.
        split: Another split than `config.split`.
        names: Only these images of it.
        count: Only so many, evenly spaced, as the panels choose them.
        shard: The part of those images to predict.

    Raises:
        UserError: No such split or image, or the model's classes are not the index's.
    """
    everything = read_index(index)
    chosen = sample_records(everything, split=split or config.split, names=names, count=count)
    records = shard.of(chosen)
    trained = load_segmentation_model(model)
    if trained.classes != everything.classes:
        raise UserError(
            f"the model knows the classes {', '.join(trained.classes)}",
            where=model,
            expected=f"the index's: {', '.join(everything.classes)}",
            fix="train the segmentation with this index",
        )
    device = setup(compute, 0)
    paths = [root / record.path for record in records]
    workers = compute.workers if len(paths) >= MIN_IMAGES_FOR_PROCESSES else 0
    with ExitStack() as stack:
        folder = stack.enter_context(atomic_directory(output))
        crf_folder, pool = None, None
        if output_crf is not None:
            crf_folder = stack.enter_context(atomic_directory(output_crf))
            pool = stack.enter_context(BoundedPool(workers))
        results = _probabilities(trained.network, paths, config, compute, device)
        for record, path, probabilities in zip(records, paths, results, strict=True):
            target = folder / f"{record.name}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            write_label(target, _label(probabilities))
            if crf_folder is not None and pool is not None:
                target = crf_folder / f"{record.name}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                pool.submit(refine_to_file, path, probabilities, config.crf_settings, target)


def find_images(inputs: Sequence[Path]) -> list[Path]:
    """Return the image files named, and those directly in the folders named, sorted by folder.

    Raises:
        UserError: A path does not exist, a folder has no images, or two images share a name.
    """
    images: list[Path] = []
    for path in inputs:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
            if not inside:
                raise UserError(
                    "this folder has no images directly in it",
                    where=path,
                    expected=f"files ending in {', '.join(IMAGE_SUFFIXES)}",
                )
            images += inside
        elif path.is_file():
            images.append(path)
        else:
            raise UserError("this image or folder does not exist", where=path)
    if not images:
        raise UserError("no images were given", expected="at least one image or folder")
    by_name: dict[str, Path] = {}
    for path in images:
        other = by_name.setdefault(path.stem, path)
        if other is not path:
            raise UserError(
                f"two images would be written as {path.stem}.png",
                where=f"{other} and {path}",
                fix="rename one, or predict them into two folders",
            )
    return images


def _check_outputs(images: Sequence[Path], output: Path) -> None:
    inputs = {path.resolve() for path in images}
    stems = {path.stem for path in images}
    for path in images:
        mask = output / f"{path.stem}.png"
        if mask.resolve() in inputs:
            raise UserError(
                "the result would be written over an input image",
                where=mask,
                fix="choose another output folder",
            )
        if f"{path.stem}_overlay" in stems:
            raise UserError(
                f"the overlay of {path.name} and the mask of another image would share a file",
                where=output / f"{path.stem}_overlay.png",
                fix="predict them into two folders",
            )


def write_prediction(
    image: Path,
    probabilities: npt.NDArray[np.float32],
    crf: CrfConfig | None,
    output: Path,
    classes: Sequence[str],
) -> None:
    """Write NAME.png (labels, VOC palette) and NAME_overlay.png for one image."""
    picture = read_image(image)
    label = _label(probabilities) if crf is None else refine(picture, probabilities, crf)
    with atomic_file(output / f"{image.stem}.png") as temporary:
        write_label(temporary, label)
    with atomic_file(output / f"{image.stem}_overlay.png") as temporary:
        Image.fromarray(overlay(picture, label, classes)).save(temporary, format="PNG")


def predict_images(
    *,
    model: Path,
    inputs: Sequence[Path],
    output: Path,
    config: PredictionConfig,
    compute: Compute,
) -> None:
    """Segment any pictures: NAME.png with the labels, NAME_overlay.png to look at.

    Args:
        model: Model file; it carries settings and classes, nothing else is needed.
        inputs: Image files, or folders with images in them.
        output: Folder for the results; what else is in it stays.
        config: Scales, mirror, CRF.
        compute: Device, threads, workers.

    Raises:
        UserError: An input does not exist or cannot be read, or two share a name.
    """
    paths = find_images(inputs)
    _check_outputs(paths, output)
    trained = load_segmentation_model(model)
    device = setup(compute, 0)
    crf = config.crf_settings if config.crf else None
    workers = compute.workers if crf and len(paths) >= MIN_IMAGES_FOR_PROCESSES else 0
    with BoundedPool(workers) as pool:
        results = _probabilities(trained.network, paths, config, compute, device)
        for path, probabilities in zip(paths, results, strict=True):
            pool.submit(write_prediction, path, probabilities, crf, output, trained.classes)
