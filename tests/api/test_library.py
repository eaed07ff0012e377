"""The library as people use it: what is imported, a model, CAMs, the page of docs, the notebook."""

from __future__ import annotations

import doctest
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from PIL import Image
from segmentation_helpers import picture, tiny_config

import wsss
from wsss.data.images import read_image, read_label
from wsss.maps.map_store import MapStore, MapStoreWriter
from wsss.models.backbones import build_backbone
from wsss.models.deeplab import DeepLab
from wsss.provenance import OUTSIDE, closure
from wsss.runtime.compute import InferenceCompute
from wsss.runtime.settings import to_dict
from wsss.segmentation.config import PredictionConfig
from wsss.segmentation.model_file import SEGMENTATION
from wsss.segmentation.pictures import predict_images
from wsss.stages import STAGES

CLASSES = ("dog", "sofa")
PREDICTION = PredictionConfig(scales=(0.75, 1.0), crf_settings={"iterations": 2})


def write_model(path: Path, *, seed: int = 0) -> DeepLab:
    """Write a randomly filled model that says `dog` wherever it is."""
    torch.manual_seed(seed)
    config = tiny_config()
    network = DeepLab(build_backbone(config.backbone), len(CLASSES) + 1, config.head).eval()
    with torch.no_grad():
        bias = next(
            each.bias
            for each in reversed(list(network.modules()))
            if isinstance(each, torch.nn.Conv2d) and each.bias is not None
        )
        bias.copy_(torch.tensor([0.0, 6.0, 0.0]))
    path.parent.mkdir(parents=True)
    SEGMENTATION.save(path, network, config, classes=CLASSES, training={})
    return network


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the run `mine`, and a photograph."""
    run = tmp_path / "results" / "mine"
    write_model(run / "segmentation" / "model.safetensors")
    (run / "config").mkdir()
    settings = json.dumps(to_dict(PREDICTION))
    (run / "config" / "prediction.json").write_text(settings)
    with MapStoreWriter(run / "cams.h5", classes=CLASSES, attributes={}) as store:
        maps = np.zeros((1, 23, 30))
        maps[0, 4:12, 5:15] = 1
        store.add("holiday_001", [0], maps, (90, 120))
    Image.fromarray(picture(90, 120)).save(tmp_path / "holiday.jpg", quality=95)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    return done.stdout


def test_importing_it_loads_nothing_else() -> None:
    listing = "import sys; print({name.partition('.')[0] for name in sys.modules})"
    before, after = run_python(listing), run_python(f"import wsss; {listing}")
    others = eval(after) - eval(before) - set(sys.stdlib_module_names)
    assert others == {"wsss"}


def test_every_lazy_name_is_there_and_typed() -> None:
    assert set(wsss._PLACES) | {"__version__"} == set(wsss.__all__) <= set(dir(wsss))
    for name in wsss.__all__:
        assert getattr(wsss, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        wsss.lod  # noqa: B018


def test_the_public_api_is_in_no_hash() -> None:
    assert "wsss" in OUTSIDE
    reached = {name for stage in STAGES.values() for name in closure(stage.module)}
    assert not [name for name in reached if name.startswith("wsss.api")]


def test_version() -> None:
    done = run_python("from wsss.cli import main; main(['--version'])")
    assert done == f"wsss {wsss.__version__}\n"


def test_it_gives_what_the_command_writes(folder: Path) -> None:
    found = wsss.load("results/mine").predict("holiday.jpg")
    predict_images(
        model=folder / "results" / "mine" / "segmentation" / "model.safetensors",
        inputs=[folder / "holiday.jpg"],
        output=folder / "out",
        config=PREDICTION,
        compute=InferenceCompute(device="cpu", threads=torch.get_num_threads(), workers=0),
    )
    assert np.array_equal(found.mask, read_label(folder / "out" / "holiday.png"))
    assert np.array_equal(found.overlay(), read_image(folder / "out" / "holiday_overlay.png"))


def test_file_picture_and_array_give_the_same(folder: Path) -> None:
    model = wsss.load("results/mine/segmentation/model.safetensors")
    with Image.open("holiday.jpg") as opened:
        results = [model.predict(each) for each in ("holiday.jpg", Path("holiday.jpg"), opened)]
    results.append(model.predict(read_image("holiday.jpg")))
    # Again with the same model: it is as it was.
    results.append(model.predict("holiday.jpg"))
    for each in results:
        assert np.array_equal(each.mask, results[0].mask)
        assert np.array_equal(each.probabilities, results[0].probabilities)
    assert results[0].mask.dtype == np.uint8
    np.testing.assert_allclose(results[0].probabilities.sum(axis=0), 1, atol=1e-5)


def test_the_network_stays_whole(folder: Path) -> None:
    trained = write_model(folder / "other" / "model.safetensors", seed=3)
    model = wsss.load("other", scales=(1.0,), mirror=False, precision="float32")
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = trained(image)
        assert torch.equal(model.network(image), wanted)
        model.predict("holiday.jpg")
        assert torch.equal(model.network(image), wanted)
    before = model.predict("holiday.jpg").probabilities
    with torch.no_grad():
        for each in model.network.parameters():
            each.zero_()
    assert np.array_equal(model.predict("holiday.jpg").probabilities, before)


def test_an_upright_picture_whatever_its_exif(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(40, 70)).save("turned.jpg", exif=exif)
    model = wsss.load("results/mine")
    assert model.predict("turned.jpg").mask.shape == (70, 40)
    with Image.open("turned.jpg") as opened:
        assert np.array_equal(model.predict(opened).mask, model.predict("turned.jpg").mask)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 40, 50), np.uint8),
        np.zeros((40, 50, 3)),
        np.zeros(4, np.uint8),
        np.zeros((0, 50, 3), np.uint8),
    ],
    ids=["channels-first", "float", "flat", "empty"],
)
def test_another_array_is_refused(folder: Path, array: np.ndarray) -> None:
    with pytest.raises(wsss.UserError, match="this picture is an array"):
        wsss.load("results/mine").predict(array)


def test_unknown_settings_are_refused(folder: Path) -> None:
    with pytest.raises(wsss.UserError, match="scale"):
        wsss.load("results/mine", scale=(1.0,))


def test_cams_at_image_size(folder: Path) -> None:
    with wsss.CamStore("results/mine") as cams, MapStore("results/mine/cams.h5") as store:
        assert list(cams) == ["holiday_001"] and "holiday_001" in cams and len(cams) == 1
        found = cams["holiday_001"]
        stored = torch.from_numpy(store.read("holiday_001").maps)[None]
        wanted = torch.nn.functional.interpolate(stored, (90, 120), mode="bilinear")
        assert np.array_equal(found.maps, wanted[0].numpy())
        assert np.array_equal(found["dog"], found.maps[0])
        with pytest.raises(KeyError, match="the image is tagged with dog"):
            found["sofa"]
        with pytest.raises(KeyError, match="did you mean 'holiday_001'"):
            cams["holiday_01"]
        assert cams.get("nothing") is None


def test_the_examples_of_the_page(folder: Path) -> None:
    failed, tried = doctest.testfile(
        str(REPOSITORY / "docs" / "library.md"), module_relative=False, encoding="utf-8"
    )
    assert failed == 0 and tried > 15


def test_the_notebook(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    (folder / "results" / "mine").rename(folder / "results" / "demo")
    images = folder / "results" / "demo-data" / "images"
    images.mkdir(parents=True)
    (folder / "holiday.jpg").rename(images / "holiday.jpg")
    (folder / "examples").mkdir()
    monkeypatch.chdir(folder / "examples")
    notebook = nbformat.read(REPOSITORY / "examples" / "library.ipynb", as_version=4)
    nbformat.validate(notebook)
    matplotlib.use("agg")
    names: dict[str, object] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            exec(compile("".join(cell["source"]), "library.ipynb", "exec"), names)
    shown = names["result"]
    assert isinstance(shown, wsss.Result)
    assert shown._repr_png_().startswith(b"\x89PNG")
