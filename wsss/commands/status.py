"""Subcommand that says how far along a run is."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path

from wsss.errors import UserError
from wsss.project.run_folders import find_run, has_begun, lacking
from wsss.runtime.terminal import clear_screen


def configure(name: str, parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run, or results/<run>")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="for programs")
    how.add_argument(
        "--watch",
        nargs="?",
        type=float,
        const=5.0,
        metavar="SECONDS",
        help="show it again and again (default: every 5 s), until nothing is left to be done",
    )
    parser.set_defaults(run=_status)


def _status(options: argparse.Namespace) -> None:
    from wsss.monitor.status import run_status
    from wsss.monitor.status_text import format_status

    if options.watch is not None and options.watch <= 0:
        raise UserError(f"--watch {options.watch:g}", expected="more than 0 seconds")
    folders = [find_run(given) for given in options.runs]
    while True:
        runs = []
        for folder in folders:
            try:
                runs.append(run_status(folder))
            except UserError as error:
                found = error.found
                if has_begun(folder):
                    found = "this run has results, and nothing that says how far it is"
                raise lacking(folder, found, expected=error.expected) from None
        if options.json:
            print(json.dumps([dataclasses.asdict(run) for run in runs], default=str, indent=2))
            return
        if options.watch is not None and sys.stdout.isatty():
            clear_screen()
        print("\n\n".join(map(format_status, runs)))
        if options.watch is None or all(job.state == "done" for run in runs for job in run.jobs):
            return
        time.sleep(options.watch)
