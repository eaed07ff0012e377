"""Settings that do not go together are refused at their own place; the nearest others are not."""

from __future__ import annotations

from typing import Any

import pytest

from wsss.cam.lpcam_config import LpcamConfig
from wsss.cam.methods.registry import METHODS
from wsss.errors import UserError
from wsss.evaluation.config import EvaluationConfig
from wsss.irn.config import IrnConfig, LabelsConfig
from wsss.models.config import BackboneConfig
from wsss.models.heads.registry import HEADS
from wsss.runtime.settings import Settings, parse
from wsss.segmentation.config import SegmentationConfig

Values = dict[str, Any]
PLACES: dict[str, type[Settings]] = {
    "lpcam": LpcamConfig,
    "backbone": BackboneConfig,
    "segmentation": SegmentationConfig,
    "labels": LabelsConfig,
    "irn": IrnConfig,
    "evaluation": EvaluationConfig,
}


def read(where: str, values: Values) -> Settings:
    """Read settings as those of a place in the configuration."""
    if where == "cam":
        return METHODS.parse(values, where=where)
    return (
        HEADS.parse(values, where=where)
        if where == "head"
        else parse(PLACES[where], values, where=where)
    )


def acr(**values: Any) -> Values:
    return {"epochs": 4, "acr": values}


def vit(method: str = "mct", acr: Values | None = None, **values: Any) -> Values:
    own = {"warmup_epochs": 1.0, "learning_rate_at_512": 0.1, **values}
    return {"method": method, "epochs": 4, "vit": own} | ({"acr": acr} if acr else {})


def method(name: str, **values: Any) -> Values:
    return {"method": name, **values}


def trained(name: str, section: str, **values: Any) -> Values:
    return {"method": name, "epochs": 4, section: values}


VIT = {"name": "vit_tiny_patch16_224", "weights": "none", "output_stride": None}
RESNET38 = {"name": "resnet38", "weights": "none", "output_stride": 8}
LOW = 1e-5 * 512 / 16
# The place, what is refused there, and what is nearest to it and is not.
REFUSED: list[tuple[str, Values, Values | None]] = [
    ("cam.long_side_min_px", {"long_side_min_px": 601, "long_side_max_px": 600},
     {"long_side_min_px": 600, "long_side_max_px": 600}),
    ("cam.acr.grid_min", acr(grid_min=5, grid_max=4), acr(grid_min=4, grid_max=4)),
    ("cam.acr.feature_levels", acr(feature_levels=[1], feature_channels=[4, 4]),
     acr(feature_levels=[1], feature_channels=[4])),
    ("cam.acr.feature_levels", acr(feature_levels=[], feature_channels=[]), None),
    ("cam.acr.schedule", acr(schedule={"classifier_epochs": 4}),
     acr(schedule={"classifier_epochs": 3})),
    ("cam.acr.schedule", acr(schedule={"classifier_epochs": 1, "reconstructor_epochs": 3}),
     acr(schedule={"classifier_epochs": 1, "reconstructor_epochs": 2})),
    ("cam.acr.anchor", acr(anchor=0.5), acr(anchor=0.5, schedule={"classifier_epochs": 1})),
    ("cam.acr.decode_px", acr(decode_px=100), acr(decode_px=96)),
    ("cam.acr.decode_px", acr(decode_px=0), None),
    ("cam.crop_px", {"crop_px": 100, "acr": {"decode_px": None}},
     {"crop_px": 96, "acr": {"decode_px": None}}),
    ("cam.occse.anchor", trained("oc-cse", "occse", classifier_epochs=0),
     trained("oc-cse", "occse", classifier_epochs=0, anchor_from="plain")),
    ("cam.occse.classifier_epochs", trained("oc-cse", "occse", classifier_epochs=4),
     trained("oc-cse", "occse", classifier_epochs=3)),
    ("cam.recam.classifier_epochs", trained("recam", "recam", classifier_epochs=4),
     trained("recam", "recam", classifier_epochs=3)),
    *(("cam.vit.weights", vit(weights=name), None) for name in ("", "package", "hub")),
    ("cam.vit.warmup_epochs", vit(warmup_epochs=4.5), vit(warmup_epochs=4.0)),
    ("cam.vit.learning_rate_at_512", {**vit(learning_rate_at_512=0.9 * LOW), "batch_size": 16},
     {**vit(learning_rate_at_512=1.1 * LOW), "batch_size": 16}),
    ("cam.acr.schedule", vit("acr-vit", {"schedule": {"classifier_epochs": 1}}),
     vit("acr-vit", {"schedule": {"ramp_epochs": 1}})),
    ("cam.acr.balance", vit("acr-vit", {"balance": 1.0}), vit("acr-vit", {"balance": None})),
    ("cam.template", method("clip-es", template="a photo"), method("clip-es", template="a {}")),
    ("cam.template", method("clip-es", template="a {} {}"), None),
    ("cam.template", method("clip-es", template="a {} {"), None),
    ("cam.clip.weights", method("clip-es", clip={"weights": "none"}),
     method("clip-es", clip={"weights": "hub"})),
    ("cam.clip.weights", method("clip-es", clip={"weights": ""}), None),
    ("cam.cams_from", method("imported", kind="masks"),
     method("imported", kind="masks", cams_from="a")),
    ("lpcam.context_min_probability",
     {"context_min_probability": 0.6, "context_max_probability": 0.5},
     {"context_min_probability": 0.5, "context_max_probability": 0.5}),
    ("backbone.layers", {"name": "resnet50", "weights": "none", "layers": [0]},
     {**VIT, "layers": [0]}),
    ("backbone.frozen", {"name": "resnet50", "weights": "none", "frozen": True},
     {**VIT, "frozen": True}),
    ("backbone.final_conv", {**VIT, "final_conv": True}, VIT),
    ("backbone.output_stride", {**RESNET38, "output_stride": 16}, RESNET38),
    ("backbone.final_conv", {**RESNET38, "final_conv": True}, None),
    ("backbone.weights", {"name": "resnet50", "weights": "package"},
     {"name": "tf_efficientnet_lite0", "weights": "package"}),
    ("backbone.weights", {"name": "resnet50", "weights": "hub"},
     {"name": "resnet50", "weights": "timm"}),
    ("backbone.weights", {"name": "resnet50", "weights": ""}, None),
    ("backbone.weights", {**RESNET38, "weights": "timm"}, {**RESNET38, "weights": "key"}),
    ("head.rates", {"name": "largefov", "rates": [6, 12]}, {"name": "largefov", "rates": [12]}),
    ("segmentation.scale_min", {"scale_min": 1.1, "scale_max": 1.0},
     {"scale_min": 1.0, "scale_max": 1.0}),
    ("segmentation.scale_min", {"scale_min": 0.0}, None),
    ("segmentation.loss_scales", {"loss_scales": [0.5, 1.0]}, {"loss_scales": [1.0, 0.5]}),
    ("segmentation.loss_scales", {"loss_scales": [1.0, 1.5]}, {"loss_scales": [1.0, 1.0]}),
    ("segmentation.loss_scales", {"loss_scales": [1.0, 0.0]}, None),
    ("segmentation.loss_scales", {"loss_scales": []}, {"loss_scales": [1.0]}),
    ("labels.background_threshold", {"background_threshold": 0.4, "foreground_threshold": 0.3},
     {"background_threshold": 0.3, "foreground_threshold": 0.3}),
    ("labels.background_threshold", {"background_threshold": 0.0}, {"background_threshold": 0.001}),
    ("labels.background_threshold", {"foreground_threshold": 1.0}, {"foreground_threshold": 0.999}),
    ("irn.crop_px", {"radius": 4, "crop_px": 27}, {"radius": 4, "crop_px": 28}),
    ("irn.scale_min", {"scale_min": 1.1, "scale_max": 1.0}, {"scale_min": 1.0, "scale_max": 1.0}),
    ("irn.scale_min", {"scale_min": 0.0}, {"scale_min": 0.01}),
    ("evaluation.sweep_last", {"sweep_first": 0.5, "sweep_last": 0.4},
     {"sweep_first": 0.5, "sweep_last": 0.5}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("where", "values", "nearest"),
    REFUSED,
    ids=[f"{n}-{case[0]}" for n, case in enumerate(REFUSED)],
)
def test_it_is_refused_where_it_is(where: str, values: Values, nearest: Values | None) -> None:
    section = where.partition(".")[0]
    with pytest.raises(UserError) as caught:
        read(section, values)
    assert caught.value.where == where and caught.value.expected
    if nearest is not None:
        read(section, nearest)


def test_what_a_side_can_bear_is_said() -> None:
    with pytest.raises(UserError) as caught:
        read("cam", acr(decode_px=100))
    assert caught.value.expected == "a multiple of 32: 32, 64, 96, 128, ..."
    assert caught.value.fix == (
        "set cam.acr.decode_px to one of these, or acr.decoder_depth to at most 2"
    )
    with pytest.raises(UserError) as caught:
        read("cam", acr(decode_px=99))
    assert caught.value.fix == "set cam.acr.decode_px to one of these"
