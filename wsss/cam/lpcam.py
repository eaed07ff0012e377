"""LPCAM (Chen and Sun, CVPR 2023): maps of how near a feature is to a class's object and context.

A class's weights answer to what tells it from other classes: to some of the object, and to the
scenery that comes with it. Clusters of the features on and beside its CAMs stand for both; a map
is the mean cosine to the object's clusters less that to the context's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.cam.config import ExportConfig
from wsss.cam.inference import multi_scale_cam
from wsss.cam.kmeans import Floats, cluster_means, spherical_kmeans
from wsss.cam.lpcam_config import LpcamConfig
from wsss.cam.source import CamSource, MapSource, View
from wsss.data.index import ImageRecord
from wsss.errors import UserError
from wsss.files import file_digest
from wsss.models.classifier import Classifier
from wsss.models.weights import load_model_file, save_model

STAGE = "lpcam"


@dataclass(frozen=True)
class ClassClusters:
    """What stands for one class.

    Attributes:
        objects: Mean features of its object's clusters, (n, D) float32; none: n is 0.
        context: Those of its context, (m, D) float32.
    """

    objects: Floats
    context: Floats


@dataclass(frozen=True)
class Clusters:
    """What stands for every class.

    Attributes:
        classes: Names, in the order of `of_class`.
        of_class: One each.
        model: Digest of the classifier's file whose features these are.
    """

    classes: tuple[str, ...]
    of_class: tuple[ClassClusters, ...]
    model: str


def on_cam(cam: Floats, threshold: float) -> np.ndarray | None:
    """Return where a CAM, divided by its maximum, is above `threshold`; None: it is never above 0.

    Args:
        cam: Raw values, any shape, which is that of the result.
        threshold: In 0..1.
    """
    largest = float(cam.max(initial=0.0))
    return None if largest <= 0 else np.asarray(np.maximum(cam, 0) / largest > threshold)


def sampled(rows: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Return `count` of the rows, drawn without replacement, in order; all if they are fewer."""
    if len(rows) <= count:
        return rows
    return rows[np.sort(rng.choice(len(rows), size=count, replace=False))]


def class_probability(features: Floats, weights: Floats, index: int) -> Floats:
    """Return the softmax over all classes of features times weights, at one class.

    Args:
        features: (n, D).
        weights: The classifier's last layer, (C, D).
        index: The class.

    Returns:
        (n,) float32.
    """
    scores = torch.from_numpy(features) @ torch.from_numpy(weights).T
    return np.asarray(scores.softmax(dim=1)[:, index].numpy())


def find_clusters(
    on: Floats, beside: Floats, weights: Floats, index: int, config: LpcamConfig, rng: Any
) -> ClassClusters:
    """Cluster the features of a class's images, and keep what stands for object and context.

    Args:
        on: Features on its CAMs, (n, D); n may be 0.
        beside: Features beside them, (m, D).
        weights: The classifier's last layer, (C, D).
        index: The class.
        config: Clusters and bounds.
        rng: Draws where k-means begins.
    """
    nothing = np.zeros((0, weights.shape[1]), np.float32)

    def means(features: Floats) -> tuple[Floats, Floats]:
        if not len(features):
            return nothing, np.zeros(0, np.float32)
        labels = spherical_kmeans(features, config.clusters, rng, iterations=config.iterations)
        found = cluster_means(features, labels)
        return found, class_probability(found, weights, index)

    objects, certain = means(on)
    context, likely = means(beside)
    kept = (likely > config.context_min_probability) & (likely < config.context_max_probability)
    return ClassClusters(objects[certain > config.object_probability], context[kept])


def similarity_maps(feature: Tensor, clusters: Sequence[ClassClusters]) -> Tensor:
    """Return relu(mean cosine to object clusters - mean cosine to context clusters).

    Args:
        feature: (D, h, w) float32.
        clusters: K classes', each with clusters of its object; without any of context nothing is
            subtracted.

    Returns:
        (K, h, w) float32 in 0..2.
    """
    direction = F.normalize(feature, dim=0)

    def mean_cosine(means: Floats) -> Tensor:
        # The mean of the cosines is the cosine with the mean of the directions, unnormalised.
        unit = F.normalize(torch.from_numpy(means).to(feature.device), dim=1).mean(dim=0)
        return torch.einsum("d,dhw->hw", unit, direction)

    maps = []
    for one in clusters:
        near = mean_cosine(one.objects)
        maps.append(near - mean_cosine(one.context) if len(one.context) else near)
    return F.relu(torch.stack(maps))


def divided_by_maximum(maps: Tensor) -> Tensor:
    """Divide non-negative maps (..., h, w) by their largest value, each by itself."""
    high = maps.amax(dim=(-2, -1), keepdim=True)
    return maps / high.clamp(min=torch.finfo(maps.dtype).tiny)


@dataclass(frozen=True)
class LpcamSource:
    """Maps of whole images, by clusters; of classes without object clusters the plain CAM.

    Attributes:
        source: Reads the features of views.
        clusters: What stands for each class.
        plain: The CAMs, whose views are the same.
        attributes: Where the maps come from, for the map store.
    """

    source: CamSource
    clusters: Clusters
    plain: MapSource
    attributes: Mapping[str, str | int | float]

    @property
    def description(self) -> str:
        """What is computed in, and how much memory it takes."""
        return self.plain.description

    def prepare(self, record: ImageRecord, root: Path) -> Any:
        """Return a picture at all scales."""
        return self.plain.prepare(record, root)

    def maps(
        self, prepared: Sequence[View], class_indices: Sequence[int], size: tuple[int, int]
    ) -> Tensor:
        """Return the maps of some classes, (K, (H-1)//4+1, (W-1)//4+1) float32 in 0..1."""
        known = [i for i in class_indices if len(self.clusters.of_class[i].objects)]
        rest = [i for i in class_indices if i not in known]
        found: dict[int, Tensor] = {}
        if known:
            maps = multi_scale_cam(
                partial(self._view_maps, class_indices=known),
                prepared,
                size=size,
                mirror=False,
                normalise=divided_by_maximum,
            )
            found.update(zip(known, maps, strict=True))
        if rest:
            found.update(zip(rest, self.plain.maps(prepared, rest, size), strict=True))
        return torch.stack([found[i] for i in class_indices])

    def _view_maps(self, view: View, class_indices: Sequence[int]) -> Tensor:
        features = self.source.features(view)
        feature = features[0] if len(features) == 1 else features[0] + features[1].flip(-1)
        with torch.autocast(feature.device.type, enabled=False):
            maps = similarity_maps(feature, [self.clusters.of_class[i] for i in class_indices])
        return maps[None]


def lpcam_source(
    source: CamSource, config: ExportConfig, *, model: Path, clusters: Path, plain: MapSource
) -> LpcamSource:
    """Read the clusters that stand for the classes of a trained classifier.

    Args:
        source: Its features.
        config: Of the export.
        model: Its file.
        clusters: What `wsss lpcam` made of its features.
        plain: Its CAMs.

    Raises:
        UserError: The classifier has no features, or the clusters are another one's.
    """
    check_features(source.classifier, model)
    channels = source.classifier.class_weights.shape[1]
    known = load_clusters(clusters, model=file_digest(model), channels=channels)
    attributes = {
        **plain.attributes,
        "clusters": file_digest(clusters),
        "normalisation": "divided by the maximum per class",
    }
    return LpcamSource(source, known, plain, attributes)


def check_features(classifier: Classifier, model: Path) -> None:
    """Check that a classifier has what lpcam clusters.

    Raises:
        UserError: Its CAM is not features times class weights.
    """
    if not classifier.gives_features:
        raise UserError(
            "this model has no features that its class weights are multiplied with",
            where=model,
            expected="a convolutional classifier (cam.method acr, cam or oc-cse)",
            fix="set export.refine to none, or to patch-attention",
        )


def save_clusters(path: Path, clusters: Clusters, settings: Mapping[str, Any]) -> None:
    """Write clusters; the same ones give the same bytes."""
    state = {
        f"{kind}.{index}": torch.from_numpy(means)
        for index, one in enumerate(clusters.of_class)
        for kind, means in (("objects", one.objects), ("context", one.context))
        if len(means)
    }
    metadata = {
        "classes": list(clusters.classes),
        "model": clusters.model,
        "settings": dict(settings),
    }
    save_model(path, state, stage=STAGE, metadata=metadata)


def load_clusters(path: Path, *, model: str, channels: int) -> Clusters:
    """Read clusters of a classifier's features.

    Args:
        path: The file.
        model: Digest of the classifier's file.
        channels: D of its features.

    Raises:
        UserError: The file is missing, damaged, or of another classifier.
    """
    state, metadata = load_model_file(path, STAGE)
    if metadata["model"] != model:
        raise UserError(
            "these clusters are of another classifier's features",
            where=path,
            expected="clusters made with the model that is exported",
            fix="make them again: wsss lpcam",
        )
    nothing = torch.zeros(0, channels)
    classes = tuple(metadata["classes"])
    of_class = tuple(
        ClassClusters(
            state.get(f"objects.{index}", nothing).numpy(),
            state.get(f"context.{index}", nothing).numpy(),
        )
        for index in range(len(classes))
    )
    return Clusters(classes, of_class, metadata["model"])
