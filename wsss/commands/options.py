"""Options that several subcommands share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsss.errors import UserError

if TYPE_CHECKING:
    from wsss.runtime.compute import Compute

_PATHS = {
    "config": "the stage's settings: results/<run>/config/<stage>.json",
    "index": "the list of images, index.csv",
    "root": "the data set's folder; paths in the index are relative to it",
    "output": "what to write",
    "work_dir": "folder for the checkpoint and the metrics, kept between starts",
    "cams": "the CAM store (HDF5)",
    "maps": "the map store (HDF5)",
    "model": "the trained model (safetensors)",
    "labels": "folder of label PNGs",
    "masks": "the list of ground-truth masks, masks.csv",
}


def add_paths(parser: argparse.ArgumentParser, *names: str, optional: tuple[str, ...] = ()) -> None:
    """Add `--name PATH` options; those in `optional` may be left out."""
    for name in names + optional:
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=Path,
            required=name not in optional,
            metavar="PATH",
            help=_PATHS[name],
        )


def add_manifest(parser: argparse.ArgumentParser) -> None:
    """Add `--manifest`, for stages that write a folder."""
    parser.add_argument(
        "--manifest", type=Path, metavar="PATH", help="also write the SHA-256 of every file here"
    )


def add_weights_file(parser: argparse.ArgumentParser) -> None:
    """Add `--weights-file`."""
    parser.add_argument(
        "--weights-file",
        type=Path,
        metavar="PATH",
        help="initial weights of the backbone, when the settings name a weight file",
    )


def add_compute(parser: argparse.ArgumentParser, *, trains: bool = False) -> None:
    """Add the options that say how to compute; they change no result beyond rounding."""
    from wsss.project.local import LocalCompute

    default = LocalCompute()

    group = parser.add_argument_group("this machine")
    group.add_argument("--device", default=default.device, help="auto, cuda, cuda:N or cpu")
    group.add_argument("--threads", type=int, default=default.threads, help="CPU threads")
    group.add_argument(
        "--workers", type=int, default=default.workers, help="processes that load images"
    )
    group.add_argument(
        "--deterministic",
        type=_true_or_false,
        default=default.deterministic,
        metavar="true|false",
        help="on a GPU: only deterministic kernels",
    )
    if trains:
        group.add_argument(
            "--micro-batch",
            type=int,
            metavar="IMAGES",
            help="images that go through the networks at once; gradients are added up to the "
            "batch (default: all)",
        )
        group.add_argument(
            "--checkpoint-minutes",
            type=float,
            default=default.checkpoint_minutes,
            metavar="MINUTES",
            help="time between checkpoints (default: %(default)g)",
        )


def _true_or_false(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"'{text}' is neither true nor false")
    return text.lower() == "true"


def compute(options: argparse.Namespace) -> Compute:
    """Return what `add_compute` read."""
    from wsss.runtime.compute import Compute

    given = {
        name: getattr(options, name)
        for name in ("micro_batch", "checkpoint_minutes")
        if hasattr(options, name)
    }
    return Compute(
        device=options.device,
        threads=options.threads,
        workers=options.workers,
        deterministic=options.deterministic,
        **given,
    )


def named_paths(words: Sequence[str]) -> dict[str, Path]:
    """Return name -> path of words like `name=path`, in order.

    Raises:
        UserError: A word has another form, or a name comes twice.
    """
    paths: dict[str, Path] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not (name and equals and path) or name in paths:
            raise UserError(f"'{word}' is not NAME=PATH, or comes twice", expected="NAME=PATH")
        paths[name] = Path(path)
    return paths


def settings(options: argparse.Namespace, stage: str) -> Any:
    """Read the settings of `stage` from `--config`."""
    from wsss.project.file import read_stage

    return read_stage(stage, options.config)


def manifest(options: argparse.Namespace, folder: Path) -> None:
    """Write the manifest of `folder` where one was asked for."""
    if options.manifest is not None:
        from wsss.provenance import write_manifest

        write_manifest(folder, options.manifest)
