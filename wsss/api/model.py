"""A trained model for use from Python."""

from __future__ import annotations

import copy
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from wsss.api.files import find_model, prediction_settings
from wsss.data.images import probe_image, read_image, upright_rgb
from wsss.errors import UserError
from wsss.models.deeplab import DeepLab
from wsss.runtime.compute import Device
from wsss.runtime.settings import replace
from wsss.segmentation.config import PredictionConfig, SegmentationConfig
from wsss.segmentation.inference import class_probabilities, segmenter, views_of
from wsss.segmentation.model_file import SEGMENTATION
from wsss.segmentation.overlay import overlay
from wsss.segmentation.refine import refine

Picture = str | os.PathLike[str] | Image.Image | npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Result:
    """What a model found in a picture.

    Attributes:
        image: (H, W, 3) uint8 RGB: the picture itself, upright.
        mask: (H, W) uint8: 0 is background, `i` is `classes[i - 1]`.
        probabilities: (1 + number of classes, H, W) float32: background first, summing to 1. They
            are the network's; where the CRF refines, only the mask is the CRF's.
        classes: Names of all classes that the model knows, without background.
    """

    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float32]
    classes: tuple[str, ...]

    @property
    def found(self) -> dict[str, float]:
        """Classes in the mask, the largest first, each with its share of the picture, 0..1."""
        counts = np.bincount(self.mask.reshape(-1), minlength=len(self.classes) + 1)[1:]
        order = np.argsort(-counts, kind="stable")
        return {self.classes[i]: float(counts[i] / self.mask.size) for i in order if counts[i]}

    def overlay(self) -> Image.Image:
        """Return the picture with its classes coloured and a legend below, to look at."""
        return Image.fromarray(overlay(self.image, self.mask, self.classes, self.probabilities))

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        file = io.BytesIO()
        self.overlay().save(file, format="PNG")
        return file.getvalue()


class Model:
    """A trained segmentation model; `load` makes one. It can be used any number of times.

    Attributes:
        path: The file it came from.
        classes: Names without background; label `i` of a mask is `classes[i - 1]`.
        settings: What it was trained with.
        prediction: Scales, mirror and CRF that `predict` uses.
    """

    def __init__(self, path: Path, prediction: PredictionConfig, *, device: str = "auto") -> None:
        trained = SEGMENTATION.load(path)
        self.path = path
        self.classes: tuple[str, ...] = trained.classes
        self.settings: SegmentationConfig = trained.settings
        self.prediction = prediction
        self._device = Device(device=device).torch_device()
        self._network = trained.network
        # What is applied is a copy with its normalisations folded in, so that `network` is whole.
        self._segments = segmenter(
            copy.deepcopy(trained.network),
            precision=prediction.precision,
            device=self._device,
            window_px=prediction.window_px,
        )

    @property
    def network(self) -> DeepLab:
        """The network as it was trained, in eval mode, on the CPU: a `torch.nn.Module`.

        It takes (B, 3, H, W) float, normalised by `network.backbone.normalisation`, and returns
        logits. Changing it does not change what `predict` does.
        """
        return self._network

    def predict(self, picture: Picture, *, crf: bool | None = None) -> Result:
        """Segment one picture.

        Args:
            picture: A file; a Pillow image; or (H, W, 3) RGB or (H, W) grey, uint8.
            crf: Refine the mask with the dense CRF; None: as the run's settings say.

        Raises:
            UserError: The file is missing or damaged, or the array has another shape or type.
        """
        image = _as_array(picture)
        views = views_of(image, self.prediction.scales, self.prediction.long_side_limit_px)
        found = class_probabilities(self._segments, views, mirror=self.prediction.mirror)
        probabilities: npt.NDArray[np.float32] = found.cpu().numpy()
        if self.prediction.crf if crf is None else crf:
            mask = refine(image, probabilities, self.prediction.crf_settings)
        else:
            mask = np.asarray(probabilities.argmax(axis=0), dtype=np.uint8)
        return Result(image, mask, probabilities, self.classes)

    def __repr__(self) -> str:
        return f"<wsss model {self.path}: {', '.join(self.classes)}>"


def load(path: str | os.PathLike[str], *, device: str = "auto", **prediction: Any) -> Model:
    """Load a trained model.

    Args:
        path: `results/<run>`, a folder with `model.safetensors` (as `wsss export-model --format
            huggingface` writes it, or a download from there), or a model file.
        device: auto (a GPU if there is one), cpu, cuda or cuda:N.
        prediction: Settings of the prediction that are to differ from the run's, such as
            `scales=(1.0,)`, `mirror=False` or `crf=False`.

    Returns:
        The model. Its settings of prediction are the run's, or those of `config.json` beside it;
        those of a file alone, the defaults.

    Raises:
        UserError: There is no model, it is damaged, or a setting is unknown or impossible.

    Examples:
        >>> model = wsss.load("results/mine")  # doctest: +SKIP
        >>> model.predict("holiday.jpg").found  # doctest: +SKIP
        {'dog': 0.31, 'sofa': 0.22}
    """
    model = find_model(Path(path))
    return Model(model, replace(prediction_settings(model), **prediction), device=device)


def _as_array(picture: Picture) -> npt.NDArray[np.uint8]:
    """Return (H, W, 3) uint8 RGB."""
    if isinstance(picture, Image.Image):
        return upright_rgb(picture)
    if not isinstance(picture, np.ndarray):
        probe_image(picture)  # nobody has looked at it before, as the index stage does
        return read_image(picture)
    if (
        picture.dtype != np.uint8
        or picture.shape[2:] not in ((), (3,))
        or picture.ndim < 2
        or not picture.size
    ):
        raise UserError(
            f"this picture is an array {picture.shape} of {picture.dtype}",
            expected="(H, W, 3) RGB or (H, W) grey, uint8 in 0..255",
            fix="(255 * array).round().astype(np.uint8) for values in 0..1, "
            "array.transpose(1, 2, 0) for channels first",
        )
    colour = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
    return np.ascontiguousarray(colour)
