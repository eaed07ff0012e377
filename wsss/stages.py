"""The stages: one record each, from which commands, rules, shards, locks and status derive.

A stage has one name: the key of its settings, its rule, its log and its line in `wsss status`; its
command is that name with `-`. Nothing here imports what a stage computes with.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

# What a stage can use of the machine: options of its command.
DEVICE = ("device", "threads", "deterministic")
INFERENCE = (*DEVICE, "workers")
TRAINING = (*INFERENCE, "micro_batch", "checkpoint_minutes")

SECTIONS: Mapping[str, str] = {
    "index": "wsss.data.formats.registry:FORMATS",
    "cam": "wsss.cam.methods.registry:METHODS",
    "lpcam": "wsss.cam.lpcam_config:LpcamConfig",
    "export": "wsss.cam.config:ExportConfig",
    "labels": "wsss.irn.config:LabelsConfig",
    "irn": "wsss.irn.config:IrnConfig",
    "pseudo_labels": "wsss.irn.label_methods:LABEL_METHODS",
    "self_labels": "wsss.segmentation.config:SelfLabelsConfig",
    "segmentation": "wsss.segmentation.config:SegmentationConfig",
    "prediction": "wsss.segmentation.config:PredictionConfig",
    "evaluation": "wsss.evaluation.config:EvaluationConfig",
}
"""Sections of a run's settings, in the order of the stages, and what each consists of."""


@dataclass(frozen=True)
class Stage:
    """What there is to know of a stage without running it.

    Paths are relative to the run's folder; that of a folder ends with `/`, and beside it goes a
    manifest of its content, `<folder>.sha256`, which is what later stages depend on.

    Attributes:
        name: Its name.
        summary: What it does, for `wsss --help`.
        function: What it runs, `module:function`. Its keyword parameters are the options.
        settings: The section of settings that the parameter `config` takes; None: it has none.
        inputs: Parameter -> file that it reads; empty where that depends on the run.
        outputs: Parameter -> what it writes, the first of them under its lock and heartbeat;
            empty where that depends on the run.
        only_if: Output -> setting of the stage without which it is not made.
        beside: What it writes beside its first output, without an option.
        shardable: Whether several jobs can share its images.
        trains: Whether it is a training: several processes can run it, and it has a work folder.
        machine: What it can use of the machine.
        has_root: Whether it reads the data set's folder.
        pictures: Whether it opens the pictures that the index lists.
        chosen_by: Sections of the run's settings that choose code which it runs: a method, a
            format, networks.
    """

    name: str
    summary: str
    function: str
    settings: str | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    only_if: Mapping[str, str] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    shardable: bool = False
    trains: bool = False
    machine: tuple[str, ...] = ()
    has_root: bool = True
    pictures: bool = True
    chosen_by: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """Its subcommand."""
        return self.name.replace("_", "-")

    @property
    def module(self) -> str:
        """The module whose code it runs."""
        return self.function.partition(":")[0]

    @property
    def manifests(self) -> dict[str, str]:
        """Output that is a folder -> option for its manifest: `output_crf`: `manifest_crf`."""
        folders = [name for name, path in self.outputs.items() if is_folder(path)]
        return {name: name.replace("output", "manifest") for name in folders}

    @property
    def work_dir(self) -> str | None:
        """Where a training keeps its checkpoint and metrics, relative to the run's folder."""
        return f"{self.name}/work" if self.trains else None

    def load(self) -> Any:
        """Import the function, and with it whatever it computes with."""
        module, _, name = self.function.partition(":")
        return getattr(importlib.import_module(module), name)


def is_folder(path: str) -> bool:
    """Say whether a path of a record is a folder's."""
    return path.endswith("/")


def manifest_of(path: str) -> str:
    """Return where the manifest of a folder lies."""
    return f"{path.rstrip('/')}.sha256"


def part_name(path: str) -> str:
    """Return what an output is called within one job's part of the results."""
    return PurePosixPath(path).name


PICTURES, MASKS = "pictures.sha256", "masks.sha256"
"""The content of what index.csv and masks.csv list: an edit of the same size is an edit."""

_LIST = {"index": "index.csv"}
_TRUTH = {**_LIST, "masks": "masks.csv"}

_ALL: Sequence[Stage] = (
    Stage(
        "demo_data",
        "generate the demo data set",
        "wsss.data.formats.demo_pictures:generate_demo",
        outputs={"output": "demo-data/"},
        has_root=False,
    ),
    Stage(
        "coco_masks",
        "draw MS-COCO's annotations as label PNGs, once",
        "wsss.data.formats.coco_masks:draw_once",
        outputs={"output": "coco_masks.json"},
        machine=("workers",),
    ),
    Stage(
        "index",
        "check a data set and list its images and tags",
        "wsss.data.indexing:make_index",
        settings="index",
        outputs={"output": "index.csv"},
        beside=("classes.txt", PICTURES),
        chosen_by=("index",),
    ),
    Stage(
        "masks",
        "check and list the ground-truth masks, for evaluation only",
        "wsss.data.indexing:make_masks",
        settings="index",
        inputs=_LIST,
        outputs={"output": "masks.csv"},
        beside=(MASKS,),
        pictures=False,
        chosen_by=("index",),
    ),
    Stage(
        "cam",
        "train the classifier whose CAMs are the seeds",
        "wsss.cam.training:train_cam",
        settings="cam",
        inputs={**_LIST, "anchor_model": ""},
        outputs={
            "output": "cam/model.safetensors",
            "reconstructor_output": "cam/reconstructor.safetensors",
        },
        trains=True,
        machine=TRAINING,
        chosen_by=("cam",),
    ),
    Stage(
        "lpcam",
        "cluster the classifier's features, for export.refine lpcam",
        "wsss.cam.clustering:make_clusters",
        settings="lpcam",
        inputs={"model": "", **_LIST},
        outputs={"output": "lpcam.safetensors"},
        machine=INFERENCE,
        chosen_by=("cam",),
    ),
    Stage(
        "export",
        "write the CAMs of all tagged classes to HDF5",
        "wsss.cam.export:export_cams",
        settings="export",
        inputs={
            "model": "",
            "cam": "",
            "other_cams": "",
            **_LIST,
            "attention_model": "",
            "clusters": "",
        },
        outputs={"output": "cams.h5"},
        shardable=True,
        machine=INFERENCE,
        chosen_by=("cam", "export"),
    ),
    Stage(
        "choose_thresholds",
        "choose the background scores that are auto from the CAMs, without masks",
        "wsss.evaluation.choosing:choose_thresholds",
        inputs={"cams": "cams.h5", **_LIST},
        outputs={"output": "thresholds.json"},
        has_root=False,
    ),
    Stage(
        "labels",
        "mine confident labels from the CAMs",
        "wsss.irn.labels:mine_labels",
        settings="labels",
        inputs={"cams": "cams.h5", **_LIST, "thresholds": ""},
        outputs={"output": "irn/labels/"},
        shardable=True,
        machine=("workers",),
    ),
    Stage(
        "irn",
        "train IRNet on the confident labels",
        "wsss.irn.training:train_irn",
        settings="irn",
        inputs={"labels": "irn/labels/", **_LIST},
        outputs={"output": "irn/model.safetensors"},
        trains=True,
        machine=TRAINING,
        chosen_by=("irn",),
    ),
    Stage(
        "choose_walk_threshold",
        "choose the background score of walked maps from a sample of them, without masks",
        "wsss.irn.walk_choice:choose_walk_threshold",
        settings="pseudo_labels",
        inputs={
            "cams": "cams.h5",
            "model": "irn/model.safetensors",
            **_LIST,
        },
        outputs={"output": "walk_thresholds.json"},
        machine=INFERENCE,
        chosen_by=("pseudo_labels", "irn"),
    ),
    Stage(
        "pseudo_labels",
        "make pseudo-labels of the CAMs, by random walk or by a CRF",
        "wsss.irn.label_stage:make_labels",
        settings="pseudo_labels",
        inputs={"cams": "cams.h5", "model": "irn/model.safetensors", **_LIST, "thresholds": ""},
        outputs={"output": "pseudo_labels/", "maps": "walked.h5"},
        shardable=True,
        machine=INFERENCE,
        chosen_by=("pseudo_labels", "irn"),
    ),
    Stage(
        "self_labels",
        "predict the training images among their tags, for another round of segmentation",
        "wsss.segmentation.self_labels:make_self_labels",
        settings="self_labels",
        inputs={"model": "", **_LIST},
        outputs={"output": "self_labels/"},
        shardable=True,
        machine=INFERENCE,
    ),
    Stage(
        "segmentation",
        "train the segmentation model",
        "wsss.segmentation.training:train_segmentation",
        settings="segmentation",
        inputs={"labels": "", "masks": "", **_LIST},
        outputs={"output": "segmentation/model.safetensors"},
        trains=True,
        machine=(*TRAINING, "feature_cache_gb"),
        chosen_by=("segmentation",),
    ),
    Stage(
        "prediction",
        "predict the images of one split",
        "wsss.segmentation.prediction:predict_split",
        settings="prediction",
        inputs={"model": "segmentation/model.safetensors", **_LIST},
        outputs={"output": "predictions/", "output_crf": "predictions_crf/"},
        only_if={"output_crf": "crf"},
        shardable=True,
        machine=INFERENCE,
        chosen_by=("segmentation",),
    ),
    Stage(
        "score_maps",
        "score CAMs or walked maps over all background scores",
        "wsss.evaluation.scoring:score_maps",
        settings="evaluation",
        inputs={"maps": "", **_TRUTH, "thresholds": ""},
        outputs={
            "output": "evaluation/{table}.csv",
            "curve": "evaluation/{table}_curve.csv",
            "plot": "evaluation/{table}_curve.png",
        },
        pictures=False,
        machine=("workers",),
    ),
    Stage(
        "score_labels",
        "score label PNGs",
        "wsss.evaluation.scoring:score_labels",
        inputs={"labels": "", **_TRUTH},
        outputs={"output": "evaluation/{table}.csv"},
        pictures=False,
    ),
    Stage(
        "score_tags",
        "score the classes of label PNGs against the tags, without masks",
        "wsss.evaluation.tags:score_tags",
        settings="evaluation",
        inputs={"labels": "", **_LIST},
        outputs={"output": "tags.csv"},
        has_root=False,
        pictures=False,
    ),
    Stage(
        "collect",
        "gather the scores of a run in miou.csv",
        "wsss.evaluation.tables:collect",
        inputs={"scores": ""},
        outputs={"output": "miou.csv"},
        has_root=False,
    ),
    Stage(
        "ablation_table",
        "gather the CAM scores of a run's ablations in one table",
        "wsss.evaluation.ablation:collect_ablation",
        inputs={"scores": ""},
        outputs={"output": "{table}.csv"},
        has_root=False,
    ),
    Stage(
        "methods_table",
        "gather the scores of methods and their seeds in one table",
        "wsss.evaluation.methods:collect_methods",
        inputs={"scores": ""},
        outputs={"output": "methods.csv", "plot": "methods.png"},
        has_root=False,
    ),
    Stage(
        "panels",
        "draw image, CAM, pseudo-label, prediction and truth side by side",
        "wsss.figures.panels:write_panels",
        inputs={"cams": "", "pseudo_labels": "", "predictions": "", **_TRUTH},
        outputs={"output": "panels/"},
    ),
    Stage(
        "report",
        "write what was run, its scores, curves and pictures as one HTML page",
        "wsss.report.writing:write_report",
        settings="evaluation",
        inputs={"folder": "", **_TRUTH},
        outputs={"output": "report.html"},
    ),
    Stage(
        "figures",
        "draw the paper's figures for a few images, of one run or of two",
        "wsss.figures.panels:write_figure",
        inputs={"cams": "", "labels": "", **_TRUTH},
        outputs={"output": "figures/{what}/"},
    ),
    Stage(
        "reconstructions",
        "draw what the reconstructor makes of a few images",
        "wsss.figures.reconstruction:write_reconstructions",
        inputs={
            "model": "cam/model.safetensors",
            "reconstructor": "cam/reconstructor.safetensors",
            **_LIST,
        },
        outputs={"output": "figures/reconstructions/"},
        machine=DEVICE,
        chosen_by=("cam",),
    ),
)
STAGES: Mapping[str, Stage] = {stage.name: stage for stage in _ALL}
SHARDABLE: Sequence[str] = [stage.name for stage in _ALL if stage.shardable]
COMMANDS: Mapping[str, Stage] = {stage.command: stage for stage in _ALL}
