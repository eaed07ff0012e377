"""Every training at a tiny size; as a program, one of several processes that run them together.

    RANK=... WORLD_SIZE=... python distributed_cases.py FOLDER CASE...

writes what came out, of the first process, to FOLDER/CASE.pt. Where there is a FOLDER/CASE.json, it
holds the settings of the CAM method that the case is.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cam_settings import as_method
from torch import Tensor
from warm_programs import warm_program

from wsss.cam.methods.acr_config import AcrConfig
from wsss.cam.methods.acr_vit_config import AcrVitSettings
from wsss.cam.methods.registry import METHODS
from wsss.cam.methods.transformer_config import VitConfig
from wsss.cam.model_file import cam_task
from wsss.errors import UserError
from wsss.files import read_json
from wsss.irn.config import IrnConfig
from wsss.irn.training import IrnTask
from wsss.models.backbones import build_backbone, freeze_batchnorm
from wsss.models.config import BackboneConfig
from wsss.models.deeplab import DeepLab
from wsss.models.heads.deeplab_config import V2Settings, V3PlusSettings
from wsss.models.heads.registry import HeadSettings
from wsss.models.irnet import IrNet
from wsss.runtime.compute import Compute, setup
from wsss.runtime.processes import Processes, joined
from wsss.runtime.settings import replace
from wsss.segmentation.config import SegmentationConfig
from wsss.segmentation.training import SegmentationTask
from wsss.training import loop
from wsss.training.checkpoint import save_checkpoint
from wsss.training.distributed import Split
from wsss.training.loop import train
from wsss.training.schedule import Schedule
from wsss.training.step import StepContext

CPU = torch.device("cpu")
NET = BackboneConfig(name="test_efficientnet", weights="none", output_stride=16)
CLASSES = 3
# Decoded at 8 px and with few remnants some non-target segments have more than 50 px, some not.
CAM = AcrVitSettings(
    backbone=NET,
    crop_px=64,
    batch_size=8,
    learning_rate=0.02,
    precision="float32",
    acr=AcrConfig(
        decode_px=8, decoder_depth=2, decoder_width=4, feature_channels=(4, 4, 4), q_initial=0.1
    ),
    # No stochastic depth, whose draws follow the shape of what a process has.
    vit=VitConfig(
        name="deit_tiny_patch16_224",
        depth=1,
        class_attention_layers=1,
        drop_path=0.0,
        warmup_epochs=0,
        learning_rate_at_512=0.1,
    ),
)
IRN = IrnConfig(backbone=NET, radius=3, crop_px=48, batch_size=8, learning_rate=0.05)
DEEPLAB = SegmentationConfig(
    backbone=NET,
    crop_px=64,
    batch_size=8,
    learning_rate=0.005,
)


class Pictures:
    """Noise of one size; labels, padding and unlabelled pixels differ much between images."""

    def __init__(self, side_px: int, count: int = 16) -> None:
        self._side = side_px
        self.names = [f"picture{i:02d}" for i in range(count)]

    def load(self, position: int, rng: np.random.Generator) -> dict[str, Any]:
        side = self._side
        image = torch.from_numpy(rng.random((3, side, side), dtype=np.float32))
        image[position % 3] += 1.0
        valid = torch.ones(1, side, side, dtype=torch.bool)
        valid[..., side - position :] = False
        cells = torch.from_numpy(rng.integers(0, CLASSES, (4, 4)))
        target = cells.repeat_interleave(side // 4, 0).repeat_interleave(side // 4, 1)
        target[:, side - 3 * position :] = 255
        label = torch.zeros(CLASSES)
        label[[position % CLASSES, position * 7 % 4 % CLASSES]] = 1
        return {
            "image": image,
            "valid": valid,
            "label": label,
            "target": target,
            "name": self.names[position],
        }


@dataclass(frozen=True)
class Case:
    """One training: its task, with the schedules that it brings, and its pictures' side."""

    build: Callable[[], tuple[Any, Mapping[str, Schedule]]]
    side_px: int = 64


def cam_case(config: Any) -> Case:
    """The training of a CAM method."""

    def build() -> tuple[Any, Mapping[str, Schedule]]:
        task = cam_task(config, CLASSES, device=CPU)
        return task, task.schedules

    return Case(build, config.crop_px)


def _irn() -> tuple[Any, Mapping[str, Schedule]]:
    return IrnTask(IrNet(build_backbone(NET)), IRN, CPU), {}


def _deeplab(head: HeadSettings, *, frozen: bool, **changes: Any) -> Case:
    config = replace(DEEPLAB, head=head, freeze_batchnorm=frozen, **changes)

    def build() -> tuple[Any, Mapping[str, Schedule]]:
        backbone = build_backbone(NET)
        if frozen:
            freeze_batchnorm(backbone)
        network = DeepLab(backbone, CLASSES, config.head)
        if not frozen:
            # So many BatchNorms and ReLUs in a row, at random weights, make percents of the
            # gradient out of a rounded last digit in float32.
            network.double().register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))
        return SegmentationTask(network, config, CPU), {}

    return Case(build)


CASES: dict[str, Case] = {
    "cam": cam_case(as_method(CAM, "cam")),
    "acr": cam_case(as_method(CAM, "acr")),
    "cam, BatchNorm learns": cam_case(as_method(CAM, "cam", freeze_batchnorm=False)),
    "acr, BatchNorm learns": cam_case(as_method(CAM, "acr", freeze_batchnorm=False)),
    "irn": Case(_irn, IRN.crop_px),
    "deeplab v3plus, BatchNorm learns": _deeplab(
        V3PlusSettings(channels=8, low_level_channels=4, dropout=0.0), frozen=False
    ),
    "deeplab v2": _deeplab(V2Settings(), frozen=True, loss_scales=(1.0, 0.75)),
}
# Their losses divide by what only the images, or the networks, decide.
COUNTED = ("acr", "irn", "deeplab v2")
# What the program does to a case: each process divides by its own count; the second process is told
# to stop, or its loss is no number; each has a work folder of its own.
APART, STOPPED, SPOILT = ", counted apart", ", stopped", ", spoilt"
GRADIENT = ", gradient spoilt"
SCATTERED = ", scattered"
# No BatchNorm learns: a batch may go through the networks in parts.
FROZEN = ("irn", "deeplab v2")


@dataclass(frozen=True)
class Result:
    """What a training logged, step by step, and its parameters and buffers before and after."""

    logged: list[dict[str, float]]
    before: dict[str, Tensor]
    after: dict[str, Tensor]


def stop(task: Any, batch: dict[str, Any]) -> None:
    """Tell this process to stop."""
    os.kill(os.getpid(), signal.SIGTERM)


def spoil(task: Any, batch: dict[str, Any]) -> None:
    """Make the loss of the last image something that is no number."""
    batch["image"][-1, 0, 0, 0] = torch.nan


def spoil_gradient(task: Any, batch: dict[str, Any]) -> None:
    """Leave the loss as it is, and make one gradient something that is no number, once."""
    weight = task.classifier.head.classes.weight

    def spoilt(gradient: Tensor) -> Tensor:
        handle.remove()
        return gradient * torch.nan

    handle = weight.register_hook(spoilt)


def _trouble_in_second_step(task: Any, trouble: Callable[[Any, dict[str, Any]], None]) -> None:
    phases = task.phases

    def troubled(batch: dict[str, Any], context: StepContext) -> Any:
        if context.step == 1:
            trouble(task, batch)
        return phases(batch, context)

    task.phases = troubled


def _state(task: Any) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": tensor.detach().clone().double()
        for name, module in task.modules.items()
        for key, tensor in module.state_dict().items()
    }


def run(
    name: str,
    work_dir: Path,
    *,
    case: Case | None = None,
    micro_batch: int | None = None,
    trouble: Callable[[Any, dict[str, Any]], None] | None = None,
) -> Result:
    """Run a training of two epochs, two steps each; goes on where `work_dir` has a checkpoint.

    `trouble` comes over the last process in its second step.
    """
    compute = Compute(device="cpu", threads=1, workers=0, micro_batch=micro_batch)
    setup(compute, seed=0, trains=True)
    case = case or CASES[name]
    task, schedules = case.build()
    before = _state(task)
    processes = Processes.here()
    if trouble is not None and processes.rank == processes.size - 1:
        _trouble_in_second_step(task, trouble)
    train(
        task,
        Pictures(case.side_px),
        epochs=2,
        batch_size=8,
        seed=3,
        compute=compute,
        work_dir=work_dir,
        identity={"case": name},
        stage="cam",
        description=name,
        schedule=schedules,
        log_every=1,
    )
    if not processes.is_main:
        return Result([], {}, {})
    lines = [json.loads(line) for line in (work_dir / "metrics.jsonl").read_text().splitlines()]
    unequal = ("images_per_s", "data_wait_share")
    logged = [{k: v for k, v in line.items() if k not in unequal} for line in lines]
    return Result(logged, before, _state(task))


# Of what is logged, relative; of the weights, relative to how far training moved them. Sums in
# another order made 5e-6 and 2e-5 of them, and 5e-14 in float64.
LOGGED, MOVED = 1e-4, 1e-4


def curve_distance(left: Result, right: Result) -> float:
    """Return the largest relative difference of anything that was logged, in any step."""
    assert len(left.logged) > 0
    assert [line.keys() for line in left.logged] == [line.keys() for line in right.logged]
    return max(
        abs(a[key] - b[key]) / max(abs(a[key]), 1e-2)
        for a, b in zip(left.logged, right.logged, strict=True)
        for key in a
    )


def weight_distance(left: Result, right: Result) -> float:
    """Return how far the results lie apart, relative to the way that training went.

    The larger of two: of the parameters, and of BatchNorm's running statistics.
    """
    assert left.after.keys() == right.after.keys()
    assert all(torch.equal(left.before[key], right.before[key]) for key in left.before)
    kinds: dict[bool, list[str]] = {False: [], True: []}
    for key in left.after:
        if key.endswith("num_batches_tracked"):
            assert torch.equal(left.after[key], right.after[key])
        else:
            kinds["running_" in key].append(key)

    def norm(x: Mapping[str, Tensor], y: Mapping[str, Tensor], keys: list[str]) -> float:
        return float(torch.stack([(x[key] - y[key]).norm() for key in keys]).norm())

    moved = {kind: norm(left.before, left.after, keys) for kind, keys in kinds.items() if keys}
    assert moved[False] > 0
    return max(
        norm(left.after, right.after, kinds[kind]) / length
        for kind, length in moved.items()
        if length > 0  # frozen statistics stay
    )


@contextmanager
def one_thread_count() -> Iterator[None]:
    """Undo what a training sets for its process."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start_pair(folder: Path, *names: str) -> list[subprocess.Popen[str]]:
    """Start two processes that train together; forks, as importing takes longer than that."""
    port = str(free_port())
    return [
        subprocess.Popen(
            [warm_program("script"), __file__, str(folder), *names],
            env={
                **os.environ,
                "PYTHONPATH": str(Path(__file__).parents[1]),
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "OMP_NUM_THREADS": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]


def finished(pair: list[subprocess.Popen[str]]) -> list[str]:
    """Wait for both and return what they printed."""
    printed = [process.communicate(timeout=500)[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], "\n".join(printed)
    return printed


def main() -> None:
    """Run the cases that are named; what stands behind a name says what happens to it."""
    folder, total = Path(sys.argv[1]), Split.total

    def apart(self: Split, count: Tensor) -> Tensor:
        return count * self.processes.size

    def slowly(*arguments: Any, **state: Any) -> None:
        time.sleep(1)
        save_checkpoint(*arguments, **state)

    loop.save_checkpoint = slowly  # type: ignore[attr-defined]
    with joined(CPU) as processes:
        for name in sys.argv[2:]:
            case = name
            for suffix in (APART, STOPPED, GRADIENT, SPOILT, SCATTERED):
                case = case.removesuffix(suffix)
            work_dir = folder / (name + (str(processes.rank) if name.endswith(SCATTERED) else ""))
            Split.total = apart if name.endswith(APART) else total  # type: ignore[method-assign]
            troubles = {STOPPED: stop, SPOILT: spoil, GRADIENT: spoil_gradient}
            trouble = troubles.get(name.removeprefix(case))
            settings = folder / f"{name}.json"
            own = None
            if settings.exists():
                own = cam_case(METHODS.parse(read_json(settings), where=name))
            try:
                result = run(case, work_dir, case=own, trouble=trouble)
            except SystemExit as stopped:
                assert trouble is stop and stopped.code == 128 + signal.SIGTERM
                # Whoever ends first may be the end of the others.
                assert (work_dir / loop.CHECKPOINT_FILE).exists()
                continue
            except UserError as error:
                assert name.endswith(SCATTERED) and "others at another" in str(error)
                continue
            assert trouble is not stop and not name.endswith(SCATTERED)
            if processes.is_main:
                torch.save(vars(result), folder / f"{name}.pt")


if __name__ == "__main__":
    main()
