"""What a classifier does not have is said in its name, instead of being nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wsss.models.classifier import Classifier


class Plain(Classifier):
    """A classifier with maps alone."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.mean((2, 3)), x


def test_a_classifier_of_maps_alone() -> None:
    x = torch.rand(2, 3, 4, 5)
    classifier = Plain()
    assert torch.equal(classifier.classify(x), x.mean((2, 3)))
    found = classifier.inference_cam(x)
    assert torch.equal(found.cam, x) and found.attention is None
    assert not classifier.gives_features and not classifier.gives_attention
    with pytest.raises(NotImplementedError, match="Plain has no features"):
        classifier.features(x)
    with pytest.raises(NotImplementedError, match="Plain has no features"):
        _ = classifier.class_weights
    with pytest.raises(NotImplementedError, match="Plain has no attention"):
        classifier.inference_cam(x, attention=True)
    with pytest.raises(NotImplementedError):
        Classifier().forward(x)
