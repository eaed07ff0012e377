"""What CAM methods train and CAMs are read from, whatever network it is."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from wsss.models.backbones import Normalisation


class InferenceCam(NamedTuple):
    """A batch's CAMs, and the attention to refine them with.

    Attributes:
        cam: (B, C, h, w), what is above zero speaks for the class.
        attention: (B, N, N) float32, patch to patch, N = h * w; None unless asked for.
    """

    cam: Tensor
    attention: Tensor | None


class Classifier(nn.Module):
    """Base of the networks that classify images and yield CAMs.

    Attributes:
        normalisation: What the input must be normalised with.
        size_multiple: The input's sides must be multiples of this, in pixels.
        map_epsilon: What the max-min normalisation of exported maps takes for nothing; small
            against the CAMs of this network.
        gives_attention: Whether `inference_cam` has attention to give.
        gives_features: Whether its CAM is features times class weights, and it gives both.
    """

    normalisation: Normalisation
    size_multiple: int = 1
    map_epsilon: float = 1e-5
    gives_attention: bool = False
    gives_features: bool = False

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Classify normalised images, with gradient through both results.

        Args:
            x: float (B, 3, H, W).

        Returns:
            Class logits, float (B, C), or (B, S, C) of a network with S scores, whose losses are
            added up; and the CAM before any normalisation, (B, C, h, w).
        """
        raise NotImplementedError

    def classify(self, x: Tensor) -> Tensor:
        """Return the class logits alone, as `forward` does."""
        return self.forward(x)[0]

    @property
    def class_weights(self) -> Tensor:
        """The last layer's weights, (C, D): features times these are the CAM."""
        raise NotImplementedError(f"{type(self).__name__} has no features")

    def features(self, x: Tensor) -> Tensor:
        """Return what the class weights are multiplied with, (B, D, h, w).

        Args:
            x: float (B, 3, H, W), normalised; only where `gives_features`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no features")

    def inference_cam(self, x: Tensor, *, attention: bool = False) -> InferenceCam:
        """Return the CAMs to export, without gradient in mind.

        Args:
            x: float (B, 3, H, W), normalised; sides multiples of `size_multiple`.
            attention: Whether to give attention, too; only where `gives_attention`.
        """
        if attention:
            raise NotImplementedError(f"{type(self).__name__} has no attention")
        return InferenceCam(self.forward(x)[1], None)
