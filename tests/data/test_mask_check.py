"""Masks whose numbers stand for something else than the classes are refused, with the cause."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import write_tiny_data
from PIL import Image

from wsss.data.build import build_index, build_masks
from wsss.data.formats.folder import FolderSettings
from wsss.data.formats.voc import VocSettings
from wsss.data.images import read_label, voc_labels, voc_palette, write_label
from wsss.data.index import Index
from wsss.data.indexing import make_index, make_masks
from wsss.data.mask_check import Seen, check_tags, class_table
from wsss.errors import UserError

CLASSES = ("bird", "cow", "dog", "yak")
FOLDER = FolderSettings()
Labels = np.ndarray

# Label sets of the pictures: each class alone and pairs, as in any data set.
TAGGED = [(1,), (2,), (3,), (4,), (1, 3), (2, 4), (1, 2), (3, 4), (4,), (3,), (2,), (1,)]


def _label(tags: tuple[int, ...]) -> Labels:
    label = np.zeros((12, 16), np.uint8)
    for place, tag in enumerate(tags):
        label[2:7, 2 + 6 * place : 7 + 6 * place] = tag
        label[7, 2:7] = 255
    return label


def _data(root: Path, save: Callable[[Path, Labels], None], change: range = range(99)) -> Index:
    """Write pictures, tags and masks; `save` writes those masks that are in `change`."""
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    lines = ["image,tags"]
    for number, tags in enumerate(TAGGED):
        Image.new("RGB", (16, 12)).save(root / f"images/p{number:02d}.png")
        lines.append(f"p{number:02d}.png,{';'.join(CLASSES[tag - 1] for tag in tags)}")
        path = root / f"masks/p{number:02d}.png"
        (save if number in change else write_label)(path, _label(tags))
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return build_index(FOLDER, root)


def _mapped(**labels: int) -> Callable[[Path, Labels], None]:
    table = np.arange(256, dtype=np.uint8)
    for name, label in labels.items():
        table[int(name[1:])] = label
    return lambda path, label: write_label(path, table[label])


def _quantised(path: Path, label: Labels, palette: Labels | None = None) -> None:
    """As programs do that sort the colours in use: positions are new, colours right."""
    palette = voc_palette() if palette is None else palette
    used, where = np.unique(label, return_inverse=True)
    order = np.argsort(-palette[used].astype(int).sum(1), kind="stable")
    image = Image.fromarray(np.argsort(order)[where].reshape(label.shape).astype(np.uint8))
    image.putpalette(palette[used[order]].tobytes())
    image.save(path)


def _quantised_on_white(path: Path, label: Labels) -> None:
    """With a background that is the brightest, and no colour of VOC's."""
    palette = voc_palette().copy()
    palette[0] = 250
    _quantised(path, label, palette)


def _one_bit(path: Path, label: Labels) -> None:
    Image.fromarray((label > 0) & (label < 255)).save(path)


def _colour(path: Path, label: Labels) -> None:
    Image.fromarray(voc_palette()[label]).save(path)


WRONG: dict[str, tuple[Callable[[Path, Labels], None], str]] = {
    "0 and 255": (_mapped(v1=255, v2=255, v3=255, v4=255), "255 is taken for the thing"),
    "one too low": (_mapped(v1=0, v2=1, v3=2, v4=3), "every label is one too low"),
    "reversed": (_mapped(v1=4, v2=3, v3=2, v4=1), "1 for yak, 2 for dog, 3 for cow, 4 for bird"),
    "rotated": (_mapped(v1=2, v2=3, v3=4, v4=1), "1 for yak, 2 for bird, 3 for cow, 4 for dog"),
    "two swapped": (_mapped(v3=4, v4=3), "1 for bird, 2 for cow, 3 for yak, 4 for dog"),
    "1 bit": (_one_bit, "tell things from background"),
    "palette": (_quantised, "another order"),
    "palette on white": (_quantised_on_white, "another order"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_masks_that_contradict_the_tags(kind: str, tmp_path: Path) -> None:
    save, cause = WRONG[kind]
    index = _data(tmp_path / "data", save)
    with pytest.raises(UserError, match="masks contradict the tags") as caught:
        build_masks(FOLDER, tmp_path / "data", index)
    text = str(caught.value)
    assert cause in text and text.count("its picture is tagged") == 3
    assert "1 = bird, 2 = cow, 3 = dog, 4 = yak, 255 = ignore" in text


def test_labels_that_are_too_high_say_what_the_picture_has(tmp_path: Path) -> None:
    index = _data(tmp_path / "data", _mapped(v1=2, v2=3, v3=4, v4=5))
    with pytest.raises(UserError, match=r"it holds 5, but labels are 0\.\.4 and 255; its"):
        build_masks(FOLDER, tmp_path / "data", index)
    # Where the classes go further, nothing but the tags tells.
    wide = FolderSettings(classes=(*CLASSES, "zebu"))
    with pytest.raises(UserError, match="every label is one too high"):
        build_masks(wide, tmp_path / "data", build_index(wide, tmp_path / "data"))


def test_a_few_that_differ_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "data"
    index = _data(root, _mapped(v1=0), change=range(4, 5))
    write_label(root / "masks/p02.png", _label((1,)))  # a dog that is drawn as a bird
    assert len(build_masks(FOLDER, root, index)) == len(TAGGED)
    said = capsys.readouterr().err
    assert "warning: 2 of 12 masks differ" in said
    assert "masks/p02.png has 1; its picture is tagged 3 = dog" in said
    assert "masks/p04.png has 3; its picture is tagged 1 = bird, 3 = dog" in said
    assert said.count("  - ") == 2


def test_one_palette_in_another_order_is_not_the_cause_of_most(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def seen(file: str, tag: int, label: int, colour: int | None = None) -> Seen:
        colours = None if colour is None else frozenset({colour})
        return Seen(file, frozenset({tag}), frozenset({label}), colours=colours)

    right = [seen(f"{number}.png", 1, 1) for number in range(9)]
    wrong = [seen("by_colour.png", 2, 3, 2), seen("other.png", 2, 4), seen("third.png", 4, 1)]
    check_tags([*right, *wrong], CLASSES, tmp_path)
    assert "warning: 3 of 12 masks differ" in capsys.readouterr().err
    with pytest.raises(UserError, match="another order"):
        check_tags([*right, wrong[0]], CLASSES, tmp_path)


def test_right_masks_say_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "data"
    _data(root, write_label)
    make_index(config=FOLDER, root=root, output=tmp_path / "index.csv")
    make_masks(
        config=FOLDER, root=root, index=tmp_path / "index.csv", output=tmp_path / "masks.csv"
    )
    said = capsys.readouterr()
    assert "warning" not in said.err
    assert said.out.count("labels: 0 = background, 1 = bird, 2 = cow, 3 = dog, 4 = yak") == 2
    assert class_table(("a",)) == "labels: 0 = background, 1 = a, 255 = ignore"


def test_masks_without_tags_are_not_judged(tmp_path: Path) -> None:
    root = tmp_path / "data"
    _data(root, _mapped(v3=4, v4=3))
    lines = (root / "labels.csv").read_text().splitlines()[1:]
    rows = [lines[0] + ",train", *(line.split(",")[0] + ",,val" for line in lines[1:])]
    (root / "labels.csv").write_text("\n".join(["image,tags,set", *rows]) + "\n")
    settings = FolderSettings(classes=CLASSES)
    assert len(build_masks(settings, root, build_index(settings, root))) == len(TAGGED)


# ----- colours


def test_colour_masks_are_read_by_vocs_colour_map(tmp_path: Path) -> None:
    index = _data(tmp_path / "data", _colour)
    assert len(build_masks(FOLDER, tmp_path / "data", index)) == len(TAGGED)
    for number, tags in enumerate(TAGGED):
        read = read_label(tmp_path / f"data/masks/p{number:02d}.png")
        assert read.dtype == np.uint8 and np.array_equal(read, _label(tags))


def test_every_colour_of_the_map_is_its_label_and_no_other_is_one(tmp_path: Path) -> None:
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    _colour(tmp_path / "all.png", every)
    assert np.array_equal(read_label(tmp_path / "all.png"), every)
    known = {tuple(colour) for colour in voc_palette().tolist()}
    rng = np.random.default_rng(0)
    colours = np.concatenate([rng.integers(0, 256, (500, 3)), voc_palette()]).astype(np.uint8)
    found = voc_labels(colours)
    assert [label >= 0 for label in found] == [tuple(c) in known for c in colours.tolist()]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_other_colours_are_refused_with_the_way_out(mode: str, tmp_path: Path) -> None:
    picture = voc_palette()[_label((1, 3))]
    picture[3, 3] += 1  # as a blur or a JPEG on the way leaves it
    Image.fromarray(picture).convert(mode).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="a label picture") as caught:
        read_label(tmp_path / "a.png")
    assert "save the labels themselves, not their colours" in str(caught.value)
    if mode == "RGB":
        assert str(tuple(picture[3, 3].tolist())) in caught.value.found


def test_a_palette_of_ones_own_is_no_contradiction(tmp_path: Path) -> None:
    def save(path: Path, label: Labels) -> None:
        image = Image.fromarray(label)
        # VOC's colours, for other labels: the numbers are right, and count.
        image.putpalette(np.roll(voc_palette(), 7, axis=0).tobytes())
        image.save(path)

    index = _data(tmp_path / "data", save)
    assert len(build_masks(FOLDER, tmp_path / "data", index)) == len(TAGGED)


def test_real_masks_fit_their_tags(voc_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = build_index(VocSettings(), voc_root)
    masks = build_masks(VocSettings(), voc_root, index)
    assert masks
    print(capsys.readouterr().err)


def test_a_few_corrected_masks_do_not_say_how_classes_are_numbered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They may show what nobody tagged; those of half of the pictures are held against the tags."""

    def other(path: Path, label: Labels) -> None:
        write_label(path, np.where(label == 0, 4, label).astype(np.uint8))

    index = _data(tmp_path, other, change=range(7))
    kept = {f"p{number:02d}" for number in range(2)}
    for path in (tmp_path / "masks").iterdir():
        if path.stem not in kept:
            path.unlink()
    found = build_masks(FOLDER, tmp_path, index, only=index.training_set())
    assert set(found) == kept
    assert "warning: 2 of 2 masks differ from the tags" in capsys.readouterr().err
    with pytest.raises(UserError, match="2 of 2 masks contradict the tags"):
        build_masks(FOLDER, tmp_path, index)
    few = Index(index.classes, index.records[:3])
    with pytest.raises(UserError, match="2 of 2 masks contradict the tags"):
        build_masks(FOLDER, tmp_path, index, only=few)


def test_two_masks_of_one_picture_are_refused(tmp_path: Path) -> None:
    write_tiny_data(tmp_path, train=4, val=0)
    index = build_index(FolderSettings(), tmp_path)
    shutil.copy(tmp_path / "masks/image_00.png", tmp_path / "masks/image_00.PNG")
    with pytest.raises(UserError, match=r"image_00\.png: image_00\.PNG is a mask of the same"):
        build_masks(FolderSettings(), tmp_path, index)
    (tmp_path / "masks/image_00.png").unlink()
    assert build_masks(FolderSettings(), tmp_path, index)["image_00"] == "masks/image_00.PNG"


def test_a_jpeg_is_no_mask_whatever_it_is_called(tmp_path: Path) -> None:
    label = np.zeros((32, 32), np.uint8)
    label[5:20, 7:30] = 3
    Image.fromarray(label).save(tmp_path / "a.png", format="JPEG")
    with pytest.raises(UserError, match="this label picture is a JPEG, whatever its name"):
        read_label(tmp_path / "a.png")
