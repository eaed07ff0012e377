"""LPCAM's settings at other values than the defaults: which features, which clusters of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from cam_settings import cam_settings
from conftest import write_tiny_data
from distributed_cases import one_thread_count

from wsss.cam import clustering
from wsss.cam.kmeans import cluster_means, spherical_kmeans
from wsss.cam.lpcam import ClassClusters, find_clusters
from wsss.cam.lpcam_config import LpcamConfig
from wsss.cam.methods.plain import build_classifier
from wsss.cam.model_file import CLASSIFIER
from wsss.data.build import build_index
from wsss.data.formats.folder import FolderSettings
from wsss.data.images import read_image
from wsss.data.index import read_index, write_index
from wsss.data.loader import random_generator
from wsss.data.transforms import image_to_tensor, normalise
from wsss.runtime.compute import Compute

# --- which clusters ------------------------------------------------------------------------------

WEIGHTS = np.array([[4.0, 0, 0], [0, 4, 0]], np.float32)
# Of the first class with a probability of nearly 1, nearly 0, and 0.40.
SURE = np.array([3.0, 0, 1], np.float32)
OTHER = np.array([0.0, 3, 1], np.float32)
UNSURE = np.array([0.5, 0.6, 5], np.float32)
FEATURES = np.repeat(np.stack([SURE, OTHER, UNSURE]), 5, axis=0)


def found(**settings: Any) -> tuple[set[tuple[float, ...]], set[tuple[float, ...]]]:
    """Return the clusters of object and of context, of the same features on and beside a CAM."""
    config, rng = LpcamConfig(**settings), np.random.default_rng(0)
    both = find_clusters(FEATURES, FEATURES, WEIGHTS, 0, config, rng)
    return rows(*both.objects), rows(*both.context)


def rows(*features: np.ndarray) -> set[tuple[float, ...]]:
    return {tuple(np.round(feature, 4).tolist()) for feature in features}


@pytest.mark.setting("lpcam.object_probability", "lpcam.context_min_probability")
@pytest.mark.setting("lpcam.context_max_probability")
def test_clusters_are_kept_between_the_bounds() -> None:
    assert found() == (rows(SURE), rows(UNSURE))
    assert found(object_probability=0.3) == (rows(SURE, UNSURE), rows(UNSURE))
    assert found(context_min_probability=0.0) == (rows(SURE), rows(OTHER, UNSURE))
    assert found(context_max_probability=1.0) == (rows(SURE), rows(SURE, UNSURE))


@pytest.mark.setting("lpcam.clusters")
def test_one_cluster_is_the_mean_of_all_features() -> None:
    mean = FEATURES.mean(axis=0)
    likely = np.exp(WEIGHTS @ mean)
    bound = float(likely[0] / likely.sum()) - 0.01
    assert found(clusters=1, object_probability=bound)[0] == rows(mean)


@pytest.mark.setting("lpcam.iterations")
def test_kmeans_stops_after_the_iterations() -> None:
    features = np.random.default_rng(2).normal(size=(300, 3)).astype(np.float32)

    def means(iterations: int) -> np.ndarray:
        rng = np.random.default_rng(1)
        labels = spherical_kmeans(features, 12, rng, iterations=iterations)
        return cluster_means(features, labels)

    config = LpcamConfig(iterations=1, object_probability=1e-9)
    rng = np.random.default_rng(1)
    both = find_clusters(features, features[:0], WEIGHTS, 0, config, rng)
    np.testing.assert_array_equal(both.objects, means(1))
    assert not np.array_equal(means(1), means(100))


# --- which features ------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread_count():
        torch.set_num_threads(1)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny")
    write_tiny_data(root)
    write_index(build_index(FolderSettings(), root), root / "index.csv")
    torch.manual_seed(0)
    backbone = {"name": "test_efficientnet", "weights": "none", "output_stride": 8}
    settings = cam_settings({"method": "cam", "backbone": backbone})
    network = build_classifier(settings, 2).eval()
    path = root / "model.safetensors"
    CLASSIFIER.save(path, network, settings, classes=["blue", "red"], training={})
    return root


class Given(NamedTuple):
    """What the clusters of one class are made of."""

    on: np.ndarray
    beside: np.ndarray
    draw: float


def given(
    data: Path, output: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> list[Given]:
    """Run the stage, and return what it clusters, class by class."""
    seen: list[Given] = []

    def watched(on: Any, beside: Any, weights: Any, index: int, _: Any, rng: Any) -> ClassClusters:
        seen.append(Given(on, beside, float(rng.random())))
        return ClassClusters(on[:1], beside[:1])

    monkeypatch.setattr(clustering, "find_clusters", watched)
    clustering.make_clusters(
        config=LpcamConfig(**{"precision": "float32", **settings}),
        model=data / "model.safetensors",
        index=data / "index.csv",
        root=data,
        output=output,
        compute=Compute(device="cpu", threads=1, workers=0),
    )
    return seen


def by_hand(data: Path, *, threshold: float, most: int, seed: int) -> list[Given]:
    """The features of each class's pictures, by the untouched network."""
    network = CLASSIFIER.load(data / "model.safetensors").network
    index = read_index(data / "index.csv")
    wanted = []
    for position, name in enumerate(index.classes):
        parts: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        for record in index.training_set().records:
            if name not in record.tags:
                continue
            image = image_to_tensor(read_image(data / record.path))[None].float() / 255
            with torch.no_grad():
                feature = network.features(normalise(image, network.normalisation))[0]
                cam = torch.einsum("d,dhw->hw", network.class_weights[position], feature)
            features = feature.flatten(1).T.numpy()
            where = (cam / cam.max() > threshold).flatten().numpy()
            assert cam.max() > 0
            rng = random_generator(seed, "lpcam", position, record.name)
            for part, chosen in zip(parts, (where, ~where), strict=True):
                those = features[chosen]
                if len(those) > most:
                    those = those[sorted(rng.choice(len(those), most, replace=False))]
                part.append(those)
        draw = float(random_generator(seed, "lpcam", position).random())
        wanted.append(Given(np.concatenate(parts[0]), np.concatenate(parts[1]), draw))
    return wanted


# With five pictures of each class, 10 features of a class are two a picture.
CASES: list[Any] = [
    pytest.param(
        {"cam_threshold": 0.6}, {"threshold": 0.6}, marks=pytest.mark.setting("lpcam.cam_threshold")
    ),
    pytest.param(
        {"features_per_image": 3}, {"most": 3},
        marks=pytest.mark.setting("lpcam.features_per_image"),
    ),
    pytest.param(
        {"features_per_class": 10}, {"most": 2},
        marks=pytest.mark.setting("lpcam.features_per_class"),
    ),
    pytest.param(
        {"seed": 6, "features_per_image": 3}, {"seed": 6, "most": 3},
        marks=pytest.mark.setting("lpcam.seed"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "changes"), CASES)
def test_features_are_those_by_hand(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    changes: dict[str, Any],
) -> None:
    seen = given(data, tmp_path / "clusters.safetensors", monkeypatch, **settings)
    wanted = by_hand(data, **{"threshold": 0.1, "most": 200, "seed": 0, **changes})
    for ours, theirs in zip(seen, wanted, strict=True):
        assert ours.draw == theirs.draw
        for one, other in zip(ours[:2], theirs[:2], strict=True):
            assert one.shape == other.shape
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("threshold", [0.4, 0.7])
@pytest.mark.setting("lpcam.rounds", "lpcam.map_threshold")
def test_a_second_round_divides_by_the_map_of_the_first(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threshold: float
) -> None:
    clusters = tmp_path / "clusters.safetensors"
    seen = given(data, clusters, monkeypatch, rounds=2, map_threshold=threshold)
    first = by_hand(data, threshold=0.1, most=200, seed=0)
    assert len(seen) == 2 * len(first)
    maps = class_maps(data, [(one.on[0], one.beside[0]) for one in seen[::2]])
    for ours, again, theirs, likeness in zip(seen[::2], seen[1::2], first, maps, strict=True):
        np.testing.assert_allclose(ours.on, theirs.on, rtol=1e-3, atol=1e-4)
        above = sum(int((one / one.max() > threshold).sum()) for one in likeness)
        # Few enough pixels that all are taken: the second round divides the same ones anew.
        assert len(again.on) == above != len(ours.on)
        assert len(again.beside) == sum(one.size for one in likeness) - above
        assert again.draw == ours.draw


def class_maps(data: Path, stands_for: list[tuple[np.ndarray, np.ndarray]]) -> list[list[Any]]:
    """LPCAM's maps of each class's pictures, where one feature stands for object and context."""
    network, index = (
        CLASSIFIER.load(data / "model.safetensors").network,
        read_index(data / "index.csv"),
    )
    wanted: list[list[Any]] = []
    for name, (of_object, of_context) in zip(index.classes, stands_for, strict=True):
        wanted.append([])
        for record in index.training_set().records:
            if name in record.tags:
                image = image_to_tensor(read_image(data / record.path))[None].float() / 255
                with torch.no_grad():
                    found = network.features(normalise(image, network.normalisation))[0]
                rows = found.flatten(1).T.numpy()
                near, far = (
                    rows @ each / np.linalg.norm(each) / np.linalg.norm(rows, axis=1)
                    for each in (of_object, of_context)
                )
                wanted[-1].append(np.maximum(near - far, 0))
    return wanted


@pytest.mark.setting("lpcam.precision")
def test_features_are_computed_in_the_precision_that_is_asked_for(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = {}
    for precision in ("float32", "bfloat16"):
        output = tmp_path / f"{precision}.safetensors"
        seen = given(data, output, monkeypatch, precision=precision)
        wanted = by_hand(data, threshold=0.1, most=200, seed=0)
        # Where a CAM is near the threshold, rounding decides on which side a feature is.
        ours, theirs = (
            np.sort(np.concatenate([np.concatenate(one[:2]) for one in each]), axis=0)
            for each in (seen, wanted)
        )
        errors[precision] = float(np.abs(ours - theirs).mean() / np.abs(theirs).mean())
    assert errors["float32"] < 1e-4 < 5e-4 < errors["bfloat16"] < 0.1
