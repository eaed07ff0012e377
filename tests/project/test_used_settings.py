"""A run's settings are those that it uses, and no others: what changes the rest changes no run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

from wsss.cam.methods.registry import METHODS
from wsss.errors import UserError
from wsss.project.config import ProjectConfig, load_config, resolve
from wsss.project.file import STAGES
from wsss.project.runs import merge
from wsss.project.yaml_files import read_yaml

FOLDER: dict[str, Any] = {"root": "own", "index": {"format": "folder"}}
# One run of every kind, each with nothing of its own but what makes it that.
RUNS: dict[str, Any] = {
    "acr": FOLDER,
    "cam": {"extends": "acr", "cam": {"method": "cam"}},
    "acr-vit": {"extends": "acr", "cam": {"method": "acr-vit"}},
    "mct": {"extends": "acr", "cam": {"method": "mct"}},
    "refined": {"extends": "mct", "export": {"refine": "patch-attention"}},
    "augmented": {"extends": "acr", "cam": {"rand_augment_operations": 2}},
    "no-srf": {"extends": "acr", "cam": {"acr": {"srf": False}}},
    "anchored": {
        "extends": "acr",
        "cam": {"acr": {"anchor": 0.3, "schedule": {"classifier_epochs": 1}}},
    },
    "guarded": {"extends": "acr", "cam": {"acr": {"guard": {"map_mean": 0.1}}}},
    "oc-cse": {"extends": "acr", "cam": {"method": "oc-cse"}},
    "recam": {"extends": "acr", "cam": {"method": "recam"}},
    "no-crf": {
        "extends": "acr",
        "prediction": {"crf": False},
        "self_labels": {"crf": False},
    },
    "voc": {"root": "own", "index": {"format": "voc"}},
    "largefov": {"extends": "acr", "segmentation": {"head": {"name": "largefov"}}},
    "v2": {"extends": "acr", "segmentation": {"head": {"name": "v2"}}},
    "clip": {"extends": "acr", "cam": {"method": "clip-es"}},
    "imported": {"extends": "acr", "cam": {"method": "imported"}},
    "masks": {
        "extends": "acr",
        "cam": {"method": "imported", "kind": "masks", "cams_from": "cam"},
    },
    "crf-labels": {"extends": "acr", "pseudo_labels": {"method": "crf"}},
    "par": {"extends": "crf-labels", "pseudo_labels": {"refine": "par"}},
}
TRANSFORMERS = {"acr-vit", "mct", "refined"}
CLIP = {"clip"}
MASKS = {"masks"}
IMPORTED = {"imported", *MASKS}
TRAINED = set(RUNS) - CLIP - IMPORTED
ADVERSARIAL = TRAINED - {"cam", "mct", "oc-cse", "recam", "refined"}
NOBODY: set[str] = set()
WALKED = set(RUNS) - {"crf-labels", "par"}
# Beginning of a setting's place -> runs that use it; every run uses the others.
USERS: dict[str, set[str]] = {
    # Of a transformer under the segmentation alone, which none of these runs has.
    **dict.fromkeys(
        (f"{stage}.backbone.{key}" for stage in ("cam", "irn", "segmentation")
         for key in ("layers", "frozen")),
        NOBODY,
    ),
    "index.tags_from": {"voc"},
    "index.classes": set(RUNS) - {"voc"},
    "index.val_share": set(RUNS) - {"voc"},
    **{f"index.{key}": set() for key in ("file", "train_file", "val_file", "test_file")},
    **dict.fromkeys(
        (f"cam.acr.{key}" for key in ("q_initial", "q_decay", "grid_min", "grid_max")),
        ADVERSARIAL - {"no-srf"},
    ),
    "cam.acr.anchor_from": {"anchored"},
    "cam.acr.balance": ADVERSARIAL - {"acr-vit"},
    "cam.acr.guard.map_mean": ADVERSARIAL - {"guarded"},
    "cam.acr.guard.window_steps": {"guarded"},
    "cam.acr.schedule.classifier_epochs": ADVERSARIAL - {"acr-vit", "anchored"},
    "cam.acr.schedule.reconstructor_epochs": ADVERSARIAL - {"acr-vit"},
    "cam.acr.schedule.joint_lr_factor": ADVERSARIAL - {"acr-vit"},
    "cam.acr": ADVERSARIAL,
    "cam.occse": {"oc-cse"},
    "cam.recam": {"recam"},
    "cam.vit": TRANSFORMERS,
    "cam.rand_augment_magnitude": {"augmented"},
    **dict.fromkeys(
        (f"cam.{key}" for key in (
            "backbone", "head", "head_lr_factor", "learning_rate", "lr_power", "momentum",
            "weight_decay", "freeze_batchnorm",
        )),
        TRAINED - {"mct", "refined"},
    ),
    **dict.fromkeys(
        (f"cam.{key}" for key in (
            "epochs", "batch_size", "crop_px", "long_side_min_px", "long_side_max_px",
            "erasing", "precision", "seed", "label_smoothing", "ema",
        )),
        TRAINED,
    ),
    **dict.fromkeys(
        (f"cam.{key}" for key in (
            "clip", "preset", "template", "background_words", "attention_layers",
            "box_threshold", "spread", "long_side_limit_px",
        )),
        CLIP,
    ),
    "cam.seeds": IMPORTED,
    **dict.fromkeys(
        (f"cam.{key}" for key in (
            "file", "background", "min_coverage", "min_share", "min_score", "keep_uncovered",
        )),
        MASKS,
    ),
    **dict.fromkeys(
        (f"pseudo_labels.{key}" for key in ("radius", "beta", "steps", "mirror", "precision")),
        WALKED,
    ),
    "pseudo_labels.confidence": {"crf-labels", "par"},
    "pseudo_labels.crf": {"crf-labels"},
    "pseudo_labels.preset": {"crf-labels"},
    "pseudo_labels.par_iterations": {"par"},
    "export.refine_from": {"refined"},
    "prediction.crf_settings": set(RUNS) - {"no-crf"},
    "self_labels.crf_settings": set(RUNS) - {"no-crf"},
    "segmentation.head.low_level_channels": set(RUNS) - {"largefov", "v2"},
    "segmentation.head.channels": set(RUNS) - {"v2"},
    "segmentation.head.dropout": set(RUNS) - {"v2"},
}  # fmt: skip
# Where the next best value would not fit the others, or is fixed by a run above.
VALUES: dict[str, Any] = {
    **{f"{stage}.backbone.layers": [0] for stage in ("cam", "irn", "segmentation")},
    "cam.clip.revision": "main",
    "cam.clip.weights": "key",
    "cam.preset": "published",
    "labels.foreground_threshold": 0.3,
    "labels.background_threshold": 0.05,
    "pseudo_labels.background": 0.25,
    "evaluation.cam_background": 0.3,
    "pseudo_labels.method": None,
    "pseudo_labels.preset": "published",
    "pseudo_labels.refine": None,
    "cam.method": None,
    "cam.kind": None,
    "cam.cams_from": None,
    "cam.acr.srf": None,
    "cam.rand_augment_operations": None,
    "cam.crop_px": 512,
    **{f"{stage}.backbone.output_stride": 32 for stage in ("cam", "irn", "segmentation")},
    "cam.backbone.name": "resnet50",
    "cam.backbone.weights": "none",
    "cam.acr.decode_px": 64,
    "cam.acr.anchor": None,
    "cam.acr.anchor_from": "cam",
    "cam.occse.anchor_from": "cam",
    "cam.acr.feature_levels": [0, 1, 2],
    "cam.acr.feature_channels": [16, 32, 48],
    "cam.vit.name": "deit_tiny_patch16_224",
    "cam.vit.weights": "key",
    "cam.vit.final_learning_rate": 2e-5,
    "cam.vit.warmup_learning_rate": 2e-6,
    "export.model_from": None,
    "export.refine": None,
    "export.refine_from": "acr-vit",
    "irn.backbone.name": "resnet50",
    "irn.backbone.weights": "none",
    "irn.crop_px": 600,
    "segmentation.backbone.name": "resnet50",
    "segmentation.backbone.weights": "none",
    "segmentation.head.name": None,
    "segmentation.head.rates": [7],
    "segmentation.labels": "ground_truth",
    "segmentation.loss_scales": [1.0, 0.5],
    "index.tags_from": "annotations",
    "prediction.crf": None,
    "self_labels.crf": None,
    "self_labels.model_from": "acr",
    "prediction.window_px": 64,
    "self_labels.window_px": 64,
}
# What is changed along with a setting, as it would be impossible alone.
BESIDE: dict[str, Any] = {
    f"{stage}.backbone.name": {stage: {"backbone": {"weights": "none"}}}
    for stage in ("cam", "irn", "segmentation")
}


def leaves(values: Mapping[str, Any], place: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        inner = f"{place}.{key}" if place else key
        if isinstance(value, Mapping):
            yield from leaves(value, inner)
        else:
            yield inner, value


def another(place: str, value: Any) -> Any:
    """Return another value that is possible, too; None where the runs above leave no other."""
    if place in VALUES:
        return VALUES[place]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return 0.9 if value in (0.0, 1.0) else value * 0.9
    if isinstance(value, (list, tuple)):
        return [*value, value[-1]] if value else ["a"]
    choices = {"paper": "official", "same": "float32", "auto": "float32"}
    return 3 if value is None else choices.get(value, f"{value}_2")


def nested(place: str, value: Any) -> dict[str, Any]:
    for key in reversed(place.split(".")):
        value = {key: value}
    return dict(value)


def settings(config: ProjectConfig) -> dict[str, dict[str, str]]:
    return {
        name: {stage: json.dumps(run.settings(stage)) for stage in STAGES}
        for name, run in config.runs.items()
    }


def changed(
    resolved: Callable[[dict[str, Any]], ProjectConfig], defaults: dict[str, Any]
) -> dict[str, set[str]]:
    """Return the runs that other defaults change, each with its changed stages."""
    before, after = settings(resolved({})), settings(resolved(defaults))
    found = {
        name: {stage for stage in STAGES if before[name][stage] != after[name][stage]}
        for name in before
    }
    return {name: stages for name, stages in found.items() if stages}


# The transformers' schedule fits no batch of 8 as it stands (docs/method-transformer.md).
DEFAULTS = merge(
    read_yaml(REPOSITORY / "config.yaml")["defaults"],
    {"cam": {"vit": {"learning_rate_at_512": 0.1, "warmup_epochs": 1.0}}},
)
LEAVES = dict(leaves(DEFAULTS))


ROOTS = {"own": "x", "seeds": "y", "seeds_2": "z"}


def runs_of_every_kind(defaults: dict[str, Any]) -> ProjectConfig:
    values = {"roots": ROOTS, "runs": deepcopy(RUNS), "weights": {"key": "w"}}
    return resolve({**values, "defaults": merge(DEFAULTS, defaults)})


@pytest.mark.parametrize("stage", STAGES)
def test_a_default_changes_the_runs_that_use_it_and_no_others(stage: str) -> None:
    seen = 0
    for place, value in LEAVES.items():
        if place.partition(".")[0] != stage or (other := another(place, value)) is None:
            continue
        users = next(
            (runs for key, runs in USERS.items() if f"{place}.".startswith(f"{key}.")), set(RUNS)
        )
        values = merge(BESIDE.get(place, {}), nested(place, other))
        assert changed(runs_of_every_kind, values) == {run: {stage} for run in users}, place
        seen += 1
    assert seen > 1


def test_every_exception_is_a_setting() -> None:
    for place in (*USERS, *VALUES, *BESIDE):
        assert any(f"{leaf}.".startswith(f"{place}.") for leaf in LEAVES), place


@pytest.mark.parametrize(
    ("place", "value", "users"),
    [
        (
            "cam.acr.q_initial",
            0.7,
            {
                *("demo", "demo-gt", "voc-lite", "voc-lite-gt"),
                *("voc-lite-acr2", "voc-lite-acr2-lpcam"),
            },
        ),
        ("lpcam.clusters", 6, None),
        ("cam.vit.depth", 3, {"voc-mct", "voc-vit"}),
        ("cam.erasing", 0.1, None),
    ],
)
def test_the_projects_own_runs(place: str, value: Any, users: set[str] | None) -> None:
    def project(defaults: dict[str, Any]) -> ProjectConfig:
        return load_config({"defaults": defaults}, folder=REPOSITORY)

    found = set(changed(project, nested(place, value)))
    assert found == users if users is not None else found > {"voc-cam", "demo"}


@pytest.mark.parametrize(
    ("run", "place", "words"),
    [
        (
            {"cam": {"method": "cam", "acr": {"q_initial": 0.5}}},
            "runs.a.cam.acr",
            ["the CAM method 'cam' has no setting 'acr'", "runs.a.cam.method to acr or acr-vit"],
        ),
        ({"cam": {"vit": {"depth": 2}}}, "runs.a.cam.vit", ["'acr' has no setting 'vit'"]),
        (
            {"export": {"refine_from": "a"}},
            "runs.a.export.refine_from",
            ["'refine_from' has no effect", "export.refine is 'none'"],
        ),
        (
            {"prediction": {"crf": False, "crf_settings": {"iterations": 3}}},
            "runs.a.prediction.crf_settings",
            ["'crf_settings' has no effect", "prediction.crf is false"],
        ),
    ],
)
def test_what_a_run_sets_itself_without_effect_is_an_error(
    run: dict[str, Any], place: str, words: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        resolve({"roots": {"own": "x"}, "runs": {"a": {**FOLDER, **run}}})
    assert caught.value.where == place
    for word in words:
        assert word in str(caught.value)
    # What it inherits is left out.
    resolve({"roots": {"own": "x"}, "runs": {"a": FOLDER}, "defaults": run | {"cam": {}}})


def test_a_child_of_an_ablation_takes_up_again_what_its_parent_left_out() -> None:
    runs = {
        "a": {**FOLDER, "cam": {"learning_rate": 0.5, "acr": {"q_decay": 0.3}}},
        "b": {"extends": "a", "cam": {"method": "cam"}},
    }
    rows = {"variants": {"acr": {"cam": {"method": "acr"}}}}
    config = resolve({"roots": {"own": "x"}, "runs": runs, "ablations": rows})
    assert "acr" not in config.run("b").settings("cam")
    child = config.run("b/ablation/acr").stages["cam"]
    assert (child.learning_rate, child.acr.q_decay) == (0.5, 0.3)
    assert config.ablation("a", "variants") == {"acr": "a"}


def test_the_plugins_of_a_project_are_known_before_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the plug-in registers is gone after the test.
    monkeypatch.setattr(METHODS, "_entries", dict(METHODS.entries()))
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "config.yaml").write_text(
        "plugins: [mine_for_the_test.py]\nroots: {own: a}\n"
        "runs: {a: {root: own, index: {format: folder}, cam: {method: mine, strength: 3}}}\n"
    )
    with pytest.raises(UserError, match="plug-in is not there"):
        load_config(folder=tmp_path)
    (tmp_path / "mine_for_the_test.py").write_text(
        "from typing import Literal\n"
        "from wsss.cam.config import CamSettings\n"
        "from wsss.cam.methods.registry import METHODS, CamMethod\n"
        "class Mine(CamSettings):\n"
        "    method: Literal['mine'] = 'mine'\n"
        "    strength: int = 1\n"
        "METHODS.register(CamMethod('mine', 'a method of the test', Mine))\n"
    )
    config = load_config(folder=tmp_path)
    assert config.run("a").settings("cam") == {"method": "mine", "strength": 3}
    assert config.plugins == (tmp_path / "mine_for_the_test.py",)
    with pytest.raises(UserError, match="did you mean 'strength'"):
        load_config({"runs": {"a": {"cam": {"strenght": 4}}}}, folder=tmp_path)
