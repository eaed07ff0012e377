"""Every setting of predictions and self-labels, away from its default, does what it says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from crf_recorder import CRF, recorded_crf, settings_of
from PIL import Image
from torch import Tensor, nn

from wsss.data.images import read_label
from wsss.data.index import ImageRecord, Index, write_index
from wsss.models.backbones import IMAGENET
from wsss.runtime.compute import Compute
from wsss.segmentation import inference, prediction
from wsss.segmentation.config import PredictionConfig, SelfLabelsConfig
from wsss.segmentation.prediction import predict_split
from wsss.segmentation.self_labels import make_self_labels

CLASSES = ("red", "blue")
HEIGHT, WIDTH = 44, 60
COMPUTE = Compute(device="cpu", threads=1, workers=0)
# Reduced to 48 x 35 px, seen at that and at 38 x 28, in windows of 32 px, as it stands.
VIEWS: dict[str, Any] = {
    "scales": (1.0, 0.8),
    "mirror": False,
    "long_side_limit_px": 48,
    "window_px": 32,
}


class Tiny(nn.Module):
    """A network that sees five pixels to the right, and so where its window ends."""

    padding_stride = 1
    backbone = SimpleNamespace(normalisation=IMAGENET)

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 3, 3, 5, generator=generator))
        self.dtypes: set[torch.dtype] = set()

    def forward(self, x: Tensor) -> Tensor:
        logits = F.conv2d(F.pad(x, (0, 4, 1, 1), value=1.0), self.weight)
        self.dtypes.add(logits.dtype)
        return logits


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """The network of every model file."""
    found = Tiny()
    file = SimpleNamespace(
        load=lambda path: SimpleNamespace(network=found, classes=CLASSES),
        classes=lambda path: CLASSES,
    )
    monkeypatch.setattr(prediction, "SEGMENTATION", file)
    monkeypatch.setattr(inference, "lean_network", lambda network, dtype: network)
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of a training, a validation and another set, and no model."""
    root = tmp_path_factory.mktemp("data")
    rng, records = np.random.default_rng(1), []
    for name, tags in (("train", ("blue",)), ("val", ("red",)), ("mine", ("red",))):
        small = rng.integers(0, 256, (HEIGHT // 4, WIDTH // 4, 3), dtype=np.uint8)
        smooth = Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
        smooth.save(root / f"{name}.png")
        records.append(ImageRecord(name, (name,), tags, WIDTH, HEIGHT, f"{name}.png"))
    write_index(Index(CLASSES, tuple(records)), root / "index.csv")
    return root


def naive(
    network: Tiny,
    path: Path,
    *,
    scales: tuple[float, ...],
    mirror: bool,
    long_side_limit_px: int | None,
    window_px: int | None,
) -> np.ndarray:
    """Return (3, H, W) float64 probabilities: of every view by itself, then their mean."""
    pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None]
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET.mean, IMAGENET.std))
    reduced = 1.0 if long_side_limit_px is None else min(1.0, long_side_limit_px / WIDTH)
    views = []
    for scale in scales:
        size = [round(side * scale * reduced) for side in (HEIGHT, WIDTH)]
        view = pixels
        if size != [HEIGHT, WIDTH]:
            view = F.interpolate(pixels, size=size, mode="bicubic", antialias=True)
        image = (view / 255 - mean) / std
        for flipped in (False, True)[: 1 + mirror]:
            x = image.flip(-1) if flipped else image
            logits, seen = torch.zeros_like(x), torch.zeros(size)
            side = window_px or max(size)
            for top in starts(size[0], side):
                for left in starts(size[1], side):
                    part = (..., slice(top, top + side), slice(left, left + side))
                    logits[part] += network(x[part]).detach()
                    seen[part] += 1
            full = F.interpolate(
                logits / seen, size=(HEIGHT, WIDTH), mode="bilinear", align_corners=False
            )
            shares = full.double().softmax(dim=1)[0]
            views.append(shares.flip(-1) if flipped else shares)
    return torch.stack(views).mean(dim=0).numpy()


def starts(length: int, window: int) -> list[int]:
    """Where windows begin: as few as share a third, spread evenly."""
    if length <= window:
        return [0]
    gaps = 1
    while 3 * (length - window) > 2 * window * gaps:
        gaps += 1
    return [round(i * (length - window) / gaps) for i in range(gaps + 1)]


def rarely_differs(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Say whether labels are equal but where rounding decides."""
    return bool((found != wanted).mean() < 5e-3)


def predict(data: Path, made: Path, **settings: Any) -> np.ndarray:
    predict_split(
        config=PredictionConfig(split="mine", **settings),
        model=data / "none",
        index=data / "index.csv",
        root=data,
        output=made / "labels",
        output_crf=made / "crf" if settings.get("crf", True) else None,
        compute=COMPUTE,
    )
    (path,) = (made / "labels").glob("*.png")
    assert path.name == "mine.png"
    return read_label(path)


@pytest.mark.setting(
    "prediction.scales",
    "prediction.mirror",
    "prediction.long_side_limit_px",
    "prediction.window_px",
    "prediction.split",
)
def test_a_prediction_sees_the_views_that_are_set(
    data: Path, tmp_path: Path, network: Tiny
) -> None:
    found = predict(data, tmp_path, **VIEWS, crf=False)
    path = data / "mine.png"
    assert rarely_differs(found, naive(network, path, **VIEWS).argmax(axis=0))
    for key in VIEWS:
        default = PredictionConfig.model_fields[key].default
        other = naive(network, path, **{**VIEWS, key: default})
        assert not rarely_differs(found, other.argmax(axis=0)), key


@pytest.mark.setting("prediction.precision", "self_labels.precision")
def test_the_arithmetic_is_of_the_type_that_is_set(
    data: Path, tmp_path: Path, network: Tiny
) -> None:
    # What `auto` is follows from the machine's instructions: it cannot be both of these.
    for precision, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        made = tmp_path / precision
        predict(data, made, scales=(1.0,), crf=False, precision=precision)
        assert network.dtypes == {dtype}
        network.dtypes.clear()
        label(data, made, scales=(1.0,), crf=False, precision=precision)
        assert network.dtypes == {dtype}
        network.dtypes.clear()


@pytest.mark.setting(
    "prediction.crf_settings.gaussian_sxy",
    "prediction.crf_settings.gaussian_compat",
    "prediction.crf_settings.bilateral_sxy",
    "prediction.crf_settings.bilateral_srgb",
    "prediction.crf_settings.bilateral_compat",
    "prediction.crf_settings.iterations",
)
def test_the_crf_after_a_prediction_is_given_what_is_set(
    data: Path, tmp_path: Path, network: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = recorded_crf(monkeypatch)
    found = predict(data, tmp_path, **VIEWS, crf_settings=CRF)
    (call,) = calls
    assert settings_of(call) == CRF
    assert (call["image"] == np.array(Image.open(data / "mine.png"))).all()
    assert (read_label(tmp_path / "crf" / "mine.png") == found).all()


# ----- self-labels


def label(data: Path, made: Path, **settings: Any) -> np.ndarray:
    make_self_labels(
        config=SelfLabelsConfig(**settings),
        model=data / "none",
        index=data / "index.csv",
        root=data,
        output=made / "self",
        compute=COMPUTE,
    )
    return read_label(made / "self" / "train.png")


@pytest.mark.setting(
    "self_labels.scales",
    "self_labels.mirror",
    "self_labels.long_side_limit_px",
    "self_labels.window_px",
    "self_labels.crf",
    "self_labels.background_weight",
    "self_labels.confidence",
)
def test_self_labels_see_the_views_that_are_set(
    data: Path, tmp_path: Path, network: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = recorded_crf(monkeypatch)
    chosen = {"background_weight": 0.5, "confidence": 0.9}

    def wanted(*, background_weight: float, confidence: float, **views: Any) -> np.ndarray:
        found = naive(network, data / "train.png", **views)
        # The picture is tagged with the second class alone.
        background, blue = background_weight * found[0], found[2]
        share = blue / (background + blue)
        sure = np.maximum(share, 1 - share) >= confidence
        return np.where(sure, np.where(share > 0.5, 2, 0), 255)

    found = label(data, tmp_path, **VIEWS, **chosen, crf=False)
    assert calls == []
    assert rarely_differs(found, wanted(**VIEWS, **chosen))
    for key in (*VIEWS, *chosen):
        default = SelfLabelsConfig.model_fields[key].default
        assert not rarely_differs(found, wanted(**{**VIEWS, **chosen, key: default})), key


@pytest.mark.setting(
    "self_labels.crf_settings.gaussian_sxy",
    "self_labels.crf_settings.gaussian_compat",
    "self_labels.crf_settings.bilateral_sxy",
    "self_labels.crf_settings.bilateral_srgb",
    "self_labels.crf_settings.bilateral_compat",
    "self_labels.crf_settings.iterations",
)
def test_the_crf_of_self_labels_is_given_what_is_set(
    data: Path, tmp_path: Path, network: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = recorded_crf(monkeypatch)
    label(data, tmp_path, **VIEWS, crf_settings=CRF)
    (call,) = calls
    assert settings_of(call) == CRF
    assert (call["image"] == np.array(Image.open(data / "train.png"))).all()
