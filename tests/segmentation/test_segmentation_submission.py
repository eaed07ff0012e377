"""The archive for PASCAL VOC's evaluation server."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from wsss.cli import main
from wsss.data.formats.voc import VOC_CLASSES
from wsss.data.images import voc_palette, write_label
from wsss.data.index import ImageRecord, Index, write_index
from wsss.errors import UserError
from wsss.segmentation.submission import pack_submission

NAMES = ("2008_000006", "2008_000011", "2008_000012")


@pytest.fixture
def run(tmp_path):
    records = tuple(ImageRecord(n, ("test",), (), 9, 7, f"JPEGImages/{n}.jpg") for n in NAMES)
    write_index(Index(tuple(VOC_CLASSES), records), tmp_path / "index.csv")
    (tmp_path / "predictions").mkdir()
    rng = np.random.default_rng(0)
    for name in NAMES:
        label = rng.integers(0, 21, size=(7, 9)).astype(np.uint8)
        write_label(tmp_path / "predictions" / f"{name}.png", label)
    return tmp_path


def pack(run, output="a.tar.gz", **changes):
    pack_submission(
        **{
            "predictions": run / "predictions",
            "index": run / "index.csv",
            "output": run / output,
            **changes,
        }
    )
    return run / output


def test_the_archive_is_laid_out_as_the_server_wants(run):
    packed = pack(run)
    # No flags, so no name, and no time.
    assert packed.read_bytes()[3:8] == bytes(5)
    with tarfile.open(packed, "r:gz") as archive:
        files = {entry.name: archive.extractfile(entry).read() for entry in archive}
        assert {(entry.mode, entry.mtime) for entry in archive} == {(0o644, 0)}
    folder = "results/VOC2012/Segmentation/comp6_test_cls"
    assert list(files) == [f"{folder}/{name}.png" for name in NAMES]
    for name in NAMES:
        with Image.open(io.BytesIO(files[f"{folder}/{name}.png"])) as image:
            assert image.mode == "P"
            assert np.array_equal(np.reshape(image.getpalette(), (256, 3)), voc_palette())
            with Image.open(run / "predictions" / f"{name}.png") as original:
                assert np.array_equal(np.asarray(image), np.asarray(original))


def test_the_command_takes_the_competition_and_needs_the_index(run, capsys):
    words = ["submission", str(run / "predictions"), "--output", str(run / "a.tar.gz")]
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 2 and "--index" in capsys.readouterr().err
    assert main([*words, "--index", str(run / "index.csv"), "--competition", "comp5"]) == 0
    with tarfile.open(run / "a.tar.gz", "r:gz") as archive:
        assert {name.split("/")[3] for name in archive.getnames()} == {"comp5_test_cls"}
    assert main([*words, "--index", str(run / "index.csv"), "--split", "val"]) == 2


def test_the_same_predictions_give_the_same_bytes(run):
    first = pack(run, "a.tar.gz").read_bytes()
    path = run / "predictions" / f"{NAMES[0]}.png"
    path.write_bytes(path.read_bytes())  # touched: a later time
    assert pack(run, "b.tar.gz").read_bytes() == first


def test_all_that_the_server_would_refuse_is_listed(run):
    (run / "predictions" / f"{NAMES[0]}.png").unlink()
    write_label(run / "predictions" / f"{NAMES[1]}.png", np.zeros((7, 8), np.uint8))
    write_label(run / "predictions" / f"{NAMES[2]}.png", np.full((7, 9), 255, np.uint8))
    with pytest.raises(UserError) as caught:
        pack(run)
    assert "3 of 3" in caught.value.found
    assert f"{NAMES[0]}: no prediction" in caught.value.found
    assert f"{NAMES[1]}: 8 x 7 px, the image is 9 x 7 px" in caught.value.found
    assert f"{NAMES[2]}: label 255" in caught.value.found
    assert not (run / "a.tar.gz").exists()


def test_another_data_set_is_refused(run):
    write_index(Index(("cow",), (ImageRecord("a", ("test",), (), 9, 7, "a"),)), run / "index.csv")
    with pytest.raises(UserError, match="this index has the classes cow"):
        pack(run)


def test_only_an_archive_for_the_server_is_written_over(run):
    for content in (b"mine", b""):
        (run / "mine.tar.gz").write_bytes(content)
        with pytest.raises(UserError, match="no result of this command"):
            pack(run, "mine.tar.gz")
        assert (run / "mine.tar.gz").read_bytes() == content
    first = pack(run).read_bytes()
    assert pack(run).read_bytes() == first
