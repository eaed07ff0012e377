"""Prediction of any pictures, for people: masks, overlays, and how sure the model is."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from wsss.data.crf_config import CrfConfig
from wsss.data.images import IMAGE_SUFFIXES, read_image, voc_palette, write_label
from wsss.errors import UserError
from wsss.files import atomic_file, write_text
from wsss.runtime.compute import InferenceCompute
from wsss.segmentation.config import PredictionConfig
from wsss.segmentation.model_file import SEGMENTATION
from wsss.segmentation.overlay import overlay
from wsss.segmentation.prediction import most_probable, predict_jobs
from wsss.segmentation.refine import refine

CLASSES = "classes.csv"


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
    """Writes NAME.png (labels, VOC palette) and NAME_overlay.png of an image; NAME.npz if asked."""

    crf: CrfConfig | None
    output: Path
    classes: tuple[str, ...]
    probabilities: bool

    def __call__(self, image: Path, name: str, probabilities: npt.NDArray[np.float32]) -> None:
        picture = read_image(image)
        label = most_probable(probabilities)
        if self.crf is not None:
            label = refine(picture, probabilities, self.crf)
        with atomic_file(self.output / f"{name}.png") as temporary:
            write_label(temporary, label)
        with atomic_file(self.output / f"{name}_overlay.png") as temporary:
            drawn = overlay(picture, label, self.classes, probabilities)
            Image.fromarray(drawn).save(temporary, format="PNG")
        if self.probabilities:
            with (
                atomic_file(self.output / f"{name}.npz") as temporary,
                open(temporary, "wb") as handle,  # given a path, NumPy would add a suffix
            ):
                np.savez_compressed(
                    handle,
                    probabilities=probabilities.astype(np.float16),
                    confidence=probabilities.max(axis=0).astype(np.float16),
                    classes=np.array(["background", *self.classes]),
                )


def predict_images(
    *,
    model: Path,
    inputs: Sequence[Path],
    output: Path,
    config: PredictionConfig,
    compute: InferenceCompute,
    probabilities: bool = False,
) -> int:
    """Segment any pictures: NAME.png with the labels, NAME_overlay.png to look at.

    `classes.csv` beside them says which label is which class.

    Args:
        model: Model file; it carries settings and classes, nothing else is needed.
        inputs: Image files, or folders with images in them.
        output: Folder for the results; what else is in it stays.
        config: Scales, mirror, CRF.
        compute: Device, threads, workers.
        probabilities: Also write NAME.npz: `probabilities` (n_labels, H, W) and `confidence`
            (H, W), the highest of them, float16, before the CRF; and the names in `classes`.

    Returns:
        The number of pictures.

    Raises:
        UserError: An input does not exist or cannot be read, or two share a name.
    """
    paths = find_images(inputs)
    _check_outputs(paths, output)
    trained = SEGMENTATION.load(model)
    crf = config.crf_settings if config.crf else None
    finish = _Pictures(crf, output, trained.classes, probabilities)
    jobs = [(path, path.stem) for path in paths]
    predict_jobs(model, jobs, finish, config, compute, few_share_threads=True)
    write_text(output / CLASSES, _classes_table(trained.classes))
    return len(paths)


def _classes_table(classes: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["label", "class", "red", "green", "blue"])
    colours = voc_palette()
    for label, name in enumerate(["background", *classes]):
        writer.writerow([label, name, *colours[label].tolist()])
    return text.getvalue()
