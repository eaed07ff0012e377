"""Prediction with a trained model: a split for scoring, and any pictures for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from wsss.data.crf_config import CrfConfig
from wsss.data.images import IMAGE_SUFFIXES, read_image, write_label
from wsss.data.index import read_index
from wsss.data.sampling import sample_records
from wsss.errors import UserError
from wsss.files import atomic_directory, atomic_file
from wsss.maps.shards import WHOLE, Shard
from wsss.models.deeplab import DeepLab
from wsss.models.model_file import kept
from wsss.runtime.compute import InferenceCompute, Precision, setup
from wsss.runtime.pool import ordered_map
from wsss.runtime.progress import progress
from wsss.segmentation.config import PredictionConfig
from wsss.segmentation.inference import Segmenter, class_probabilities, load_views, segmenter
from wsss.segmentation.model_file import SEGMENTATION
from wsss.segmentation.overlay import overlay
from wsss.segmentation.refine import refine

# Below this many images a process costs more to start than it saves.
MIN_IMAGES_FOR_PROCESSES = 4
# Images handed to a process ahead of the one awaited; on a GPU their probabilities with them.
AHEAD = 2

# An image file, and the name that its results get.
Job = tuple[Path, str]


class Finish(Protocol):
    """What is left to do to an image once its probabilities are there; picklable."""

    def __call__(self, image: Path, name: str, probabilities: npt.NDArray[np.float32]) -> None:
        """Refine, draw, write."""


def _cpu_segmenter(model: Path, precision: Precision) -> Segmenter:
    network = SEGMENTATION.load(model).network
    return segmenter(network, precision=precision, device=torch.device("cpu"))


@dataclass(frozen=True)
class _OnCpu:
    """All of an image's work."""

    model: Path
    config: PredictionConfig
    finish: Finish

    def __call__(self, job: Job) -> None:
        image, name = job
        segments = kept(_cpu_segmenter, self.model, self.config.precision)
        views = load_views(str(image), self.config.scales)
        found = class_probabilities(segments, views, mirror=self.config.mirror)
        self.finish(image, name, found.numpy())


@dataclass(frozen=True)
class _AfterGpu:
    """What is left of an image's work."""

    finish: Finish

    def __call__(self, item: tuple[Job, npt.NDArray[np.float32]]) -> None:
        (image, name), probabilities = item
        self.finish(image, name, probabilities)


def _on_gpu(
    network: DeepLab,
    jobs: Sequence[Job],
    config: PredictionConfig,
    compute: InferenceCompute,
    device: torch.device,
) -> Iterator[tuple[Job, npt.NDArray[np.float32]]]:
    """Yield the (n_labels, H, W) probabilities of each image, reading ahead of the device."""
    segments = segmenter(network, precision=config.precision, device=device)
    ahead = ordered_map(
        lambda job: load_views(str(job[0]), config.scales), jobs, compute.workers, threads=True
    )
    for job, views in zip(jobs, ahead, strict=True):
        found = class_probabilities(segments, views, mirror=config.mirror)
        yield job, found.cpu().numpy()


def _predict(
    model: Path,
    jobs: Sequence[Job],
    finish: Finish,
    config: PredictionConfig,
    compute: InferenceCompute,
    *,
    few_share_threads: bool,
) -> None:
    """Predict images and finish them.

    Args:
        model: Model file.
        jobs: The images.
        finish: What to do with the probabilities.
        config: Scales, mirror, precision.
        compute: Device, threads, workers. On a CPU `workers` processes of one thread each share
            the images; the results do not depend on their number.
        few_share_threads: Let few images have the threads of this process one after the other,
            which is quicker; their rounding then follows from the number of threads.
    """
    device = setup(compute, 0)
    few = len(jobs) < MIN_IMAGES_FOR_PROCESSES
    workers = 0 if few else compute.workers
    finished: Iterator[None]
    if device.type == "cuda":
        items = _on_gpu(SEGMENTATION.load(model).network, jobs, config, compute, device)
        finished = ordered_map(_AfterGpu(finish), items, workers, ahead=AHEAD * workers)
    elif few and few_share_threads:
        finished = map(_OnCpu(model, config, finish), jobs)
    else:
        # All of an image's work in one process: the network in this one, its threads beside the
        # processes of the CRF, would make both wait for each other.
        finished = ordered_map(_OnCpu(model, config, finish), jobs, workers, ahead=AHEAD * workers)
    for _ in progress(finished, total=len(jobs), description="predict", unit="img"):
        pass


def _label(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    return np.asarray(probabilities.argmax(axis=0), dtype=np.uint8)


@dataclass(frozen=True)
class _SplitLabels:
    """Writes an image's label PNGs: of the network, and after the CRF."""

    crf: CrfConfig
    folder: Path
    crf_folder: Path | None

    def __call__(self, image: Path, name: str, probabilities: npt.NDArray[np.float32]) -> None:
        self._write(self.folder, name, _label(probabilities))
        if self.crf_folder is not None:
            self._write(self.crf_folder, name, refine(read_image(image), probabilities, self.crf))

    def _write(self, folder: Path, name: str, label: npt.NDArray[np.uint8]) -> None:
        target = folder / f"{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        write_label(target, label)


def predict_split(
    *,
    config: PredictionConfig,
    model: Path,
    index: Path,
    root: Path,
    output: Path,
    output_crf: Path | None = None,
    compute: InferenceCompute,
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
    trained = SEGMENTATION.load(model)
    if trained.classes != everything.classes:
        raise UserError(
            f"the model knows the classes {', '.join(trained.classes)}",
            where=model,
            expected=f"the index's: {', '.join(everything.classes)}",
            fix="train the segmentation with this index",
        )
    jobs = [(root / record.path, record.name) for record in records]
    with ExitStack() as stack:
        folder = stack.enter_context(atomic_directory(output))
        crf_folder = None
        if output_crf is not None:
            crf_folder = stack.enter_context(atomic_directory(output_crf))
        finish = _SplitLabels(config.crf_settings, folder, crf_folder)
        # However few its images, a shard gives what the whole split gives.
        _predict(model, jobs, finish, config, compute, few_share_threads=False)


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


@dataclass(frozen=True)
class _Pictures:
    """Writes NAME.png (labels, VOC palette) and NAME_overlay.png of an image."""

    crf: CrfConfig | None
    output: Path
    classes: tuple[str, ...]

    def __call__(self, image: Path, name: str, probabilities: npt.NDArray[np.float32]) -> None:
        picture = read_image(image)
        label = _label(probabilities)
        if self.crf is not None:
            label = refine(picture, probabilities, self.crf)
        with atomic_file(self.output / f"{name}.png") as temporary:
            write_label(temporary, label)
        with atomic_file(self.output / f"{name}_overlay.png") as temporary:
            Image.fromarray(overlay(picture, label, self.classes)).save(temporary, format="PNG")


def predict_images(
    *,
    model: Path,
    inputs: Sequence[Path],
    output: Path,
    config: PredictionConfig,
    compute: InferenceCompute,
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
    trained = SEGMENTATION.load(model)
    finish = _Pictures(config.crf_settings if config.crf else None, output, trained.classes)
    jobs = [(path, path.stem) for path in paths]
    _predict(model, jobs, finish, config, compute, few_share_threads=True)
