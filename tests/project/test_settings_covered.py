"""Every setting has a test that notices when it is ignored: one marked with its name.

`@pytest.mark.setting("cam.acr.q_decay")` says of a test that it sees the setting at another value
than its default, and compares what is computed with what that value makes of it by hand, or by a
naive form. The mark may also be one of a `pytest.param`. Whether it is true,
`PYTHONPATH=tests python -m ignored_settings` tries.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from conftest import REPOSITORY
from settings_leaves import all_leaves, marks, names

TESTS = REPOSITORY / "tests"
SETTINGS = frozenset(leaf.place for leaf in all_leaves())


@pytest.fixture(scope="module")
def marked() -> dict[str, set[Path]]:
    """The settings that marks name, and the files of these tests."""
    found: dict[str, set[Path]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        text = path.read_text()
        if "pytest.mark.setting(" in text:
            for mark in marks(ast.parse(text)):
                for name in names(mark):
                    found.setdefault(name, set()).add(path.relative_to(TESTS))
    return found


def test_every_setting_has_a_test_at_another_value(marked: dict[str, set[Path]]) -> None:
    missing = sorted(SETTINGS - set(marked))
    assert not missing, "no test is marked with: " + ", ".join(missing)


def test_marks_name_settings(marked: dict[str, set[Path]]) -> None:
    unknown = {name: paths for name, paths in marked.items() if name not in SETTINGS}
    assert not unknown, "marks name what is no setting: " + ", ".join(
        f"{name} ({', '.join(map(str, sorted(paths)))})" for name, paths in sorted(unknown.items())
    )


def test_what_is_found() -> None:
    assert {"index.val_share", "cam.acr.q_decay", "cam.clip.name", "compute.micro_batch.irn"} < (
        SETTINGS
    )
    assert {"segmentation.head.name", "segmentation.head.low_level_channels"} < SETTINGS
    assert SETTINGS.isdisjoint({"cam.acr", "cam.acr.weights", "segmentation.head", "compute"})
    code = """
@pytest.mark.setting("a.b", "a.c")
@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.setting("a.d")), 2])
def test(x): pass

@pytest.mark.slow
@pytest.mark.setting("a.slow")
def test_slow(): pass
"""
    assert sorted(name for mark in marks(ast.parse(code)) for name in names(mark)) == [
        *("a.b", "a.c", "a.d")
    ]
