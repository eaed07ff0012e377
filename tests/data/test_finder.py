"""Pictures found by what a list calls them, against a dict of all that they may be called."""

from __future__ import annotations

import itertools
from pathlib import Path

from memory_helpers import peak_of

from wsss.data.formats.pictures import Finder, files_below
from wsss.data.listing import Problem

FILES = (
    *("a.jpg", "b.JPG", "cat/a.jpg", "cat/a.png", "cat/deep/c.jpg", "dog/a.jpg", "dog/c.x.jpg"),
    *("e\u0301.png", "fe\u0301/\u00f6.png", "x/name.with.dots.png", "README", "cat/notes.txt"),
)
WORDS = (
    *("a", "a.jpg", "a.png", "b", "B", "b.jpg", "c", "c.x", "cat/a", "cat/a.jpg", "./cat/a.jpg"),
    *("/data/x/cat/a.jpg", "x\\cat\\a.png", "deep/c.jpg", "dog/c", " dog/a ", "", "/", "README"),
    *("\u00e9.png", "\u00e9", "o\u0308", "f\u00e9/\u00f6.png", "name.with", "name.with.dots"),
)


def _tree(root: Path) -> Path:
    for file in FILES:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def _naive(files: list[str], word: str) -> list[str]:
    """Return the files that a word may stand for."""
    wanted = word.strip().replace("\\", "/").removeprefix("./").lstrip("/")
    for key in (wanted, Path(wanted).name, Path(wanted).stem):
        found = []
        for file in files:
            bare, name = file.rsplit(".", 1)[0], file.split("/")[-1]
            if key in (file, bare, name, name.rsplit(".", 1)[0]):
                found.append(file)
        near = [file for file in found if wanted.endswith(file) or file.endswith(wanted)]
        if len(near) == 1:
            return near
        if found:
            return found
    return []


def test_a_word_stands_for_what_a_look_at_all_files_finds(tmp_path: Path) -> None:
    finder = Finder(_tree(tmp_path))
    files = [file for file in files_below(tmp_path) if file.endswith((".jpg", ".JPG", ".png"))]
    assert finder.files == files
    used = set()
    # Twice, and in both directions: what was asked before is of no matter.
    for word in (*WORDS, *reversed(WORDS)):
        problems: list[Problem] = []
        found, expected = finder.find(word, "list.csv", 3, problems), _naive(files, word)
        if len(expected) == 1:
            assert (found, problems) == (expected[0], [])
            used.add(expected[0])
        else:
            assert found is None and len(problems) == 1
            kind = "ambiguous image" if expected else "missing image"
            assert (problems[0].kind, problems[0].line) == (kind, 3)
            assert not expected or ", ".join(expected[:4]) in problems[0].reason
    assert list(finder.unlisted()) == [file for file in files if file not in used]
    assert used and len(finder.unlisted())


def test_a_file_of_another_kind_is_not_said_to_be_missing(tmp_path: Path) -> None:
    (_tree(tmp_path) / "cat/moving.gif").touch()
    problems: list[Problem] = []
    finder = Finder(tmp_path)
    assert finder.find("cat/moving.gif", "t.csv", 2, problems) is None
    assert finder.find("cat/gone.gif", "t.csv", 3, problems) is None
    assert [problem.kind for problem in problems] == ["file that is no picture", "missing image"]
    assert "ends in none of .bmp, .jpeg" in problems[0].reason


def test_a_name_in_other_characters_is_asked_for(tmp_path: Path) -> None:
    finder = Finder(_tree(tmp_path))
    for word in ("\u00e9.png", "\u00e9", "o\u0308", "f\u00e9/o\u0308.png"):
        problems: list[Problem] = []
        assert finder.find(word, "list.csv", 1, problems) is None
        assert "composed and decomposed" in problems[0].reason


def test_a_picture_takes_few_bytes(tmp_path: Path) -> None:
    count = 0
    for folder, number in itertools.product(range(20), range(100)):
        path = tmp_path / f"{folder:02}" / f"{number:03}.png"
        path.parent.mkdir(exist_ok=True)
        path.touch()
        count += 1
    Finder(tmp_path)
    finder, held, _ = peak_of(lambda: Finder(tmp_path))
    assert len(finder.files) == count
    assert held / count < 100
