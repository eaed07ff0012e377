"""What lies beside pictures or is called almost as they are: told from them, or named."""

from __future__ import annotations

import pytest
from layout_helpers import TAGS, found, picture, read, write_pictures

from wsss.data.build import build_index, listing_fingerprint
from wsss.data.formats.registry import FORMATS
from wsss.errors import UserError

WORKING_FOLDER = ("Snakefile", "config.yaml", "workflow/x.smk", "profiles/default/config.yaml")


@pytest.mark.parametrize("place", ["", "work"])
@pytest.mark.parametrize("sets", [(), ("train", "val")])
def test_results_around_or_among_the_pictures_are_none(tmp_path, place, sets, capsys):
    for seed, folder in enumerate(sets or ("",)):
        for name in ("cat", "dog"):
            picture(tmp_path / folder / name / "a.png", 10 * seed + len(name))
    work = tmp_path / place
    for file in WORKING_FOLDER:
        (work / file).parent.mkdir(parents=True, exist_ok=True)
        (work / file).touch()
    settings, before = read(tmp_path)
    fingerprint = listing_fingerprint(settings, tmp_path)
    for file in ("results/mine/panels/a.png", "results/demo-data/images/a.png"):
        picture(work / file, 5)
    (work / "config.local.yaml").touch()
    settings, after = read(tmp_path)
    assert found(after) == found(before) and listing_fingerprint(settings, tmp_path) == fingerprint
    assert before.classes == after.classes == ("cat", "dog")
    assert after.sets == (sets or ("train",))
    # Whatever else is in a working folder counts, or is said to be left out.
    picture(work / "more" / "b.png", 6)
    capsys.readouterr()
    if sets and not place:
        with pytest.raises(UserError, match="the folders train, val are called as image sets"):
            read(tmp_path)
        return
    extended = read(tmp_path)[1]
    told = "left out, pictures in no class's folder: 1 (work/more/b.png)"
    assert (told in capsys.readouterr().out) == bool(sets)
    assert len(extended.classes) == (2 if sets else 3)


def test_folders_called_as_sets_are_classes_where_they_are_listed(tmp_path):
    for seed, name in enumerate(("train", "test", "tram")):
        picture(tmp_path / name / "a.png", seed)
    with pytest.raises(UserError, match="beside them lie pictures in tram"):
        read(tmp_path)
    (tmp_path / "classes.txt").write_text("train\ntest\ntram\n")
    assert read(tmp_path)[1].classes == ("train", "test", "tram")


def test_columns_of_nothing_are_not_there(tmp_path, capsys):
    write_pictures(tmp_path)
    lines = ["image,dog,car,,", *(f"{file},{i % 2},1,," for i, file in enumerate(TAGS))]
    (tmp_path / "t.csv").write_text("\n".join([*lines, ",,,,"]) + "\n")
    assert read(tmp_path)[1].classes == ("dog", "car")
    lines = ["image,tags,,", *(f"{file},dog,," for file in TAGS)]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    capsys.readouterr()
    assert read(tmp_path)[1].classes == ("dog",)
    assert "columns" not in capsys.readouterr().out
    (tmp_path / "t.csv").write_text("\n".join([*lines[:-1], lines[-1] + "remark"]) + "\n")
    read(tmp_path)
    assert "left out, columns of the table: one without a name" in capsys.readouterr().out


def test_pictures_in_another_folder_than_the_list_says_are_named(tmp_path, capsys):
    write_pictures(tmp_path)
    lines = ["image,tags", "/data/town/d.jpg,car", "val/beach/b,sea", "e.jpg,dog", "sea/c.png,dog"]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    assert len(read(tmp_path)[1].records) == 4
    told = "in another folder than the list says, by their names: 1 (sea/c.png: town/c.png)"
    assert told in capsys.readouterr().out


@pytest.mark.parametrize("mark", [";", "\t"])
def test_excels_line_about_its_separator_is_no_column(tmp_path, mark):
    write_pictures(tmp_path)
    lines = [f"sep={mark}", f"image{mark}tags", *(f"{file}{mark}dog, sea" for file in TAGS)]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    assert set(found(read(tmp_path)[1]).values()) == {("dog", "sea")}
    (tmp_path / "t.csv").write_text("\n".join([*lines, f"gone.png{mark}dog"]) + "\n")
    with pytest.raises(UserError, match=f"line {len(lines) + 1}: "):
        read(tmp_path)


def test_a_table_in_utf_16_is_called_so(tmp_path):
    write_pictures(tmp_path)
    (tmp_path / "t.csv").write_text("image,tags\ne.jpg,dog\n", encoding="utf-16")
    with pytest.raises(UserError, match="UTF-16") as refused:
        build_index(FORMATS.parse({"format": "table", "file": "t.csv"}, where="index"), tmp_path)
    assert "CSV UTF-8" in str(refused.value)


def test_vias_list_of_regions_is_no_table_of_tags(tmp_path):
    picture(tmp_path / "a.jpg", 0)
    columns = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes"
    cells = 'a.jpg,120,"{}",1,0,"{""name"":""rect""}","{""type"":""dog""}"'
    (tmp_path / "via.csv").write_text(f"{columns},region_attributes\n{cells}\n")
    with pytest.raises(UserError, match="this is VIA's list of regions") as refused:
        read(tmp_path)
    assert "export the annotations as COCO" in str(refused.value)
