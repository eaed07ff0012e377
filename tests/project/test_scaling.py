"""Runs on data sets of any size train long enough, and no longer than they said otherwise."""

from __future__ import annotations

import pytest
from conftest import REPOSITORY

from wsss.project.config import load_config
from wsss.project.scaling import (
    MEANT_FOR,
    SECONDS_PER_UPDATE,
    UPDATES,
    expected_minutes,
    is_timed,
    scaled_to,
    trainings,
    updates,
)


def run_of(extends: str, **stages):
    """Resolve a run on own pictures, as `wsss init` writes it."""
    spec = {"extends": extends, "root": "pictures", "index": {"format": "folder"}, **stages}
    return load_config({"runs": {"mine": spec}}, folder=REPOSITORY).run("mine")


def scaled(extends: str, pictures: int, **stages):
    changes = scaled_to(run_of(extends, **stages), pictures)
    stages = {key: {**stages.get(key, {}), **changes.get(key, {})} for key in {*stages, *changes}}
    return run_of(extends, **stages), changes


def test_the_numbers_are_those_of_the_measured_runs():
    run = load_config(folder=REPOSITORY).run("voc-lite-best")
    assert updates(run, MEANT_FOR) == dict(UPDATES)
    assert scaled_to(run, MEANT_FOR) == {}
    # docs/measurements.md: 40 min of stages, 0.7 of them for what is not counted here.
    found = expected_minutes(run_of("voc-lite"), MEANT_FOR, 321)
    assert found is not None and 39 < found < 40.5


@pytest.mark.parametrize("pictures", [2, 7, 8, 15, 48, 60, 200, 662, 664, 5000])
def test_every_training_makes_enough_updates_and_hardly_more(pictures):
    run, _ = scaled("voc-lite-best", pictures)
    before = run_of("voc-lite-best")
    for stage, count in updates(run, pictures).items():
        steps = pictures // run.stages[stage].batch_size
        assert count >= UPDATES[stage]
        if run.stages[stage].epochs > before.stages[stage].epochs:
            assert count < UPDATES[stage] + steps
        assert run.stages[stage].batch_size == min(8, pictures)


def test_a_longer_run_stays_as_long():
    run, changes = scaled("voc-lite", 60, segmentation={"epochs": 1000})
    assert run.stages["segmentation"].epochs == 1000 and "segmentation" not in changes


def test_a_shorter_run_is_no_longer_than_on_the_pictures_it_is_meant_for():
    run, _ = scaled("voc-lite", 60)
    assert 984 <= updates(run, 60)["segmentation"] < 984 + 7


def test_phases_keep_their_proportions():
    run, changes = scaled("voc-lite-acr2", 60)
    before = run_of("voc-lite-acr2").stages["cam"]
    factor = changes["cam"]["epochs"] / before.epochs
    assert factor > 5
    for key in ("classifier_epochs", "reconstructor_epochs"):
        old, new = (getattr(each.acr.schedule, key) for each in (before, run.stages["cam"]))
        assert abs(new - old * factor) <= 0.5


def test_what_trains_nothing_is_left_alone():
    run, changes = scaled("clip", 60)
    assert "cam" not in changes and "cam" not in trainings(run)
    assert expected_minutes(run, 60, 10) is None


def test_another_method_s_time_is_not_guessed():
    acr, recam = (
        run_of("voc-lite", cam={"method": each, "epochs": 6}) for each in ("acr", "recam")
    )
    difference = expected_minutes(acr, 663, 1) - expected_minutes(recam, 663, 1)
    assert difference == pytest.approx(492 * SECONDS_PER_UPDATE["acr"] / 60)
    assert is_timed("acr") and is_timed("cam") and not is_timed("recam")


def test_clusters_take_time():
    plain, clustered = run_of("voc-lite-cam"), run_of("voc-lite-lpcam")
    assert expected_minutes(clustered, 663, 1) > expected_minutes(plain, 663, 1) + 1
    twice = run_of("voc-lite-lpcam", lpcam={"rounds": 2})
    found = [expected_minutes(run, 663, 1) for run in (plain, clustered, twice)]
    assert found[2] - found[1] == pytest.approx(found[1] - found[0])


@pytest.mark.parametrize(
    "stages, expected",
    [
        ({"segmentation": {"labels": "ground_truth"}}, ("segmentation",)),
        ({"stop_after": "pseudo_label"}, ("cam", "irn")),
        ({"stop_after": "cam"}, ("cam",)),
    ],
)
def test_what_a_run_does_not_train_is_left_alone(stages, expected):
    run = run_of("voc-lite-best", **stages)
    assert trainings(run) == expected == tuple(scaled_to(run, 60))


def test_a_run_without_a_stage_does_not_wait_for_it():
    masks = run_of("voc-lite", segmentation={"labels": "ground_truth"})
    maps = run_of("voc-lite", stop_after="cam")
    # docs/measurements.md: 14.7 min of training and 3.8 of prediction; 10.8 and 1.7 of CAMs.
    assert expected_minutes(masks, MEANT_FOR, 321) == pytest.approx(14.7 + 3.8)
    assert expected_minutes(maps, MEANT_FOR, 321) == pytest.approx(10.8 + 1.7)
