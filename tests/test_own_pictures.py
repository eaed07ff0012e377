"""From a folder of pictures to a run, with the commands that people type."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import REPOSITORY, TINY_RUN, write_tiny_data
from PIL import Image

from wsss.cli import main
from wsss.data.build import build_index
from wsss.data.images import read_label, write_label
from wsss.data.index import read_index
from wsss.maps.background import PowerBackground
from wsss.project.config import load_config


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A working folder with config.yaml, and 12 pictures in a folder a class beside it."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(REPOSITORY / "config.yaml", folder)
    for i in range(12):
        path = tmp_path / "photos" / ("cat" if i % 3 else "dog") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(i).integers(0, 255, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(values).save(path)
    monkeypatch.chdir(folder)
    return folder


def test_init_writes_a_run_and_says_what_it_understood(project, capsys):
    (project / "config.local.yaml").write_text("compute: {device: cpu}  # mine\n")
    assert main(["init", "../photos", "--val", "0.4"]) == 0
    printed = capsys.readouterr().out
    for words in ("pictures: 12", "cat 8, dog 4", "class_folders", "wsss run mine", "val"):
        assert words in printed
    assert "# mine" in (project / "config.local.yaml").read_text()
    run = load_config().run("mine")
    index = {"format": "class_folders", "val_share": 0.4, "max_megapixels": 178.0}
    assert run.settings("index") == index
    assert load_config().root_folder("mine") == (project / "../photos").resolve()
    assert run.parents[0] == "voc-lite-best"
    # Pictures nobody has masks of: their maps choose the background scores.
    assert run.stages["evaluation"].cam_background == "auto"
    assert run.stages["labels"].foreground_threshold == "auto"
    assert run.stages["labels"].background_threshold == "auto"
    assert run.stages["pseudo_labels"].background == "auto"
    # 9 pictures to train on fill one batch of 8: an epoch is an update.
    assert "train 9" in printed and "cam 656 epochs, 656 updates; irn 246" in printed
    assert "time:     about 4" in printed
    lengths = [run.stages[stage].epochs for stage in ("cam", "irn", "segmentation")]
    assert lengths == [656, 246, 1968]
    assert main(["init", "../photos"]) == 2
    assert "there is a run 'mine' already" in capsys.readouterr().err
    # LPCAM's clusters, where a method has features to cluster.
    assert run.stages["cam"].method == "cam" and run.stages["export"].refine == "lpcam"
    assert main(["init", "../photos", "--name", "other", "--method", "acr"]) == 0
    stages = load_config().run("other").stages
    assert (stages["cam"].method, stages["export"].refine) == ("acr", "lpcam")
    assert main(["init", "../photos", "--name", "third", "--method", "recam"]) == 0
    stages = load_config().run("third").stages
    assert (stages["cam"].method, stages["export"].refine) == ("recam", "none")
    assert main(["init", "../photos", "--name", "by-words", "--extends", "clip"]) == 0
    by_words = load_config().run("by-words").stages
    assert by_words["pseudo_labels"].background == PowerBackground(alpha=1)
    assert by_words["evaluation"].cam_background == PowerBackground(alpha=1)


def test_config_check_says_what_the_index_would(project, capsys):
    main(["init", "../photos"])
    capsys.readouterr()
    assert main(["config", "check", "mine"]) == 0
    assert "cat 8, dog 4" in capsys.readouterr().out
    (project / "../photos/cat/1.png").write_bytes(b"no picture")
    assert main(["config", "check", "mine"]) == 2
    assert "cat/1.png" in capsys.readouterr().err


def test_config_check_misses_the_masks_that_a_run_learns_from(project, capsys):
    main(["init", "../photos"])
    text = (project / "config.local.yaml").read_text()
    both = "  upper: {extends: mine, segmentation: {labels: ground_truth}}\n"
    both += "  both: {extends: mine, segmentation: {labels: mixed}}\n"
    (project / "config.local.yaml").write_text(text + both)
    assert main(["config", "check", "mine"]) == 0
    assert main(["config", "check", "upper"]) == 2
    assert "training images have no label map" in capsys.readouterr().err
    # Those of pictures that are held out are none to learn from.
    index = build_index(load_config().run("both").stages["index"], project / "../photos")
    shown = {each.sets[0]: each for each in index.records}
    assert set(shown) == {"train", "val"}
    for name, status in (("val", 2), ("train", 0)):
        record = shown[name]
        mask = np.full((record.height, record.width), index.class_indices(record)[0] + 1, np.uint8)
        path = project / "../photos/masks" / f"{record.name}.png"
        path.parent.mkdir(exist_ok=True)
        write_label(path, mask)
        capsys.readouterr()
        assert main(["config", "check", "both"]) == status
        said = capsys.readouterr().err
        assert ("training pictures has a mask" in said) == bool(status)
        assert ("labels: pseudo" in said) == bool(status)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no folder is named"),
        (["nowhere"], "does not exist"),
        (["../photos", "--method", "magic"], "magic"),
        (["../photos", "--extends", "vok"], "vok"),
        (
            ["../photos", "--val", "0"],
            "no image is in the set 'val', which the run predicts or scores",
        ),
        (["."], "no layout that is known"),
        (["../photos", "--extends", "voc-lite-gt"], "training images have no label map"),
    ],
)
def test_what_init_cannot_do_leaves_the_configuration_alone(project, capsys, words, message):
    assert main(["init", *words]) == 2
    assert message in capsys.readouterr().err
    assert not (project / "config.local.yaml").exists()


def test_init_on_what_is_no_folder(project, capsys):
    Path("loop").symlink_to("loop")
    for place, words in (("config.yaml", "this is no folder"), ("loop", "does not exist")):
        assert main(["init", place]) == 2
        assert words in capsys.readouterr().err


def test_a_working_folder_has_what_snakemake_needs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init", "--project", "work"]) == 0
    for name in ("Snakefile", "config.yaml", "workflow/rules", "profiles/default"):
        assert (tmp_path / "work" / name).exists()
    assert main(["init", "--project", "work"]) == 2
    told = capsys.readouterr().err
    assert "something here already" in told and "cd work  and leave out --project" in told
    assert main(["init", "--project", "."]) == 2
    assert "--project" not in capsys.readouterr().err.partition("something here already")[2]


def test_run_needs_a_working_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copy(REPOSITORY / "config.yaml", tmp_path)
    assert main(["run", "demo"]) == 2
    assert "no Snakefile here" in capsys.readouterr().err


def make_results(folder: Path) -> None:
    """Write the index and pseudo-labels of a run, as if it had been made."""
    from wsss.data.formats.folder import FolderSettings
    from wsss.data.indexing import make_index

    write_tiny_data(folder / "data" / "tiny")
    (folder / "config.local.yaml").write_text(TINY_RUN)
    results = folder / "results" / "tiny"
    results.mkdir(parents=True)
    make_index(config=FolderSettings(), root=folder / "data" / "tiny", output=results / "index.csv")
    (results / "pseudo_labels").mkdir()
    for record in read_index(results / "index.csv").subset("train").records:
        label = np.zeros((record.height, record.width), np.uint8)
        label[5:20, 5:30], label[20:22] = 1, 255
        write_label(results / "pseudo_labels" / f"{record.name}.png", label)


def test_labels_are_exported_and_come_back_as_masks(project, capsys):
    make_results(project)
    capsys.readouterr()
    words = ["export-labels", "results/tiny", "--what", "pseudo-labels", "--format"]
    assert main([*words, "coco"]) == 0
    printed = capsys.readouterr().out
    assert "8 label maps" in printed and "iscrowd 1" in printed
    document = json.loads(Path("results/tiny/export/pseudo-labels-coco.json").read_text())
    assert len(document["images"]) == 8
    assert main([*words, "coco"]) == 2
    assert "something here already" in capsys.readouterr().err
    assert main([*words, "png", "--names", "image_03", "--output", "some"]) == 0
    shutil.copy("some/masks/image_03.png", "data/tiny/masks/image_03.png")
    assert main(["config", "check", "tiny"]) == 0
    assert (read_label("data/tiny/masks/image_03.png") == 255).any()
    assert main([*words, "png", "--names", "image_99"]) == 2
    assert main(["export-labels", "results/tiny", "--what", "predictions", "--format", "voc"]) == 2
    assert "has no predictions yet" in capsys.readouterr().err


def test_a_mask_corrected_in_cvat_is_what_the_mixture_learns_from(project, capsys):
    from wsss.data.formats.folder import FolderSettings
    from wsss.data.indexing import make_masks
    from wsss.segmentation.config import SegmentationConfig
    from wsss.segmentation.labels import find_labels

    make_results(project)
    shutil.rmtree("data/tiny/masks")
    words = ["export-labels", "results/tiny", "--what", "pseudo-labels", "--format", "cvat"]
    assert main([*words, "--output", "all.zip"]) == 0
    # In CVAT somebody makes the first class of one picture larger.
    with zipfile.ZipFile("all.zip") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    changed = "SegmentationClass/image_03.png"
    with Image.open(io.BytesIO(files[changed])) as image:
        corrected = np.array(image.convert("RGB"))
    corrected[:24] = corrected[10, 10]
    file = io.BytesIO()
    Image.fromarray(corrected).save(file, "PNG")
    with zipfile.ZipFile("corrected.zip", "w") as archive:
        for name, content in {**files, changed: file.getvalue()}.items():
            archive.writestr(name, content)
    capsys.readouterr()
    assert main(["import-masks", "results/tiny", "corrected.zip"]) == 0
    printed = capsys.readouterr().out
    assert "as they were exported (--unchanged takes them, too): 7" in printed
    assert "taken: 1," in printed and "labels: mixed" in printed
    mask = read_label("data/tiny/masks/image_03.png")
    assert (mask[:24] == 1).all() and (mask[24:] == 0).all()
    root, index = project / "data/tiny", Path("results/tiny/index.csv")
    make_masks(config=FolderSettings(), root=root, index=index, output=Path("masks.csv"))
    labels = find_labels(
        SegmentationConfig(labels="mixed"),
        read_index(index).training_set(),
        labels=Path("results/tiny/pseudo_labels"),
        masks=Path("masks.csv"),
        root=root,
    )
    found = dict(labels)
    assert found.pop("image_03") == root / "masks/image_03.png"
    assert {path.parent.name for path in found.values()} == {"pseudo_labels"}
    assert main(["import-masks", "results/tiny", "corrected.zip"]) == 0
    assert "there already: 1 (image_03)" in capsys.readouterr().out
    write_label("data/tiny/masks/image_03.png", np.full_like(mask, 2))
    assert main(["import-masks", "results/tiny", "corrected.zip"]) == 2
    assert "masks/image_03.png" in capsys.readouterr().err
    # What masks are for depends on whose they are, and on what the run learns from.
    first, held_out = (read_index(index).subset(name).records[0].name for name in ("train", "val"))
    for name, labels, said in (
        (first, "mixed", "to learn from them, too:"),
        (held_out, "pseudo", "they score, as none"),
    ):
        local = yaml.safe_load(Path("config.local.yaml").read_text())
        local["runs"]["tiny"]["segmentation"] = {"labels": labels}
        Path("config.local.yaml").write_text(yaml.safe_dump(local))
        shutil.rmtree("data/tiny/masks")
        shutil.rmtree("drawn", ignore_errors=True)
        Path("drawn").mkdir()
        record = next(each for each in read_index(index).records if each.name == name)
        value = read_index(index).class_indices(record)[0] + 1
        drawn = np.full((record.height, record.width), value, np.uint8)
        write_label(f"drawn/{name}.png", drawn)
        capsys.readouterr()
        assert main(["import-masks", "results/tiny", "drawn"]) == 0
        assert said in capsys.readouterr().out
    # Data sets that keep their masks elsewhere get none.
    assert main(["import-masks", "results/demo", "corrected.zip"]) == 2
    assert "format 'demo'" in capsys.readouterr().err


def test_a_few_masks_choose_a_score_and_write_it(project, capsys):
    from wsss.maps.map_store import MapStoreWriter

    make_results(project)
    index = read_index("results/tiny/index.csv")
    kept = {"image_00", "image_01", "image_02"}
    for path in Path("data/tiny/masks").iterdir():
        if path.stem not in kept:
            path.unlink()
    with MapStoreWriter(
        Path("results/tiny/walked.h5"), classes=index.classes, attributes={}
    ) as store:
        for record in index.subset("train").records:
            if record.name in kept:
                label = read_label(f"data/tiny/masks/{record.name}.png")[::4, ::4]
            else:
                label = np.zeros(((record.height - 1) // 4 + 1, (record.width - 1) // 4 + 1))
            # Right above 0.6 and no score below: 0.3 and 0.5 lie on the background.
            maps = [np.where(label == i + 1, 0.9, 0.55) for i in index.class_indices(record)]
            store.add(
                record.name,
                list(index.class_indices(record)),
                np.stack(maps),
                (record.height, record.width),
            )
    capsys.readouterr()
    assert main(["thresholds", "results/tiny"]) == 0
    printed = capsys.readouterr().out
    assert "pseudo_labels.background: 3 masks choose" in printed and "--write" in printed
    before = yaml.safe_load(Path("config.local.yaml").read_text())
    assert main(["thresholds", "results/tiny", "--write"]) == 0
    chosen = load_config().run("tiny").stages["pseudo_labels"].background
    assert 0.55 < chosen < 0.9
    after = yaml.safe_load(Path("config.local.yaml").read_text())
    assert after["runs"]["tiny"]["pseudo_labels"]["background"] == chosen
    before["runs"]["tiny"]["pseudo_labels"]["background"] = chosen
    assert after == before
    listed = Path("data/tiny/labels.csv").read_text()
    capsys.readouterr()
    assert main(["thresholds", "results/tiny", "--output", "data/tiny/labels.csv"]) == 2
    assert "no result of this command" in capsys.readouterr().err
    assert Path("data/tiny/labels.csv").read_text() == listed
    for _ in range(2):
        assert main(["thresholds", "results/tiny", "--output", "chosen.json"]) == 0
    after["runs"]["tiny"]["pseudo_labels"]["background"] = "auto"
    Path("config.local.yaml").write_text(yaml.safe_dump(after))
    assert main(["thresholds", "results/tiny"]) == 2
    message = capsys.readouterr().err
    assert "snakemake --cores all results/tiny/walk_thresholds.json" in message
    after["runs"]["tiny"]["pseudo_labels"]["background"] = chosen
    Path("config.local.yaml").write_text(yaml.safe_dump(after))
    shutil.rmtree("data/tiny/masks")
    assert main(["thresholds", "results/tiny"]) == 2
    assert "none of the 8 pictures with maps has a mask" in capsys.readouterr().err
