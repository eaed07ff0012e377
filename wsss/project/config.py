"""The project's configuration: layers of YAML, named runs, one settings dataclass a stage.

Assembles what the stages define; no stage imports it. Importing it is quick: neither PyTorch nor
any stage's code is loaded, only the stages' settings.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from wsss.errors import UserError
from wsss.project.ablations import INFIX, Table
from wsss.project.checks import check_change, check_refinement
from wsss.project.runs import (
    STAGES,
    Run,
    check_run,
    child_run,
    merge,
    resolve_run,
    section,
    stage_class,
)
from wsss.project.shard_counts import ShardCounts, read_counts
from wsss.project.yaml_files import read_yaml
from wsss.runtime.settings import check, from_dict, unknown_key

CONFIG_FILE = Path("config.yaml")
LOCAL_FILE = Path("config.local.yaml")


@dataclass(frozen=True)
class MicroBatch:
    """Images that a training takes through its networks at once, on each GPU; null: all it has.

    For batches that do not fit a GPU: gradients are added up, and the step stays the same.
    """

    cam: int | None = None
    """Of the CAM training."""
    irn: int | None = None
    """Of the IRNet training."""
    segmentation: int | None = None
    """Of the DeepLab training."""

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if value is not None and value < 1:
                raise UserError(
                    f"micro_batch.{entry.name} is {value}",
                    where=f"micro_batch.{entry.name}",
                    expected="1 or more, or null",
                )


@dataclass(frozen=True)
class LocalCompute:
    """How this machine computes; in no hash, so changing it runs nothing again."""

    device: str = "auto"
    """`auto` (a GPU if there is one), `cuda`, `cuda:N` or `cpu`."""
    threads: int = 2
    """CPU threads of a stage: a setting, as the order of summation and so the bytes follow it."""
    workers: int = 2
    """Helper processes: they load images, and on a CPU they share the images of IRN labels,
    pseudo-labels and prediction, one thread each; never changes a result."""
    deterministic: bool = True
    """On a GPU: only deterministic kernels, so that a run repeats to the byte."""
    gpus: int = 1
    """GPUs that a training takes, one process each; with `device: cpu`, its processes."""
    micro_batch: MicroBatch = field(default_factory=MicroBatch)
    """Images that a training takes through its networks at once, where a batch does not fit."""
    checkpoint_minutes: float = 5.0
    """Time between the checkpoints of a training, what a kill can cost at most."""

    def __post_init__(self) -> None:
        if self.gpus < 1:
            raise UserError(f"gpus is {self.gpus}", where="gpus", expected="1 or more")
        if self.gpus > 1 and self.device.startswith("cuda:"):
            raise UserError(
                f"gpus is {self.gpus} with device '{self.device}'",
                where="gpus",
                expected="1 with a GPU that is named, device 'cuda' otherwise",
            )
        if self.threads < 1:
            raise UserError(f"threads is {self.threads}", where="threads", expected="1 or more")
        if not 0 <= self.checkpoint_minutes < float("inf"):
            raise UserError(
                f"checkpoint_minutes is {self.checkpoint_minutes}",
                where="checkpoint_minutes",
                expected="0 (after every step) or more",
            )
        if self.workers < 0:
            raise UserError(f"workers is {self.workers}", where="workers", expected="0 or more")
        if self.device not in ("auto", "cpu", "cuda") and not self.device.startswith("cuda:"):
            raise UserError(
                f"device is '{self.device}'", where="device", expected="auto, cuda, cuda:N or cpu"
            )

    def wants_gpu(self) -> bool:
        """Say whether stages will ask for a GPU; without PyTorch, which takes long to import."""
        if self.device == "auto":
            return Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None
        return self.device != "cpu"

    def training_program(self) -> str:
        """Return the shell words that stand for `wsss` where a training is started.

        Several GPUs have one process each, under torchrun. It passes on the signals that
        schedulers send, and leaves the processes time to save; its own limit is 30 s.
        """
        if self.gpus == 1:
            return "wsss"
        return (
            f"OMP_NUM_THREADS={self.threads} TORCH_ELASTIC_SHUTDOWN_TIMEOUT=120"
            " PET_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
            f" torchrun --standalone --local-addr 127.0.0.1 --nproc-per-node {self.gpus}"
            " --module wsss"
        )


@dataclass(frozen=True)
class ProjectConfig:
    """The merged configuration, checked throughout.

    Attributes:
        compute: Local settings.
        shards: How many jobs share a stage.
        roots: Key -> folder of a data set.
        weights: Key -> weight file.
        runs: Every run, resolved.
    """

    compute: LocalCompute
    roots: Mapping[str, Path]
    weights: Mapping[str, Path]
    shards: ShardCounts = field(default_factory=ShardCounts)
    runs: Mapping[str, Run] = field(default_factory=dict)

    def run(self, name: str) -> Run:
        """Return a run, or the child of a run that is one row of its ablations.

        Raises:
            UserError: There is no such run.
        """
        parent, infix, row = name.partition(INFIX)
        if infix and parent in self.runs:
            return child_run(self.runs[parent], row)
        if name not in self.runs:
            raise unknown_key(name, self.runs, where=f"runs.{name}", kind="run")
        return self.runs[name]

    def ablation(self, name: str, table: Table) -> dict[str, str]:
        """Return the run behind each row of an ablation table, by the row's name.

        A row that names a run is that run, and one that changes nothing is the run `name` itself.

        Raises:
            UserError: There is no such run, or a row changes what its CAM method does not have.
        """
        run, members = self.run(name), {}
        for row in run.ablations.rows(table):
            changes = run.ablations.changes(row)
            if isinstance(changes, str):
                members[row] = self.run(changes).name
            else:
                child = child_run(run, row)
                check_change(child.name, before=run.stages["cam"], after=child.stages["cam"])
                members[row] = name if child.stages == run.stages else child.name
        return members

    def index_owner(self, name: str) -> str:
        """Return the run whose index this one uses: the furthest parent with the same data."""
        run = self.run(name)
        owner = name
        for parent in run.parents:
            other = self.runs[parent]
            if other.root != run.root or other.stages["index"] != run.stages["index"]:
                break
            owner = parent
        return owner

    def root_folder(self, name: str) -> Path:
        """Return the data folder of a run; it need not exist."""
        return self.roots[self.run(name).root]

    def existing_root(self, name: str) -> Path:
        """Return the data folder of a run.

        Raises:
            UserError: The folder does not exist.
        """
        folder = self.root_folder(name)
        if not folder.is_dir():
            raise self._not_there(name, f"the data set of run '{name}' is not there", folder)
        return folder

    def weights_files(self, name: str, stage: str) -> dict[str, Path]:
        """Return the weight files that a stage starts from, by the option that takes each.

        Raises:
            UserError: The settings name a key that `weights:` lacks, or the file is not there.
        """
        files: dict[str, Path] = {}
        for place, option, key in weights_keys(self.run(name).stages[stage]):
            where = f"runs.{name}.{stage}.{place}"
            if key not in self.weights:
                known = [*self.weights, "package", "none"]
                raise unknown_key(key, known, where=where, kind="weight file")
            path = self.weights[key]
            if not path.is_file():
                if self.run(name).stages["index"].format != "demo":
                    self.existing_root(name)  # what is missing first is said first
                found = f"the weight file '{key}' of run '{name}' is not there"
                raise self._not_there(name, found, path)
            files[option] = path
        return files

    def _not_there(self, name: str, found: str, where: Path) -> UserError:
        """Return an error that names all that the run lacks, to be fetched in one go."""
        run, folder = self.run(name), self.root_folder(name)
        wanted: list[str] = []
        local: list[str] = []
        if run.stages["index"].format != "demo" and not folder.is_dir():
            wanted.append(f"{folder}: {_DATA_SETS.get(run.root, 'the data set')}")
            local.append(f"roots: {{{run.root}: /path}}")
        keys = [key for key in _weights_of(run) if not self.weights.get(key, Path()).is_file()]
        for key in keys:
            file = self.weights.get(key, f"weights.{key}")
            wanted.append(f"{file}: {_WEIGHT_FILES.get(key, 'the weights')} ('{key}')")
        if keys:
            local.append(f"weights: {{{', '.join(f'{key}: /path' for key in keys)}}}")
        return UserError(
            found,
            where=where,
            expected="\n            ".join(wanted),
            fix=f"put it there, or say where it is in {LOCAL_FILE}:  " + ", ".join(local),
        )


_DATA_SETS = {
    "voc": "PASCAL VOC 2012 (the folder with JPEGImages, ImageSets, ...), from "
    "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
    "coco": "MS-COCO 2014 (the folder with train2014, val2014, annotations), from "
    "https://cocodataset.org/#download",
}

_WEIGHT_FILES = {
    "resnet38d_imagenet": "ResNet-38d on ImageNet, resnet_38d.params (MXNet), which "
    "https://github.com/itijyou/ademxapp links to, or a PyTorch port of it",
    "resnet50_imagenet": "ResNet-50 on ImageNet, from "
    "https://download.pytorch.org/models/resnet50-0676ba61.pth",
    "resnet101_imagenet": "ResNet-101 on ImageNet, from "
    "https://download.pytorch.org/models/resnet101-63fe2227.pth",
    "deit_small_imagenet": "DeiT-S/16 on ImageNet, from "
    "https://dl.fbaipublicfiles.com/deit/deit_small_patch16_224-cd65a155.pth",
}


def _weights_of(run: Run) -> list[str]:
    """Return the keys of the weight files that the stages of a run start from."""
    stages = ["cam", "irn", "segmentation"]
    stages = stages[: ("cam", "pseudo_label", "segmentation").index(run.stop_after) + 1]
    if run.stages["segmentation"].labels == "ground_truth":
        stages = stages[2:]
    found = [key for stage in stages for _, _, key in weights_keys(run.stages[stage])]
    return list(dict.fromkeys(found))


def weights_keys(settings: Any, *, prefix: str = "") -> list[tuple[str, str, str]]:
    """Return (place, option, key) of each weight file that a stage's settings name.

    A settings class with weights of its own says by `weights_option` which option of the command
    takes the file; a backbone's is `weights-file`. Packaged and random weights need no file, nor
    does a network that the settings call idle.
    """
    found: list[tuple[str, str, str]] = []
    idle = settings.idle_networks() if hasattr(settings, "idle_networks") else ()
    for entry in dataclasses.fields(settings):
        if entry.name in idle:
            continue
        value = getattr(settings, entry.name)
        if not dataclasses.is_dataclass(value) or isinstance(value, type):
            continue
        place = f"{prefix}{entry.name}"
        key = getattr(value, "weights", None)
        if isinstance(key, str) and key not in ("package", "none"):
            option = getattr(value, "weights_option", "weights-file")
            found.append((f"{place}.weights", option, key))
        found += weights_keys(value, prefix=f"{place}.")
    return found


def parse_texts(value: Any) -> Any:
    """Return `value` with every text in it read as YAML: `"1"` becomes 1.

    Snakemake hands the nested values of `--config 'runs={demo: {cam: {epochs: 1}}}'` over as
    texts.
    """
    if isinstance(value, Mapping):
        return {key: parse_texts(item) for key, item in value.items()}
    if isinstance(value, list):
        return [parse_texts(item) for item in value]
    if isinstance(value, str):
        try:
            parsed = yaml.safe_load(value) if value else value
        except yaml.YAMLError:
            return value
        return parsed if isinstance(parsed, (bool, int, float, type(None))) else value
    return value


def load_config(
    overrides: Mapping[str, Any] | None = None, *, folder: Path = Path()
) -> ProjectConfig:
    """Read `config.yaml`, lay `config.local.yaml` and then `overrides` on it, and check it all.

    Raises:
        UserError: Something is wrong; the message names the place.
    """
    values = read_yaml(folder / CONFIG_FILE)
    if (folder / LOCAL_FILE).exists():
        values = merge(values, read_yaml(folder / LOCAL_FILE))
    return resolve(merge(values, overrides or {}))


def resolve(values: Mapping[str, Any]) -> ProjectConfig:
    """Check a merged configuration and resolve its runs."""
    known = ("compute", "shards", "roots", "weights", "defaults", "ablations", "runs")
    for key in values:
        if key not in known:
            raise unknown_key(key, known, where=str(key), kind="section")
    compute = from_dict(LocalCompute, section(values, "compute"), where="compute")
    roots = _paths(values, "roots")
    weights = _paths(values, "weights")
    defaults = section(values, "defaults")
    for stage, settings in defaults.items():
        if stage not in STAGES:
            raise unknown_key(stage, STAGES, where=f"defaults.{stage}", kind="stage")
        check(stage_class(stage), settings, where=f"defaults.{stage}")
    specs = section(values, "runs")
    for name, spec in specs.items():
        check_run(str(name), spec, specs)
    ablations = section(values, "ablations")
    runs = {str(name): resolve_run(str(name), specs, defaults, roots, ablations) for name in specs}
    check_refinement({name: run.stages for name, run in runs.items()})
    return ProjectConfig(
        compute=compute,
        roots=roots,
        weights=weights,
        shards=read_counts(values.get("shards")),
        runs=runs,
    )


def _paths(values: Mapping[str, Any], name: str) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for key, value in section(values, name).items():
        if not isinstance(value, str) or not value:
            raise UserError(f"{value!r} is not a path", where=f"{name}.{key}", expected="a path")
        paths[str(key)] = Path(value).expanduser()
    return paths
