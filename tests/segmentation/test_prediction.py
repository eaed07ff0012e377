"""Prediction: of a split, the CRF beside it, and of pictures for people."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import binary_dilation
from segmentation_helpers import CLASSES, make_data, picture, tiny_config

from wsss.cli import main
from wsss.data.images import read_image, read_label, voc_palette
from wsss.data.index import Index, read_index, write_index
from wsss.data.transforms import image_to_tensor
from wsss.errors import PartlyDone, UserError
from wsss.models.backbones import build_backbone
from wsss.models.deeplab import DeepLab
from wsss.runtime.compute import Compute
from wsss.segmentation import prediction
from wsss.segmentation.config import PredictionConfig
from wsss.segmentation.inference import class_probabilities, segmenter, views_of
from wsss.segmentation.model_file import SEGMENTATION
from wsss.segmentation.pictures import find_images, predict_images
from wsss.segmentation.prediction import Job, predict_split
from wsss.segmentation.refine import refine

CPU = torch.device("cpu")
COMPUTE = Compute(device="cpu", threads=1, workers=0)


@pytest.fixture
def data(tmp_path):
    make_data(tmp_path, train=2, val=5)
    torch.manual_seed(0)
    config = tiny_config()
    backbone = build_backbone(config.backbone)
    network = DeepLab(backbone, 3, config.head)
    # Strong opinions, so that labels vary over the image.
    network.head.classifier.weight.data *= 20
    SEGMENTATION.save(tmp_path / "model.safetensors", network, config, classes=CLASSES, training={})
    return tmp_path


def split_arguments(data, **changes):
    values = {
        "config": PredictionConfig(scales=(0.75, 1.0)),
        "model": data / "model.safetensors",
        "index": data / "index.csv",
        "root": data / "data",
        "output": data / "predictions",
        "output_crf": data / "predictions_crf",
        "compute": COMPUTE,
    }
    return values | changes


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("[!.]*"))}


def test_a_split_is_predicted_with_and_without_crf(data):
    predict_split(**split_arguments(data))
    names = [record.name for record in read_index(data / "index.csv").subset("val").records]
    plain, crf = contents(data / "predictions"), contents(data / "predictions_crf")
    assert list(plain) == list(crf) == [f"{name}.png" for name in names]
    trained = SEGMENTATION.load(data / "model.safetensors")
    segments = segmenter(trained.network, precision="auto", device=CPU)
    for name in names:
        path = data / "data" / f"{name}.png"
        views = views_of(read_image(path), (0.75, 1.0))
        probabilities = class_probabilities(segments, views, mirror=True).numpy()
        label = read_label(data / "predictions" / f"{name}.png")
        assert np.array_equal(label, probabilities.argmax(0))
        refined = refine(read_image(path), probabilities, PredictionConfig().crf_settings)
        assert np.array_equal(read_label(data / "predictions_crf" / f"{name}.png"), refined)
    assert plain != crf


def test_processes_change_nothing(data):
    predict_split(**split_arguments(data))
    first = contents(data / "predictions"), contents(data / "predictions_crf")
    predict_split(**split_arguments(data, compute=Compute(device="cpu", threads=1, workers=2)))
    assert (contents(data / "predictions"), contents(data / "predictions_crf")) == first


def test_without_crf_there_is_one_folder(data):
    predict_split(**split_arguments(data, output_crf=None, split="train", count=1))
    assert len(contents(data / "predictions")) == 1
    assert not (data / "predictions_crf").exists()


@pytest.mark.parametrize("other_size", [False, True])
def test_a_failure_leaves_nothing(data, other_size):
    """A picture that cannot be read, or that is no longer the one of the index."""
    said = "this picture is 7 x 9 px" if other_size else "cannot read this picture"
    (data / "data" / "p05.png").write_bytes(b"no picture")
    if other_size:
        Image.new("RGB", (7, 9)).save(data / "data" / "p05.png")
    with pytest.raises(UserError, match=said):
        predict_split(**split_arguments(data))
    assert not (data / "predictions").exists()
    assert not (data / "predictions_crf").exists()


def test_other_classes_are_an_error(data):
    index = read_index(data / "index.csv")
    bare = tuple(r.__class__(r.name, r.sets, (), r.width, r.height, r.path) for r in index.records)
    write_index(Index(("cow",), bare), data / "index.csv")
    with pytest.raises(UserError, match="the model knows the classes red, blue"):
        predict_split(**split_arguments(data))


def test_errors_in_processes_arrive(data):
    (data / "data" / "p05.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="cannot read this picture") as caught:
        predict_split(**split_arguments(data, compute=Compute(device="cpu", threads=1, workers=2)))
    assert caught.value.where == str(data / "data" / "p05.png")
    assert not (data / "predictions").exists()


@pytest.mark.parametrize(("images", "processes"), [(3, 0), (4, 2)])
def test_few_pictures_start_no_processes(tmp_path, monkeypatch, images, processes):
    asked = []

    def recorded(work, jobs, workers, **options):
        asked.append(workers)
        return iter([None] * len(jobs))

    monkeypatch.setattr(prediction, "ordered_map", recorded)
    jobs = [Job(tmp_path / f"{i}.png", str(i)) for i in range(images)]
    config, compute = PredictionConfig(), Compute(device="cpu", threads=1, workers=2)
    prediction.predict_jobs(
        tmp_path / "m", jobs, lambda *arguments: None, config, compute, few_share_threads=False
    )
    assert asked == [processes]


def test_what_is_no_fault_of_a_picture_is_not_said_of_it(data, monkeypatch):
    def full(*arguments):
        raise UserError("no space left", where="the disk")

    monkeypatch.setattr("wsss.segmentation.pictures.overlay", full)
    Image.fromarray(picture(40, 40)).save(data / "one.png")
    with pytest.raises(UserError, match="no space left") as caught:
        predict_images(
            model=data / "model.safetensors",
            inputs=[data / "one.png"],
            output=data / "out",
            config=PredictionConfig(scales=(1.0,), mirror=False, crf=False),
            compute=COMPUTE,
        )
    assert caught.value.where == "the disk"


@pytest.mark.parametrize("crf", [False, True])
def test_people_get_masks_and_overlays(data, crf):
    (data / "photos").mkdir()
    for name, size in (("a.jpg", (50, 64)), ("b.PNG", (64, 300))):
        Image.fromarray(picture(*size)).save(data / "photos" / name)
    (data / "photos" / "notes.txt").write_text("not a picture")
    Image.fromarray(np.full((40, 40), 90, np.uint8)).save(data / "grey.png")
    (data / "out").mkdir()
    (data / "out" / "kept.txt").write_text("kept")
    predict_images(
        model=data / "model.safetensors",
        inputs=[data / "photos", data / "grey.png"],
        output=data / "out",
        config=PredictionConfig(scales=(1.0,), crf=crf),
        compute=COMPUTE,
    )
    names = [p.name for p in sorted((data / "out").iterdir())]
    expected = [f"{s}{kind}.png" for s in ("a", "b", "grey") for kind in ("", "_overlay")]
    assert names == sorted([*expected, "kept.txt", "classes.csv"])
    assert (data / "out" / "classes.csv").read_text().splitlines() == [
        *("label,class,red,green,blue", "0,background,0,0,0", "1,red,128,0,0", "2,blue,0,128,0")
    ]
    with Image.open(data / "out" / "a.png") as mask:
        assert mask.mode == "P"
        assert mask.size == (64, 50)
        assert np.array_equal(np.reshape(mask.getpalette(), (256, 3)), voc_palette())
    for name, width in (("a", 240), ("b", 300)):
        label = read_label(data / "out" / f"{name}.png")
        overlay = read_image(data / "out" / f"{name}_overlay.png")
        image = read_image(data / "photos" / ("a.jpg" if name == "a" else "b.PNG"))
        assert overlay.shape[1] == width
        assert overlay.shape[0] > label.shape[0]  # the legend
        shown = overlay[: label.shape[0], : label.shape[1]]
        right, lower = label != np.roll(label, -1, 1), label != np.roll(label, -1, 0)
        right[:, -1], lower[-1] = False, False
        # White where a label ends, black beside that, so that one of them shows on any picture.
        border = right | lower
        outline = binary_dilation(border)
        assert (shown[border] == 255).all() and (shown[outline & ~border] == 0).all()
        background, coloured = ~outline & (label == 0), ~outline & (label > 0)
        assert np.array_equal(shown[background], image[background])
        mixed = 0.4 * image[coloured] + 0.6 * voc_palette()[label[coloured]]
        np.testing.assert_allclose(shown[coloured], mixed, atol=1)


def test_inputs_that_cannot_be_are_named(data):
    (data / "empty").mkdir()
    (data / "other").mkdir()
    for path in (data / "x.png", data / "other" / "x.jpg", data / "x_overlay.jpg"):
        Image.fromarray(picture(16, 16)).save(path)
    with pytest.raises(UserError, match="no images directly in it"):
        find_images([data / "empty"])
    with pytest.raises(UserError, match="does not exist"):
        find_images([data / "nowhere"])
    with pytest.raises(UserError, match=r"written as x\.png"):
        find_images([data / "x.png", data / "other"])
    # Named by itself and by its folder, it is one all the same.
    same = [data / "other", data / "other" / "x.jpg", data / "empty" / ".." / "other" / "x.jpg"]
    assert find_images(same) == [data / "other" / "x.jpg"]
    with pytest.raises(UserError, match="no images were given"):
        find_images([])
    arguments = {
        "model": data / "model.safetensors",
        "config": PredictionConfig(scales=(1.0,), crf=False),
        "compute": COMPUTE,
    }
    before = (data / "x.png").read_bytes()
    with pytest.raises(UserError, match="over an input image"):
        predict_images(inputs=[data / "x.png"], output=data, **arguments)
    with pytest.raises(UserError, match="share a file"):
        inputs = [data / "x.png", data / "x_overlay.jpg"]
        predict_images(inputs=inputs, output=data / "out", **arguments)
    assert (data / "x.png").read_bytes() == before


def test_a_folder_of_predictions_has_one_list_of_classes(data):
    trained = SEGMENTATION.load(data / "model.safetensors")
    classes = tuple(f"other {name}" for name in trained.classes)
    other = data / "other.safetensors"
    SEGMENTATION.save(other, trained.network, trained.settings, classes=classes, training={})
    for name in ("a.png", "b.png"):
        Image.fromarray(picture(16, 16)).save(data / name)
    arguments = {
        "output": data / "out",
        "config": PredictionConfig(scales=(1.0,), crf=False),
        "compute": COMPUTE,
    }
    predict_images(model=data / "model.safetensors", inputs=[data / "a.png"], **arguments)
    table = (data / "out/classes.csv").read_text()
    with pytest.raises(UserError, match=r"predictions with other classes .* such as a\.png"):
        predict_images(model=other, inputs=[data / "b.png"], **arguments)
    assert (data / "out/classes.csv").read_text() == table
    assert not (data / "out/b.png").exists()
    # The same classes, or all of them anew.
    predict_images(model=data / "model.safetensors", inputs=[data / "b.png"], **arguments)
    predict_images(model=other, inputs=[data / "a.png", data / "b.png"], **arguments)
    assert "other" in (data / "out/classes.csv").read_text()


def test_the_model_file_is_all_that_is_needed(data):
    first = SEGMENTATION.load(data / "model.safetensors")
    again = SEGMENTATION.load(data / "model.safetensors")
    x = image_to_tensor(picture(32, 32))[None].float()
    with torch.inference_mode():
        assert torch.equal(first.network(x), again.network(x))
    assert not first.network.training


# ----- folders as people have them


def predict_photos(data, *, inputs=None, output=None, **changes):
    predict_images(
        model=data / "model.safetensors",
        inputs=inputs or [data / "photos"],
        output=output or data / "out",
        config=PredictionConfig(scales=(1.0,), crf=False),
        compute=changes.pop("compute", COMPUTE),
    )


def photos(data, *names):
    (data / "photos").mkdir(exist_ok=True)
    for name in names:
        Image.fromarray(picture(24, 32)).save(data / "photos" / name)


def made(data):
    return sorted(path.name for path in (data / "out").glob("*.png"))


def test_what_only_looks_like_a_picture_is_left_out(data):
    photos(data, "a.jpg")
    (data / "photos/._a.jpg").write_bytes(b"\0\5\x16\7 resource fork")
    photos(data, ".hidden.png")
    (data / "photos/x.jpg").mkdir()
    (data / "photos/gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(data / "photos/pipe.jpg")
    predict_photos(data)
    assert made(data) == ["a.png", "a_overlay.png"]
    (data / "photos/a.jpg").unlink()
    with pytest.raises(UserError, match="no images directly in it"):
        find_images([data / "photos"])


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_pictures_are_told_of_and_the_others_done(data, workers):
    good = [f"g{number}.png" for number in range(5)]
    photos(data, *good)
    (data / "photos/b0.jpg").write_bytes(b"no picture")
    whole = (data / "photos/g0.png").read_bytes()
    (data / "photos/g3.png").write_bytes(whole[: len(whole) // 2])
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(stream, "JPEG")
    cut = stream.getvalue()
    (data / "photos/cut.jpg").write_bytes(cut[: len(cut) // 2] + cut[len(cut) * 2 // 3 :])
    Image.fromarray(np.full((4, 4), 999, np.uint16)).save(data / "photos/deep.png")
    with pytest.raises(PartlyDone, match="4 of 8 pictures cannot be read; the others") as caught:
        predict_photos(data, compute=Compute(device="cpu", threads=1, workers=workers))
    # Its end mark is there, and a decoder would show grey for what is missing.
    for name in ("b0.jpg", "g3.png", "cut.jpg"):
        assert f"  - {data}/photos/{name}: cannot read this picture" in caught.value.found
    # Each with what helps it.
    assert f"  - {data}/photos/deep.png: this picture has mode" in caught.value.found
    assert "how to map the range is for you to say" in caught.value.found
    done = ("g0", "g1", "g2", "g4")
    assert made(data) == sorted(f"{name}{kind}.png" for name in done for kind in ("", "_overlay"))


def test_the_command_ends_with_1_where_others_are_done_and_2_where_none_is(data, capsys):
    photos(data, "a.jpg")
    (data / "photos/b.jpg").write_bytes(b"no picture")
    words = ["predict", str(data / "model.safetensors"), "--device", "cpu"]
    words += ["--output", str(data / "out")]
    assert main([*words, str(data / "photos")]) == 1
    assert "photos/b.jpg: cannot read this picture" in capsys.readouterr().err
    assert made(data) == ["a.png", "a_overlay.png"]
    assert main([*words, str(data / "photos/b.jpg")]) == 2


def test_what_is_no_fault_of_a_picture_ends_it(data, monkeypatch):
    photos(data, "a.jpg", "b.jpg")

    def full(*arguments):
        raise UserError("cannot write this output: No space left on device", where=data / "out")

    monkeypatch.setattr("wsss.segmentation.pictures.write_label", full)
    with pytest.raises(UserError, match="No space left") as caught:
        predict_photos(data)
    assert not isinstance(caught.value, PartlyDone)


@pytest.mark.parametrize("output", ["photos", "photos/out", "photos/out.jpg"])
def test_results_among_the_pictures_are_no_input(data, output):
    photos(data, "a.jpg", "b.jpeg")
    predict_photos(data, output=data / output)
    first = {path: path.read_bytes() for path in sorted((data / output).glob("*.png"))}
    assert len(first) == 4
    for _ in range(2):
        predict_photos(data, output=data / output)
        assert {path: path.read_bytes() for path in sorted((data / output).glob("*.png"))} == first
    assert [path.name for path in find_images([data / "photos"])] == ["a.jpg", "b.jpeg"]


def test_no_file_of_others_is_written_over(data):
    photos(data, "a.jpg")
    (data / "out").mkdir()
    for name in ("a.png", "a_overlay.png"):
        Image.fromarray(picture(8, 8)).save(data / "out" / name)
        before = (data / "out" / name).read_bytes()
        with pytest.raises(UserError, match="no result of this command"):
            predict_photos(data)
        assert made(data) == [name] and (data / "out" / name).read_bytes() == before
        (data / "out" / name).unlink()
    (data / "out" / "classes.csv").write_text("mine")
    with pytest.raises(UserError, match="no result of this command"):
        predict_photos(data)
    assert made(data) == [] and (data / "out" / "classes.csv").read_text() == "mine"
