"""Every setting of the pseudo-labels, away from its default, does what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from crf_recorder import CRF, recorded_crf, settings_of
from naive_walk import dense_walk
from PIL import Image

from wsss.data.crf import crf_from_probabilities
from wsss.data.crf_config import CrfConfig
from wsss.data.images import read_label
from wsss.data.index import ImageRecord, Index, write_index
from wsss.data.par import par
from wsss.irn import edges
from wsss.irn.config import IrnConfig, PseudoLabelsConfig
from wsss.irn.crf_label_config import CrfLabelsSettings
from wsss.irn.label_methods import LabelSettings
from wsss.irn.label_stage import make_labels
from wsss.irn.map_labels import wrapped_bgr
from wsss.irn.model_file import IRNET, build_irnet
from wsss.maps.map_store import MapStore, MapStoreWriter
from wsss.models.config import BackboneConfig
from wsss.runtime.compute import Compute

HEIGHT, WIDTH = 40, 48
CLASSES = ("cat", "dog", "fish")
INDICES = (0, 2)
RNG = np.random.default_rng(0)
# Maps and edges with something at every pixel, so that nothing about a walk goes unseen.
CAMS = RNG.random((2, 10, 12)).astype(np.float16).astype(np.float32)
EDGES = torch.from_numpy(RNG.random((10, 12)).astype(np.float32)) ** 2
PICTURE = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One picture, its maps and an untrained IRNet."""
    root = tmp_path_factory.mktemp("root")
    Image.fromarray(PICTURE).save(root / "a.png")
    record = ImageRecord("a", ("train",), ("cat", "fish"), WIDTH, HEIGHT, "a.png")
    write_index(Index(CLASSES, (record,)), root / "index.csv")
    with MapStoreWriter(root / "cams.h5", classes=CLASSES, attributes={}) as store:
        store.add("a", INDICES, CAMS, (HEIGHT, WIDTH))
    torch.manual_seed(0)
    backbone = BackboneConfig(name="test_efficientnet", weights="none")
    config = IrnConfig(backbone=backbone)
    IRNET.save(root / "irn.safetensors", build_irnet(config), config, training={})
    return root


def labelled(folder: Path, made: Path, config: LabelSettings) -> tuple[np.ndarray, np.ndarray]:
    """Return the label map, and the maps that are kept of it."""
    make_labels(
        config=config,
        cams=folder / "cams.h5",
        model=folder / "irn.safetensors",
        index=folder / "index.csv",
        root=folder,
        output=made / "labels",
        maps=made / "maps.h5",
        compute=Compute(device="cpu", threads=1, workers=0),
    )
    with MapStore(made / "maps.h5") as store:
        maps = store.read("a").maps
    return read_label(made / "labels" / "a.png"), maps


def upsampled(maps: np.ndarray, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    batch = torch.from_numpy(maps)[None].double()
    return torch.nn.functional.interpolate(batch, size=size, mode="bilinear")[0].numpy()


def best(scores: np.ndarray) -> np.ndarray:
    """The label of background and the two classes that is the largest; of equals, the first."""
    return np.array([0, *(index + 1 for index in INDICES)])[scores.argmax(axis=0)]


# ----- the random walk

WALK: dict[str, Any] = {"radius": 3, "beta": 4.0, "steps": 2, "background": 0.6}


@pytest.mark.setting(
    "pseudo_labels.radius",
    "pseudo_labels.beta",
    "pseudo_labels.steps",
    "pseudo_labels.background",
    "pseudo_labels.mirror",
    "pseudo_labels.precision",
)
def test_a_walk_is_what_its_settings_say(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, torch.dtype | None]] = []

    def given(network: Any, image: torch.Tensor, *, mirror: bool) -> torch.Tensor:
        low = torch.is_autocast_enabled("cpu")
        seen.append((mirror, torch.get_autocast_dtype("cpu") if low else None))
        return EDGES[None]

    def naive(**settings: Any) -> tuple[np.ndarray, np.ndarray]:
        walk = {key: settings[key] for key in ("radius", "beta", "steps")}
        walked = upsampled(dense_walk(CAMS, EDGES.numpy(), **walk).astype(np.float32))
        scores = walked / walked.max()
        threshold = np.full((1, HEIGHT, WIDTH), settings["background"])
        return best(np.concatenate([threshold, scores])), scores

    monkeypatch.setattr(edges, "edge_map", given)
    config = PseudoLabelsConfig(**WALK, mirror=False, precision="bfloat16")
    found, maps = labelled(folder, tmp_path, config)
    assert seen == [(False, torch.bfloat16)]
    wanted, scores = naive(**WALK)
    assert np.abs(upsampled(maps) - scores).max() < 2e-3  # kept in float16
    assert (found != wanted).mean() < 1e-3
    for key in WALK:
        other = naive(**{**WALK, key: PseudoLabelsConfig.model_fields[key].default})[0]
        assert (other != wanted).mean() > 0.02, key


@pytest.mark.setting("pseudo_labels.mirror", "pseudo_labels.precision")
def test_mirror_and_type_of_the_boundaries_are_as_set(folder: Path) -> None:
    found = {
        (mirror, precision): edges.edge_finder(
            folder / "irn.safetensors",
            PseudoLabelsConfig(mirror=mirror, precision=precision),
            torch.device("cpu"),
        )([PICTURE])[0]
        for mirror in (True, False)
        for precision in ("float32", "bfloat16")
    }
    exact = found[False, "float32"]
    assert 0 < (found[False, "bfloat16"] - exact).abs().max() < 0.05
    assert (found[True, "float32"] - exact).abs().max() > 1e-3


# ----- a refinement alone


def scores(alpha: float | None = None, constant: float = 0.0) -> np.ndarray:
    maps = upsampled(CAMS).astype(np.float32)
    top = maps.max(axis=0, keepdims=True)
    background = np.full_like(top, constant) if alpha is None else (1 - top) ** alpha
    return np.concatenate([background, maps])


@pytest.mark.setting(
    "pseudo_labels.method",
    "pseudo_labels.refine",
    "pseudo_labels.par_iterations",
    "pseudo_labels.confidence",
    "pseudo_labels.background",
)
def test_par_goes_over_the_maps_as_often_as_set(folder: Path, tmp_path: Path) -> None:
    config = CrfLabelsSettings(refine="par", par_iterations=3, confidence=0.5, background=0.3)
    found, kept = labelled(folder, tmp_path, config)

    def naive(background: np.ndarray, iterations: int, confidence: float) -> np.ndarray:
        image = torch.from_numpy(PICTURE).permute(2, 0, 1)
        refined = par(image, torch.from_numpy(background), iterations=iterations).numpy()
        shares = refined / refined.sum(axis=0)
        return np.where(shares.max(axis=0) < confidence, 255, best(shares))

    given = scores(constant=0.3)
    wanted = naive(given, 3, 0.5)
    assert (found != wanted).mean() < 1e-3 and kept.shape == (2, HEIGHT, WIDTH)
    others = (naive(given, 20, 0.5), naive(given, 3, 0.95), naive(scores(alpha=1.0), 3, 0.5))
    assert all((other != wanted).mean() > 0.02 for other in others)


@pytest.mark.setting(
    "pseudo_labels.crf.gaussian_sxy",
    "pseudo_labels.crf.gaussian_compat",
    "pseudo_labels.crf.bilateral_sxy",
    "pseudo_labels.crf.bilateral_srgb",
    "pseudo_labels.crf.bilateral_compat",
    "pseudo_labels.crf.iterations",
    "pseudo_labels.preset",
)
def test_the_crf_is_given_what_is_set(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = recorded_crf(monkeypatch)
    config = CrfLabelsSettings(crf=CRF, confidence=0.4, preset="published", background={"alpha": 3})
    found, _ = labelled(folder, tmp_path, config)
    (call,) = calls
    assert settings_of(call) == CRF
    assert (call["image"] == wrapped_bgr(PICTURE)).all() and (call["image"] != PICTURE).any()
    # The recorder refines nothing: the best label of the scores, where its share is enough.
    shares = np.maximum(scores(alpha=3.0), 1e-5)
    shares /= shares.sum(axis=0)
    wanted = np.where(shares.max(axis=0) < 0.4, 255, best(shares))
    assert (found != wanted).mean() < 1e-3


def test_the_recorder_is_given_what_the_real_crf_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydensecrf import densecrf

    probabilities = scores(constant=0.3)
    with monkeypatch.context() as patch:
        calls = recorded_crf(patch)
        crf_from_probabilities(PICTURE, probabilities, CrfConfig(**CRF))
    (given,) = calls
    real = densecrf.DenseCRF2D(WIDTH, HEIGHT, 3)
    real.addPairwiseGaussian(sxy=given["gaussian_sxy"], compat=given["gaussian_compat"])
    real.addPairwiseBilateral(
        sxy=given["bilateral_sxy"],
        srgb=given["bilateral_srgb"],
        rgbim=given["image"],
        compat=given["bilateral_compat"],
    )
    energy = -np.log(np.clip(probabilities, 1e-5, 1.0))
    real.setUnaryEnergy(np.ascontiguousarray(energy.reshape(3, -1)))
    wanted = np.array(real.inference(given["iterations"])).reshape(probabilities.shape)
    found = crf_from_probabilities(PICTURE, probabilities, CrfConfig(**CRF))
    np.testing.assert_array_equal(found, wanted)
    for key in CRF:
        other = crf_from_probabilities(
            PICTURE, probabilities, CrfConfig(**{k: v for k, v in CRF.items() if k != key})
        )
        assert np.abs(other - wanted).max() > 1e-3, key
