from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from wsss.errors import UserError
from wsss.provenance import closure, closure_hash, file_fingerprint, write_manifest


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "wsss"
    files = {
        "__init__.py": '"""The package."""\n',
        "files.py": "X = 1\n",
        "errors.py": "class UserError(Exception):\n    pass\n",
        "cam/__init__.py": "",
        "cam/training.py": (
            '"""Doc."""\n'
            "from typing import TYPE_CHECKING\n"
            "from wsss import files\n"
            "from wsss.cam.config import Config\n"
            "if TYPE_CHECKING:\n    from wsss.data import types\n"
            "def f():\n    import wsss.data.late\n"
            "def g():\n    import importlib\n"
            '    return importlib.import_module("wsss.data.dynamic")\n'
        ),
        "cam/config.py": (
            'class Config:\n    """Doc."""\n    rate: float = 1.0  # a comment\n    """A rate."""\n'
        ),
        "data/__init__.py": "",
        "data/late.py": "from ..errors import UserError\nfrom . import sibling\n",
        "data/sibling.py": "",
        "data/dynamic.py": "",
        "data/types.py": "",
        "data/other.py": "from wsss.cam import training\n",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_closure_follows_every_way_of_importing(package: Path) -> None:
    assert closure("wsss.cam.training", folder=package) == (
        "wsss",
        "wsss.cam",
        "wsss.cam.config",
        "wsss.cam.training",
        "wsss.data",
        "wsss.data.dynamic",
        "wsss.data.late",
        "wsss.data.sibling",
        "wsss.errors",
        "wsss.files",
    )


def test_unknown_module(package: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"wsss\.nothing"):
        closure("wsss.nothing", folder=package)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("cam/training.py", '"""Doc."""', '"""Another.\n\nMuch longer.\n"""'),
        ("cam/config.py", "  # a comment", ""),
        ("cam/config.py", '"""A rate."""', '"""The learning rate."""'),
        ("cam/config.py", "rate: float = 1.0", "rate: float  =  1.0"),
        ("files.py", "X = 1", "\n# why\nX = 1"),
        ("data/types.py", "", "Y = 2\n"),
        ("data/other.py", "training", "training as t"),
    ],
)
def test_what_leaves_the_hash(package: Path, file: str, old: str, new: str) -> None:
    before = closure_hash("wsss.cam.training", folder=package)
    edit(package / file, old, new)
    assert closure_hash("wsss.cam.training", folder=package) == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("cam/config.py", "1.0", "1.5"),
        ("files.py", "X = 1", "X = 2"),
        ("data/late.py", "UserError", "UserError as E"),
        ("data/sibling.py", "", "Z = 1\n"),
        ("data/dynamic.py", "", "Z = 1\n"),
        ("__init__.py", '"""The package."""', "import os"),
    ],
)
def test_what_changes_the_hash(package: Path, file: str, old: str, new: str) -> None:
    before = closure_hash("wsss.cam.training", folder=package)
    edit(package / file, old, new)
    assert closure_hash("wsss.cam.training", folder=package) != before


def test_touching_changes_nothing(package: Path) -> None:
    before = closure_hash("wsss.cam.training", folder=package)
    os.utime(package / "files.py", (1, 1))
    assert closure_hash("wsss.cam.training", folder=package) == before


def test_broken_source_is_named(package: Path) -> None:
    (package / "files.py").write_text("x = (\n")
    with pytest.raises(UserError) as caught:
        closure_hash("wsss.cam.training", folder=package)
    assert "files.py, line 1" in str(caught.value)


def test_stages_do_not_reach_each_other_nor_the_command_line() -> None:
    stages = {
        "cam": ("wsss.cam.training", "wsss.cam.export"),
        "irn": ("wsss.irn.labels", "wsss.irn.training", "wsss.irn.pseudo_labels"),
        "segmentation": ("wsss.segmentation.training", "wsss.segmentation.prediction"),
        "evaluation": ("wsss.evaluation.scoring", "wsss.figures.panels"),
    }
    for package_name, modules in stages.items():
        # Evaluation belongs to what all share: stages may use it, it uses none of them.
        foreign = [f"wsss.{other}" for other in ("cam", "irn", "segmentation")]
        foreign = [name for name in foreign if name != f"wsss.{package_name}"]
        foreign += ["wsss.cli", "wsss.project", "wsss.monitor", "wsss.commands"]
        for module in modules:
            for name in closure(module):
                assert not any(name == f or name.startswith(f"{f}.") for f in foreign), (
                    f"{module} reaches {name}"
                )


def test_library_does_not_know_snakemake() -> None:
    root = Path(__file__).parent.parent / "wsss"
    for path in root.rglob("*.py"):
        text = path.read_text()
        assert "import snakemake" not in text and "from snakemake" not in text, path


def test_file_fingerprint_sees_content_not_place(tmp_path: Path) -> None:
    content = bytes(range(256)) * 64
    first, second, third = (tmp_path / name for name in "abc")
    first.write_bytes(content)
    second.write_bytes(content)
    third.write_bytes(content[:-1] + b"x")
    options = {"blocks": 4, "block_bytes": 256}
    assert file_fingerprint(first, **options) == file_fingerprint(second, **options)
    # The last block is always looked at, and so is the size.
    assert file_fingerprint(first, **options) != file_fingerprint(third, **options)
    third.write_bytes(content + b"x")
    assert file_fingerprint(first, **options) != file_fingerprint(third, **options)
    assert file_fingerprint(first) == file_fingerprint(second)


def test_manifest_is_what_sha256sum_writes(tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.png").write_bytes(b"b")
    (folder / "a.png").write_bytes(b"a")
    (folder / "sub" / "c.png").write_bytes(b"c")
    (folder / ".snakemake_timestamp").touch()
    output = tmp_path / "labels.sha256"
    write_manifest(folder, output)
    assert [line.split("  ")[1] for line in output.read_text().splitlines()] == [
        "a.png",
        "b.png",
        "sub/c.png",
    ]
    assert output.read_text().startswith(hashlib.sha256(b"a").hexdigest())
    subprocess.run(["sha256sum", "--check", "--strict", output], cwd=folder, check=True)
