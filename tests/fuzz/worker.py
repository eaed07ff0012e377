"""The process that reads damaged files, and may hang, die or swell: `runner` watches it."""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

from fuzz.targets import TARGETS, mutation
from wsss.errors import UserError


def _can_be_printed(error: UserError) -> bool:
    try:
        str(error).encode()
    except UnicodeEncodeError:
        return False
    return True


def work(name: str, start: int, stop: int, seed: int) -> None:
    """Read damaged files number `start` to `stop`; tell of each on the standard output."""
    target = TARGETS[name]
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        files = target.make(folder)
        sound = {path: path.read_bytes() for path, _ in files}
        target.read(folder)  # what is sound can be read
        for descriptor in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        for number in range(start, stop):
            channel.write(f"{number}\n")
            with mutation(files, sound, random.Random(f"{name} {seed} {number}")):
                try:
                    target.read(folder)
                    outcome = "read"
                except UserError as error:
                    outcome = "refused"
                    if not _can_be_printed(error):
                        outcome = f"a message that cannot be printed: {error!r}"
                except Exception:
                    outcome = traceback.format_exc()
            channel.write(json.dumps(outcome) + "\n")


if __name__ == "__main__":
    work(sys.argv[1], *map(int, sys.argv[2:5]))
