"""Training metrics as JSON lines and TensorBoard events; the heartbeat tells of the last ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from wsss.files import write_text
from wsss.heartbeat import beat

METRICS_FILE = "metrics.jsonl"
EVENTS_FOLDER = "tensorboard"


class MetricsLog:
    """Appends one line a logged step to `metrics.jsonl` in `folder`.

    A resumed training first drops the lines after the step it resumes at, so that the file reads
    as if nothing had happened.
    """

    def __init__(self, folder: Path, resume_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        path = folder / METRICS_FILE
        kept = [line for line in self._lines(path) if json.loads(line)["step"] <= resume_step]
        write_text(path, "".join(line + "\n" for line in kept) if resume_step else "")
        self._file = path.open("a", encoding="utf-8")
        self._events = SummaryWriter(str(folder / EVENTS_FOLDER), purge_step=resume_step + 1)

    @staticmethod
    def _lines(path: Path) -> list[str]:
        if not path.exists():
            return []
        # A kill can cut the last line short; what does not end in a brace was never complete.
        lines = path.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line.startswith("{") and line.endswith("}")]

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Record `values` at `step` (steps finished so far)."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for key, value in values.items():
            if isinstance(value, (int, float)):
                self._events.add_scalar(key, value, step)

    def heartbeat(self, values: Mapping[str, Any]) -> None:
        """Show `values` to who asks how far this training is."""
        beat(**values)

    def close(self) -> None:
        """Flush and close both."""
        self._file.close()
        self._events.close()
