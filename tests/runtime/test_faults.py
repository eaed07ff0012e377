"""What can happen to a stage, and that the next start completes it.

Each fault is named with its place and remedy, damages no file under its final name, and the run
that is started again ends with the bytes of an undisturbed one.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from faults_helpers import (
    Stages,
    assert_as_undisturbed,
    configured,
    disk,
    give,
    said,
    used_kb,
)

from wsss.errors import UserError
from wsss.maps.map_store import MapStore, MapStoreWriter
from wsss.runtime.stage_process import explained
from wsss.training.reporting import Reporter

STEPS = 6


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configuration and data."""
    return configured(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """The run as it is when nothing happens to it."""
    stages = Stages(tmp_path_factory.mktemp("undisturbed"), source / "data" / "tiny")
    stages.prepare(source, epochs=STEPS // 2)
    assert (stages.train(), stages.export(), stages.labels()) == (0, 0, 0)
    return stages


@pytest.fixture
def stages(undisturbed: Stages, source: Path, tmp_path: Path) -> Stages:
    """A run in which nothing but the index is made, with pictures of its own."""
    data = tmp_path / "data"
    shutil.copytree(source / "data" / "tiny", data)
    fresh = Stages(tmp_path / "run", data)
    for name in ("index.csv", "classes.txt"):
        fresh.folder.mkdir(exist_ok=True)
        shutil.copy(undisturbed.folder / name, fresh.folder / name)
    shutil.copytree(undisturbed.folder / "config", fresh.folder / "config")
    return fresh


@pytest.fixture
def after_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], None]:
    """Return a function that lets something happen once, after a training step."""

    def at(step: int, happen: Callable[[], None]) -> None:
        finished, pending = Reporter.finished, [happen]

        def then(self: Reporter, done: int) -> None:
            finished(self, done)
            if done == step and pending:
                pending.pop()()

        monkeypatch.setattr(Reporter, "finished", then)

    return at


@pytest.fixture
def after_image(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], None]:
    """Return a function that lets something happen once, after so many exported images."""

    def at(count: int, happen: Callable[[], None]) -> None:
        add, seen, pending = MapStoreWriter.add, [0], [happen]

        def then(self: MapStoreWriter, *arguments: Any) -> None:
            add(self, *arguments)
            seen[0] += 1
            if seen[0] == count and pending:
                pending.pop()()

        monkeypatch.setattr(MapStoreWriter, "add", then)

    return at


# ----- disks


@pytest.fixture
def on_disk(stages: Stages, tmp_path: Path) -> Iterator[tuple[Stages, Any]]:
    """The run on a disk of its own."""
    with disk(tmp_path / "disk") as mounted:
        moved = Stages(mounted.folder / "run", stages.data)
        shutil.copytree(stages.folder, moved.folder)
        yield moved, mounted


def test_a_disk_fills_up_in_a_training(
    on_disk: tuple[Stages, Any], undisturbed: Stages, capsys: pytest.CaptureFixture[str]
) -> None:
    stages, mounted = on_disk
    mounted.remount(f"size={used_kb(mounted.folder) + 64}k")
    assert stages.train() == 2
    said(capsys, "No space left on device", str(stages.folder / "cam"), "make room there")
    assert not (stages.folder / "cam" / "model.safetensors").exists()
    mounted.remount("size=64m")
    assert stages.train() == 0
    assert_as_undisturbed(stages, undisturbed, "cam/model.safetensors")


def test_a_disk_fills_up_in_an_export(
    on_disk: tuple[Stages, Any], undisturbed: Stages, capsys: pytest.CaptureFixture[str]
) -> None:
    stages, mounted = on_disk
    # What an earlier start has left stays whole until there is something better.
    give(stages, undisturbed, "cam/model.safetensors", "cams.h5")
    room_kb = (undisturbed.folder / "cams.h5").stat().st_size // 2048
    mounted.remount(f"size={used_kb(mounted.folder) + 8 + room_kb // 4 * 4}k")
    assert stages.export() == 2
    said(capsys, "No space left on device", str(stages.folder / "cams.h5"), "make room there")
    assert_as_undisturbed(stages, undisturbed, "cams.h5")
    mounted.remount("size=64m")
    assert stages.export() == 0
    assert_as_undisturbed(stages, undisturbed, "cams.h5")


def test_a_disk_fills_up_in_a_folder_of_labels(
    on_disk: tuple[Stages, Any], undisturbed: Stages, capsys: pytest.CaptureFixture[str]
) -> None:
    stages, mounted = on_disk
    give(stages, undisturbed, "cams.h5")
    mounted.remount(f"size={used_kb(mounted.folder) + 20}k")
    assert stages.labels() == 2
    said(capsys, "No space left on device", str(stages.folder / "irn" / "labels"), "make room")
    assert not (stages.folder / "irn" / "labels").exists()
    mounted.remount("size=64m")
    assert stages.labels() == 0
    assert_as_undisturbed(stages, undisturbed, "irn/labels.sha256", "irn/labels/image_00.png")


def test_results_that_may_only_be_read(
    on_disk: tuple[Stages, Any], undisturbed: Stages, capsys: pytest.CaptureFixture[str]
) -> None:
    stages, mounted = on_disk
    give(stages, undisturbed, "cam/model.safetensors", "cams.h5")
    before = stages.results()
    mounted.remount("ro")
    for command, place in (
        (stages.train, stages.folder / "cam"),
        (stages.export, stages.folder),
        (stages.labels, stages.folder / "irn"),
    ):
        assert command() == 2
        said(capsys, "Read-only file system", str(place), "make that folder writable")
    assert stages.results() == before
    mounted.remount("rw")
    assert (stages.export(), stages.labels()) == (0, 0)
    assert_as_undisturbed(stages, undisturbed, "cams.h5", "irn/labels.sha256")


# ----- pictures


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_turns_unreadable_in_a_training(
    stages: Stages,
    undisturbed: Stages,
    after_step: Any,
    capsys: pytest.CaptureFixture[str],
    workers: int,
) -> None:
    pictures = [stages.data / "images" / f"image_{number:02d}.png" for number in range(8)]
    contents = [picture.read_bytes() for picture in pictures]

    def damage() -> None:
        for picture, content in zip(pictures, contents, strict=True):
            picture.write_bytes(content[: len(content) // 2])

    if workers:
        damage()  # a worker reads ahead: all would be read before a step is done
    else:
        after_step(2, damage)
    assert stages.train("--workers", str(workers)) == 2
    message = said(capsys, "cannot read this picture", "fetch the file again")
    assert any(str(picture) in message for picture in pictures)
    assert not (stages.folder / "cam" / "model.safetensors").exists()
    for picture, content in zip(pictures, contents, strict=True):
        picture.write_bytes(content)
    assert stages.train() == 0
    assert ("resuming at 3" in capsys.readouterr().err) == (workers == 0)
    assert_as_undisturbed(stages, undisturbed, "cam/model.safetensors")


def test_an_image_turns_unreadable_in_an_export(
    stages: Stages, undisturbed: Stages, after_image: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    give(stages, undisturbed, "cam/model.safetensors")
    picture = stages.data / "images" / "image_06.png"
    content = picture.read_bytes()
    after_image(3, lambda: picture.write_bytes(b"not a picture any more"))
    assert stages.export() == 2
    said(capsys, "cannot read this picture", str(picture), "fetch the file again")
    assert not (stages.folder / "cams.h5").exists()
    picture.write_bytes(content)
    assert stages.export() == 0
    assert_as_undisturbed(stages, undisturbed, "cams.h5")


# ----- helpers that die


def test_a_loader_worker_dies(
    stages: Stages, undisturbed: Stages, after_step: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def kill() -> None:
        worker = multiprocessing.active_children()[0]
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        time.sleep(0.5)

    after_step(1, kill)
    assert stages.train("--workers", "1") == 2
    said(capsys, "a process that loads images", "killed", "cam", "mem_mb", "compute.workers")
    assert not (stages.folder / "cam" / "model.safetensors").exists()
    assert stages.train() == 0
    assert "resuming at" in capsys.readouterr().err
    assert_as_undisturbed(stages, undisturbed, "cam/model.safetensors")


def test_a_process_of_a_pool_dies() -> None:
    with (
        pytest.raises(UserError, match="helper process of this stage was killed") as caught,
        explained("labels"),
        ProcessPoolExecutor(1) as pool,
    ):
        pool.submit(os.kill, os.getpid(), 0).result()
        pool.submit(os._exit, 9).result()
    assert caught.value.where == "labels" and "mem_mb" in str(caught.value)


# ----- memory

FULL_GPU = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of "
    "which 1.20 GiB is free. Including non-PyTorch memory, this process has 77.89 GiB in use."
)


def test_a_training_does_not_fit_its_gpu(
    stages: Stages,
    undisturbed: Stages,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from wsss.cam.methods.acr import AcrMethod

    phases = AcrMethod.phases

    def full(self: AcrMethod, batch: Any, context: Any) -> Any:
        if context.step == 2:
            raise torch.OutOfMemoryError(FULL_GPU)
        return phases(self, batch, context)

    with monkeypatch.context() as patched:
        patched.setattr(AcrMethod, "phases", full)
        assert stages.train() == 2
    said(
        capsys,
        *("the GPU ran out of memory", "2.00 GiB more were needed", "1.20 GiB of 79.10 GiB"),
        *("train CAM (acr), step 3 of 6, batch 4", "4 images of 64 x 64 px", "micro_batch"),
    )
    assert not (stages.folder / "cam" / "model.safetensors").exists()
    assert stages.train() == 0
    assert "resuming at 2" in capsys.readouterr().err
    assert_as_undisturbed(stages, undisturbed, "cam/model.safetensors")


def test_an_export_does_not_fit_its_gpu(
    stages: Stages, undisturbed: Stages, after_image: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    give(stages, undisturbed, "cam/model.safetensors")

    def full() -> None:
        raise torch.OutOfMemoryError(FULL_GPU)

    after_image(2, full)
    assert stages.export() == 2
    said(capsys, "the GPU ran out of memory", "export", "`scales`")
    assert not (stages.folder / "cams.h5").exists()
    assert stages.export() == 0
    assert_as_undisturbed(stages, undisturbed, "cams.h5")


def test_main_memory_runs_out() -> None:
    with (
        pytest.raises(UserError, match="ran out of memory: 4503") as caught,
        explained("prediction"),
    ):
        torch.empty(1 << 52, dtype=torch.uint8)
    assert caught.value.where == "prediction" and "mem_mb" in str(caught.value)


# ----- time limits


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_training_is_past_its_time_limit(
    stages: Stages,
    undisturbed: Stages,
    after_step: Any,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    after_step(3, lambda: os.kill(os.getpid(), number))
    # A shell has what it starts in the background ignore Ctrl-C.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as stopped:
            stages.train("--checkpoint-minutes", "60")
    finally:
        signal.signal(signal.SIGINT, handler)
    assert stopped.value.code == 128 + number
    said(capsys, f"{number.name}: saved at step 4 of 6; the next start goes on there")
    assert not (stages.folder / "cam" / "model.safetensors").exists()
    assert stages.train() == 0
    assert "resuming at 4" in capsys.readouterr().err
    assert_as_undisturbed(stages, undisturbed, "cam/model.safetensors")


def test_an_export_is_past_its_time_limit(
    stages: Stages, undisturbed: Stages, after_image: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    give(stages, undisturbed, "cam/model.safetensors")
    after_image(2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as stopped:
        stages.export()
    assert stopped.value.code == 128 + signal.SIGTERM
    said(capsys, "SIGTERM: stopped", "Start the same command again to go on")
    assert_as_undisturbed(stages, undisturbed)
    assert stages.export() == 0
    assert_as_undisturbed(stages, undisturbed, "cams.h5")


# ----- damaged files


def test_a_map_store_is_cut_off(
    stages: Stages, undisturbed: Stages, capsys: pytest.CaptureFixture[str]
) -> None:
    give(stages, undisturbed, "cam/model.safetensors", "cams.h5")
    store = stages.folder / "cams.h5"
    content = store.read_bytes()
    store.write_bytes(content[: len(content) * 2 // 3])
    assert stages.labels() == 2
    said(capsys, "cannot be read", f"rm {store}", "the stage that writes it runs again")
    assert not (stages.folder / "irn" / "labels").exists()
    with pytest.raises(UserError, match=r"cannot be read(.|\n)*cams\.h5"):
        MapStore([undisturbed.folder / "cams.h5", store])  # one of several shards
    store.unlink()
    assert (stages.export(), stages.labels()) == (0, 0)
    assert_as_undisturbed(stages, undisturbed, "cams.h5", "irn/labels.sha256")


def test_a_map_in_a_store_is_damaged(
    stages: Stages, undisturbed: Stages, capsys: pytest.CaptureFixture[str]
) -> None:
    import h5py

    give(stages, undisturbed, "cams.h5")
    store = stages.folder / "cams.h5"
    with h5py.File(store) as file:
        name = next(iter(file["maps"]))
        place = file["maps"][name].id.get_chunk_info(0)
    with open(store, "r+b") as handle:
        handle.seek(place.byte_offset)
        handle.write(b"\xff" * min(16, place.size))
    assert stages.labels() == 2
    said(capsys, f"the maps of image '{name}' cannot be read", f"rm {store}")
    assert not (stages.folder / "irn" / "labels").exists()
