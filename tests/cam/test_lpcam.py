"""LPCAM: k-means by cosine, the choice of clusters, the maps, and both stages on tiny pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cam_settings import cam_settings
from conftest import write_tiny_data

from wsss.cam.clustering import make_clusters
from wsss.cam.config import ExportConfig
from wsss.cam.export import export_cams
from wsss.cam.kmeans import cluster_means, spherical_kmeans
from wsss.cam.lpcam import (
    ClassClusters,
    class_probability,
    find_clusters,
    load_clusters,
    on_cam,
    sampled,
    similarity_maps,
)
from wsss.cam.lpcam_config import LpcamConfig
from wsss.cam.model_file import CLASSIFIER
from wsss.cam.training import train_cam
from wsss.data.build import build_index
from wsss.data.formats.folder import FolderSettings
from wsss.data.images import read_image
from wsss.data.index import Index, read_index, write_index
from wsss.data.transforms import image_to_tensor, normalise, resize
from wsss.errors import UserError
from wsss.files import file_digest
from wsss.maps.map_store import MapStore
from wsss.runtime.compute import Compute
from wsss.runtime.settings import parse

CPU = Compute(device="cpu", threads=1, workers=1)


# --- k-means -------------------------------------------------------------------------------------


def directions(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return features around five directions, of any length, and which direction each has."""
    truth = np.repeat(np.arange(5), 40)
    features = np.eye(8, dtype=np.float32)[truth] + rng.normal(0, 0.05, (200, 8))
    return (features * rng.uniform(0.1, 10, (200, 1))).astype(np.float32), truth


def test_kmeans_finds_directions_whatever_the_lengths() -> None:
    features, truth = directions(np.random.default_rng(0))
    labels = spherical_kmeans(features, 5, np.random.default_rng(1))
    pairs = set(zip(labels.tolist(), truth.tolist(), strict=True))
    assert len(pairs) == 5


def test_kmeans_is_a_fixed_point_of_the_naive_form() -> None:
    features = np.random.default_rng(2).normal(size=(300, 6)).astype(np.float32)
    labels = spherical_kmeans(features, 7, np.random.default_rng(3))
    unit = features.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    centres = np.stack([unit[labels == k].sum(axis=0) for k in range(7)])
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    cosines = np.array([[float(u @ c) for c in centres] for u in unit])
    # Rounding aside, each feature is in the cluster whose direction it is nearest to.
    own = cosines[np.arange(300), labels]
    assert (own >= cosines.max(axis=1) - 1e-5).all()


def test_kmeans_repeats_and_takes_few_or_equal_features() -> None:
    features, _ = directions(np.random.default_rng(4))
    first, second = (spherical_kmeans(features, 12, np.random.default_rng(5)) for _ in range(2))
    assert first.tolist() == second.tolist()
    assert sorted(spherical_kmeans(features[:3], 12, np.random.default_rng(0))) == [0, 1, 2]
    same = np.ones((4, 3), np.float32)
    assert set(spherical_kmeans(same, 3, np.random.default_rng(0))) == {0}


@pytest.mark.parametrize("counts", [(9, 1), (1, 9), (5, 3, 1), (1, 1, 8), (2, 2, 2)])
def test_kmeans_begins_where_no_centre_lies_yet(counts: tuple[int, ...]) -> None:
    """Of so few directions each gets its centre, the last and rarest too."""
    truth = np.repeat(np.arange(len(counts)), counts)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        labels = spherical_kmeans(np.eye(4, dtype=np.float32)[truth], len(counts), rng)
        assert len(set(zip(labels.tolist(), truth.tolist(), strict=True))) == len(counts)
        assert len(set(labels.tolist())) == len(counts)


def test_cluster_means_leave_out_clusters_without_features() -> None:
    features = np.array([[1, 0], [3, 0], [0, 5]], np.float32)
    assert cluster_means(features, np.array([4, 4, 1])).tolist() == [[0, 5], [2, 0]]


# --- clusters and maps ---------------------------------------------------------------------------


def test_on_cam_by_hand() -> None:
    cam = np.array([[-1.0, 0.1, 0.2], [1.0, 2.0, 0.0]], np.float32)
    assert on_cam(cam, 0.1).tolist() == [[False, False, False], [True, True, False]]
    assert on_cam(-np.ones((2, 2), np.float32), 0.1) is None


def test_probability_is_the_softmax_over_classes() -> None:
    weights = np.array([[1.0, 0], [0, 1], [1, 1]], np.float32)
    found = class_probability(np.array([[2.0, -1]], np.float32), weights, 2)
    expected = np.exp([2, -1, 1]) / np.exp([2, -1, 1]).sum()
    assert found[0] == pytest.approx(expected[2])


def test_clusters_are_kept_by_their_probability() -> None:
    """On the CAM one direction surely of the class, one not; beside it three degrees."""
    weights = np.array([[4.0, 0, 0], [0, 4, 0]], np.float32)
    one, two = np.array([[3.0, 0, 1]], np.float32), np.array([[0.0, 3, 1]], np.float32)
    unsure = np.array([[0.5, 0.6, 5]], np.float32)  # 0.40 for the first class
    on = np.repeat(np.concatenate([one, two]), 5, axis=0)
    beside = np.repeat(np.concatenate([one, two, unsure]), 5, axis=0)
    found = find_clusters(on, beside, weights, 0, LpcamConfig(), np.random.default_rng(0))
    assert np.unique(found.objects, axis=0).tolist() == one.tolist()
    assert np.unique(found.context, axis=0) == pytest.approx(unsure)
    empty = find_clusters(on[:0], on[5:], weights, 0, LpcamConfig(), np.random.default_rng(0))
    assert len(empty.objects) == len(empty.context) == 0


def naive_map(feature: np.ndarray, clusters: ClassClusters) -> np.ndarray:
    found = np.zeros(feature.shape[1:])
    for y in range(feature.shape[1]):
        for x in range(feature.shape[2]):
            f = feature[:, y, x].astype(np.float64)

            def cosine(c: np.ndarray, f: np.ndarray = f) -> float:
                return float(f @ c / (np.linalg.norm(f) * np.linalg.norm(c)))

            near = np.mean([cosine(c) for c in clusters.objects])
            context = np.mean([cosine(c) for c in clusters.context]) if len(clusters.context) else 0
            found[y, x] = max(0.0, near - context)
    return found


def test_maps_are_the_naive_ones() -> None:
    rng = np.random.default_rng(6)
    feature = rng.normal(size=(5, 4, 3)).astype(np.float32)

    def means(count: int) -> np.ndarray:
        return rng.normal(size=(count, 5)).astype(np.float32)

    clusters = [ClassClusters(means(3), means(2)), ClassClusters(means(1), means(0))]
    found = similarity_maps(torch.from_numpy(feature), clusters).numpy()
    for ours, one in zip(found, clusters, strict=True):
        assert ours == pytest.approx(naive_map(feature, one), abs=1e-6)
    assert found.max() > 0


def test_sampling_keeps_order_and_repeats() -> None:
    rows = np.arange(20, dtype=np.float32)[:, None]
    first, second = (sampled(rows, 5, np.random.default_rng(1))[:, 0] for _ in range(2))
    assert len(set(first.tolist())) == 5
    assert (np.diff(first) > 0).all()
    assert first.tolist() == second.tolist()
    assert sampled(rows, 20, np.random.default_rng(1)) is rows


# --- stages --------------------------------------------------------------------------------------

TINY: dict[str, Any] = {
    "method": "cam",
    "backbone": {"name": "test_efficientnet", "weights": "none", "output_stride": 16},
    "epochs": 1, "batch_size": 4, "crop_px": 48, "long_side_min_px": 48, "long_side_max_px": 64,
    "learning_rate": 0.001,
}  # fmt: skip


@pytest.fixture(scope="module", params=["paper", "official"])
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny")
    write_tiny_data(root)
    write_index(build_index(FolderSettings(), root), root / "index.csv")
    train(root, root / "model.safetensors", head=request.param)
    return root


def train(root: Path, output: Path, **settings: Any) -> None:
    train_cam(
        config=cam_settings({**TINY, **settings}),
        index=root / "index.csv",
        root=root,
        output=output,
        work_dir=output.with_suffix(".work"),
        compute=CPU,
    )


def cluster(data: Path, output: Path, *, index: Path | None = None, **settings: Any) -> Path:
    values = {"clusters": 3, "object_probability": 0.5, "precision": "float32", **settings}
    make_clusters(
        config=parse(LpcamConfig, values, where="lpcam"),
        model=data / "model.safetensors",
        index=index or data / "index.csv",
        root=data,
        output=output,
        compute=CPU,
    )
    return output


def export(data: Path, output: Path, clusters: Path | None, **settings: Any) -> None:
    values = {"scales": [0.5, 1.0], "precision": "float32", "refine": "lpcam", **settings}
    export_cams(
        config=parse(ExportConfig, values, where="export"),
        model=data / "model.safetensors",
        index=data / "index.csv",
        root=data,
        output=output,
        compute=CPU,
        clusters=clusters,
    )


def naive_export(data: Path, path: Path, indices: list[int], of_class: Any) -> np.ndarray:
    """One picture's maps: features by the untouched network, every step written out."""
    network = CLASSIFIER.load(data / "model.safetensors").network
    image = read_image(path)
    size = image.shape[:2]
    target = ((size[0] - 1) // 4 + 1, (size[1] - 1) // 4 + 1)
    total = np.zeros((len(indices), *target))
    plain = torch.zeros(len(indices), *target)
    for scale in (0.5, 1.0):
        view = resize(image_to_tensor(image), (round(size[0] * scale), round(size[1] * scale)))
        x = normalise(view[None].float() / 255, network.normalisation)
        with torch.no_grad():
            both = [network.features(x)[0], network.features(x.flip(-1))[0].flip(-1)]
            cams = [network(x)[1][0], network(x.flip(-1))[1][0].flip(-1)]
        feature = (both[0] + both[1]).numpy()
        for k, index in enumerate(indices):
            one = torch.from_numpy(naive_map(feature, of_class[index]))[None, None].float()
            total[k] += F.interpolate(one, target, mode="bilinear", align_corners=False)[
                0, 0
            ].numpy()
            for cam in cams:
                plain[k] += F.interpolate(
                    cam[None, index : index + 1], target, mode="bilinear", align_corners=False
                ).relu()[0, 0]
    for k, index in enumerate(indices):
        if len(of_class[index].objects):
            total[k] /= total[k].max()
        else:
            low, high = plain[k].min(), plain[k].max()
            total[k] = ((plain[k] - low - 1e-5).relu() / (high - low + 1e-5)).numpy()
    return total


def test_the_exported_maps_are_the_naive_ones(data: Path, tmp_path: Path) -> None:
    clusters = cluster(data, tmp_path / "lpcam.safetensors")
    network = CLASSIFIER.load(data / "model.safetensors").network
    known = load_clusters(
        clusters,
        model=file_digest(data / "model.safetensors"),
        channels=network.class_weights.shape[1],
    )
    assert any(len(one.objects) for one in known.of_class)
    export(data, tmp_path / "cams.h5", clusters)
    index = read_index(data / "index.csv")
    both = 0
    with MapStore(tmp_path / "cams.h5") as store:
        assert store.attributes["refine"] == "lpcam"
        for record in index.training_set().records:
            indices = list(index.class_indices(record))
            expected = naive_export(data, data / record.path, indices, known.of_class)
            found = store.read(record.name).maps
            assert np.asarray(found, np.float64) == pytest.approx(expected, abs=4e-3), record.name
            both += len(indices) == 2
    assert both


def test_a_class_without_object_clusters_keeps_its_cam(data, tmp_path, capfd) -> None:
    clusters = cluster(data, tmp_path / "lpcam.safetensors", object_probability=0.999999)
    assert capfd.readouterr().err.count("it keeps its CAM") == 2
    export(data, tmp_path / "refined.h5", clusters)
    export(data, tmp_path / "plain.h5", None, refine="none")
    index = read_index(data / "index.csv")
    with MapStore(tmp_path / "refined.h5") as ours, MapStore(tmp_path / "plain.h5") as plain:
        for record in index.training_set().records:
            maps = ours.read(record.name).maps, plain.read(record.name).maps
            assert maps[0].tolist() == maps[1].tolist()


def test_a_class_without_training_images_is_named(data: Path, tmp_path: Path, capfd) -> None:
    known = read_index(data / "index.csv")
    blue = tuple(each for each in known.training_set().records if each.tags == ("blue",))
    write_index(Index(known.classes, blue[:2]), tmp_path / "index.csv")
    clusters = cluster(data, tmp_path / "lpcam.safetensors", index=tmp_path / "index.csv")
    printed = capfd.readouterr().err
    assert "no training image has the tags red: they keep their CAM" in printed
    model = data / "model.safetensors"
    channels = CLASSIFIER.load(model).network.class_weights.shape[1]
    found = load_clusters(clusters, model=file_digest(model), channels=channels)
    of_red = found.of_class[known.classes.index("red")]
    assert of_red.objects.shape == of_red.context.shape == (0, channels)


def test_clusters_repeat_and_follow_the_seed(data: Path, tmp_path: Path) -> None:
    few = {"features_per_image": 3}
    first = cluster(data, tmp_path / "a.safetensors", **few).read_bytes()
    assert cluster(data, tmp_path / "b.safetensors", **few).read_bytes() == first
    assert cluster(data, tmp_path / "c.safetensors", seed=1, **few).read_bytes() != first


def test_what_does_not_go_together_is_said(data: Path, tmp_path: Path) -> None:
    clusters = cluster(data, tmp_path / "lpcam.safetensors")
    with pytest.raises(UserError, match="no clusters were given"):
        export(data, tmp_path / "cams.h5", None)
    with pytest.raises(UserError, match=r"export\.refine is 'none'"):
        export(data, tmp_path / "cams.h5", clusters, refine="none")
    kept = (data / "model.safetensors").read_bytes()
    try:
        train(data, data / "model.safetensors", seed=5)
        with pytest.raises(UserError, match="another classifier's features"):
            export(data, tmp_path / "cams.h5", clusters)
    finally:
        (data / "model.safetensors").write_bytes(kept)
