"""Progress off a terminal: what is done, how fast, and how long it still takes."""

from __future__ import annotations

import pytest

from wsss.runtime import progress as module
from wsss.runtime.progress import Progress, progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, in a list of one."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_resumed_training_counts_only_its_own_steps(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    bar = Progress(10, "train", "step", initial=4, items_per_unit=8)
    assert capsys.readouterr().err == "train: 10 step, resuming at 4\n"
    clock[0] += module.LINE_INTERVAL_S
    bar.update(2, note="loss 1")
    took_s = module.LINE_INTERVAL_S
    assert bar.rate == pytest.approx(2 / took_s) and bar.eta_s == pytest.approx(2 * took_s)
    said = capsys.readouterr().err
    assert said.startswith(f"train: 6/10 step, {16 / took_s:.1f} img/s")
    assert said.endswith(", loss 1\n")
    clock[0] += module.LINE_INTERVAL_S / 2
    bar.update()  # too early for a line
    assert capsys.readouterr().err == ""
    bar.update(3)  # the end has one at any time
    assert capsys.readouterr().err.startswith("train: 10/10 step")


def test_what_starts_anew_begins_at_nothing(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(progress("abc", total=3, description="walk")) == ["a", "b", "c"]
    first, last = capsys.readouterr().err.splitlines()
    assert first == "walk: 3 img" and last.startswith("walk: 3/3 img")
    assert Progress(3, "walk").rate == 0
