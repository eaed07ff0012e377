from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wsss.data.description import describe
from wsss.data.formats.registry import FORMATS
from wsss.data.index import ImageRecord, Index, read_index, read_masks, write_index, write_masks
from wsss.data.indexing import check_sets
from wsss.data.listing import SHOWN_PROBLEMS, Problem, raise_problems
from wsss.errors import UserError
from wsss.runtime.registry import used


def _record(name: str, sets: tuple[str, ...], tags: tuple[str, ...]) -> ImageRecord:
    return ImageRecord(name, sets, tags, 4, 3, f"images/{name}.png")


INDEX = Index(
    ("zebra", "ant", "tram, red"),
    (
        _record("a", ("train", "train_aug"), ("ant", "zebra")),
        _record("b", ("train_aug",), ("tram, red",)),
        _record("c", ("val",), ()),
        _record("d", ("train", "train_aug"), ()),
    ),
)


def test_index_survives_writing(tmp_path: Path) -> None:
    write_index(INDEX, tmp_path / "index.csv")
    assert read_index(tmp_path / "index.csv") == INDEX
    assert (tmp_path / "classes.txt").read_text() == "zebra\nant\ntram, red\n"
    first, second = (tmp_path / "index.csv").read_text().splitlines()[:2]
    assert first == "name,sets,tags,width,height,path"
    assert second == "a,train;train_aug,ant;zebra,4,3,images/a.png"


def test_masks_survive_writing(tmp_path: Path) -> None:
    masks = {"b": "masks/b.png", "a": "masks/a.png"}
    write_masks(masks, tmp_path / "masks.csv")
    assert read_masks(tmp_path / "masks.csv") == masks
    assert (tmp_path / "masks.csv").read_text() == "name,mask\na,masks/a.png\nb,masks/b.png\n"


def test_class_indices_and_multi_hot_follow_the_class_order() -> None:
    assert INDEX.class_indices(INDEX.records[0]) == (0, 1)
    expected = [[1, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]
    table = INDEX.multi_hot()
    assert table.dtype == np.float32
    np.testing.assert_array_equal(table, expected)


def test_training_set_prefers_train_aug_and_leaves_untagged_images_out() -> None:
    assert [record.name for record in INDEX.training_set().records] == ["a", "b"]
    without_aug = Index(
        INDEX.classes,
        (_record("a", ("train",), ("ant",)), _record("c", ("val",), ("ant",))),
    )
    assert [record.name for record in without_aug.training_set().records] == ["a"]


def test_a_run_needs_a_tagged_image_to_train_on_and_images_in_its_sets() -> None:
    untagged = Index(("ant",), (_record("d", ("train",), ()), _record("c", ("val",), ("ant",))))
    with pytest.raises(UserError, match="no training image has a tag"):
        check_sets(untagged, ("val",))
    check_sets(untagged, ())  # it only has its pictures read
    check_sets(INDEX, ("train", "val"))
    with pytest.raises(UserError, match="no image is in the set 'test'"):
        check_sets(INDEX, ("val", "test"))


def test_the_description_counts_what_is_not_trained_on(tmp_path: Path) -> None:
    def described(index: Index, masks: dict[str, str] | None) -> dict[str, str]:
        text = describe(FORMATS.parse({"format": "folder"}, where="index"), tmp_path, index, masks)
        return {line.split(":")[0]: line.split(":", 1)[1].strip() for line in text.splitlines()}

    found = described(INDEX, {"a": "masks/a.png"})
    assert (found["pictures"], found["masks"]) == ("4", "1")
    assert found["untagged"].startswith("2,")
    assert found["classes"] == "3 (zebra 1, ant 1, tram, red 1)"
    assert "train 2 (1 with a mask)" in found["sets"]
    tagged = described(Index(INDEX.classes, INDEX.records[:2]), None)
    assert "untagged" not in tagged and tagged["masks"] == "not drawn yet"


def test_unknown_set_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="train, train_aug, val"):
        INDEX.subset("tset")
    with pytest.raises(UserError, match="no training image has a tag"):
        Index(("ant",), (_record("d", ("train",), ()),)).training_set()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,tags\n", "first line"),
        ("name,sets,tags,width,height,path\na,train,zebra,4\n", "4 cells"),
        ("name,sets,tags,width,height,path\na,train,yak,4,3,x.png\n", "'yak'"),
        ("name,sets,tags,width,height,path\na,train,zebra,4,-3,x.png\n", "size"),
        ("name,sets,tags,width,height,path\na,train,zebra,4,0,x.png\n", "size"),
        (f"name,sets,tags,width,height,path\na,train,zebra,4,{'9' * 5000},x.png\n", "size '4' x"),
        ("name,sets,tags,width,height,path\na,train,zebra,4,3,x.png\n" * 2, "'width' x"),
        ("name,sets,tags,width,height,path\n" + "a,train,zebra,4,3,x.png\n" * 2, "twice"),
        ('name,sets,tags,width,height,path\n"a,train,zebra,4,3,x.png\n', "not a table"),
        (f"name,sets,tags,width,height,path\n{'a' * 200_000},,,4,3,x.png\n", "not a table"),
        ("name,sets,tags,width,height,path\na\0,train,zebra,4,3,x.png\n", "no name of a file"),
        ("", "first line"),
    ],
)
def test_damaged_index_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    write_index(INDEX, tmp_path / "index.csv")
    (tmp_path / "index.csv").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_index(tmp_path / "index.csv")
    assert "index.csv" in str(caught.value)


def test_a_class_that_is_listed_twice_is_named(tmp_path: Path) -> None:
    write_index(INDEX, tmp_path / "index.csv")
    with (tmp_path / "classes.txt").open("a") as file:
        file.write(f"{INDEX.classes[0]}\n")
    with pytest.raises(UserError, match=rf"{INDEX.classes[0]}' stands twice(.|\n)*classes.txt"):
        read_index(tmp_path / "index.csv")


@pytest.mark.parametrize("name", ["index.csv", "classes.txt"])
def test_an_index_of_another_encoding_is_named(tmp_path: Path, name: str) -> None:
    write_index(INDEX, tmp_path / "index.csv")
    content = (tmp_path / name).read_bytes() + "Löwe\n".encode("latin-1")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"not UTF-8 text(.|\n)*{name}"):
        read_index(tmp_path / "index.csv")


def test_missing_files_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="class list"):
        read_index(tmp_path / "index.csv")
    with pytest.raises(UserError, match="does not exist"):
        read_masks(tmp_path / "masks.csv")


def test_a_flood_of_one_kind_leaves_room_for_the_others() -> None:
    flood = [Problem("list.txt", line, "missing image", "gone") for line in range(1, 501)]
    rare = Problem("z.xml", 7, "unknown tag", "'yak'")
    with pytest.raises(UserError) as caught:
        raise_problems([*flood, rare, rare], root=Path("/data"), what="this data set")
    message = caught.value.found
    assert message.startswith("501 problems in this data set: missing image (500), unknown tag (1)")
    assert "z.xml, line 7: 'yak'" in message
    assert message.count("  - ") == SHOWN_PROBLEMS + 1
    assert message.endswith(f"... and {501 - SHOWN_PROBLEMS} more")
    raise_problems([], root=Path("/data"), what="this data set")


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"format": "voc", "classes": ["a"]}, "index.classes"),
        ({"format": "folder", "classes": ["a", "a"]}, "index.classes"),
        ({"format": "folder", "classes": ["background"]}, "index.classes"),
        ({"format": "folder", "classes": ["a;b"]}, "index.classes"),
        ({"format": "folder", "classes": list(map(str, range(255)))}, "index.classes"),
        ({"format": "folder", "tags_from": "annotations"}, "index.tags_from"),
        ({"format": "fodler"}, "index.format"),
        ({}, "index.format"),
    ],
)
def test_impossible_settings_name_their_key(values: dict, where: str) -> None:
    with pytest.raises(UserError) as caught:
        FORMATS.parse(values, where="index")
    assert caught.value.where == where


def test_settings_of_another_format_are_inherited_in_vain_and_an_error_of_ones_own() -> None:
    merged = {"format": "voc", "tags_from": "annotations", "classes": ["a"]}
    kept = used(FORMATS, merged, {"format": "voc"}, where="runs.mine.index")
    assert kept == {"format": "voc", "tags_from": "annotations"}
    with pytest.raises(UserError) as caught:
        used(FORMATS, merged, {"classes": ["a"]}, where="runs.mine.index")
    assert caught.value.where == "runs.mine.index.classes"
    assert "'voc' has no setting 'classes'" in caught.value.found
    assert "runs.mine.index.format to folder" in str(caught.value.fix)


def test_each_format_brings_its_settings_and_no_torch() -> None:
    code = (
        "import sys; from wsss.data.formats.registry import FORMATS;"
        "print(*FORMATS.entries(), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *names, torch_is_there = done.stdout.split()
    assert {"coco", "demo", "folder", "voc"} <= {*names} and names == [*FORMATS.entries()]
    assert torch_is_there == "False"
    for name, entry in FORMATS.entries().items():
        assert FORMATS.parse({"format": name}, where="index") == entry.settings(format=name)
