"""`wsss status` beside files that are half written, of other versions, or not ours at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wsss.cli import main
from wsss.monitor.beats import read_beat
from wsss.monitor.plan import PLAN_FILE, PlannedJob, read_plan, write_plan
from wsss.monitor.status import run_status
from wsss.monitor.status_text import format_status
from wsss.runtime.heartbeat import heartbeat_file

TOLD: dict[str, Any] = {
    **{"command": "cam", "state": "running", "host": "node17 pid:[7]", "pid": 1, "process": "1"},
    **{"started": 1.0, "time": 2.0, "progressed": 2.0, "done": 1, "total": 4, "unit": "step"},
}
WHOLE = json.dumps(TOLD).encode()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "results" / "voc"
    write_plan(folder, [PlannedJob("cam", ("cam/model",), "logs/cam.log", "b.tsv")], whole=True)
    (folder / "cam").mkdir()
    return folder


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", WHOLE[: len(WHOLE) // 2], WHOLE.replace(b"node17", b"L\xf6we"), b"\xff\xfe\0"),
        *(b"null", b"[]", b'"running"', b'{"state": "running"}', b"[" * 100_000),
        *(b'{"state": "dancing", "time": 1}', WHOLE.replace(b"2.0", b"1e999")),
        *(
            WHOLE.replace(b"node17", b"\\ud800"),
            WHOLE.replace(b'"pid": 1', b'"pid": ' + b"9" * 5000),
        ),
    ],
)
def test_a_heartbeat_that_is_none_is_none(
    run: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    heartbeat_file(run / "cam" / "model").write_bytes(content)
    assert read_beat(run / "cam" / "model") == {}
    assert main(["status", str(run)]) == 0
    assert "waiting   cam" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("eta_s", "soon"), ("eta_s", float("inf")), ("eta_s", float("nan")), ("done", "x")),
        *(("total", 0), ("loss", None), ("loss", float("nan")), ("host", 3), ("unit", [])),
        *(("epoch", "1"), ("epochs", {}), ("images_per_s", True), ("done", 10**400)),
        *(("progressed", None), ("process", 7), ("message", ["x"]), ("eta_s", 10**300)),
    ],
)
def test_a_value_of_another_kind_is_left_out(run: Path, key: str, value: object) -> None:
    values = {**TOLD, "eta_s": 3, "epoch": 0, "epochs": 2, "loss": 0.5, key: value}
    heartbeat_file(run / "cam" / "model").write_text(json.dumps(values))
    for now in (3.0, 10_000.0):
        text = format_status(run_status(run, now=now))
        assert "  running   cam" in text if now < 100 else "  stalled?  cam" in text


@pytest.mark.parametrize(
    "changes",
    [
        *({"version": 2}, {"jobs": 3}, {"jobs": [3]}, {"written": "x"}, {"written": 1e300}),
        *({"written": None}, {"jobs": [{"rule": "x"}]}, {"jobs": [{"rule": 3, "outputs": []}]}),
        *({"jobs": [{"rule": "x", "outputs": "abc"}]}, {"jobs": [{"rule": "x", "outputs": [1]}]}),
        {"jobs": [{"rule": "x", "outputs": [], "log": 3}]},
        {"jobs": [{"rule": "x", "outputs": ["x" * 5000]}]},
        {"jobs": [{"rule": "x", "outputs": [], "log": "logs/" + "é" * 130}]},
        {"jobs": [{"rule": "x", "outputs": [], "must_run": "yes"}]},
    ],
)
def test_a_plan_that_is_none_is_none(run: Path, changes: dict[str, Any]) -> None:
    values = json.loads((run / PLAN_FILE).read_text())
    (run / PLAN_FILE).write_text(json.dumps({**values, **changes}))
    assert read_plan(run) is None


def test_a_job_without_outputs_is_shown(run: Path) -> None:
    write_plan(run, [PlannedJob("all", ())], whole=True)
    assert [job.state for job in run_status(run).jobs] == ["waiting"]


@pytest.mark.parametrize("shards", ["1e9", "1000000000", '"x"', "null", "[3]", "true", "-1"])
def test_a_number_of_parts_beyond_all_is_not_looked_for(run: Path, shards: str) -> None:
    (run / "shards").mkdir()
    (run / "shards" / "export.json").write_text(f'{{"shards": {shards}}}')
    assert len(run_status(run).jobs) == 1


@pytest.mark.parametrize("row", [None, b"", b"x", b"nan", b"\xff", b"1e999", b"-1"])
def test_half_a_benchmark_is_none(run: Path, row: bytes | None) -> None:
    (run / "b.tsv").write_bytes(b"" if row is None else b"s\n" + row + b"\n")
    (run / "cam" / "model").write_text("made")
    write_plan(run, [PlannedJob("cam", ("cam/model",), None, "b.tsv", must_run=False)], whole=True)
    (job,) = run_status(run).jobs
    assert (job.state, job.seconds) == ("done", None)
