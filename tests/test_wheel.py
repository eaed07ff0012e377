"""The installed package alone is enough: a wheel, a new environment, a run outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from conftest import REPOSITORY, TINY_RUN, skip_or_fail, write_tiny_data

from wsss.project.working_folder import PARTS


def call(*words: object, folder: Path, **environment: str) -> str:
    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env={**inherited, "OMP_NUM_THREADS": "1", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder)]
    done = subprocess.run(
        [*build, str(REPOSITORY)], capture_output=True, text=True, check=False, cwd=folder
    )
    if done.returncode and "setuptools" in done.stderr:
        skip_or_fail("wheel", f"setuptools cannot be fetched: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("wsss-*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_the_working_folder(wheel: Path) -> None:
    start = "wsss/project/files/"
    with zipfile.ZipFile(wheel) as archive:
        held = {
            name.removeprefix(start): archive.read(name)
            for name in archive.namelist()
            if name.startswith(start)
        }
    files = [path for part in PARTS for path in (REPOSITORY / part).rglob("*")]
    files += [REPOSITORY / part for part in PARTS]
    expected = {
        path.relative_to(REPOSITORY).as_posix(): path.read_bytes()
        for path in files
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == expected


@pytest.mark.slow
def test_a_run_from_the_installed_package(wheel: Path, tmp_path: Path) -> None:
    call(sys.executable, "-m", "venv", tmp_path / "env", folder=tmp_path)
    python = tmp_path / "env" / "bin" / "python"
    # What it depends on comes from this environment, as the download would take minutes; of the
    # package itself, which is installed as editable here, a .pth file lets nothing through.
    site = Path(
        call(python, "-c", "import site; print(site.getsitepackages()[0])", folder=tmp_path).strip()
    )
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    call(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel, folder=tmp_path)
    where = call(python, "-c", "import wsss; print(wsss.__file__)", folder=tmp_path).strip()
    assert Path(where).is_relative_to(tmp_path)
    wsss = tmp_path / "env" / "bin" / "wsss"
    call(wsss, "init", "--project", "work", folder=tmp_path)
    work = tmp_path / "work"
    (work / "config.local.yaml").write_text(TINY_RUN)
    write_tiny_data(work / "data" / "tiny")
    printed = call(wsss, "run", "tiny", "--cores", "2", folder=work)
    assert "snakemake --cores 2 results/tiny/done" in printed
    done = (work / "results" / "tiny" / "done").read_text()
    for name in ("miou.csv", "tags.csv", "model.safetensors", "panels.sha256", "predictions"):
        assert name in done
    assert "against their tags" in call(wsss, "table", "results/tiny", folder=work)
    call(wsss, "export-model", "results/tiny", "--format", "huggingface", folder=work)
    model, picture = "results/tiny/export/model-huggingface", "data/tiny/images/image_00.png"
    assert "1 pictures" in call(wsss, "predict", model, picture, folder=work)
