"""The released ACR checkpoint (a Lightning file): its tensor names to our modules'."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from wsss.errors import UserError
from wsss.models.reconstructor import CamClassifier, Reconstructor
from wsss.models.resnet38 import rename_from_pytorch
from wsss.models.weights import LoadReport, load_strict, read_state_dict

CLASSIFIER_PREFIX = "net_main."
RECONSTRUCTOR_PREFIX = "net_recon."

_HEAD = {"fc8.weight": "head.hidden.weight", "fc9.weight": "head.classes.weight"}
# In the order X is concatenated: from b5's and b6's input, and from the final feature.
_GATHER = {
    "dr1.weight": "gather.0.weight",
    "dr2.weight": "gather.1.weight",
    "fc_recon.weight": "gather.2.weight",
}
_UNET = re.compile(r"genUnet\.(down|up)(\d)\.model\.0\.weight")
_COLOUR = {
    "genUnet.final.1.weight": "decoder.colour.weight",
    "genUnet.final.1.bias": "decoder.colour.bias",
}


def _classifier_name(name: str) -> str:
    if name in _HEAD:
        return _HEAD[name]
    renamed = rename_from_pytorch(name)
    # Names that are not the backbone's own stay unknown, so that loading reports them.
    known = renamed != name or name == "conv1a.weight"
    return f"backbone.body.{renamed}" if known else name


def _reconstructor_name(name: str) -> str:
    if name in _GATHER:
        return _GATHER[name]
    if name in _COLOUR:
        return _COLOUR[name]
    block = _UNET.fullmatch(name)
    if block:
        return f"decoder.{block[1]}.{int(block[2]) - 1}.0.weight"
    return f"encoder.{_classifier_name(name)}"


def _is_decoders(name: str) -> bool:
    return name in _GATHER or name in _COLOUR or name.startswith("genUnet.")


def _after_prefix(prefix: str, inner: Callable[[str], str]) -> Callable[[str], str]:
    def rename(name: str) -> str:
        return inner(name.removeprefix(prefix)) if name.startswith(prefix) else name

    return rename


def load_classifier(
    classifier: CamClassifier, state: Mapping[str, Tensor], *, where: object | None = None
) -> LoadReport:
    """Load the released classifier into ours (resnet38, head `official`).

    Left out: the reconstructor, and the decoder and 1x1 gatherers that the classifier carries
    without using them.

    Raises:
        UserError: A tensor is missing, unknown or of another shape.
    """

    def unused(name: str) -> bool:
        return name.startswith(RECONSTRUCTOR_PREFIX) or (
            name.startswith(CLASSIFIER_PREFIX)
            and _is_decoders(name.removeprefix(CLASSIFIER_PREFIX))
        )

    return load_strict(
        classifier,
        state,
        rename=_after_prefix(CLASSIFIER_PREFIX, _classifier_name),
        leave_out=unused,
        where=where,
    )


def load_reconstructor(
    reconstructor: Reconstructor, state: Mapping[str, Tensor], *, where: object | None = None
) -> LoadReport:
    """Load the released reconstructor into ours (resnet38, official head and decoder).

    Left out: the classifier.

    Raises:
        UserError: A tensor is missing, unknown or of another shape.
    """
    return load_strict(
        reconstructor,
        state,
        rename=_after_prefix(RECONSTRUCTOR_PREFIX, _reconstructor_name),
        leave_out=lambda name: name.startswith(CLASSIFIER_PREFIX),
        where=where,
    )


def load_acr_checkpoint(
    path: str | Path,
    classifier: CamClassifier,
    reconstructor: Reconstructor | None = None,
) -> dict[str, LoadReport]:
    """Load the released checkpoint file.

    Args:
        path: The Lightning file.
        classifier: ResNet-38 with the `official` head, filled in place.
        reconstructor: With the official head and decoder; None leaves it out.

    Returns:
        What was used and left out, under `classifier` and `reconstructor`.

    Raises:
        UserError: The file is not readable as plain weights, or does not fit.
    """
    state = read_state_dict(path)
    if not any(name.startswith(CLASSIFIER_PREFIX) for name in state):
        raise UserError(
            "this file has no classifier of the released ACR code",
            where=path,
            expected=f"tensors named {CLASSIFIER_PREFIX}*, and {RECONSTRUCTOR_PREFIX}*",
        )
    reports = {"classifier": load_classifier(classifier, state, where=path)}
    if reconstructor is not None:
        reports["reconstructor"] = load_reconstructor(reconstructor, state, where=path)
    return reports
