"""Training metrics as JSON lines and TensorBoard events; the heartbeat tells of the last ones."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from wsss.files import storage_error, storage_failure, write_text
from wsss.runtime.heartbeat import beat, host_identity

METRICS_FILE = "metrics.jsonl"
EVENTS_FOLDER = "tensorboard"


def _step(line: str) -> float:
    """Return the step of a line; infinite where it is not one of ours."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return math.inf
    return step if type(step) is int else math.inf


class _Events:
    """TensorBoard's events, written at once.

    Its public writers have a thread do that, in which a full disk ends in a traceback that nobody
    can catch; so this one is made of the parts that they are made of.
    """

    def __init__(self, folder: Path, stage: str, first_step: int) -> None:
        self._stage = stage
        folder.mkdir(parents=True, exist_ok=True)
        # Results are handed on: the machine's name, which is customary here, is nobody's business.
        place = hashlib.sha256(host_identity().encode()).hexdigest()[:8]
        name = f"events.out.tfevents.{time.time():.0f}.{place}.{os.getpid()}"
        self._file = open(folder / name, "ab", buffering=0)  # noqa: SIM115 - closed in `close`
        self._records = RecordWriter(self._file)
        self._add(Event(file_version="brain.Event:2"))
        # What an earlier process has told of these steps and later ones does not count.
        self._add(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())

    def scalars(self, step: int, values: Mapping[str, Any]) -> None:
        """Write the numbers among `values`."""
        numbers = [
            Summary.Value(tag=f"{self._stage}/{key}", simple_value=value)
            for key, value in values.items()
            if isinstance(value, (int, float))
        ]
        self._add(Event(step=step, summary=Summary(value=numbers)))

    def pictures(self, step: int, pictures: Mapping[str, bytes]) -> None:
        """Write encoded pictures by their names."""
        values = []
        for name, encoded in pictures.items():
            with Image.open(io.BytesIO(encoded), formats=["JPEG"]) as opened:
                width, height = opened.size
            image = Summary.Image(
                height=height, width=width, colorspace=3, encoded_image_string=encoded
            )
            values.append(Summary.Value(tag=f"{self._stage}/pictures/{name}", image=image))
        self._add(Event(step=step, summary=Summary(value=values)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class MetricsLog:
    """Appends one line a logged step to `metrics.jsonl` in `folder`.

    A resumed training first drops the lines after the step it resumes at, so that the file reads
    as if nothing had happened.

    Args:
        folder: Where `metrics.jsonl` and TensorBoard's folder are.
        stage: What TensorBoard groups the curves and pictures under, such as `cam`.
        resume_step: Steps finished before.
    """

    def __init__(self, folder: Path, stage: str, resume_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        path = folder / METRICS_FILE
        kept = [line for line in self._lines(path) if _step(line) <= resume_step]
        write_text(path, "".join(line + "\n" for line in kept) if resume_step else "")
        self._file = path.open("a", encoding="utf-8")
        self._events = _Events(folder / EVENTS_FOLDER, stage, resume_step + 1)

    @staticmethod
    def _lines(path: Path) -> list[str]:
        if not path.exists():
            return []
        # A kill can cut the last line short, and a power cut leave zeros: such a line was never
        # complete.
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        return [line for line in lines if _step(line) < math.inf]

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Record `values` at `step` (steps finished so far)."""
        with self._storing():
            self._file.write(json.dumps({"step": step, **values}) + "\n")
            self._file.flush()
            self._events.scalars(step, values)

    def pictures(self, step: int, pictures: Mapping[str, bytes]) -> None:
        """Show encoded pictures (PNG, JPEG) at `step`, by their names, in TensorBoard alone."""
        with self._storing():
            self._events.pictures(step, pictures)

    @contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            number = storage_failure(error)
            if number is None:
                raise
            raise storage_error(number, self._folder) from error

    def heartbeat(self, values: Mapping[str, Any]) -> None:
        """Show `values` to who asks how far this training is."""
        beat(**values)

    def close(self) -> None:
        """Flush and close both."""
        # A disk that was full at the last line is still: that was told, if the training minds.
        with suppress(OSError):
            self._file.close()
        self._events.close()
