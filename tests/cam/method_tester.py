"""What every CAM method that trains must do; its test is a subclass that names its settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from distributed_cases import (
    CLASSES,
    CPU,
    LOGGED,
    MOVED,
    Pictures,
    Result,
    cam_case,
    curve_distance,
    finished,
    one_thread_count,
    run,
    start_pair,
    stop,
    weight_distance,
)
from torch.utils.data import default_collate

from wsss.cam.config import TrainedSettings
from wsss.cam.model_file import CLASSIFIER, cam_task
from wsss.data.loader import random_generator
from wsss.errors import UserError
from wsss.runtime.settings import to_dict
from wsss.training.descent import take_step
from wsss.training.distributed import Split
from wsss.training.schedule import poly
from wsss.training.step import Plan


class BaseMethodTester:
    """Subclasses are called Test..., and set the first of these.

    Attributes:
        settings: Of the method, for pictures of `distributed_cases.Pictures` in batches of 8.
        falls: What of the logged scalars a few steps on one batch must lower, in the steps that
            have it.
    """

    settings: ClassVar[TrainedSettings]
    falls: ClassVar[str] = "loss"

    def task(self) -> Any:
        torch.manual_seed(1)
        return cam_task(self.settings, CLASSES, device=CPU)

    @classmethod
    def run(cls, folder: Path, **how: Any) -> Result:
        with one_thread_count():
            return run(cls.settings.method, folder, case=cam_case(cls.settings), **how)

    @pytest.fixture(scope="class")
    @classmethod
    def alone(cls, tmp_path_factory: pytest.TempPathFactory) -> Result:
        """One process, undisturbed."""
        return cls.run(tmp_path_factory.mktemp("alone"))

    def test_steps_lower_the_loss(self) -> None:
        pictures = Pictures(self.settings.crop_px, 8)
        batch = default_collate([pictures.load(i, random_generator(i)) for i in range(8)])
        task = self.task()
        plan = Plan("test", 10, 8, 1, 0, 0, 1, {"classifier": poly}, Split())
        logged = [take_step(task, batch, plan.context(i, CPU)) for i in range(10)]
        values = [float(step[self.falls]) for step in logged if self.falls in step]
        assert len(values) > 5
        assert values[-1] < 0.9 * values[0]

    def test_a_checkpoint_resumes_to_the_same_bytes(self, alone: Result, tmp_path: Path) -> None:
        with pytest.raises(SystemExit):
            self.run(tmp_path, trouble=stop)
        assert (tmp_path / "checkpoint.pt").exists()
        resumed = self.run(tmp_path)
        assert resumed.logged == alone.logged
        assert resumed.after.keys() == alone.after.keys()
        assert all(torch.equal(value, alone.after[key]) for key, value in resumed.after.items())

    def test_saved_and_loaded_it_gives_equal_cams(self, tmp_path: Path) -> None:
        task, path = self.task(), tmp_path / "model.safetensors"
        classes = [f"class {i}" for i in range(CLASSES)]
        CLASSIFIER.save(path, task.classifier, self.settings, classes=classes, training={})
        loaded = CLASSIFIER.load(path)
        assert loaded.settings == self.settings and loaded.classes == tuple(classes)
        network = loaded.network.to(memory_format=torch.channels_last)  # as it is trained
        x = torch.randn(2, 3, 64, 96).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            ours, again = task.classifier.eval().inference_cam(x), network.inference_cam(x)
        assert ours.cam.shape[:2] == (2, CLASSES) and float(ours.cam.std()) > 0
        assert torch.equal(ours.cam, again.cam)
        CLASSIFIER.save(path, task.classifier, self.settings, classes=["one"], training={})
        with pytest.raises(UserError, match="do not fit the network"):
            CLASSIFIER.load(path)

    def test_a_batch_in_parts_is_the_same_step(self, alone: Result, tmp_path: Path) -> None:
        parts = self.run(tmp_path, micro_batch=3)  # 3, 3 and 2 images
        assert curve_distance(alone, parts) < LOGGED
        assert weight_distance(alone, parts) < MOVED

    def test_two_processes_take_the_steps_of_one(self, alone: Result, tmp_path: Path) -> None:
        name = self.settings.method
        (tmp_path / f"{name}.json").write_text(json.dumps(to_dict(self.settings)))
        finished(start_pair(tmp_path, name))
        together = Result(**torch.load(tmp_path / f"{name}.pt"))
        assert len(alone.logged) == 4
        assert curve_distance(alone, together) < LOGGED
        assert weight_distance(alone, together) < MOVED
