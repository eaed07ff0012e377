"""What the tests of faults share: a small disk, and a run whose first stages are done."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import TINY_RUN, skip_or_fail, write_tiny_data

from wsss.cli import main
from wsss.files import write_json
from wsss.project.config import load_config
from wsss.project.file import STAGES


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        skip_or_fail("mount", f"file systems cannot be mounted here: {done.stderr.strip()}")


class Disk:
    """A file system of its own, of a size that can be changed, in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def remount(self, options: str) -> None:
        """Change the size (`size=64k`), or what is allowed (`ro`)."""
        _mount("-o", f"remount,{options}", str(self.folder))


@contextmanager
def disk(folder: Path, options: str = "size=64m") -> Iterator[Disk]:
    """Mount a disk at `folder`; root writes through permissions, but not through this."""
    folder.mkdir()
    if shutil.which("mount") is None:
        skip_or_fail("mount", "there is no `mount` here")
    _mount("-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


MACHINE = ["--device", "cpu", "--threads", "1", "--workers", "0"]


class Stages:
    """Commands of the run `tiny` in `folder`, with the data beside it."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data = folder, data
        self._common = ["--index", f"{folder}/index.csv", "--root", str(data)]

    def prepare(self, configuration: Path, **cam: int) -> None:
        """Write the settings and the index."""
        run = load_config({"runs": {"tiny": {"cam": cam}}}, folder=configuration).run("tiny")
        for stage in STAGES:
            write_json(self.folder / "config" / f"{stage}.json", run.settings(stage))
        output = ["--root", str(self.data), "--output", f"{self.folder}/index.csv"]
        assert main(["index", *self._settings("index"), *output]) == 0

    def _settings(self, stage: str) -> list[str]:
        return ["--config", f"{self.folder}/config/{stage}.json"]

    def train(self, *options: str) -> int:
        """Train the classifier, with a checkpoint after every step."""
        cam = self.folder / "cam"
        output = ["--output", f"{cam}/model.safetensors", "--work-dir", f"{cam}/work"]
        where = [*self._settings("cam"), *self._common, *output]
        return main(["cam", *where, "--checkpoint-minutes", "0", *MACHINE, *options])

    def export(self, *options: str) -> int:
        """Export its CAMs."""
        model = ["--model", f"{self.folder}/cam/model.safetensors"]
        output = ["--output", f"{self.folder}/cams.h5"]
        where = [*self._settings("export"), *model, *self._common, *output]
        return main(["export", *where, *MACHINE, *options])

    def labels(self, *options: str) -> int:
        """Mine labels from them."""
        labels = self.folder / "irn" / "labels"
        output = ["--output", str(labels), "--manifest", f"{labels}.sha256"]
        where = [*self._settings("labels"), "--cams", f"{self.folder}/cams.h5", *self._common]
        return main(["labels", *where, *output, "--workers", "0", *options])

    def results(self) -> dict[str, str]:
        """Return the hash of each result; hidden files too, unless they tell of a process."""
        return {
            path.relative_to(self.folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
            and "work" not in path.parts
            and not path.name.endswith(".heartbeat.json")
        }


def configured(folder: Path) -> Path:
    """Return a folder with the configuration of the run `tiny` and its data."""
    (folder / "config.yaml").write_text(TINY_RUN)
    write_tiny_data(folder / "data" / "tiny")
    return folder


def used_kb(folder: Path) -> int:
    """Return what is used of the disk that a folder is on."""
    usage = shutil.disk_usage(folder)
    return (usage.total - usage.free) // 1024


def give(stages: Stages, undisturbed: Stages, *names: str) -> None:
    """Let results be made already."""
    for name in names:
        target = stages.folder / name
        target.parent.mkdir(exist_ok=True)
        shutil.copy(undisturbed.folder / name, target)


def assert_as_undisturbed(stages: Stages, undisturbed: Stages, *names: str) -> None:
    """Check results, and that there is nothing else: no temporary file, no lock."""
    expected = undisturbed.results()
    made = stages.results()
    assert {name: made.get(name) for name in names} == {name: expected[name] for name in names}
    assert set(made) <= set(expected)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Check that the message has all these words and no traceback; return it."""
    message = capsys.readouterr().err
    for word in words:
        assert word in message, message
    assert "Traceback" not in message, message
    return message
