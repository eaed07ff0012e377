"""What a report reads of a run is refused with its file where it is damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from wsss.errors import UserError
from wsss.evaluation.tables import CurvePoint, write_curve
from wsss.report.facts import curves, times, trainings
from wsss.runtime.times import read_seconds

TIMES = "s\th:m:s\n75.2\t0:01:15\n"
LOG = '{"step": 1, "loss": 0.5}\n{"step": 2, "loss": NaN}\n{"step": 2, "validation": 0.1}\n'
READERS: dict[str, Callable[[Path], object]] = {
    "benchmarks/cam.tsv": times,
    "cam/work/metrics.jsonl": trainings,
    "evaluation/cam_curve.csv": curves,
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for name in READERS:
        (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / "benchmarks/cam.tsv").write_text(TIMES)
    (tmp_path / "cam/work/metrics.jsonl").write_text(LOG)
    write_curve(tmp_path / "evaluation/cam_curve.csv", [CurvePoint(0.1, 0.5, float("nan"), 0.6)])
    return tmp_path


def test_what_is_sound_is_read(run: Path) -> None:
    assert times(run) == {"cam": 75.2}
    (training,) = trainings(run)
    assert training.steps == (1, 2) and training.losses["loss"][0] == 0.5
    (point,) = curves(run)["cam"]
    assert (point["miou"], point["recall"]) == (0.5, 0.6) and point["precision"] != 0
    (run / "benchmarks/cam.tsv").write_text(TIMES + TIMES.splitlines()[1] + "\n")
    assert read_seconds(run / "benchmarks/cam.tsv") == 150.4


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("benchmarks/cam.tsv", b"a\tb\n1\t2\n"),
        ("benchmarks/cam.tsv", b"h\ts\n1\n"),
        ("benchmarks/cam.tsv", b"s\n-\n"),
        ("benchmarks/cam.tsv", b"s\nnan\n"),
        ("benchmarks/cam.tsv", b"s\n1e400\n"),
        ("benchmarks/cam.tsv", b"s\n\xff\n"),
        ("benchmarks/cam.tsv", b"s\n" + b"1" * 200_000 + b"\n"),
        ("cam/work/metrics.jsonl", b'{"step": 1, "lo'),
        ("cam/work/metrics.jsonl", b"[1]\n"),
        ("cam/work/metrics.jsonl", b"5\n"),
        ("cam/work/metrics.jsonl", b'{"loss": 1}\n'),
        ("cam/work/metrics.jsonl", b'{"loss": "x", "step": 1}\n'),
        ("cam/work/metrics.jsonl", b'{"loss": null, "step": 1}\n'),
        ("cam/work/metrics.jsonl", b"[" * 100_000 + b"\n"),
        ("cam/work/metrics.jsonl", b"\xff\n"),
        ("evaluation/cam_curve.csv", b""),
        ("evaluation/cam_curve.csv", b"threshold,miou,precision,recall\n0.1,x,,\n"),
        ("evaluation/cam_curve.csv", b"threshold,miou,precision,recall\n0.1\n"),
        ("evaluation/cam_curve.csv", b"threshold,miou,precision,recall\n0.1,1,1,1,1\n"),
    ],
)
def test_what_is_damaged_is_refused(run: Path, name: str, content: bytes) -> None:
    (run / name).write_bytes(content)
    with pytest.raises(UserError) as refused:
        READERS[name](run)
    assert str(run / name) in (refused.value.where or "")
