"""Settings of LPCAM's clusters."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from wsss.runtime.settings import BelowOne, Count, Fraction, Precision, Seed, Settings, impossible


class LpcamConfig(Settings):
    """LPCAM (CVPR 2023): per class, clusters of features that stand for its object and context.

    Used where `export.refine` is `lpcam`.
    """

    clusters: Count = 12
    """Clusters of the features on a class's CAM, and as many of those beside it (LPCAM: 12)."""
    cam_threshold: BelowOne = 0.1
    """What the CAM, divided by its maximum in the image, must be above to count as on it
    (LPCAM: 0.1)."""
    object_probability: Annotated[BelowOne, Field(gt=0)] = 0.9
    """A cluster on the CAM is of the object where the classifier gives its mean feature at least
    this probability for the class (LPCAM: 0.9)."""
    context_min_probability: Fraction = 0.05
    """A cluster beside the CAM is of the context where this probability is between this ..."""
    context_max_probability: Fraction = 0.9
    """... and this."""
    features_per_image: Count = 200
    """Features taken of an image for each of its classes, on the CAM and beside it, at random."""
    features_per_class: Count = 50000
    """Features of a class in all, which bounds the memory: its images give fewer where they are
    many."""
    iterations: Count = 100
    """Iterations of k-means at most."""
    rounds: Count = 1
    """Clusterings in turn. After the first, features are divided by the map that the clusters
    before make of an image instead of by its CAM (ours; LPCAM: 1)."""
    map_threshold: BelowOne = 0.4
    """What that map, divided by its maximum in the image, must be above to count as on the
    class."""
    precision: Precision = "auto"
    """Arithmetic of the network; `auto`: bfloat16 where the device has instructions for it."""
    seed: Seed = 0
    """Decides which features are taken, and where k-means begins."""

    @model_validator(mode="after")
    def _context_has_a_range(self) -> Self:
        if self.context_min_probability > self.context_max_probability:
            raise impossible(
                f"lpcam.context_min_probability is {self.context_min_probability:g} and "
                f"lpcam.context_max_probability {self.context_max_probability:g}",
                key="context_min_probability",
                expected="0 <= context_min_probability <= context_max_probability <= 1",
            )
        return self
