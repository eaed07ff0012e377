from __future__ import annotations

import ast
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from wsss.errors import UserError
from wsss.provenance import (
    OUTSIDE,
    PACKAGE_FOLDER,
    closure,
    closure_hash,
    file_fingerprint,
    write_manifest,
)
from wsss.runtime.progress import progress


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "wsss"
    files = {
        "__init__.py": '"""The package."""\n',
        "files.py": "X = 1\n",
        "errors.py": "class UserError(Exception):\n    pass\n",
        "runtime/__init__.py": "",
        "runtime/progress.py": "from wsss.data import other\n",
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
        "data/late.py": (
            "from ..errors import UserError\nfrom ..runtime.progress import progress\n"
            "from . import sibling\n"
            "def fail(name):\n"
            '    raise UserError(f"no {name}", where="here")\n'
        ),
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
        "wsss.cam",
        "wsss.cam.config",
        "wsss.cam.training",
        "wsss.data",
        "wsss.data.dynamic",
        "wsss.data.late",
        "wsss.data.sibling",
        "wsss.files",
    )


def test_imports_count_however_deep_they_stand(package: Path) -> None:
    (package / "data/dynamic.py").write_text(
        "def f(x):\n"
        "    try:\n        pass\n"
        "    except ValueError:\n        from wsss.data import sibling\n"
        "    match x:\n        case 1:\n            import wsss.data.types\n"
    )
    found = closure("wsss.data.dynamic", folder=package)
    assert {"wsss.data.sibling", "wsss.data.types"} < set(found)


def test_modules_that_are_loaded_by_name_count_where_they_are_chosen(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "my_method.py").write_text("import os\nfrom wsss.data import types\nimport beside\n")
    (plugins / "beside.py").write_text("SCALE = 1\n")
    monkeypatch.syspath_prepend(plugins)

    def hashed() -> str:
        return closure_hash("wsss.cam.training", "my_method", folder=package)

    alone = closure("wsss.cam.training", folder=package)
    both = closure("wsss.cam.training", "my_method", folder=package)
    assert set(both) - set(alone) == {"my_method", "beside", "wsss.data.types"}
    before = hashed()
    for path, text in ((plugins / "beside.py", "SCALE = 2\n"), (plugins / "my_method.py", "")):
        path.write_text(text)
        assert hashed() != before
        before = hashed()
    with pytest.raises(ModuleNotFoundError, match="my_other"):
        closure_hash("wsss.cam.training", "my_other", folder=package)


def signatures(name: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Yield the functions and methods of a module with the classes they are in."""
    path = PACKAGE_FOLDER.joinpath(*name.split(".")[1:])
    file = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef):
            yield f"{name}.{node.name}", node


def test_what_is_outside_the_hash_hands_no_array_to_anything() -> None:
    # What a function returns is all that it can hand on, since none writes into an argument. A
    # type variable is what the caller put in.
    plain = {"None", "str", "int", "float", "bool", "list", "tuple", "dict", "Path", "UserError"}
    plain |= {"Iterator", "T", "Heartbeat", "ast", "AST", "stmt", "Module", "_Stamp"}
    plain |= {"ModuleSpec", "ModuleType"}
    plain |= {"bytes", "TrainingPictures"}  # a file to look at, and what makes it
    for module in sorted(OUTSIDE):
        for name, function in signatures(module):
            assert function.returns is not None, name
            returned = ast.unparse(function.returns)
            words = set(re.findall(r"\w+", returned)) - plain
            private = function.name.startswith("_")
            assert words <= ({"Any"} if private else set()), f"{name} returns {returned}"
            given = {each.arg for each in ast.walk(function.args) if isinstance(each, ast.arg)}
            for node in ast.walk(function):
                written = node.targets if isinstance(node, ast.Assign) else []
                written += [node.target] if isinstance(node, ast.AugAssign) else []
                for target in written:
                    root = target
                    while isinstance(root, ast.Attribute | ast.Subscript):
                        root = root.value
                    changes = root is not target and isinstance(root, ast.Name)
                    foreign = changes and root.id in given - {"self"}
                    assert private or not foreign, (name, target.lineno)
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    # PyTorch's names of what changes a tensor in place.
                    assert not re.search(r"[a-z]_$", node.func.attr), (name, node.func.attr)


def test_progress_hands_on_what_it_got() -> None:
    items = [np.arange(3), np.ones((2, 2)), np.zeros(0)]
    copies = [item.copy() for item in items]
    shown = list(progress(iter(items), total=3, description="test"))
    assert all(one is other for one, other in zip(shown, items, strict=True))
    assert all(np.array_equal(one, other) for one, other in zip(items, copies, strict=True))


def test_importing_the_package_does_nothing() -> None:
    # It is outside the hash: what it holds may only be looked up.
    nodes = ast.parse((PACKAGE_FOLDER / "__init__.py").read_text()).body
    for node in nodes:
        is_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        quiet = (
            ast.Expr | ast.Assign | ast.AnnAssign | ast.FunctionDef | ast.Import | ast.ImportFrom
        )
        assert isinstance(node, quiet) or is_types, ast.unparse(node)
        assert not (isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant))
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert "wsss" not in ast.unparse(node), ast.unparse(node)


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
        # Messages, and the modules of what only tells of the work.
        ("data/late.py", 'f"no {name}", where="here"', 'f"there is no {name}", fix="make it"'),
        ("errors.py", "pass", "x = 1"),
        ("runtime/progress.py", "other", "other as o"),
        ("__init__.py", '"""The package."""', "_LAZY = {'train': 'wsss.cam.training'}"),
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
        ("data/late.py", "import UserError", "import UserError as E"),
        ("data/sibling.py", "", "Z = 1\n"),
        ("data/dynamic.py", "", "Z = 1\n"),
        ("data/late.py", "raise UserError", "return UserError"),
        ("cam/__init__.py", "", "import os\n"),
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


def test_a_hash_is_kept_as_long_as_the_sources_stay(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSSS_CACHE", str(tmp_path / "cache"))
    first = closure_hash("wsss.cam.training", folder=package)
    (entry,) = (tmp_path / "cache" / "code").iterdir()
    assert entry.read_text() == first
    parsed = []
    parse = ast.parse
    monkeypatch.setattr(ast, "parse", lambda *a, **k: parsed.append(a) or parse(*a, **k))
    copied = shutil.copytree(package, tmp_path / "elsewhere")
    assert closure_hash("wsss.cam.training", folder=copied) == first
    assert not parsed
    # Another module is another entry; so is a comment, whose hash is the same.
    assert closure_hash("wsss.cam.config", folder=copied) != first
    with open(copied / "files.py", "a") as file:
        file.write("# a comment\n")
    assert closure_hash("wsss.cam.training", folder=copied) == first
    assert parsed
    assert len(list(entry.parent.iterdir())) == 3


def test_nothing_is_kept_of_sources_that_are_saved_meanwhile(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSSS_CACHE", str(tmp_path / "cache"))
    old = (package / "files.py").read_text()
    parse = ast.parse

    def saving(*arguments: object, **more: object) -> ast.AST:
        (package / "files.py").write_text(old + "Y = 2\n")
        monkeypatch.setattr(ast, "parse", parse)
        return parse(*arguments, **more)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(ast, "parse", saving)
    mixed = closure_hash("wsss.cam.training", folder=package)
    assert not (tmp_path / "cache").exists()
    (package / "files.py").write_text(old)
    assert closure_hash("wsss.cam.training", folder=package) != mixed


@pytest.mark.parametrize("damage", [b"", b"0123", b"\xff" * 16, b"g" * 16])
def test_a_damaged_entry_is_worked_out_again(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes
) -> None:
    monkeypatch.setenv("WSSS_CACHE", str(tmp_path / "cache"))
    first = closure_hash("wsss.cam.training", folder=package)
    (entry,) = (tmp_path / "cache" / "code").iterdir()
    entry.write_bytes(damage)
    assert closure_hash("wsss.cam.training", folder=package) == first
    assert entry.read_text() == first


@pytest.mark.parametrize("homeless", [False, True])
def test_hashes_are_made_where_none_can_be_kept(
    package: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    homeless: bool,
) -> None:
    monkeypatch.setenv("WSSS_CACHE", str(tmp_path / "cache"))
    first = closure_hash("wsss.cam.training", folder=package)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WSSS_CACHE", str(tmp_path / "file" / "cache"))
    if homeless:  # as a user of whom the machine knows nothing
        for name in ("WSSS_CACHE", "XDG_CACHE_HOME", "HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(os, "getuid", lambda: 2**31 - 5)
        with pytest.raises(RuntimeError):
            Path.home()
    assert closure_hash("wsss.cam.training", folder=package) == first
    assert capsys.readouterr() == ("", "")


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
