"""Metrics of a training that was interrupted read as if it had not been."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from faults_helpers import disk
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from wsss.errors import UserError
from wsss.training.metrics import METRICS_FILE, MetricsLog
from wsss.training.reporting import _Averages


def test_lines_and_events_after_the_checkpoint_are_written_anew(tmp_path: Path) -> None:
    first = MetricsLog(tmp_path, "cam", 0)
    for step in range(1, 6):
        first.write(step, {"loss": 1 / step, "epoch": 0, "note": "no number"})
    first.close()
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 6, "lo')  # cut off by a kill
    second = MetricsLog(tmp_path, "cam", 3)
    for step in range(4, 8):
        second.write(step, {"loss": 2 / step, "epoch": 1})
    second.close()
    lines = [json.loads(line) for line in (tmp_path / METRICS_FILE).read_text().splitlines()]
    expected = [1 / 1, 1 / 2, 1 / 3, 2 / 4, 2 / 5, 2 / 6, 2 / 7]
    assert [line["step"] for line in lines] == list(range(1, 8))
    assert [line["loss"] for line in lines] == expected
    # TensorBoard's own reader.
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.Tags()["scalars"] == ["cam/loss", "cam/epoch"]
    assert [event.step for event in events.Scalars("cam/loss")] == list(range(1, 8))
    assert [event.value for event in events.Scalars("cam/loss")] == pytest.approx(expected)


def test_a_full_disk_is_told_at_the_next_line(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "size=16k") as mounted:
        log = MetricsLog(mounted.folder, "cam", 0)
        with pytest.raises(UserError, match="No space left on device") as caught:
            for step in range(10_000):
                log.write(step, {"loss": 0.5})
        assert caught.value.where == str(mounted.folder)
        log.close()


def test_no_file_is_named_after_the_machine(tmp_path: Path) -> None:
    import socket

    log = MetricsLog(tmp_path, "cam", 0)
    log.close()
    names = [path.name for path in tmp_path.rglob("*")]
    assert any("tfevents" in name for name in names)
    assert not any(socket.gethostname() in name.split(".") for name in names)


def test_lines_that_a_power_cut_left_are_not_gone_on_with(tmp_path: Path) -> None:
    good = '{"step": 1, "loss": 0.5}\n'
    left = '{"step": 2, "lo\0\0}\n{}\n{"step": "2"}\n[2]\n' + "[" * 100_000 + "\n"
    (tmp_path / METRICS_FILE).write_bytes((good + left).encode() + b"\xff\0\n")
    log = MetricsLog(tmp_path, "cam", 2)
    log.write(3, {"loss": 0.25})
    log.close()
    assert (tmp_path / METRICS_FILE).read_text() == good + '{"step": 3, "loss": 0.25}\n'


def test_means_are_of_what_was_reported_since_the_last_time() -> None:
    averages = _Averages()
    averages.add({"loss": torch.tensor(0.5), "lr": 0.25})
    averages.add({"loss": torch.tensor(1.0)})
    # A step without a learning rate does not lower its mean.
    assert averages.take() == {"loss": 0.75, "lr": 0.25}
    averages.add({"loss": 2.0})
    assert averages.take() == {"loss": 2.0}
    assert averages.take() == {}
