"""The examples of docs/extending.md, run as they stand there, as plug-ins outside the package."""

from __future__ import annotations

import json
import re

import h5py
import numpy as np
import yaml
from conftest import REPOSITORY, TINY_RUN, Project
from PIL import Image
from safetensors import safe_open

PAGE = (REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8")
# A file of an example: a block whose first line is its name.
FILE = re.compile(r"^```\w+\n# (?P<name>\S+\.(?:py|yaml))\n(?P<text>.*?)^```$", re.M | re.S)


def section(title: str) -> str:
    """Return a section of the page."""
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def install(project: Project, title: str) -> None:
    """Write a section's modules into the project, and join its settings to those of `tiny`."""
    local = yaml.safe_load(TINY_RUN)
    for file in FILE.finditer(section(title)):
        if file["name"] == "config.yaml":
            for key, value in yaml.safe_load(file["text"]).items():
                local[key] = {**local.get(key, {}), **value} if isinstance(value, dict) else value
        else:
            (project.folder / file["name"]).write_text(file["text"])
    (project.folder / "config.local.yaml").write_text(yaml.safe_dump(local))


def test_a_data_format(project: Project) -> None:
    install(project, "A data format")
    for number, place in enumerate(("train/dog/rex", "train/cat/mia", "val/cat/tom")):
        path = project.folder / "pets" / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 30 + number, 3), 90, np.uint8)).save(path)
    (project.folder / "pets" / "masks").mkdir()
    mask = Image.fromarray(np.full((20, 32), 1, np.uint8))
    mask.save(project.folder / "pets" / "masks" / "tom.png")
    targets = ("results/pets/index.csv", "results/pets/masks.csv")
    project.make(*targets)
    index, masks = ((project.folder / path).read_text().splitlines() for path in targets)
    assert index[1:] == [
        "mia,train,cat,31,20,train/cat/mia.png",
        "rex,train,dog,30,20,train/dog/rex.png",
        "tom,val,cat,32,20,val/cat/tom.png",
    ]
    assert masks[1:] == ["tom,masks/tom.png"]
    assert project.planned(*targets) == {}
    # What it says of the data decides what is made again.
    mask.save(project.folder / "pets" / "masks" / "mia.png")
    assert set(project.planned(*targets)) == {"masks"}
    mask.save(project.folder / "pets" / "train" / "dog" / "lea.png")
    assert {"index", "masks"} <= set(project.planned(*targets))


def test_a_cam_method(project: Project) -> None:
    install(project, "A CAM method")
    model = "results/soft/cam/model.safetensors"
    project.make(model, "results/tiny-cam/cam/model.safetensors", "results/soft/cams.h5")
    with safe_open(project.folder / model, "np") as file:
        settings = json.loads(file.metadata()["wsss"])["settings"]
    assert (settings["method"], settings["smoothing"]) == ("smoothed", 0.2)
    with h5py.File(project.folder / "results" / "soft" / "cams.h5") as store:
        assert len(store["maps"]) == 8
    ours, plain = (_first_loss(project, run) for run in ("soft", "tiny-cam"))
    assert ours != plain and abs(ours - plain) < 0.2


def _first_loss(project: Project, run: str) -> float:
    lines = (project.folder / "results" / run / "cam/work/metrics.jsonl").read_text().splitlines()
    return float(json.loads(lines[0])["loss"])


def test_a_segmentation_head(project: Project) -> None:
    install(project, "A segmentation head")
    project.make("results/fcn/evaluation/segmentation.csv")
    model = project.folder / "results" / "fcn" / "segmentation" / "model.safetensors"
    with safe_open(model, "np") as file:
        shapes = [file.get_tensor(f"head.{name}.weight").shape for name in ("hidden", "classifier")]
    assert (shapes[0][0], shapes[1]) == (6, (3, 6, 1, 1))


def test_a_backbone(project: Project) -> None:
    install(project, "A backbone")
    model = "results/strided/segmentation/model.safetensors"
    project.make(model)
    with safe_open(project.folder / model, "np") as file:
        assert file.get_tensor("backbone.body.layers.2.0.weight").shape == (64, 32, 3, 3)
        settings = json.loads(file.metadata()["wsss"])["settings"]
    assert settings["backbone"]["name"] == "strided"


def test_every_file_of_the_page_is_run() -> None:
    tested = "A data format", "A CAM method", "A segmentation head", "A backbone"
    found = {file["name"] for file in FILE.finditer(PAGE)}
    run = {file["name"] for title in tested for file in FILE.finditer(section(title))}
    assert found == run
