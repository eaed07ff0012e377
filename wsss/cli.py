"""The command line: one subcommand a stage, the same with and without Snakemake.

Only the module of the chosen subcommand is imported, so that `wsss --help` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from wsss.errors import UserError
from wsss.runtime.stage_process import explained, stage_process

# name: (module in wsss.commands, what it does)
STAGE_COMMANDS = {
    "demo-data": ("data", "generate the demo data set"),
    "coco-masks": ("data", "draw MS-COCO's annotations as label PNGs, once"),
    "index": ("data", "check a data set and list its images and tags"),
    "masks": ("data", "check and list the ground-truth masks, for evaluation only"),
    "train-cam": ("cam", "train the classifier whose CAMs are the seeds"),
    "export-cams": ("cam", "write the CAMs of all tagged classes to HDF5"),
    "irn-labels": ("irn", "mine confident labels from the CAMs"),
    "train-irn": ("irn", "train IRNet on the confident labels"),
    "pseudo-labels": ("irn", "spread the CAMs by random walk into pseudo-labels"),
    "train-segmentation": ("segmentation", "train the segmentation model"),
    "predict-split": ("segmentation", "predict the images of one split"),
    "score-maps": ("evaluation", "score CAMs or walked maps over all background scores"),
    "score-labels": ("evaluation", "score label PNGs"),
    "collect": ("evaluation", "gather the scores of a run in miou.csv"),
    "ablation-table": ("evaluation", "gather the CAM scores of a run's ablations in one table"),
    "panels": ("evaluation", "draw image, CAM, pseudo-label, prediction and truth side by side"),
    "figures": ("figures", "draw the paper's figures for a few images, of one run or of two"),
}
PEOPLE_COMMANDS = {
    "predict": ("people", "segment any pictures with a trained model"),
    "table": ("people", "print the mIoU table of one or more runs"),
    "status": ("status", "say how far a run is, stage by stage"),
    "cams": ("people", "say what a CAM file holds"),
    "import-weights": ("published", "turn published ACR or IRN checkpoints into model files"),
    "submission": ("people", "pack VOC test-set predictions for the evaluation server"),
    "config": ("configuration", "check or show the configuration"),
}
COMMANDS = {**STAGE_COMMANDS, **PEOPLE_COMMANDS}


def build_parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """Return the parser; only the `chosen` subcommand has its options."""
    parser = argparse.ArgumentParser(
        prog="wsss",
        description="Weakly supervised semantic segmentation from image-level tags.",
        epilog="`wsss COMMAND --help` explains a command. The whole chain is run by Snakemake: "
        "snakemake --cores all results/demo/miou.csv",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            allow_abbrev=False,
        )
        if name == chosen:
            importlib.import_module(f"wsss.commands.{module}").configure(name, command)
    return parser


def _other_outputs(options: argparse.Namespace) -> list[Path]:
    """Return what a stage writes beside its --output."""
    names = ["curve", "plot", "manifest", "output_crf", "manifest_crf", "reconstructor_output"]
    if options.command == "pseudo-labels":
        names.append("maps")
    paths = [getattr(options, name, None) for name in names]
    if options.command == "index":
        paths.append(options.output.with_name("classes.txt"))
    if getattr(options, "work_dir", None) is not None:
        paths += [options.work_dir / name for name in ("checkpoint.pt", "metrics.jsonl")]
    return [path for path in paths if path is not None]


def _run(options: argparse.Namespace) -> None:
    # The record is all that drawing COCO's masks leaves among the results.
    output = getattr(options, "output", None) or getattr(options, "record", None)
    if options.command in STAGE_COMMANDS and output is not None:
        with stage_process(options.command, output, _other_outputs(options)):
            options.run(options)
    else:
        with explained(options.command):
            options.run(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Returns:
        The exit status: 0, 2 for something that a person can mend, 130 when interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    chosen = next((word for word in given if not word.startswith("-")), None)
    for stream in (sys.stdout, sys.stderr):
        # Under `| tee` Python would hold lines back until a block is full.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    try:
        if os.environ.get("WSSS_PLUGINS"):
            importlib.import_module("wsss.runtime.plugins").load_named_plugins()
        options = build_parser(chosen).parse_args(given)
        _run(options)
    except UserError as error:
        print(f"wsss {chosen}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nwsss {chosen}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; without this Python complains once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


if __name__ == "__main__":
    sys.exit(main())
