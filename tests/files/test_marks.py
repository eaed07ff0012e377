"""Folders that are replaced as a whole: only those that wsss wrote, and nothing else with them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Project

from wsss.cli import main
from wsss.errors import UserError
from wsss.files import atomic_directory
from wsss.files.marks import MARK, adopt, check_free, check_replaceable
from wsss.files.temporaries import temporary_sibling
from wsss.provenance import write_manifest


def _write(folder: Path, *names: str) -> None:
    with atomic_directory(folder) as inside:
        for name in names:
            (inside / name).parent.mkdir(parents=True, exist_ok=True)
            (inside / name).write_text(f"ours {name}")


def _state(folder: Path) -> dict[str, str | None]:
    return {
        str(path.relative_to(folder)): path.read_text() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def _file(folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")


def _hidden(folder: Path) -> None:
    folder.mkdir()
    (folder / ".git").write_text("mine")


def _deep(folder: Path) -> None:
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/b/thesis.txt").write_text("mine")


def _empty_folders(folder: Path) -> None:
    (folder / "photos/2026").mkdir(parents=True)


def _link_inside(folder: Path) -> None:
    folder.mkdir()
    (folder / "link").symlink_to(folder.parent, target_is_directory=True)


def _link_to_it(folder: Path) -> None:
    _file(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere", target_is_directory=True)


def _added_to_ours(folder: Path) -> None:
    _write(folder, "a.png")
    (folder / "notes.txt").write_text("mine")


def _added_deep_to_ours(folder: Path) -> None:
    _write(folder, "a/b.png")
    (folder / "a/notes.txt").write_text("mine")


def _mark_of_others(folder: Path) -> None:
    _file(folder)
    (folder / MARK).write_text('{"written_by": "somebody", "files": ["thesis.txt"]}')


def _damaged_mark(folder: Path) -> None:
    _write(folder, "a.png")
    (folder / MARK).write_text("[" * 100_000)


def _manifest_beside(folder: Path) -> None:
    # People write such lists for their own folders, too: outside of results/ it tells nothing.
    _file(folder)
    write_manifest(folder, folder.with_name(f"{folder.name}.sha256"))


FOREIGN = [
    *(_file, _hidden, _deep, _empty_folders, _link_inside, _link_to_it, _added_to_ours),
    *(_added_deep_to_ours, _mark_of_others, _damaged_mark, _manifest_beside),
]


@pytest.mark.parametrize("make", FOREIGN)
def test_what_wsss_did_not_write_is_refused_and_untouched(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = tmp_path / "own"
    make(folder)
    before = _state(tmp_path)
    with pytest.raises(UserError, match="wsss did not write") as caught:
        _write(folder, "b.png")
    assert caught.value.where == str(folder) and "nothing was touched" in str(caught.value)
    assert _state(tmp_path) == before


@pytest.mark.parametrize("named", [".", "here", "../here"])
def test_the_folder_that_one_is_in_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(UserError, match="the one that you are in") as caught:
        _write(here if named == "here" else Path(named), "a")
    assert caught.value.fix and here.samefile(Path.cwd()) and _state(tmp_path) == {"here": None}


def test_a_file_in_a_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("mine")
    with pytest.raises(UserError, match="something else has that name"):
        _write(tmp_path / "own", "b.png")
    assert (tmp_path / "own").read_text() == "mine"
    (tmp_path / "broken").symlink_to("nowhere")
    with pytest.raises(UserError, match="something else has that name"):
        _write(tmp_path / "broken", "b.png")
    assert (tmp_path / "broken").readlink() == Path("nowhere")


def test_our_own_folders_are_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    for names in (("a.png", "sub/b.png"), ("a.png",), ("c.png",)):
        _write(folder, *names)
        # What Snakemake and file managers leave is nobody's work.
        (folder / ".snakemake_timestamp").touch()
        (folder / ".DS_Store").touch()
        assert {p.name for p in folder.rglob("*.png")} == {Path(n).name for n in names}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own"]
    (folder / "c.png").unlink()
    _write(folder, "d.png")


def test_an_old_folder_goes_only_when_the_new_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "own"
    _write(folder, "old.png")
    rename, seen = os.replace, []

    def watch(source: Path, target: Path) -> None:
        rename(source, target)
        if Path(target).parent == tmp_path:
            seen.append(sorted(path.name for path in tmp_path.rglob("*.png")))

    monkeypatch.setattr(os, "replace", watch)
    _write(folder, "new.png")
    # Both are there after either renaming: of the old folder, and of the new one.
    assert seen == [["new.png", "old.png"]] * 2
    assert [path.name for path in tmp_path.rglob("*.png")] == ["new.png"]


def test_a_file_that_comes_while_the_work_goes_on_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    _write(folder, "a.png")
    with pytest.raises(UserError, match=r"notes\.txt"), atomic_directory(folder) as inside:
        (inside / "a.png").write_text("newer")
        (folder / "notes.txt").write_text("mine")
    assert (folder / "notes.txt").read_text() == "mine"
    assert (folder / "a.png").read_text() == "ours a.png"


def test_same_content_same_mark_and_no_manifest_has_it(tmp_path: Path) -> None:
    for name in ("one", "two"):
        _write(tmp_path / name, "b.png", "a/c.png")
        write_manifest(tmp_path / name, tmp_path / f"{name}.sha256")
    assert (tmp_path / "one" / MARK).read_bytes() == (tmp_path / "two" / MARK).read_bytes()
    listed = [line.split("  ")[1] for line in (tmp_path / "one.sha256").read_text().splitlines()]
    assert listed == ["a/c.png", "b.png"]


def test_a_folder_from_before_there_were_marks_is_adopted_where_its_manifest_fits(
    tmp_path: Path,
) -> None:
    folder, manifest = tmp_path / "labels", tmp_path / "labels.sha256"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.png", "deep/b.png"):
        (folder / name).write_text(name)
    write_manifest(folder, manifest)
    (folder / "thesis.txt").write_text("mine")
    assert not adopt(folder, manifest)
    (folder / "thesis.txt").unlink()
    (folder / "a.png").write_text("retouched by hand")
    assert not adopt(folder, manifest)
    (folder / "a.png").write_text("a.png")
    assert not adopt(folder, tmp_path / "none.sha256")
    with pytest.raises(UserError):
        check_replaceable(folder)
    (tmp_path / "link").symlink_to(folder)
    assert not adopt(tmp_path / "link", manifest)
    assert not adopt(folder / "a.png", manifest)
    assert not (folder / MARK).exists()
    assert adopt(folder, manifest)
    check_replaceable(folder)
    assert not adopt(folder, manifest), "it is marked already"


def test_commands_refuse_before_they_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _file(tmp_path / "own")
    assert main(["demo-data", "--output", str(tmp_path / "own")]) == 2
    assert "wsss did not write" in capsys.readouterr().err
    assert (tmp_path / "own/thesis.txt").read_text() == "mine"


# ----- real Snakemake, which empties folders by itself


def _refused(project: Project, folder: Path, *arguments: str) -> str:
    before = _state(folder)
    done = project.snakemake(*arguments)
    assert done.returncode != 0, done.stdout
    assert "wsss did not write what is in it" in done.stdout
    assert _state(folder) == before
    assert not (project.folder / "results/tiny/index.csv").exists(), "a job ran"
    return done.stdout


def test_snakemake_does_not_empty_a_root_that_is_somebodys(project: Project) -> None:
    _file(project.folder / "precious")
    local = project.folder / "config.local.yaml"
    local.write_text(local.read_text().replace("roots: {", "roots: {demo: precious, "))
    target = "results/demo/index.csv"
    for options in ((), ("-n",), ("--no-hooks",)):
        assert "thesis.txt" in _refused(project, project.folder / "precious", target, *options)
    # What does not write there is not kept from working.
    assert project.planned("results/tiny/index.csv")["index"] == 1


def test_snakemake_does_not_empty_a_stages_folder_that_is_somebodys(project: Project) -> None:
    for place in ("pseudo_labels", "irn/labels", "predictions_crf", "panels"):
        folder = project.folder / "results/tiny" / place
        folder.parent.mkdir(parents=True, exist_ok=True)
        _file(folder)
        if place == "panels":
            # A manifest that does not fit it makes it no more ours.
            folder.with_name("panels.sha256").write_text(f"{'0' * 64}  thesis.txt\n")
        _refused(project, folder, "results/tiny/miou.csv")
        shutil.rmtree(folder)


def test_snakemake_does_not_remove_others_files_among_the_shards(project: Project) -> None:
    folder = project.folder / "results/tiny/shards/prediction/1-of-2"
    folder.parent.mkdir(parents=True)
    _file(folder)
    _refused(project, folder, "results/tiny/miou.csv")


def test_snakemake_replaces_its_own_folders_and_adopts_older_ones(project: Project) -> None:
    target = "results/demo/index.csv"
    source = project.folder / "wsss/data/formats/demo_pictures.py"
    text = source.read_text()
    fewer = text.replace("TRAIN_IMAGES = 240", "TRAIN_IMAGES = 6").replace("= 80", "= 2")
    assert fewer.count("_IMAGES = 6") == fewer.count("_IMAGES = 2") == 1
    source.write_text(fewer)
    project.make(target, by_itself="demo-data")
    data = project.folder / "results/demo-data"
    assert (data / MARK).is_file()
    (data / MARK).unlink()
    before = (data.with_name("demo-data.sha256")).read_bytes()
    project.make(target, "--forcerun", "demo_data")
    assert (data / MARK).is_file() and data.with_name("demo-data.sha256").read_bytes() == before
    (data / "notes.txt").write_text("mine")
    done = project.snakemake(target, "--forcerun", "demo_data")
    assert done.returncode != 0 and "notes.txt" in done.stdout
    assert (data / "notes.txt").read_text() == "mine"


def test_where_nothing_is_what_the_killed_have_left_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                            stdout=subprocess.PIPE, check=True)  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: int(killed.stdout))
        left = temporary_sibling(tmp_path / "labels")
    _file(left)
    mine = temporary_sibling(tmp_path / "other")
    _file(mine)
    check_free(tmp_path / "labels")
    assert [path.name for path in tmp_path.iterdir()] == [mine.name]
    (tmp_path / "labels").symlink_to("nowhere")
    with pytest.raises(UserError, match="something here already"):
        check_free(tmp_path / "labels")
