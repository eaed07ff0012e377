"""`wsss table` of files that are no tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsss.cli import main
from wsss.errors import UserError
from wsss.evaluation.tables import COLUMNS
from wsss.evaluation.tags import COLUMNS as TAG_COLUMNS
from wsss.runtime.times import read_seconds

HEADER = ",".join(COLUMNS)
ROW = "demo,cam,pseudo,val,configured,0.3,mean,0.5,0.6,0.7"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "columns are missing"),
        (b"\n", "columns are missing"),
        (b"# a note\n", "columns are missing"),
        (b"a,b\n1,2\n", "columns are a, b"),
        (HEADER.encode("utf-16"), "not UTF-8"),
        (f"{HEADER}\n{ROW[:-8]}\n".encode(), "row 1 does not fit"),
        (f"{HEADER}\n{ROW},1,2\n".encode(), "row 1 does not fit"),
        (f"{HEADER}\n{ROW}\n{ROW.replace('0.5', 'half')}\n".encode(), "row 2 .*: iou"),
        (f"{HEADER}\n{ROW.replace('0.5', 'nan')}\n".encode(), "row 1 .*: iou"),
        (f'{HEADER}\n"{ROW}\n'.encode(), "not a table"),
        (f"{HEADER}\n{'x' * 200_000}\n".encode(), "not a table"),
    ],
)
def test_a_score_table(
    tmp_path: Path, content: bytes, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    (tmp_path / "miou.csv").write_bytes(content)
    assert main(["table", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert re.search(words, error) and "miou.csv" in error


def test_a_table_without_rows_and_one_of_tags_that_is_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "miou.csv").write_text(f"{HEADER}\n")
    assert main(["table", str(tmp_path)]) == 0
    for content in (b"", b"\xff", b"a,b\n", f"{','.join(TAG_COLUMNS)}\nx\n".encode()):
        (tmp_path / "tags.csv").write_bytes(content)
        assert main(["table", str(tmp_path)]) == 2
        assert "tags.csv" in capsys.readouterr().err


MEASURED = "s\th:m:s\tmax_rss\n"


def test_seconds_that_snakemake_measured(tmp_path: Path) -> None:
    path = tmp_path / "cam.tsv"
    path.write_text(f"{MEASURED}1.5\t0:00:01\t30\n0\t0:00:00\t30\n")
    assert read_seconds(path) == 1.5
    for text in ("NA", "-1", "inf", "nan", ""):
        path.write_text(f"{MEASURED}1.5\t0:00:01\t30\n{text}\t0:00:00\t30\n")
        with pytest.raises(UserError, match="no time that Snakemake measured") as caught:
            read_seconds(path)
        assert caught.value.where == str(path)
    path.write_text("h:m:s\n0:00:01\n")
    with pytest.raises(UserError, match="no time that Snakemake measured"):
        read_seconds(path)
