"""Prediction of any pictures, for people: masks, overlays, and how sure the model is."""

from __future__ import annotations

import csv
import io
import os
import sys
import zipfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from wsss.data.crf_config import CrfConfig
from wsss.data.images import (
    IMAGE_SUFFIXES,
    software_of,
    voc_palette,
    write_label,
    written_by,
)
from wsss.errors import PartlyDone, UserError
from wsss.files import atomic_file, write_text
from wsss.runtime.compute import InferenceCompute
from wsss.segmentation.config import PredictionConfig
from wsss.segmentation.model_file import SEGMENTATION
from wsss.segmentation.overlay import overlay
from wsss.segmentation.prediction import Job, most_probable, predict_jobs
from wsss.segmentation.refine import refine

CLASSES = "classes.csv"
SOFTWARE = "wsss predict"
"""What the pictures that `wsss predict` makes say of themselves."""

_COLUMNS = ("label", "class", "red", "green", "blue")
_ARRAYS = ("probabilities", "confidence", "classes")


def find_images(inputs: Sequence[Path]) -> list[Path]:
    """Return the image files named, and those directly in the folders named, each once, by folder.

    Of a folder, hidden files (`._a.jpg` of a Mac) and what `predict_images` wrote are left out.

    Raises:
        UserError: A path does not exist, a folder has no images, or two images share a name.
    """
    images: list[Path] = []
    for path in inputs:
        if path.is_dir():
            found = sorted(
                p
                for p in path.iterdir()
                if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != "." and p.is_file()
            )
            inside = [p for p in found if software_of(p) != SOFTWARE]
            if len(inside) < len(found):
                own = len(found) - len(inside)
                print(f"{path}: {own} pictures are predictions, and are no input", file=sys.stderr)
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
        # A picture that is named by itself and by its folder is one.
        if other is not path and other.resolve() != path.resolve():
            raise UserError(
                f"two images would be written as {path.stem}.png",
                where=f"{other} and {path}",
                fix="rename one, or predict them into two folders",
            )
    return list(by_name.values())


def _check_outputs(images: Sequence[Path], output: Path, *, probabilities: bool) -> None:
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
        results = [mask, output / f"{path.stem}_overlay.png"]
        ours = [file for file in results if software_of(file) == SOFTWARE]
        others = [file for file in results if os.path.lexists(file) and file not in ours]
        archive = output / f"{path.stem}.npz"
        if probabilities and os.path.lexists(archive) and not _is_archive(archive):
            others.append(archive)
        _refuse(others)
        if f"{path.stem}_overlay" in stems:
            raise UserError(
                f"the overlay of {path.name} and the mask of another image would share a file",
                where=output / f"{path.stem}_overlay.png",
                fix="predict them into two folders",
            )

    table = output / CLASSES
    if os.path.lexists(table) and _first_line(table) != ",".join(_COLUMNS):
        _refuse([table])


def _check_classes(stems: Collection[str], output: Path, classes: str) -> None:
    """Check that what other starts have left in a folder has the classes of this one.

    Raises:
        UserError: It has not, and the table of the classes would be that of some alone.
    """
    table = output / CLASSES
    if not table.is_file() or table.read_text(encoding="utf-8") == classes:
        return
    written = {f"{stem}{ending}.png" for stem in stems for ending in ("", "_overlay")}
    for path in sorted(output.glob("*.png")):
        if path.name not in written and software_of(path) == SOFTWARE:
            raise UserError(
                f"predictions with other classes are in this folder, such as {path.name}: "
                f"{CLASSES} can say only once what a label is",
                where=table,
                fix="choose another output folder, or move those away",
            )


def _refuse(others: Sequence[Path]) -> None:
    if others:
        raise UserError(
            "the result would be written over a file that is no result of this command",
            where=others[0],
            fix="choose another output folder, or move that file away",
        )


def _is_archive(path: Path) -> bool:
    """Say whether a file holds the arrays that this command writes, and no others."""
    try:
        with zipfile.ZipFile(path) as archive:
            return set(archive.namelist()) == {f"{name}.npy" for name in _ARRAYS}
    except (OSError, zipfile.BadZipFile):
        return False


def _first_line(path: Path) -> str:
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.readline(200).rstrip("\n")
    except (OSError, UnicodeDecodeError):
        return ""


@dataclass(frozen=True)
class _Pictures:
    """Writes NAME.png (labels, VOC palette) and NAME_overlay.png of an image; NAME.npz if asked."""

    crf: CrfConfig | None
    output: Path
    classes: tuple[str, ...]
    probabilities: bool

    def __call__(self, job: Job, probabilities: npt.NDArray[np.float32]) -> None:
        name, picture = job.name, job.picture
        label = most_probable(probabilities)
        if self.crf is not None:
            label = refine(picture, probabilities, self.crf)
        archive = self.output / f"{name}.npz"
        if _is_archive(archive):
            archive.unlink()  # beside the new mask it would pass for that one's
        with atomic_file(self.output / f"{name}.png") as temporary:
            write_label(temporary, label, written_by(SOFTWARE))
        with atomic_file(self.output / f"{name}_overlay.png") as temporary:
            drawn = overlay(picture, label, self.classes, probabilities)
            Image.fromarray(drawn).save(temporary, format="PNG", pnginfo=written_by(SOFTWARE))
        if self.probabilities:
            with (
                atomic_file(archive) as temporary,
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

    `classes.csv` beside them says which label is which class. What an earlier start left of a
    picture goes, its NAME.npz too.

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
        PartlyDone: Some pictures cannot be read; the others are done.
        UserError: An input does not exist, none can be read, or two share a name.
    """
    paths = find_images(inputs)
    _check_outputs(paths, output, probabilities=probabilities)
    trained = SEGMENTATION.load(model)
    table = _classes_table(trained.classes)
    _check_classes({path.stem for path in paths}, output, table)
    crf = config.crf_settings if config.crf else None
    finish = _Pictures(crf, output, trained.classes, probabilities)
    jobs = [Job(path, path.stem) for path in paths]
    broken = predict_jobs(
        model, jobs, finish, config, compute, few_share_threads=True, lenient=True
    )
    if len(broken) < len(jobs):
        write_text(output / CLASSES, table)
    if broken:
        done = len(broken) < len(jobs)
        lines = [f"{len(broken)} of {len(jobs)} pictures cannot be read"]
        lines[0] += "; the others are done" if done else ""
        lines += [f"  - {path}: {reason}" for path, reason in broken]
        raise (PartlyDone if done else UserError)(
            "\n".join(lines), fix="mend these files, or leave them out"
        )
    return len(paths)


def _classes_table(classes: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    colours = voc_palette()
    for label, name in enumerate(["background", *classes]):
        writer.writerow([label, name, *colours[label].tolist()])
    return text.getvalue()
