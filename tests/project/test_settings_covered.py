"""Every setting has a test that notices when it is ignored: one marked with its name.

`@pytest.mark.setting("cam.acr.q_decay")` says of a test that it sees the setting at another value
than its default, and compares what is computed with what that value makes of it by hand, or by a
naive form. The mark may also be one of a `pytest.param`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY

from wsss.project.file import STAGES, stage_kind
from wsss.project.local import LocalCompute
from wsss.runtime.registry import Kind, Registry, inner_kind

TESTS = REPOSITORY / "tests"
KINDS: dict[str, Kind] = {**{stage: stage_kind(stage) for stage in STAGES}, "compute": LocalCompute}


def places(kind: Kind, place: str) -> Iterator[str]:
    """Yield the place of every setting of a kind; of a registry, of all that the library has."""
    if isinstance(kind, Registry):
        for entry in kind.entries().values():
            if entry.settings.__module__.partition(".")[0] == "wsss":
                yield from places(entry.settings, place)
        return
    for key, field in kind.model_fields.items():
        inner = inner_kind(field)
        if inner is None:
            yield f"{place}.{key}"
        else:
            yield from places(inner, f"{place}.{key}")


def marks(tree: ast.AST) -> Iterator[ast.Call]:
    """Yield the marks `setting` of tests; what is slow is not run with the others, and left out."""
    if isinstance(tree, (ast.FunctionDef, ast.ClassDef)) and any(
        ast.unparse(node) == "pytest.mark.slow" for node in tree.decorator_list
    ):
        return
    if isinstance(tree, ast.Call) and ast.unparse(tree.func) == "pytest.mark.setting":
        yield tree
    for node in ast.iter_child_nodes(tree):
        yield from marks(node)


def names(mark: ast.Call) -> list[str]:
    """Return what a mark names; texts alone, so that they can be read without running anything."""
    values = [ast.literal_eval(node) for node in mark.args]
    assert values and not mark.keywords and all(isinstance(value, str) for value in values)
    return values


SETTINGS = frozenset(leaf for stage, kind in KINDS.items() for leaf in places(kind, stage))


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
