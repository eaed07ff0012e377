"""IRN's published weights as a model file, as if a training had written it."""

from __future__ import annotations

from pathlib import Path

from wsss.errors import UserError
from wsss.files.marks import check_file_replaceable
from wsss.irn.config import IrnConfig
from wsss.irn.model_file import IRNET
from wsss.models.irnet import load_irn_checkpoint
from wsss.models.model_file import is_model


def import_irn(checkpoint: Path, *, config: IrnConfig, output: Path) -> None:
    """Write the model file of `res50_irn.pth`.

    Args:
        checkpoint: The published file.
        config: Settings of a run with IRN's ResNet-50, such as `voc`.
        output: Model file to write.

    Raises:
        UserError: The settings are of another network, or the file does not fit it.
    """
    check_file_replaceable(output, is_model, "a model of wsss")
    found = (config.backbone.name, config.backbone.output_stride, config.dilation)
    if found != ("resnet50", 16, False):
        raise UserError(
            f"the settings are of another network: {found[0]}, stride {found[1]}"
            + (", dilated" if found[2] else ""),
            where="backbone, dilation",
            expected="resnet50, stride 16, not dilated",
            fix="use those of the run voc",
        )
    network = IRNET.untrained(config, 0)
    loaded = load_irn_checkpoint(network, checkpoint)
    print(f"IRNet: {len(loaded.used)} tensors used, {len(loaded.left_out)} left out")
    IRNET.save(output, network, config, training={"imported": checkpoint.name})
