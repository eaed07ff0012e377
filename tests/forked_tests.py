"""Run tests in forks of a process that has PyTorch imported already; for `mutants.py`.

Importing it takes seconds, most tests hundredths of one. The library itself is imported by each
fork anew, as are the tests.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

BEFOREHAND = (
    *("numpy", "scipy.ndimage", "scipy.sparse", "pandas", "PIL.Image", "h5py", "yaml", "pydantic"),
    *("torch", "torchvision", "timm", "safetensors.torch", "matplotlib.figure", "ruamel.yaml"),
)
"""What the library stands on; nothing that pytest would rewrite."""
OPTIONS = (
    *("-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=no", "-rfE"),
    # timm imports anyio, which is a plugin of pytest as well.
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
)


class ForkedTests:
    """Runs tests of a copy of the checkout.

    Args:
        place: The copy.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            cwd=place,
            env={**os.environ, "PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def failures(
        self, tests: Sequence[str], limit_s: float, *, first: bool = True
    ) -> list[str] | None:
        """Run tests, until one fails if only the first failure is wanted.

        Returns:
            Names of the tests that failed; "import" where they could not even be collected; None
            where they took too long.
        """
        assert self._server.stdin is not None and self._server.stdout is not None
        words = [*OPTIONS, *(["-x"] if first else []), *tests]
        print(json.dumps([words, limit_s]), file=self._server.stdin, flush=True)
        answer = self._server.stdout.readline()
        if not answer:
            raise SystemExit(f"the process that runs the tests in {self.place} has ended")
        status, printed = json.loads(answer)
        if status is None:
            return None
        if status in (0, 5):  # 5: there were none.
            return []
        named = re.findall(r"^(?:FAILED|ERROR) (\S.*?)(?: - .*)?$", printed, re.M)
        return [name for name in named if "::" in name] or ["import"]

    def close(self) -> None:
        """End the process."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()


def write_source(path: Path, source: str) -> None:
    """Write a module so that it is compiled again.

    Python compares size and second of a file with those of its compiled form, and two faults may
    agree in both.
    """
    path.write_text(source)
    Path(importlib.util.cache_from_source(path)).unlink(missing_ok=True)


def _run(words: Sequence[str]) -> int:
    """Run pytest in this process, which is a fork."""
    import pytest

    return int(pytest.main(list(words)))


def _answer(words: Sequence[str], limit_s: float) -> tuple[int | None, str]:
    """Run pytest in a fork; give its exit status, None where it took too long, and its output."""
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.setsid()
                with open(os.devnull) as nothing:
                    os.dup2(nothing.fileno(), 0)
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                status = _run(words)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        end = time.monotonic() + limit_s
        exited: int | None = None
        while exited is None and time.monotonic() < end:
            done, waited = os.waitpid(child, os.WNOHANG)
            exited = os.waitstatus_to_exitcode(waited) if done else None
            time.sleep(0 if done else 0.02)
        with suppress(ProcessLookupError):
            # Nothing of the tests goes on beside the next ones.
            os.killpg(child, signal.SIGKILL)
        if exited is None:
            os.waitpid(child, 0)
        output.seek(0)
        return exited, output.read().decode(errors="replace")


def _serve() -> None:
    sys.path[0] = str(Path.cwd())  # instead of the tests' folder
    import pytest  # noqa: F401

    for name in BEFOREHAND:
        importlib.import_module(name)
    for line in sys.stdin:
        words, limit_s = json.loads(line)
        print(json.dumps(_answer(words, limit_s)), flush=True)


if __name__ == "__main__":
    _serve()
