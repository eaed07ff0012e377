"""Real Snakemake: what a change reruns, and what it does not."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from conftest import Project

MIOU = "results/tiny/miou.csv"
AFTER_SEGMENTATION = {
    "segmentation",
    "count_shards",
    "prediction_crf",
    "prediction_sample",
    "score_labels_segmentation",
    "score_labels_segmentation_crf",
    "panels",
    "collect",
}
AFTER_LABELS = {
    "labels",
    "irn",
    "pseudo_labels",
    "score_maps_pseudo_label",
    *AFTER_SEGMENTATION,
}
AFTER_CAM = {"cam", "export", "score_maps_cam", *AFTER_LABELS}
EVERYTHING = {"index", "masks", "stage_config", *AFTER_CAM}


# ----- plans, of which nothing needs to be made


def test_plan_of_a_whole_run(project: Project) -> None:
    some = {"stage_config": 9, "count_shards": 4}
    assert project.planned(MIOU) == {**dict.fromkeys(EVERYTHING, 1), **some}


def test_plans_of_comparisons_share_the_index_and_stop_early(project: Project) -> None:
    plain = project.planned("results/tiny-cam/miou.csv")
    assert set(plain) == {
        *("stage_config", "index", "masks", "cam_alone", "count_shards", "export"),
        *("score_maps_cam", "panels", "collect"),
    }
    truth = project.planned("results/tiny-gt/miou.csv")
    assert set(truth) == {
        *("stage_config", "index", "masks", "masks_trained", "segmentation", "count_shards"),
        "prediction_crf",
        *("score_labels_segmentation", "score_labels_segmentation_crf", "panels", "collect"),
    }
    both = project.planned(MIOU, "results/tiny-cam/miou.csv", "results/tiny-gt/miou.csv")
    assert both["index"] == both["masks"] == 1
    assert (both["cam"], both["cam_alone"], both["segmentation"]) == (1, 1, 2)


def test_training_never_asks_for_masks(project: Project) -> None:
    shutil.rmtree(project.folder / "data" / "tiny" / "masks")
    plan = project.planned("results/tiny/segmentation/model.safetensors")
    assert "segmentation" in plan and "masks" not in plan


def test_a_run_is_done_with_all_its_results(project: Project) -> None:
    plan = project.planned("results/tiny/done")
    assert set(plan) - set(project.planned(MIOU)) == {"score_tags", "report", "done"}
    short = project.planned("results/tiny-cam/done")
    assert "score_tags" not in short and short["done"] == short["report"] == 1


def test_a_mixture_needs_pseudo_labels_and_masks(project: Project) -> None:
    changed = "runs={tiny: {segmentation: {labels: mixed}}}"
    model = "results/tiny/segmentation/model.safetensors"
    plan = project.planned(model, "--config", changed)
    assert {"pseudo_labels", "masks_trained", "segmentation"} <= set(plan)
    # Without one of a training picture there would be no mixture, which is said before any work.
    for number in range(8):
        (project.folder / f"data/tiny/masks/image_{number:02d}.png").unlink()
    done = project.snakemake("--dry-run", model, "--config", changed)
    assert done.returncode != 0
    assert "none of the 8 training pictures has a mask" in done.stdout
    assert "segmentation.labels: pseudo" in done.stdout


def test_the_demo_makes_its_own_data(project: Project) -> None:
    plan = project.planned()
    assert plan["demo_data"] == 1 and plan["cam"] == 1
    compare = project.planned("demo_compare")
    assert (compare["demo_data"], compare["index"], compare["collect"]) == (1, 1, 3)


def test_missing_data_are_an_error_only_for_what_needs_them(project: Project) -> None:
    done = project.snakemake("-n", "results/voc-lite/miou.csv")
    assert done.returncode != 0
    for words in ("data set of run 'voc-lite' is not there", "data/VOC2012", "roots: {voc:"):
        assert words in done.stdout
    done = project.snakemake("-n", "results/voc/cam/model.safetensors")
    assert "resnet38d_imagenet" in done.stdout and "weights:" in done.stdout


def test_wrong_settings_are_named_with_their_place(project: Project) -> None:
    done = project.snakemake("-n", "--config", "runs={tiny: {cam: {learning_rat: 1}}}")
    assert done.returncode != 0
    for words in ("runs.tiny.cam.learning_rat", "did you mean 'learning_rate'?"):
        assert words in done.stdout


def test_lint(project: Project) -> None:
    done = project.run("snakemake", "--lint")
    assert "Congratulations, your workflow is in a good condition!" in done.stdout, done.stdout


# ----- a run that was made once; every test leaves it as it found it


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("made"))
    # Without anything imported beforehand.
    done = project.run("snakemake", "--cores", "2", MIOU)
    assert done.returncode == 0, done.stdout
    return project


@contextmanager
def edited(path: Path, old: str, new: str) -> Iterator[None]:
    text = path.read_text()
    assert text.count(old) >= 1, f"{old!r} is not in {path}"
    path.write_text(text.replace(old, new, 1))
    try:
        yield
    finally:
        path.write_text(text)


@contextmanager
def setting(project: Project, stage: str, key: str, value: object) -> Iterator[None]:
    path = project.folder / "config.local.yaml"
    text = path.read_text()
    values = yaml.safe_load(text)
    values["runs"]["tiny"].setdefault(stage, {})[key] = value
    path.write_text(yaml.safe_dump(values))
    try:
        yield
    finally:
        path.write_text(text)


@pytest.mark.slow
def test_a_second_run_has_nothing_to_do(made: Project) -> None:
    assert "Nothing to be done" in made.make(MIOU)


@pytest.mark.slow
def test_a_removed_intermediate_file_is_made_again_when_it_is_asked_for(made: Project) -> None:
    store = made.folder / "results" / "tiny" / "cams.h5"
    aside = store.rename(store.with_name("aside.h5"))
    try:
        # What was made of it stands: nobody misses it, as docs/faults.md says.
        assert made.planned(MIOU) == {}
        assert set(made.planned("results/tiny/cams.h5")) == {"export"}
    finally:
        aside.rename(store)


@pytest.mark.slow
def test_what_a_run_leaves(made: Project) -> None:
    results = made.folder / "results" / "tiny"
    for name in (
        *("index.csv", "classes.txt", "masks.csv", "config/cam.json", "cam/model.safetensors"),
        *("cam/work/metrics.jsonl", "cams.h5", "irn/model.safetensors", "walked.h5"),
        *("segmentation/model.safetensors", "evaluation/cam_curve.png", "miou.csv"),
        *("logs/cam.log", "benchmarks/cam.tsv"),
    ):
        assert (results / name).is_file(), name
    for name in ("irn/labels", "pseudo_labels", "predictions", "predictions_crf", "panels"):
        assert list((results / name).glob("*.png")), name
    # Progress with its ETA is in the log.
    assert "ETA" in (results / "logs" / "cam.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "key", "value", "expected"),
    [
        ("segmentation", "learning_rate", 0.002, AFTER_SEGMENTATION),
        ("labels", "foreground_threshold", 0.35, AFTER_LABELS),
        ("cam", "seed", 1, AFTER_CAM),
        (
            "pseudo_labels",
            "steps",
            4,
            {"pseudo_labels", "score_maps_pseudo_label", *AFTER_SEGMENTATION},
        ),
        (
            "evaluation",
            "cam_background",
            0.5,
            {"score_maps_cam", "score_maps_pseudo_label", "collect"},
        ),
        ("prediction", "mirror", True, AFTER_SEGMENTATION - {"segmentation"}),
    ],
)
def test_a_setting_reruns_its_stage_and_what_follows(
    made: Project, stage: str, key: str, value: object, expected: set[str]
) -> None:
    with setting(made, stage, key, value):
        assert set(made.planned(MIOU)) == {"stage_config", *expected}
    assert made.planned(MIOU) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (
            "wsss/irn/random_walk.py",
            {"pseudo_labels", "score_maps_pseudo_label", *AFTER_SEGMENTATION},
        ),
        ("wsss/segmentation/losses.py", AFTER_SEGMENTATION),
        ("wsss/evaluation/tables.py", None),
        ("wsss/cam/losses.py", None),
        ("wsss/cli.py", set()),
    ],
)
def test_a_module_reruns_the_stages_that_import_it(
    made: Project, module: str, expected: set[str] | None
) -> None:
    path = made.folder / module
    with edited(path, "\n", "\n# A comment more.\n"):
        assert made.planned(MIOU) == {}
    text = path.read_text()
    path.write_text(text + "\n_ANOTHER = 1\n")
    try:
        plan = set(made.planned(MIOU))
    finally:
        path.write_text(text)
    if expected is None:
        expected = downstream_of_importers(made, module)
    assert plan == expected
    assert made.planned(MIOU) == {}


# What they run is imported, or chosen by the settings of the run.
FIRST_RULES = {
    "wsss.data.indexing": {"index", "masks"},
    "wsss.data.formats.folder": {"index", "masks"},
    "wsss.cam.training": {"cam"},
    "wsss.cam.methods.acr": {"cam", "export"},
    "wsss.cam.export": {"export"},
    "wsss.irn.labels": {"labels"},
    "wsss.irn.training": {"irn"},
    "wsss.irn.pseudo_labels": {"pseudo_labels"},
    "wsss.segmentation.training": {"segmentation"},
    "wsss.segmentation.prediction": {"prediction_crf", "prediction_sample"},
    "wsss.evaluation.scoring": {
        *(
            "score_maps_cam",
            "score_maps_pseudo_label",
            "score_labels_segmentation",
            "score_labels_segmentation_crf",
        )
    },
    "wsss.figures.panels": {"panels"},
    "wsss.evaluation.tables": {"collect"},
}
FOLLOWERS = {
    "index": EVERYTHING - {"stage_config"},
    "masks": {
        "score_maps_cam",
        "score_maps_pseudo_label",
        "score_labels_segmentation",
        "score_labels_segmentation_crf",
    }
    | {"panels", "collect"},
    "cam": AFTER_CAM,
    "export": AFTER_CAM - {"cam"},
    "score_maps_cam": {"collect"},
    "labels": AFTER_LABELS,
    "irn": AFTER_LABELS - {"labels"},
    "pseudo_labels": AFTER_LABELS - {"labels", "irn"},
    "score_maps_pseudo_label": {"collect"},
    "segmentation": AFTER_SEGMENTATION,
    "prediction_crf": {
        "count_shards",
        "score_labels_segmentation",
        "score_labels_segmentation_crf",
        "collect",
    },
    "prediction_sample": {"panels", "collect"},
    "score_labels_segmentation": {"collect"},
    "score_labels_segmentation_crf": {"collect"},
    "panels": {"collect"},
    "collect": {"collect"},
}


def downstream_of_importers(project: Project, module: str) -> set[str]:
    """Follow the imports with Python's own finder, rather than with the code under test."""
    from modulefinder import ModuleFinder

    name = module.removesuffix(".py").replace("/", ".")
    expected: set[str] = set()
    for stage, rules in FIRST_RULES.items():
        # Only our package's sources: the finder would otherwise read all of PyTorch.
        finder = ModuleFinder(path=[str(project.folder)])
        finder.run_script(str(project.folder / (stage.replace(".", "/") + ".py")))
        if name in finder.modules or name == stage:
            for rule in rules:
                expected |= {rule} | FOLLOWERS[rule]
    return expected


@pytest.mark.slow
def test_touching_files_reruns_nothing(made: Project) -> None:
    # In an order that makes inputs newer than what was made of them.
    for path in sorted(made.folder.rglob("*"), reverse=True):
        if ".snakemake" not in path.parts:
            path.touch()
    assert made.planned(MIOU) == {}
    for path in sorted((made.folder / "results").rglob("*")):
        path.touch()
    assert made.planned(MIOU) == {}


@pytest.mark.slow
def test_local_settings_rerun_nothing(made: Project) -> None:
    data = made.folder / "data"
    (data / "tiny").rename(data / "moved")
    local = made.folder / "config.local.yaml"
    try:
        with edited(local, "data/tiny", "data/moved"), edited(local, "threads: 1", "threads: 2"):
            assert made.planned(MIOU) == {}
    finally:
        (data / "moved").rename(data / "tiny")
    assert made.planned(MIOU) == {}
    assert made.planned(MIOU, "--config", "compute={workers: 3, deterministic: false}") == {}


@pytest.mark.slow
def test_an_added_image_reruns_what_it_must(made: Project) -> None:
    root = made.folder / "data" / "tiny"
    for kind in ("images", "masks"):
        shutil.copy(root / kind / "image_00.png", root / kind / "image_99.png")
    try:
        with edited(root / "labels.csv", "\n", "\nimage_99.png,blue,train\n"):
            assert set(made.planned(MIOU)) == EVERYTHING - {"stage_config"}
    finally:
        for kind in ("images", "masks"):
            (root / kind / "image_99.png").unlink()
    assert made.planned(MIOU) == {}


@pytest.mark.slow
def test_masks_rerun_scores_and_never_training(made: Project) -> None:
    mask = made.folder / "data" / "tiny" / "masks" / "image_01.png"
    content = mask.read_bytes()
    mask.write_bytes(content + b"a longer file")
    try:
        plan = set(made.planned(MIOU))
    finally:
        mask.write_bytes(content)
    assert plan == {"masks", *FOLLOWERS["masks"]}


@pytest.mark.slow
def test_a_failed_stage_leaves_nothing_and_the_next_run_resumes_there(project: Project) -> None:
    module = project.folder / "wsss" / "cam" / "export.py"
    marker = "    device = setup(compute, seed=0)\n"
    with edited(module, marker, marker + '    raise OSError("the disk is on fire")\n'):
        done = project.snakemake("results/tiny/irn/labels.sha256")
    assert done.returncode != 0
    assert "the disk is on fire" in done.stdout
    results = project.folder / "results" / "tiny"
    assert "the disk is on fire" in (results / "logs" / "export.log").read_text()
    assert (results / "cam" / "model.safetensors").exists()
    # What stays beside it says that the stage failed; no part of an output does.
    assert [path.name for path in results.glob("*cams.h5*")] == [".cams.h5.heartbeat.json"]
    model = hashlib.sha256((results / "cam" / "model.safetensors").read_bytes()).hexdigest()
    assert set(project.planned("results/tiny/irn/labels.sha256")) == {
        *("export", "stage_config", "count_shards", "labels"),
    } - ({"stage_config"} if (results / "config" / "labels.json").exists() else set())
    project.make("results/tiny/irn/labels.sha256")
    assert list((results / "irn" / "labels").glob("*.png"))
    after = hashlib.sha256((results / "cam" / "model.safetensors").read_bytes()).hexdigest()
    assert after == model
