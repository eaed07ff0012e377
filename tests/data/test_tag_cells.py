"""Tags that are no single tags, in each format that reads tags; and the order of the classes."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from wsss.data.build import build_index, check_class_order
from wsss.data.class_names import class_warnings, in_order, look_alikes
from wsss.data.formats.class_folders import ClassFoldersSettings
from wsss.data.formats.coco_json import CocoJsonSettings
from wsss.data.formats.folder import FolderSettings
from wsss.data.formats.registry import IndexSettings
from wsss.data.formats.table import TableSettings
from wsss.data.indexing import make_index
from wsss.data.tags import Cell, clean_name, read_tags
from wsss.errors import UserError

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def write_pictures(root: Path, count: int) -> list[str]:
    (root / "images").mkdir(exist_ok=True)
    names = [f"{number}.png" for number in range(count)]
    for name in names:
        Image.new("RGB", (8, 6)).save(root / "images" / name)
    return names


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def write_folder(root: Path, cells: list[str]) -> IndexSettings:
    names = write_pictures(root, len(cells))
    lines = [f"{name},{quoted(text)}" for name, text in zip(names, cells, strict=True)]
    (root / "labels.csv").write_text("image,tags\n" + "\n".join(lines) + "\n")
    return FolderSettings()


def write_table(root: Path, cells: list[str]) -> IndexSettings:
    names = write_pictures(root, len(cells))
    lines = [f"{name},{quoted(text)},me" for name, text in zip(names, cells, strict=True)]
    (root / "list.csv").write_text("file_name,labels,by\n" + "\n".join(lines) + "\n")
    return TableSettings(file="list.csv")


def write_json_lines(root: Path, cells: list[str]) -> IndexSettings:
    names = write_pictures(root, len(cells))
    lines = [
        json.dumps({"file_name": name, "labels": text})
        for name, text in zip(names, cells, strict=True)
    ]
    # The header line of the others is a line, too.
    (root / "list.jsonl").write_text("\n" + "\n".join(lines) + "\n")
    return TableSettings(file="list.jsonl")


WRITERS = [write_folder, write_table, write_json_lines]
Write = Callable[[Path, list[str]], IndexSettings]


@pytest.fixture(params=WRITERS, ids=lambda write: write.__name__)
def write(request: pytest.FixtureRequest) -> Write:
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize("mark", [";", ",", "|", " ; ", "\u00a0,\u2003"])
def test_one_separator_a_file(
    tmp_path: Path, write: Write, mark: str, capsys: pytest.CaptureFixture[str]
) -> None:
    index = build_index(write(tmp_path, [f"dog{mark}sofa", "sofa", f"dog{mark}"]), tmp_path)
    assert index.classes == ("dog", "sofa")
    assert [record.tags for record in index.records] == [("dog", "sofa"), ("sofa",), ("dog",)]
    assert ("separates tags in this file" in capsys.readouterr().out) == (";" not in mark)


@pytest.mark.parametrize(
    ("cells", "line", "words"),
    [
        (["dog;cat", "dog, sofa"], 3, "'dog, sofa' holds ','"),
        (["dog;cat", "dog|sofa"], 3, "'dog|sofa' holds '|'"),
        (["dog,cat", "cat,sofa", "dog|sofa"], 4, "'dog|sofa' holds '|'"),
        (["dog", "['dog', 'sofa']"], 3, "a list as programs print it"),
        (["dog", '["dog"]'], 3, "a list as programs print it"),
        (["dog;cat", "{'dog': 1}"], 3, "a list as programs print it"),
        (["dog;cat", "array(['dog'])"], 3, "a list as programs print it"),
        (["dog", "('dog', 'sofa')"], 3, "a list as programs print it"),
    ],
)
def test_a_cell_in_doubt_is_an_error_with_its_line(
    tmp_path: Path, write: Write, cells: list[str], line: int, words: str
) -> None:
    settings = write(tmp_path, cells)
    with pytest.raises(UserError) as caught:
        build_index(settings, tmp_path)
    assert f", line {line}: " in caught.value.found and words in caught.value.found
    assert "tags in doubt (1)" in caught.value.found
    assert caught.value.found.startswith("1 problem")


def test_spellings_that_look_alike_are_one_class(tmp_path: Path, write: Write) -> None:
    cells = [
        COMPOSED,
        DECOMPOSED,
        f"\ufeff{COMPOSED}\u200b",
        "big  dog",
        "big\u00a0dog",
        " big dog",
    ]
    index = build_index(write(tmp_path, cells), tmp_path)
    assert index.classes == ("big dog", COMPOSED)
    assert [record.tags[0] for record in index.records] == [COMPOSED] * 3 + ["big dog"] * 3


def test_a_listed_name_is_never_split(tmp_path: Path, write: Write) -> None:
    settings = write(tmp_path, ["chair, folding", "chair, folding, dog", "dog", "dog, chair"])
    (tmp_path / "classes.txt").write_text("dog\nchair, folding\nchair\n")
    index = build_index(settings, tmp_path)
    assert index.classes == ("dog", "chair, folding", "chair")
    assert [record.tags for record in index.records] == [
        ("chair, folding",),
        ("dog", "chair, folding"),
        ("dog",),
        ("dog", "chair"),
    ]


def test_a_listed_name_does_not_decide_the_separator() -> None:
    cells = [Cell(1, "a, b|c"), Cell(2, "a, b")]
    tags = read_tags(cells, ("a, b", "c"), file="t.csv")
    assert tags.separator == "|" and tags.of == (frozenset(("a, b", "c")), frozenset(("a, b",)))


def test_thousands_of_tags_in_a_cell_take_no_longer_than_they_are_long() -> None:
    # With every run of neighbours tried as one name this takes hours.
    names = [f"t{i}" for i in range(20_000)]
    tags = read_tags([Cell(2, ";".join([*names, "a", "b"]))], {"a;b"}, file="labels.csv")
    assert tags.of == (frozenset([*names, "a;b"]),) and not tags.problems


def test_a_table_s_tag_that_is_not_listed_is_named(tmp_path: Path) -> None:
    settings = write_table(tmp_path, ["dog", "dgo"])
    (tmp_path / "classes.txt").write_text("dog\nsofa\n")
    with pytest.raises(UserError, match=r"line 3: 'dgo' is not in the class list; did you mean 'd"):
        build_index(settings, tmp_path)


@pytest.mark.parametrize("value", [{"a": 1}, [["dog"]], [None], True, 0.5])
def test_json_tags_of_another_kind_are_refused(tmp_path: Path, value: object) -> None:
    write_pictures(tmp_path, 1)
    (tmp_path / "a.json").write_text(json.dumps([{"image": "0.png", "tags": value}]))
    with pytest.raises(UserError, match="the tags of entry 1 are"):
        build_index(TableSettings(file="a.json"), tmp_path)


def test_names_in_a_json_list_and_in_columns_are_single(tmp_path: Path) -> None:
    write_pictures(tmp_path, 1)
    (tmp_path / "a.json").write_text(json.dumps([{"image": "0.png", "tags": ["dog, sofa"]}]))
    with pytest.raises(UserError, match="'dog, sofa' holds ','"):
        build_index(TableSettings(file="a.json"), tmp_path)
    (tmp_path / "a.csv").write_text('image,label_1,label_2\n0.png,"dog|sofa",cat\n')
    with pytest.raises(UserError, match=r"a\.csv, line 2: 'dog\|sofa' holds"):
        build_index(TableSettings(file="a.csv"), tmp_path)


def coco_document(names: list[str]) -> dict[str, object]:
    return {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(len(names))],
        "annotations": [{"id": i, "image_id": i, "category_id": i} for i in range(len(names))],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
    }


def test_categories_and_folders_in_one_spelling(tmp_path: Path) -> None:
    write_pictures(tmp_path, 2)
    (tmp_path / "annotations.json").write_text(json.dumps(coco_document([COMPOSED, DECOMPOSED])))
    assert build_index(CocoJsonSettings(), tmp_path).classes == (COMPOSED,)
    other = tmp_path / "folders"
    for number, name in enumerate((COMPOSED, DECOMPOSED, "big  dog")):
        (other / name).mkdir(parents=True)
        Image.new("RGB", (8, 6), (number, 0, 0)).save(other / name / f"{number}.png")
    assert build_index(ClassFoldersSettings(), other).classes == ("big dog", COMPOSED)


def test_a_category_or_folder_that_is_several_others_is_refused(tmp_path: Path) -> None:
    write_pictures(tmp_path, 4)
    names = ["dog", "sofa", "dog, sofa", "building, edifice"]
    (tmp_path / "annotations.json").write_text(json.dumps(coco_document(names)))
    with pytest.raises(UserError) as caught:
        build_index(CocoJsonSettings(), tmp_path)
    assert "class 'dog, sofa' is 'dog' and 'sofa'" in caught.value.found
    assert "edifice" not in caught.value.found
    other = tmp_path / "folders"
    for name in names:
        (other / name).mkdir(parents=True)
        Image.new("RGB", (8, 6)).save(other / name / f"{name}.png")
    with pytest.raises(UserError, match="class 'dog, sofa' is 'dog' and 'sofa'"):
        build_index(ClassFoldersSettings(), other)


def test_clean_name_against_single_characters() -> None:
    assert clean_name("\u200ddog\u200b \t\u3000house\u2060 ") == "dog house"
    assert clean_name("e\u0301\u034f") == "\u00e9"
    assert unicodedata.is_normalized("NFC", clean_name("\u1100\u1161"))


# ----- what is said of the classes


def test_counts_and_warnings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = write_folder(tmp_path, ["dog"] * 3 + ["dogs", "sofa", "sofa", "soffa", "lamp"])
    make_index(config=settings, root=tmp_path, output=tmp_path / "out" / "index.csv")
    printed = capsys.readouterr()
    assert "pictures of each class: dog 3, dogs 1, lamp 1, sofa 2, soffa 1" in printed.out
    assert "classes with one picture: dogs, lamp, soffa" in printed.err
    assert "'dog' (3) and 'dogs' (1): they differ in a plural ending" in printed.err
    assert "'sofa' (2) and 'soffa' (1): they differ in one letter" in printed.err
    (tmp_path / "classes.txt").write_text("dog\ndogs\nlamp\nsofa\nsoffa\n")
    build_index(settings, tmp_path)
    assert "one class or two" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        (["rust"] * 3, "every picture with tags has rust:"),
        (["pipe;rust", "rust", "rust"], "every picture with tags has rust:"),
        (["pipe", "rust", "rust"], None),
    ],
)
def test_a_class_that_is_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tags: list[str], said: str | None
) -> None:
    settings = write_folder(tmp_path, tags)
    (tmp_path / "classes.txt").write_text("pipe\nrust\n")
    build_index(settings, tmp_path)
    printed = capsys.readouterr().err
    assert said in printed if said else "every picture" not in printed
    assert class_warnings({"pipe": 0}, tagged=0, chosen=True) == []


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ("Dog", "dog", "case"),
        ("ice-cream", "ice cream", "blanks"),
        ("puppy", "puppies", "plural"),
        ("church", "churches", "plural"),
        ("lamp", "lmap", "one letter"),
        ("lamp", "lump", "one letter"),
        ("dog", "d\u043eg", "look alike"),
        ("\u0440\u0430\u0441\u0435", "pace", "look alike"),
        ("cat", "car", None),
        ("class 1", "class 2", None),
        ("room 1", "room 12", None),
        ("tiger", "lion", None),
        ("sofa", "sofas and chairs", None),
    ],
)
def test_look_alikes(one: str, other: str, words: str | None) -> None:
    found = look_alikes({one: 9, other: 9})
    assert (words is None and found == []) or (words is not None and words in found[0])
    assert len(look_alikes({one: 9, other: 9})) == len(look_alikes({other: 9, one: 9}))


# ----- the order


def test_classes_are_sorted_as_a_person_does() -> None:
    names = ["type 10", "Zebra", "apple", "type 2", "\u00c9clair", "Echo", "eclipse", "type 2b"]
    assert in_order([*names, "apple"]) == (
        *("apple", "Echo", "\u00c9clair", "eclipse", "type 2", "type 2b", "type 10", "Zebra"),
    )


def test_the_order_is_said(
    tmp_path: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = write(tmp_path, ["Zebra", "apple", "type 10", "type 2"])
    index = build_index(settings, tmp_path)
    assert index.classes == ("apple", "type 2", "type 10", "Zebra")
    assert "alphabetical" in capsys.readouterr().out
    (tmp_path / "classes.txt").write_text("Zebra\ntype 2\napple\ntype 10\n")
    index = build_index(settings, tmp_path)
    assert index.classes == ("Zebra", "type 2", "apple", "type 10")
    assert "as classes.txt has them" in capsys.readouterr().out


def test_folders_take_their_order_from_a_list_that_names_them(tmp_path: Path, capsys) -> None:
    for name in ("b", "A"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 6)).save(tmp_path / name / f"{name}.png")
    assert build_index(ClassFoldersSettings(), tmp_path).classes == ("A", "b")
    # As public data sets have it.
    (tmp_path / "classes.txt").write_text("1 001.Black_footed_Albatross\n")
    assert build_index(ClassFoldersSettings(), tmp_path).classes == ("A", "b")
    assert "is not used" in capsys.readouterr().out
    (tmp_path / "classes.txt").write_text("b\nA\n")
    assert build_index(ClassFoldersSettings(), tmp_path).classes == ("b", "A")
    (tmp_path / "classes.txt").write_text("b\n")
    with pytest.raises(UserError, match="the data have 'A', which is not in it"):
        build_index(ClassFoldersSettings(), tmp_path)


def test_an_index_in_another_order_is_refused_with_both(tmp_path: Path) -> None:
    settings = write_folder(tmp_path, ["Zebra", "apple", "mouse"])
    output = tmp_path / "out" / "index.csv"
    output.parent.mkdir()
    # As it was sorted before: capitals first.
    (tmp_path / "out" / "classes.txt").write_text("Zebra\napple\n")
    for check in (
        lambda: make_index(config=settings, root=tmp_path, output=output),
        lambda: check_class_order(settings, tmp_path, output.with_name("classes.txt"), ""),
    ):
        with pytest.raises(UserError) as caught:
            check()
        assert "before:   1 = Zebra, 2 = apple" in caught.value.found
        assert "now:      1 = apple, 2 = mouse, 3 = Zebra" in caught.value.found
    assert not output.exists()
    # The way out that the message names.
    (tmp_path / "classes.txt").write_text("Zebra\napple\nmouse\n")
    make_index(config=settings, root=tmp_path, output=output)
    # A class more moves the others' numbers, not their order.
    (tmp_path / "out" / "classes.txt").write_text("Zebra\nmouse\n")
    check_class_order(settings, tmp_path, output.with_name("classes.txt"), "")


def test_a_list_with_a_tag_a_line_is_no_tag(tmp_path: Path, write: Write) -> None:
    settings = write(tmp_path, ["dog\nsofa", "dog"])
    with pytest.raises(UserError, match="has a line break in it: are these several tags"):
        build_index(settings, tmp_path)
    # Behind a separator it is only how the cell is laid out.
    assert build_index(write(tmp_path, ["dog;\nsofa\n", "dog"]), tmp_path).classes == (
        "dog",
        "sofa",
    )
