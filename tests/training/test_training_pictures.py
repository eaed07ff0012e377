"""Pictures of a training in TensorBoard: every epoch, and without a trace in the result."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from wsss.models.backbones import freeze_batchnorm
from wsss.runtime.compute import Compute
from wsss.training import reporting
from wsss.training.loop import train
from wsss.training.pictures import PANEL_PX, PICTURES, TrainingPictures
from wsss.training.step import OnePhaseTask, Part

EPOCHS, SIDE_PX = 3, 12


class Noise:
    """Eight images of noise, another crop of each in every epoch."""

    names = tuple(f"p{i}" for i in range(8))

    def load(self, position: int, rng: np.random.Generator) -> dict[str, Any]:
        image = torch.from_numpy(rng.random((3, SIDE_PX, SIDE_PX), dtype=np.float32))
        return {"image": image, "name": self.names[position]}


class Task(OnePhaseTask):
    """What eval mode and draws could leave a trace in: BatchNorm, frozen and not, and dropout."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            freeze_batchnorm(nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))),
            nn.Dropout(0.5),
            nn.Conv2d(4, 1, 3),
        )
        self.modules = {"net": self.net}
        self.optimizers = {"net": torch.optim.SGD(self.net.parameters(), lr=0.1)}
        self.modes: list[list[bool]] = []

    def losses(self, part: Part, count: Tensor | None) -> dict[str, Tensor]:
        self.modes.append([each.training for each in self.net.modules()])
        return {"total": self.net(part.batch["image"]).square().mean()}


def run(task: Task, folder: Path, pictures: TrainingPictures | None) -> None:
    train(
        task,
        Noise(),
        epochs=EPOCHS,
        batch_size=4,
        seed=1,
        compute=Compute(device="cpu", threads=1, workers=0),
        work_dir=folder,
        identity={},
        stage="cam",
        description="test",
        pictures=pictures,
        log_every=1,
    )


def quality_of(percent: int) -> Any:
    """What JPEG of a quality divides by."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, format="JPEG", quality=percent)
    with Image.open(buffer) as opened:
        return opened.quantization


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_they_are_in_tensorboard_and_leave_no_trace(tmp_path: Path, threads: None) -> None:
    task, alone = Task(), Task()
    seen: list[Tensor] = []

    def draw(sample: dict[str, Any], crop: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        seen.append(sample["image"])
        assert not any(each.training for each in task.net.modules())
        assert not task.net(sample["image"][None]).requires_grad
        given = sample["image"].permute(1, 2, 0).numpy()
        assert np.abs(crop - 255 * given).max() < 0.5 + 1e-3
        yield "inverse", 255 - crop

    run(task, tmp_path / "shown", TrainingPictures(task.net, Noise(), draw))
    run(alone, tmp_path / "alone", None)
    assert task.modes == alone.modes and True in task.modes[0] and False in task.modes[0]
    left, right = task.net.state_dict(), alone.net.state_dict()
    assert all(torch.equal(left[key], right[key]) for key in right)

    # The same crops in every epoch, of pictures from all over the data set.
    assert len(seen) == EPOCHS * PICTURES
    for first, later in zip(seen[:PICTURES], seen[-PICTURES:], strict=True):
        assert torch.equal(first, later)
    events = EventAccumulator(str(tmp_path / "shown" / "tensorboard")).Reload()
    tags = [f"cam/pictures/{name}" for name in ("p0", "p2", "p4", "p6")]
    assert events.Tags()["images"] == tags
    for tag in tags:
        found = events.Images(tag)
        assert [each.step for each in found] == [2, 4, 6]  # where the epochs end
        with Image.open(io.BytesIO(found[-1].encoded_image_string)) as opened:
            assert opened.size == (found[-1].width, found[-1].height)
            assert opened.width == 2 * 256 + 4 and opened.height > PANEL_PX == 256
            assert opened.quantization == quality_of(85)
            pixels = np.asarray(opened).astype(int)
        # One crop and its inverse, but for what JPEG loses.
        shown = pixels[-PANEL_PX:, :PANEL_PX] + pixels[-PANEL_PX:, -PANEL_PX:]
        assert abs(shown.mean() - 255) < 2
    assert {"cam/loss", "cam/lr", "cam/images_per_s"} <= set(events.Tags()["scalars"])
    rates = [each.value for each in events.Scalars("cam/lr")]
    assert rates == pytest.approx([0.1 * (1 - step / 6) ** 0.9 for step in range(6)])


def test_many_short_epochs_are_not_all_shown(
    tmp_path: Path, threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "MOST_SHOWN", 2)
    task = Task()
    run(task, tmp_path, TrainingPictures(task.net, Noise(), lambda sample, crop: ()))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    # After the second of three epochs, and at the end.
    assert [each.step for each in events.Images("cam/pictures/p0")] == [4, 6]


def test_a_gpu_without_room_for_them_goes_on_without(
    tmp_path: Path, threads: None, capsys: pytest.CaptureFixture[str]
) -> None:
    task = Task()
    tries: list[str] = []

    def draw(sample: dict[str, Any], crop: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        tries.append(sample["name"])
        raise torch.OutOfMemoryError("CUDA out of memory")
        yield "never", crop

    run(task, tmp_path, TrainingPictures(task.net, Noise(), draw))
    assert tries == ["p0"] and len(task.modes) == 2 * EPOCHS
    assert True in task.modes[-1]
    assert capsys.readouterr().err.count("no room on the GPU for pictures") == 1
