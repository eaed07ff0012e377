"""A stage as a process: its heartbeat, the signals that end it, and what the machine does to it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from wsss.errors import UserError
from wsss.files.temporaries import remove_leftovers
from wsss.runtime.faults import explain, signal_name
from wsss.runtime.heartbeat import Heartbeat, beating
from wsss.runtime.locks import output_lock

# What schedulers and people send to end a job, and a terminal that closes.
STOPPING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


@contextmanager
def stage_process(
    command: str, output: Path, others: Sequence[Path] = (), *, trains: bool = False
) -> Iterator[None]:
    """Run a stage's work: alone on its output, told of by a heartbeat, tidy when stopped.

    What the machine does to it is explained.

    Args:
        command: The stage's subcommand, for messages.
        output: What the stage writes, or the first of several.
        others: What else it writes.
        trains: Whether several processes can run it together.

    Raises:
        UserError: Another process writes the output; also in place of what the machine did.
        SystemExit: A signal asked the stage to stop, with the status 128 + its number.
    """
    if trains and _follows():
        # One of several processes of a training: the first speaks for all.
        with explained(command, output), stopping():
            yield
        return
    with output_lock(output, command) as locked, beating(output, command) as heartbeat:
        for path in (output, *others):
            remove_leftovers(path, alone=locked)
        try:
            with explained(command, output), stopping():
                yield
        except BaseException as error:
            _tell(heartbeat, error)
            raise
        heartbeat.finish("done")


def _follows() -> bool:
    # As wsss.runtime.processes reads it, which imports PyTorch: MPI shells set RANK alone.
    several = os.environ.get("WORLD_SIZE", "1") != "1"
    return several and os.environ.get("RANK", "0") != "0"


def _tell(heartbeat: Heartbeat, error: BaseException) -> None:
    if isinstance(error, SystemExit) and isinstance(error.code, int) and error.code > 128:
        name = signal_name(error.code - 128)
        heartbeat.finish("stopped", f"{name} asked it to stop; the same command goes on")
    elif isinstance(error, KeyboardInterrupt):
        heartbeat.finish("stopped", "interrupted; the same command goes on")
    else:
        heartbeat.finish("failed", str(error) or type(error).__name__)


@contextmanager
def explained(command: str, output: Path | None = None) -> Iterator[None]:
    """Raise what the machine did to `command` as a `UserError` that says what to do.

    A disk that is full is that of `output`, unless the error names another file.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        explained = explain(error, command, output)
        if explained is None:
            raise
        raise explained from error


@contextmanager
def stopping() -> Iterator[None]:
    """Unwind on a stop signal, so that temporary outputs go; trainings save before they do.

    Raises:
        SystemExit: A signal came, with the status 128 + its number.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {}
    try:
        for number in STOPPING:
            # Who had it ignored (nohup) wants it ignored.
            if signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, stop)
    except ValueError:  # not the main thread: signals are not ours to handle
        pass
    try:
        yield
    except SystemExit as asked:
        if isinstance(asked.code, int) and asked.code - 128 in before:
            print(
                f"{signal_name(asked.code - 128)}: stopped; outputs that are not finished are "
                "gone, the others stay. Start the same command again to go on.",
                file=sys.stderr,
                flush=True,
            )
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
