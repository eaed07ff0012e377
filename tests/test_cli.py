from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY_RUN, write_tiny_data

from wsss.cli import SUMMARIES, build_parser, main
from wsss.errors import UserError
from wsss.project.file import stage_kind


def test_help_lists_every_command_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from wsss.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print(sorted({'torch', 'numpy', 'h5py'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    for name in SUMMARIES:
        assert f"    {name} " in done.stdout or f"    {name}\n" in done.stdout


@pytest.mark.parametrize("name", SUMMARIES)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    assert f"usage: wsss {name}" in capsys.readouterr().out


def test_errors_for_people_have_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["table", str(tmp_path / "results")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("wsss table: no run is here")
    assert "Traceback" not in printed.err


def test_a_command_that_is_asked_to_stop_leaves_nothing_half_written(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from wsss import cli; from wsss.commands import people\n"
        "from wsss.files import atomic_file\n"
        "def work(given):\n"
        "    with atomic_file(given / 'a.png') as temporary:\n"
        "        temporary.write_text('half'); os.kill(os.getpid(), signal.SIGTERM)\n"
        "people.find_run = work; cli.main(['table', sys.argv[1]])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE)
    assert done.returncode == 143 and b"SIGTERM: stopped" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_without_a_command_is_said_of_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WSSS_PLUGINS", "no_such_module_of_anybody")
    assert main(["--help"]) == 2
    assert capsys.readouterr().err.startswith("wsss: ")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["predict", "mine", "a.png", "--output", "-"], "the output '-' is no name"),
        (["config", "schema", "--output", "-"], "the output '-' is no name"),
        (["predict", "mine", "a.png", "--output", ""], "is empty"),
        (["predict", "mine", ""], "is empty"),
        (["compare", "a", "b", "--output="], "is empty"),
        (["init", ""], "is empty"),
    ],
)
def test_words_that_would_mean_another_place(
    words: list[str],
    found: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert found in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_interrupting_is_tidy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("wsss.project.config.load_config", interrupted)
    assert main(["config", "check"]) == 130
    assert capsys.readouterr().err == "\nwsss config: interrupted\n"


def test_mistakes_of_our_own_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("wsss.project.config.load_config", broken)
    with pytest.raises(ZeroDivisionError):
        main(["config", "check"])


def test_python_runs_the_package_as_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "wsss", "table", str(tmp_path / "nowhere")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "nowhere" in done.stderr


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["train"])
    assert caught.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


def test_only_the_chosen_command_is_configured() -> None:
    with pytest.raises(SystemExit):
        build_parser("index").parse_args(["masks", "--config", "x"])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "config.yaml").write_text(TINY_RUN)
    write_tiny_data(tmp_path / "data" / "tiny")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_config_check_and_show(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check"]) == 0
    assert "tiny-gt" in capsys.readouterr().out
    assert main(["config", "check", "tiny"]) == 0
    assert "data/tiny" in capsys.readouterr().out
    assert main(["config", "show", "tiny-gt"]) == 0
    assert "labels: ground_truth" in capsys.readouterr().out
    assert main(["config", "show", "tinny"]) == 2
    assert "did you mean 'tiny'?" in capsys.readouterr().err
    (folder / "data" / "tiny").rename(folder / "data" / "moved")
    assert main(["config", "check", "tiny"]) == 2
    assert "config.local.yaml" in capsys.readouterr().err


def test_config_write_checks_what_it_writes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = folder / "config" / "labels.json"
    arguments = ["config", "write", "--stage", "labels", "--output", str(output), "--settings"]
    assert main([*arguments, '{"foreground_threshold": 0.4}']) == 0
    written = json.loads(output.read_text())
    assert written["foreground_threshold"] == 0.4
    assert written["crf"]["iterations"] == 10
    assert main([*arguments, '{"foreground": 0.4}']) == 2
    for text in ("{", "[" * 50_000, "9" * 5000, '{"crf": 1, "crf": 2}'):
        assert main([*arguments, text]) == 2
        assert "not JSON" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"unknown stage .lables.(.|\n)*did you mean .labels."):
        stage_kind("lables")


def test_config_schema_is_printed_or_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "schema"]) == 0
    printed = capsys.readouterr().out
    assert main(["config", "schema", "--output", "schema.json"]) == 0
    assert capsys.readouterr().out == ""
    assert (folder / "schema.json").read_text() == printed
    assert "runs" in json.loads(printed)["properties"]


def test_stage_commands_without_snakemake(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def wsss(*words: str) -> None:
        assert main(list(words)) == 0, capsys.readouterr().err

    settings = '{"format": "folder"}'
    wsss("config", "write", "--stage", "index", "--settings", settings, "--output", "index.json")
    wsss("index", "--config", "index.json", "--root", "data/tiny", "--output", "r/index.csv")
    assert "11 images, 2 classes" in capsys.readouterr().out
    wsss(
        *("masks", "--config", "index.json", "--root", "data/tiny"),
        *("--index", "r/index.csv", "--output", "r/masks.csv"),
    )
    assert (folder / "r" / "masks.csv").read_text().count("\n") == 12
    # The true masks, scored as if they were predictions, are perfect.
    wsss(
        *("score-labels", "--labels", "data/tiny/masks", "--index", "r/index.csv"),
        *("--masks", "r/masks.csv", "--root", "data/tiny", "--output", "r/scores.csv"),
        *("--run", "own", "--stage", "segmentation", "--split", "val"),
        *("--labels-kind", "ground_truth"),
    )
    wsss("collect", "--scores", "r/scores.csv", "--output", "r/miou.csv")
    wsss("table", "r")
    assert "100.0" in capsys.readouterr().out


def test_bad_data_leave_nothing_behind(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "data" / "tiny" / "images" / "image_03.png").write_bytes(b"no picture")
    (folder / "index.json").write_text('{"format": "folder"}')
    arguments = ["--config", "index.json", "--root", "data/tiny", "--output", "r/index.csv"]
    assert main(["index", *arguments]) == 2
    assert "image_03" in capsys.readouterr().err
    assert not list((folder / "r").glob("[!.]*"))  # the heartbeat stays, and says what happened


def test_user_error_reads_as_a_message() -> None:
    text = str(UserError("found", where="here", expected="that", fix="this"))
    assert text == "found\n  where:    here\n  expected: that\n  to do:    this"
