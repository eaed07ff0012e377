"""The released ACR checkpoint as model files, as if a training had written them."""

from __future__ import annotations

from pathlib import Path

from wsss.cam.config import CamSettings
from wsss.cam.methods.acr_config import AcrSettings
from wsss.cam.model_file import CLASSIFIER, RECONSTRUCTOR
from wsss.data.index import read_index
from wsss.errors import UserError
from wsss.files.marks import check_file_replaceable
from wsss.models.config import RESNET38
from wsss.models.model_file import is_model
from wsss.models.published.acr_checkpoint import load_acr_checkpoint
from wsss.models.reconstructor import CamClassifier


def import_acr(
    checkpoint: Path,
    *,
    config: CamSettings,
    index: Path,
    output: Path,
    reconstructor_output: Path | None = None,
) -> None:
    """Write the classifier, and the reconstructor if wanted, of the authors' checkpoint.

    Args:
        checkpoint: The Lightning file.
        config: Settings of a run with ResNet-38 and the `official` forms, such as `voc-official`.
        index: `index.csv`, for its class list; the checkpoint's order is VOC's.
        output: Model file of the classifier.
        reconstructor_output: Model file of the reconstructor.

    Raises:
        UserError: The settings are of other networks, or the file does not fit them.
    """
    for path in filter(None, (output, reconstructor_output)):
        check_file_replaceable(path, is_model, "a model of wsss")
    networks: dict[str, object] = {"method": config.method}
    if isinstance(config, AcrSettings):
        networks["backbone.name"] = config.backbone.name
        networks["head"] = config.head
        networks["acr.preset"] = config.acr.preset
    expected = ("acr", RESNET38, "official", "official")
    if not isinstance(config, AcrSettings) or tuple(networks.values()) != expected:
        raise UserError(
            "the settings are of other networks than the checkpoint: "
            + ", ".join(map(str, networks.values())),
            where=", ".join(networks),
            expected=", ".join(expected),
            fix="use those of the run voc-official",
        )
    classes = read_index(index).classes
    classifier = CLASSIFIER.untrained(config, len(classes))
    assert isinstance(classifier, CamClassifier)
    reconstructor = None
    if reconstructor_output is not None:
        reconstructor = RECONSTRUCTOR.untrained(config, len(classes))
    for name, loaded in load_acr_checkpoint(checkpoint, classifier, reconstructor).items():
        print(f"{name}: {len(loaded.used)} tensors used, {len(loaded.left_out)} left out")
    training = {"steps": 0, "epochs": 0, "images": 0}
    if reconstructor_output is not None and reconstructor is not None:
        RECONSTRUCTOR.save(
            reconstructor_output, reconstructor, config, classes=classes, training=training
        )
    CLASSIFIER.save(output, classifier, config, classes=classes, training=training)
