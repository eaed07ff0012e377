"""The project's configuration: layers of YAML, named runs, one settings model a stage.

Assembles what the stages define; no stage imports it. Importing it is quick: neither PyTorch nor
any stage's code is loaded, only the stages' settings.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import yaml

from wsss.data.formats.registry import FORMATS, DataFormat
from wsss.errors import UserError
from wsss.models.config import NO_FILE, networks_with_files
from wsss.project import methods as comparison
from wsss.project.ablations import INFIX, Table
from wsss.project.file import ConfigFile, StopAfter
from wsss.project.lenders import (
    ablation_run,
    check_lenders,
    checked_child,
    lending_row,
    with_lent_classifiers,
)
from wsss.project.local import LocalCompute, ShardCounts
from wsss.project.runs import (
    Run,
    check_name,
    merge,
    method_run,
    resolve_run,
    section,
    with_classifier_of,
)
from wsss.project.weight_check import WeightFile, check_fits
from wsss.project.weights import (
    check_packages,
    weighted_stages,
    weights_keys,
    weights_of,
)
from wsss.project.yaml_files import read_yaml
from wsss.runtime.plugins import load_plugins
from wsss.runtime.settings import check, parse, unknown_key

CONFIG_FILE = Path("config.yaml")
LOCAL_FILE = Path("config.local.yaml")


@dataclass(frozen=True)
class ProjectConfig:
    """The merged configuration, checked throughout.

    Attributes:
        compute: Local settings.
        shards: How many jobs share a stage.
        roots: Key -> folder of a data set.
        weights: Key -> weight file.
        runs: Every run, resolved.
        plugins: Files whose records are known.
    """

    compute: LocalCompute
    roots: Mapping[str, Path]
    weights: Mapping[str, Path]
    shards: ShardCounts = field(default_factory=ShardCounts)
    runs: Mapping[str, Run] = field(default_factory=dict)
    plugins: tuple[Path, ...] = ()

    def run(self, name: str) -> Run:
        """Return a run, or the child of a run that is one row of its ablations or methods.

        Raises:
            UserError: There is no such run.
        """
        parent, infix, row = name.partition(INFIX)
        if infix and parent in self.runs:
            return ablation_run(self.runs[parent], row, self.runs, self.roots)
        parent, infix, child = name.partition(comparison.INFIX)
        if infix and parent in self.runs:
            row, seed = self.runs[parent].methods.split(child)
            return self._method_child(self.runs[parent], row, seed)
        if name not in self.runs:
            raise unknown_key(name, self.runs, where=f"runs.{name}", kind="run")
        return self.runs[name]

    def _method_child(self, run: Run, row: str, seed: int) -> Run:
        changes = run.methods.rows[row]
        child, runs = method_run(run, row, seed, self.runs), self.runs
        lending = lending_row(child, run, runs)
        if lending is not None:
            lender = self._method_child(run, lending, seed)
            child, runs = with_classifier_of(child, lender), {**runs, lender.name: lender}
        return checked_child(child, _section(changes), runs, self.roots)

    def ablation(self, name: str, table: Table) -> dict[str, str]:
        """Return the run behind each row of an ablation table, by the row's name.

        A row that names a run is that run, and one that changes nothing is the run `name` itself.

        Raises:
            UserError: There is no such run, or a row changes what its CAM method does not have, or
                is of other data.
        """
        run, members = self.run(name), {}
        for row in run.ablations.rows(table):
            changes = run.ablations.changes(row)
            if isinstance(changes, str):
                self._check_index(changes, name, where=f"runs.{name}.ablations.variants.{row}")
                members[row] = changes
            else:
                child = ablation_run(run, row, self.runs, self.roots)
                members[row] = name if child.stages == run.stages else child.name
        return members

    def methods(self, name: str) -> dict[str, dict[int, str]]:
        """Return the run behind each row and seed of a comparison of methods.

        A row whose seed a run has anyway is that run itself, if it goes far enough.

        Raises:
            UserError: There is no such run, or it has no comparison; or a row changes what its CAM
                method does not have, or is of other data.
        """
        run = self.run(name)
        if not run.methods.rows or not run.methods.seeds:
            raise UserError(
                "this run has no methods to compare",
                where=f"runs.{name}.methods",
                expected="seeds and rows",
                fix="methods: {seeds: [0, 1, 2], rows: {plain: OTHER_RUN, mine: {}}}",
            )
        order = get_args(StopAfter)
        found: dict[str, dict[int, str]] = {}
        for row, changes in run.methods.rows.items():
            base = self.runs[changes] if isinstance(changes, str) else run
            self._check_index(base.name, name, where=f"runs.{name}.methods.rows.{row}")
            for seed in run.methods.seeds:
                child = self._method_child(run, row, seed)
                goes = order.index(base.stop_after) >= order.index(child.stop_after)
                same = child.stages == base.stages and goes
                found.setdefault(row, {})[seed] = base.name if same else child.name
        return found

    @property
    def method_runs(self) -> dict[str, Run]:
        """Every row and seed of every comparison of methods, by its run's name.

        A row whose settings are impossible is left out: who asks for it is told why.
        """
        found: dict[str, Run] = {}
        for run in self.runs.values():
            for row in run.methods.rows:
                for seed in run.methods.seeds:
                    with suppress(UserError):
                        child = self._method_child(run, row, seed)
                        found[child.name] = child
        return found

    def _check_index(self, other: str, name: str, *, where: str) -> None:
        """Check that a run can stand in the table of another one.

        Raises:
            UserError: It is of other data.
        """
        if self.index_owner(other) != self.index_owner(name):
            raise UserError(
                f"the run '{other}' is of other data than '{name}'",
                where=where,
                expected="runs that share an index",
            )

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

    def data_format(self, name: str) -> DataFormat:
        """Return the record of a run's data format."""
        return FORMATS.get(self.run(name).stages["index"].format, where=f"runs.{name}.index")

    def existing_root(self, name: str) -> Path:
        """Return the data folder of a run.

        Raises:
            UserError: The folder does not exist, and its data are not generated either.
        """
        folder = self.root_folder(name)
        if self._lacks_data(name):
            raise self._not_there(name, f"the data set of run '{name}' is not there", folder)
        return folder

    def _lacks_data(self, name: str) -> bool:
        return self.data_format(name).generator is None and not self.root_folder(name).is_dir()

    def weights_files(self, name: str, stage: str) -> dict[str, Path]:
        """Return the weight files that a stage starts from, by the option that takes each.

        Raises:
            UserError: The settings name a key that `weights:` lacks, or the file is not there; or
                a package of weights that is not installed.
        """
        check_packages(self.run(name).stages[stage], where=f"runs.{name}.{stage}")
        files: dict[str, Path] = {}
        for place, option, key in weights_keys(self.run(name).stages[stage]):
            where = f"runs.{name}.{stage}.{place}"
            if key not in self.weights:
                known = [*self.weights, *NO_FILE]
                raise unknown_key(key, known, where=where, kind="weight file")
            path = self.weights[key]
            if not path.exists():
                self.existing_root(name)  # what is missing first is said first
                found = f"the weight file '{key}' of run '{name}' is not there"
                raise self._not_there(name, found, path)
            files[option] = path
        return files

    def check_weights(self, name: str) -> None:
        """Look into the weight files of a run, whether they fit its networks.

        Files that are not there are for `weights_files` to name.

        Raises:
            UserError: One does not fit.
        """
        run, wanted = self.run(name), []
        for stage in weighted_stages(run):
            for place, _, key, settings in networks_with_files(run.stages[stage]):
                path = self.weights.get(key)
                if path is not None and path.exists():
                    where = f"runs.{name}.{stage}.{place}"
                    wanted.append(WeightFile(settings, path, where))
        check_fits(wanted)

    def seeds_root(self, name: str) -> dict[str, Path]:
        """Return the folder that a run's maps are read from, by the option; empty: none.

        Raises:
            UserError: The folder is not there.
        """
        key = self.run(name).stages["cam"].seeds_root
        if key is None:
            return {}
        folder = self.roots[key]
        if not folder.is_dir():
            self.existing_root(name)  # what is missing first is said first
            raise UserError(
                f"the maps or masks that run '{name}' imports are not there",
                where=folder,
                expected="a folder of them",
                fix=f"put them there, or say where they are in {LOCAL_FILE}:  "
                f"roots: {{{key}: /path}}",
            )
        return {"seeds-root": folder}

    def _not_there(self, name: str, found: str, where: Path) -> UserError:
        """Return an error that names all that the run lacks, to be fetched in one go."""
        run, folder = self.run(name), self.root_folder(name)
        wanted: list[str] = []
        local: list[str] = []
        if self._lacks_data(name):
            wanted.append(f"{folder}: {self.data_format(name).source}")
            local.append(f"roots: {{{run.root}: /path}}")
        keys = [
            key
            for key in weights_of(run)
            if key not in self.weights or not self.weights[key].exists()
        ]
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
        except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError):
            # PyYAML's own, and how it fails at dates that are none and the like.
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
    # A link to nothing is no missing file: what it should say would be missed in silence.
    if os.path.lexists(folder / LOCAL_FILE):
        values = merge(values, _said(read_yaml(folder / LOCAL_FILE), values))
    values = merge(values, overrides or {})
    plugins = values.get("plugins")
    if isinstance(plugins, list) and all(isinstance(name, str) for name in plugins):
        values["plugins"] = [os.path.realpath(folder / name) for name in plugins]
        load_plugins(map(Path, values["plugins"]))
    return resolve(values)


def _said(values: Mapping[str, Any], below: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a file says over another: nothing of a section whose lines were taken out."""
    return {
        key: value
        for key, value in values.items()
        if value is not None or not isinstance(below.get(key), Mapping)
    }


def resolve(values: Mapping[str, Any]) -> ProjectConfig:
    """Check a merged configuration and resolve its runs."""
    check(ConfigFile, values, where="")
    specs = {str(name): spec for name, spec in section(values, "runs").items()}
    roots = _paths(values, "roots")
    for name, spec in specs.items():
        check_name(name, spec, specs)
    defaults, ablations = section(values, "defaults"), section(values, "ablations")
    runs = {name: resolve_run(name, specs, defaults, roots, ablations) for name in specs}
    runs = with_lent_classifiers(runs, specs)
    check_lenders(runs, specs, roots)
    shards = values.get("shards", 1) or 1
    if not isinstance(shards, Mapping):
        shards = dict.fromkeys(ShardCounts.model_fields, shards)
    return ProjectConfig(
        compute=parse(LocalCompute, section(values, "compute"), where="compute"),
        roots=roots,
        weights=_paths(values, "weights"),
        shards=parse(ShardCounts, shards, where="shards"),
        runs=runs,
        plugins=tuple(map(Path, values.get("plugins") or ())),
    )


def _section(row: Mapping[str, Any] | str) -> Mapping[str, Any]:
    """Return what a row of a table changes: nothing, where it is another run."""
    return {} if isinstance(row, str) else row


def _paths(values: Mapping[str, Any], name: str) -> dict[str, Path]:
    return {str(key): Path(path).expanduser() for key, path in section(values, name).items()}
