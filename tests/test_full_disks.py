"""A disk that is full while an output is written: whose it is."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from wsss.errors import UserError
from wsss.files import atomic_file


def test_a_full_disk_elsewhere_is_not_that_of_the_output(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/elsewhere/part")
    with pytest.raises(OSError, match="elsewhere") as caught, atomic_file(tmp_path / "x"):
        raise full
    assert caught.value is full
    with pytest.raises(UserError) as explained, atomic_file(tmp_path / "x"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert explained.value.where == str(tmp_path / "x") and list(tmp_path.iterdir()) == []
