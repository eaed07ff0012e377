"""Escape sequences from elsewhere are shown, never sent, whatever command prints them."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_RUN, write_tiny_data
from PIL import Image
from tqdm import tqdm

from wsss.cli import SUMMARIES, main
from wsss.data.formats.folder import FolderSettings
from wsss.data.indexing import make_index
from wsss.errors import UserError, listed, printable
from wsss.monitor.plan import PlannedJob, write_plan
from wsss.runtime.heartbeat import heartbeat_file
from wsss.runtime.terminal import clear_screen, guarded_streams

# Sets the title of the window, clears the screen, and is shorter than any path.
EVIL = "\x1b]0;x\x07\x1b[2J\x9b1m"
SHOWN = "\\x1b]0;x\\x07\\x1b[2J\\x9b1m"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (EVIL, SHOWN),
        ("a\tb\nc\r\nd", "a\tb\nc\nd"),
        ("a\rb\0\x7f", "a\\x0db\\x00\\x7f"),
        ("abc\u202ecba\u2069", "abc\\u202ecba\\u2069"),
        (os.fsdecode(b"\xe9.jpg"), "\\udce9.jpg"),
        ("caf\u00e9 \u72ac \U0001f415", "caf\u00e9 \u72ac \U0001f415"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown
    assert str(UserError(text, where=text)) == f"{shown}\n  where:    {shown}"
    assert listed([text, text]) == f"{shown}, {shown}"
    shown.encode()


def sent(capsys: pytest.CaptureFixture[str]) -> str:
    """Return what was printed, which must be harmless."""
    printed = capsys.readouterr()
    for text in (printed.out, printed.err):
        assert not any(letter in text for letter in "\x1b\x07\x9b"), repr(text)
    return printed.out + printed.err


def exit_status(*words: str) -> int:
    try:
        return main(list(words))
    except SystemExit as end:
        return int(end.code or 0)


@pytest.mark.parametrize("name", SUMMARIES)
def test_no_command_sends_what_it_was_given(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert exit_status(name, f"{tmp_path}/{EVIL}", f"--{EVIL}") != 0
    assert exit_status(name, f"--{EVIL}") != 0
    sent(capsys)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set with such a name of a picture and such a tag."""
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    for name in (f"a{EVIL}.png", "b.png"):
        Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(root / "images" / name)
    return root


def test_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "results" / "voc"
    jobs = [
        PlannedJob(name, (f"{name}.x",), f"logs/{name}.log", None)
        for name in ("cam", f"irn{EVIL}", "labels")
    ]
    write_plan(folder, jobs, whole=True)
    now = time.time()
    told = {"pid": 1, "process": "1", "started": now, "time": now, "progressed": now}
    for name, state in (("cam", "failed"), (f"irn{EVIL}", "running"), ("labels", "stopped")):
        values = {**told, "state": state, "message": EVIL, "unit": EVIL, "host": EVIL, "total": 2}
        heartbeat_file(folder / f"{name}.x").write_text(json.dumps({**values, "done": 1}))
    (folder / "logs").mkdir()
    (folder / "logs" / "cam.log").write_text(f"the log says {EVIL}\rand more\n")
    assert main(["status", str(folder)]) == 0
    text = sent(capsys)
    assert f"the log says {SHOWN}" in text and text.count(SHOWN) >= 4
    assert main(["status", "--json", str(folder)]) == 0
    assert json.loads(sent(capsys))[0]["jobs"][0]["note"] == EVIL


def test_index_init_and_config(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (data / "labels.csv").write_text(f"image,tags\na{EVIL}.png,dog{EVIL}\nb.png,cat\nc{EVIL},x\n")
    settings = tmp_path / "index.json"
    settings.write_text('{"format": "folder"}')
    words = ("index", "--config", str(settings), "--root", str(data), "--output")
    assert main([*words, str(tmp_path / "out" / "index.csv")]) == 2
    text = sent(capsys)
    assert "contains ';' or a control character" in text and f"there is no images/c{SHOWN}" in text
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(
        "roots: {voc: v}\nruns: {voc-lite-best: {root: voc, index: {format: voc}}}\n"
    )
    assert main(["init", str(data)]) == 2
    assert "control character" in sent(capsys)


def test_notes_of_what_is_left_out(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "list.csv").write_text("file_name,labels,by\nb.png,cat,me\nb.png,cat,me\n")
    settings = tmp_path / "index.json"
    settings.write_text('{"format": "table", "file": "list.csv"}')
    (data / "list.csv").write_text(f"file_name,labels,by{EVIL}\nb.png,cat,me\n")
    words = ("index", "--config", str(settings), "--root", str(data), "--output")
    assert main([*words, str(tmp_path / "out" / "index.csv")]) == 0
    text = sent(capsys)
    assert f"images/a{SHOWN}.png" in text and f"by{SHOWN}" in text


def test_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = "run,stage,labels,split,selection,threshold,class,iou,precision,recall\n"
    rows = "".join(
        f"r{EVIL},cam,pseudo,train,best,0.3,{name},0.5,0.5,0.5\n" for name in (f"c{EVIL}", "mean")
    )
    (tmp_path / "miou.csv").write_text(f"# {EVIL}\n{columns}{rows}")
    assert main(["table", str(tmp_path)]) == 0
    assert SHOWN in sent(capsys)


def test_cams(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import h5py

    path = tmp_path / f"{EVIL}.h5"
    with h5py.File(path, "w") as store:
        store.attrs["classes"] = EVIL
    assert main(["cams", "info", str(path)]) == 2
    assert SHOWN in sent(capsys)


def test_predict_names_a_broken_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / f"{EVIL}.jpg"
    broken.write_bytes(b"no picture")
    words = ["predict", str(tmp_path / f"model{EVIL}"), "--output", str(tmp_path / "o")]
    assert main([*words, str(broken)]) == 2
    assert SHOWN in sent(capsys)


def test_config_check_of_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny_data(tmp_path / "data" / "tiny")
    text = TINY_RUN.replace("roots: {tiny: data/tiny}", 'roots: {tiny: "data/\\e[2Jtiny"}')
    assert text != TINY_RUN
    (tmp_path / "config.yaml").write_text(text)
    assert main(["config", "check", "tiny"]) == 2
    assert "\\x1b[2Jtiny" in sent(capsys)


def test_mistakes_of_our_own_are_printed_guarded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(EVIL)

    monkeypatch.setattr("wsss.commands.configuration._show", broken)
    with pytest.raises(RuntimeError):
        main(["config", "show", "demo"])
    sys.excepthook(RuntimeError, RuntimeError(EVIL), None)
    assert SHOWN in sent(capsys)


def test_progress_bars_keep_to_their_line(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with guarded_streams():
        bar = tqdm(total=3, desc=f"of {EVIL}", file=sys.stderr, mininterval=0)
        bar.update(3)
        bar.close()
    assert stream.getvalue().count("\r") >= 2 and "3/3" in stream.getvalue()
    assert SHOWN in stream.getvalue() and "\x1b" not in stream.getvalue()
    assert sys.stderr is stream


def test_our_own_sequence_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    with guarded_streams():
        clear_screen()
        print("shown", end="")
        sys.stdout.writelines([EVIL])
    clear_screen()
    assert stream.getvalue() == f"\x1b[H\x1b[2Jshown{SHOWN}\x1b[H\x1b[2J"


def test_a_stream_of_few_characters_is_no_reason_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    with guarded_streams():
        print("caf\u00e9")
        assert sys.stdout.encoding == "ascii"
    assert raw.getvalue() == b"caf\\xe9\n"


@pytest.mark.parametrize("leave", [SystemExit, KeyboardInterrupt])
def test_streams_are_given_back(leave: Callable[[], BaseException]) -> None:
    before = sys.stdout
    with pytest.raises(BaseException), guarded_streams():  # noqa: B017
        raise leave()
    assert sys.stdout is before


def test_class_names_of_an_index_hold_no_sequence(data: Path, tmp_path: Path) -> None:
    (data / "labels.csv").write_text(f"image,tags\na{EVIL}.png,dog\nb.png,d\x9bog\n")
    with pytest.raises(UserError, match="control character"):
        make_index(config=FolderSettings(), root=data, output=tmp_path / "index.csv")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no such device")
def test_a_stream_on_a_full_disk_is_no_output_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text(TINY_RUN)
    monkeypatch.chdir(tmp_path)
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["config", "show", "tiny"]) == 2
        with suppress(OSError):
            full.close()
    said = capsys.readouterr().err
    assert said.startswith("wsss config: cannot print here: No space left on device\n")
    assert "where:    standard output\n" in said and "are free" not in said


def test_streams_that_are_closed_take_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert main(["table", "nowhere"]) == 2
    assert sys.stdout is None and sys.stderr is None
