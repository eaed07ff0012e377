"""Comparisons of methods: children by row and seed, the plan that makes them, and their table."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY, Project
from PIL import Image

from wsss.cli import main
from wsss.errors import UserError
from wsss.evaluation.methods import COLUMNS, method_rows
from wsss.evaluation.tables import COLUMNS as SCORE_COLUMNS
from wsss.project.config import ProjectConfig, load_config, resolve
from wsss.project.file import STAGES
from wsss.runtime.settings import replace

OWN: dict[str, Any] = {"root": "own", "index": {"format": "folder"}}
ROWS: dict[str, Any] = {"plain": "b", "mine": {}, "wide": {"cam": {"acr": {"decoder_width": 8}}}}
SEEDED = ("cam", "lpcam", "irn", "segmentation")


def make(runs: dict[str, Any], **methods: Any) -> ProjectConfig:
    own = {**OWN, "methods": {"seeds": [0, 4], "rows": ROWS, **methods}}
    other = {"extends": "a", "cam": {"method": "cam"}, "methods": None}
    return resolve({"roots": {"own": "x", "new": "y"}, "runs": {"a": own, "b": other, **runs}})


# ----- settings


def test_a_child_has_the_row_s_settings_and_its_seed_in_every_stage_that_draws() -> None:
    config = make({})
    child, row = config.run("a/methods/wide.seed-4"), config.run("a")
    acr = replace(row.stages["cam"].acr, decoder_width=8)
    assert child.stages["cam"] == replace(row.stages["cam"], acr=acr, seed=4)
    for stage in STAGES:
        seeded = "seed" in type(child.stages[stage]).model_fields
        assert seeded == (stage in SEEDED)
        if stage != "cam" and seeded:
            assert child.stages[stage] == replace(row.stages[stage], seed=4)
        elif stage != "cam":
            assert child.stages[stage] == row.stages[stage]
    assert (child.root, child.stop_after, child.parents) == ("own", "cam", ("a",))


def test_a_row_that_names_a_run_is_that_run_by_other_seeds_on_its_index() -> None:
    child = make({}).run("a/methods/plain.seed-4")
    assert child.stages["cam"].method == "cam" and child.stages["cam"].seed == 4
    assert child.parents == ("b", "a")
    assert make({}).index_owner(child.name) == "a"


def test_what_changes_nothing_is_the_run_that_it_is() -> None:
    assert make({}).methods("a") == {
        "plain": {0: "b", 4: "a/methods/plain.seed-4"},
        "mine": {0: "a", 4: "a/methods/mine.seed-4"},
        "wide": {0: "a/methods/wide.seed-0", 4: "a/methods/wide.seed-4"},
    }


def test_a_run_that_stops_before_the_comparison_does_is_not_its_row() -> None:
    config = make({"b": {"extends": "a", "stop_after": "cam"}}, stop_after="pseudo_label")
    assert config.methods("a")["plain"][0] == "a/methods/plain.seed-0"
    assert config.run("a/methods/plain.seed-0").stop_after == "pseudo_label"


def test_heirs_compare_the_same_and_may_take_rows_out() -> None:
    heir = {"extends": "a", "methods": {"seeds": [7], "rows": {"wide": None}}}
    assert make({"c": heir}).methods("c") == {
        "plain": {7: "c/methods/plain.seed-7"},
        "mine": {7: "c/methods/mine.seed-7"},
    }


LENT = {"extends": "b", "export": {"model_from": "b", "scales": [1.0]}}


def test_a_lent_classifier_is_trained_with_each_seed() -> None:
    rows = {**ROWS, "lent": "c", "own": {"export": {"model_from": "a", "scales": [0.5]}}}
    config = make({"c": {**LENT, "methods": None}}, rows=rows)
    assert config.methods("a")["lent"] == {0: "c", 4: "a/methods/lent.seed-4"}
    lent = {seed: config.run(f"a/methods/lent.seed-{seed}") for seed in (0, 4)}
    assert [run.classifier_run for run in lent.values()] == ["b", "a/methods/plain.seed-4"]
    assert [run.stages["cam"].seed for run in lent.values()] == [0, 4]
    assert lent[4].stages["cam"] == config.run("a/methods/plain.seed-4").stages["cam"]
    assert lent[4].stages["export"].scales == (1.0,)
    # The run itself is a row here, too.
    assert config.run("a/methods/own.seed-4").classifier_run == "a/methods/mine.seed-4"
    assert lent[4].name in config.method_runs


def test_seeds_of_one_training_are_none() -> None:
    config = make({"c": {**LENT, "methods": None}}, rows={"lent": "c", "mine": {}})
    with pytest.raises(UserError, match="all seeds of 'lent' would have one classifier") as caught:
        config.methods("a")
    assert caught.value.where == "runs.a.methods.rows.lent"
    assert "add this row:  b: b" in str(caught.value)
    alone = make({"c": {**LENT, "methods": None}}, rows={"lent": "c"}, seeds=[0])
    assert alone.methods("a") == {"lent": {0: "c"}}


@pytest.mark.parametrize(
    ("methods", "place", "words"),
    [
        ({"seeds": [1, 1]}, "runs.a.methods.seeds", "twice"),
        ({"seeds": [-1]}, "runs.a.methods.seeds[0]", "-1"),
        ({"seeds": [0.5]}, "runs.a.methods.seeds[0]", "0.5"),
        ({"rows": {"x.y": {}}}, "runs.a.methods.rows.x.y", "no name"),
        ({"rows": {"x": "z"}}, "runs.a.methods.rows.x", "unknown run 'z'"),
        ({"rows": {"x": {"cma": {}}}}, "runs.a.methods.rows.x.cma", "'cam'"),
        ({"stop_after": "irn"}, "runs.a.methods.stop_after", "'irn'"),
    ],
)
def test_errors_name_the_place(methods: dict[str, Any], place: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        make({}, **methods)
    assert caught.value.where == place
    assert words in str(caught.value)


def test_masks_and_their_segmentation_alone_leave_nothing_to_compare_before_it() -> None:
    truth = {"extends": "a", "segmentation": {"labels": "ground_truth"}}
    config = make({"c": truth | {"methods": {"stop_after": "pseudo_label"}}})
    with pytest.raises(UserError, match="stops after pseudo_label, and makes none") as caught:
        config.methods("c")
    assert "or cam, which the rows of a table have" in str(caught.value)
    assert make({"c": truth}).methods("c")["mine"][4] == "c/methods/mine.seed-4"
    for end in ("cam", "pseudo_label"):
        with pytest.raises(UserError, match=f"run 'c' stops after {end}") as caught:
            make({"c": truth | {"stop_after": end, "methods": None}})
        assert caught.value.where == "runs.c.stop_after"


def test_comparisons_that_are_none_are_errors() -> None:
    with pytest.raises(UserError, match="no methods to compare"):
        make({}, rows=dict.fromkeys(ROWS)).methods("a")
    far = {"root": "new", "index": {"format": "folder"}}
    with pytest.raises(UserError, match="'far' is of other data than 'a'"):
        make({"far": far}, rows={"far": "far"}).methods("a")
    with pytest.raises(UserError, match=r"'plain\.seed-4'"):
        make({}).run("a/methods/plain.seed-3")


def test_the_project_compares_methods_on_the_demo_and_on_voc() -> None:
    config = load_config(folder=REPOSITORY)
    for run in ("demo", "voc-lite"):
        found = config.methods(run)
        assert all(len(by_seed) == 3 for by_seed in found.values())
        assert run in [name for by_seed in found.values() for name in by_seed.values()]
        assert {config.index_owner(n) for by_seed in found.values() for n in by_seed.values()} == {
            run
        }


# ----- plans


METHODS = "runs={tiny: {methods: {seeds: [0, 1], rows: {plain: tiny-cam, acr: {}}}}}"


def test_plans_share_the_index_and_keep_no_reconstructors(project: Project) -> None:
    assert project.planned("results/tiny/methods.csv", "--config", METHODS) == {
        "methods_table": 1,
        "stage_config": 1 + 3 * 4,
        "index": 1,
        "masks": 1,
        "cam": 1,
        "cam_alone": 3,
        "count_shards": 4,
        "export": 4,
        "score_maps_cam": 4,
    }


def test_seeds_of_a_lent_classifier_are_trainings(project: Project) -> None:
    lent = "{extends: tiny-cam, export: {model_from: tiny-cam, scales: [0.5]}}"
    methods = METHODS.replace("acr: {}", "lent: lent").replace("runs={", f"runs={{lent: {lent}, ")
    jobs = project.planned("results/tiny/methods.csv", "--config", methods)
    assert (jobs["cam_alone"], jobs["export"], jobs.get("cam")) == (2, 4, None)


def test_rows_go_on_to_what_is_segmented_and_learnt_from(project: Project) -> None:
    taught = "{extends: tiny, segmentation: {labels: predicted}, self_labels: {model_from: tiny}}"
    bare = "{prediction: {crf: false}}"
    methods = (
        f"runs={{again: {taught}, tiny: {{methods: {{seeds: [1], stop_after: segmentation, "
        f"rows: {{again: again, bare: {bare}}}}}}}}}"
    )
    jobs = project.planned("results/tiny/methods.csv", "--config", methods)
    # The teacher, and two rows: one of them learns from its predictions.
    assert (jobs["segmentation"], jobs["self_labels"], jobs["pseudo_labels"]) == (3, 1, 2)
    assert jobs["prediction"] + jobs["prediction_crf"] == 2


@pytest.mark.parametrize("learns", ["ground_truth", "predicted"])
def test_rows_that_end_with_the_cams_have_them_whatever_is_learnt_from(
    learns: str, project: Project
) -> None:
    teacher = ", self_labels: {model_from: tiny-cam2}" if learns == "predicted" else ""
    methods = "methods: {seeds: [0, 1], rows: {a: {}}}"
    runs = (
        "runs={tiny-cam2: {extends: tiny, cam: {method: cam}}, other: {extends: tiny, "
        f"segmentation: {{labels: {learns}}}{teacher}, {methods}}}}}"
    )
    jobs = project.planned("results/other/methods.csv", "--config", runs)
    assert (jobs["export"], jobs["score_maps_cam"], jobs["methods_table"]) == (2, 2, 1)
    assert "segmentation" not in jobs
    row = project.planned("results/other/methods/a.seed-1/done", "--config", runs)
    assert row["export"] == row["score_maps_cam"] == 1 and "self_labels" not in row


def test_a_row_is_made_as_a_run_is(project: Project) -> None:
    methods = METHODS.replace("rows", "stop_after: segmentation, rows")
    folder = "results/tiny/methods/acr.seed-1"
    asked = ("--config", methods, "shards={prediction: 2}")
    plan = project.planned(f"{folder}/done", *asked)
    assert plan["prediction_sample"] == plan["panels"] == plan["report"] == 1
    part = project.planned(f"{folder}/shards/prediction/1-of-2", *asked)
    assert part["prediction_shard"] == part["segmentation"] == 1


# ----- tables


def write_scores(folder: Path, stage: str, ious: dict[str, str], split: str = "train") -> Path:
    lines = [",".join(SCORE_COLUMNS)]
    for selection, iou in ious.items():
        start = f"run,{stage},pseudo,{split},{selection},0.3"
        lines += [f"{start},background,0.9,0.9,0.9", f"{start},mean,{iou},0.7,0.6"]
    path = folder / "evaluation" / f"{stage}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def write_time(folder: Path, stage: str, seconds: float) -> None:
    (folder / "benchmarks").mkdir(parents=True, exist_ok=True)
    (folder / "benchmarks" / f"{stage}.tsv").write_text(f"s\tcpu_time\n{seconds}\t1.0\n")


def test_the_table_has_mean_sample_deviation_and_training_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ious, words = [0.41, 0.44, 0.5], []
    for seed, iou in enumerate(ious):
        folder = tmp_path / f"run-{seed}"
        cam = write_scores(folder, "cam", {"configured": "0.1", "best": str(iou)})
        seg = write_scores(folder, "segmentation", {"configured": "0.3"}, split="val")
        words += [f"acr.seed-{seed}.cam={cam}", f"acr.seed-{seed}.segmentation={seg}"]
        for stage, seconds in (("cam", 60), ("irn", 30), ("segmentation", 6 * seed)):
            write_time(folder, stage, seconds)
    alone = write_scores(tmp_path / "alone", "cam", {"configured": "0.2", "best": ""})
    output, plot = tmp_path / "methods.csv", tmp_path / "methods.png"
    words += [f"plain.seed-0.cam={alone}", "--output", str(output), "--plot", str(plot)]
    assert main(["methods-table", "--scores", *words]) == 0
    with open(output, newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert tuple(rows[0]) == COLUMNS
    assert [(r["method"], r["stage"], r["selection"], r["split"]) for r in rows] == [
        ("acr", "cam", "configured", "train"),
        ("acr", "cam", "best", "train"),
        ("acr", "segmentation", "configured", "val"),
        ("plain", "cam", "configured", "train"),
        ("plain", "cam", "best", "train"),
    ]
    best = rows[1]
    assert float(best["miou"]) == pytest.approx(sum(ious) / 3, abs=1e-6)
    assert float(best["miou_sd"]) == pytest.approx(np.std(ious, ddof=1), abs=1e-6)
    assert (best["seeds"], best["miou_by_seed"]) == ("0 1 2", "0.41 0.44 0.5")
    assert best["threshold_by_seed"] == "0.3 0.3 0.3"
    # The classifier alone; and all three, of 0, 6 and 12 seconds.
    assert (best["training_s"], rows[2]["training_s"]) == ("60.0", "96.0")
    assert rows[3]["miou_sd"] == rows[3]["training_s"] == rows[4]["miou"] == ""
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["acr", "cam", "train", "best", "3", "45.0", "4.6", "1.0"] in lines
    with Image.open(plot) as picture:
        assert picture.size[0] > 300


def test_seeds_that_were_scored_differently_are_refused(tmp_path: Path) -> None:
    first = write_scores(tmp_path / "a", "cam", {"configured": "0.4", "best": "0.5"})
    second = write_scores(tmp_path / "b", "cam", {"configured": "0.4"})
    with pytest.raises(UserError, match="seed 1 has scores of cam train configured"):
        method_rows({"acr": {"0": [first], "1": [second]}})
    empty = write_scores(tmp_path / "c", "cam", {})
    with pytest.raises(UserError, match="nothing here was scored"):
        method_rows({"acr": {"0": [empty]}})


@pytest.mark.slow
def test_a_comparison_end_to_end(project: Project) -> None:
    asked = ("results/tiny/methods.csv", "--config", METHODS)
    printed = project.make(*asked, by_itself="methods-table")
    folder = project.folder / "results" / "tiny"
    with open(folder / "methods.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [(row["method"], row["selection"]) for row in rows] == [
        (method, selection) for method in ("plain", "acr") for selection in ("configured", "best")
    ]
    assert all(float(row["training_s"]) > 0 for row in rows)
    assert "training, min" in printed
    child = folder / "methods" / "plain.seed-1"
    assert '"seed": 1' in (child / "config" / "cam.json").read_text()
    assert not (child / "index.csv").exists()
    assert (folder / "methods.png").is_file()
