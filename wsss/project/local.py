"""What this machine alone says: how it computes, and how many jobs share a stage.

In no hash: nothing here makes a stage run again.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from wsss.runtime.device_names import DEVICES, is_device
from wsss.runtime.settings import Count, NonNegative, Settings, impossible


class MicroBatch(Settings):
    """Images that a training takes through its networks at once, on each GPU; null: all it has.

    For batches that do not fit a GPU: gradients are added up, and the step stays the same.
    """

    cam: Count | None = None
    """Of the CAM training."""
    irn: Count | None = None
    """Of the IRNet training."""
    segmentation: Count | None = None
    """Of the DeepLab training."""


def _device(name: str) -> str:
    if not is_device(name):
        raise impossible(f"device is {name!r}", expected=DEVICES)
    return name


class LocalCompute(Settings):
    """How this machine computes; in no hash, so changing it runs nothing again."""

    device: Annotated[str, AfterValidator(_device)] = "auto"
    """`auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:<number>` or `mps` (Apple's)."""
    threads: Annotated[
        Annotated[Literal["auto"], Tag("<text>")] | Annotated[Count, Tag("<number>")],
        Discriminator(lambda value: "<text>" if isinstance(value, str) else "<number>"),
    ] = "auto"
    """CPU threads of a stage: a number, as the order of summation and so the bytes follow it.
    `auto`: all physical cores when a run begins, which it keeps to (results/<run>/threads.json)."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Helper processes: they load images, and on a CPU they share the images of IRN labels,
    pseudo-labels and prediction, one thread each; never changes a result."""
    deterministic: bool = True
    """On a GPU: only deterministic kernels, so that a run repeats to the byte."""
    gpus: Count = 1
    """GPUs that a training takes, one process each; with `device: cpu`, its processes."""
    micro_batch: MicroBatch = MicroBatch()
    """Images that a training takes through its networks at once, where a batch does not fit."""
    checkpoint_minutes: NonNegative = 5.0
    """Time between the checkpoints of a training, what a kill can cost at most; 0: none between
    two steps."""
    feature_cache_gb: NonNegative = 0.0
    """What is kept at most, on disk, of a frozen transformer's features, which then sees a picture
    once rather than in every epoch (docs/backbones.md); 0: nothing."""

    @model_validator(mode="after")
    def _device_can_what_is_asked(self) -> Self:
        if self.gpus > 1 and (self.device.startswith("cuda:") or self.device == "mps"):
            raise impossible(
                f"gpus is {self.gpus} with device '{self.device}'",
                key="gpus",
                expected="1 with a GPU that is named, device 'cuda' otherwise",
            )
        if self.device == "mps" and self.deterministic:
            raise impossible(
                "deterministic is true with device 'mps', for which there are no such kernels",
                key="deterministic",
                expected="false on an Apple GPU, where a run does not repeat to the byte",
            )
        return self

    def wants_gpu(self) -> bool:
        """Say whether stages will ask for a GPU; without PyTorch, which takes long to import."""
        if self.device == "auto":
            return Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None
        return self.device != "cpu"

    def training_program(self, threads: int) -> str:
        """Return the shell words that stand for `wsss` where a training is started.

        Several GPUs have one process each, under torchrun. It passes on the signals that
        schedulers send, and leaves the processes time to save; its own limit is 30 s.

        Args:
            threads: Of each process.
        """
        if self.gpus == 1:
            return "wsss"
        return (
            f"OMP_NUM_THREADS={threads} TORCH_ELASTIC_SHUTDOWN_TIMEOUT=120"
            " PET_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
            f" torchrun --standalone --local-addr 127.0.0.1 --nproc-per-node {self.gpus}"
            " --module wsss"
        )


class ShardCounts(Settings):
    """How many jobs share a stage whose images do not depend on each other.

    Local, and in no hash: no result depends on it, and a new number counts from when the stage
    runs anyway.
    """

    export: Count = 1
    """Jobs that export the CAMs."""
    labels: Count = 1
    """Jobs that mine confident labels."""
    pseudo_labels: Count = 1
    """Jobs that walk the CAMs into pseudo-labels."""
    self_labels: Count = 1
    """Jobs that predict the training images for another round."""
    prediction: Count = 1
    """Jobs that predict."""
