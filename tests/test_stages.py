"""Stage records agree with the functions, the commands, the rules and the settings."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, TINY_RUN

from wsss import provenance
from wsss.cli import SUMMARIES, build_parser
from wsss.commands.parameters import PREFIX, fields_of, is_compute, parameters
from wsss.maps.shards import Shard
from wsss.monitor.status import run_status
from wsss.project.code import code_hash
from wsss.project.config import ProjectConfig, load_config
from wsss.project.file import stage_kind
from wsss.project.local import LocalCompute, MicroBatch, ShardCounts
from wsss.provenance import PACKAGE_FOLDER, closure
from wsss.runtime.registry import Registry
from wsss.runtime.stage_process import stage_process
from wsss.stages import SECTIONS, SHARDABLE, STAGES, Stage

RULE = re.compile(r"^(?:use rule \w+ as|rule) (\w+)(?: with)?:\n((?:    .*\n|\n)+)", re.M)
# Rules that are no stage: settings, the number of jobs, and names for several results.
OTHER_RULES = {"done", "stage_config", "all", "demo_compare", "all_figures", "all_figures_versus"}


def rules() -> dict[str, str]:
    """Return the text of each rule by its name."""
    files = [REPOSITORY / "Snakefile", *sorted((REPOSITORY / "workflow" / "rules").glob("*.smk"))]
    return {name: text for file in files for name, text in RULE.findall(file.read_text())}


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_a_record_says_what_its_function_does(stage: Stage) -> None:
    given = {each.name: each for each in parameters(stage.load())}
    machine: list[str] = []
    for each in list(given.values()):
        if is_compute(each.type):
            machine += [field.name for field in fields_of(given.pop(each.name).type)]
    machine += ["workers"] if given.pop("workers", None) else []
    assert set(machine) == set(stage.machine)
    assert ("config" in given) == (stage.settings is not None)
    assert ("root" in given) == stage.has_root
    assert ("work_dir" in given) == stage.trains
    assert any(each.type is Shard for each in given.values()) == stage.shardable
    files = {
        name
        for name, each in given.items()
        if "Path" in str(each.type) and not name.endswith("weights_file")
    } - {"root", "work_dir", "seeds_root", "memory"}  # memory: digests, of this machine alone
    assert files == {*stage.inputs, *stage.outputs}
    for name in (*stage.only_if, *(name for name, path in stage.inputs.items() if not path)):
        assert name in given
    for name, setting in stage.only_if.items():
        assert name in stage.outputs and setting in str(inspect.signature(given["config"].type))


def names_read(function: Any) -> set[str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return {node.id for node in nodes if isinstance(node.ctx, ast.Load)}


def chosen_code(stage: Stage) -> list[str]:
    """Return the modules of whatever a stage's settings may choose."""
    kinds = [stage_kind(section) for section in stage.chosen_by]
    records = [
        record for kind in kinds if isinstance(kind, Registry) for record in kind.entries().values()
    ]
    texts = [value for record in records for value in vars(record).values()]
    named = [text for text in texts if isinstance(text, str) and re.fullmatch(r"[\w.]+:\w+", text)]
    return [text.partition(":")[0] for text in named]


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_every_option_is_used_and_explained(stage: Stage) -> None:
    function = stage.load()
    read = names_read(function)
    for each in parameters(function):
        assert each.name in read, f"{stage.function} ignores {each.name}"
        assert each.help, f"{stage.function} does not say what {each.name} is for"
        if is_compute(each.type):
            # Who gets it reads every field of it somewhere: `compute.workers`, `self.device`.
            chosen = chosen_code(stage)
            modules = [*closure(stage.module, *chosen), "wsss.runtime.compute"]
            paths = [PACKAGE_FOLDER.joinpath(*name.split(".")[1:]) for name in modules]
            texts = [
                path.with_suffix(".py").read_text()
                for path in paths
                if path.with_suffix(".py").is_file()
            ]
            for field in fields_of(each.type):
                used = re.compile(rf"compute\.{field.name}\b(?! is)")
                assert any(used.search(text) for text in texts) or field.name == "device"


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_a_command_has_the_options_of_its_function(stage: Stage) -> None:
    parser = build_parser(stage.command)
    (commands,) = [each for each in parser._actions if each.dest == "command"]
    options = {
        action.dest.removeprefix(PREFIX) for action in commands.choices[stage.command]._actions
    }
    expected = {"help", *stage.manifests.values(), *stage.machine}
    expected |= {"shard", "merge"} if stage.shardable else set()
    named = {each.name for each in parameters(stage.load()) if not is_compute(each.type)}
    assert options == expected | named
    assert SUMMARIES[stage.command] == stage.summary


def test_a_stage_has_one_name() -> None:
    assert set(SECTIONS) - set(STAGES) == {"evaluation"}  # that is of two of them
    texts = rules()
    stems = dict.fromkeys(texts, "")
    for name in stems:
        fitting = [stage for stage in STAGES if name == stage or name.startswith(f"{stage}_")]
        stems[name] = max(fitting, key=len, default="")
    assert {name for name, stage in stems.items() if not stage} == OTHER_RULES
    assert set(STAGES) <= set(texts)
    for name, stage in stems.items():
        if not stage:
            continue
        text = texts[name]
        called = re.findall(r"(?:inputs|outputs|part|resources|params|shards)\(\s*\"(\w+)\"", text)
        assert set(called) <= {stage}, name
        for kind in ("log_of", "benchmark_of"):
            for label in re.findall(rf'{kind}\("([^"]+)"\)', text):
                assert re.fullmatch(rf"(shards/)?{stage}(_.*)?", label), (name, label)
    for stage in STAGES.values():
        assert stage.command == stage.name.replace("_", "-") and stage.command in SUMMARIES
        if stage.settings in STAGES and stage.settings != stage.name:
            # They read the settings of the index, and of the pseudo-labels.
            assert stage.name in ("masks", "choose_walk_threshold")
        assert stage.work_dir in (None, f"{stage.name}/work")


def test_status_calls_a_stage_by_its_name(tmp_path: Path) -> None:
    for stage in STAGES.values():
        output = tmp_path / "run" / stage.name
        output.parent.mkdir(exist_ok=True)
        with stage_process(stage.command, output):
            output.touch()
    assert {job.rule for job in run_status(tmp_path / "run").jobs} == set(STAGES)


@pytest.fixture
def config(tmp_path: Path) -> ProjectConfig:
    (tmp_path / "config.yaml").write_text(TINY_RUN)
    return load_config(folder=tmp_path)


def hashes(config: ProjectConfig, run: str) -> dict[str, str]:
    return {name: code_hash(stage, config, run) for name, stage in STAGES.items()}


def test_code_that_a_run_does_not_choose_reruns_none_of_its_stages(
    config: ProjectConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As if a module were edited: only those change whose run has it."""
    before = {run: hashes(config, run) for run in ("tiny", "tiny-cam")}

    def changed(module: str) -> dict[str, set[str]]:
        edited = provenance._find(module, PACKAGE_FOLDER)

        def other(stamp: tuple[str, int, int]) -> str:
            return "edited" if stamp[0] == str(edited) else original(stamp)

        with monkeypatch.context() as patch:
            patch.setattr(provenance, "_module_hash", other)
            patch.setenv("WSSS_CACHE", str(tmp_path / module))  # what is kept was not edited
            return {
                run: {name for name, code in hashes(config, run).items() if code != old[name]}
                for run, old in before.items()
            }

    original = provenance._module_hash
    with_acr = {"cam", "export", "lpcam", "reconstructions"}
    assert changed("wsss.cam.methods.acr") == {"tiny": with_acr, "tiny-cam": set()}
    assert changed("wsss.data.formats.voc") == {"tiny": set(), "tiny-cam": set()}
    listed = {"index", "masks"}
    assert changed("wsss.data.formats.folder") == {"tiny": listed, "tiny-cam": listed}
    assert changed("wsss.training.loop")["tiny-cam"] >= {"cam", "irn", "segmentation"}
    for module in ("wsss.runtime.progress", "wsss.training.metrics", "wsss.cli", "wsss.stages"):
        assert changed(module) == {"tiny": set(), "tiny-cam": set()}


def test_local_settings_are_for_the_stages_that_there_are() -> None:
    assert set(ShardCounts.model_fields) == set(SHARDABLE)
    trainings = {name for name, stage in STAGES.items() if stage.trains}
    assert set(MicroBatch.model_fields) == trainings
    options = {option for stage in STAGES.values() for option in stage.machine}
    assert options | {"gpus"} == set(LocalCompute.model_fields)
