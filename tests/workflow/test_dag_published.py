"""The published runs' plans, and what is said where their data or weight files are missing."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import Project
from test_dag import EVERYTHING

WEIGHTS = {
    "resnet38d_imagenet": ("weights/resnet_38d.params", "github.com/itijyou/ademxapp"),
    "resnet50_imagenet": ("weights/resnet50.pth", "download.pytorch.org/models/resnet50"),
    "resnet101_imagenet": ("weights/resnet101.pth", "download.pytorch.org/models/resnet101"),
    "deit_small_imagenet": ("weights/deit_small_patch16_224-cd65a155.pth", "deit_small_patch16"),
}
FIRST_USE = {
    "resnet38d_imagenet": "results/voc/cam/model.safetensors",
    "resnet50_imagenet": "results/voc/irn/model.safetensors",
    "resnet101_imagenet": "results/voc-v2/segmentation/model.safetensors",
    "deit_small_imagenet": "results/voc-mct/cam/model.safetensors",
}


def fake_voc(root: Path) -> None:
    """Write what a plan reads: the lists."""
    for folder in ("JPEGImages", "ImageSets/Segmentation", "Annotations", "SegmentationClass"):
        (root / folder).mkdir(parents=True)
    for name in ("train", "train_aug", "val"):
        (root / "ImageSets/Segmentation" / f"{name}.txt").write_text(f"2007_{name}\n")


def fake_coco(root: Path) -> None:
    for folder in ("train2014", "val2014"):
        (root / folder).mkdir(parents=True)
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{folder}.json").write_text("{}")


@cache
def shapes(key: str) -> dict[str, tuple[int, ...]]:
    """The tensors that a weight file has, as a plan looks for them."""
    import timm
    import torch

    from wsss.models.resnet38 import ResNet38

    with torch.device("meta"):
        if key == "resnet38d_imagenet":
            network: Any = ResNet38()
        else:
            name = key.removesuffix("_imagenet")
            names = {"deit_small": "deit_small_patch16_224"}
            network = timm.create_model(names.get(name, name), pretrained=False)
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def fake_weights(project: Project, *, without: str | None = None) -> None:
    """Write files that fit, each tensor one number for all its values."""
    import torch

    (project.folder / "weights").mkdir()
    local = []
    for key, (path, _) in WEIGHTS.items():
        if key == without:
            continue
        # MXNet's format has no such tensors.
        file = Path(path).with_suffix(".pth")
        state = {name: torch.zeros(()).expand(shape) for name, shape in shapes(key).items()}
        torch.save(state, project.folder / file)
        local.append(f"{key}: {file}")
    config = project.folder / "config.local.yaml"
    config.write_text(f"weights: {{{', '.join(local)}}}\n{config.read_text()}")


def failure(project: Project, target: str) -> str:
    done = project.snakemake("-n", target)
    assert done.returncode != 0
    return " ".join(done.stdout.split())


def test_plans_with_data_present(project: Project) -> None:
    fake_voc(project.folder / "data" / "VOC2012")
    fake_coco(project.folder / "data" / "coco")
    fake_weights(project)
    voc = project.planned("results/voc/miou.csv")
    assert voc == {**dict.fromkeys(EVERYTHING, 1), "stage_config": 9, "count_shards": 4}
    coco = project.planned("results/coco/miou.csv")
    assert coco == {**voc, "coco_masks": 1}
    # The second model learns from pseudo-labels of its own run, by the same rules.
    assert project.planned("results/voc-v2/miou.csv")["index"] == 1


@pytest.mark.parametrize(
    ("run", "folder", "source"),
    [
        ("voc", "data/VOC2012", "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/"),
        ("coco", "data/coco", "https://cocodataset.org/#download"),
    ],
)
def test_all_that_is_missing_is_named_at_once_with_its_source(
    project: Project, run: str, folder: str, source: str
) -> None:
    said = failure(project, f"results/{run}/miou.csv")
    needed = [WEIGHTS[key] for key in ("resnet38d_imagenet", "resnet50_imagenet")]
    for words in (
        *(f"data set of run '{run}' is not there", folder, source, f"roots: {{{run}: /path}}"),
        *(word for pair in needed for word in pair),
        "weights: {resnet38d_imagenet: /path, resnet50_imagenet: /path}",
    ):
        assert words in said, words
    assert "resnet101" not in said and "deit" not in said


def test_a_folder_that_is_something_else(project: Project) -> None:
    fake_weights(project)
    (project.folder / "data" / "VOC2012").mkdir(parents=True)
    said = failure(project, "results/voc/miou.csv")
    assert "there is no ImageSets/Segmentation/ here" in said and "host.robots.ox.ac.uk" in said
    (project.folder / "data" / "coco").mkdir(parents=True)
    said = failure(project, "results/coco/miou.csv")
    assert "instances_train2014.json" in said and "cocodataset.org" in said


@pytest.mark.parametrize("key", WEIGHTS)
def test_a_missing_weight_file_is_named_with_its_source(project: Project, key: str) -> None:
    fake_voc(project.folder / "data" / "VOC2012")
    fake_weights(project, without=key)
    path, source = WEIGHTS[key]
    said = failure(project, FIRST_USE[key])
    for words in (f"the weight file '{key}' of run", path, source, f"weights: {{{key}: "):
        assert words in said, words


def test_a_weight_file_of_another_network_is_seen_in_the_plan(project: Project) -> None:
    fake_voc(project.folder / "data" / "VOC2012")
    fake_weights(project)
    local = project.folder / "config.local.yaml"
    local.write_text(
        local.read_text().replace(
            "resnet50_imagenet: weights/resnet50.pth", "resnet50_imagenet: weights/resnet101.pth"
        )
    )
    said = failure(project, "results/voc/miou.csv")
    assert "these weights do not fit the network" in said
    assert "resnet101.pth (runs.voc.irn.backbone)" in said


def test_packages_of_weights_are_looked_into_as_files_are(project: Project) -> None:
    module = project.folder / "wsss" / "models" / "config.py"
    elsewhere = 'Package.file = property(lambda self: Path("no-such-package"))\n'
    module.write_text(f"{module.read_text()}\n\n{elsewhere}")
    assert "no-such-package" in failure(project, "results/demo/cam/model.safetensors")
    assert project.planned("results/tiny/cam/model.safetensors")["cam"] == 1
