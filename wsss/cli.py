"""The command line: one subcommand a stage, the same with and without Snakemake.

Only the module of the chosen subcommand is imported, so that `wsss --help` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shlex
import sys
from collections.abc import Sequence

from wsss import __version__
from wsss.errors import PartlyDone, UserError
from wsss.runtime.compiler import leave_compiler_out
from wsss.runtime.ending import end
from wsss.runtime.openmp import wait_politely
from wsss.runtime.stage_process import explained, stopping
from wsss.runtime.terminal import guarded_streams
from wsss.stages import COMMANDS as STAGE_COMMANDS

# name: (module in wsss.commands, what it does)
PEOPLE_COMMANDS = {
    "init": ("init", "look at a folder of pictures and write a run for it"),
    "run": ("run", "make everything of a run, with Snakemake"),
    "predict": ("people", "segment any pictures with a trained model"),
    "table": ("people", "print the mIoU table of one or more runs"),
    "export-labels": ("exports", "write pseudo-labels or predictions for other tools"),
    "import-masks": ("imports", "take masks back that were drawn or corrected in other tools"),
    "export-model": ("export_model", "write a trained model for other runtimes, with its card"),
    "thresholds": ("thresholds", "say which background scores a few masks would choose"),
    "compare": ("people", "set two runs side by side: settings, scores, classes"),
    "status": ("status", "say how far along a run is, stage by stage"),
    "cams": ("people", "say what a CAM file holds"),
    "import-weights": ("published", "turn published ACR or IRN checkpoints into model files"),
    "fetch-weights": ("weights", "fetch a run's weights by name, ahead of it"),
    "submission": ("people", "pack VOC test-set predictions for the evaluation server"),
    "config": ("configuration", "check or show the configuration"),
}
SUMMARIES = {
    **{name: summary for name, (_, summary) in PEOPLE_COMMANDS.items()},
    **{name: stage.summary for name, stage in STAGE_COMMANDS.items()},
}


def build_parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """Return the parser; only the `chosen` subcommand has its options."""
    parser = argparse.ArgumentParser(
        prog="wsss",
        description="Weakly supervised semantic segmentation from image-level tags.",
        epilog="`wsss COMMAND --help` explains a command. Those from "
        f"`{next(iter(STAGE_COMMANDS))}` on are the stages of a run, which Snakemake calls for "
        "you: `wsss run demo`, or `snakemake --cores all results/demo/done`.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"wsss {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")
    for name, summary in SUMMARIES.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            allow_abbrev=False,
        )
        if name == chosen and name in STAGE_COMMANDS:
            importlib.import_module("wsss.commands.stage").configure(STAGE_COMMANDS[name], command)
        elif name == chosen:
            module = PEOPLE_COMMANDS[name][0]
            importlib.import_module(f"wsss.commands.{module}").configure(name, command)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        arguments: Its words; None: those that the program was given.

    Returns:
        The exit status: 0, 1 where some of the work could not be done and the rest is, 2 for
        something that a person can mend, 130 when interrupted.
    """
    with guarded_streams():
        return _run(list(sys.argv[1:] if arguments is None else arguments))


def program() -> int:
    """Run one subcommand as a program, which may end here; return its exit status."""
    return end(main())


def _run(given: list[str]) -> int:
    chosen = next((word for word in given if not word.startswith("-")), None)
    # Before anything loads PyTorch, and OpenMP with it.
    wait_politely()
    leave_compiler_out()
    try:
        if os.environ.get("WSSS_PLUGINS"):
            importlib.import_module("wsss.runtime.plugins").load_named_plugins()
        options = build_parser(chosen).parse_args(given)
        _check_words(given, options)
        with explained(options.command), stopping():
            options.run(options)
    except UserError as error:
        print(f"{' '.join(filter(None, ('wsss', chosen)))}: {error}", file=sys.stderr)
        return 1 if isinstance(error, PartlyDone) else 2
    except KeyboardInterrupt:
        print(f"\nwsss {chosen}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; without this Python complains once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


def _check_words(given: Sequence[str], options: argparse.Namespace) -> None:
    """Refuse words that would stand for another place than was meant.

    Raises:
        UserError: One is empty, which as a path is the folder that one is in; or what is to be
            written is `-`, which would be a file of that name.
    """
    if any(re.fullmatch(r"(--[\w-]+=)?", word) for word in given):
        raise UserError(
            "one of the words of this command is empty",
            where=shlex.join(given),
            fix="name what is meant; was it a variable of the shell that is not set?",
        )
    if str(getattr(options, "output", "")) == "-":
        raise UserError(
            "the output '-' is no name, and nothing is written to standard output instead",
            where="--output",
            expected="the path of a file or folder",
        )


if __name__ == "__main__":
    sys.exit(main())
