"""Real Snakemake: what an edit of the data reruns, and data that no run can start on."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import Project
from PIL import Image

INDEX, MASKS = "results/tiny/index.csv", "results/tiny/masks.csv"
MODEL = "results/tiny-cam/cam/model.safetensors"


def bmp(path: Path, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 255, (64, 60, 3), dtype=np.uint8)
    status = path.stat()
    Image.fromarray(values).save(path, format="BMP")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_pictures_and_masks_of_the_same_size_rerun_what_reads_them(project: Project) -> None:
    data = project.folder / "data" / "tiny"
    bmp(data / "images" / "image_00.png", 0)
    project.make(INDEX, MASKS, "results/tiny-cam/config/cam.json")
    # As if it had been trained.
    (project.folder / MODEL).parent.mkdir(parents=True)
    (project.folder / MODEL).write_text("a model")
    project.make("--touch", MODEL)
    assert project.planned(MODEL, MASKS) == {}
    size = (data / "images" / "image_00.png").stat().st_size
    bmp(data / "images" / "image_00.png", 1)
    assert (data / "images" / "image_00.png").stat().st_size == size
    assert project.planned(MODEL) == {"index": 1, "cam_alone": 1}
    # A start that ends before the training leaves it to be made, though the list is the same.
    index = (project.folder / INDEX).read_bytes()
    project.make(INDEX)
    assert (project.folder / INDEX).read_bytes() == index
    assert project.planned(MODEL) == {"cam_alone": 1}
    mask = data / "masks" / "image_01.png"
    content = mask.read_bytes()
    mask.write_bytes(content[:-1] + b"x")
    assert project.planned(MASKS) == {"masks": 1}
    assert project.planned(INDEX) == {}


def test_masks_of_val_only_score(project: Project) -> None:
    model, listed = "results/tiny-gt/segmentation/model.safetensors", "training_masks/masks"
    data = project.folder / "data" / "tiny"
    (data / "masks" / "image_09.png").unlink()
    # As if all of it had been made.
    for name in (INDEX, MASKS, model, "results/tiny-gt/config/segmentation.json"):
        (project.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (project.folder / name).write_text("as made")
    lists = ["classes.txt", "pictures.sha256", "masks.sha256", "config/index.json"]
    for name in (*lists, f"{listed}.csv", f"{listed}.sha256"):
        (project.folder / "results/tiny" / name).parent.mkdir(exist_ok=True)
        (project.folder / "results/tiny" / name).write_text("blue\nred\n")
    project.make("--touch", model, MASKS)
    (data / "masks" / "image_09.png").write_bytes((data / "masks" / "image_07.png").read_bytes())
    content = (data / "masks" / "image_10.png").read_bytes()
    (data / "masks" / "image_10.png").write_bytes(content[:-1] + b"x")
    assert project.planned(model, MASKS) == {"masks": 1}
    (data / "masks" / "image_07.png").write_bytes(content)
    assert project.planned(model, MASKS) == {"masks": 1, "masks_trained": 1, "segmentation": 1}


def test_classes_are_not_renumbered(project: Project) -> None:
    project.make(INDEX)
    classes = project.folder / "results" / "tiny" / "classes.txt"
    assert classes.read_text() == "blue\nred\n"
    (project.folder / "data" / "tiny" / "classes.txt").write_text("red\nblue\n")
    done = project.snakemake(INDEX)
    assert done.returncode != 0
    for words in ("before:   1 = blue, 2 = red", "now:      1 = red, 2 = blue"):
        assert words in done.stdout
    assert classes.read_text() == "blue\nred\n"
    classes.unlink()
    project.make(INDEX)
    assert classes.read_text() == "red\nblue\n"


@pytest.mark.parametrize("kind", ["pipe", "broken link", "name"])
def test_odd_things_in_a_data_folder_are_said_at_the_index(project: Project, kind: str) -> None:
    images = project.folder / "data" / "tiny" / "images"
    if kind == "pipe":
        os.mkfifo(images / "odd.jpg")
    elif kind == "broken link":
        (images / "odd.jpg").symlink_to("nowhere.jpg")
    else:
        Path(os.fsdecode(os.fsencode(images) + b"/\xe9.jpg")).write_bytes(b"")
    assert "index" in project.planned(INDEX)
    done = project.snakemake(INDEX)
    assert done.returncode != 0 and "Traceback" not in done.stdout
    assert "not listed in labels.csv" in done.stdout
