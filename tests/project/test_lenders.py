"""Runs that use what another run trains: named, there, and not in a circle."""

from __future__ import annotations

from typing import Any

import pytest

from wsss.errors import UserError
from wsss.project.config import ProjectConfig, resolve
from wsss.project.run_folders import no_self_labels


def project(**runs: Any) -> ProjectConfig:
    base = {"root": "own", "index": {"format": "folder"}}
    return resolve({"roots": {"own": "x"}, "runs": {k: {**base, **v} for k, v in runs.items()}})


def taught_by(run: str | None, **more: Any) -> dict[str, Any]:
    return {"segmentation": {"labels": "predicted"}, "self_labels": {"model_from": run}, **more}


@pytest.mark.setting("self_labels.model_from")
def test_several_rounds_are_several_runs() -> None:
    config = project(a={}, b=taught_by("a"), c={"extends": "b", "self_labels": {"model_from": "b"}})
    assert [config.run(name).labels_run for name in "abc"] == [None, "a", "b"]
    # What is inherited matters only where the labels are predicted.
    back = {"extends": "b", "segmentation": {"labels": "pseudo"}}
    assert project(a={}, b=taught_by("a"), d=back).run("d").labels_run is None


@pytest.mark.parametrize(
    ("runs", "place", "words"),
    [
        ({"a": taught_by(None)}, "a.self_labels.model_from", "nothing says by which"),
        (
            {"a": {}, "b": {"self_labels": {"model_from": "a"}}},
            "b.self_labels.model_from",
            "has no effect: segmentation.labels of run 'b' is 'pseudo'",
        ),
        ({"a": {}, "b": taught_by("aa")}, "b.self_labels.model_from", "did you mean 'a'"),
        ({"a": taught_by("a")}, "a.self_labels.model_from", "a -> a take their labels from each"),
        (
            {"a": taught_by("b"), "b": taught_by("a")},
            "a.self_labels.model_from",
            "a -> b -> a take their labels from each other in a circle",
        ),
        (
            {"a": {"stop_after": "pseudo_label"}, "b": taught_by("a")},
            "b.self_labels.model_from",
            "'a' stops after pseudo_label and trains no segmentation",
        ),
        (
            {"a": {}, "b": taught_by("a", stop_after="cam")},
            "b.stop_after",
            "stops after the CAMs, and has none",
        ),
    ],
)
def test_a_teacher_that_cannot_be(runs: dict[str, Any], place: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        project(**runs)
    assert caught.value.where == f"runs.{place}" and words in str(caught.value)


def lent_by(run: str, **more: Any) -> dict[str, Any]:
    return {"export": {"model_from": run}, **more}


@pytest.mark.setting("export.model_from")
def test_a_lent_classifier_brings_its_settings() -> None:
    own = {"cam": {"method": "cam", "learning_rate": 0.5}}
    config = project(a=own, b=lent_by("a"), c={"extends": "b", "export": {"model_from": None}})
    assert [config.run(name).classifier_run for name in "abc"] == ["a", "a", "c"]
    assert config.run("b").stages["cam"] == config.run("a").stages["cam"]
    assert config.run("c").stages["cam"].method == "acr"
    # What the maps can be refined with is the lender's, too.
    with pytest.raises(UserError, match="'mct', has no features"):
        vit = {"warmup_epochs": 1.0, "learning_rate_at_512": 0.1}
        project(
            a={"cam": {"method": "mct", "vit": vit}},
            b={"export": {"model_from": "a", "refine": "lpcam"}},
        )


@pytest.mark.parametrize(
    ("runs", "place", "words"),
    [
        ({"a": {}, "b": lent_by("aa")}, "b.export.model_from", "did you mean 'a'"),
        ({"a": lent_by("a")}, "a.export.model_from", "which is this run itself"),
        (
            {"a": {}, "b": lent_by("a"), "c": lent_by("b")},
            "c.export.model_from",
            "'b', which takes its classifier from 'a'",
        ),
        (
            {"a": {"cam": {"method": "clip-es"}}, "b": lent_by("a")},
            "b.export.model_from",
            "whose CAM method, 'clip-es', trains none",
        ),
        (
            {"a": {"segmentation": {"labels": "ground_truth"}}, "b": lent_by("a")},
            "b.export.model_from",
            "which has no CAMs: its labels are 'ground_truth'",
        ),
        (
            {"a": {}, "b": lent_by("a", cam={"epochs": 2})},
            "b.cam",
            "'cam' has no effect: run 'b' trains no classifier",
        ),
    ],
)
def test_a_classifier_that_cannot_be_lent(runs: dict[str, Any], place: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        project(**runs)
    assert caught.value.where == f"runs.{place}" and words in str(caught.value)


@pytest.mark.parametrize("refine", ["patch-attention", "lpcam"])
@pytest.mark.parametrize("method", ["clip-es", "imported"])
def test_maps_of_a_method_that_trains_nothing_are_not_refined(method: str, refine: str) -> None:
    vit = {"warmup_epochs": 1.0, "learning_rate_at_512": 0.1}
    lender = {"cam": {"method": "mct", "vit": vit}}
    export = {"refine": refine, **({"refine_from": "a"} if refine == "patch-attention" else {})}
    base = {"root": "seeds", "index": {"format": "folder"}}
    runs = {"a": lender, "b": {"cam": {"method": method}, "export": export}}
    with pytest.raises(UserError, match=f"the maps of cam.method '{method}' are") as caught:
        resolve({"roots": {"seeds": "x"}, "runs": {k: {**base, **v} for k, v in runs.items()}})
    assert caught.value.where == "runs.b.export.refine"


def test_a_borrower_has_no_ablations_of_a_training() -> None:
    runs = {
        name: {"root": "own", "index": {"format": "folder"}, **more}
        for name, more in {"a": {}, "b": lent_by("a")}.items()
    }
    rows = {"variants": {"plain": {"cam": {"method": "cam"}}}}
    config = resolve({"roots": {"own": "x"}, "runs": runs, "ablations": rows})
    assert config.run("a/ablation/plain").stages["cam"].method == "cam"
    with pytest.raises(UserError, match="ask for the table of 'a'"):
        config.ablation("b", "variants")


ROWS_THAT_BORROW: list[tuple[dict[str, Any], str, str]] = [
    ({"segmentation": {"labels": "predicted"}}, "self_labels.model_from", "nothing says by which"),
    ({"export": {"model_from": "nobody"}}, "export.model_from", "unknown run 'nobody'"),
    (lent_by("b", cam={"epochs": 2}), "cam", "'cam' has no effect"),
    ({"export": {"refine": "patch-attention"}}, "export.refine_from", "no attention"),
    ({"cam": {"method": "recam"}, "export": {"refine": "lpcam"}}, "export.refine", "no features"),
    ({"cam": {"method": "imported", "seeds": "x"}}, "cam.seeds", "unknown root 'x'"),
    (
        {"cam": {"acr": {"anchor": 1.0, "anchor_from": "nobody"}}},
        "cam.anchor_from",
        "unknown run 'nobody'",
    ),
]


@pytest.mark.parametrize(("row", "place", "words"), ROWS_THAT_BORROW)
def test_rows_borrow_as_runs_do(row: dict[str, Any], place: str, words: str) -> None:
    methods = {"seeds": [0], "stop_after": "segmentation", "rows": {"x": row}}
    config = project(a={"methods": methods}, b={})
    with pytest.raises(UserError) as caught:
        config.methods("a")
    assert caught.value.where == f"runs.a/methods/x.seed-0.{place}" and words in str(caught.value)
    if "segmentation" not in row:
        config = project(a={"ablations": {"variants": {"x": row}}}, b={})
        with pytest.raises(UserError) as caught:
            config.run("a/ablation/x")
        assert caught.value.where == f"runs.a/ablation/x.{place}" and words in str(caught.value)


def test_rows_with_a_lent_classifier_have_its_settings() -> None:
    rows = {"x": {"export": {"model_from": "b"}}}
    config = project(
        a={"methods": {"seeds": [0], "rows": rows}, "ablations": {"variants": rows}},
        b={"cam": {"epochs": 2}},
    )
    for name in ("a/methods/x.seed-0", "a/ablation/x"):
        run = config.run(name)
        assert run.classifier_run == "b"
        assert run.stages["cam"] == config.run("b").stages["cam"]
    # Tables of CAMs do not ask whose predictions would have been learnt from.
    config = project(a={}, b=taught_by("a", ablations={"variants": {"x": {"cam": {"epochs": 3}}}}))
    assert config.run("b/ablation/x").stages["cam"].epochs == 3


@pytest.mark.parametrize(
    ("spec", "place"),
    [
        (lent_by("a"), "export.model_from"),
        (taught_by("a"), "self_labels.model_from"),
        ({"cam": {"acr": {"anchor": 1.0, "anchor_from": "a"}}}, "cam.anchor_from"),
    ],
)
def test_networks_of_other_classes_cannot_be_lent(spec: dict[str, Any], place: str) -> None:
    for fmt in ("coco", "demo"):
        with pytest.raises(UserError, match="on other classes: those of the data format") as caught:
            project(a={"index": {"format": fmt}}, b={"index": {"format": "voc"}, **spec})
        assert caught.value.where == f"runs.b.{place}"
    # Pictures of one's own may have VOC's classes: the model file will tell.
    project(a={"index": {"format": "voc"}}, b=spec)
    project(a={"index": {"format": "voc"}}, b={"index": {"format": "voc"}, **spec})


def test_why_a_run_has_no_labels_of_anothers_model() -> None:
    rows = {"variants": {"x": {"cam": {"epochs": 3}}}}
    config = project(a={}, b=taught_by("a", ablations=rows))
    assert no_self_labels(config.run("b")) is None
    assert no_self_labels(config.run("b/ablation/x")) == "it stops after 'cam'"
    assert "learns from no other run" in str(no_self_labels(config.run("a")))
