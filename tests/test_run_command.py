"""`wsss run` and what it starts: Snakemake ends in its own way, or nobody unlocks its folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY

SNAKEMAKE = """
import signal, sys, time
from pathlib import Path

def end(number, frame):
    time.sleep(1.5)  # while jobs save what they have
    Path(f"ended-{number}").touch()
    sys.exit(1)

for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, end)
Path("started").touch()
time.sleep(300)
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 2)])
def test_snakemake_has_the_time_to_end(tmp_path: Path, number: int, status: int) -> None:
    for name in ("Snakefile", "config.yaml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    (tmp_path / "fake" / "snakemake").mkdir(parents=True)
    (tmp_path / "fake" / "snakemake" / "__init__.py").touch()
    (tmp_path / "fake" / "snakemake" / "__main__.py").write_text(SNAKEMAKE)
    path = os.pathsep.join([str(tmp_path / "fake"), str(REPOSITORY)])
    command = [sys.executable, "-m", "wsss.cli", "run", "demo"]
    environment = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        start_new_session=True,
        # Where the tests run in the background Ctrl-C is ignored, and by all that they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        stderr=subprocess.PIPE,
    ) as program:
        try:
            deadline = time.monotonic() + 240
            while not (tmp_path / "started").exists() and time.monotonic() < deadline:
                assert program.poll() is None
                time.sleep(0.05)
            time.sleep(0.5)
            if number == signal.SIGINT:
                os.killpg(program.pid, number)  # as a terminal does
            else:
                program.send_signal(number)
            said = program.communicate(timeout=240)[1].decode()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
    assert program.returncode == status, said
    assert (tmp_path / f"ended-{int(number)}").exists()
