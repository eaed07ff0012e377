"""Panels and the sample of images that they show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from segmentation_helpers import CLASSES, make_data

from wsss.data import drawing, lettering
from wsss.data.images import read_image, read_label, voc_palette, write_label
from wsss.data.index import read_index
from wsss.data.sampling import sample_records
from wsss.errors import UserError
from wsss.figures.panels import TILE_WIDTH_PX, write_figure, write_panels
from wsss.maps.map_store import MapStoreWriter
from wsss.runtime.compute import InferenceCompute
from wsss.segmentation import prediction
from wsss.segmentation.config import PredictionConfig


@pytest.fixture
def data(tmp_path):
    return make_data(tmp_path, train=7, val=2)


def names(records):
    return [record.name for record in records]


def test_the_sample_is_evenly_spaced(data):
    index = read_index(data / "index.csv")
    assert names(sample_records(index, split="train", count=3)) == ["p01", "p03", "p05"]
    assert names(sample_records(index, split="train", count=1)) == ["p03"]
    assert len(sample_records(index, split="train", count=99)) == 7
    assert len(sample_records(index, split="train")) == 7
    chosen = sample_records(index, split="train", names=("p06", "p00"), count=1)
    assert names(chosen) == ["p06", "p00"]
    with pytest.raises(UserError, match="not in split 'train': p08"):
        sample_records(index, split="train", names=("p01", "p08"))


def arguments(data, **changes):
    values = {
        "index": data / "index.csv",
        "masks": data / "masks.csv",
        "root": data / "data",
        "cams": data / "cams.h5",
        "pseudo_labels": data / "pseudo",
        "predictions": data / "predictions",
        "output": data / "panels",
        "split": "train",
        "count": 2,
    }
    return values | changes


@pytest.fixture
def stages(data):
    index = read_index(data / "index.csv")
    (data / "predictions").mkdir()
    with MapStoreWriter(data / "cams.h5", classes=CLASSES, attributes={}) as store:
        for record in index.subset("train").records:
            size = (record.height, record.width)
            maps = np.zeros((1, (size[0] - 1) // 4 + 1, (size[1] - 1) // 4 + 1))
            maps[0, 1:9, 1:10] = 1
            store.add(record.name, index.class_indices(record), maps, size)
            write_label(data / "predictions" / f"{record.name}.png", np.zeros(size, np.uint8))
    return data


def test_a_panel_shows_every_stage(stages):
    write_panels(**arguments(stages))
    assert sorted(p.name for p in (stages / "panels").glob("[!.]*")) == [
        "index.png",
        "p01.png",
        "p05.png",
    ]
    shown = read_image(stages / "panels" / "p01.png")
    assert shown.shape[1] == 5 * TILE_WIDTH_PX + 4 * 4
    image = read_image(stages / "data" / "p01.png")
    label = read_label(stages / "pseudo" / "p01.png")
    height = round(image.shape[0] * TILE_WIDTH_PX / image.shape[1])
    tiles = [
        shown[drawing.LINE_PX : drawing.LINE_PX + height, x : x + TILE_WIDTH_PX]
        for x in range(0, shown.shape[1], TILE_WIDTH_PX + 4)
    ]
    picture, cam, pseudo, prediction, truth = tiles
    assert np.array_equal(picture, drawing.resized(image, TILE_WIDTH_PX))
    # Predicted background: the image itself. Pseudo-label and mask are the same here.
    assert np.array_equal(prediction, picture)
    assert np.array_equal(pseudo, truth)
    assert not np.array_equal(pseudo, picture)
    inside = np.argwhere(label > 0).mean(0)
    y, x = (inside * TILE_WIDTH_PX / image.shape[1]).astype(int)
    colour = voc_palette()[label[tuple(inside.astype(int))]]
    np.testing.assert_allclose(pseudo[y, x], 0.4 * picture[y, x] + 0.6 * colour, atol=6)
    # The map is 1 on cells 1..8 by 1..9 of 4 pixels, 0 elsewhere.
    place_y, place_x = (int(4 * cell * TILE_WIDTH_PX / image.shape[1]) for cell in (7, 7))
    heat = (cam - 0.4 * picture) / 0.6
    hot = heat[place_y - 5 : place_y + 5, place_x - 5 : place_x + 5].mean((0, 1))
    # The ends of the colour scale jet.
    np.testing.assert_allclose(hot, (128, 0, 0), atol=3)
    np.testing.assert_allclose(heat[-20:, -20:].mean((0, 1)), (0, 0, 128), atol=3)
    # Title, the scale of the CAM and one line of legend.
    assert shown.shape[0] == height + 3 * drawing.LINE_PX


def test_each_tagged_class_has_a_heat_map_of_its_own(stages):
    index = read_index(stages / "index.csv")
    record = index.subset("train").records[1]
    size = (record.height, record.width)
    maps = np.zeros((2, (size[0] - 1) // 4 + 1, (size[1] - 1) // 4 + 1))
    maps[0], maps[1] = 1, 0.5
    with MapStoreWriter(stages / "both.h5", classes=CLASSES, attributes={}) as store:
        store.add(record.name, [0, 1], maps, size)
    write_panels(**arguments(stages, cams=stages / "both.h5", names=(record.name,)))
    shown = read_image(stages / "panels" / f"{record.name}.png").astype(float)
    step = TILE_WIDTH_PX + 4
    assert shown.shape[1] == 6 * step - 4
    columns = [shown[60:200, i * step : i * step + TILE_WIDTH_PX] for i in range(3)]
    # One scale for both: the ends of jet are dark red at 1 and green at a half.
    heats = [((each - 0.4 * columns[0]) / 0.6).mean((0, 1)) for each in columns[1:]]
    np.testing.assert_allclose(heats[0], (128, 0, 0), atol=3)
    np.testing.assert_allclose(heats[1], (125, 255, 122), atol=4)


def test_a_figure_puts_two_runs_side_by_side(stages):
    write_figure(
        index=stages / "index.csv",
        masks=stages / "masks.csv",
        root=stages / "data",
        cams={"CAM: a": stages / "cams.h5", "CAM: b": stages / "cams.h5"},
        labels={"DeepLab: a": stages / "predictions"},
        output=stages / "figure",
        split="train",
        # Of another split: left out.
        names=("p08", "p03"),
    )
    assert sorted(p.name for p in (stages / "figure").glob("[!.]*")) == ["index.png", "p03.png"]
    shown = read_image(stages / "figure" / "p03.png")
    step = TILE_WIDTH_PX + 4
    assert shown.shape[1] == 5 * step - 4
    columns = [shown[:, i * step : i * step + TILE_WIDTH_PX] for i in range(5)]
    below_title = slice(drawing.LINE_PX, 100)
    assert np.array_equal(columns[1][below_title], columns[2][below_title])
    # Told apart by their titles.
    assert not np.array_equal(columns[1][: drawing.LINE_PX], columns[2][: drawing.LINE_PX])
    assert np.array_equal(columns[3][below_title], columns[0][below_title])


def test_panels_and_their_sample_take_the_names_of_their_split(stages, monkeypatch):
    shown = {("p08", "p03"): ["p03"], ("p08",): ["p01", "p05"]}
    for names, kept in shown.items():
        write_panels(**arguments(stages, names=names, count=2))
        found = {path.stem for path in (stages / "panels").glob("p*.png")}
        assert found == set(kept)
        asked = []
        monkeypatch.setattr(prediction, "check_classes", lambda *_: None)
        predict = lambda _, jobs, *rest, to=asked, **more: to.extend(jobs)  # noqa: E731
        monkeypatch.setattr(prediction, "predict_jobs", predict)
        prediction.predict_split(
            config=PredictionConfig(),
            model=stages / "model.safetensors",
            index=stages / "index.csv",
            root=stages / "data",
            output=stages / "sample",
            compute=InferenceCompute(device="cpu", threads=1),
            split="train",
            names=names,
            count=2,
        )
        assert [job.name for job in asked] == kept


def test_the_contact_sheet_holds_all_panels(stages):
    write_panels(**arguments(stages))
    sheet = read_image(stages / "panels" / "index.png")
    first, second = (read_image(stages / "panels" / f"p0{i}.png") for i in (1, 5))
    assert np.array_equal(sheet[: first.shape[0]], first)
    assert np.array_equal(sheet[-second.shape[0] :], second)


def test_columns_without_a_source_are_left_out(data):
    sources = {"masks": None, "cams": None, "predictions": None}
    write_panels(**arguments(data, **sources, names=("p02",)))
    shown = read_image(data / "panels" / "p02.png")
    assert shown.shape[1] == 2 * TILE_WIDTH_PX + 4


def test_what_a_source_lacks_is_a_grey_tile(stages):
    write_panels(**arguments(stages, split="val", names=("p07",)))
    shown = read_image(stages / "panels" / "p07.png")
    for column in (1, 2, 3):
        corner = shown[drawing.LINE_PX + 5, column * (TILE_WIDTH_PX + 4) + 5]
        assert corner.tolist() == [225, 225, 225]


def test_the_same_inputs_give_the_same_bytes(stages):
    write_panels(**arguments(stages))
    first = {p.name: p.read_bytes() for p in (stages / "panels").glob("[!.]*")}
    write_panels(**arguments(stages))
    assert {p.name: p.read_bytes() for p in (stages / "panels").glob("[!.]*")} == first


def test_a_label_map_of_another_size_or_of_no_class_is_an_error(stages):
    place = stages / "pseudo" / "p01.png"
    foreign = np.full_like(read_label(place), 9)
    for wrong, found in ((np.zeros((4, 4), np.uint8), "is 4 x 4 px"), (foreign, "the label 9")):
        write_label(place, wrong)
        with pytest.raises(UserError, match=f"this label map .*{found}") as caught:
            write_panels(**arguments(stages))
        assert caught.value.where == str(place) and caught.value.fix is not None
        assert not (stages / "panels").exists()


def test_a_long_legend_breaks_into_lines():
    entries = [(i, f"a rather long class name {i}") for i in range(1, 9)]
    one, many = drawing.legend(4000, entries), drawing.legend(220, entries)
    assert one.shape == (drawing.LINE_PX, 4000, 3)
    assert many.shape == (8 * drawing.LINE_PX, 220, 3)
    assert drawing.legend(100, []).shape == (0, 100, 3)
    # Each entry's colour is there.
    for i in range(8):
        middle = many[i * drawing.LINE_PX + drawing.LINE_PX // 2, 10]
        assert np.array_equal(middle, voc_palette()[i + 1])


def test_letters_of_any_script_or_the_number_of_the_class(monkeypatch):
    assert lettering.lettered("dog", "class 1", 13) == ("dog", lettering.font(13))
    # As on a machine without fonts.
    monkeypatch.setattr(lettering, "FOLDERS", ())
    monkeypatch.setattr(lettering.Path, "home", lambda: lettering.Path("/nowhere"))
    lettering.font_for.cache_clear()
    try:
        assert lettering.lettered("\u72ac", "class 1", 13) == ("class 1", lettering.font(13))
        number = drawing.legend(300, [(1, "class 1")])
        assert np.array_equal(drawing.legend(300, [(1, "\u72ac")]), number)
    finally:
        lettering.font_for.cache_clear()


def test_a_font_of_the_system_lends_the_letters_that_the_built_in_one_lacks(monkeypatch, tmp_path):
    from matplotlib import get_data_path

    # DejaVu has letters that Pillow's font has not.
    fonts = Path(get_data_path()) / "fonts" / "ttf"
    (tmp_path / "DejaVuSans.ttf").write_bytes((fonts / "DejaVuSans.ttf").read_bytes())
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    monkeypatch.setattr(lettering, "FOLDERS", (tmp_path,))
    lettering.font_for.cache_clear()
    try:
        text = "\u0531\u0572"  # Armenian
        assert not lettering.has_letters(lettering.font(13), text)
        written, letters = lettering.lettered(text, "class 1", 13)
        assert written == text and letters.getname()[0] == "DejaVu Sans"
    finally:
        lettering.font_for.cache_clear()


def test_a_long_title_is_cut(stages):
    letters = lettering.font(13)
    text = lettering.shortened("a name that goes on and on and on", letters, 100)
    assert text.endswith("...") and letters.getlength(text) <= 100
    assert lettering.shortened("short", letters, 100) == "short"


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_an_outline_shows_on_any_picture(grey):
    image = np.full((40, 40, 3), grey, np.uint8)
    label = np.zeros((40, 40), np.uint8)
    label[10:30, 10:30] = 4  # VOC's navy, which is nearly black
    drawn = drawing.blend_labels(image, label).astype(int)
    across = drawn[20, 5:15].mean(axis=1)
    assert across.max() == 255 and across.min() == 0
    assert np.array_equal(drawn[20, :7], image[20, :7])
