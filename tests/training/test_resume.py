"""What a checkpoint is refused for, how it is written, and steps that were not taken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hub_helpers import cached_repository
from naive_training import started
from safetensors.torch import save_file
from segmentation_helpers import make_data, tiny_config
from torch import Tensor, nn

from wsss.cam.methods.plain_config import PlainSettings
from wsss.cam.training import train_cam
from wsss.data.images import read_label, write_label
from wsss.data.index import Index, read_index, write_index
from wsss.errors import UserError
from wsss.irn.config import IrnConfig
from wsss.irn.training import train_irn
from wsss.models.config import LITE0, PACKAGES, BackboneConfig, Package
from wsss.runtime.compute import Compute, FeatureCompute
from wsss.runtime.registry import load_code
from wsss.runtime.settings import replace
from wsss.segmentation.training import train_segmentation
from wsss.training import checkpoint
from wsss.training.loop import train
from wsss.training.step import OnePhaseTask, Part


class Ones:
    """Twelve images of a single one."""

    names = tuple(f"n{i:02d}" for i in range(12))

    def load(self, position: int, rng: np.random.Generator) -> dict[str, Any]:
        return {"image": torch.ones(1), "name": self.names[position]}


class Task(OnePhaseTask):
    """A regression that stops at a step, and whose loss is no number at others."""

    def __init__(self, stop_at: int | None = None, spoilt: tuple[int, ...] = ()) -> None:
        self.net = nn.Linear(1, 1)
        self.modules = {"net": self.net}
        self.optimizers = {"sgd": torch.optim.SGD(self.net.parameters(), lr=0.1)}
        self.steps: list[int] = []
        self._stop_at, self._spoilt = stop_at, spoilt

    def phases(self, batch: Any, context: Any) -> Any:
        if context.step == self._stop_at:
            raise KeyboardInterrupt
        self.steps.append(context.step)
        return super().phases(batch, context)

    def losses(self, part: Part, count: Tensor | None) -> dict[str, Tensor]:
        value = self.net(part.batch["image"]).square().mean()
        return {"total": value * (torch.nan if self.steps[-1] in self._spoilt else 1)}


def run(task: Task, folder: Path, **changes: Any) -> None:
    values = {"epochs": 3, "batch_size": 4, "seed": 7, "max_non_finite": 2, **changes}
    train(
        task,
        Ones(),
        compute=Compute(device="cpu", threads=1, workers=0, checkpoint_minutes=0.0),
        work_dir=folder,
        identity={"config": "a"},
        stage="test",
        description="test",
        **values,
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 4}, "total_steps was 9, is 12"),
        ({"batch_size": 2, "epochs": 2}, "batch_size was 4, is 2, total_steps was 9, is 12"),
        # As many steps in all.
        ({"batch_size": 12, "epochs": 9}, "batch_size was 4, is 12"),
        ({"seed": 8}, "seed was 7, is 8"),
    ],
)
def test_a_training_of_other_steps_is_refused(
    changes: dict[str, int], words: str, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Task(stop_at=4), tmp_path)
    with pytest.raises(UserError) as caught:
        run(Task(), tmp_path, **changes)
    assert caught.value.found == f"this checkpoint belongs to another training: {words}"
    resumed = Task()
    run(resumed, tmp_path)
    assert resumed.steps[0] == 4


# ----- what makes a training of a stage the one that it is

LIGHT = BackboneConfig(name="test_efficientnet", weights="none", output_stride=16)
CONFIGS: dict[str, Any] = {
    "cam": PlainSettings(
        backbone=LIGHT, crop_px=32, long_side_min_px=32, long_side_max_px=40, batch_size=4
    ),
    "irn": IrnConfig(backbone=LIGHT, crop_px=40, radius=4, batch_size=4),
    "segmentation": tiny_config(backbone=LIGHT),
}
MODULES = {name: f"wsss.{name}.training" for name in CONFIGS}


def start(stage: str, folder: Path, config: Any, weights: Path | None = None) -> None:
    common: dict[str, Any] = {
        "config": config,
        "index": folder / "index.csv",
        "root": folder / "data",
        "output": folder / "model.safetensors",
        "work_dir": folder / "work",
        "weights_file": weights,
    }
    compute: dict[str, Any] = {"device": "cpu", "threads": 1, "workers": 0}
    if stage == "cam":
        train_cam(**common, compute=Compute(**compute))
    elif stage == "irn":
        train_irn(**common, labels=folder / "pseudo", compute=Compute(**compute))
    else:
        labels = folder / "pseudo"
        train_segmentation(**common, labels=labels, compute=FeatureCompute(**compute))


def other_settings(folder: Path, config: Any) -> Any:
    return replace(config, learning_rate=0.123)


def other_images(folder: Path, config: Any) -> Any:
    index = read_index(folder / "index.csv")
    write_index(Index(index.classes, index.records[1:]), folder / "index.csv")
    return config


def other_classes(folder: Path, config: Any) -> Any:
    index = read_index(folder / "index.csv")
    write_index(Index(tuple(reversed(index.classes)), index.records), folder / "index.csv")
    return config


def other_labels(folder: Path, config: Any) -> Any:
    path = folder / "pseudo" / "p00.png"
    write_label(path, 0 * read_label(path))
    return config


def list_contents(folder: Path, name: str = "", content: str = "a") -> None:
    """Write what the index stage does beside its list, one picture's in another form."""
    paths = read_index(folder / "index.csv").records.paths
    lines = (f"{content if name and name in path else 'b'}  {path}\n" for path in paths)
    (folder / "pictures.sha256").write_text("".join(lines))


def other_pixels(folder: Path, config: Any) -> Any:
    list_contents(folder, "p00")
    return config


def other_pixels_where_nothing_learns(folder: Path, config: Any) -> Any:
    index = read_index(folder / "index.csv")
    list_contents(folder, index.subset("val").records[0].name)
    return config


@pytest.mark.parametrize(
    ("stage", "change", "keys"),
    [
        ("cam", other_settings, {"config"}),
        *((stage, other_settings, {"settings"}) for stage in ("irn", "segmentation")),
        ("cam", other_images, {"images", "pictures"}),
        # Which labels there are is known with the images.
        *(
            (stage, other_images, {"images", "labels", "pictures"})
            for stage in ("irn", "segmentation")
        ),
        *((stage, other_labels, {"labels"}) for stage in ("irn", "segmentation")),
        *((stage, other_classes, {"classes"}) for stage in ("cam", "segmentation")),
        *((stage, other_pixels, {"pictures"}) for stage in CONFIGS),
        *((stage, other_pixels_where_nothing_learns, set()) for stage in CONFIGS),
    ],
)
def test_what_a_stage_learns_from_is_part_of_its_training(
    stage: str,
    change: Callable[[Path, Any], Any],
    keys: set[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_data(tmp_path)
    list_contents(tmp_path)

    def identity(config: Any) -> dict[str, Any]:
        module = MODULES[stage]
        seen = started(monkeypatch, module, lambda: start(stage, tmp_path, config))
        assert (seen.batch_size, seen.epochs) == (config.batch_size, config.epochs)
        assert isinstance(seen.identity, dict)
        return seen.identity

    before = identity(CONFIGS[stage])
    assert identity(CONFIGS[stage]) == before
    after = identity(change(tmp_path, CONFIGS[stage]))
    assert {key for key in before if before[key] != after[key]} == keys


@pytest.mark.parametrize("stage", CONFIGS)
def test_what_a_stage_starts_from_is_part_of_its_training(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_data(tmp_path)
    config = replace(CONFIGS[stage], backbone=replace(LIGHT, weights="mine"))
    network = timm.create_model("test_efficientnet")

    def identity(path: Path) -> dict[str, Any]:
        train = lambda: start(stage, tmp_path, config, path)  # noqa: E731
        found: dict[str, Any] = started(monkeypatch, MODULES[stage], train).identity
        return found

    first, copy, other = (tmp_path / name for name in ("first.pth", "copy.pth", "other.pth"))
    torch.save(network.state_dict(), first)
    shutil.copy(first, copy)
    network.conv_stem.weight.data *= 2
    torch.save(network.state_dict(), other)
    before, copied, after = map(identity, (first, copy, other))
    assert copied == before
    assert {key for key in before if before[key] != after[key]} == {"weights"}


@pytest.mark.parametrize("stage", CONFIGS)
def test_what_a_package_or_the_hub_holds_is_part_of_a_training(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_data(tmp_path)
    packaged = load_code(PACKAGES[LITE0].holder).get_model_file_path()
    other = torch.load(packaged, weights_only=True)
    next(iter(other.values())).mul_(2)
    torch.save(other, tmp_path / "other.pth")
    hub = cached_repository(monkeypatch, tmp_path, "timm/resnet10t.c3_in1k") / "model.safetensors"

    def identity(**backbone: Any) -> dict[str, Any]:
        config = replace(CONFIGS[stage], backbone=BackboneConfig(**backbone))
        train = lambda: start(stage, tmp_path, config)  # noqa: E731
        found: dict[str, Any] = started(monkeypatch, MODULES[stage], train).identity
        return found

    def from_package(file: Path) -> dict[str, Any]:
        monkeypatch.setattr(Package, "file", file)
        return identity()

    def by_name(scale: float) -> dict[str, Any]:
        torch.manual_seed(0)
        network = timm.create_model("resnet10t")
        network.layer1[0].conv1.weight.data *= scale
        save_file(network.state_dict(), hub)
        return identity(name="resnet10t", weights="timm", output_stride=32)

    for pair in (
        [from_package(Path(packaged)), from_package(tmp_path / "other.pth")],
        [by_name(1.0), by_name(2.0)],
    ):
        assert pair[0].keys() == pair[1].keys()
        assert {key for key in pair[0] if pair[0][key] != pair[1][key]} == {"weights"}


@pytest.mark.parametrize("stage", CONFIGS)
def test_a_weight_file_that_nothing_starts_from_is_refused(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_data(tmp_path)
    file = tmp_path / "mine.pth"
    torch.save(timm.create_model("test_efficientnet").state_dict(), file)
    with pytest.raises(UserError, match="no network of these settings") as caught:
        started(monkeypatch, MODULES[stage], lambda: start(stage, tmp_path, CONFIGS[stage], file))
    assert caught.value.where == f"--weights-file {file}"


# ----- checkpoints and skipped steps


def test_a_checkpoint_that_is_cut_off_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Task(stop_at=4), tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def half(state: Any, handle: Any) -> None:
        handle.write(before[: len(before) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.torch, "save", half)
        with pytest.raises(KeyboardInterrupt):
            run(Task(), tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not list(tmp_path.glob(".*.tmp"))


def test_steps_that_were_not_taken_count_only_in_a_row(tmp_path: Path) -> None:
    task = Task(spoilt=(1, 3, 4, 6))
    with pytest.raises(UserError, match="2 steps in a row"):
        run(task, tmp_path / "two")
    assert task.steps[-1] == 4
    task = Task(spoilt=(1, 3, 5, 7))
    run(task, tmp_path / "one")
    assert task.steps == list(range(9))
    # In all, where a line is of several steps.
    (line,) = (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 9 and json.loads(line)["skipped_steps"] == 4
