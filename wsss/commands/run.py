"""`wsss run`: Snakemake with the right target, for who does not know Snakemake."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from wsss.errors import UserError
from wsss.project.run_folders import name_given


def configure(name: str, parser: argparse.ArgumentParser) -> None:
    """Add the options of the subcommand."""
    parser.add_argument(
        "name",
        nargs="?",
        default="demo",
        type=name_given,
        metavar="RUN",
        help="a run, or its folder (default: %(default)s)",
    )
    parser.add_argument(
        "--cores", default="all", help="processor cores to use (default: %(default)s)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done, and do nothing"
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from wsss.project.config import load_config

    if not Path("Snakefile").is_file():
        raise UserError(
            "there is no Snakefile here",
            where=Path.cwd(),
            fix="go to the working folder, or make one:  wsss init --project DIR",
        )
    load_config().run(options.name)
    words = ["--cores", options.cores, *(["--dry-run"] if options.dry_run else [])]
    words.append(f"results/{options.name}/done")
    print(f"snakemake {shlex.join(words)}", flush=True)
    # The one of this environment, whichever is activated.
    beside = Path(sys.executable).parent
    path = os.pathsep.join([str(beside), os.environ.get("PATH", "")])
    status = _wait_for([sys.executable, "-m", "snakemake", *words], {**os.environ, "PATH": path})
    if status:
        raise UserError(
            f"Snakemake ended with {status}",
            where=f"results/{options.name}",
            fix=f"what it says above, and:  wsss status results/{options.name}",
        )
    if not options.dry_run:
        print(f"results/{options.name}/done; its scores:  wsss table results/{options.name}")


def _wait_for(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a program to its end, which it decides on itself when it is asked to stop.

    `subprocess.run` kills it a quarter of a second after Ctrl-C: Snakemake's lock would stay, and
    its stages, which save what they have, would be left to nobody.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed; the program has ended.
    """
    interrupted = []

    def hand_on(number: int, frame: FrameType | None) -> None:
        # A terminal sends Ctrl-C to the program, too; what else ends this process is for it alone.
        if number == signal.SIGINT:
            interrupted.append(number)
        else:
            program.send_signal(number)

    asking = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # Who has a signal ignored, as nohup does, wants it ignored.
    watched = [number for number in asking if signal.getsignal(number) != signal.SIG_IGN]
    with subprocess.Popen(command, env=environment) as program:
        before = {number: signal.signal(number, hand_on) for number in watched}
        try:
            status = program.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if interrupted:
        raise KeyboardInterrupt
    return status
