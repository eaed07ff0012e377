"""Schedules of trainings in phases, step by step."""

from __future__ import annotations

import pytest

from wsss.cam.methods.phases import acr_schedules, delayed, restarted
from wsss.training.schedule import poly

# Four epochs of three steps.
EPOCHS, STEPS = 4, 12


def test_the_first_network_learns_rests_and_begins_anew() -> None:
    factor = restarted(EPOCHS, alone=1, idle=1, joint_factor=0.5, lr_power=0.9)
    found = [factor(step, STEPS) for step in range(STEPS)]
    alone = [poly(step, 3, 0.9) for step in range(3)]
    joint = [0.5 * poly(step, 6, 0.9) for step in range(6)]
    assert found == pytest.approx([*alone, 0, 0, 0, *joint])
    assert found[0] == 1 and found[6] == 0.5


def test_the_second_one_waits_and_then_goes_down_to_the_end() -> None:
    factor = delayed(EPOCHS, start=1, lr_power=0.9)
    found = [factor(step, STEPS) for step in range(STEPS)]
    assert found == pytest.approx([0, 0, 0, *(poly(step, 9, 0.9) for step in range(9))])
    assert found[3] == 1


def test_both_have_their_own_and_where_nothing_is_asked_for_none() -> None:
    schedules = acr_schedules(EPOCHS, alone=1, idle=1, joint_factor=0.5, lr_power=0.9)
    first, second = schedules["classifier"], schedules["reconstructor"]
    assert (first(4, STEPS), second(4, STEPS)) == (0, pytest.approx(poly(1, 9, 0.9)))
    assert (first(7, STEPS), second(2, STEPS)) == (pytest.approx(0.5 * poly(1, 6, 0.9)), 0)
    assert not acr_schedules(EPOCHS, alone=0, idle=0, joint_factor=1.0, lr_power=0.9)
    assert acr_schedules(EPOCHS, alone=0, idle=0, joint_factor=0.5, lr_power=0.9)
