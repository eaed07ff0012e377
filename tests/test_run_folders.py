"""Commands on runs, given whatever people name a run by, and what is none or not there yet."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_RUN, write_tiny_data
from segmentation_helpers import tiny_config

from wsss.cli import main
from wsss.data.formats.folder import FolderSettings
from wsss.data.images import write_label
from wsss.data.index import read_index
from wsss.data.indexing import make_index
from wsss.evaluation.tables import COLUMNS
from wsss.files import write_json
from wsss.maps.map_store import MapStoreWriter
from wsss.models.backbones import build_backbone
from wsss.models.deeplab import DeepLab
from wsss.project import methods
from wsss.project.ablations import INFIX
from wsss.project.config import load_config
from wsss.project.file import STAGES
from wsss.project.run_folders import TABLES, name_given
from wsss.segmentation.model_file import SEGMENTATION

MORE = """
  tiny-half: {extends: tiny}
  tiny-new: {extends: tiny}
  tiny-rows:
    extends: tiny
    stop_after: cam
    ablations: {variants: {wide: {cam: {epochs: 2}}, plain: tiny-cam}}
    methods: {seeds: [0, 1], rows: {own: {}}}
"""
ROW, SEED = "tiny-rows/ablation/wide", "tiny-rows/methods/own.seed-1"
COMMANDS: dict[str, Callable[[str], list[str]]] = {
    "compare": lambda run: [run, "results/tiny-gt"],
    "table": lambda run: [run],
    "status": lambda run: [run],
    "export-labels": lambda run: [run, "--what", "pseudo-labels", "--format", "coco"],
    "export-model": lambda run: [run, "--format", "huggingface", "--output", "exported"],
    "import-masks": lambda run: [run, "data/tiny/masks"],
    "predict": lambda run: [run, "data/tiny/images/image_00.png", "--device", "cpu"],
    "thresholds": lambda run: [run],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder: `tiny` as if it were made, `tiny-half` begun, rows with their CAMs."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "config.yaml").write_text(TINY_RUN + MORE)
    write_tiny_data(folder / "data" / "tiny")
    results, config = folder / "results", load_config(folder=folder)
    (results / "tiny").mkdir(parents=True)
    (folder / "photos").mkdir()
    path = results / "tiny" / "index.csv"
    make_index(config=FolderSettings(), root=folder / "data" / "tiny", output=path)
    index = read_index(path)
    for name in ("tiny", "tiny-gt", "tiny-half", ROW, SEED):
        for stage in STAGES:
            write_json(
                results / name / "config" / f"{stage}.json", config.run(name).settings(stage)
            )
    for name in ("tiny", ROW, SEED):
        with MapStoreWriter(
            results / name / "cams.h5", classes=index.classes, attributes={}
        ) as out:
            for record in index.subset("train").records:
                tags = index.class_indices(record)
                shape = (len(tags), (record.height - 1) // 4 + 1, (record.width - 1) // 4 + 1)
                out.add(record.name, list(tags), np.zeros(shape), (record.height, record.width))
        (results / name / "plan.json").write_text(
            '{"version": 1, "written": 1, "jobs": [{"rule": "export", "outputs": ["cams.h5"]}]}'
        )
    run = results / "tiny"
    score = "tiny,cam,pseudo,train,configured,0.3,mean,0.5,0.5,0.5"
    (run / "miou.csv").write_text(f"{','.join(COLUMNS)}\n{score}\n")
    (run / "pseudo_labels").mkdir()
    for record in index.subset("train").records:
        label = np.zeros((record.height, record.width), np.uint8)
        write_label(run / "pseudo_labels" / f"{record.name}.png", label)
    torch.manual_seed(0)
    settings = tiny_config()
    network = DeepLab(build_backbone(settings.backbone), len(index.classes) + 1, settings.head)
    (run / "segmentation").mkdir()
    model = run / "segmentation" / "model.safetensors"
    SEGMENTATION.save(model, network.eval(), settings, classes=index.classes, training={})
    return folder


# What is named -> the words of the error by command; of the others those of the last entry, or
# they work.
OTHERS = "others"
WORKS: dict[str, str] = {}
SHORT = dict.fromkeys(("export-labels", "export-model", "predict"), "it stops after 'cam'")
NAMED = {
    "tiny": WORKS,
    "results/tiny": WORKS,
    "results/tiny/": WORKS,
    ROW: {**SHORT, "table": f"make it:  snakemake --cores all results/{ROW}/miou.csv"},
    f"results/{SEED}": {**SHORT, "table": f"results/{SEED}/miou.csv"},
    "tiny-rows/ablation/wode": {OTHERS: "did you mean 'wide'"},
    "tiny-rows/ablation/plain": {OTHERS: "'plain' is the run 'tiny-cam'"},
    "tiny-rows/methods/own.seed-0": {OTHERS: "results/tiny-rows", "import-masks": ""},
    "results/tiny-half": {
        "status": "nothing that says how far it is",
        "table": "make it:  snakemake --cores all results/tiny-half/miou.csv",
        "export-labels": "make it:  snakemake --cores all results/tiny-half/done",
        "export-model": "make it:  snakemake --cores all results/tiny-half/done",
        "predict": "make it:  snakemake --cores all results/tiny-half/done",
        "thresholds": "make it:  snakemake --cores all results/tiny-half/done",
    },
    "tiny-new": {
        OTHERS: "make it:  snakemake --cores all results/tiny-new/",
        "import-masks": "",
    },
    "photos": {OTHERS: "results/RUN or RUN, where RUN is one of: tiny, tiny-cam"},
    "results/tiny-neu": {OTHERS: "did you mean 'tiny-new'"},
    "../elsewhere/tiny": {OTHERS: "no run is here"},
}


@pytest.mark.parametrize("named", NAMED)
def test_every_command_works_or_says_what_to_do(
    named: str, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(made)
    for command, options in COMMANDS.items():
        words = NAMED[named].get(command, NAMED[named].get(OTHERS, ""))
        status = main([command, *options(named)])
        said = capsys.readouterr().err
        assert status == (2 if words else 0), (command, said)
        assert words in said, (command, said)
        assert not words or "expected:" in said
        for left in ("exported", "predictions", "results/tiny/export"):
            shutil.rmtree(left, ignore_errors=True)


def test_a_place_without_a_configuration(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # What is there works from anywhere; what is not, is made where the run is.
    assert main(["table", str(made / "results" / "tiny")]) == 0
    assert main(["export-model", "somewhere", "--format", "onnx"]) == 2
    assert "go to the folder with the config.yaml" in capsys.readouterr().err
    assert main(["predict", "model.safetensors", "."]) == 2
    assert "this model file does not exist" in capsys.readouterr().err


def test_rows_keep_their_scores_to_themselves(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(made)
    assert main(["thresholds", f"results/{ROW}", "--write"]) == 2
    assert "is a row of a table" in capsys.readouterr().err
    assert main(["thresholds", ROW]) == 0
    said = capsys.readouterr().out
    assert "evaluation.cam_background" in said and "--write" not in said


def test_other_tables_are_not_taken_for_scores(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(made)
    assert main(["table", "results/tiny/miou.csv"]) == 0
    assert main(["table", "results/tiny/index.csv"]) == 2
    assert "no table of a run's scores" in capsys.readouterr().err
    assert main(["config", "show", "results/tiny/"]) == 0
    assert set(TABLES) == {INFIX.strip("/"), methods.INFIX.strip("/")}
    assert main(["cams", "info", "tiny"]) == 0
    assert os.fspath(Path("results/tiny/cams.h5")) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("mine", "mine"),
        ("mine/", "mine"),
        ("results/mine/", "mine"),
        ("results/mine/ablation/cam", "mine/ablation/cam"),
        ("results", "results"),
        ("{here}/results/mine", "mine"),
    ],
)
def test_a_run_is_named_by_its_name_or_its_folder(given: str, name: str) -> None:
    assert name_given(given.format(here=Path.cwd())) == name
