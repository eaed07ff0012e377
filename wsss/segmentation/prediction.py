"""Prediction with a trained model: images to probabilities, and a split's label PNGs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from wsss.data.crf_config import CrfConfig
from wsss.data.images import probe_image, read_image, write_named
from wsss.data.index import read_index
from wsss.data.sampling import sample_records, shown_records
from wsss.errors import UserError, with_help
from wsss.files import atomic_directory
from wsss.maps.shards import WHOLE, Shard
from wsss.models.deeplab import DeepLab
from wsss.models.model_file import kept
from wsss.runtime.compute import InferenceCompute, setup
from wsss.runtime.lazy import Made
from wsss.runtime.pool import ordered_map
from wsss.runtime.progress import progress
from wsss.runtime.settings import Precision
from wsss.segmentation.config import PredictionConfig, ViewSettings
from wsss.segmentation.inference import (
    Segmenter,
    Views,
    class_probabilities,
    segmenter,
    views_of,
)
from wsss.segmentation.model_file import SEGMENTATION
from wsss.segmentation.refine import refine

# Below this many images a process costs more to start than it saves.
MIN_IMAGES_FOR_PROCESSES = 4
# Images handed to a process ahead of the one awaited; on a GPU their probabilities with them.
AHEAD = 2

# A picture, and why it cannot be read.
Unreadable = tuple[Path, str]


class Job(NamedTuple):
    """An image to predict.

    Attributes:
        image: Its file.
        name: The name that its results get.
        labels: Those whose probabilities are wanted, in this order; None: all.
        size: (width, height) that it must have; None: any.
    """

    image: Path
    name: str
    labels: tuple[int, ...] | None = None
    size: tuple[int, int] | None = None

    @property
    def picture(self) -> npt.NDArray[np.uint8]:
        """The image (H, W, 3) uint8, read from its file."""
        return read_image(self.image, self.size)


class Finish(Protocol):
    """What is left to do to an image once its probabilities are there; picklable."""

    def __call__(self, job: Job, probabilities: npt.NDArray[np.float32]) -> None:
        """Refine, draw, write."""


def _cpu_segmenter(model: Path, precision: Precision, window_px: int | None) -> Segmenter:
    network = SEGMENTATION.load(model).network
    device = torch.device("cpu")
    return segmenter(network, precision=precision, device=device, window_px=window_px)


def _wanted(
    segments: Segmenter, views: Views, job: Job, config: ViewSettings
) -> npt.NDArray[np.float32]:
    found = class_probabilities(segments, views, mirror=config.mirror)
    # Chosen on the device: what nobody wants is not carried about.
    chosen = found if job.labels is None else found[list(job.labels)]
    probabilities: npt.NDArray[np.float32] = chosen.cpu().numpy()
    return probabilities


@dataclass(frozen=True)
class _OnCpu:
    """All of an image's work."""

    model: Path
    config: ViewSettings
    finish: Finish

    def __call__(self, job: Job) -> None:
        config = self.config
        segments = kept(_cpu_segmenter, self.model, config.precision, config.window_px)
        views = views_of(job.picture, config.scales, config.long_side_limit_px)
        self.finish(job, _wanted(segments, views, job, config))


@dataclass(frozen=True)
class _Lenient:
    """Returns a picture that cannot be read, with the reason, where `work` raises."""

    work: Callable[[Job], None]

    def __call__(self, job: Job) -> Unreadable | None:
        try:
            probe_image(job.image)  # nobody has looked at it before, as the index stage does
            self.work(job)
        except UserError as error:
            return _unreadable(job, error)
        return None


def _unreadable(job: Job, error: UserError) -> Unreadable:
    """Return the picture and what is wrong with it; what is no fault of the picture is raised."""
    if error.where != str(job.image):
        raise error
    return job.image, with_help(error)


@dataclass(frozen=True)
class _AfterGpu:
    """What is left of an image's work."""

    finish: Finish

    def __call__(self, item: tuple[Job, npt.NDArray[np.float32]]) -> None:
        self.finish(*item)


def _on_gpu(
    network: DeepLab,
    jobs: Sequence[Job],
    config: ViewSettings,
    compute: InferenceCompute,
    device: torch.device,
    unreadable: list[Unreadable] | None,
) -> Iterator[tuple[Job, npt.NDArray[np.float32]]]:
    """Yield the (L, H, W) probabilities of each image's wanted labels, reading ahead of the device.

    Pictures that cannot be read go to `unreadable`, where there is such a list.
    """
    segments = segmenter(
        network, precision=config.precision, device=device, window_px=config.window_px
    )

    def load(job: Job) -> Views | Unreadable:
        try:
            if unreadable is not None:
                probe_image(job.image)
            return views_of(job.picture, config.scales, config.long_side_limit_px)
        except UserError as error:
            if unreadable is None:
                raise
            return _unreadable(job, error)

    ahead = ordered_map(load, jobs, compute.workers, threads=True)
    for job, views in zip(jobs, ahead, strict=True):
        if isinstance(views, tuple):
            assert unreadable is not None
            unreadable.append(views)
            continue
        yield job, _wanted(segments, views, job, config)


def predict_jobs(
    model: Path,
    jobs: Sequence[Job],
    finish: Finish,
    config: ViewSettings,
    compute: InferenceCompute,
    *,
    few_share_threads: bool,
    lenient: bool = False,
) -> list[Unreadable]:
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
        lenient: Go on after a picture that cannot be read.

    Returns:
        Those pictures.
    """
    device = setup(compute, 0)
    few = len(jobs) < MIN_IMAGES_FOR_PROCESSES
    workers = 0 if few else compute.workers
    on_cpu = _OnCpu(model, config, finish)
    work = _Lenient(on_cpu) if lenient else on_cpu
    unreadable: list[Unreadable] = []
    finished: Iterator[Unreadable | None]
    if device.type == "cuda":
        network = SEGMENTATION.load(model).network
        kept_apart = unreadable if lenient else None
        items = _on_gpu(network, jobs, config, compute, device, kept_apart)
        finished = ordered_map(_AfterGpu(finish), items, workers, ahead=AHEAD * workers)
    elif few and few_share_threads:
        finished = map(work, jobs)
    else:
        # All of an image's work in one process: the network in this one, its threads beside the
        # processes of the CRF, would make both wait for each other.
        finished = ordered_map(work, jobs, workers, ahead=AHEAD * workers)
    for broken in progress(finished, total=len(jobs), description="predict", unit="img"):
        if broken is not None:
            unreadable.append(broken)
    return unreadable


def most_probable(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Return (H, W) uint8 labels from (n_labels, H, W) probabilities."""
    return np.asarray(probabilities.argmax(axis=0), dtype=np.uint8)


@dataclass(frozen=True)
class _SplitLabels:
    """Writes an image's label PNGs: of the network, and after the CRF."""

    crf: CrfConfig
    folder: Path
    crf_folder: Path | None

    def __call__(self, job: Job, probabilities: npt.NDArray[np.float32]) -> None:
        write_named(self.folder, job.name, most_probable(probabilities))
        if self.crf_folder is not None:
            refined = refine(job.picture, probabilities, self.crf)
            write_named(self.crf_folder, job.name, refined)


def check_classes(model: Path, classes: tuple[str, ...]) -> None:
    """Check that a model predicts an index's classes.

    Raises:
        UserError: It knows others.
    """
    known = SEGMENTATION.classes(model)
    if known != classes:
        raise UserError(
            f"the model knows the classes {', '.join(known)}",
            where=model,
            expected=f"the index's: {', '.join(classes)}",
            fix="train the segmentation with this index",
        )


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
        count: Only so many, evenly spaced, as the panels choose them; beside `names`, which may
            then be of other splits, too: so many where none is of this one.
        shard: The part of those images to predict.

    Raises:
        UserError: No such split or image, or the model's classes are not the index's.
    """
    everything = read_index(index)
    where = split or config.split
    chosen = (
        sample_records(everything, split=where, names=names)
        if count is None
        else shown_records(everything, split=where, names=names, count=count)
    )
    records = shard.of(chosen)
    check_classes(model, everything.classes)
    jobs = Made(
        lambda record: Job(root / record.path, record.name, size=(record.width, record.height)),
        records,
    )
    with ExitStack() as stack:
        folder = stack.enter_context(atomic_directory(output))
        crf_folder = None
        if output_crf is not None:
            crf_folder = stack.enter_context(atomic_directory(output_crf))
        finish = _SplitLabels(config.crf_settings, folder, crf_folder)
        # However few its images, a shard gives what the whole split gives.
        predict_jobs(model, jobs, finish, config, compute, few_share_threads=False)
