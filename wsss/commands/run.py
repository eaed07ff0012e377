"""`wsss run`: Snakemake with the right target, for who does not know Snakemake."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

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
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *words], env={**os.environ, "PATH": path}, check=False
    )
    if done.returncode:
        raise UserError(
            f"Snakemake ended with {done.returncode}",
            where=f"results/{options.name}",
            fix=f"what it says above, and:  wsss status results/{options.name}",
        )
    if not options.dry_run:
        print(f"results/{options.name}/done; its scores:  wsss table results/{options.name}")
