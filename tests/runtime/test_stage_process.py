"""What a stage's failures are explained as."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from wsss.errors import UserError
from wsss.runtime.stage_process import explained


def test_a_full_disk_is_the_one_that_was_written(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for name in ("cam", "export"):
        with pytest.raises(UserError) as caught, explained(name, tmp_path / "run" / "x"):
            raise full
        assert caught.value.where == str(tmp_path / "run" / "x")
    # What the error names, at whatever depth, is nearer than the stage's output.
    elsewhere = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/dev/shm/part")
    with pytest.raises(UserError) as caught, explained("cam", tmp_path / "run" / "x"):
        try:
            raise elsewhere
        except OSError as error:
            raise RuntimeError("a library's own words") from error
    assert caught.value.where == "/dev/shm/part"
