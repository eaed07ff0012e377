"""Ablations: children of a run, the plan that makes them, and the tables of their scores."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, Project

from wsss.cli import main
from wsss.errors import UserError
from wsss.evaluation.ablation import PUBLISHED, collect_ablation, format_ablation
from wsss.evaluation.tables import COLUMNS as SCORE_COLUMNS
from wsss.project.config import ProjectConfig, load_config, resolve
from wsss.project.file import STAGES
from wsss.runtime.settings import replace

OWN: dict[str, Any] = {"root": "own", "index": {"format": "folder"}}
VARIANTS: dict[str, Any] = {
    "cam": {"cam": {"method": "cam"}},
    "no-srf": {"cam": {"acr": {"srf": False}}},
    "full": {},
}


def make(runs: dict[str, Any], **ablations: Any) -> ProjectConfig:
    values = {"roots": {"own": "data/own"}, "runs": runs}
    return resolve({**values, "ablations": {"variants": VARIANTS, **ablations}})


# ----- settings


def test_a_child_changes_what_its_row_says_and_nothing_else() -> None:
    config = make(
        {"a": OWN, "b": {"extends": "a", "cam": {"epochs": 3, "acr": {"decoder_width": 8}}}}
    )
    parent, child = config.run("b"), config.run("b/ablation/no-srf")
    cam = parent.stages["cam"]
    assert child.stages["cam"] == replace(cam, acr=replace(cam.acr, srf=False))
    assert cam.acr.srf and cam.acr.decoder_width == 8
    assert {s: child.stages[s] for s in STAGES if s != "cam"} == {
        s: parent.stages[s] for s in STAGES if s != "cam"
    }
    assert (child.name, child.root, child.stop_after) == ("b/ablation/no-srf", "own", "cam")
    assert child.parents == ("b", "a")
    assert config.index_owner(child.name) == "a"


def test_rows_that_change_nothing_are_the_run_itself() -> None:
    config = make({"a": {**OWN, "cam": {"acr": {"q_initial": 0.7}}}}, q=[0.5, 0.7, 1])
    assert config.ablation("a", "variants") == {
        "cam": "a/ablation/cam",
        "no-srf": "a/ablation/no-srf",
        "full": "a",
    }
    sweep = config.ablation("a", "q")
    assert sweep == {"q-0.50": "a/ablation/q-0.50", "q-0.70": "a", "q-1.00": "a/ablation/q-1.00"}
    values = [config.run(name).stages["cam"].acr.q_initial for name in sweep.values()]
    assert values == [0.5, 0.7, 1.0]


def test_rows_that_train_nothing_else_take_what_the_run_has() -> None:
    rows = {
        "best": {"evaluation": {"cam_background": 0.5}},
        "small": {"export": {"scales": [1.0]}, "cam": {"epochs": 6}},
        "lent": {"export": {"model_from": "b"}},
        "long": {"cam": {"epochs": 7}, "export": {"mirror": False}},
    }
    ablations = {"variants": {**rows, **dict.fromkeys(VARIANTS)}}
    a, b = ({**OWN, "cam": {"method": method}} for method in ("cam", "acr"))
    config = make({"a": {**a, "ablations": ablations}, "b": b})
    children = {row: config.run(f"a/ablation/{row}") for row in rows}
    assert {row: child.classifier_run for row, child in children.items()} == {
        "best": "a",
        "small": "a",
        "lent": "b",
        "long": "a/ablation/long",
    }
    assert [row for row, child in children.items() if child.lent_cams == "a"] == ["best"]
    assert set(config.ablation("a", "variants").values()) == {c.name for c in children.values()}


@pytest.mark.parametrize(
    "more",
    [{"cam": {"method": "clip-es"}}, {"segmentation": {"labels": "ground_truth"}}],
    ids=["trains nothing", "has no CAMs"],
)
def test_rows_of_a_run_without_a_classifier_take_none(more: dict[str, Any]) -> None:
    config = make({"a": {**OWN, **more}}, variants={"one": {"export": {"mirror": False}}})
    child = config.run("a/ablation/one")
    assert child.classifier_run == child.name and child.lent_cams is None


def test_a_sweep_of_q_feeds_remnants_even_where_the_run_does_not() -> None:
    config = make({"a": {**OWN, "cam": {"acr": {"srf": False}}}}, q=[0.5])
    assert config.ablation("a", "q") == {"q-0.50": "a/ablation/q-0.50"}
    assert config.run("a/ablation/q-0.50").stages["cam"].acr.srf


def test_a_run_may_change_its_rows() -> None:
    own = {"q": [0.25], "variants": {"cam": None, "no-srf": None, "other": "b"}}
    config = make({"a": {**OWN, "ablations": own}, "b": {"extends": "a"}}, q=[0.5, 0.6])
    assert config.ablation("a", "variants") == {"full": "a", "other": "b"}
    assert list(config.ablation("a", "q")) == ["q-0.25"]
    with pytest.raises(UserError, match="is the run 'b'"):
        config.run("a/ablation/other")


def test_rows_without_a_reconstructor_to_change_are_an_error() -> None:
    config = make({"a": {**OWN, "cam": {"method": "cam"}}}, q=[0.5])
    for table in ("q", "variants"):
        with pytest.raises(UserError, match="'cam' has no setting 'acr'"):
            config.ablation("a", table)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ablations", "place", "words"),
    [
        ({"p": [0.5]}, "ablations.p", "unknown key"),
        ({"q": 0.5}, "ablations.q", "not a list"),
        ({"q": [1.5]}, "ablations.q[0]", "1.5"),
        ({"q": [0.5, 0.5]}, "runs.a.ablations.q", "twice"),
        ({"variants": {"q-1": {}}}, "runs.a.ablations.variants.q-1", "no name"),
        ({"variants": {"a/b": {}}}, "runs.a.ablations.variants.a/b", "no name"),
        ({"variants": {"x": 3}}, "ablations.variants.x", "not a mapping"),
        ({"variants": {"x": "b"}}, "runs.a.ablations.variants.x", "unknown run 'b'"),
        ({"variants": {"x": {"cma": {}}}}, "ablations.variants.x.cma", "'cam'"),
        (
            {"variants": {"x": {"segmentation": {"epochs": 1}}}},
            "runs.a.ablations.variants.x.segmentation",
            "'segmentation' has no effect",
        ),
        (
            {"variants": {"x": {"index": {"val_share": 0.1}}}},
            "runs.a.ablations.variants.x.index",
            "'index' has no effect",
        ),
        (
            {"variants": {"x": {"cam": {"epoch": 1}}}},
            "ablations.variants.x.cam.epoch",
            "epochs",
        ),
    ],
)
def test_errors_name_the_place(ablations: dict[str, Any], place: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        make({"a": OWN}, **ablations)
    assert caught.value.where == place


def test_a_row_of_other_data_is_an_error() -> None:
    far = {"root": "own", "index": {"format": "folder", "val_share": 0.5}}
    config = make({"a": OWN, "far": far}, variants={"far": "far"})
    with pytest.raises(UserError, match="'far' is of other data than 'a'") as caught:
        config.ablation("a", "variants")
    assert caught.value.where == "runs.a.ablations.variants.far"


def test_an_unknown_row_names_the_nearest() -> None:
    config = make({"a": OWN}, q=[0.5])
    with pytest.raises(UserError, match="'no-srf'"):
        config.run("a/ablation/no-sfr")
    with pytest.raises(UserError, match=r"'q-0\.50'"):
        config.run("a/ablation/q-0.5")


def test_impossible_settings_of_a_child_name_it() -> None:
    config = make({"a": OWN}, variants={"wide": {"cam": {"acr": {"grid_min": 99}}}})
    with pytest.raises(UserError) as caught:
        config.ablation("a", "variants")
    assert caught.value.where is not None
    assert caught.value.where.startswith("runs.a/ablation/wide.cam")


def test_the_project_sweeps_what_the_paper_does() -> None:
    config = load_config(folder=REPOSITORY)
    sweep = config.ablation("voc", "q")
    assert list(sweep) == [f"q-{q:.2f}" for q in (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)]
    assert [name for name in sweep.values() if name == "voc"] == [sweep["q-0.80"]]
    assert list(config.ablation("demo", "variants")) == ["cam", "no-srf", "constant-q", "full"]


# ----- plans


def test_plans_share_the_index_and_stop_at_the_cam_score(project: Project) -> None:
    sweep = project.planned("results/tiny/ablation_q.csv")
    # The run's own q is among the seven; the others' reconstructors are not kept.
    assert sweep == {
        "ablation_table_ablation_q": 1,
        "stage_config": 1 + 3 * 7,
        "index": 1,
        "masks": 1,
        "cam": 1,
        "cam_alone": 6,
        "count_shards": 7,
        "export": 7,
        "score_maps_cam": 7,
    }
    fewer = 'runs={tiny: {ablations: {q: ["0.8", "0.4"]}}}'
    plan = project.planned("results/tiny/ablation_q.csv", "--config", fewer)
    assert plan["score_maps_cam"] == 2
    done = project.snakemake("-n", "results/tiny/ablation/q-0.60/evaluation/cam.csv")
    assert "results/tiny/ablation/q-0.60/cam/model.safetensors" in done.stdout
    assert "results/tiny/index.csv" in done.stdout
    assert "results/tiny/ablation/q-0.60/index.csv" not in done.stdout


@pytest.mark.parametrize(
    ("row", "made"),
    [
        ('{evaluation: {cam_background: "0.4"}}', {}),
        ("{evaluation: {cam_background: auto}}", {"choose_thresholds": 1}),
        ("{export: {mirror: false}}", {"export": 1, "count_shards": 1}),
    ],
)
def test_plans_train_and_export_no_row_that_changes_neither(
    project: Project, row: str, made: dict[str, int]
) -> None:
    variants = f"{{cam: null, no-srf: null, constant-q: null, other: {row}}}"
    changes = f"runs={{tiny: {{ablations: {{variants: {variants}}}}}}}"
    plan = project.planned("results/tiny/ablation.csv", "--config", changes)
    assert plan.pop("score_maps_cam") == 2 and plan.pop("cam") == 1
    assert "cam_alone" not in plan
    assert {rule: plan[rule] for rule in ("export", "count_shards")} == {
        rule: 1 + made.get(rule, 0) for rule in ("export", "count_shards")
    }
    assert plan.get("choose_thresholds", 0) == made.get("choose_thresholds", 0)


# ----- tables


def write_scores(path: Path, run: str, configured: str, best: str, *, split: str = "train") -> Path:
    lines = [",".join(SCORE_COLUMNS)]
    for selection, threshold, iou in (("configured", "0.28", configured), ("best", "0.3", best)):
        start = f"{run},cam,pseudo,{split},{selection},{threshold}"
        lines += [f"{start},background,0.9,0.9,0.9", f"{start},mean,{iou},0.7,0.6"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_table_holds_configured_and_best_beside_the_published(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write_scores(tmp_path / "a.csv", "r/ablation/q-0.60", "0.481234", "0.5")
    second = write_scores(tmp_path / "b.csv", "r", "", "0.517")
    output = tmp_path / "ablation_q.csv"
    words = [f"q-0.60={first}", f"q-0.62={second}", "--output", str(output)]
    assert main(["ablation-table", "--scores", *words]) == 0
    with open(output, newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert rows[0] == {
        "variant": "q-0.60",
        "run": "r/ablation/q-0.60",
        "split": "train",
        "selection": "configured",
        "threshold": "0.28",
        "miou": "0.481234",
        "precision": "0.7",
        "recall": "0.6",
        # Table A2.
        "published_miou": "0.597",
    }
    assert [(r["variant"], r["selection"], r["miou"], r["published_miou"]) for r in rows[1:]] == [
        ("q-0.60", "best", "0.5", "0.597"),
        ("q-0.62", "configured", "", ""),
        ("q-0.62", "best", "0.517", ""),
    ]
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[2] == ["q-0.60", "train", "48.1", "@", "0.28", "50.0", "@", "0.3", "59.7"]
    assert lines[3] == ["q-0.62", "train", "-", "51.7", "@", "0.3", "-"]


def test_published_scores_are_those_of_the_documentation() -> None:
    text = (REPOSITORY / "docs" / "method.md").read_text()
    found = re.search(r"Table A2, seeds by the initial q: ([\d., \n]+);", text)
    assert found is not None
    words = found[1].replace(",", "").split()
    said = {f"q-{q}": float(miou) for q, miou in zip(words[::2], words[1::2], strict=True)}
    assert said == PUBLISHED and len(said) == 7


def test_variants_have_no_published_column(tmp_path: Path) -> None:
    scores = {"cam": write_scores(tmp_path / "a.csv", "r", "0.4", "0.5")}
    rows = collect_ablation(scores=scores, output=tmp_path / "t.csv")
    assert "published" not in format_ablation(rows)


def test_scores_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    scores = {
        "a": write_scores(tmp_path / "a.csv", "a", "0.4", "0.5"),
        "b": write_scores(tmp_path / "b.csv", "b", "0.4", "0.5", split="val"),
    }
    with pytest.raises(UserError, match="different image sets: train, val"):
        collect_ablation(scores=scores, output=tmp_path / "t.csv")
    text = scores["a"].read_text().replace("best", "other")
    scores["a"].write_text(text)
    with pytest.raises(UserError, match="configured, other"):
        collect_ablation(scores=scores, output=tmp_path / "t.csv")
    assert not (tmp_path / "t.csv").exists()


@pytest.mark.slow
def test_a_sweep_and_its_figures_end_to_end(project: Project) -> None:
    changes = 'runs={tiny: {ablations: {q: ["0.8", "0.4"]}}}'
    folder = project.folder / "results" / "tiny"
    kept = ["figures/reconstructions.sha256", "figures/versus-tiny-cam/cam.sha256"]
    targets = ["ablation_q.csv", *kept]
    new = "ablation-table figures reconstructions"
    asked = [*(f"results/tiny/{t}" for t in targets), "--config", changes]
    printed = project.make(*asked, by_itself=new)
    assert "q-0.40" in printed and "published" in printed
    with open(folder / "ablation_q.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [(row["variant"], row["run"]) for row in rows[::2]] == [
        ("q-0.80", "tiny"),
        ("q-0.40", "tiny/ablation/q-0.40"),
    ]
    child = folder / "ablation" / "q-0.40"
    assert '"q_initial": 0.4' in (child / "config" / "cam.json").read_text()
    assert not (child / "index.csv").exists()
    assert not (child / "cam" / "reconstructor.safetensors").exists()
    for name in ("reconstructions", "versus-tiny-cam/cam"):
        assert len(list((folder / "figures" / name).glob("*.png"))) == 3


@pytest.mark.parametrize(
    ("lines", "said"), [(0, "no CAMs were scored here"), (2, "only the means of configured")]
)
def test_tables_without_their_means_say_what_is_missing(
    tmp_path: Path, lines: int, said: str
) -> None:
    path = write_scores(tmp_path / "a.csv", "r", "0.4", "0.5")
    path.write_text("\n".join(path.read_text().splitlines()[: 1 + lines]) + "\n")
    with pytest.raises(UserError, match=said) as refused:
        collect_ablation(scores={"cam": path}, output=tmp_path / "t.csv")
    assert "masks" in (refused.value.expected or "") and not (tmp_path / "t.csv").exists()
