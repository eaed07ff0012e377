from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from cam_settings import as_method

from wsss.cam.methods.registry import METHODS
from wsss.errors import UserError
from wsss.irn.label_methods import LABEL_METHODS
from wsss.project.config import (
    ProjectConfig,
    load_config,
    parse_texts,
    resolve,
)
from wsss.project.file import STAGES, read_stage
from wsss.project.local import LocalCompute
from wsss.project.runs import merge
from wsss.project.schema import config_schema, replace_defaults
from wsss.project.weights import weights_keys
from wsss.project.yaml_files import read_yaml
from wsss.runtime.compute import FeatureCompute
from wsss.runtime.settings import replace, to_dict

REPOSITORY = Path(__file__).parents[2]


def make(runs: dict[str, Any], **sections: Any) -> ProjectConfig:
    return resolve({"roots": {"own": "data/own"}, "runs": runs, **sections})


OWN: dict[str, Any] = {"root": "own", "index": {"format": "folder"}}


def test_the_projects_own_configuration_is_right() -> None:
    config = load_config(folder=REPOSITORY)
    assert {"demo", "demo-cam", "demo-gt", "voc", "voc-cam", "voc-gt", "coco"} <= set(config.runs)
    assert {"voc-official", "voc-lite", "voc-lite-cam", "voc-lite-gt"} <= set(config.runs)


def test_comparisons_differ_in_what_their_names_say() -> None:
    config = load_config(folder=REPOSITORY)
    for name in ("demo", "voc", "voc-lite"):
        run = config.run(name)
        plain, truth = config.run(f"{name}-cam"), config.run(f"{name}-gt")
        assert plain.stages["cam"] == as_method(run.stages["cam"], "cam")
        assert {s: plain.stages[s] for s in STAGES if s != "cam"} == {
            s: run.stages[s] for s in STAGES if s != "cam"
        }
        assert truth.stages["segmentation"] == replace(
            run.stages["segmentation"], labels="ground_truth"
        )
        assert config.index_owner(plain.name) == config.index_owner(truth.name) == name


def test_voc_has_the_published_settings() -> None:
    config = load_config(folder=REPOSITORY)
    voc = config.run("voc").stages["cam"]
    assert (voc.backbone.name, voc.backbone.output_stride) == ("resnet38", 8)
    assert (voc.epochs, voc.batch_size, voc.crop_px) == (40, 8, 256)
    assert (voc.long_side_min_px, voc.long_side_max_px, voc.freeze_batchnorm) == (384, 512, True)
    assert (voc.learning_rate, voc.weight_decay, voc.momentum) == (0.01, 5e-4, 5e-4)
    assert (voc.lr_power, voc.head_lr_factor) == (0.9, 1.0)
    assert (voc.acr.transposed_lr_factor, voc.acr.decoder_lr_factor) == (10.0, 1.0)
    assert (voc.acr.grid_min, voc.acr.grid_max) == (16, 24)
    assert (voc.acr.q_initial, voc.acr.q_decay) == (0.8, 0.01)
    assert tuple(to_dict(voc.acr.weights).values()) == (1.0, 0.2, 0.5, 0.3, 1.0, 0.8, 0.3)
    # Table A1: eight halvings, so that 256 px end in 1 x 1.
    assert (voc.decoded_px, voc.acr.decoder_depth, voc.acr.decoder_width) == (256, 8, 64)
    assert voc.acr.feature_channels == (64, 128, 256)
    export = config.run("voc").stages["export"]
    assert (export.scales, export.mirror) == ((0.5, 1.0, 1.5, 2.0), True)


def test_x_is_gathered_from_the_inputs_of_b5_and_b6_and_the_last_feature() -> None:
    from wsss.models import resnet38

    voc = load_config(folder=REPOSITORY).run("voc").stages["cam"]
    levels = voc.acr.feature_levels
    assert [resnet38.CHANNELS[level] for level in levels] == [512, 1024, 4096]
    assert {resnet38.STRIDES[level] for level in levels} == {8}


def test_official_differs_from_paper_in_what_the_method_says() -> None:
    config = load_config(folder=REPOSITORY)
    paper, official = config.run("voc").stages, config.run("voc-official").stages
    assert {stage for stage in STAGES if paper[stage] != official[stage]} == {"cam"}
    assert official["cam"] == replace(
        paper["cam"],
        head="official",
        acr=replace(paper["cam"].acr, preset="official", grid_min=16, grid_max=16),
    )


def test_coco_has_the_published_settings() -> None:
    config = load_config(folder=REPOSITORY)
    voc, coco = config.run("voc").stages, config.run("coco").stages
    weights = replace(
        voc["cam"].acr.weights, ru_target=0.2, ru_nontarget=0.2, cu_target=0.3, cu_nontarget=0.2
    )
    assert coco["cam"] == replace(
        voc["cam"],
        epochs=3,
        learning_rate=0.005,
        acr=replace(voc["cam"].acr, weights=weights),
    )
    assert coco["segmentation"] == replace(
        voc["segmentation"], learning_rate=5e-4, weight_decay=5e-5, batch_size=8, epochs=30
    )
    for stage in ("export", "labels", "irn", "pseudo_labels", "prediction", "evaluation"):
        assert coco[stage] == voc[stage]


def test_voc_v2_is_deeplab_v2_for_20k_iterations() -> None:
    stage = load_config(folder=REPOSITORY).run("voc-v2").stages["segmentation"]
    assert (stage.backbone.name, stage.backbone.output_stride) == ("resnet101", 8)
    assert (stage.head.name, stage.head.dilations()) == ("v2", (6, 12, 18, 24))
    assert (stage.crop_px, stage.batch_size, stage.learning_rate) == (321, 10, 2.5e-4)
    assert (stage.head_lr_factor, stage.head_bias_lr_factor) == (10.0, 20.0)
    assert (stage.weight_decay, stage.lr_power, stage.momentum) == (5e-4, 0.9, 0.9)
    assert stage.loss_scales == (1.0, 0.75, 0.5)
    # The number of epochs that comes closest, the last, short batch of each being left out.
    assert abs(10_582 // 10 * stage.epochs - 20_000) <= 10_582 // 10 / 2


def test_defaults_in_the_file_are_the_dataclasses() -> None:
    text = (REPOSITORY / "config.yaml").read_text()
    assert replace_defaults(text) == text, "renew it: wsss config defaults --into config.yaml"


def test_renewing_the_defaults_keeps_the_rest() -> None:
    text = (REPOSITORY / "config.yaml").read_text()
    broken = text.replace('    foreground_threshold: "auto"\n', "    foreground_threshold: 0.9\n")
    assert broken != text
    assert replace_defaults(broken) == replace_defaults(text)
    assert replace_defaults(text).startswith(text[: text.index("defaults:")])
    assert text[text.index("# Experiments") :] in replace_defaults(text)


def test_what_records_share_has_the_default_of_the_record_that_a_run_gets_unasked() -> None:
    defaults = read_yaml(Path(__file__).parents[2] / "config.yaml")["defaults"]
    assert defaults["pseudo_labels"]["method"] == "irn"
    assert defaults["pseudo_labels"]["background"] == "auto"
    for stage, registry in (("cam", METHODS), ("pseudo_labels", LABEL_METHODS)):
        record = registry.get(registry.default, where=stage)
        for key, value in to_dict(record.settings()).items():
            assert defaults[stage][key] == value, (stage, key)


def test_schema_file_has_not_drifted() -> None:
    path = REPOSITORY / "workflow" / "schemas" / "config.schema.json"
    assert json.loads(path.read_text()) == config_schema(), (
        f"renew it: wsss config schema --output {path.relative_to(REPOSITORY)}"
    )


def test_schema_accepts_the_configuration_and_refuses_typing_errors() -> None:
    validator = jsonschema.Draft202012Validator(config_schema())
    values = read_yaml(REPOSITORY / "config.yaml")
    validator.validate(values)
    for over in (
        {"runs": {"voc": {"cam": {"learning_rat": 1.0}}}},
        {"runs": {"voc": {"cam": {"epochs": "many"}}}},
        {"defaults": {"cam": {"method": 3}}},
        {"compute": {"thread": 2}},
        {"run": {}},
    ):
        assert not validator.is_valid(merge(values, over)), over


def test_local_compute_has_what_stages_take() -> None:
    ours, theirs = to_dict(LocalCompute()), dataclasses.asdict(FeatureCompute())
    assert ours.pop("gpus") == 1  # processes, each of which has what stages take
    per_stage = ours.pop("micro_batch")
    assert set(per_stage.values()) == {theirs.pop("micro_batch")}
    # What a run begins with is settled before a stage hears of it.
    assert (ours.pop("threads"), theirs.pop("threads")) == ("auto", 2)
    assert ours == theirs


def test_reading_the_configuration_does_not_load_pytorch() -> None:
    code = (
        "import sys; from wsss.project.config import load_config; load_config();"
        "import wsss.project.schema; print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_environment_file_mirrors_the_projects_dependencies() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((REPOSITORY / "envs" / "wsss.yaml").read_text())
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == project["dependencies"]


def test_layers_runs_and_parents() -> None:
    config = make(
        {
            "base": {**OWN, "cam": {"epochs": 3, "acr": {"q_initial": 0.5}}},
            "child": {"extends": "base", "cam": {"acr": {"q_decay": 0.0}}},
            "grandchild": {"extends": "child", "stop_after": "cam"},
        },
        defaults={"cam": {"epochs": 9, "learning_rate": 0.5}},
    )
    child = config.run("grandchild")
    assert child.parents == ("child", "base")
    assert (child.root, child.stop_after) == ("own", "cam")
    cam = child.stages["cam"]
    assert (cam.epochs, cam.learning_rate) == (3, 0.5)
    assert (cam.acr.q_initial, cam.acr.q_decay) == (0.5, 0.0)
    assert config.index_owner("grandchild") == "base"


def test_another_index_is_not_shared() -> None:
    config = make(
        {"base": OWN, "child": {"extends": "base", "index": {"classes": ["a", "b"]}}},
    )
    assert config.index_owner("child") == "child"


@pytest.mark.parametrize(
    ("values", "place", "words"),
    [
        ({"run": {}}, "run", ["'runs'?"]),
        ({"compute": {"thread": 1}}, "compute.thread", ["'threads'?"]),
        ({"compute": {"threads": 0}}, "compute.threads", ["1 or more"]),
        ({"compute": {"threads": "all"}}, "compute.threads", ["auto"]),
        ({"compute": {"device": "gpu"}}, "compute.device", ["auto, cpu, cuda"]),
        ({"roots": {"voc": 3}}, "roots.voc", ["a path"]),
        ({"defaults": {"cams": {}}}, "defaults.cams", ["'cam'?"]),
        ({"defaults": {"cam": {"epoch": 3}}}, "defaults.cam.epoch", ["'epochs'?"]),
        ({"runs": {"a": {**OWN, "cam": {"learning_rat": 1}}}}, "runs.a.cam.learning_rat", []),
        ({"runs": {"a": {**OWN, "segmentatoin": {}}}}, "runs.a.segmentatoin", ["segmentation"]),
        ({"runs": {"a": {**OWN, "root": "owm"}}}, "runs.a.root", ["'own'?"]),
        ({"runs": {"a": {"index": {"format": "folder"}}}}, "runs.a.root", ["missing"]),
        ({"runs": {"a": {"root": "own"}}}, "runs.a.index.format", ["missing"]),
        ({"runs": {"a": {**OWN, "stop_after": "cams"}}}, "runs.a.stop_after", ["'cam'?"]),
        ({"runs": {"a": {"extends": "b"}}}, "runs.a.extends", ["'b'"]),
        ({"runs": {"a": {"extends": "a"}}}, "runs.a.extends", ["circle"]),
        (
            {"runs": {"a": {"extends": "b"}, "b": {"extends": "c"}, "c": {"extends": "b"}}},
            "runs.a.extends",
            ["runs a -> b -> c -> b extend each other in a circle"],
        ),
        (
            {"runs": {"a": {"extends": "b"}, "b": {"extends": "a"}}},
            "runs.a.extends",
            ["runs a -> b -> a extend each other in a circle"],
        ),
        (
            {"runs": {"a": {**OWN, "export": {"refine": "patch-attention", "refine_from": "b"}}}},
            "runs.a.export.refine_from",
            ["'b'"],
        ),
        ({"runs": {"a/b": OWN}}, "runs.a/b", ["letters"]),
        ({"runs": {"a": {**OWN, "cam": {"epochs": 0}}}}, "runs.a.cam.epochs", ["1 or more"]),
        (
            {"runs": {"a": {**OWN, "cam": {"acr": {"decode_px": 100}}}}},
            "runs.a.cam.acr.decode_px",
            ["multiple of 32"],
        ),
        (
            {"runs": {"a": {**OWN, "cam": {"acr": {"weights": {"cu_target": -1}}}}}},
            "runs.a.cam.acr.weights.cu_target",
            ["0 or more: the adversarial terms carry their minus sign"],
        ),
        (
            {"runs": {"a": {**OWN, "prediction": {"scales": [1.0, 9.0]}}}},
            "runs.a.prediction.scales[1]",
            ["above 0, at most 4"],
        ),
        ({"runs": {1: {"root": "owm"}}}, "runs.1.root", ["'own'?"]),
        (
            {"runs": {"a": {**OWN, "prediction": {"scales": []}}}},
            "runs.a.prediction.scales",
            ["at least one"],
        ),
    ],
)
def test_errors_name_the_place(values: dict[str, Any], place: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        resolve({"roots": {"own": "x"}, **values})
    assert caught.value.where == place
    for word in words:
        assert word in str(caught.value)


def test_unknown_run_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'voc'"):
        load_config(folder=REPOSITORY).run("vok")


def test_missing_data_say_where_to_put_them(tmp_path: Path) -> None:
    config = make({"a": OWN}, roots={"own": str(tmp_path / "nothing")})
    with pytest.raises(UserError) as caught:
        config.existing_root("a")
    assert str(tmp_path / "nothing") in str(caught.value)
    assert "config.local.yaml" in str(caught.value) and "own" in str(caught.value)


def test_weight_files(tmp_path: Path) -> None:
    backbone = {"name": "resnet50", "weights": "mine", "output_stride": 16}
    runs = {"a": {**OWN, "cam": {"backbone": backbone}}}
    config = make(runs)
    assert config.weights_files("a", "export") == {}
    with pytest.raises(UserError) as caught:
        config.weights_files("a", "cam")
    assert caught.value.where == "runs.a.cam.backbone.weights"
    config = make(runs, weights={"mine": str(tmp_path / "w.pth")})
    with pytest.raises(UserError, match=r"weights: \{mine: "):
        config.weights_files("a", "cam")
    (tmp_path / "w.pth").touch()
    assert config.weights_files("a", "cam") == {"weights-file": tmp_path / "w.pth"}
    assert weights_keys(config.run("a").stages["irn"]) == []


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", "line 3", "not valid YAML"),
        ("a: 1\nb: 2\na: 3\n", "line 3 and line 1", "stands twice"),
        ("- 1\n- 2\n", "config.yaml", "not a mapping"),
        ("a: 1\nb:\n\tc: 2\n", "line 3", "not valid YAML"),
    ],
)
def test_yaml_errors_name_file_and_line(tmp_path: Path, text: str, place: str, words: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        load_config(folder=tmp_path)
    assert str(path) in str(caught.value.where)
    assert place in str(caught.value.where)


def test_scientific_notation_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: 1e-4\nb: 2E5\nc: e5\nd: '1e5'\n")
    assert read_yaml(path) == {"a": 1e-4, "b": 2e5, "c": "e5", "d": "1e5"}


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist") as caught:
        load_config(folder=tmp_path)
    assert caught.value.where == str(tmp_path / "config.yaml")


def test_a_local_file_that_is_a_link_to_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("runs: {}\n")
    load_config(folder=tmp_path)
    (tmp_path / "config.local.yaml").symlink_to("on-another-disk.yaml")
    with pytest.raises(UserError, match="does not exist") as caught:
        load_config(folder=tmp_path)
    assert caught.value.where == str(tmp_path / "config.local.yaml")


def test_texts_of_nested_overrides_become_values() -> None:
    given = {"a": {"b": "1", "c": "1.5", "d": "true", "e": "cuda", "f": ["2", "null"], "g": ""}}
    assert parse_texts(given) == {
        "a": {"b": 1, "c": 1.5, "d": True, "e": "cuda", "f": [2, None], "g": ""}
    }


def test_every_setting_has_a_description() -> None:
    schema = config_schema()
    for name, part in schema["$defs"].items():
        # Sections are described by their classes.
        assert part.get("description") or name in ("Sections", "RunSpec"), name
        for key, entry in part["properties"].items():
            assert entry.get("description") or "$ref" in entry or name == "Sections", (name, key)


def test_a_stages_settings_are_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "cam.json"
    path.write_text('{"method": "mct", "vit": {"depth": "deep"}}')
    with pytest.raises(UserError, match="a whole number") as caught:
        read_stage("cam", path)
    assert caught.value.where == f"{path}.vit.depth"
    path.write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        read_stage("cam", path)
    path.write_text(json.dumps(load_config(folder=REPOSITORY).run("voc-mct").settings("cam")))
    assert read_stage("cam", path) == load_config(folder=REPOSITORY).run("voc-mct").stages["cam"]
