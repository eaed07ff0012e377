"""Files from elsewhere name only what lies below their folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss.data.formats.folder import FolderSettings
from wsss.data.index import ImageRecord, Index, read_index, read_masks, write_index, write_masks
from wsss.errors import UserError
from wsss.files import atomic_directory, is_below
from wsss.maps.shard_files import RECORD, merge_shards, record_shard
from wsss.maps.shards import Shard
from wsss.monitor.plan import PLAN_FILE, PlannedJob, read_plan, relative_job, write_plan

OUTSIDE = [
    *("../x", "../../etc/passwd", "a/../../x", "a/..", "..", "/etc/passwd", "//server/x", ""),
    *("a\0b", "..\\x", "C:\\x", "c:/x", "\\x", "./x", "a//b", "a/"),
]
BELOW = ["x", "x.png", "a/b c/ü.png", "a..b", "...", "..a", "a:1", "; rm -rf $(x) ' \"", "-x"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_out(name: str, tmp_path: Path) -> None:
    assert not is_below(name)
    # What the operating system makes of it is the same or an error.
    if "\0" not in name and "\\" not in name and not name.startswith("c:") and ".." in name:
        assert not (tmp_path / "f" / name).resolve().is_relative_to(tmp_path / "f" / "a")


@pytest.mark.parametrize("name", BELOW)
def test_names_that_stay(name: str, tmp_path: Path) -> None:
    assert is_below(name)
    assert (tmp_path / name).resolve().is_relative_to(tmp_path.resolve())


READABLE = [name for name in OUTSIDE if "\0" not in name]


@pytest.mark.parametrize("bad", READABLE)
def test_tables(bad: str, tmp_path: Path) -> None:
    for name, path in ((bad, "images/a.png"), ("a", bad)):
        records = (ImageRecord(name, ("train",), ("dog",), 4, 4, path),)
        write_index(Index(("dog",), records), tmp_path / "index.csv")
        with pytest.raises(UserError, match=r"below a folder") as caught:
            read_index(tmp_path / "index.csv")
        assert caught.value.where == f"{tmp_path / 'index.csv'}, line 2"
    for pair in ({bad: "masks/a.png"}, {"a": bad}):
        write_masks(pair, tmp_path / "masks.csv")
        with pytest.raises(UserError, match=r"below a folder"):
            read_masks(tmp_path / "masks.csv")


def test_a_data_set_that_names_other_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wsss.data import build
    from wsss.data.listing import Entry, Listing

    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "secret.png")
    (tmp_path / "data").mkdir()
    entry = Entry("a", "../secret.png", ("train",), ("dog",), "list.txt", 7, "list.txt")
    chosen = build.FORMATS.get("folder", where="")
    import dataclasses

    listing = dataclasses.replace(
        chosen, list_images=lambda settings, root: Listing(("dog",), [entry])
    )
    monkeypatch.setattr(build, "_format", lambda settings: listing)
    with pytest.raises(UserError, match=r"list\.txt, line 7: '\.\./secret\.png' leads out"):
        build.build_index(FolderSettings(), tmp_path / "data")


def _shard(folder: Path) -> None:
    with atomic_directory(folder) as inside:
        (inside / "labels").mkdir()
        (inside / "labels/a.png").write_bytes(b"a")
        record_shard(inside, Shard(1, 1), {})


@pytest.mark.parametrize("bad", OUTSIDE)
def test_shards(bad: str, tmp_path: Path) -> None:
    part = tmp_path / "1-of-1"
    _shard(part)
    record = json.loads((part / RECORD).read_text())
    record["files"][f"labels/{bad}" if bad.startswith("..") else bad] = "0"
    (part / RECORD).write_text(json.dumps(record))
    with pytest.raises(UserError, match="below a folder"):
        merge_shards([part], {"labels": tmp_path / "out/labels"}, {})
    assert not (tmp_path / "out/labels").exists()


def test_a_shard_whose_file_is_a_link_to_another_place(tmp_path: Path) -> None:
    part = tmp_path / "1-of-1"
    _shard(part)
    (tmp_path / "secret").write_bytes(b"a")
    (part / "labels/a.png").unlink()
    (part / "labels/a.png").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match="outside of it"):
        merge_shards([part], {"labels": tmp_path / "out/labels"}, {})


@pytest.mark.parametrize(
    "change",
    [{"files": ["a"]}, {"files": {"a": 1}}, {"files": None}, {"made_of": 3}, {"shard": 4}],
)
def test_shards_of_another_form(change: dict[str, object], tmp_path: Path) -> None:
    part = tmp_path / "1-of-1"
    _shard(part)
    record = json.loads((part / RECORD).read_text())
    (part / RECORD).write_text(json.dumps(record | change))
    with pytest.raises(UserError, match="not what a finished job leaves"):
        merge_shards([part], {"labels": tmp_path / "out/labels"}, {})


def test_merged_shards_have_one_mark_of_their_own(tmp_path: Path) -> None:
    part, out = tmp_path / "1-of-1", tmp_path / "out/labels"
    with atomic_directory(part) as inside, atomic_directory(inside / "labels") as labels:
        (labels / "a.png").write_bytes(b"a")
    record_shard(part, Shard(1, 1), {})
    for _ in range(2):
        merge_shards([part], {"labels": out}, {})
    assert set(json.loads((part / RECORD).read_text())["files"]) == {"labels/a.png"}
    assert [path.name for path in out.iterdir() if path.name[0] != "."] == ["a.png"]


@pytest.mark.parametrize("bad", ["/etc/passwd", "../../../../etc/passwd", "logs/../../../x", "a\0"])
def test_plans(bad: str, tmp_path: Path) -> None:
    for job in (
        PlannedJob("cam", ("cam/model",), log=bad),
        PlannedJob("cam", ("cam/model",), benchmark=bad),
    ):
        write_plan(tmp_path, [job], whole=True)
        assert read_plan(tmp_path) is None
    own = relative_job(
        "results/demo/ablation/x",
        "demo_data",
        ["results/demo-data"],
        ["results/logs/demo_data.log"],
        "results/benchmarks/demo_data.tsv",
        must_run=True,
    )
    write_plan(tmp_path, [own], whole=True)
    plan = read_plan(tmp_path)
    assert plan is not None and plan.jobs == (own,)
    assert (tmp_path / PLAN_FILE).exists()
